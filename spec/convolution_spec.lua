-- Convolutions and poolings: what is refused, in words with the values; how layers begin; how the ops hang together.
local gr = require "gradrun"
local nn = gr.nn

local function refused(want, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(want, 1, true), ("said: %s\nexpected: %s"):format(message, want))
end

describe("conv2d refuses", function()
  local x, w = gr.zeros(2, 3, 4, 5), gr.zeros(6, 3, 3, 3)
  it("a kernel larger than the padded input", function()
    refused("conv2d: a kernel that reaches 7x3 does not fit into 4x5 with padding 1x0", gr.conv2d, x,
      gr.zeros(6, 3, 7, 3), { padding = { 1, 0 } })
    refused("a kernel that reaches 5x5 does not fit into 4x5", gr.conv2d, x, w, { dilation = 2 })
  end)
  it("groups that do not divide", function()
    refused("conv2d: weight [6,3,3,3] has 6 output channels, which 4 groups do not divide", gr.conv2d, x, w,
      { groups = 4 })
    refused("conv2d: input [2,3,4,5] has 3 channels, expected 6 for a weight of [6,3,3,3] and 2 groups", gr.conv2d, x,
      w, { groups = 2 })
  end)
  it("channels that do not fit", function()
    refused("conv2d: input [2,3,4,5] has 3 channels, expected 2 for a weight of [6,2,3,3] and 1 group", gr.conv2d, x,
      gr.zeros(6, 2, 3, 3))
    refused("conv2d: bias is f32[5], expected [6] for a weight of f32[6,3,3,3]", gr.conv2d, x, w, gr.zeros(5))
  end)
  it("other ranks and types", function()
    refused("conv2d: input is f32[2,3,4], expected 4 dimensions", gr.conv2d, gr.zeros(2, 3, 4), w)
    refused("conv2d: input 2 is f64[6,3,3,3], but input 1 is f32[2,3,4,5]", gr.conv2d, x, w:to "f64")
  end)
  it("sizes of nothing and below", function()
    refused("stride is 0, expected at least 1", gr.conv2d, x, w, { stride = 0 })
    refused("padding is -1, expected at least 0", gr.conv2d, x, w, { padding = { 1, -1 } })
    refused("kernel_size 0x3: expected at least 1", gr.conv2d, x, gr.zeros(6, 3, 0, 3))
  end)
end)

describe("conv1d refuses", function()
  local x, w = gr.zeros(2, 4, 6), gr.zeros(6, 4, 3)
  it("what conv2d refuses", function()
    refused("conv1d: input is f32[2,4,6,1], expected 3 dimensions", gr.conv1d, gr.zeros(2, 4, 6, 1), w)
    refused("conv1d: weight is f32[6,4,3,1], expected 3 dimensions", gr.conv1d, x, gr.zeros(6, 4, 3, 1))
    refused("a kernel that reaches 1x9 does not fit into 1x6 with padding 0x1", gr.conv1d, x, w,
      { padding = 1, dilation = 4 })
    refused("conv1d: input [2,4,6] has 4 channels, expected 8 for a weight of [6,4,3] and 2 groups", gr.conv1d, x, w,
      { groups = 2 })
    refused("conv1d: bias is f32[6,1], expected [6] for a weight of f32[6,4,3]", gr.conv1d, x, w, gr.zeros(6, 1))
  end)
  it("pairs", function() refused("stride", gr.conv1d, x, w, { stride = { 1, 2 } }) end)
end)

