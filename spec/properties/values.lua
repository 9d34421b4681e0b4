-- Hand values, the number of results, and NaN.
local cases = require "spec.support.cases"
local frame = require "spec.properties.frame"

local property, each_case, demand = frame.property, frame.each_case, frame.demand
local every, DTYPES = frame.every, frame.BOTH

-- Inputs through which NaN does not pass, as they only choose between values of another input.
local STOPS_NAN = {
  abs_backward = { [2] = true }, clamp_backward = { [2] = true }, elu_backward = { [2] = true },
  leaky_relu_backward = { [2] = true }, prelu_backward = { [2] = true }, relu_backward = { [2] = true },
  maximum_backward = { [2] = true, [3] = true },
  rnn_backward = { [2] = true }, -- relu
}

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
