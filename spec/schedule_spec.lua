-- Schedules: what optimizers do with them. Their numbers are compared with PyTorch's in parity_spec.lua.
local gr = require "gradrun"
local S = gr.schedule

local function parameter()
  local p = gr.zeros({ 3 }, { requires_grad = true })
  p.grad = gr.ones(3)
  return p
end

local function rates(opt, name, steps)
  local list = {}
  for k = 1, steps do
    opt:step()
    list[k] = opt[name]
  end
  return list
end

describe("an optimizer's hyper-parameter", function()
  it("is asked of its schedule before every step", function()
    local p = parameter()
    local opt = gr.optim.SGD({ p }, { lr = 1 })
    opt.lr = function(step) return 10 ^ -step end
    assert.same({ 0.1, 0.01, 0.001 }, rates(opt, "lr", 3))
    assert.near(-0.111, p[1]:item(), 1e-7)
  end)

  it("may be any number, given at construction, to all groups or to one", function()
    local opt = gr.optim.AdamW({ { params = { parameter() } }, { params = { parameter() }, lr = 7 },
      { params = { parameter() }, lr = function() return 9 end } },
      { lr = S.linear(0, 1, { steps = 4 }), weight_decay = function(step) return step / 100 end })
    opt:step()
    opt:step()
    assert.same({ 0.25, 7.0, 9.0 }, { opt.groups[1].lr, opt.groups[2].lr, opt.groups[3].lr })
    for _, g in ipairs(opt.groups) do assert.equal(0.02, g.weight_decay) end
    opt:add_group { params = { parameter() }, lr = function(step) return step end }
    opt:step()
    assert.equal(3.0, opt.groups[4].lr)
  end)

  it("is told step, optimizer, group, name and value", function()
    local opt, seen = gr.optim.SGD({ parameter() }, { lr = 0.5 }), nil
    opt.groups[1].momentum = function(step, state)
      seen = { step, state.optimizer == opt, state.group, state.name, state.value }
      return 0.9
    end
    opt:step()
    assert.same({ 1, true, 1, "momentum", 0.0 }, seen)
  end)

  it("is a number again once it was set to one", function()
    local opt = gr.optim.SGD({ parameter() }, { lr = S.constant(0.5) })
    opt:step()
    opt.lr = 2
    opt:step()
    assert.equal(2.0, opt.lr)
  end)

  it("stays what it was when it is set to what it cannot be", function()
    local opt = gr.optim.SGD({ { params = { parameter() } }, { params = { parameter() }, lr = 0.25 } }, { lr = 0.5 })
    local dropout = gr.nn.Dropout(0.5)
    for _, bad in ipairs { -1, 0 / 0, 1 / 0, "x", {}, gr.ones(2), false } do
      assert.error_matches(function() opt.lr = bad end, "SGD: lr is [^\n]*, expected")
      assert.error_matches(function() opt.groups[2].lr = bad end, "SGD: lr is [^\n]*, expected")
      assert.error_matches(function() dropout.p = bad end, "Dropout: p is [^\n]*, expected")
    end
    assert.error_matches(function() opt.lr = gr.ones(2) end, "lr is a Tensor, expected a number")
    assert.error_matches(function() opt.lr = "fast" end, "lr is 'fast', expected a number")
    assert.error_matches(function() opt.lr = -1e300 end, "lr is %-1e%+300, expected at least 0")
    assert.same({ 0.5, 0.25, 0.5 }, { opt.groups[1].lr, opt.groups[2].lr, dropout.p })
    opt.lr = function() return -1 end
    assert.error_matches(function() opt:step() end, "lr is %-1")
    assert.equal(0.5, opt.lr)
  end)

  it("stops the step when its schedule fails, or gives no number, or one out of range", function()
    local p = parameter()
    local opt = gr.optim.SGD({ p })
    for message, f in pairs {
      ["the schedule of lr in group 1 gave a nil, expected a number"] = function() end,
      ["boom"] = function() error "boom" end,
      ["lr is %-1"] = function() return -1 end,
    } do
      opt.lr = f
      assert.error_matches(function() opt:step() end, message)
    end
    assert.equal(0, opt:steps())
    assert.equal(0.0, p[1]:item())
    assert.error_matches(function() gr.optim.SGD({ p }, { nesterov = S.constant(1) }) end, "expected true or false")
  end)
end)

