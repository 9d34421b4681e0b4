-- Tensors seen from a script: making, indexing, assigning, printing, and the errors of all that.
local gr = require "gradrun"

local function raises(pattern, fn) assert.error_matches(fn, pattern) end

describe("making", function()
  it("takes nested tables, numbers and options", function()
    local t = gr.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 2, 3 }, { t.shape[1], t.shape[2] })
    assert.same({ "f32", 2, 6 }, { t.dtype, t.rank, t:numel() })
    assert.equal(5, gr.tensor(5):item())
    assert.same({ 1, 0 }, gr.tensor({ true, false }, "u8"):totable())
    assert.same({ 0, 3 }, { #gr.zeros(0, 3), gr.zeros(0, 3):size(2) })
    assert.is_true(gr.ones({ 2 }, { requires_grad = true, dtype = "f64" }).requires_grad)
    assert.same({ 7, 7 }, gr.full({ 2 }, 7, "i64"):totable())
    assert.equal(9007199254740993, gr.tensor({ 9007199254740993 }, "i64"):item())
  end)

  it("refuses what is not a tensor", function()
    raises("entry %[2%] has 1 entries, but its neighbours have 2", function() gr.tensor { { 1, 2 }, { 3 } } end)
    raises("entry %[1%]%[2%] is a string, expected a number", function() gr.tensor { { 1, "x" } } end)
    raises("300 is not a value of dtype u8", function() gr.tensor({ 300 }, "u8") end)
    raises("0.5 is not a value of dtype i64", function() gr.tensor({ 0.5 }, "i64") end)
    raises("unknown dtype 'f23' %(did you mean 'f32'", function() gr.zeros({ 2 }, "f23") end)
    raises("unknown option 'dtpye' %(did you mean 'dtype'", function() gr.zeros({ 2 }, { dtpye = "f32" }) end)
    raises("negative size", function() gr.zeros(-1) end)
    raises("too many elements", function() gr.zeros(1 << 40, 1 << 40) end)
    raises("9 sizes", function() gr.zeros { 1, 1, 1, 1, 1, 1, 1, 1, 1 } end)
  end)

  it("draws what a seed says, and only that", function()
    gr.manual_seed(3)
    local a, b = gr.rand(4):totable(), gr.randn(4):totable()
    gr.manual_seed(3)
    assert.same(a, gr.rand(4):totable())
    assert.same(b, gr.randn(4):totable())
    local p = gr.randperm(100):totable()
    table.sort(p)
    assert.same({ 1, 100 }, { p[1], p[100] })
    assert.same(gr.uniform({ 3 }, { seed = 5, counter = 0 }):totable(), gr.uniform({ 3 }, { seed = 5, counter = 0 }):totable())
  end)
end)

describe("indexing", function()
  local t
  before_each(function() t = gr.tensor { { 11, 12, 13 }, { 21, 22, 23 }, { 31, 32, 33 } } end)

  it("counts from 1, and from the end", function()
    assert.same({ 21, 22, 23 }, t[2]:totable())
    assert.same({ 31, 32, 33 }, t[-1]:totable())
    assert.equal(22, t[2][2]:item())
    assert.same({ { 12, 13 }, { 22, 23 } }, t[{ { 1, 2 }, { 2, 3 } }]:totable())
    assert.same({ 12, 22, 32 }, t[{ {}, 2 }]:totable())
    assert.same({ { 11, 13 }, { 31, 33 } }, t[{ { 1, 3, 2 }, { 1, 3, 2 } }]:totable())
  end)

  it("gives views: an edit is seen", function()
    t[2]:fill_(0)
    assert.same({ 0, 0, 0 }, t[2]:totable())
    t[1] = 5
    t[{ {}, 3 }] = gr.tensor { 7, 8, 9 }
    t[{ 3, 1 }] = -1
    assert.same({ { 5, 5, 7 }, { 0, 0, 8 }, { -1, 32, 9 } }, t:totable())
  end)

  it("refuses what is outside", function()
    raises("4", function() return t[4] end)
    raises("positions count from 1", function() return t[0] end)
    raises("3 entries for a tensor of 2", function() return t[{ 1, 1, 1 }] end)
    raises("does not broadcast", function() t[1] = gr.ones(2) end)
    raises("expected a number or a tensor", function() t[1] = "x" end)
    raises("unknown field 'shpae' %(did you mean 'shape'", function() return t.shpae end)
    raises("unknown field 'grda' %(did you mean 'grad'", function() t.grda = 1 end)
    raises("dimensions and positions count from 1", function() t:sum(0) end)
    raises("dimension 3: the tensor has 2 dimensions", function() t:sum(3) end)
  end)
end)

