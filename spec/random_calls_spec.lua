-- Random calls with arguments of every kind: errors, never a crash, a leak or a context that no longer computes.
-- CALLS says how many; make check-all makes 200,000 under the address and undefined-behaviour sanitizers.
local shell = require "spec.support.shell"

local RUNS = 8
local calls = math.ceil((tonumber(os.getenv "CALLS") or 16000) / RUNS)

describe("random calls", function()
  for seed = 1, RUNS do
    it(("leave everything in order: %d of seed %d"):format(calls, seed), function()
      -- some are acts of the collector alone, and are not counted
      local out, code = shell.run("%s spec/support/random_calls.lua %d %d", shell.gradrun, calls * 1.1 // 1, seed)
      assert.equal(0, code, out)
      assert.truthy(tonumber(out:match "(%d+) calls: %d+ succeeded") >= calls, out) -- print may have been called
    end)
  end
end)
