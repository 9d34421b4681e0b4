-- Recording and running backward: what accumulates, what is refused, what a failure leaves behind.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local function leaf(values) return gr.tensor(values, { requires_grad = true, dtype = "f64" }) end
local function live()
  for _ = 1, 3 do collectgarbage() end
  local m = gr.memory()
  return { m.tensors, m.storages, m.nodes }
end

describe("backward", function()
  it("adds to what is there", function()
    local x = leaf { 1, 2 }
    local seen = x.grad
    assert.is_nil(seen);
    (x * 2):sum():backward();
    (x * 3):sum():backward()
    assert.same({ 5, 5 }, x.grad:totable())
    x.grad = nil
    assert.is_nil(x.grad)
  end)

  it("sums over what was broadcast", function()
    local a, b = leaf { { 1, 2, 3 }, { 4, 5, 6 } }, leaf { { 10 }, { 20 } }
    local s = gr.tensor(2, { dtype = "f64", requires_grad = true });
    (a * b * s):sum():backward()
    assert.same({ { 20, 20, 20 }, { 40, 40, 40 } }, a.grad:totable())
    assert.same({ { 12 }, { 30 } }, b.grad:totable())
    assert.equal(10 * 6 + 20 * 15, s.grad:item())
  end)

  it("takes the gradient of a root with several elements", function()
    local x = leaf { 1, 2, 3 }
    local y = x * x
    assert.error_matches(function() y:backward() end, "the root is f64%[3%].*must have one element")
    y:backward(gr.tensor({ 1, 10, 100 }, "f64"))
    assert.same({ 2, 40, 600 }, x.grad:totable())
    assert.error_matches(function() (x * x):backward(gr.ones(2, "f64")) end, "gradient of the root is f64%[2%]")
  end)

  it("is refused a second time, unless the graph is retained", function()
    local x = leaf { 1, 2 }
    local y = (x * x):sum()
    y:backward { retain_graph = true }
    y:backward()
    assert.same({ 4, 8 }, x.grad:totable())
    assert.error_matches(function() y:backward() end, "already used and freed; pass retain_graph = true")
  end)

  it("is refused where an input was overwritten, naming op and input", function()
    local x, w = leaf { 1, 2 }, leaf { 3, 4 }
    local y = (x * w):sum()
    gr.no_grad(function() w:add_(1) end)
    assert.error_matches(function() y:backward() end, "input 2 of mul %(f64%[2%]%) was overwritten in place")
    assert.is_nil(x.grad)
    local z = x:tanh()
    gr.no_grad(function() z:detach():fill_(0) end)
    assert.error_matches(function() z:sum():backward() end, "output 1 of tanh %(f64%[2%]%) was overwritten")
  end)

  it("is refused where nothing requires a gradient", function()
    assert.error_matches(function() gr.ones(1):sum():backward() end, "does not depend on anything that requires a gradient")
  end)

  it("leaves every gradient alone when it fails half-way", function()
    local a, b = leaf { 1 }, leaf { 2 }
    local bad = gr.func { name = "bad", forward = function(_, x) return x * 1 end, backward = function() error("no") end }
    local loss = (b * 3 + bad(a)):sum()
    b:sum():backward()
    assert.error_matches(function() loss:backward() end, "backward of bad.*no")
    assert.equal(1, b.grad:item())
    assert.is_nil(a.grad)
  end)

  it("works on a chain of a million ops", function()
    local x = leaf { 1 }
    local before = live()
    local y = x
    for _ = 1, 1000000 do y = y + 1 end
    y:sum():backward()
    assert.equal(1, x.grad:item())
    x.grad, y = nil, nil
    assert.same(before, live())
  end)

  it("does not let an unused graph pile up", function()
    local m = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    local x = gr.rand(3, 4)
    m(x)
    local before = live()
    for _ = 1, 2000 do m(x) end
    assert.same(before, live())
  end)
end)

