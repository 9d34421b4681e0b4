-- gr.nn.init: what the draws are, by their moments and bounds; orthogonality; fans; what is refused.
local gr = require "gradrun"
local nn, init = gr.nn, gr.nn.init

local DTYPES = { "f32", "f64" }

-- Mean and standard deviation are those of the distribution, within five standard errors. kurtosis: the fourth
-- central moment over the squared variance (normal 3, uniform 1.8).
local function check_moments(t, mean, std, kurtosis)
  local x, n = t:detach():to("f64"):reshape { -1 }, t:numel()
  local m = x:mean():item()
  local var = ((x - m) * (x - m)):mean():item()
  assert.near(mean, m, 5 * std / math.sqrt(n))
  assert.near(1, var / std ^ 2, 5 * math.sqrt((kurtosis - 1) / n) + 2 / n)
end

local function check_bounds(t, lo, hi)
  local x = t:detach()
  assert.is_true(x:neg():amax():item() <= -lo and x:amax():item() <= hi)
end

local function seeded(seed, f, ...)
  gr.manual_seed(seed)
  return f(...)
end

-- f(...) fails with such a message.
local function refused(pattern, f, ...)
  local given = table.pack(...)
  assert.error_matches(function() f(table.unpack(given, 1, given.n)) end, pattern)
end

describe("every initialiser", function()
  local weights = { dirac_ = { 4, 4, 3 }, constant_ = { 3, 4 } }
  for name, f in pairs(init) do
    if name ~= "calculate_gain" then
      it(name .. " fills a parameter in place, gives it back, and draws the same from the same seed", function()
        for _, dtype in ipairs(DTYPES) do
          local w = gr.full(weights[name] or { 6, 4 }, 7, { dtype = dtype, requires_grad = true })
          local view = w:detach()
          local more = name == "constant_" and { 2.5 } or {}
          collectgarbage() -- of what ran before this
          local before = gr.memory().nodes
          assert.equal(w, seeded(5, f, w, table.unpack(more)))
          assert.is_true(w.requires_grad and w:is_leaf())
          assert.equal(before, gr.memory().nodes)
          assert.equal(0, view:eq(7):sum():item())
          local again = seeded(5, f, gr.zeros(w.shape, { dtype = dtype }), table.unpack(more))
          assert.same(w:totable(), again:totable())
        end
      end)
      it(name .. " fills a view, and leaves the rest", function()
        local base = gr.full({ 8, 8, 8 }, 7)
        local w = base[{ { 2, 5 }, { 3, 6 }, { 4, 6 } }]
        if name == "eye_" then w = base[{ { 2, 5 }, { 3, 6 }, 4 }] end
        f(w, table.unpack(name == "constant_" and { 2.5 } or {}))
        assert.equal(w:numel(), base:ne(7):sum():item())
      end)
      it(name .. " says what is not a tensor, and what is no option", function()
        assert.error_matches(function() f(3) end, name .. ": argument 1 is 3, expected a tensor")
        assert.error_matches(function() f() end, name .. ": argument 1 is missing")
        local message = select(2, pcall(function() f(gr.zeros(4, 4, 3), 1, 1, 1, 1, 1) end))
        assert.matches("init_spec%.lua:%d+: " .. name .. ": argument %d is one too many", message)
      end)
    end
  end
end)

describe("uniform_, normal_, constants", function()
  for _, dtype in ipairs(DTYPES) do
    it("have their moments in " .. dtype, function()
      local w = gr.zeros({ 400, 500 }, { dtype = dtype })
      seeded(1, init.uniform_, w)
      check_moments(w, 0.5, math.sqrt(1 / 12), 1.8)
      check_bounds(w, 0, 1)
      init.uniform_(w, -3, 1)
      check_moments(w, -1, 4 * math.sqrt(1 / 12), 1.8)
      check_bounds(w, -3, 1)
      init.normal_(w)
      check_moments(w, 0, 1, 3)
      init.normal_(w, { std = 0.02, mean = 5 })
      check_moments(w, 5, 0.02, 3)
    end)
  end
  it("fill with a number", function()
    local w = gr.rand(2, 3)
    assert.same({ { 2.5, 2.5, 2.5 }, { 2.5, 2.5, 2.5 } }, init.constant_(w, 2.5):totable())
    assert.same({ { 1, 1, 1 }, { 1, 1, 1 } }, init.ones_(w):totable())
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, init.zeros_(w):totable())
    refused("constant_: value is missing, expected a number", init.constant_, w)
    refused("value is 'x'", init.constant_, w, "x")
  end)
