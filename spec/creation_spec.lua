-- Tensors made of numbers in steps, of ones on a diagonal, and like others: dtypes, and what is refused.
local gr = require "gradrun"

describe("arange and range", function()
  it("end before stop, as PyTorch, or at it, as Lua's loops", function()
    assert.same({ 0, 1, 2 }, gr.arange(3):totable())
    assert.same({ 2, 3, 4 }, gr.arange(2, 5):totable())
    assert.same({ 2, 3, 4, 5 }, gr.range(2, 5):totable())
    for _, bounds in ipairs { { 1, 7, 2 }, { 0, 1, 0.1 }, { 5, 1, -1 }, { 1, 0, 1 }, { 0.3, 0.9, 0.3 }, { 3, 3, 1 } } do
      local want = {}
      for i = bounds[1], bounds[2], bounds[3] do want[#want + 1] = i end
      local got = gr.range(bounds[1], bounds[2], bounds[3], "f64")
      assert.equal(#want, #got, table.concat(bounds, " "))
      for k, v in ipairs(want) do assert.near(v, got[k]:item(), 1e-12) end
    end
  end)

  it("are i64 where all is whole, else floats, or what they are told", function()
    assert.same({ "i64", "i64", "f32", "f64" },
      { gr.arange(3).dtype, gr.range(1.0, 3).dtype, gr.arange(0, 1, 0.5).dtype, gr.range(1, 3, { dtype = "f64" }).dtype })
    assert.is_true(gr.range(1, 3, { dtype = "f32", requires_grad = true }).requires_grad)
    assert.equal(3, #gr.zeros(4, 2):index_select(1, gr.range(2, 4)))
    assert.equal(2 ^ 53 - 1, gr.arange(2 ^ 53 - 2, 2 ^ 53)[2]:item())
    local was = gr.default_dtype("f64")
    assert.equal("f64", gr.arange(0, 1, 0.5).dtype)
    gr.default_dtype(was)
  end)

  it("are the same numbers on every CPU and any number of threads", function()
    local threads = gr.threads()
    gr.threads(1)
    local one = gr.arange(-3, 10000, 0.013)
    gr.threads(2)
    assert.equal(0, one:ne(gr.arange(-3, 10000, 0.013)):sum():item())
    gr.threads(threads)
    assert.equal(-3 + 700000 * 0.013, gr.arange(-3, 10000, 0.013, "f64")[700001]:item())
  end)

  it("say what does not fit", function()
    assert.error_matches(function() gr.arange(5, 0) end, "arange: steps of 1 do not lead from 5 to 0")
    assert.error_matches(function() gr.arange(0, 5, 0) end, "arange: start = 0, stop = 5, step = 0: .* is not 0")
    assert.error_matches(function() gr.range(1) end, "range: stop is missing")
    assert.error_matches(function() gr.range(1, 1 / 0) end, "range: .*stop = inf.*expected finite")
    assert.error_matches(function() gr.range(0, 1e300) end, "range: .*more than 2%^53 numbers")
    assert.error_matches(function() gr.range(0, 256, { dtype = "u8" }) end, "256 is not a value of dtype u8")
    assert.error_matches(function() gr.arange(0, 1, 0.5, "i64") end, "0.5 is not a value of dtype i64")
    assert.error_matches(function() gr.range(1, 3, { stepp = 1 }) end, "unknown option 'stepp' %(did you mean 'step'")
  end)
end)

describe("linspace and eye", function()
  it("meet both ends, and the diagonal", function()
    local x = gr.linspace(-1, 2, 7, "f64")
    assert.same({ -1, -0.5, 0, 0.5, 1, 1.5, 2 }, x:totable())
    x = gr.linspace(0.1, 0.7, 100000, "f64")
    assert.same({ 0.1, 0.7 }, { x[1]:item(), x[-1]:item() })
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, gr.eye(2, 3):totable())
    assert.equal("u8", gr.eye(3, { dtype = "u8" }).dtype)
    assert.error_matches(function() gr.linspace(0, 1, -1) end, "linspace: steps is %-1, expected at least 0")
    assert.error_matches(function() gr.linspace(0, 1) end, "linspace: steps is missing")
    assert.error_matches(function() gr.linspace(0, 1, 3, "i64") end, "linspace: gives f32 or f64, not i64; see range")
    assert.error_matches(function() gr.eye(-1) end, "eye: n is %-1, expected at least 0")
  end)
end)

describe("zeros_like and its kind", function()
  it("take shape and dtype from another tensor, unless told", function()
    local x = gr.zeros({ 2, 3 }, "f64")
    for _, name in ipairs { "zeros_like", "ones_like", "rand_like", "randn_like" } do
      local y = gr[name](x)
      assert.same({ "f64", { 2, 3 } }, { y.dtype, y.shape }, name)
      assert.equal("f32", x[name](x, "f32").dtype)
      assert.is_true(gr[name](x, { requires_grad = true }).requires_grad)
    end
    assert.same({ { 1, 1, 1 }, { 1, 1, 1 } }, gr.ones_like(x):totable())
    assert.same({ 7 }, gr.full_like(gr.zeros({ 1 }, "u8"), 7):totable())
    assert.same({}, gr.zeros_like(gr.tensor(3)).shape)
    assert.error_matches(function() gr.zeros_like(3) end, "zeros_like: argument 1 is a number, expected a tensor")
    assert.error_matches(function() gr.zeros_like(x, { dtyp = "f32" }) end, "unknown option 'dtyp'")
  end)
end)