describe("conv_transpose2d refuses", function()
  local x, w = gr.zeros(2, 4, 5, 5), gr.zeros(4, 3, 3, 3)
  it("an output padding of the stride or more", function()
    refused("conv_transpose2d: output_padding 1x1: expected 0 or more, and less than stride 1x1", gr.conv_transpose2d,
      x, w, { output_padding = 1 })
    refused("output_padding 2x1: expected 0 or more, and less than stride 3x1", gr.conv_transpose2d, x, w,
      { stride = { 3, 1 }, output_padding = { 2, 1 } })
  end)
  it("padding that leaves nothing", function()
    refused("conv_transpose2d: padding 4x4 leaves an output of -1x-1", gr.conv_transpose2d, x, w, { padding = 4 })
  end)
  it("channels and groups that do not fit", function()
    refused("conv_transpose2d: input f32[2,4,5,5] has 4 channels, expected 3 for a weight of f32[3,4,3,3]",
      gr.conv_transpose2d, x, gr.zeros(3, 4, 3, 3))
    refused("conv_transpose2d: weight f32[4,3,3,3] is for 4 input channels, which 3 groups do not divide",
      gr.conv_transpose2d, x, w, { groups = 3 })
    refused("conv_transpose2d: bias is f32[3], expected [6] for a weight of f32[4,3,3,3]", gr.conv_transpose2d, x, w,
      gr.zeros(3), { groups = 2 })
  end)
  it("images of nothing, and outputs beyond all memory", function()
    refused("conv_transpose2d: input size 0x5: expected at least 1", gr.conv_transpose2d, gr.zeros(2, 4, 0, 5), w)
    refused("conv_transpose2d: ", gr.conv_transpose2d, x, w, { stride = 1 << 30 })
  end)
end)

describe("layers of convolution", function()
  it("name what does not fit", function()
    refused("Conv1d: groups = 2 does not divide in_channels = 3 and out_channels = 4", nn.Conv1d, 3, 4, 3,
      { groups = 2 })
    refused("Conv2d: in_channels is 0, expected at least 1", nn.Conv2d, 0, 4, 3)
    refused("ConvTranspose2d: unknown option 'outputpadding' (did you mean 'output_padding'?)", nn.ConvTranspose2d, 3,
      4, 3, { outputpadding = 1 })
    refused("1 (Conv1d 3→4, 3, padding 1): conv1d: input [2,5,6] has 5 channels, expected 3",
      nn.Sequential(nn.Conv1d(3, 4, 3, { padding = 1 })), gr.zeros(2, 5, 6))
  end)
  it("begin uniform within 1 / sqrt(fan)", function()
    for _, case in ipairs {
      { nn.Conv1d(8, 64, 5, { groups = 2 }), 4 * 5 }, { nn.Conv2d(8, 64, { 3, 2 }), 8 * 6 },
      { nn.ConvTranspose2d(64, 8, 3, { groups = 2 }), 4 * 9 },
    } do
      local layer, bound = case[1], 1 / math.sqrt(case[2])
      local most = layer.weight:abs():amax():item()
      assert.is_true(most <= bound and most > 0.97 * bound, layer.type)
      assert.is_true(layer.bias:abs():amax():item() <= bound)
      assert.near(bound / math.sqrt(3), layer.weight:pow(2):mean():sqrt():item(), 0.05 * bound)
    end
  end)
  it("describe themselves", function()
    local up = { stride = 2, padding = { 1, 0 }, output_padding = 1, groups = 2, bias = false }
    local text = tostring(nn.Sequential(nn.ConvTranspose2d(4, 6, { 3, 2 }, up), nn.Conv1d(4, 8, 3, { stride = 2 })))
    assert.truthy(text:find("4→6, 3×2, stride 2, padding 1×0, output_padding 1, groups 2, no bias", 1, true))
    assert.truthy(text:find("Conv1d 4→8, 3, stride 2 ", 1, true), text)
  end)
end)

