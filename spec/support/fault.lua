-- Op cases with each allocation failing in turn. Run by spec/c/fault_test.c, whose allocator `fault` steers.
local gr = require "gradrun"
local cases = require "spec.support.cases"

local fault = _G.fault
local M = {}

local COUNTED = { "tensors", "storages", "nodes", "bytes" }

-- body() with allocation 1, 2, 3, … failing (alone; then with all after it), until none is left to fail.
local function sweep(body)
  local function scoped() return pcall(gr.scope, body) end
  scoped()
  for _ = 1, 3 do collectgarbage() end -- or the binding finds garbage to collect, and tries again
  for _, forever in ipairs { false, true } do
    local n = 0
    repeat
      n = n + 1
      local before = gr.memory()
      fault.arm(n, forever)
      local ok, message = scoped()
      local fired = fault.disarm()
      if not fired then
        assert(ok, message)
      else
        assert(not ok, "allocation " .. n .. " failed, but the op did not")
        assert(tostring(message):find("memory", 1, true), message)
      end
      local after = gr.memory()
      for _, what in ipairs(COUNTED) do
        if before[what] ~= after[what] then
          error(("after failure of allocation %d: %d %s, before %d"):format(n, after[what], what, before[what]), 0)
        end
      end
      local again, trouble = scoped()
      assert(again, trouble)
    until not fired
  end
end

-- Outputs, gradients of their sum, and the gradients' own graph.
local function try(op, case, inputs)
  local leaves, list = {}, {}
  for i = 1, #inputs do
    list[i] = inputs[i]
    if op.differentiable and inputs[i] and cases.is_float(inputs[i]) then leaves[#leaves + 1] = inputs[i] end
  end
  sweep(function()
    local kept = { cases.call(op, list, cases.attrs(case)) } -- all results: nothing to collect on the way
    local sums = {}
    for _, out in ipairs(kept[1]) do
      if out.requires_grad then sums[#sums + 1] = out:sum() end
    end
    if #sums == 0 or #leaves == 0 then return end
    kept[2] = gr.grad(sums, leaves, { allow_unused = true, retain_graph = true })
    kept[3] = gr.grad(sums, leaves, { allow_unused = true, create_graph = true })
  end)
end

function M.op(name)
  for _, op in ipairs(gr.describe().ops) do
    if op.name == name then
      for index, case in ipairs(op.cases) do
        local inputs = cases.sample(op, case, "f32", index)
        for _, t in ipairs(inputs) do
          if t and cases.is_float(t) and op.differentiable then t:requires_grad_(true) end
        end
        local ok, message = pcall(try, op, case, inputs)
        if not ok then error(cases.title(op, index) .. ": " .. tostring(message), 0) end
      end
      return
    end
  end
  error("no op called " .. name)
end

return M
