-- First and second derivatives, however they are computed, and what must not be overwritten in between.
local gr = require "gradrun"
local cases = require "spec.support.cases"
local gradients = require "spec.support.gradients"
local frame = require "spec.properties.frame"

local property, each_case, demand = frame.property, frame.each_case, frame.demand
local differentiable = frame.differentiable
local EPS, DTYPES = frame.EPS, frame.BOTH

property("has the first derivative that differences give", differentiable, function(op)
  each_case(op, { "f64" }, function(case, dtype, index)
    if case.no_grad then return end
    gradients.check_first(gradients.problem(op, case, cases.sample(op, case, dtype, index)))
  end)
end)

property("has the second derivative that differences give", differentiable, function(op)
  each_case(op, { "f64" }, function(case, dtype, index)
    if case.no_grad then return end
    gradients.check_second(gradients.problem(op, case, cases.sample(op, case, dtype, index)))
  end)
end)

-- A fused kernel and the simpler ops that stand for it where gradients are recorded are the same function.
property("gives the same recorded and not recorded", differentiable, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    local p = gradients.problem(op, case, cases.sample(op, case, dtype, index))
    local recorded = gradients.outputs(p)
    local plain = gr.no_grad(function() return gradients.outputs(p) end)
    for k = 1, #plain do
      demand(cases.difference(recorded[k], plain[k], 64 * EPS[dtype]), "output " .. k)
    end
  end)
end)

property("has the same gradient in place and recorded", differentiable, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    if case.no_grad then return end
    local p = gradients.problem(op, case, cases.sample(op, case, dtype, index))
    local fast, recorded = gradients.gradient(p), gradients.gradient(p, true)
    for _, i in ipairs(p.which) do
      assert(not fast[i] == not recorded[i], "input " .. i .. " has a gradient in one way only")
      if fast[i] then demand(cases.difference(recorded[i], fast[i], 64 * EPS[dtype]), "input " .. i) end
    end
  end)
end)

-- Kernels write a gradient first and add to it after.
property("adds up the gradients of two uses", differentiable, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    if case.no_grad then return end
    local p = gradients.problem(op, case, cases.sample(op, case, dtype, index))
    local once, value = gradients.gradient(p), gradients.value(p)
    if not value or not value.requires_grad then return end
    local function two() return gradients.value(p) + gradients.value(p) end
    local second = gradients.second(p)
    local twice, recorded, second_twice = gradients.gradient(p, false, two()), gradients.gradient(p, true, two()),
      gradients.second(p, two())
    for _, i in ipairs(p.which) do
      if once[i] then
        demand(cases.difference(twice[i], once[i] * 2, 64 * EPS[dtype]), "input " .. i)
        demand(cases.difference(recorded[i], once[i] * 2, 64 * EPS[dtype]), "recorded, input " .. i)
      end
      if second[i] then
        demand(cases.difference(second_twice[i], second[i] * 2, 256 * EPS[dtype]), "of second order, input " .. i)
      end
    end
  end)
end)

-- Looking for anomalies takes another way through backward.
property("has the same gradient while anomalies are looked for", differentiable, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    if case.no_grad then return end
    local p = gradients.problem(op, case, cases.sample(op, case, dtype, index))
    local plain = gradients.gradient(p)
    local looked = gr.detect_anomaly(function() return gradients.gradient(p) end)
    for _, i in ipairs(p.which) do
      if plain[i] then demand(cases.difference(looked[i], plain[i], 64 * EPS[dtype]), "input " .. i) end
    end
  end)
end)

-- After an edit of anything it was made from, backward refuses, or gives what it would have given.
local function try_overwritten(op, case, inputs, edit)
  local p = gradients.problem(op, case, inputs)
  local want = gradients.gradient(p)
  local fresh = {}
  for i = 1, #inputs do fresh[i] = inputs[i] and inputs[i]:clone() end
  local q = gradients.problem(op, case, fresh)
  q.weights = p.weights
  local outs = gradients.outputs(q)
  local value
  for k = 1, #outs do
    if cases.is_float(outs[k]) then
      local part = gr.mul(outs[k], p.weights[k]):sum():to("f64")
      value = value and value + part or part
    end
  end
  if not value or not value.requires_grad then return false end
  local target = edit(q, outs)
  if not target or target:numel() == 0 then return false end
  local alias = target:detach()
  local other = cases.is_float(alias) and gr.tensor(0.25) or gr.tensor(1, { dtype = alias.dtype })
  local edited, why = pcall(alias.copy_, alias, other)
  if not edited then
    assert(tostring(why):find("is expanded", 1, true), tostring(why)) -- cannot be edited at all
    return false
  end
  local ok, got = pcall(gradients.gradient, q, false, value)
  if not ok then
    assert(tostring(got):find("overwritten in place", 1, true), tostring(got))
    return true
  end
  for _, i in ipairs(q.which) do
    if want[i] then demand(cases.unequal(got[i], want[i]), "a silent wrong gradient of input " .. i) end
  end
  return false
end

property("refuses backward after an overwrite that matters", differentiable, function(op)
  each_case(op, { "f64" }, function(case, dtype, index)
    if case.no_grad then return end
    local inputs = cases.sample(op, case, dtype, index)
    for i = 1, #inputs do
      try_overwritten(op, case, inputs, function(q) return q.inputs[i] end)
    end
    for k = 1, op.outputs do
      -- the weights multiply the output and keep it: what they refuse says nothing about the op
      if not op.hidden then try_overwritten(op, case, inputs, function(_, outs) return outs[k] end) end
    end
  end)
end)