describe("arithmetic", function()
  it("takes numbers on either side and broadcasts", function()
    local t = gr.tensor { 1, 2, 4 }
    assert.same({ 3, 4, 6 }, (2 + t):totable())
    assert.same({ 0, -1, -3 }, (1 - t):totable())
    assert.same({ 1, 0.5, 0.25 }, (1 / t):totable())
    assert.same({ 1, 4, 16 }, (t ^ 2):totable())
    assert.same({ -1, -2, -4 }, (-t):totable())
    assert.same({ 0, 1, 1 }, t:gt(1.5):totable())
    raises("f32%[3%] and f32%[2%] do not broadcast", function() return t + gr.ones(2) end)
    raises("expected a tensor", function() return t + "x" end)
  end)

  it("keeps dtypes", function()
    local i = gr.tensor({ 1, 2 }, "i64")
    assert.equal("i64", (i + 1).dtype)
    assert.equal("f32", (i * 0.5).dtype)
    assert.equal("f64", (i + gr.ones(2, "f64")).dtype)
    assert.equal("f64", (gr.ones(2, "f64") * 0.1).dtype)
    assert.equal(0.1, (gr.ones(1, "f64") * 0.1):item())
  end)

  it("in place returns the tensor, and refuses what does not fit", function()
    local t = gr.tensor { 1, 2 }
    assert.equal(t, t:add_(1))
    assert.same({ 2, 3 }, t:totable())
    raises("does not fit into f32%[2%]", function() t:add_(gr.ones(3, 2)) end)
    raises("dimension 1 of it is expanded", function() gr.ones(1, 2):expand(3, 2):add_(1) end)
    raises("cannot be stored in i64", function() gr.tensor({ 1 }, "i64"):mul_(0.5) end)
  end)
end)

describe("printing", function()
  it("shows dtype, shape and aligned numbers", function()
    assert.equal("f32[2×2]\n   1.0000  -2.5000\n  10.0000   0.0000", tostring(gr.tensor { { 1, -2.5 }, { 10, 0 } }))
    assert.equal("i64[3]\n  1  2  3", tostring(gr.tensor({ 1, 2, 3 }, "i64")))
    assert.equal("f32[] 3.", tostring(gr.tensor(3)))
    assert.equal("f32[0×3]", tostring(gr.zeros(0, 3)))
    assert.matches("1 nan 2 inf", tostring(gr.tensor { 0 / 0, 1 / 0, -1 / 0 }))
  end)

  it("stays short", function()
    local text = tostring(gr.rand(500, 500, 3))
    assert.is_true(#text < 4000)
    assert.matches("%.%.%.", text)
    assert.matches("f32%[500×500×3%]", text)
  end)
end)

describe("closing", function()
  it("frees at once, and a use after that says so", function()
    local before = gr.memory().bytes
    local t <close> = gr.zeros(1000, 1000)
    assert.is_true(gr.memory().bytes - before >= 4e6)
    t:free()
    t:free()
    assert.is_true(gr.memory().bytes - before < 1e5)
    raises("the tensor was closed", function() return t + 1 end)
    raises("closed", function() return gr.cat({ t }, 1) end)
    assert.equal("tensor (closed)", tostring(t))
  end)
end)

describe("native bytes", function()
  it("drive the collector: garbage does not pile up", function()
    local peak = 0
    for _ = 1, 2000 do
      local t = gr.ones(256, 1024) -- 1 MiB
      peak = math.max(peak, gr.memory().bytes)
      assert.equal(1, t.shape[1] // 256)
    end
    assert.is_true(peak < 200 * 2 ^ 20, ("%d MiB"):format(peak // 2 ^ 20))
  end)
end)
