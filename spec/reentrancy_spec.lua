-- What scripts do while the library is at work: hooks, schedules and finalizers that close what is in use, that start
-- another gradient pass, that fail. Each is an error or harmless. (make check-all runs this under the sanitizers.)
local gr = require "gradrun"
local shell = require "spec.support.shell"
local nn = gr.nn

local function leaf(t) return gr.tensor(t, { requires_grad = true }) end

describe("a hook", function()
  it("may close the root of the backward under way, and then fail", function()
    local w = leaf { 1, 2, 3 }
    local y = (w * w):sum()
    w:register_hook(function() y:free() error("enough", 0) end)
    assert.error_matches(function() y:backward() end, "backward: hook on an unnamed tensor: enough")
    assert.is_nil(w.grad)
  end)

  it("may close the inputs and outputs of gr.grad", function()
    local w = leaf { 1, 2, 3 }
    local v = w * 2
    local y = (v * v):sum()
    v:register_hook(function() v:free() w:free() y:free() collectgarbage() end)
    local g = gr.grad(y, { v, w, v })
    assert.same({ 4, 8, 12 }, g[1]:totable())
    assert.same({ 8, 16, 24 }, g[2]:totable())
    assert.same({ 4, 8, 12 }, g[3]:totable())
  end)

  it("may stop an input of gr.grad from requiring a gradient", function()
    local w = leaf { 1, 2, 3 }
    local v = w * 2
    v:register_hook(function() w.requires_grad = false end)
    assert.same({ 2, 2, 2 }, gr.grad(v:sum(), w):totable())
  end)

  it("may ask for gradients elsewhere, also with respect to inputs of the gr.grad under way", function()
    local a, b, c, far = leaf { 1, 2 }, leaf { 3, 4 }, leaf { 5, 6 }, leaf { 7, 8 }
    local inner, refused
    local y, z = (a * b * c):sum(), (far * far):sum()
    a:register_hook(function()
      inner = gr.grad(z, { far }, { retain_graph = true })[1]
      refused = select(2, pcall(gr.grad, z, { a }, { retain_graph = true }))
    end)
    local g = gr.grad(y, { a, b, c, far }, { allow_unused = true })
    assert.same({ 14, 16 }, inner:totable())
    assert.matches("do not depend on input 1", refused)
    assert.same({ 15, 24 }, g[1]:totable())
    assert.same({ 5, 12 }, g[2]:totable())
    assert.same({ 3, 8 }, g[3]:totable())
    assert.is_false(g[4])
  end)

  it("may close a layer that runs, and its input", function()
    local x, mha = leaf { { { 1, 2 }, { 3, 4 } } }, nn.MultiheadAttention(2, 1)
    local want = mha(x, x, x)
    for _, child in mha:children() do
      child:register_forward_pre_hook(function() x:free() mha:free() collectgarbage() end)
    end
    assert.same(want:totable(), mha(x, x, x):totable())
    assert.error_matches(function() return mha(want) end, "the object was closed")
  end)

  it("may close the optimizer that steps", function()
    local w = leaf { 1 }
    local opt = gr.optim.SGD({ w }, { lr = 0.5 })
    opt:register_step_pre_hook(function(o) o:free() collectgarbage() end)
    w.grad = gr.tensor { 1 }
    opt:step()
    assert.equal(0.5, w:item())
    assert.error_matches(function() opt:step() end, "the object was closed")
  end)

  it("cannot return a tensor that was closed", function()
    local w = leaf { 1 }
    w:register_hook(function(g) g:free() return g end)
    assert.error_matches(function() (w * 2):sum():backward() end, "a hook returned a closed tensor")
  end)

  it("may put the result of an op written in Lua in a layer's place", function()
    local double = function(x)
      return gr.func { forward = function(_, a) return a * 2 end, backward = function(_, dy) return dy * 2 end } (x)
    end
    local layer, x = nn.Tanh(), leaf { 0, 0 }
    layer:register_forward_pre_hook(function(_, a) return double(a) end)
    layer:register_forward_hook(function(_, _, y) return double(y) end)
    local y = nn.Sequential(layer, nn.Tanh())(x)
    collectgarbage() collectgarbage()
    y:sum():backward()
    assert.same({ 4, 4 }, x.grad:totable())
  end)
end)

