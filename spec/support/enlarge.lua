-- Op cases made large, and all that comes out of an op.
local gr = require "gradrun"
local cases = require "spec.support.cases"

local M = {}

-- A case with every size above 1 multiplied, sizes in attributes too, so that all inputs broadcast together have at
-- most that many elements. Raises, or gives inputs that the op refuses, where that does not fit together. Values are
-- drawn natively.
function M.enlarged(op, case, dtype, elements)
  local attrs, shapes = cases.attrs(case), cases.parse(case["in"])
  local whole = {} -- the largest size in each place, from the last
  local function measure(shape)
    for d = 1, #shape do whole[d] = math.max(whole[d] or 1, shape[#shape + 1 - d]) end
  end
  for _, input in ipairs(shapes) do if input then measure(input.shape) end end
  for _, a in ipairs(op.attrs) do if a.kind == "shape" and attrs and attrs[a.name] then measure(attrs[a.name]) end end
  local n, rank = 1, 0
  for _, size in ipairs(whole) do n, rank = n * math.max(size, 1), rank + (size > 1 and 1 or 0) end
  local factor = (elements / n) ^ (1 / math.max(rank, 1))
  factor = math.floor(math.max(1, math.min(factor, 400))) -- two vectors may span a matrix
  local function grow(shape)
    for d, size in ipairs(shape) do if size > 1 then shape[d] = size * factor end end
  end
  for _, a in ipairs(op.attrs) do if a.kind == "shape" and attrs and attrs[a.name] then grow(attrs[a.name]) end end
  local inputs = {}
  gr.manual_seed(1)
  for i, input in ipairs(shapes) do
    if input then
      grow(input.shape)
      if input.dtype and not input.dtype:find("^f") then
        inputs[i] = gr.uniform(input.shape, { lo = input.lo or 0, hi = (input.hi or 1) + 1 }):to(input.dtype)
      else
        inputs[i] = gr.uniform(input.shape, { lo = case.lo, hi = case.hi, dtype = input.dtype or dtype })
      end
    else
      inputs[i] = false
    end
  end
  return inputs, attrs
end

-- Outputs and gradients as one list, or nil if the enlarged case does not fit together.
function M.everything(op, inputs, attrs)
  local list, leaves = {}, {}
  for i = 1, #inputs do list[i] = inputs[i] end
  if op.differentiable then
    for _, i in ipairs(cases.floats(inputs)) do
      list[i] = list[i]:detach():requires_grad_(true)
      leaves[#leaves + 1] = list[i]
    end
  end
  local ok, outs = pcall(cases.call, op, list, attrs)
  if not ok then return nil end
  local value
  gr.manual_seed(2)
  for _, out in ipairs(outs) do
    if out.requires_grad then
      local part = gr.mul(out, gr.uniform(out.shape, { dtype = out.dtype })):sum():to("f64")
      value = value and value + part or part
    end
  end
  if value and #leaves > 0 then
    for _, g in ipairs(gr.grad(value, leaves, { allow_unused = true })) do outs[#outs + 1] = g or nil end
  end
  return outs
end

return M