describe("schedules", function()
  it("stay where they ended", function()
    for _, f in ipairs { S.linear(1, 0.5, { steps = 3 }), S.cosine(1, { steps = 3, min = 0.5 }),
                         S.warmup(0.5, { steps = 3 }) } do
      assert.near(0.5, f(4), 1e-15)
      assert.near(0.5, f(1000), 1e-15)
    end
    local cycle = S.one_cycle(1, { steps = 10 })
    assert.near(1 / 25 / 1e4, cycle(10), 1e-15)
    assert.equal(cycle(10), cycle(11))
  end)

  it("pass a phase that has no steps", function()
    for _, three in ipairs { false, true } do -- of 10 steps a share of 0.1 is one: up is over where it begins
      local f = S.one_cycle(1, { steps = 10, pct_start = 0.1, three_phase = three })
      assert.equal(1.0, f(1))
      for step = 2, 12 do assert.truthy(f(step) < f(step - 1) or step > 10, step) end
    end
  end)

  it("warm up from 1/steps", function()
    local f = S.warmup(S.exponential(8, { gamma = 0.5 }), { steps = 4 })
    assert.same({ 2.0, 3.5, 5.0, 6.5, 8.0, 4.0 }, { f(1), f(2), f(3), f(4), f(5), f(6) })
  end)

  it("that remember can be saved", function()
    local a, b = S.plateau(1, { patience = 1 }), S.plateau(1, { patience = 1 })
    a:report(5)
    a:report(6)
    b:load_state_dict(a:state_dict())
    assert.is_true(a:report(6))
    assert.is_true(b:report(6))
    assert.same({ 0.1, 0.1 }, { a(), b() })
    assert.error_matches(function() b:load_state_dict {} end, "the state has no 'value'")
  end)

  it("that remember are saved through a warm-up", function()
    local function make()
      local plateau = S.plateau(1, { patience = 0 })
      return plateau, S.warmup(plateau, { steps = 2 })
    end
    local plateau, rate = make()
    plateau:report(1)
    plateau:report(1)
    local _, again = make()
    again:load_state_dict(rate:state_dict())
    assert.same({ rate(1), rate(3) }, { again(1), again(3) })
    assert.near(0.1, again(3), 1e-15)
    local opt = gr.optim.SGD({ { params = { parameter() }, lr = 1 }, { params = { parameter() } } }, { lr = again })
    opt.momentum = S.constant(0.5)
    local held = {}
    for i, s in ipairs(opt:schedules()) do held[i] = { s.group, s.name, s.schedule == again } end
    assert.same({ { 1, "momentum", false }, { 2, "lr", true }, { 2, "momentum", false } }, held)
    assert.same({}, gr.optim.SGD { parameter() }:schedules())
  end)

  it("see no improvement in a loss that stays, above zero or below it", function()
    for _, loss in ipairs { 2, 0, -2 } do
      local p = S.plateau(1, { patience = 2 })
      for _ = 1, 4 do p:report(loss) end
      assert.equal(0.1, p(), loss)
    end
  end)

  it("refuse what they cannot use, naming it", function()
    for message, f in pairs {
      ["cosine: option 'steps' is missing"] = function() S.cosine(1) end,
      ["cosine: steps is 0, expected a whole number above 0"] = function() S.cosine(1, { steps = 0 }) end,
      ["cosine: unknown option 'step' %(known: min steps%)"] = function() S.cosine(1, { step = 5 }) end,
      ["constant: value is nan, expected a finite number"] = function() S.constant(math.abs(0 / 0)) end,
      ["step: one of the options 'every' and 'at' is wanted"] = function() S.step(1, { gamma = 0.5 }) end,
      ["cosine: 3 where a table of options is expected"] = function() S.cosine(1, 3) end,
      ["cosine: min is 'x', expected a finite number"] = function() S.cosine(1, { steps = 3, min = "x" }) end,
      ["constant: unknown option 'steps'"] = function() S.constant(1, { steps = 3 }) end,
      ["exponential: gamma is inf, expected a finite number"] = function() S.exponential(1, { gamma = 1 / 0 }) end,
      ["step: gamma is 'x'"] = function() S.step(1, { every = 3, gamma = "x" }) end,
      ["step: at is 5, expected a table of steps"] = function() S.step(1, { at = 5 }) end,
      ["warmup: after is a table, expected a number or a schedule"] = function() S.warmup({}, { steps = 3 }) end,
      ["warmup: from is true, expected a finite number"] = function() S.warmup(1, { steps = 3, from = true }) end,
      ["plateau: patience is %-1, expected a whole number from 0 on"] = function() S.plateau(1, { patience = -1 }) end,
      ["plateau: report%(a Tensor%), expected a number: loss:item%(%)"] = function() S.plateau(1):report(gr.ones(1)) end,
      ["plateau: report%(nil%), expected a number"] = function() S.plateau(1):report() end,
      ["plateau: a state is a table; this is 3"] = function() S.plateau(1):load_state_dict(3) end,
      ["one_cycle: anneal is 'sin', expected 'cos' or 'linear'"] = function() S.one_cycle(1, { steps = 9, anneal = "sin" }) end,
      ["plateau: mode is 'least', expected one of: min max"] = function() S.plateau(1, { mode = "least" }) end,
      ["plateau: factor is 1, expected a number between 0 and 1"] = function() S.plateau(1, { factor = 1 }) end,
    } do
      assert.error_matches(f, message)
    end
  end)
end)