end)

describe("trunc_normal_", function()
  -- mean, std, a, b; the moments of what lies between: by the formulas, with 50 digits
  local cases = {
    { 0, 1, -2, 2, 0, 0.8796256610342 }, { 0, 1, -0.5, 3, 0.5037344585049, 0.6869553422969 },
    { 0, 1, 1, 2, 1.383169046632, 0.2697088914007 }, { 1, 0.5, 2.5, 10, 2.641549327465, 0.1328148963645 },
    { 0, 1, 6, 7, 6.157210903378, 0.1508256646513 }, { 0, 1, -1 / 0, -3, -3.28309865493, 0.265629792729 },
    { 0.02, 0.02, -2, 2, 0.02, 0.02 }, { -3, 2, 5, 1 / 0, 5.451214288979, 0.4320779485113 },
    { 0, 1, -10, -9.99, -9.994916722476, 0.002886025769761 }, { 0, 1, 20, 25, 20.04975306853, 0.04963125643233 },
    { 0, 1, -1 / 0, 1 / 0, 0, 1 },
  }
  for _, dtype in ipairs(DTYPES) do
    for _, c in ipairs(cases) do
      local mean, std, a, b = table.unpack(c)
      it(("has the moments of N(%g, %g²) between %g and %g in %s"):format(mean, std, a, b, dtype), function()
        local w = seeded(2, init.trunc_normal_, gr.zeros({ 200000 }, { dtype = dtype }), mean, std, a, b)
        check_bounds(w, a, b)
        check_moments(w, c[5], c[6], 9) -- the kurtosis of an exponential tail, the largest here
      end)
    end
  end
  it("has the distribution between its bounds, not only the moments", function()
    local w = seeded(3, init.trunc_normal_, gr.zeros({ 200000 }, { dtype = "f64" }), 0, 1, -1, 2.5)
    local function phi(z) return (1 + gr.tensor(z / math.sqrt(2), { dtype = "f64" }):erf():item()) / 2 end
    for _, z in ipairs { -0.9, -0.5, 0, 0.4, 1, 1.7, 2.3 } do
      local share = (phi(z) - phi(-1)) / (phi(2.5) - phi(-1))
      assert.near(share, w:lt(z):sum():item() / 200000, 5 * math.sqrt(share * (1 - share) / 200000))
    end
  end)
  it("refuses what cannot be", function()
    local w = gr.zeros(3)
    refused("a = 2, b = %-2: expected a < b", init.trunc_normal_, w, 0, 1, 2, -2)
    refused("std = 0: expected finite values, std above 0", init.trunc_normal_, w, 0, 0)
    refused("no such number is ever drawn", init.trunc_normal_, w, 0, 1, 50, 60)
    refused("expected a < b", init.trunc_normal_, w, 0, 1, 0 / 0, 1)
  end)
end)

