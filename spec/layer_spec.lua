-- Layers: members, names, modes, printing, and layers written in Lua.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local Block = nn.layer {
  name = "Block",
  init = function(self, n)
    self.fc = nn.Linear(n, n)
    self.gain = gr.ones(n, { requires_grad = true })
    self.calls = 0
  end,
  forward = function(self, x)
    self.calls = self.calls + 1
    return x + self.fc(x):tanh() * self.gain
  end,
}

local function names(m)
  local out = {}
  for name in m:named_parameters() do out[#out + 1] = name end
  return out
end

describe("a layer", function()
  it("gives its members as fields, the same ones every time", function()
    local m = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert.equal(m[1], m[1])
    assert.equal(m[1].weight, m:parameters()[1])
    assert.equal(2, #m)
    assert.same({ "1.weight", "1.bias" }, names(m))
    assert.equal("1.weight", m[1].weight.name)
    assert.equal("Linear", m[1].type)
    assert.equal(2, m[1].in_features)
  end)

  it("takes no buffer with a history, which would hold the layer that holds it", function()
    local m, w = nn.Linear(2, 2), gr.ones(2, { requires_grad = true })
    assert.error_matches(function() m:register_buffer("cache", w * 2) end,
      'buffer "cache" is not a leaf: it is the result of mul; detach it')
    m:register_buffer("cache", (w * 2):detach())
    assert.same({ 2, 2 }, m.cache:totable())
  end)

  it("refuses unknown fields with a suggestion", function()
    local m = nn.Sequential(nn.Linear(2, 3))
    assert.error_matches(function() return m[1].wieght end, "did you mean 'weight'")
    assert.error_matches(function() return m[3] end, "has 1 layers, no number 3")
    assert.error_matches(function() nn.Linear(2, 3, { bais = false }) end, "unknown option 'bais' %(did you mean 'bias'")
    assert.error_matches(function() nn.Linear(2) end, "out_features is missing")
    assert.error_matches(function() nn.Linear(2, "x") end, "out_features is 'x', expected a whole number")
    assert.error_matches(function() nn.Sequential(nn.ReLU(), 3) end, "argument 2 is a number, expected a layer")
  end)

  it("says where a shape is wrong", function()
    local m = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(784, 10), nn.Linear(512, 10)))
    assert.error_matches(function() m(gr.zeros(4, 1, 28, 28)) end,
      "2%.2 %(Linear 512→10%): linear: input has 10 features, expected 512")
    assert.error_matches(function() m[2](gr.zeros(4, 1, 28, 28)) end, "did you flatten")
    assert.error_matches(function() m() end, "the input is missing")
    assert.error_matches(function() m[2][1](gr.zeros(1, 784), gr.zeros(1)) end, "2 inputs, expected 1")
  end)

  it("drops gradients with zero_grad", function()
    local m = nn.Linear(2, 1)
    m(gr.ones(1, 2)):sum():backward()
    assert.same({ { 1, 1 } }, m.weight.grad:totable())
    m:zero_grad()
    assert.is_nil(m.weight.grad)
  end)

  it("switches modes for all below, and attributes at any time", function()
    local m = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    local x = gr.ones(1000)
    m:eval()
    assert.is_false(m[2][1].training)
    assert.equal(1000, m(x):sum():item())
    m:train()
    assert.is_true(m(x):eq(0):sum():item() > 500)
    m[1].p, m[2][1].p = 0, 0
    assert.equal(1000, m(x):sum():item())
    assert.error_matches(function() m[1].p = 1.5 end, "p is 1.5")
  end)

  it("prints as a table of layers, shapes and counts", function()
    local m = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, { bias = false }))
    local text = tostring(m)
    assert.matches("Conv2d 1→2, 3×3", text)
    assert.matches("weight%[2×1×3×3%] bias%[2%] +20", text)
    assert.matches("weight%[3×8%] +24", text)
    assert.matches("44 parameters$", text)
    for line in text:gmatch("[^\n]+") do assert.is_nil(line:match(" $"), "blanks at the end of: " .. line) end
  end)

  it("draws the same parameters from the same seed", function()
    local function make()
      gr.manual_seed(9)
      return nn.Linear(5, 4).weight:totable()
    end
    assert.same(make(), make())
    gr.manual_seed(1)
    local w = nn.Linear(400, 300).weight
    assert.is_true(w:abs():amax():item() <= 1 / 20)
    assert.near(1 / 1200, (w * w):mean():item(), 1e-5) -- variance of U(-1/20, 1/20)
  end)
end)

