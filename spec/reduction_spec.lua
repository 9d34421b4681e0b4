-- Reductions and running sums against their definitions, where the sizes are those at which kernels cut their work.
local gr = require "gradrun"

-- ---- definitions, in plain double arithmetic ----------------------------------------------------------------

local function sum(row)
  local s, lost = 0, 0 -- compensated: as good as exact here
  for _, v in ipairs(row) do
    local t = s + v
    lost = lost + (math.abs(s) >= math.abs(v) and (s - t) + v or (v - t) + s)
    s = t
  end
  return s + lost
end

local function variance(row)
  local mean, squares = sum(row) / #row, {}
  for i, v in ipairs(row) do squares[i] = (v - mean) ^ 2 end
  return sum(squares) / (#row - 1)
end

local function log_sum(row)
  local m, terms = math.max(table.unpack(row)), {}
  for i, v in ipairs(row) do terms[i] = math.exp(v - m) end
  return m + math.log(sum(terms))
end

local function product(row)
  local p = 1
  for _, v in ipairs(row) do p = p * v end
  return p
end

local DEFINITIONS = {
  sum = sum, mean = function(row) return sum(row) / #row end, var = variance,
  std = function(row) return math.sqrt(variance(row)) end, logsumexp = log_sum, prod = product,
  amax = function(row) return math.max(table.unpack(row)) end,
  amin = function(row) return math.min(table.unpack(row)) end,
}
local TOL = { f32 = 3e-7, f64 = 1e-13 }

-- Rows and columns: around the lanes of a vector, four rows, short and long runs, blocks, segments.
local SHAPES = { { 3, 2 }, { 70, 5 }, { 5, 7 }, { 9, 23 }, { 6, 100 }, { 3, 511 }, { 4, 513 }, { 2, 1100 },
  { 300, 4 }, { 70, 70 }, { 3, 5000 } }

local function each_shape(f)
  for _, dtype in ipairs { "f32", "f64" } do
    for _, shape in ipairs(SHAPES) do
      gr.manual_seed(shape[1] * 10000 + shape[2])
      f(gr.rand(shape, { dtype = dtype }) + 0.5, dtype, ("%s[%d,%d]"):format(dtype, shape[1], shape[2]))
    end
  end
end

describe("along rows and along columns", function()
  for name, definition in pairs(DEFINITIONS) do
    it(name .. " is what its definition says", function()
      each_shape(function(x, dtype, text)
        if name == "prod" then x = x:pow(0.01) end -- in range
        for dim = 1, 2 do
          local got, rows = gr[name](x, dim):totable(), (dim == 2 and x or x:transpose()):totable()
          for i, row in ipairs(rows) do
            local want = definition(row)
            assert(math.abs(got[i] - want) <= TOL[dtype] * math.abs(want),
              ("%s, dim %d, place %d: %.17g, expected %.17g"):format(text, dim, i, got[i], want))
          end
        end
      end)
    end)
  end

  it("cumsum is what its definition says, from either end", function()
    each_shape(function(x, dtype, text)
      for dim = 1, 2 do
        local function rows(t) return (dim == 2 and t or t:transpose()):totable() end
        local given, up, down = rows(x), rows(x:cumsum(dim)), rows(gr.hidden.cumsum_backward(x, dim))
        for r, row in ipairs(given) do
          local before, all = 0, sum(row)
          for i, v in ipairs(row) do
            for got, want in pairs { [up[r][i]] = before + v, [down[r][i]] = all - before } do
              assert(math.abs(got - want) <= TOL[dtype] * all,
                ("%s, dim %d, (%d,%d): %.17g, expected %.17g"):format(text, dim, r, i, got, want))
            end
            before = before + v
          end
        end
      end
    end)
  end)
end)

describe("rows that are equal", function()
  for _, name in ipairs { "sum", "mean", "var", "std", "amax", "amin", "prod", "norm", "logsumexp" } do
    it("have equal bits of " .. name .. " wherever they lie", function()
      for _, n in ipairs { 7, 31, 100, 515 } do
        local y = gr[name](gr.rand { 1, n }:expand { 37, n }:clone(), { dim = 2 })
        assert.equal(37, y:eq(y[1]):sum():item())
      end
    end)
  end
end)

describe("var", function()
  it("is right far from 0", function()
    for _, n in ipairs { 10, 1000, 70000 } do
      local x = gr.rand({ n }, { dtype = "f64" })
      local far = gr.add(x, 1e8)
      local want = (far - 1e8):var():item() -- the difference is exact
      assert.near(want, far:var():item(), 1e-13 * want)
      assert.near(want, far:reshape { n, 1 }:var(1):item(), 1e-13 * want)
    end
  end)
  it("of equal elements is exactly 0", function()
    for _, dtype in ipairs { "f32", "f64" } do
      for _, dim in ipairs { 1, 2 } do
        local y = gr.full({ 300, 300 }, 0.1, { dtype = dtype }):std(dim)
        assert.equal(300, y:eq(0):sum():item())
      end
    end
  end)
  it("of whole numbers is refused", function()
    assert.error_matches(function() gr.ones({ 3 }, { dtype = "i64" }):var() end, "var: input 1 is i64%[3%]")
  end)
end)

describe("prod", function()
  it("has the gradient of the others, whatever the zeros", function()
    for _, zeros in ipairs { {}, { 3 }, { 300 }, { 2, 299 } } do
      local x = gr.rand({ 300 }, { dtype = "f64" }) * 0.02 + 0.99
      for _, i in ipairs(zeros) do x[i] = 0 end
      local y = x:clone():requires_grad_(true)
      y:prod():backward()
      local given, got = x:totable(), y.grad:totable()
      for _, i in ipairs { 1, 2, 3, 150, 299, 300 } do
        local others = {}
        for k, v in ipairs(given) do if k ~= i then others[#others + 1] = v end end
        assert.near(product(others), got[i], 1e-12)
      end
    end
  end)
  it("has a gradient where the product is too small for a number", function()
    local x = gr.tensor({ 1e-200, 1e-200, 1e-100 }, { dtype = "f64" }):requires_grad_(true)
    local y = x:prod()
    y:backward()
    assert.equal(0, y:item())
    assert.near(1e-300, x.grad[1]:item(), 1e-310)
  end)
end)

describe("argmin and argmax", function()
  it("refuse several dims, and choose nothing from nothing", function()
    assert.error_matches(function() gr.ones({ 2, 2 }):argmin { dim = { 1, 2 } } end, "argmin: 2 dims given")
    assert.error_matches(function() gr.ones({ 0, 2 }):amin(1) end, "amin: f32%[0,2%] is empty along the reduced dim")
  end)
end)
