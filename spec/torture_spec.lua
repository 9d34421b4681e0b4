-- The collector at every few instructions of a script, or at every allocation, must not change what it computes.
local shell = require "spec.support.shell"

local function run(every)
  local text, code = shell.run("%s spec/support/torture.lua %s", shell.gradrun, every or "")
  assert.equal(0, code, text)
  return text
end

describe("a script with one of everything", function()
  local calm
  it("runs", function()
    calm = run()
    assert.matches("\nseen\t", calm)
  end)
  for _, every in ipairs { 1, 3, 10 } do
    it("gives the same with a full collection every " .. every .. " instructions", function()
      assert.equal(calm, run(every))
    end)
  end
  it("gives the same with a full collection at every allocation", function()
    assert.equal(calm, run "allocation")
  end)
end)
