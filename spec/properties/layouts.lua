-- Memory: layouts of inputs and gradients, broadcasting, results in place.
local gr = require "gradrun"
local cases = require "spec.support.cases"
local gradients = require "spec.support.gradients"
local frame = require "spec.properties.frame"

local property, each_case, demand = frame.property, frame.each_case, frame.demand
local every, differentiable = frame.every, frame.differentiable
local EPS, DTYPES = frame.EPS, frame.BOTH

-- Refuse tensors whose memory does not read as the shape wanted: that is what they are for.
local WANTS_LAYOUT = { view = true }

-- ---- layouts ------------------------------------------------------------------------------------------------

local LAYOUTS = {
  -- the same values, dimensions reversed in memory
  transposed = function(t)
    if t.rank < 2 then return nil end
    local order = {}
    for d = 1, t.rank do order[d] = t.rank + 1 - d end
    return t:permute(order):clone():permute(order)
  end,
  -- every second element of a larger tensor that is NaN elsewhere
  sliced = function(t)
    if t.rank == 0 then return nil end
    local shape, at = {}, {}
    for d = 1, t.rank do
      if t.shape[d] == 0 then return nil end
      shape[d], at[d] = 2 * t.shape[d] + 1, { 2, 2 * t.shape[d], 2 }
    end
    local base = gr.full(shape, cases.is_float(t) and 0 / 0 or 1, { dtype = t.dtype })
    base[at] = t
    return base[at]
  end,
  -- a contiguous view that does not begin where its storage does
  shifted = function(t)
    if t.rank == 0 then return nil end
    local base = gr.zeros({ t:numel() + 1 }, { dtype = t.dtype })
    base[{ { 2, -1 } }] = t:reshape({ -1 })
    return base:narrow(1, 2, t:numel()):view(t.shape)
  end,
  -- one slice repeated with stride 0 (other values than t's)
  expanded = function(t, d)
    if t.rank == 0 or t.shape[d or 1] < 2 then return nil end
    return t:narrow(d or 1, 1, 1):clone():expand(t.shape)
  end,
  expanded_last = function(t)
    if t.rank < 2 or t.shape[t.rank] < 2 then return nil end
    return t:narrow(t.rank, 1, 1):clone():expand(t.shape)
  end,
}

local function compare_layout(op, case, dense, odd, dtype)
  local function run(inputs)
    local p = gradients.problem(op, case, inputs)
    local outs = gradients.outputs(p)
    local grads = op.differentiable and not case.no_grad and gradients.gradient(p) or {}
    return outs, grads
  end
  local taken, want, want_grads = pcall(run, dense)
  local ok, got, got_grads = pcall(run, odd)
  if not taken then -- expanding changed the values: a mask then selects another number of elements
    assert(not ok, "it takes what it refuses in row-major order")
    return
  end
  if not ok then
    if WANTS_LAYOUT[op.name] then return end
    error(got, 0)
  end
  for k = 1, #want do demand(cases.difference(got[k], want[k], 32 * EPS[dtype]), "output " .. k) end
  for i, g in pairs(want_grads) do
    if g then demand(cases.difference(got_grads[i], g, 64 * EPS[dtype]), "gradient of input " .. i) end
  end
end

property("does not care how its inputs lie in memory", every, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    local inputs = cases.sample(op, case, dtype, index)
    for name, layout in pairs(LAYOUTS) do
      local all_odd, all_dense = {}, {}
      for i = 1, #inputs do
        local odd = inputs[i] and layout(inputs[i])
        all_odd[i] = odd or inputs[i]
        all_dense[i] = all_odd[i] and all_odd[i]:clone()
        if odd then -- this one alone
          local some_odd, some_dense = {}, {}
          for k = 1, #inputs do some_odd[k], some_dense[k] = inputs[k], inputs[k] end
          some_odd[i], some_dense[i] = odd, odd:clone()
          local ok, message = pcall(compare_layout, op, case, some_dense, some_odd, dtype)
          if not ok then error(("input %d %s: %s"):format(i, name, message), 0) end
        end
      end
      local ok, message = pcall(compare_layout, op, case, all_dense, all_odd, dtype)
      if not ok then error(("all inputs %s: %s"):format(name, message), 0) end
    end
  end)
end)

