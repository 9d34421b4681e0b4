-- Activations and functions of one number, where cases of single ops do not reach: exact remainders, the far ends of
-- activations, what is refused.
local gr = require "gradrun"
local nn = gr.nn

-- Numbers of all magnitudes, positive and negative, from the generator.
local function wide(n, dtype, decades)
  local t = (gr.uniform({ n }, { dtype = "f64" }) * 2 - 1) * gr.full({ n }, 10, { dtype = "f64" })
    ^ ((gr.uniform({ n }, { dtype = "f64" }) - 0.5) * decades)
  return t:to(dtype)
end

describe("fmod and remainder", function()
  for _, dtype in ipairs { "f32", "f64" } do
    for _, decades in ipairs { 2, 12, 60 } do
      it(("are exact in %s over %d decades"):format(dtype, decades), function()
        gr.manual_seed(decades)
        local a, b = wide(3000, dtype, decades), wide(3000, dtype, decades)
        local m, r, ta, tb = a:fmod(b):totable(), (a % b):totable(), a:totable(), b:totable()
        for i = 1, #ta do
          local want = math.fmod(ta[i], tb[i])
          assert.equal(want, m[i], ("fmod(%a, %a)"):format(ta[i], tb[i]))
          assert.equal(gr.tensor(ta[i] % tb[i], { dtype = dtype }):item(), r[i], ("%a %% %a"):format(ta[i], tb[i]))
        end
      end)
    end
  end

  it("mend a quotient that was rounded up", function()
    -- 3 - 2^-22 over 1 + 2^-23, and whole multiples less one unit: their quotients round to whole numbers
    for _, dtype in ipairs { "f32", "f64" } do
      local eps = dtype == "f32" and 0x1p-23 or 0x1p-52
      local a, b = {}, {}
      for k = 1, 400 do
        b[k] = 1 + (k * 37 % 1001) * eps
        a[k] = (k % 2 == 0 and -1 or 1) * (k % 19 + 1) * (b[k] - (k % 3) * eps)
      end
      a, b = gr.tensor(a, { dtype = dtype }), gr.tensor(b, { dtype = dtype })
      local m, ta, tb = a:fmod(b):totable(), a:totable(), b:totable()
      for k = 1, 400 do assert.equal(math.fmod(ta[k], tb[k]), m[k]) end
    end
  end)

  it("have the whole quotient as gradient, also where the division rounds up to it", function()
    for _, dtype in ipairs { "f32", "f64" } do
      local a = gr.tensor({ 1, -1, 1, 5, 5, -1e-30, -7.5, 2 }, { dtype = dtype })
      local b = gr.tensor({ 0.1, 0.1, -0.1, math.huge, -math.huge, 1e30, 2, 0 }, { dtype = dtype })
      b:requires_grad_(true)
      local function slope(y) return gr.grad(y:sum(), b):totable() end
      assert.same({ -9, 9, 9, 0, 0, 0, 3, -math.huge }, slope(a:fmod(b)))
      assert.same({ -9, 10, 10, 0, 1, 1, 4, -math.huge }, slope(a % b))
    end
  end)

  it("are written as %, with numbers on either side and in place", function()
    local t = gr.tensor { 5, -5, 7.5 }
    assert.same({ 2, 1, 1.5 }, (t % 3):totable())
    assert.same({ 2, -3, 7 }, (7 % t):totable())
    t:remainder_(2)
    assert.same({ 1, 1, 1.5 }, t:totable())
    local i = gr.tensor({ 5, -5, 7 }, { dtype = "i64" })
    assert.same({ 2, 1, 1 }, (i % 3):totable())
    assert.equal("i64", (i % 3).dtype)
    assert.equal("f32", (i % 1.5).dtype)
  end)

  it("refuse whole numbers by 0", function()
    local i = gr.tensor({ 5, -5, 7 }, { dtype = "i64" })
    assert.error_matches(function() return i % 0 end, "remainder: element 1 of b, i64%[%], is 0")
    assert.error_matches(function() return i:fmod(gr.tensor({ 1, 0, 2 }, { dtype = "i64" })) end,
      "fmod: element 2 of b, i64%[3%], is 0")
    assert.equal(0, (gr.zeros({ 0 }, { dtype = "i64" }) % 0):numel())
    local nan = (gr.tensor { 1 } % 0):item()
    assert.is_true(nan ~= nan)
  end)
end)

describe("arithmetic of whole numbers", function()
  local odd, most, least = (1 << 53) + 1, math.maxinteger, math.mininteger
  local function whole(list) return gr.tensor(list, { dtype = "i64" }) end

  it("is exact where no float is, and wraps around as Lua's", function()
    local ta, tb = { odd, -odd, most, least, 3037000499, 5 }, { 2, odd, 1, most, 3037000499, -7 }
    local a, b = whole(ta), whole(tb)
    local got = { a + b, a - b, a * b, -a, a:abs(), gr.maximum(a, b), gr.minimum(a, b) }
    for i = 1, #got do got[i] = got[i]:totable() end
    for k, x in ipairs(ta) do
      local y = tb[k]
      local want = { x + y, x - y, x * y, -x, x < 0 and -x or x, math.max(x, y), math.min(x, y) }
      for i = 1, #want do assert.equal(want[i], got[i][k], ("result %d of %d and %d"):format(i, x, y)) end
    end
    assert.same({ odd + 2, most }, (whole { odd, most - 2 } + 2):totable())
    assert.same({ odd + 1, odd }, (whole { 1, 0 } + odd):totable())
    assert.same({ 1, 0 }, whole({ odd, odd - 1 }):eq(odd):totable())
    local t = whole { 1, 2, 3 }
    t[1], t[{ { 2, 2 } }] = odd, most
    t[whole { 3 }] = least
    assert.same({ odd, most, least }, t:totable())
    assert.same({ -odd, -odd, -odd }, t:fill_(-odd):totable())
    assert.same({ odd }, whole({ odd - 4 }):add_(4):totable())
  end)

  it("stops at the ends of u8", function()
    local a = gr.tensor({ 200, 3 }, { dtype = "u8" })
    assert.same({ 255, 6 }, (a + a):totable())
    assert.same({ 255, 9 }, (a * a):totable())
    assert.same({ 195, 0 }, (a - 5):to("u8"):totable())
  end)
end)

