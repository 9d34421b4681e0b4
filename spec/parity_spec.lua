-- Every op, layer and optimizer against PyTorch's figures (spec/parity/figures.lua, made by make.py beside it).
local gr = require "gradrun"
local figures = dofile "spec/parity/figures.lua"

local TOLERANCE = { f32 = 2e-5, f64 = 1e-11 }

-- The inputs both sides compute: see make.py.
local function values(n, k, lo, hi)
  local out = {}
  for i = 0, n - 1 do out[i + 1] = lo + (hi - lo) * (((7 * i * i + (13 + 2 * k) * i + 31 * k) % 1009) / 1009) end
  return out
end

local function count(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

local function input(shape, k, lo, hi, dtype)
  return gr.tensor(values(count(shape), k, lo, hi), dtype):reshape(shape)
end

local function make(shape, k, kind, lo, hi, dtype)
  if not kind then return input(shape, k, lo, hi, dtype):requires_grad_() end
  local v = values(count(shape), k, kind == "mask" and -1 or 0, 1)
  for i, u in ipairs(v) do v[i] = kind == "mask" and u > 0 or kind ~= "mask" and math.floor(u * kind) + 1 or false end
  return gr.tensor(v, kind == "mask" and "u8" or "i64"):reshape(shape)
end

-- Largest difference relative to the largest figure.
local function compare(what, want, t, tolerance)
  local got = t:reshape(-1):totable()
  assert.equal(#want, #got, what .. ": number of elements")
  local scale, worst, at = 1e-3, 0, 1
  for i, w in ipairs(want) do
    scale = math.max(scale, math.abs(w))
    local d = math.abs(w - got[i])
    if not (d <= worst) then worst, at = d, i end
  end
  assert.is_true(worst <= tolerance * scale,
    ("%s: element %d is %.17g, PyTorch has %.17g"):format(what, at, got[at], want[at]))
end

local function evaluate(code, x, p)
  local env = { gr = gr, nn = gr.nn, F = gr.nn.functional, math = math, x = x, p = p }
  return assert(load("return " .. code, code, "t", env))()
end

describe("PyTorch's figures for", function()
  for _, c in ipairs(figures.ops) do
    it(("%s in %s, %d inputs %s"):format(c.lua, c.dtype, #c.shapes, table.concat(c.shapes[1], "×")), function()
      local x, tolerance = {}, TOLERANCE[c.dtype]
      for k, shape in ipairs(c.shapes) do x[k] = make(shape, k, c.kinds[k], c.lo, c.hi, c.dtype) end
      local y = evaluate(c.lua, x)
      compare("output", c.y, y, tolerance)
      y:backward(input(y.shape, 50, -1, 1, c.dtype))
      for k, want in ipairs(c.grads) do
        if want then compare("gradient " .. k, want, x[k].grad, tolerance) end
      end
    end)
  end

  local layer
  for _, c in ipairs(figures.layers) do
    it(("%s in %s, %s, %s"):format(c.lua, c.dtype, c.mode, table.concat(c.shape, "×")), function()
      local tolerance = TOLERANCE[c.dtype]
      if c.mode == "train" then
        gr.default_dtype(c.dtype)
        layer = evaluate(c.lua)
        gr.default_dtype("f32")
        gr.no_grad(function()
          for k, p in ipairs(layer:parameters()) do p:copy_(input(p.shape, 19 + k, -0.5, 0.5, c.dtype)) end
        end)
      end
      layer:train(c.mode == "train")
      layer:zero_grad()
      local x = input(c.shape, 1, -1, 1, c.dtype):requires_grad_()
      local y = layer(x)
      compare("output", c.y, y, tolerance)
      y:backward(input(y.shape, 50, -1, 1, c.dtype))
      compare("gradient of the input", c.dx, x.grad, tolerance)
      for k, p in ipairs(layer:parameters()) do compare("gradient of " .. p.name, c.grads[k], p.grad, tolerance) end
      for k, b in ipairs(layer:buffers()) do compare("buffer " .. k, c.buffers[k], b, tolerance) end
    end)
  end

  for _, c in ipairs(figures.optims) do
    it(c.lua .. ", ten steps", function()
      local p = { input({ 3, 4 }, 20, -1, 1, "f64"):requires_grad_(), input({ 5 }, 21, -1, 1, "f64"):requires_grad_() }
      local opt = evaluate(c.lua, nil, p)
      for step, want in ipairs(c.trace) do
        for k, t in ipairs(p) do t.grad = input(t.shape, 30 + 7 * (step - 1) + k - 1, -1, 1, "f64") end
        opt:step()
        for k, t in ipairs(p) do compare(("parameter %d after step %d"):format(k, step), want[k], t, 1e-12) end
      end
    end)
  end
end)
