-- sort, argsort, topk, median, max and min against their definitions: ties, NaN, every dtype, every cut of a line.
local gr = require "gradrun"

-- ---- definitions ----------------------------------------------------------------------------------------------

-- Positions of a row in order; NaN is the largest, equals keep their order.
local function sorted(row, descending)
  local at = {}
  for i = 1, #row do at[i] = i end
  local function above(a, b) -- a > b
    if a ~= a then return b == b end
    return a > b
  end
  table.sort(at, function(i, k)
    local a, b = row[i], row[k]
    if descending then a, b = b, a end
    if above(b, a) then return true end
    return not above(a, b) and i < k
  end)
  return at
end

local function same(a, b) return a == b or (a ~= a and b ~= b) end

local LENGTHS = { 1, 2, 5, 47, 48, 49, 64, 65, 300, 2000 }

-- f(x, rows of x, text): x[3, n] with many ties; floats with NaN and infinities.
local function each_tensor(f)
  for _, dtype in ipairs { "f32", "f64", "i64", "u8" } do
    for _, n in ipairs(LENGTHS) do
      gr.manual_seed(n)
      local x = (gr.rand { 3, n } * (n < 300 and 20 or 250)):to("i64"):to(dtype)
      if dtype:find "f" then
        x = x * 0.37 - 3
        for i, v in ipairs { 0 / 0, 1 / 0, -1 / 0, -0.0, 0 / 0 } do
          if n > 5 then x[{ 2, i * 7 }] = v end
        end
      end
      f(x, x:totable(), ("%s[3,%d]"):format(dtype, n))
    end
  end
end

local function check(values, indices, row, at, count, text)
  for i = 1, count do
    assert(indices[i] == at[i], ("%s, place %d: position %d, expected %d"):format(text, i, indices[i], at[i]))
    assert(same(values[i], row[at[i]]), ("%s, place %d: %s, expected %s"):format(text, i, values[i], row[at[i]]))
  end
end

describe("of lines of any length and dtype,", function()
  for _, descending in ipairs { false, true } do
    it(descending and "sort descends" or "sort ascends", function()
      each_tensor(function(x, rows, text)
        local values, indices = x:sort { descending = descending }
        local down, under = x:transpose():sort(1, descending)
        assert.equal(x.dtype, values.dtype)
        local v, k, only = values:totable(), indices:totable(), x:argsort(-1, descending)
        for r, row in ipairs(rows) do check(v[r], k[r], row, sorted(row, descending), #row, text) end
        assert.equal(0, indices:ne(only):sum():item() + under:transpose():ne(indices):sum():item())
        assert.same(tostring(values), tostring(down:transpose():contiguous()))
      end)
    end)
  end

  for _, largest in ipairs { true, false } do
    it(("topk chooses the %s"):format(largest and "largest" or "smallest"), function()
      each_tensor(function(x, rows, text)
        local n = x.shape[2]
        for _, k in ipairs { 1, 3, n // 3, n - 1, n } do
          if k >= 0 and k <= n then
            local values, indices = x:topk(k, 2, largest)
            local loose, there = x:topk { k = k, largest = largest, sorted = false }
            local v, at, l, t = values:totable(), indices:totable(), loose:totable(), there:totable()
            for r, row in ipairs(rows) do
              local best = table.move(sorted(row, largest), 1, k, 1, {})
              check(v[r] or {}, at[r] or {}, row, best, k, text .. " k " .. k)
              table.sort(best)
              check(l[r] or {}, t[r] or {}, row, best, k, text .. " unsorted, k " .. k)
            end
          end
        end
      end)
    end)
  end

  it("max, min and median find what they say, and where", function()
    each_tensor(function(x, rows, text)
      for name, place in pairs { max = "last", min = 1, median = "middle" } do
        local values, indices = x[name](x, 2)
        local down, under = x:transpose()[name](x:transpose(), 1, true)
        local v, k = values:totable(), indices:totable()
        assert.equal(0, under:reshape { -1 }:ne(indices):sum():item())
        assert.equal(tostring(values), tostring(down:reshape { -1 }))
        for r, row in ipairs(rows) do
          local at = sorted(row, place == "last")
          local want, last = at[place == "middle" and (#row + 1) // 2 or 1], sorted(row, true)[1]
          if row[last] ~= row[last] then want = last end -- NaN, the first of them
          assert(k[r] == want or (place == "middle" and row[k[r]] == row[want]), text .. " " .. name)
          assert(same(v[r], row[want]), text .. " " .. name)
        end
      end
    end)
  end)
end)

describe("max, min and median without dim", function()
  it("give one value, of all elements", function()
    local x = gr.tensor { { 3, 1, 4 }, { 1, 5, 9 } }
    for name, want in pairs { max = 9, min = 1, median = 3 } do
      assert.equal(1, select("#", x[name](x)))
      assert.equal(want, gr[name](x):item())
      assert.same({ 1, 1 }, x[name](x, { keepdim = true }).shape)
      assert.equal(2, select("#", x[name](x, { dim = 1 })))
    end
  end)
  it("share the gradient among equals, where with dim the chosen one has it", function()
    local x = gr.tensor({ 2, 7, 7 }, { requires_grad = true })
    assert.same({ 0, 0.5, 0.5 }, gr.grad(x:max(), x):totable())
    assert.same({ 0, 1, 0 }, gr.grad(x:max(1), x):totable())
  end)
end)

describe("the gradient of sort", function()
  it("goes back the way the elements came", function()
    local x = gr.randn({ 20, 70 }, { requires_grad = true })
    local values, indices = x:sort(2)
    local weights = gr.randn { 20, 70 }
    local dx = gr.grad(values, x, { gradient = weights })
    assert.equal(0, dx:gather(2, indices):ne(weights):sum():item())
  end)
end)

describe("what does not fit", function()
  it("is refused with its values", function()
    local x = gr.ones { 2, 3 }
    assert.error_matches(function() x:topk(4) end, "topk: k is 4, but dimension 2 of f32%[2,3%] has 3")
    assert.error_matches(function() x:topk(-1, 1) end, "topk: k is %-1, but dimension 1 of f32%[2,3%] has 2")
    assert.error_matches(function() x:topk() end, "topk: k is missing")
    assert.error_matches(function() x:sort(3) end, "sort: dimension 3: the tensor has 2 dimensions")
    assert.error_matches(function() x:max(0) end, "max: dim is 0, but dimensions and positions count from 1")
    assert.error_matches(function() gr.ones({ 2, 0 }):max(2) end, "max: f32%[2,0%] is empty along the reduced dim")
    assert.error_matches(function() gr.ones({ 0 }):median() end, "median_all: f32%[0%] is empty along the")
  end)
  it("may be empty along another dim", function()
    local values, indices = gr.ones({ 0, 3 }):max(2)
    assert.same({ 0 }, values.shape)
    assert.same({ 0 }, indices.shape)
    assert.same({ 2, 0 }, gr.ones({ 2, 3 }):topk(0).shape)
  end)
end)