describe("steps", function()
  it("keep whole numbers that no float can hold", function()
    local big = gr.tensor({ 9007199254740993, math.maxinteger }, { dtype = "i64" })
    for _, name in ipairs { "floor", "ceil", "trunc", "round" } do
      assert.same(big:totable(), big[name](big):totable())
    end
    big:floor_()
    assert.equal(9007199254740993, big:totable()[1])
  end)
  it("have a gradient of zeros even for an infinite one", function()
    local x = gr.tensor({ 0.5, -1.5 }, { requires_grad = true })
    x:floor():backward(gr.tensor { 1 / 0, 0 / 0 })
    assert.same({ 0, 0 }, x.grad:totable())
  end)
end)

describe("gelu", function()
  -- x Φ(x), computed with 40 digits
  local far = { [-3] = -0.004049694094890284, [-5] = -1.43325785939597e-6, [-8] = -4.976768459417427e-15,
    [-12] = -2.131778534493215e-32 }
  it("keeps relative precision far to the left, where 1 + erf(x) has none", function()
    for x, want in pairs(far) do
      assert.near(1, gr.tensor(x):gelu():item() / want, 1e-5)
      assert.near(1, gr.tensor(x, { dtype = "f64" }):gelu():item() / want, 1e-5)
    end
  end)
  it("is accurate to some units in the last place of f32", function()
    local x = gr.uniform({ 20000 }, { lo = -4, hi = 8 })
    local exact = x:to("f64")
    for _, approximate in ipairs { "none", "tanh" } do
      local want, y = exact:gelu { approximate = approximate }, x:gelu { approximate = approximate }
      local worst = ((y:to("f64") - want) / want):abs():amax():item()
      assert.is_true(worst < 2e-6, worst)
      x:requires_grad_(true)
      exact:requires_grad_(true)
      local ones = gr.ones { 20000 }
      local got = gr.grad(x:gelu { approximate = approximate }, { x }, { gradient = ones })[1]
      local slope = gr.grad(exact:gelu { approximate = approximate }, { exact }, { gradient = ones:to "f64" })[1]
      assert.is_true((got:to("f64") - slope):abs():amax():item() < 4e-7)
      x, exact = x:detach(), exact:detach()
    end
  end)
  it("has a second derivative that is as accurate, on either side", function()
    local x = gr.uniform({ 20000 }, { lo = -8, hi = 8 })
    local function second(t, approximate)
      t:requires_grad_(true)
      local slope = gr.grad(t:gelu { approximate = approximate }:sum(), t, { create_graph = true })
      return gr.grad(slope:sum(), t):to("f64")
    end
    for _, approximate in ipairs { "none", "tanh" } do
      local off = second(x:clone(), approximate) - second(x:to("f64"), approximate)
      assert.is_true(off:abs():amax():item() < 1e-6, off:abs():amax():item())
    end
  end)
  it("knows its two forms only", function()
    assert.error_matches(function() gr.tensor(1):gelu { approximate = "tan" } end, "did you mean 'tanh'")
  end)
end)

describe("softplus", function()
  it("refuses what it cannot divide by", function()
    assert.error_matches(function() gr.tensor(1):softplus { beta = 0 } end, "softplus: beta = 0, threshold = 20")
    assert.error_matches(function() nn.Softplus(1 / 0)(gr.tensor(1)) end, "beta = inf")
  end)
end)

describe("prelu", function()
  it("says which weights would fit", function()
    local x = gr.zeros(2, 4, 5)
    assert.error_matches(function() x:prelu(gr.zeros(3)) end,
      "prelu: weight is f32%[3%], expected %[1%] or %[4%], one number for each channel of x, f32%[2,4,5%]")
    assert.error_matches(function() gr.zeros(3):prelu(gr.zeros(3)) end, "has no channels: expected one number")
    assert.error_matches(function() x:prelu(gr.zeros(4, 1)) end, "weight is f32%[4,1%]")
    local recorded = gr.zeros({ 2 }, { requires_grad = true })
    assert.error_matches(function() x:prelu(recorded) end, "prelu: weight is f32%[2%]")
    assert.error_matches(function() nn.PReLU(0) end, "num_parameters is 0")
  end)
  it("as a layer starts at 0.25, and learns one weight for each channel", function()
    local one, m = nn.PReLU(), nn.PReLU(2, { init = 0.5 })
    assert.same({ 0.25 }, one.weight:totable())
    local x = gr.tensor { { { -1, 2 }, { -3, -4 } } }
    m(x):sum():backward()
    assert.same({ -1, -7 }, m.weight.grad:totable())
    assert.matches("PReLU 2", tostring(m))
  end)
end)
