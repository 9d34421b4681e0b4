-- Recurrent layers: against the same written out step by step in Lua, and what surrounds the arithmetic.
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"
local nn, F = gr.nn, gr.nn.functional

local function in_f64(f)
  return function()
    local was = gr.default_dtype()
    gr.default_dtype "f64"
    local ok, message = pcall(f)
    gr.default_dtype(was)
    if not ok then error(message, 0) end
  end
end

-- ---- written out ----------------------------------------------------------------------------------------------

local function sigmoid(x) return 1 / (1 + (-x):exp()) end

-- advance[kind](i, h, c, w_hh, b_hh): from the input's products the new h (and c); parts: columns of the gates.
local advance = {}
local function parts(t, n)
  local list, size = {}, t.shape[2] // n
  for k = 1, n do list[k] = t:narrow(2, (k - 1) * size + 1, size) end
  return table.unpack(list)
end

function advance.RNN(x, h, _, w, b) return (x + h:matmul(w:transpose(1, 2)) + b):tanh() end

function advance.LSTM(x, h, c, w, b)
  local i, f, g, o = parts(x + h:matmul(w:transpose(1, 2)) + b, 4)
  c = sigmoid(f) * c + sigmoid(i) * g:tanh()
  return sigmoid(o) * c:tanh(), c
end

function advance.GRU(x, h, _, w, b)
  local xr, xz, xn = parts(x, 3)
  local hr, hz, hn = parts(h:matmul(w:transpose(1, 2)) + b, 3)
  local z = sigmoid(xz + hz)
  local n = (xn + sigmoid(xr + hr) * hn):tanh()
  return (1 - z) * n + z * h
end

-- x [steps,batch,in]; states [layers,batch,hidden]. Returns y, h_n, c_n as the layer does.
local function written_out(kind, layer, x, h0, c0)
  local directions, steps = layer.bidirectional and 2 or 1, x.shape[1]
  local last_h, last_c = {}, {}
  for k = 0, layer.num_layers - 1 do
    local sides = {}
    for d = 1, directions do
      local suffix, index = ("_l%d%s"):format(k, d == 2 and "_reverse" or ""), k * directions + d
      local h, c, list = h0[index], c0 and c0[index], {}
      for at = 1, steps do
        local t = d == 2 and steps + 1 - at or at
        local i = x[t]:matmul(layer["weight_ih" .. suffix]:transpose(1, 2)) + layer["bias_ih" .. suffix]
        h, c = advance[kind](i, h, c, layer["weight_hh" .. suffix], layer["bias_hh" .. suffix])
        list[t] = h
      end
      sides[d], last_h[index], last_c[index] = gr.stack(list), h, c
    end
    x = directions == 2 and gr.cat(sides, 3) or sides[1]
  end
  return x, gr.stack(last_h), kind == "LSTM" and gr.stack(last_c) or nil
end

local function near(got, want, tol, what)
  local message = cases.difference(got, want, tol)
  if message then error(what .. ": " .. message, 0) end
end

local function leaf(...) return gr.randn({ ... }, { requires_grad = true }) end

