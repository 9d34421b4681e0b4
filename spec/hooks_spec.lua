-- Hooks: every kind, their order, their handles, and what they must not keep alive.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local function leaf(values) return gr.tensor(values, { requires_grad = true, dtype = "f64" }) end
local function settle() for _ = 1, 3 do collectgarbage() end end

describe("a tensor hook", function()
  it("sees the sum of all contributions, once, and may replace it", function()
    local x, seen = leaf { 1, 2 }, {}
    local h = x:register_hook(function(g)
      seen[#seen + 1] = g:totable()
      return g * 10
    end);
    (x * 3 + x * 4):sum():backward()
    assert.same({ { 7, 7 } }, seen)
    assert.same({ 70, 70 }, x.grad:totable())
    h:remove()
  end)

  it("runs in order of registration, each seeing what the one before returned", function()
    local x, seen = leaf { 1 }, {}
    for k = 1, 3 do
      x:register_hook(function(g)
        seen[#seen + 1] = g:item()
        return g + k
      end)
    end
    x:sum():backward()
    assert.same({ 1, 2, 4 }, seen)
    assert.equal(7, x.grad:item())
  end)

  it("adds what it returns to a gradient that is there already", function()
    local x = leaf { 1 }
    x:register_hook(function(g) return g * 2 end)
    x:sum():backward()
    x:sum():backward()
    assert.equal(4, x.grad:item())
  end)

  it("works on results too, before the op's own backward", function()
    local x = leaf { 1, 2 }
    local y = x * 3
    y:register_hook(function(g) return g * 0 + 5 end)
    y:sum():backward()
    assert.same({ 15, 15 }, x.grad:totable())
  end)

  it("comes before the retained gradient is kept", function()
    local x = leaf { 1 }
    local y = x * 3
    y:retain_grad()
    y:register_hook(function(g) return g * 2 end)
    y:sum():backward()
    assert.equal(2, y.grad:item())
    assert.equal(6, x.grad:item())
  end)

  it("is told the name, the step and the parameter", function()
    local m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    local got = {}
    m[2].weight:register_hook(function(_, ctx)
      got.name, got.step, got.same, got.kind = ctx.name, ctx.step, ctx.param == m[2].weight, ctx.kind
    end)
    gr.step(41)
    m(gr.ones(1, 2)):sum():backward()
    assert.same({ name = "2.weight", step = 41, same = true, kind = "hook" }, got)
    gr.step(1)
  end)

  it("refuses to be read after it is over", function()
    local x, kept = leaf { 1 }, nil
    x:register_hook(function(_, ctx) kept = ctx end)
    x:sum():backward()
    assert.error_matches(function() return kept.name end, "only while the hook runs")
  end)

  it("of the same name replaces", function()
    local x, calls = leaf { 1 }, 0
    for _ = 1, 5 do x:register_hook(function() calls = calls + 1 end, { name = "count" }) end
    x:sum():backward()
    assert.equal(1, calls)
  end)

  it("may remove itself while it runs", function()
    local x, calls, h = leaf { 1 }, 0, nil
    h = x:register_hook(function()
      calls = calls + 1
      h:remove()
    end)
    local after = 0
    x:register_hook(function() after = after + 1 end)
    x:sum():backward()
    x:sum():backward()
    assert.same({ 1, 2, false }, { calls, after, h:active() })
    h:remove()
  end)

  it("is still there, and the name too, after its parameter was frozen for a while", function()
    settle()
    local before = gr.memory()
    do
      local m = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
      local w, names = m[1].weight, {}
      local h = w:register_hook(function(_, ctx) names[#names + 1] = ctx.name end)
      local function backward() m(gr.ones(1, 2)):sum():backward() end
      backward()
      for _ = 1, 2 do w.requires_grad = false end -- twice is no more
      assert.same({ "1.weight", true }, { w.name, h:active() })
      assert.is_nil(w.grad)
      backward()
      assert.is_nil(w.grad)
      local late = m(gr.ones(1, 2)):sum()
      w.requires_grad = true
      late:backward() -- was recorded without it
      assert.is_nil(w.grad)
      backward()
      assert.same({ "1.weight", "1.weight" }, names)
      assert.truthy(w.grad)
      local early = m(gr.ones(1, 2)):sum()
      w.requires_grad = false
      early:backward() -- was recorded with it
      w.requires_grad = true
      assert.is_nil(w.grad)
    end
    settle()
    local after = gr.memory()
    assert.same({ before.nodes, before.tensors }, { after.nodes, after.tensors })
  end)

  it("added by a hook waits for the next backward", function()
    local x, calls, added = leaf { 1 }, 0, false
    x:register_hook(function()
      if not added then x:register_hook(function() calls = calls + 1 end) end
      added = true
    end)
    x:sum():backward()
    assert.equal(0, calls)
    x:sum():backward()
    assert.equal(1, calls)
  end)

  it("lives as long as the graph, though nobody holds its tensor", function()
    local x, calls = leaf { 1 }, 0
    local function build()
      local y = x * 2
      y:register_hook(function() calls = calls + 1 end)
      return (y * 3):sum()
    end
    local loss = build()
    settle()
    loss:backward()
    assert.equal(1, calls)
  end)

  it("that captures its own tensor leaks nothing", function()
    settle()
    local before = gr.memory()
    for _ = 1, 1000 do
      local x = leaf { 1 }
      local y = x * 2
      x:register_hook(function(g) return g * x end)
      y:register_hook(function(g) return g * y end)
    end
    settle()
    local after = gr.memory()
    for _, what in ipairs { "tensors", "storages", "nodes", "hooks" } do assert.equal(before[what], after[what], what) end
  end)

  it("must return nil or a tensor of the gradient's shape", function()
    local x = leaf { 1, 2 }
    local h = x:register_hook(function() return gr.tensor({ 1, 2, 3 }, "f64") end)
    assert.error_matches(function() x:sum():backward() end, "returned f64%[3%] in place of a gradient of f64%[2%]")
    h:remove()
    h = x:register_hook(function() return 3 end)
    assert.error_matches(function() x:sum():backward() end, "returned a number")
    h:remove()
    assert.is_nil(x.grad)
  end)

  it("needs a tensor that requires a gradient", function()
    assert.error_matches(function() gr.ones(1):register_hook(print) end, "requires a gradient")
    assert.error_matches(function() leaf({ 1 }):register_hook("x") end, "function expected")
  end)
end)

describe("an error in a hook", function()
  it("ends backward with its text and the name, and leaves every gradient as it was", function()
    local m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    local x = gr.ones(1, 2)
    m(x):sum():backward()
    local was = m[1].weight.grad:totable()
    local h = m[1].weight:register_hook(function() error("boom") end)
    assert.error_matches(function() m(x):sum():backward() end, "1%.weight.*boom.*traceback")
    assert.same(was, m[1].weight.grad:totable())
    h:remove()
    m(x):sum():backward()
  end)

  it("is the same value when it is not a string", function()
    local x, value = leaf { 1 }, { code = 7 }
    x:register_hook(function() error(value) end)
    local ok, e = pcall(function() x:sum():backward() end)
    assert.is_false(ok)
    assert.equal(value, e)
  end)

  it("is raised where a hook tries to yield", function()
    local x = leaf { 1 }
    x:register_hook(function() coroutine.yield() end)
    local ok, e = coroutine.resume(coroutine.create(function() x:sum():backward() end))
    assert.is_false(ok)
    assert.matches("yield across", e)
  end)
end)

describe("a post-accumulate hook", function()
  it("sees the accumulated gradient, after the tensor hooks", function()
    local x, seen = leaf { 1 }, {}
    x:register_post_accumulate_grad_hook(function(g) seen[#seen + 1] = g:item() end)
    x:register_hook(function(g) return g * 2 end)
    x:sum():backward()
    x:sum():backward()
    assert.same({ 2, 4 }, seen)
  end)

  it("is refused on a result", function()
    assert.error_matches(function() (leaf { 1 } * 2):register_post_accumulate_grad_hook(print) end, "needs a leaf")
  end)
end)

describe("layer hooks", function()
  it("run forward_pre, forward, backward_pre, backward", function()
    local m, order = nn.Sequential(nn.Linear(2, 3), nn.Tanh()), {}
    local l = m[1]
    l:register_forward_pre_hook(function(self, x) order[#order + 1] = { "pre", self == l, x.shape[2] } end)
    l:register_forward_hook(function(self, x, y) order[#order + 1] = { "forward", self == l, x.shape[2], y.shape[2] } end)
    l:register_backward_pre_hook(function(_, gy) order[#order + 1] = { "backward_pre", gy.shape[2] } end)
    l:register_backward_hook(function(_, gx, gy) order[#order + 1] = { "backward", gx[1].shape[2], gy.shape[2] } end)
    m(gr.rand({ 4, 2 }, { requires_grad = true })):sum():backward()
    assert.same({ { "pre", true, 2 }, { "forward", true, 2, 3 }, { "backward_pre", 3 }, { "backward", 2, 3 } }, order)
  end)

  it("may replace inputs, outputs and gradients", function()
    local l = nn.Tanh()
    l:register_forward_pre_hook(function(_, x) return x * 0 end)
    l:register_forward_hook(function(_, _, y) return y + 1 end)
    local x = leaf { 3 }
    assert.equal(1, l(x):item())
    local k = nn.Tanh()
    k:register_backward_pre_hook(function(_, gy) return gy * 2 end)
    k:register_backward_hook(function(_, gx) return gx[1] * 5 end)
    x = leaf { 0 }
    k(x):sum():backward()
    assert.equal(10, x.grad:item())
  end)

  it("give the gradient of the output where no input wants one", function()
    local l, seen = nn.Linear(2, 1), nil
    l:register_backward_hook(function(_, gx, gy) seen = { #gx, gy:item() } end)
    l(gr.ones(1, 2)):sum():backward()
    assert.same({ 0, 1 }, seen)
  end)

  it("see all inputs and outputs of a layer that has several", function()
    local Two = nn.layer { forward = function(_, x, y, z) return x * 2, y * (z or 3) end }
    local l, seen = Two(), {}
    l:register_forward_pre_hook(function(_, list) seen.pre = { #list, list[2]:item() } end)
    l:register_forward_hook(function(_, list, out)
      seen.forward = { #list, #out, out[2]:item() }
      return out[1] + 1
    end)
    l:register_backward_pre_hook(function(_, gy) seen.backward_pre = { gy[1], gy[2]:item() } end)
    l:register_backward_hook(function(_, gx, gy) seen.backward = { #gx, gx[1], gx[2]:item(), gy[1], gy[2]:item() } end)
    local x, y = leaf { 5 }, leaf { 7 }
    local a, b = l(x, y)
    assert.same({ 11, 21 }, { a:item(), b:item() })
    b:sum():backward()
    assert.same({ pre = { 2, 7 }, forward = { 2, 2, 21 }, backward_pre = { false, 1 },
                  backward = { 2, false, 3, false, 1 } }, seen)
  end)

  it("keep places where an input is absent", function()
    local l, seen = nn.layer { forward = function(_, x, y, z) return y or x, z end }(), {}
    l:register_forward_hook(function(_, list) seen.forward = { #list, list[2] } end)
    l:register_backward_hook(function(_, gx) seen.backward = { #gx, gx[1], gx[2], gx[3]:item() } end)
    local _, b = l(leaf { 5 }, nil, leaf { 7 });
    (b * 4):sum():backward()
    assert.same({ forward = { 3, false }, backward = { 3, false, false, 4 } }, seen)
  end)

  it("live as long as the layer, not longer", function()
    settle()
    local before = gr.memory().hooks
    for _ = 1, 100 do
      local m = nn.Sequential(nn.Tanh())
      m[1]:register_forward_hook(function() return m(gr.ones(1)) end)
    end
    settle()
    assert.equal(before, gr.memory().hooks)
  end)
end)

describe("optimizer and global hooks", function()
  it("run around a step", function()
    local x, order = leaf { 1 }, {}
    local opt = gr.optim.SGD({ x }, { lr = 0.5 })
    opt:register_step_pre_hook(function(o, ctx) order[#order + 1] = { "pre", o == opt, x:item(), ctx.kind } end)
    opt:register_step_hook(function() order[#order + 1] = { "post", x:item() } end)
    x:sum():backward()
    opt:step()
    assert.same({ { "pre", true, 1, "step_pre_hook" }, { "post", 0.5 } }, order)
  end)

  it("see everything of a kind until removed", function()
    local names, forward = {}, 0
    local h1 = gr.hook.hook(function(_, ctx) names[#names + 1] = ctx.name end)
    local h2 = gr.hook.forward_hook(function() forward = forward + 1 end)
    local m = nn.Sequential(nn.Linear(1, 1, { bias = false }), nn.Tanh())
    m(gr.ones(1, 1)):sum():backward()
    h1:remove()
    h2:remove()
    m(gr.ones(1, 1)):sum():backward()
    assert.equal("1.weight", names[#names])
    assert.equal(3, forward) -- the container and its two layers
  end)
end)

describe("hooks over a long run", function()
  it("keep nothing after the step", function()
    local m = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    local opt = gr.optim.SGD(m:parameters(), { lr = 0.01 })
    for _, p in ipairs(m:parameters()) do p:register_hook(function(g) return g:clamp(-1, 1) end) end
    m[2]:register_backward_hook(function() end)
    local x = gr.rand(8, 4)
    local function step()
      opt:zero_grad()
      F.mse_loss(m(x), gr.zeros(8, 1)):backward()
      opt:step()
    end
    -- The pool holds as much garbage as the collector lets grow: collected after every step, it has a fixed size.
    for _ = 1, 100 do step(); settle() end
    local before = gr.memory()
    for _ = 1, 300 do step(); settle() end
    local after = gr.memory()
    for _, what in ipairs { "tensors", "storages", "nodes", "hooks", "bytes" } do
      assert.equal(before[what], after[what], what)
    end
    -- under the address sanitizer there is no pool
    if before.cached > 0 then assert.equal(before.system_calls, after.system_calls) end
  end)
end)
