-- Every op there is, in every way design 8 names. The list and the cases are the descriptors' own.
local gr = require "gradrun"
local properties = require "spec.properties.all"

local ops = gr.describe().ops

describe("the list of ops", function()
  it("is not empty", function() assert.is_true(#ops > 50) end)
  it("has no name twice", function()
    local seen = {}
    for _, op in ipairs(ops) do
      assert.is_nil(seen[op.name], op.name)
      seen[op.name] = true
    end
  end)
  it("offers scripts what is not hidden, and specs the rest", function()
    for _, op in ipairs(ops) do
      assert.is_function((op.hidden and gr.hidden or gr)[op.name], op.name)
      assert.is_nil((op.hidden and gr or gr.hidden)[op.name], op.name)
    end
  end)
end)

for _, op in ipairs(ops) do
  describe(op.name, function()
    for _, property in ipairs(properties) do
      if property.applies(op) then
        it(property.name, function() property.check(op) end)
      end
    end
  end)
end