describe("recording", function()
  it("is off inside no_grad, also after an error", function()
    local x = leaf { 1 }
    assert.is_false(gr.no_grad(function() return (x * 2).requires_grad end))
    assert.is_false(pcall(gr.no_grad, error, "x"))
    assert.is_true(gr.is_grad_enabled())
    gr.no_grad(function() gr.enable_grad(function() assert.is_true((x * 2).requires_grad) end) end)
  end)

  it("ends at detach", function()
    local x = leaf { 3 }
    local y = (x * x:detach()):sum()
    y:backward()
    assert.equal(3, x.grad:item())
  end)

  it("refuses in-place edits of what it records", function()
    local x = leaf { 1, 2 }
    local y = x * 2
    assert.error_matches(function() x:add_(1) end, "in place while gradients are recorded")
    assert.error_matches(function() y:mul_(2) end, "in place while gradients are recorded")
    assert.error_matches(function() x[1] = 0 end, "in place while gradients are recorded")
    gr.no_grad(function() x[1] = 5 end)
    assert.same({ 5, 2 }, x:totable())
  end)

  it("is for floating tensors", function()
    assert.error_matches(function() gr.tensor({ 1 }, "i64"):requires_grad_() end, "only f32 and f64")
    local x = leaf { 1 }
    assert.error_matches(function() (x * 2):requires_grad_(false) end, "result of mul; use detach")
  end)

  it("keeps gradients of results that ask for it", function()
    local x = leaf { 2 }
    local y = x * x
    y:retain_grad();
    (y * 3):sum():backward()
    assert.equal(3, y.grad:item())
  end)
end)

describe("gr.grad", function()
  it("leaves .grad alone and stops at its inputs", function()
    local x, w = leaf { 1, 2 }, leaf { 3, 4 }
    local h = x * w
    local y = (h * h):sum()
    local gh, gx = table.unpack(gr.grad(y, { h, x }))
    assert.same({ 6, 16 }, gh:totable())
    assert.same({ 18, 64 }, gx:totable())
    assert.is_nil(x.grad)
    assert.is_nil(w.grad)
  end)

  it("gives the same gradient for an input listed twice", function()
    local x = leaf { 1 }
    local a, b = table.unpack(gr.grad((x * 5):sum(), { x, x }))
    assert.same({ 5, 5 }, { a:item(), b:item() })
  end)

  it("says which input is unused", function()
    local x, z = leaf { 1 }, leaf { 1 }
    assert.error_matches(function() gr.grad(x:sum(), { x, z }) end, "do not depend on input 2; pass allow_unused")
    local gx, gz = table.unpack(gr.grad(x:sum(), { x, z }, { allow_unused = true }))
    assert.equal(1, gx:item())
    assert.is_false(gz)
  end)

  it("goes to the third derivative", function()
    local x = leaf { 2 }
    local y = (x * x * x * x):sum()
    local g1 = gr.grad(y, x, { create_graph = true })
    local g2 = gr.grad(g1:sum(), x, { create_graph = true })
    local g3 = gr.grad(g2:sum(), x)
    assert.same({ 32, 48, 48 }, { g1:item(), g2:item(), g3:item() })
  end)

  it("refuses unknown options with a suggestion", function()
    local x = leaf { 1 }
    assert.error_matches(function() gr.grad(x:sum(), x, { create_grahp = true }) end, "did you mean 'create_graph'")
    assert.error_matches(function() x:sum():backward { retain_grad = true } end, "did you mean 'retain_graph'")
  end)
end)

describe("gr.func", function()
  local cube = gr.func {
    name = "cube",
    forward = function(ctx, x)
      ctx.x = x
      return x * x * x
    end,
    backward = function(ctx, dy) return dy * 3 * ctx.x * ctx.x end,
  }

  it("is an op like any other", function()
    local x = leaf { 1, 2 }
    local y = cube(x)
    assert.same({ 1, 8 }, y:totable())
    y:sum():backward()
    assert.same({ 3, 12 }, x.grad:totable())
  end)

  it("lives as long as the graph", function()
    local x = leaf { 2 }
    local y = gr.func { forward = function(_, t) return t * 1 end, backward = function(_, dy) return dy * 7 end }(x)
    local loss = (y * 2):sum()
    y = nil
    for _ = 1, 3 do collectgarbage() end
    loss:backward()
    assert.equal(14, x.grad:item())
  end)

  it("keeps what it saved beyond the scope it was made in", function()
    local x = leaf { 3 }
    local loss = gr.scope(function() return cube(x * 1):sum() end)
    loss:backward()
    assert.equal(27, x.grad:item())
  end)

  it("leaks nothing", function()
    local before = live()
    for _ = 1, 300 do
      local x = leaf { 1 }
      cube(x):sum():backward()
      cube(x)
    end
    assert.same(before, live())
  end)

  it("says what its backward got wrong", function()
    local x = leaf { 1, 2 }
    local wrong = gr.func { name = "wrong", forward = function(_, t) return t * 1 end, backward = function() return gr.ones(3, "f64") end }
    assert.error_matches(function() wrong(x):sum():backward() end, "backward of wrong gave f64%[3%] for input 1 of shape %[2%]")
    assert.error_matches(function() gr.func { forward = print } end, "backward is a nil")
  end)
end)