describe("xavier and kaiming", function()
  local SHAPE = { 80, 30, 5, 5 } -- fan_in 750, fan_out 2000
  for _, dtype in ipairs(DTYPES) do
    local function check(std, uniform, name, ...)
      local w = seeded(4, init[name], gr.zeros(SHAPE, { dtype = dtype }), ...)
      check_moments(w, 0, std, uniform and 1.8 or 3)
      if uniform then
        check_bounds(w, -std * math.sqrt(3), std * math.sqrt(3))
        assert.is_true(w:amax():item() > 0.999 * std * math.sqrt(3))
      end
    end
    it("know the fans of a convolution's weight in " .. dtype, function()
      check(math.sqrt(2 / 2750), true, "xavier_uniform_")
      check(math.sqrt(2 / 2750), false, "xavier_normal_")
      check(3 * math.sqrt(2 / 2750), true, "xavier_uniform_", 3)
      check(5 / 3 * math.sqrt(2 / 2750), false, "xavier_normal_", { gain = init.calculate_gain "tanh" })
      check(math.sqrt(2 / 750), true, "kaiming_uniform_")
      check(math.sqrt(2 / 750), false, "kaiming_normal_")
      check(math.sqrt(2 / 2000), true, "kaiming_uniform_", { mode = "fan_out" })
      check(math.sqrt(2 / 2000), false, "kaiming_normal_", 0, "fan_out", "relu")
      check(math.sqrt(2 / 6 / 750), true, "kaiming_uniform_", math.sqrt(5))
      check(math.sqrt(1 / 2000), false, "kaiming_normal_", { nonlinearity = "linear", mode = "fan_out" })
    end)
  end
  it("know those of a matrix", function()
    check_moments(seeded(5, init.kaiming_normal_, gr.zeros(300, 700)), 0, math.sqrt(2 / 700), 3)
    check_moments(init.kaiming_normal_(gr.zeros(300, 700), { mode = "fan_out" }), 0, math.sqrt(2 / 300), 3)
  end)
  it("leave empty tensors as they are", function()
    for _, name in ipairs { "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_",
                            "orthogonal_" } do
      assert.equal(0, init[name](gr.zeros(0, 4)):numel())
      assert.equal(0, init[name](gr.zeros(4, 0)):numel())
    end
  end)
  it("say what does not fit", function()
    local bias, w = gr.zeros(5), gr.zeros(5, 5)
    refused("xavier_normal_: f32%[5%] has no fan_in and fan_out: at least 2 dimensions are expected",
      init.xavier_normal_, bias)
    refused("kaiming_uniform_: f32%[%] has no fan_in", init.kaiming_uniform_, gr.tensor(1))
    refused("unknown mode 'fanin' %(did you mean 'fan_in'", init.kaiming_uniform_, w, { mode = "fanin" })
    refused("kaiming_normal_: unknown nonlinearity 'leaky' %(known: linear .* leaky_relu selu%)",
      init.kaiming_normal_, w, { nonlinearity = "leaky" })
    refused("unknown option 'noise'", init.kaiming_normal_, w, { noise = 1 })
    refused("did you mean 'gain'", init.xavier_uniform_, w, { gian = 1 })
    refused("^uniform_: draws f32 or f64, not i64", init.xavier_uniform_, gr.zeros({ 5, 5 }, { dtype = "i64" }))
    local options = { gain = 2 }
    init.xavier_uniform_(w, options)
    assert.same({ gain = 2 }, options)
  end)
end)

describe("calculate_gain", function()
  it("gives PyTorch's values", function()
    for _, name in ipairs { "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                            "conv_transpose3d", "sigmoid" } do
      assert.equal(1, init.calculate_gain(name))
    end
    assert.equal(1.6666666666666667, init.calculate_gain "tanh")
    assert.equal(1.4142135623730951, init.calculate_gain "relu")
    assert.equal(1.4141428569978354, init.calculate_gain "leaky_relu")
    assert.equal(1.3719886811400708, init.calculate_gain("leaky_relu", 0.25))
    assert.equal(0.5773502691896257, init.calculate_gain("leaky_relu", math.sqrt(5)))
    assert.equal(0.75, init.calculate_gain "selu")
  end)
  it("knows no others", function()
    refused("calculate_gain: unknown nonlinearity 'Relu' %(did you mean 'relu'", init.calculate_gain, "Relu")
    refused("unknown nonlinearity 'nil'", init.calculate_gain)
    refused("param is 'x', expected a number: the negative slope", init.calculate_gain, "leaky_relu", "x")
  end)
end)

describe("eye_ and dirac_", function()
  it("make matrices that change nothing", function()
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, init.eye_(gr.rand(2, 3)):totable())
    assert.same({ { 1, 0 }, { 0, 1 }, { 0, 0 } }, init.eye_(gr.rand(3, 2):to "i64"):totable())
    refused("eye_: f32%[3%]: a tensor of 2 dimensions is expected", init.eye_, gr.zeros(3))
  end)
  it("make convolutions that change nothing", function()
    local conv = nn.Conv2d(3, 3, 3, { padding = 1, bias = false })
    init.dirac_(conv.weight)
    local x = gr.rand(2, 3, 5, 4)
    assert.same(x:totable(), conv(x):totable())
    local w = init.dirac_(gr.rand(4, 2, 3), 2)
    assert.equal(4, w:sum():item())
    assert.same({ { 0, 1, 0 }, { 0, 0, 0 } }, w[3]:totable())
    refused("dirac_: 4 output channels cannot be shared by 3 groups", init.dirac_, w, 3)
    refused("dirac_: f32%[2,2%]: the weight of a convolution", init.dirac_, gr.zeros(2, 2))
  end)
end)

