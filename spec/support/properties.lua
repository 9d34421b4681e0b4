-- What must hold of every op. Each property is tried on every case of every op that it applies to; nothing here
-- knows an op by name, but the exceptions on top, each with its reason.
local gr = require "gradrun"
local cases = require "spec.support.cases"
local gradients = require "spec.support.gradients"

local EPS = { f32 = 0x1p-23, f64 = 0x1p-52 }
local DTYPES = { "f32", "f64" }

-- ---- exceptions ---------------------------------------------------------------------------------------------

-- Refuse tensors whose memory does not read as the shape wanted: that is what they are for.
local WANTS_LAYOUT = { view = true }

-- Inputs through which NaN does not pass, as they only choose between values of another input.
local STOPS_NAN = {
  abs_backward = { [2] = true }, clamp_backward = { [2] = true }, elu_backward = { [2] = true },
  leaky_relu_backward = { [2] = true }, relu_backward = { [2] = true },
  maximum_backward = { [2] = true, [3] = true },
}

local P = {} -- list of {name =, applies = function(op), check = function(op)}

local function property(name, applies, check) P[#P + 1] = { name = name, applies = applies, check = check } end
local function every() return true end
local function differentiable(op) return op.differentiable end

-- ---- frames -------------------------------------------------------------------------------------------------

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
local function each_case(op, dtypes, f)
  local wrong = {}
  for index, case in ipairs(op.cases) do
    for _, dtype in ipairs(dtypes) do
      local ok, message = without_leak(f, case, dtype, index)
      if not ok then wrong[#wrong + 1] = ("%s, %s: %s"):format(cases.title(op, index), dtype, tostring(message)) end
    end
  end
  if #wrong > 0 then error(table.concat(wrong, "\n"), 0) end
end

local function demand(message, what)
  if message then error(what .. ": " .. message, 0) end
end

-- ---- descriptors and values ---------------------------------------------------------------------------------

property("says what it is and how it is proved", every, function(op)
  assert(op.doc and #op.doc > 0, "it has no doc")
  assert(#op.cases > 0, "it has no cases")
  local by_hand, differentiated = false, not op.differentiable
  for _, case in ipairs(op.cases) do
    by_hand = by_hand or case.want ~= nil
    differentiated = differentiated or not case.no_grad
  end
  assert(by_hand, "no case has hand values")
  assert(differentiated, "it is differentiable, but no case compares its derivative")
  for _, a in ipairs(op.attrs) do
    if a.min and type(a.default) == "number" then
      assert(a.default >= a.min and a.default <= a.max, a.name .. ": the default is outside its range")
    end
  end
end)

property("has the values worked out by hand", every, function(op)
  each_case(op, DTYPES, function(case, dtype)
    if not case.want then return end
    local want = cases.wanted(case)
    local got = cases.call(op, cases.given(case, dtype), cases.attrs(case))
    -- digits are written for f32: f64 is held to what nine of them can say
    local tol = dtype == "f64" and math.max(case.tol * 1e-2, 2e-9) or case.tol
    for k = 1, want.n do
      demand(cases.difference(got[k], cases.literal(want[k], "f64"), tol, 1e-3), "output " .. k)
    end
  end)
end)

property("gives as many outputs as it says", every, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    local got = cases.call(op, cases.sample(op, case, dtype, index), cases.attrs(case))
    assert(#got == op.outputs, #got .. " outputs")
  end)
end)

-- ---- derivatives --------------------------------------------------------------------------------------------

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
    local twice = gradients.gradient(p, false, value + gradients.value(p))
    for _, i in ipairs(p.which) do
      if once[i] then demand(cases.difference(twice[i], once[i] * 2, 64 * EPS[dtype]), "input " .. i) end
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
  local want, want_grads = run(dense)
  local ok, got, got_grads = pcall(run, odd)
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

-- ---- sizes of nothing, and sizes that do not fit ------------------------------------------------------------

-- Runs the op on such inputs: it must give results or an error that names it; and gradients of the right shape.
local function try_shapes(op, case, inputs)
  local p = gradients.problem(op, case, inputs)
  local ok, outs = pcall(gradients.outputs, p)
  if not ok then
    assert(type(outs) == "string" and outs:find(op.name, 1, true), "an error that does not name the op: " .. tostring(outs))
    return
  end
  if not op.differentiable then return end
  local grads = gradients.gradient(p)
  for _, i in ipairs(p.which) do
    if grads[i] then
      assert(cases.same_shape(grads[i].shape, p.inputs[i].shape),
        ("input %d of shape %s has a gradient of shape %s"):format(i, cases.shape_text(p.inputs[i].shape),
          cases.shape_text(grads[i].shape)))
    end
  end
end

property("takes empty inputs, or says that it does not", every, function(op)
  each_case(op, DTYPES, function(case, dtype, index)
    local sizes = {}
    for _, input in ipairs(cases.parse(case["in"])) do
      for _, d in ipairs(input and input.shape or {}) do sizes[d] = true end
    end
    for size in pairs(sizes) do
      local shapes = cases.parse(case["in"])
      for _, input in ipairs(shapes) do
        for d, n in ipairs(input and input.shape or {}) do
          if n == size then input.shape[d] = 0 end
        end
        if input and input.dtype == "i64" and not input.lo then return end
      end
      try_shapes(op, case, cases.inputs(case, dtype, cases.random(op.name .. index), shapes))
    end
  end)
end)

property("refuses shapes and dtypes that do not fit, in words", function(op) return op.inputs ~= "" end, function(op)
  local odd = {
    function() return gr.tensor(0.5) end,
    function() return gr.zeros({ 7 }) end,
    function() return gr.zeros({ 2, 3, 4, 5, 1 }, { dtype = "f64" }) end,
    function() return gr.zeros({ 1, 1, 1, 1, 1, 1, 1, 1 }) end,
    function() return gr.ones({ 2, 3 }, { dtype = "u8" }) end,
    function() return gr.ones({ 3 }, { dtype = "i64" }) end,
  }
  each_case(op, DTYPES, function(case, dtype, index)
    local inputs = cases.sample(op, case, dtype, index)
    for i = 1, #inputs do
      for _, make in ipairs(odd) do
        local list = {}
        for k = 1, #inputs do list[k] = inputs[k] end
        list[i] = make()
        try_shapes(op, case, list)
        local other = inputs[i] and cases.is_float(inputs[i]) and inputs[i]:to("i64")
        if other then
          list[i] = other
          try_shapes(op, case, list)
        end
      end
    end
  end)
end)

-- ---- broadcasting -------------------------------------------------------------------------------------------

local BROADCASTS = {
  { { 3, 4 }, { 4 }, { 3, 1 } },
  { { 3, 1 }, { 1, 5 }, {} },
  { { 4, 1 }, { 2, 1, 3 }, { 3 } },
  { {}, { 3 }, { 2, 1 } },
  { { 2, 0 }, { 1 }, { 2, 1 } },
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

property("does the same in place", function(op) return op.elementwise and not op.hidden end, function(op)
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

-- ---- NaN ----------------------------------------------------------------------------------------------------

-- What depends on an input is NaN when the input is. What depends on it: what changes with it.
property("passes NaN on", every, function(op)
  local stops = STOPS_NAN[op.name] or {}
  each_case(op, DTYPES, function(case, dtype, index)
    if case.give then return end
    local inputs, attrs = cases.sample(op, case, dtype, index), cases.attrs(case)
    local others = cases.inputs(case, dtype, cases.random("other" .. op.name .. index))
    local base = cases.call(op, inputs, attrs)
    for _, i in ipairs(cases.floats(inputs)) do
      if not stops[i] then
        local list = {}
        for k = 1, #inputs do list[k] = inputs[k] end
        list[i] = others[i]
        local moved = cases.call(op, list, attrs)
        list[i] = inputs[i] + 0 / 0
        local ok, out = pcall(cases.call, op, list, attrs)
        for k = 1, ok and #out or 0 do
          if cases.is_float(out[k]) then
            local b, m, o = cases.flat(base[k]), cases.flat(moved[k]), cases.flat(out[k])
            for e = 1, #b do
              if b[e] ~= m[e] and o[e] == o[e] then
                error(("input %d is NaN, but element %s of output %d is %g"):format(i,
                  cases.position(out[k].shape, e), k, o[e]), 0)
              end
            end
          end
        end
      end
    end
  end)
end)

-- ---- the same bits ------------------------------------------------------------------------------------------

-- A case with every size above 1 multiplied, sizes in attributes too, so that all inputs broadcast together have at
-- most that many elements. Raises, or gives inputs that the op refuses, where that does not fit together. Values are
-- drawn natively.
local function enlarged(op, case, dtype, elements)
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
P.enlarged = enlarged

-- Outputs and gradients as one list, or nil if the enlarged case does not fit together.
local function everything(op, inputs, attrs)
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
P.everything = everything

-- Enough work for more than one thread: cheap loops share it from 333,000 elements on.
property("gives the same bits twice, and on one and two threads", every, function(op)
  local threads, elements = gr.threads(), op.elementwise and 700000 or 400000
  local ok, message = pcall(each_case, op, DTYPES, function(case, dtype)
    if case.give then return end
    local made, inputs, attrs = pcall(enlarged, op, case, dtype, elements)
    if not made then return end
    gr.threads(2)
    local first = everything(op, inputs, attrs)
    if not first then return end
    local again = everything(op, inputs, attrs)
    gr.threads(1)
    local alone = everything(op, inputs, attrs)
    for k = 1, #first do
      demand(cases.unequal(again[k], first[k]), "again, result " .. k)
      demand(cases.unequal(alone[k], first[k]), "on one thread, result " .. k)
    end
  end)
  gr.threads(threads)
  if not ok then error(message, 0) end
end)

return P
