-- The same bits, whatever the number of threads.
local gr = require "gradrun"
local cases = require "spec.support.cases"
local enlarge = require "spec.support.enlarge"
local frame = require "spec.properties.frame"

local property, each_case, demand = frame.property, frame.each_case, frame.demand
local every, DTYPES = frame.every, frame.BOTH

-- Enough work for more than one thread: cheap loops share it from 333,000 elements on.
property("gives the same bits twice, and on one and two threads", every, function(op)
  local threads, elements = gr.threads(), op.elementwise and 700000 or 400000
  local ok, message = pcall(each_case, op, DTYPES, function(case, dtype)
    if case.give then return end
    local made, inputs, attrs = pcall(enlarge.enlarged, op, case, dtype, elements)
    if not made then return end
    gr.threads(2)
    local first = enlarge.everything(op, inputs, attrs)
    if not first then return end
    local again = enlarge.everything(op, inputs, attrs)
    gr.threads(1)
    local alone = enlarge.everything(op, inputs, attrs)
    for k = 1, #first do
      demand(cases.unequal(again[k], first[k]), "again, result " .. k)
      demand(cases.unequal(alone[k], first[k]), "on one thread, result " .. k)
    end
  end)
  gr.threads(threads)
  if not ok then error(message, 0) end
end)
