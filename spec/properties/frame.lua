-- What properties of ops share: the list they go into, and how a property is tried on every case.
local gr = require "gradrun"
local cases = require "spec.support.cases"

local M = {
  list = {}, -- of {name =, applies = function(op), check = function(op)}; check raises what is wrong
  EPS = { f32 = 0x1p-23, f64 = 0x1p-52 },
  BOTH = { "f32", "f64" },
}

function M.property(name, applies, check) M.list[#M.list + 1] = { name = name, applies = applies, check = check } end
function M.every() return true end
function M.differentiable(op) return op.differentiable end

-- f(...) in a scope, which closes all tensors of scripts: then as many objects must be alive as before. (What a
-- collection finalizes in between was dead before.)
local function without_leak(f, ...)
  collectgarbage "stop"
  local before = gr.memory()
  local ok, message = pcall(gr.scope, f, ...)
  local after = gr.memory()
  collectgarbage "restart"
  for _, what in ipairs { "tensors", "storages", "nodes", "hooks", "bytes" } do
    if ok and after[what] ~= before[what] then
      ok, message = false, ("left alive: %d %s"):format(after[what] - before[what], what)
    end
  end
  return ok, message
end

-- f(case, dtype, index) for every case and dtype; raises with all that failed.
function M.each_case(op, dtypes, f)
  local wrong = {}
  for index, case in ipairs(op.cases) do
    for _, dtype in ipairs(dtypes) do
      local ok, message = without_leak(f, case, dtype, index)
      if not ok then wrong[#wrong + 1] = ("%s, %s: %s"):format(cases.title(op, index), dtype, tostring(message)) end
    end
  end
  if #wrong > 0 then error(table.concat(wrong, "\n"), 0) end
end

function M.demand(message, what)
  if message then error(what .. ": " .. message, 0) end
end

return M