-- Results and gradients of a weighted sum of all of them.
local function compare(kind, input, hidden, options, steps, batch)
  gr.manual_seed(11)
  local layer = nn[kind](input, hidden, options)
  local layers = layer.num_layers * (layer.bidirectional and 2 or 1)
  local leaves = { leaf(steps, batch, input), leaf(layers, batch, hidden) }
  if kind == "LSTM" then leaves[3] = leaf(layers, batch, hidden) end
  local got, want = { layer(table.unpack(leaves)) }, { written_out(kind, layer, table.unpack(leaves)) }
  assert.equal(#want, #got)
  local all = table.move(layer:parameters(), 1, #layer:parameters(), #leaves + 1, { table.unpack(leaves) })
  local losses = {}
  for k = 1, #want do near(got[k], want[k], 1e-12, "result " .. k) end
  for side, list in ipairs { got, want } do
    local loss = 0
    for k, t in ipairs(list) do
      gr.manual_seed(k)
      loss = loss + (t * gr.randn(t.shape)):sum()
    end
    losses[side] = loss
  end
  local a, b = gr.grad(losses[1], all), gr.grad(losses[2], all)
  for k = 1, #all do near(a[k], b[k], 1e-12, "gradient " .. k) end
end

for _, kind in ipairs { "RNN", "LSTM", "GRU" } do
  describe(kind .. " equals its steps written out,", function()
    it("one layer", in_f64(function() compare(kind, 3, 4, {}, 5, 2) end))
    it("three layers", in_f64(function() compare(kind, 3, 4, { num_layers = 3 }, 5, 2) end))
    it("both directions", in_f64(function() compare(kind, 3, 4, { num_layers = 2, bidirectional = true }, 5, 2) end))
    it("one step, one sequence, one unit", in_f64(function() compare(kind, 1, 1, {}, 1, 1) end))
    -- chunks of 32 units, and what is left; enough for several pieces
    it("large enough to be cut", in_f64(function() compare(kind, 7, 100, { bidirectional = true }, 4, 37) end))
  end)
end

-- ---- results --------------------------------------------------------------------------------------------------

local function each(f)
  for _, kind in ipairs { "RNN", "LSTM", "GRU" } do f(kind, kind == "LSTM" and 2 or 1) end
end

local function same(a, b, what)
  local message = cases.unequal(a, b)
  if message then error(what .. ": " .. message, 2) end
end

describe("recurrent layers", function()
  it("give the same bits on one and two threads", function()
    local threads = gr.threads()
    each(function(kind)
      for _, size in ipairs { { 64, 32 }, { 100, 7 }, { 16, 200 } } do
        gr.manual_seed(5)
        local layer = nn[kind](20, size[1], { num_layers = 2, bidirectional = true })
        local x, found = gr.randn({ 6, size[2], 20 }, { requires_grad = true }), {}
        for n = 1, 2 do
          gr.threads(n)
          local y = layer(x)
          found[n] = gr.grad(y:mul(y):sum(), { x, table.unpack(layer:parameters()) })
          found[n][#found[n] + 1] = y
        end
        gr.threads(threads)
        for k = 1, #found[1] do same(found[1][k], found[2][k], kind .. ", tensor " .. k) end
      end
    end)
  end)

  it("go on from their own states", function()
    each(function(kind, states)
      local layer, x = nn[kind](3, 5, 2), gr.randn(7, 2, 3)
      local whole = { layer(x) }
      local first = { layer(x:narrow(1, 1, 4)) }
      local second = { layer(x:narrow(1, 5, 3), table.unpack(first, 2)) }
      same(gr.cat({ first[1], second[1] }, 1), whole[1], kind)
      for s = 2, 1 + states do same(second[s], whole[s], kind .. ", state") end
    end)
  end)

  it("take absent states as zeros", function()
    each(function(kind, states)
      local layer, x, zeros = nn[kind](3, 5, 2, { bidirectional = true }), gr.randn(4, 2, 3), gr.zeros(4, 2, 5)
      local a, b = { layer(x) }, { layer(x, zeros, states == 2 and zeros or nil) }
      assert.equal(1 + states, #a)
      for k = 1, #a do same(a[k], b[k], kind) end
    end)
  end)

  it("turn the batch where it comes first, and do without", function()
    each(function(kind)
      gr.manual_seed(3)
      local layer = nn[kind](3, 5, 2, { bidirectional = true })
      gr.manual_seed(3)
      local turned, x = nn[kind](3, 5, 2, { bidirectional = true, batch_first = true }), gr.randn(4, 2, 3)
      local a, b = { layer(x) }, { turned(x:transpose(1, 2)) }
      same(b[1]:transpose(1, 2), a[1], kind)
      for s = 2, #a do same(b[s], a[s], kind .. ", state") end
      local one, alone = { layer(x:narrow(2, 2, 1)) }, { layer(x:select(2, 2)) }
      assert.same({ 4, 10 }, alone[1].shape)
      assert.same({ 4, 5 }, alone[2].shape)
      near(alone[1], one[1]:select(2, 1), 1e-6, kind)
      for s = 2, #a do near(alone[s], one[s]:select(2, 1), 1e-6, kind .. ", state") end
      same((turned(x:select(2, 2))), alone[1], kind .. ", batch first")
    end)
  end)

  it("are what their cells do step by step", function()
    each(function(kind, states)
      local layer, cell, x = nn[kind](3, 5), nn[kind .. "Cell"](3, 5), gr.randn(4, 2, 3)
      gr.no_grad(function()
        for name, p in cell:named_parameters() do p:copy_(layer[name .. "_l0"]) end
      end)
      local y, h, c = layer(x)
      local state = {}
      for t = 1, 4 do
        state = { cell(x[t], state[1], state[2]) }
        assert.equal(states, #state)
        near(state[1], y[t], 1e-6, kind)
      end
      near(state[1], h[1], 1e-6, kind)
      if c then near(state[2], c[1], 1e-6, kind) end
      assert.same({ 5 }, cell(x[1][1]).shape)
    end)
  end)

  it("take an empty batch", function()
    each(function(kind)
      local layer = nn[kind](3, 5)
      local y, h = layer(gr.zeros(4, 0, 3))
      assert.same({ { 4, 0, 5 }, { 1, 0, 5 } }, { y.shape, h.shape })
      y:sum():backward()
      assert.equal(0, layer.weight_hh_l0.grad:abs():sum():item())
    end)
  end)

  it("give the weights a gradient from one step too", function()
    local layer = nn.GRU(2, 2)
    layer(gr.randn(1, 3, 2)):sum():backward()
    assert.equal(0, layer.weight_hh_l0.grad:abs():sum():item())
    assert.is_true(layer.bias_hh_l0.grad:abs():sum():item() > 0)
  end)

  it("let the last states be edited", function()
    local layer = nn.LSTM(2, 3)
    local y, h, c = layer(gr.randn(4, 2, 2))
    h:detach():mul_(0)
    c:detach():add_(1)
    y:sum():backward()
    assert.is_true(layer.weight_ih_l0.grad:abs():sum():item() > 0)
  end)
end)

-- ---- as layers ------------------------------------------------------------------------------------------------

local function names(layer)
  local list = {}
  for name in layer:named_parameters() do list[#list + 1] = name end
  return list
end

describe("recurrent layers, as layers,", function()
  it("name their parameters as PyTorch does", function()
    assert.same({
      "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
      "weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse", "bias_hh_l0_reverse",
      "weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1",
      "weight_ih_l1_reverse", "weight_hh_l1_reverse", "bias_ih_l1_reverse", "bias_hh_l1_reverse",
    }, names(nn.LSTM(2, 3, 2, { bidirectional = true })))
    assert.same({ "weight_ih_l0", "weight_hh_l0" }, names(nn.GRU(2, 3, { bias = false })))
    assert.same({ "weight_ih", "weight_hh", "bias_ih", "bias_hh" }, names(nn.LSTMCell(2, 3)))
    local layer = nn.LSTM(2, 3, 2, { bidirectional = true })
    assert.same({ { 12, 2 }, { 12, 3 }, { 12 }, { 12, 6 } }, { layer.weight_ih_l0.shape, layer.weight_hh_l0.shape,
      layer.bias_hh_l0.shape, layer.weight_ih_l1.shape })
    assert.same({ 9, 2 }, nn.GRU(2, 3).weight_ih_l0.shape)
    assert.same({ 3, 2 }, nn.RNN(2, 3).weight_ih_l0.shape)
  end)

  it("draw them from U(-1/sqrt(hidden), 1/sqrt(hidden))", function()
    gr.manual_seed(1)
    for _, p in ipairs(nn.GRU(300, 100):parameters()) do
      assert.is_true(p:abs():amax():item() <= 0.1)
      assert.near(0.01 / 3, (p * p):mean():item(), 4e-4)
    end
  end)

  it("say what they are", function()
    local lstm = nn.LSTM(64, 256, 2, { bidirectional = true, dropout = 0.25, batch_first = true, bias = false })
    assert.matches("LSTM 64→256, 2 layers, bidirectional, dropout 0.25, batch first, no bias", tostring(lstm))
    assert.matches("RNN 2→3, relu", tostring(nn.RNN(2, 3, 1, "relu")))
    assert.matches("GRUCell 2→3", tostring(nn.GRUCell(2, 3)))
  end)

  it("drop between layers, while training only", function()
    each(function(kind)
      gr.manual_seed(2)
      local plain = nn[kind](3, 8, 2)
      gr.manual_seed(2)
      local layer, x = nn[kind](3, 8, { num_layers = 2, dropout = 0.5 }), gr.randn(4, 2, 3)
      local want = plain(x)
      assert.is_truthy(cases.unequal(layer(x), want), kind)
      assert.is_truthy(cases.unequal(layer(x), layer(x)), kind .. ": the same twice")
      gr.manual_seed(9)
      local a = layer(x)
      gr.manual_seed(9)
      same(layer(x), a, kind .. ", same seed")
      layer:eval()
      same(layer(x), want, kind)
      gr.manual_seed(4)
      local one = nn[kind](3, 8, { dropout = 0.5 })
      same(one(x), one(x), kind .. ", nothing after the last layer")
    end)
  end)

  it("pass their output on in Sequential, and show all to hooks", function()
    local lstm, seen = nn.LSTM(3, 4), {}
    local model = nn.Sequential(lstm, nn.Linear(4, 2))
    lstm:register_forward_hook(function(_, x, out) seen.forward = { #x.shape, #out } end)
    local function shape(t) return t and t.shape end
    lstm:register_backward_hook(function(_, gx, gy)
      seen.backward = { shape(gx[1]), shape(gy[1]), shape(gy[2]), shape(gy[3]) }
    end)
    local x = gr.randn({ 5, 2, 3 }, { requires_grad = true })
    model(x):sum():backward()
    assert.same({ forward = { 3, 3 }, backward = { { 5, 2, 3 }, { 5, 2, 4 }, false, false } }, seen)
    local _, h, c = lstm(x);
    (h:sum() + c:sum()):backward()
    assert.same({ { 5, 2, 3 }, false, { 1, 2, 4 }, { 1, 2, 4 } }, seen.backward)
  end)

  it("work inside layers written in Lua", function()
    local Model = nn.layer {
      init = function(self) self.rnn, self.head = nn.LSTM(3, 4), nn.Linear(4, 1) end,
      forward = function(self, x, h, c)
        local y
        y, h, c = self.rnn(x, h, c)
        return self.head(y), h, c
      end,
    }
    local model = Model()
    local y, h, c = model(gr.randn(5, 2, 3))
    y = model(gr.randn(5, 2, 3), h, c)
    y:sum():backward()
    for name, p in model:named_parameters() do assert.is_truthy(p.grad, name) end
    assert.equal("rnn.weight_ih_l0", model.rnn.weight_ih_l0.name)
  end)
end)

-- ---- what does not fit ----------------------------------------------------------------------------------------

describe("recurrent layers refuse", function()
  local model = nn.Sequential(nn.Tanh(), nn.LSTM(3, 4, 2))
  local lstm = model[2]
  local function refuses(pattern, ...)
    local arguments = { ... }
    assert.error_matches(function() lstm(table.unpack(arguments)) end, pattern)
  end
  it("another number of features, with the layer's path", function()
    assert.error_matches(function() model(gr.zeros(5, 2, 7)) end,
      "^2 %(LSTM 3→4, 2 layers%): input has 7 features, expected 3 %[5,2,7%]")
  end)
  it("another rank", function()
    refuses("input is f32%[3%], expected %[steps,batch,3%], or %[steps,3%] without a batch", gr.zeros(3))
    refuses("input is f32%[1,2,2,3%], expected", gr.zeros(1, 2, 2, 3))
    local turned, cell = nn.GRU(3, 4, { batch_first = true }), nn.GRUCell(3, 4)
    assert.error_matches(function() turned(gr.zeros(3)) end, "expected %[batch,steps,3%]")
    assert.error_matches(function() cell(gr.zeros(2, 2, 3)) end,
      "GRUCell 3→4: input is f32%[2,2,3%], expected %[batch,3%]")
  end)
  it("no steps", function() refuses("input is f32%[0,2,3%]: it has no steps", gr.zeros(0, 2, 3)) end)
  it("states of another shape", function()
    local x, good = gr.zeros(5, 2, 3), gr.zeros(2, 2, 4)
    refuses("h0 is f32%[1,2,4%], expected %[2,2,4%]: layers times directions, batch, hidden",
      x, gr.zeros(1, 2, 4), good)
    refuses("c0 is f32%[2,2,5%], expected %[2,2,4%]", x, good, gr.zeros(2, 2, 5))
    refuses("h0 is f32%[2,2,4%], expected %[2,4%]: layers times directions, hidden", gr.zeros(5, 3), good, good)
    assert.error_matches(function() nn.LSTMCell(3, 4)(gr.zeros(2, 3), gr.zeros(2, 5), gr.zeros(2, 4)) end,
      "LSTMCell 3→4: h0 is f32%[2,5%], expected %[2,4%]")
  end)
  it("half a state", function()
    local x, state = gr.zeros(5, 2, 3), gr.zeros(2, 2, 4)
    refuses("h0 is given without c0", x, state)
    refuses("c0 is given without h0", x, nil, state)
    assert.error_matches(function() nn.GRU(3, 4)(x, state, state) end, "3 inputs, expected 1 to 2")
  end)
  it("another dtype", function()
    refuses("input 2 is f32%[16,3%], but input 1 is f64%[5,2,3%]", gr.zeros(5, 2, 3):to("f64"))
  end)
  it("sizes and options that are none", function()
    assert.error_matches(function() nn.LSTM(0, 4) end, "input_size is 0, expected 1 to")
    assert.error_matches(function() nn.LSTM(3, 4, 0) end, "num_layers is 0")
    assert.error_matches(function() nn.RNN(3, 4, 1, "gelu") end, "unknown nonlinearity 'gelu'")
    assert.error_matches(function() nn.GRU(3, 4, { nonlinearity = "relu" }) end, "nonlinearity")
    assert.error_matches(function() nn.GRU(3, 4, { dropout = 1.5 }) end, "dropout is 1.5")
  end)
end)

-- ---- over a long run ------------------------------------------------------------------------------------------

describe("ten thousand steps of training", function()
  it("keep nothing, and learn", function()
    gr.manual_seed(6)
    local Model = nn.layer {
      init = function(self) self.rnn, self.head = nn.LSTM(2, 4), nn.Linear(4, 2) end,
      forward = function(self, x, h, c)
        local _
        _, h, c = self.rnn(x, h, c)
        return self.head(h[1]), h, c
      end,
    }
    local model = Model()
    local opt = gr.optim.Adam(model:parameters(), { lr = 5e-3 })
    local x, target = gr.randn(3, 2, 2), gr.tensor({ 1, 2 }, { dtype = "i64" })
    local h, c, loss
    local function step()
      return gr.scope(function()
        local y, hn, cn = model(x, h, c)
        loss = F.cross_entropy(y, target)
        opt:zero_grad()
        loss:backward()
        opt:step()
        return loss:item(), hn:detach():clone(), cn:detach():clone()
      end)
    end
    local function run(n)
      for _ = 1, n do loss, h, c = step() end
      collectgarbage()
      collectgarbage()
      return gr.memory()
    end
    local before = run(1000)
    local after = run(9000)
    for _, what in ipairs { "tensors", "storages", "nodes" } do assert.equal(before[what], after[what], what) end
    if before.cached > 0 then assert.is_true(after.system_calls - before.system_calls < 10) end
    assert.is_true(loss < 1e-3, loss)
  end)
end)
