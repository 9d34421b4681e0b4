-- Every CPU variant gives what the generic one gives: each runs all op cases in a process of its own.
local gr = require "gradrun"
local shell = require "spec.support.shell"
local cases = require "spec.support.cases"

-- Sums are rounded in another order and products are fused: so many units in the last place of the largest element.
-- In large cases a thousand terms of either sign may cancel, and count as 1.
local ULPS = { small = 24, large = 128 }
local EPS = { f32 = 0x1p-23, f64 = 0x1p-52, i64 = 0, u8 = 0 }

local function run(isa)
  local name = shell.file ""
  local text, code = shell.run("GRADRUN_ISA=%s %s spec/support/isa_values.lua %s", isa, shell.gradrun, name)
  if code ~= 0 then return nil, text end
  local lines, order = {}, {}
  for line in io.lines(name) do
    local key, values = line:match("^(.-): ?(.*)$")
    lines[key] = values
    order[#order + 1] = key
  end
  return lines, order
end

local function numbers(text)
  local list, largest = {}, 0
  for word in text:gmatch("%S+") do
    local v = word:find("nan", 1, true) and 0 / 0 or word == "inf" and math.huge or word == "-inf" and -math.huge
      or assert(tonumber(word), word)
    list[#list + 1] = v
    if math.abs(v) < math.huge then largest = math.max(largest, math.abs(v)) end
  end
  return list, largest
end

-- Nil, or where two lines of numbers are further apart than tol of their largest, if that is above least.
local function apart(a, b, tol, least)
  if a == b then return nil end
  local x, largest = numbers(a)
  largest = math.max(largest, least)
  local y = numbers(b)
  if #x ~= #y then return ("%d elements, expected %d"):format(#y, #x) end
  for i = 1, #x do
    local same = x[i] == y[i] or (x[i] ~= x[i] and y[i] ~= y[i])
    if not same and not (math.abs(x[i] - y[i]) <= tol * largest) then
      return ("element %d is %.17g, generic gives %.17g"):format(i, y[i], x[i])
    end
  end
end

describe("the CPU variants", function()
  local generic, order = run "generic"
  it("have a generic one", function()
    assert.is_table(generic, order)
    assert.is_true(#order > 1000, #order .. " tensors")
  end)
  for _, isa in ipairs { "avx2", "avx512" } do
    local lines, text = run(isa)
    if not lines then
      it(isa .. " says that this processor lacks it", function()
        assert.truthy(text:find("GRADRUN_ISA", 1, true), text)
        assert.are_not.equal(isa, gr.isa())
      end)
    else
      for _, op in ipairs(gr.describe().ops) do
        it(isa .. " does " .. op.name .. " as the generic one", function()
          -- the same numbers are drawn on every CPU
          local exact, seen = #cases.input_names(op) == 0, 0
          for _, key in ipairs(order) do
            local name, size, dtype = key:match("^(%S+) %d+ %S+ (%S+) %d+ (%S+)$")
            if name == op.name then
              seen = seen + 1
              local tol = exact and 0 or ULPS[size] * EPS[dtype]
              local wrong = lines[key] == nil and "is missing"
                or apart(generic[key], lines[key], tol, size == "large" and 1 or 0)
              if wrong then error(key .. ": " .. wrong, 0) end
            end
          end
          assert.is_true(seen > 0)
        end)
      end
    end
  end
end)