describe("an op written in Lua", function()
  local function doubled(seen)
    return gr.func {
      forward = function(ctx, a) ctx.seen = seen return a * 2 end,
      backward = function(_, dy) return dy * 2 end,
    }
  end

  it("may close its input, which is an error", function()
    local f = gr.func { forward = function(_, a) local y = a * 2 a:free() return y end, backward = error }
    assert.error_matches(function() f(leaf { 1, 2 }) end, "the tensor was closed")
  end)

  it("lives as long as second gradients, of one output or of several", function()
    local x = leaf { 1, 2 }
    local function gradients()
      local y, z = doubled()(x), doubled()(x)
      return gr.grad({ (y * y):sum(), (z * z):sum() }, { x }, { create_graph = true })[1]
    end
    local g = gradients()
    collectgarbage() collectgarbage()
    g:sum():backward()
    assert.same({ 16, 16 }, x.grad:totable())
  end)

  it("lives as long as the results of the layers around it, whatever layers are called after it", function()
    local first = nn.layer { forward = function(_, a) return doubled()(a) end }
    local second = nn.layer {
      init = function(self) self.side = nn.Linear(2, 2) end,
      forward = function(self, a)
        self.side(a)
        assert.is_false(pcall(self.side, gr.ones(3)))
        return a * 3
      end,
    }
    local x = leaf { { 1, 1 } }
    local y = nn.Sequential(first(), second())(x)
    collectgarbage() collectgarbage()
    y:sum():backward()
    assert.same({ { 6, 6 } }, x.grad:totable())
  end)

  it("says so where its function is gone", function()
    local x = leaf { 1, 2 }
    do
      local y = doubled()(x)
      ;(y * y):sum():backward { create_graph = true }
    end
    local g = x.grad
    x.grad = nil
    collectgarbage() collectgarbage()
    assert.error_matches(function() g:sum():backward() end, "its function was collected")
  end)
end)

describe("a closed optimizer", function()
  it("is an error for its groups", function()
    local opt = gr.optim.SGD({ leaf { 1 } }, { lr = 0.5 })
    local group = opt.groups[1]
    opt:free()
    assert.error_matches(function() return group.lr end, "the optimizer of group 1 was closed")
    assert.error_matches(function() return group.params end, "the optimizer of group 1 was closed")
    assert.error_matches(function() group.lr = 1 end, "the optimizer of group 1 was closed")
  end)

  it("is an error for the step whose schedule closed it", function()
    local w, opt = leaf { 1 }
    opt = gr.optim.SGD({ w }, { lr = function() opt:free() return 0.1 end })
    w.grad = gr.tensor { 1 }
    assert.error_matches(function() opt:step() end, "the object was closed")
    assert.equal(1, w:item())
  end)
end)

