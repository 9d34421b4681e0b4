-- Layer and group normalisation: statistics of inputs far from 0, large inputs, and what is refused.
local gr = require "gradrun"
local nn = gr.nn

-- Mean and variance of x:view(rows, n), row by row, in f64.
local function statistics(x, n)
  local flat = x:detach():to("f64"):view(-1, n)
  local mean = flat:mean { dim = 2, keepdim = true }
  return mean, ((flat - mean) ^ 2):mean { dim = 2, keepdim = true }
end

local function standardised(x, n, eps)
  local mean, var = statistics(x, n)
  return ((x:detach():to("f64"):view(-1, n) - mean) / (var + (eps or 1e-5)):sqrt()):view(x.shape)
end

local function apart(a, b) return (a:detach():to("f64") - b):abs():amax():item() end

describe("normalisation", function()
  it("keeps its digits beside a mean of a million", function()
    gr.manual_seed(1)
    local x = gr.randn(50, 300) + 1e6
    assert.is_true(apart(gr.layer_norm(x, { normalized_shape = 300 }), standardised(x, 300)) < 1e-6)
    local grouped = gr.group_norm(x:view(25, 2, 300), { num_groups = 2 })
    assert.is_true(apart(grouped:view(50, 300), standardised(x, 300)) < 1e-6)
    local shifted = gr.layer_norm(x - 1e6, { normalized_shape = 300 })
    assert.is_true(apart(gr.layer_norm(x, { normalized_shape = 300 }), shifted:to("f64")) < 3e-6) -- without vectors 1.4e-6
  end)

  it("keeps its digits beside a first element of a million", function()
    local x = gr.randn(3, 5000)
    x[{ {}, 1 }] = 1e6
    local y, want = gr.layer_norm(x, { normalized_shape = 5000 }), standardised(x, 5000)
    assert.is_true(apart(y, want) < 1e-3) -- of 70.7; 16 lanes 4e-5, none 5e-4
    assert.is_true(apart(y[{ {}, { 2, -1 } }], want[{ {}, { 2, -1 } }]) < 1e-6)
  end)

  -- Results above 12 MiB go past the caches; rows above 4096 numbers, and of odd lengths, do not.
  it("is the same for large results and in slices of them", function()
    gr.manual_seed(2)
    local w, b = gr.randn(1024), gr.randn(1024)
    local x, dy = gr.randn(3200, 1024), gr.randn(3200, 1024)
    local y, dx = gr.layer_norm(x, w, b), gr.hidden.layer_norm_backward(dy, x, w)
    local first, count = 1601, 37
    local part = { { first, first + count - 1 } }
    assert.equal(0, y[part]:ne(gr.layer_norm(x[part], w, b)):sum():item())
    assert.equal(0, dx[part]:ne((gr.hidden.layer_norm_backward(dy[part], x[part], w))):sum():item())
    local images = x:view(50, 64, 32, 32)
    local whole = gr.group_norm(images, { num_groups = 4 })
    assert.equal(0, whole[{ { 3, 5 } }]:ne(gr.group_norm(images[{ { 3, 5 } }], { num_groups = 4 })):sum():item())
    local z = gr.softmax(x)
    assert.equal(0, z[part]:ne(gr.softmax(x[part])):sum():item())
  end)

  it("sums gradients of parameters exactly enough over many rows", function()
    gr.manual_seed(3)
    local x, dy = gr.randn(20000, 20), gr.rand(20000, 20)
    local _, dw, db = gr.hidden.layer_norm_backward(dy, x, gr.ones(20))
    assert.is_true(apart(db / 20000, (dy:to("f64"):sum { dim = 1 }) / 20000) < 1e-7)
    assert.is_true(apart(dw / 20000, ((dy:to("f64") * standardised(x, 20)):sum { dim = 1 }) / 20000) < 1e-7)
  end)

  it("says what does not fit", function()
    local function refused(f, text) assert.error_matches(f, text) end
    local x = gr.randn(4, 6)
    refused(function() gr.layer_norm(x) end, "layer_norm: normalized_shape is missing")
    refused(function() gr.layer_norm(x, { normalized_shape = 5 }) end,
      "x is f32%[4,6%], but normalized_shape is %[5%]: they must end alike")
    refused(function() gr.layer_norm(x, gr.ones(6), gr.ones(5)) end,
      "bias is f32%[5%], but normalized_shape is %[6%]")
    refused(function() gr.layer_norm(x, gr.ones(6, { dtype = "f64" })) end, "input 2 is f64%[6%], but input 1 is f32")
    refused(function() gr.group_norm(x, { num_groups = 4 }) end,
      "num_groups is 4, which does not divide the 6 channels")
    refused(function() gr.group_norm(x, { num_groups = 0 }) end, "num_groups is 0, expected at least 1")
    refused(function() gr.group_norm(x, gr.ones(4), { num_groups = 2 }) end, "weight is f32%[4%], expected %[6%]")
    refused(function() nn.LayerNorm({}) end, "normalized_shape")
    refused(function() nn.LayerNorm(0) end, "normalized_shape is %[0%]: expected sizes of at least 1")
    refused(function() nn.LayerNorm(4, { eps = -1 }) end, "eps = %-1: expected at least 0")
    refused(function() nn.GroupNorm(4, 6) end, "num_groups = 4 does not divide num_channels = 6")
    refused(function() nn.GroupNorm(2, 6)(gr.randn(3, 4)) end,
      "GroupNorm 2 groups of 3.*input is f32%[3,4%], expected %[n,6,...%]")
    refused(function() nn.Sequential(nn.LayerNorm(5))(x) end, "1 %(LayerNorm 5%): layer_norm: x is f32%[4,6%]")
  end)

  it("prints what tells its layers apart", function()
    assert.matches("LayerNorm 3×4, eps 0.01, no bias", tostring(nn.LayerNorm({ 3, 4 }, { eps = 0.01, bias = false })))
    assert.matches("GroupNorm 2 groups of 3", tostring(nn.GroupNorm(2, 6)))
  end)
end)