describe("anomaly mode", function()
  it("names the first op that makes a NaN out of finite values", function()
    local x = leaf { -1, 4 }
    assert.error_matches(function()
      gr.detect_anomaly(function() return x:log():sum() end)
    end, "log: 1 of the 2 elements of the result f64%[2%] are not finite")
    local z = leaf { 0 }
    assert.error_matches(function()
      gr.detect_anomaly(function() z:sqrt():sum():backward() end)
    end, "backward of sqrt")
  end)
end)

describe("gr.scope", function()
  it("closes what was made inside, but for what is returned or kept", function()
    local kept, lost
    local out = gr.scope(function()
      local a = gr.ones(2)
      kept, lost = gr.keep(a * 2), a * 3
      return a * 4
    end)
    assert.same({ 4, 4 }, out:totable())
    assert.same({ 2, 2 }, kept:totable())
    assert.error_matches(function() return lost + 1 end, "closed")
    assert.error_matches(function() return lost.shape end, "closed")
  end)

  it("closes also after an error, and nests", function()
    local before, inner = live(), nil
    assert.is_false(pcall(gr.scope, function()
      inner = gr.scope(function() return gr.ones(3) end)
      assert.equal(3, #inner)
      error("x")
    end))
    assert.error_matches(function() return #inner end, "closed")
    inner = nil
    assert.same(before, live())
  end)

  it("does not change a training run", function()
    local function run(scoped)
      gr.manual_seed(5)
      local m = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
      local opt, x = gr.optim.Adam(m:parameters(), { lr = 0.01 }), gr.rand(6, 3)
      local losses = {}
      local function step()
        opt:zero_grad()
        local loss = F.mse_loss(m(x), gr.zeros(6, 1))
        loss:backward()
        opt:step()
        losses[#losses + 1] = loss:item()
      end
      for _ = 1, 10 do if scoped then gr.scope(step) else step() end end
      return losses
    end
    assert.same(run(false), run(true))
  end)
end)

describe("a sequence read step by step", function()
  -- y = sum of a_t^3 t over the steps t, read as views in several ways
  local function gradients(create)
    local T = 6
    local x = gr.range(1, T * 2):to("f64"):view(T, 2):requires_grad_(true)
    local y = gr.zeros({}, "f64")
    for t = 1, T do y = y + (x[t] ^ 3):sum() * t end
    for t = 1, T, 2 do y = y + (x:narrow(1, t, 2) ^ 2):sum() end
    for _, part in ipairs(x:split(4)) do y = y + part:sum() end
    return x, gr.grad(y, x, { create_graph = create })
  end

  it("has the gradient of the whole, recorded or not", function()
    local want, second = {}, {}
    for t = 1, 6 do
      want[t], second[t] = {}, {}
      for k = 1, 2 do
        local v = (t - 1) * 2 + k
        want[t][k], second[t][k] = 3 * v * v * t + 2 * v + 1, 6 * v * t + 2
      end
    end
    local _, plain = gradients(false)
    assert.same(want, plain:totable())
    local x, recorded = gradients(true)
    assert.same(want, recorded:totable())
    assert.same(second, gr.grad(recorded:sum(), x):totable())
  end)

  it("keeps what was added before where something else still reads it", function()
    local x = gr.tensor({ 1, 2, 3 }, { dtype = "f64", requires_grad = true })
    local seen
    local z = x * 2
    z:register_hook(function(g) seen = seen or g end)
    local y = (z:select(1, 1) ^ 2 + z:select(1, 2) ^ 2)
    local g = gr.grad(y, x, { create_graph = true })
    assert.same({ 4, 8, 0 }, seen:totable())
    local h = gr.grad((g * g):sum() + (seen * seen):sum(), x)
    assert.same({ 8, 16, 0 }, g:totable())
    assert.same({ 4, 8, 0 }, seen:totable())
    assert.same({ 160, 320, 0 }, h:totable())
  end)
end)
