-- Derivatives of an op: what its backward says, and what differences of its values say.
--
-- An op's outputs y_k become one number L = sum of w_k y_k over the floating outputs, with fixed random weights
-- w_k. For second derivatives the gradients become M = sum of v_i dL/dx_i, again with fixed weights v_i; M is
-- differentiated with respect to the inputs and to w, so that the way back through dy is tried as well.
local gr = require "gradrun"
local cases = require "spec.support.cases"

local M = {}

local STEP = 1e-5    -- of differences; their own error is some STEP^2
local TOL = 1e-6     -- relative to the largest derivative of the tensor
local NOISE = 1e-10  -- absolute, for |L| = 1: rounding of L over STEP

local function weights_like(t, random)
  local flat = {}
  for i = 1, t:numel() do flat[i] = 0.5 + random:unit() end
  return cases.tensor(flat, t.shape, t.dtype)
end

-- sum of w t over the floating tensors of a list, recorded; nil if there is none. weights: made at the first call.
local function weigh(list, weights, random)
  local sum
  for i = 1, #list do
    local t = list[i]
    if t and cases.is_float(t) then
      weights[i] = weights[i] or weights_like(t, random)
      local part = gr.mul(t, weights[i]):sum()
      if part.dtype ~= "f64" then part = part:to("f64") end -- outputs may differ in dtype
      sum = sum and sum + part or part
    end
  end
  return sum
end

-- A problem: an op, its inputs as leaves, and the weights. which: positions of the inputs differentiated.
function M.problem(op, case, inputs, seed)
  local p = { op = op, case = case, inputs = {}, weights = {}, mixing = {}, random = cases.random(seed or "weights") }
  p.which = cases.floats(inputs)
  for i = 1, #inputs do p.inputs[i] = inputs[i] end
  for _, i in ipairs(p.which) do p.inputs[i] = p.inputs[i]:detach():requires_grad_(true) end
  return p
end

function M.outputs(p) return cases.call(p.op, p.inputs, cases.attrs(p.case)) end
function M.value(p) return weigh(M.outputs(p), p.weights, p.random) end

-- dL/dx_i by position (false where L does not depend on it). extra: further tensors, appended.
function M.gradient(p, create, value)
  local list, found = {}, {}
  value = value or M.value(p)
  for n, i in ipairs(p.which) do list[n] = p.inputs[i] end
  for i = 1, #p.inputs do found[i] = false end
  if #list == 0 or not value or not value.requires_grad then return found end
  local grads = gr.grad(value, list, { allow_unused = true, create_graph = create })
  for n, i in ipairs(p.which) do found[i] = grads[n] end
  return found
end

local function second_value(p, create, value) return weigh(M.gradient(p, create, value), p.mixing, p.random) end

-- d second_value / dx_i by position, false where it does not depend on it.
function M.second(p, value)
  local list, found = {}, {}
  value = second_value(p, true, value)
  for n, i in ipairs(p.which) do list[n], found[i] = p.inputs[i], false end
  if not value or not value.requires_grad then return found end
  local grads = gr.grad(value, list, { allow_unused = true })
  for n, i in ipairs(p.which) do found[i] = grads[n] end
  return found
end

-- Nil if grad is d value() / dx by central differences, else a message.
local function compare(x, grad, value)
  local flat, got = x:detach():view({ -1 }), grad and cases.flat(grad)
  local want, largest, noise = {}, 0, 0
  for e = 1, x:numel() do
    local at = flat[e]:item()
    local h = STEP * math.max(1, 1e-4 * math.abs(at))
    flat[e] = at + h
    local above = value()
    flat[e] = at - h
    local below = value()
    flat[e] = at
    want[e] = (above - below) / (2 * h)
    largest = math.max(largest, math.abs(want[e]))
    noise = math.max(noise, NOISE * math.max(math.abs(above), 1))
  end
  for e = 1, x:numel() do
    local g = got and got[e] or 0
    if not (math.abs(g - want[e]) <= TOL * largest + noise) then
      return ("element %s: backward gives %.12g, differences give %.12g"):format(
        cases.position(x.shape, e), g, want[e])
    end
  end
end

-- Both raise with the place of the first derivative that is wrong. The case is in f64.
function M.check_first(p)
  local grads = M.gradient(p)
  local names = cases.input_names(p.op)
  for _, i in ipairs(p.which) do
    if grads[i] and not cases.same_shape(grads[i].shape, p.inputs[i].shape) then
      error(("input %d: gradient of shape %s"):format(i, cases.shape_text(grads[i].shape)), 0)
    end
    local wrong = compare(p.inputs[i], grads[i], function()
      return gr.no_grad(function() return M.value(p):item() end)
    end)
    if wrong then error(("input %d (%s): %s"):format(i, names[i] or names[1], wrong), 0) end
  end
end

function M.check_second(p)
  if not M.value(p) then return end -- makes the weights
  for _, w in pairs(p.weights) do w:requires_grad_(true) end
  local value = second_value(p, true)
  if not value then return end
  local list, labels = {}, {}
  local function add(t, label) list[#list + 1], labels[#labels + 1] = t, label end
  for _, i in ipairs(p.which) do add(p.inputs[i], "input " .. i) end
  for k, w in pairs(p.weights) do add(w, "the gradient of output " .. k) end
  local grads = value.requires_grad and gr.grad(value, list, { allow_unused = true }) or {}
  for n, x in ipairs(list) do
    local wrong = compare(x, grads[n], function()
      local v = second_value(p)
      return v and v:item() or 0
    end)
    if wrong then error(("derivative of the gradient with respect to %s: %s"):format(labels[n], wrong), 0) end
  end
end

return M