describe("orthogonal_", function()
  local TOL = { f32 = 1e-6, f64 = 1e-12 }
  for _, dtype in ipairs(DTYPES) do
    for _, shape in ipairs { { 1, 1 }, { 3, 3 }, { 5, 40 }, { 40, 5 }, { 99, 99 }, { 300, 257 }, { 16, 8, 3, 3 } } do
      it(("makes %s orthogonal in %s"):format(table.concat(shape, "x"), dtype), function()
        local w = seeded(6, init.orthogonal_, gr.zeros(shape, { dtype = dtype }), 1.5)
        w = w:reshape { shape[1], -1 }:to "f64"
        if w.shape[1] > w.shape[2] then w = w:transpose(1, 2) end
        local product = w:matmul(w:transpose(1, 2))
        local want = init.eye_(gr.zeros(product.shape, { dtype = "f64" })) * 2.25
        assert.is_true((product - want):abs():amax():item() < TOL[dtype])
      end)
    end
  end
  it("prefers no direction", function()
    -- entries of a uniform orthogonal matrix of size n have mean 0, variance 1/n, kurtosis 3n/(n+2); the determinant
    -- is 1 or -1
    gr.manual_seed(7)
    local n, first, positive = 4000, {}, 0
    for k = 1, n do
      local q = init.orthogonal_(gr.zeros(2, 2)):totable()
      first[k] = q[1][1]
      if q[1][1] * q[2][2] - q[1][2] * q[2][1] > 0 then positive = positive + 1 end
    end
    check_moments(gr.tensor(first), 0, math.sqrt(1 / 2), 1.5)
    assert.near(0.5, positive / n, 5 * 0.5 / math.sqrt(n))
    check_moments(init.orthogonal_(gr.zeros(400, 100)), 0, math.sqrt(1 / 400), 3)
  end)
  it("wants a floating matrix", function()
    refused("orthogonal_: f32%[3%]: floating numbers", init.orthogonal_, gr.zeros(3))
    refused("orthogonal_: i64%[3,3%]", init.orthogonal_, gr.zeros({ 3, 3 }, { dtype = "i64" }))
  end)
end)

describe("layers", function()
  it("begin as they did: uniform within 1 / sqrt(fan_in), weight first", function()
    for _, make in ipairs { function() return nn.Linear(75, 20) end, function() return nn.Conv2d(3, 20, 5) end } do
      local l = seeded(8, make)
      gr.manual_seed(8)
      local w, b = init.uniform_(gr.zeros(l.weight.shape), -1 / math.sqrt(75), 1 / math.sqrt(75)), gr.zeros(20)
      init.uniform_(b, -1 / math.sqrt(75), 1 / math.sqrt(75))
      assert.same(w:totable(), l.weight:totable())
      assert.same(b:totable(), l.bias:totable())
      -- which PyTorch writes as kaiming_uniform_(weight, a = sqrt(5))
      local kaiming = seeded(8, init.kaiming_uniform_, gr.zeros(l.weight.shape), { a = math.sqrt(5) })
      assert.is_true((kaiming - l.weight):abs():amax():item() < 1e-7)
    end
  end)
end)