describe("a finalizer", function()
  it("closes nothing: what it calls free on may be in use", function()
    local t, tries = gr.ones(2, 2), 0
    local function arm() setmetatable({}, { __gc = function() t:free() tries = tries + 1 end }) end
    arm()
    collectgarbage()
    assert.equal(1, tries)
    assert.equal(4, t:sum():item())
    t:free()
    assert.error_matches(function() return t + 1 end, "closed")
  end)

  it("may close what functions of all kinds work on, at any allocation", function()
    local out, code = shell.run("%s -e %s", shell.gradrun, shell.quote [[
      local gr = require "gradrun"
      collectgarbage("incremental", 1, 1000, 1)
      local t, fired, on = nil, 0, true
      local meta = {}
      meta.__gc = function() fired = fired + 1 if t then t:free() end if on then setmetatable({}, meta) end end
      setmetatable({}, meta)
      for i = 1, 300 do
        t = gr.ones(4, 4):requires_grad_()
        local list = { t, t }
        local _ = t + t, gr.cat(list, 1), t[1], t[{ 1, { 1, 2 } }], t:totable(), tostring(t), t.shape, t:max(1)
        local g = gr.grad(t:sum(), list)
        assert(g[2]:sum():item() == 16 and #gr.dict { x = t } == 1)
      end
      on = false
      print(fired > 1000)]])
    assert.equal(0, code, out)
    assert.equal("true\n", out)
  end)

  it("older than the library finds it closed when a stock Lua ends", function()
    local script = shell.file [[
      local gr, x
      local _ <const> = setmetatable({}, { __gc = function()
        for _, f in ipairs { function() return gr.zeros(2) end, gr.memory, function() return x + x end } do
          print(select(2, pcall(f)))
        end
      end })
      KEPT = _
      gr = require "gradrun"
      x = gr.ones(2)]]
    local out, code = shell.run("LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH='%s/lua/?.so' %s %s", shell.build,
      shell.lua, script)
    assert.equal(0, code, out)
    assert.equal(3, select(2, out:gsub("gradrun: the runtime is closed\n", "")), out)
  end)
end)

describe("methods and metamethods", function()
  it("given something else than their object raise", function()
    local objects = { gr.zeros(1), nn.Linear(1, 1), gr.optim.SGD({ leaf { 1 } }, { lr = 1 }), gr.dict() }
    for k, o in ipairs(objects) do
      for name, f in pairs(getmetatable(o)) do
        for _, wrong in ipairs { 5, "x", {}, print, io.stdout, objects[k % #objects + 1] } do
          if type(f) == "function" and not (tonumber(wrong) and name:find "^__[adismup]") then
            assert.is_false((pcall(f, wrong)), name)
          end
        end
      end
      assert.is_false((pcall(o.free)))
      assert.is_false((pcall(o.free, io.stdout)))
    end
  end)
end)

describe("layers in layers", function()
  it("go 200 levels deep", function()
    local l, levels = nn.Tanh(), 1
    local ok, message
    repeat
      ok, message = pcall(nn.Sequential, l)
      if ok then l, levels = message, levels + 1 end
    until not ok
    assert.equal(200, levels)
    assert.matches("layer \"1\" would be level 201 of layers in layers, at most 200 are possible", message)
    assert.equal(1, l(gr.ones(1)):numel())
    assert.equal(0, #l:parameters() + #l:state_dict())
  end)
end)

describe("shapes beyond what memory can address", function()
  local big = 2 ^ 32 | 0
  it("are refused wherever they come up, sizes of 0 or not", function()
    local column, row = gr.ones(1, 1):expand(big, 1), gr.ones(1, 1):expand(1, big)
    assert.error_matches(function() return column + row end,
      "add: shape %[4294967296,4294967296%] has too many elements")
    assert.error_matches(function() return gr.matmul(gr.zeros(big, 0), gr.zeros(0, big)) end, "too many elements")
    assert.error_matches(function() return gr.zeros(big, 0, big) end, "too many elements")
    assert.error_matches(function() return gr.zeros(0, big):expand(big, 0, big) end, "too many elements")
  end)
end)

describe("counters", function()
  it("end where numbers do", function()
    local w = leaf { 1 }
    local opt = gr.optim.Adam({ w }, { lr = 1 })
    w.grad = gr.tensor { 1 }
    local was = gr.step()
    gr.step(math.maxinteger)
    finally(function() gr.step(was) end)
    opt:step()
    assert.equal(math.maxinteger, gr.step())
    local state = opt:state_dict()
    state.updates:fill_(2 ^ 62)
    assert.error_matches(function() opt:load_state_dict(state) end, "updates is 4611686018427387904, expected 0 to")
  end)
end)