property("does not care how the incoming gradient lies in memory", differentiable, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    if case.no_grad then return end
    local p = gradients.problem(op, case, cases.sample(op, case, dtype, index))
    local out = gradients.outputs(p)[1]
    if #p.which == 0 or not out.requires_grad then return end
    local list, flat, random = {}, {}, cases.random(op.name)
    for n, i in ipairs(p.which) do list[n] = p.inputs[i] end
    for i = 1, out:numel() do flat[i] = random:unit() end
    local seed = cases.tensor(flat, out.shape, out.dtype)
    for name, layout in pairs(LAYOUTS) do
      local odd = layout(seed)
      if odd then
        local options = { allow_unused = true, retain_graph = true, gradient = odd:clone() }
        local want = gr.grad(out, list, options)
        options.gradient = odd
        local got = gr.grad(out, list, options)
        for n = 1, #list do
          if want[n] then demand(cases.difference(got[n], want[n], 64 * EPS[dtype]), name .. ", input " .. p.which[n]) end
        end
      end
    end
  end)
end)

-- ---- broadcasting -------------------------------------------------------------------------------------------

local BROADCASTS = {
  { { 3, 4 }, { 4 }, { 3, 1 }, { 1, 4 } },
  { { 3, 1 }, { 1, 5 }, {}, { 5 } },
  { { 4, 1 }, { 2, 1, 3 }, { 3 }, { 1 } },
  { {}, { 3 }, { 2, 1 }, { 1 } },
  { { 2, 0 }, { 1 }, { 2, 1 }, {} },
}

property("broadcasts", function(op) return op.elementwise and #cases.input_names(op) > 1 end, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    if case.give then return end
    local parsed = cases.parse(case["in"])
    for turn, set in ipairs(BROADCASTS) do
      local shapes = {}
      for i, input in ipairs(parsed) do shapes[i] = { dtype = input.dtype, lo = input.lo, hi = input.hi, shape = set[i] } end
      local inputs = cases.inputs(case, dtype, cases.random(op.name .. index .. turn), shapes)
      local p = gradients.problem(op, case, inputs)
      local out, grads = gradients.outputs(p)[1], op.differentiable and gradients.gradient(p) or {}
      local whole = {}
      for i = 1, #inputs do whole[i] = inputs[i]:expand(out.shape):clone() end
      local q = gradients.problem(op, case, whole)
      q.weights = p.weights
      demand(cases.unequal(out, gradients.outputs(q)[1]), "shapes of set " .. turn)
      local want = op.differentiable and gradients.gradient(q) or {}
      for i = 1, #inputs do
        if grads[i] then
          local sum = gr.hidden.sum_to(want[i], { shape = inputs[i].shape })
          demand(cases.difference(grads[i], sum, 64 * EPS[dtype]), "gradient of input " .. i .. " of set " .. turn)
        end
      end
    end
  end)
end)

-- ---- in place -----------------------------------------------------------------------------------------------

property("does the same in place", function(op) return op.in_place and not op.hidden end, function(op)
  local name = op.name .. "_"
  each_case(op, DTYPES, function(case, dtype, index)
    local inputs = cases.sample(op, case, dtype, index)
    local want = cases.call(op, inputs, cases.attrs(case))[1]
    local function run(x)
      local args, n = {}, #inputs
      for i = 2, n do args[i - 1] = inputs[i] end
      args[n] = cases.attrs(case)
      return x[name](x, table.unpack(args, 1, n))
    end
    local x = inputs[1]:clone()
    if not cases.same_shape(want.shape, x.shape) then
      local ok, message = pcall(run, x)
      assert(not ok and tostring(message):find(op.name, 1, true), "a result that does not fit was accepted")
      demand(cases.unequal(x, inputs[1]), "after a refusal")
      return
    end
    assert(run(x) == x, "it does not return its tensor")
    demand(cases.unequal(x, want:to(x.dtype)), "values")
    local sliced = LAYOUTS.sliced(inputs[1])
    if sliced then
      run(sliced)
      demand(cases.unequal(sliced, want:to(x.dtype)), "values in a slice")
    end
    if cases.is_float(x) then
      local ok = pcall(run, inputs[1]:clone():requires_grad_(true))
      assert(not ok, "it edits a leaf while gradients are recorded")
    end
  end)
end)
