-- Sizes of nothing, and arguments that do not fit: results or words, never anything else.
local gr = require "gradrun"
local cases = require "spec.support.cases"
local gradients = require "spec.support.gradients"
local frame = require "spec.properties.frame"

local property, each_case, every, DTYPES = frame.property, frame.each_case, frame.every, frame.BOTH

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

-- ---- options that do not fit --------------------------------------------------------------------------------

-- Values no op can take all of, by kind of attribute; none asks for much memory where it is taken.
local BIG, LAST, FIRST = 1 << 62, math.maxinteger, math.mininteger
local ODD = {
  real = { 0 / 0, 1 / 0, -1 / 0, 0, -1, 1e308, "x" },
  int = { 0, -1, 99, BIG, -BIG, LAST, FIRST, 1.5 },
  bool = { 1 },
  dim = { 0, 99, -99, BIG, LAST, FIRST, 1.5 },
  pos = { 0, 99, -99, BIG, -BIG, LAST, FIRST },
  dims = { 0, 99, {}, { 1, 1 }, { -1, 1 }, { 99 }, { LAST }, { FIRST }, { 1, 2, 3, 4, 5, 6, 7, 8, 9 } },
  shape = { -1, 0, {}, { -1, -1 }, { -2 }, { 0, -1 }, { 99, 0 }, { BIG, 4 }, { LAST, 2 }, { FIRST }, { 1 << 31, 1 << 31, 1 << 31 },
    { 1, 1, 1, 1, 1, 1, 1, 1, 1 } },
  pair = { 0, -1, 99, 1 << 31, BIG, { 1 }, { 1, 2, 3 }, { 1, FIRST }, { LAST, 1 } },
  dtype = { "f32", "f64", "i64", "u8", "f16" },
  word = { "", "nonsense", 1 },
}

local function try_options(op, inputs, attrs)
  local ok, out = pcall(cases.call, op, inputs, attrs)
  assert(ok or tostring(out):find(op.name, 1, true) or tostring(out):find("dtype", 1, true),
    "an error that does not name the op: " .. tostring(out))
end

property("refuses options that do not fit, in words", function(op) return #op.attrs > 0 end, function(op)
  each_case(op, { "f32" }, function(case, dtype, index)
    local inputs = cases.sample(op, case, dtype, index)
    for _, a in ipairs(op.attrs) do
      for _, value in ipairs(assert(ODD[a.kind], a.kind)) do
        local attrs = cases.attrs(case) or {}
        attrs[a.name] = value
        local ok, message = pcall(try_options, op, inputs, attrs)
        if not ok then error(a.name .. " = " .. tostring(value) .. ": " .. tostring(message), 0) end
      end
    end
    local ok, message = pcall(cases.call, op, inputs, { no_such_option = 1 })
    assert(not ok and message:find("no_such_option", 1, true), "an unknown option was taken")
  end)
end)