describe("convolutions", function()
  local options = { stride = 2, padding = 1, dilation = 2, groups = 2 }
  it("of lines are those of images of one row", function()
    local x, w, b = gr.randn(3, 4, 12), gr.randn(6, 2, 3), gr.randn(6)
    local y = gr.conv1d(x, w, b, options)
    local z = gr.conv2d(x:reshape { 3, 4, 1, 12 }, w:reshape { 6, 2, 1, 3 }, b,
      { stride = { 1, 2 }, padding = { 0, 1 }, dilation = { 1, 2 }, groups = 2 })
    assert.equal(0, y:ne(z:reshape(y.shape)):sum():item())
  end)
  it("and their transposes are adjoint: <conv(y), x> = <y, transposed(x)>", function()
    local y, w = gr.randn({ 2, 4, 9, 8 }, { dtype = "f64" }), gr.randn({ 6, 2, 3, 3 }, { dtype = "f64" })
    local x = gr.randn(gr.conv2d(y, w, options).shape, { dtype = "f64" })
    local more = {}
    for i = 1, 2 do more[i] = y.shape[2 + i] - ((x.shape[2 + i] - 1) * 2 - 2 + 2 * 2 + 1) end
    local back = gr.conv_transpose2d(x, w,
      { stride = 2, padding = 1, dilation = 2, groups = 2, output_padding = more })
    assert.near((gr.conv2d(y, w, options) * x):sum():item(), (y * back):sum():item(), 1e-9)
  end)
end)

describe("pooling", function()
  local x = gr.tensor { { { { 1, 5, 2, 9 }, { 4, 3, 8, 0 } } } }
  it("counts places from 1, row by row", function()
    local y, index = gr.max_pool2d(x, { kernel_size = 2 })
    assert.same({ { { { 5, 9 } } } }, y:totable())
    assert.same({ { { { 2, 4 } } } }, index:totable())
    assert.equal("i64", index.dtype)
    assert.equal(8, select(2, gr.max_pool2d(gr.tensor { { { { 0, 0, 0, 0 }, { 0, 0, 0, 1 } } } },
      { kernel_size = { 2, 4 } })):item())
    assert.same({ { { { 2, 4 }, { 5, 7 } } } }, select(2, gr.adaptive_max_pool2d(x, { output_size = 2 })):totable())
    assert.same({ { { 2, 4 } } }, select(2, gr.max_pool1d(x:reshape { 1, 2, 4 }[{ {}, { 1, 1 }, {} }],
      { kernel_size = 2 })):totable())
  end)
  it("refuses windows that do not fit", function()
    refused("avg_pool2d: padding 2 is more than half of kernel_size 3", gr.avg_pool2d, x,
      { kernel_size = 3, padding = 2 })
    refused("max_pool2d: a kernel that reaches 3x3 does not fit into 2x4", gr.max_pool2d, x, { kernel_size = 3 })
    refused("avg_pool1d: a kernel that reaches 1x5 does not fit into 1x4", gr.avg_pool1d, gr.zeros(1, 2, 4),
      { kernel_size = 5 })
    refused("kernel_size is missing", gr.avg_pool2d, x)
    refused("kernel_size is 0, expected at least 1", gr.avg_pool2d, x, { kernel_size = { 2, 0 } })
    refused("output_size is 0, expected at least 1", gr.adaptive_avg_pool2d, x, { output_size = 0 })
    refused("adaptive_avg_pool2d: input is [1,1,0,4]: there is nothing to choose from", gr.adaptive_avg_pool2d,
      gr.zeros(1, 1, 0, 4), { output_size = 1 })
    refused("max_pool1d: input is f32[1,1,2,4], expected 3 dimensions", gr.max_pool1d, x, { kernel_size = 2 })
    refused("avg_pool2d: input 1 is i64[1,1,2,2]", gr.avg_pool2d, gr.ones({ 1, 1, 2, 2 }, { dtype = "i64" }),
      { kernel_size = 2 })
  end)
  it("comes as layers", function()
    local m = nn.Sequential(nn.AvgPool2d(3, { stride = 1, padding = 1 }), nn.MaxPool2d({ 1, 2 }, { dilation = 2 }),
      nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert.same({ 1, 1 }, m(gr.ones(1, 1, 5, 6)).shape)
    local text = tostring(m)
    for _, want in ipairs { "3×3, stride 1×1, padding 1×1", "1×2, dilation 2×2", "AdaptiveAvgPool2d 1×1" } do
      assert.truthy(text:find(want, 1, true), text)
    end
    local lines = tostring(nn.Sequential(nn.AvgPool1d(3, { ceil_mode = true })))
    assert.truthy(lines:find("AvgPool1d 3, ceil_mode", 1, true), lines)
  end)
end)
