-- Writes what every op case gives, outputs and gradients, as hexadecimal numbers: one line for each tensor. Run by
-- spec/isa_spec.lua, once for each CPU variant:  gradrun spec/support/isa_values.lua FILE
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"
local enlarge = require "spec.support.enlarge"

local out = assert(io.open(arg[1], "w"))
gr.threads(1)

local function write(op, index, dtype, size, list)
  for k, t in ipairs(list or {}) do
    if t:numel() <= 4000 then
      local text = {}
      for e, v in ipairs(cases.flat(t)) do text[e] = ("%a"):format(v) end
      out:write(("%s %d %s %s %d %s: "):format(op.name, index, dtype, size, k, t.dtype), table.concat(text, " "), "\n")
    end
  end
end

for _, op in ipairs(gr.describe().ops) do
  for index, case in ipairs(op.cases) do
    for _, dtype in ipairs { "f32", "f64" } do
      local inputs, attrs = cases.sample(op, case, dtype, index), cases.attrs(case)
      write(op, index, dtype, "small", enlarge.everything(op, inputs, attrs))
      if not case.give then
        local fits, large, large_attrs = pcall(enlarge.enlarged, op, case, dtype, 1500)
        if fits then write(op, index, dtype, "large", enlarge.everything(op, large, large_attrs)) end
      end
    end
  end
end
out:close()