describe("a layer written in Lua", function()
  it("nests, carries parameters and prints like a native one", function()
    local m = nn.Sequential(Block(3), nn.Tanh(), Block(3))
    assert.same({ "1.gain", "1.fc.weight", "1.fc.bias", "3.gain", "3.fc.weight", "3.fc.bias" }, names(m))
    assert.equal("3.fc.weight", m[3].fc.weight.name)
    assert.matches("Block", tostring(m))
    m(gr.rand(2, 3)):sum():backward()
    for _, p in ipairs(m:parameters()) do assert.is_truthy(p.grad) end
    assert.equal(1, m[1].calls)
  end)

  it("passes errors on with its path", function()
    local m = nn.Sequential(Block(3))
    assert.error_matches(function() m(gr.rand(2, 4)) end, "1%.fc %(Linear 3→3%)")
    local Bad = nn.layer { name = "Bad", forward = function() return 3 end }
    assert.error_matches(function() nn.Sequential(Bad())(gr.ones(1)) end, "1 %(Bad%).*forward returned number, expected a tensor")
    assert.error_matches(function() nn.layer { name = "x" } end, "forward is a nil")
  end)

  it("takes and gives several tensors, absent ones as nil", function()
    local Swap = nn.layer {
      name = "Swap",
      forward = function(_, x, y, scale) return y or x * 0, scale and x * scale or x, nil end,
    }
    local swap, a, b = Swap(), gr.tensor { 1, 2 }, gr.tensor { 3, 4 }
    local p, q, none = swap(a, b)
    assert.same({ { 3, 4 }, { 1, 2 } }, { p:totable(), q:totable() })
    assert.is_nil(none)
    p, q = swap(a, nil, gr.tensor(10))
    assert.same({ { 0, 0 }, { 10, 20 } }, { p:totable(), q:totable() })
    assert.same({ 0, 0 }, nn.Sequential(swap)(a):totable()) -- the first goes on
    local Bad = nn.layer { name = "Bad", forward = function(_, x) return x, 3 end }
    assert.error_matches(function() Bad()(a) end, "forward returned number, expected a tensor")
    local Mute = nn.layer { name = "Mute", forward = function() end }
    assert.error_matches(function() Mute()(a) end, "forward returned 0 values, expected 1 to 8 tensors")
    assert.error_matches(function() nn.Tanh()(a, b) end, "Tanh: 2 inputs, expected 1")
    assert.error_matches(function() nn.Tanh()(nil) end, "Tanh: the input is missing")
    assert.error_matches(function() nn.Tanh()(nil, b) end, "2 inputs, expected 1")
  end)

  it("may share parameters: they are listed once", function()
    local Tied = nn.layer {
      init = function(self)
        self.a = nn.Linear(3, 3)
        self.weight = self.a.weight
      end,
      forward = function(self, x) return F.linear(self.a(x), self.weight) end,
    }
    local m = Tied()
    assert.equal(2, #m:parameters())
    m(gr.ones(1, 3)):sum():backward()
    assert.is_truthy(m.weight.grad)
  end)

  it("cannot be put inside itself", function()
    local a, b = Block(2), Block(2)
    a.inner = b
    assert.error_matches(function() b.inner = a end, "cannot be put inside itself")
    assert.error_matches(function() a.fc = nn.ReLU() end, "already has a member \"fc\"")
  end)

  it("is collected with its closures", function()
    local function live()
      for _ = 1, 3 do collectgarbage() end
      local m = gr.memory()
      return { m.layers, m.tensors, m.nodes, m.hooks }
    end
    local before = live()
    for _ = 1, 50 do
      local m = nn.Sequential(Block(3))
      m[1].back = function() return m end
      m[1]:register_forward_hook(function() return m and nil end)
      m(gr.rand(2, 3)):sum():backward()
    end
    assert.same(before, live())
  end)
end)

describe("optimizers", function()
  it("read and change hyper-parameters, per group", function()
    local m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    local opt = gr.optim.AdamW({
      { params = m[1]:parameters(), lr = 0.1 }, { params = m[2]:parameters(), betas = { 0.8, 0.9 } },
    }, { lr = 0.5, weight_decay = 0 })
    assert.same({ 0.1, 0.5 }, { opt.groups[1].lr, opt.groups[2].lr })
    assert.same({ 0.9, 0.8 }, { opt.groups[1].beta1, opt.groups[2].beta1 })
    opt.lr = 0.25
    opt.groups[2].lr = 0.75
    assert.same({ 0.25, 0.75 }, { opt.groups[1].lr, opt.groups[2].lr })
    assert.error_matches(function() opt.lrr = 1 end, "did you mean 'lr'")
    assert.error_matches(function() gr.optim.SGD(m:parameters(), { momentun = 1 }) end, "did you mean 'momentum'")
    assert.error_matches(function() gr.optim.SGD({ gr.ones(1) }) end, "require")
    assert.error_matches(function() gr.optim.SGD({ m[1].weight, m[1].weight }) end, "1%.weight")
    assert.matches("AdamW", tostring(opt))
  end)

  it("count steps, which hooks see", function()
    local x = gr.tensor({ 1 }, { requires_grad = true })
    local opt = gr.optim.SGD({ x }, { lr = 0.1 })
    gr.step(1)
    for _ = 1, 3 do
      opt:zero_grad();
      (x * x):sum():backward()
      opt:step()
    end
    assert.same({ 3, 4 }, { opt:steps(), gr.step() })
    gr.step(1)
  end)
end)
