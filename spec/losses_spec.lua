-- Losses: what is refused, and in which words; names; large inputs; sums over many elements.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local function refused(f, text) assert.error_matches(f, text) end

describe("losses of numbers", function()
  local x = gr.randn(3, 4)

  it("want two tensors of one shape", function()
    for _, name in ipairs { "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss" } do
      refused(function() gr[name](x, gr.randn(3, 1)) end, name .. ": x is f32%[3,4%], but y is f32%[3,1%]: the shapes must be equal")
      refused(function() gr[name](x, gr.ones({ 3, 4 }, { dtype = "f64" })) end, name .. ": input 2 is f64%[3,4%], but input 1 is f32")
    end
    for _, name in ipairs { "kl_div", "binary_cross_entropy_with_logits" } do
      refused(function() gr[name](x, gr.randn(4)) end, name .. ": x is f32%[3,4%], but target is f32%[4%]")
    end
  end)

  it("refuse options that mean nothing", function()
    refused(function() gr.huber_loss(x, x, { delta = 0 }) end, "huber_loss: delta is 0, expected more than 0")
    refused(function() gr.huber_loss(x, x, { delta = 0 / 0 }) end, "huber_loss: delta is %-?nan")
    refused(function() gr.smooth_l1_loss(x, x, { beta = -1 }) end, "smooth_l1_loss: beta is %-1, expected at least 0")
    refused(function() gr.l1_loss(x, x, { reduction = "average" }) end, "average")
    refused(function() gr.l1_loss(x, x, { reduction = "batchmean" }) end, "batchmean")
    refused(function() gr.kl_div(gr.tensor(1.0), gr.tensor(1.0), { reduction = "batchmean" }) end,
      "x is a scalar: reduction \"batchmean\" needs a dimension")
  end)

  it("want weights that broadcast to x, and leave its shape as it is", function()
    local t = gr.rand(3, 4)
    refused(function() gr.bce_with_logits(x, t, gr.ones(3)) end, "weight is f32%[3%], which does not broadcast to x f32%[3,4%]")
    refused(function() gr.bce_with_logits(x, t, nil, gr.ones(2, 3, 4)) end, "pos_weight is f32%[2,3,4%], which does not broadcast")
    refused(function() gr.bce_with_logits(x, t, gr.ones({ 4 }, { dtype = "i64" })) end, "input 3 is i64%[4%], expected f32 or f64")
    assert.equal(gr.bce_with_logits(x, t):item(), gr.bce_with_logits(x, t, gr.ones(3, 1), gr.ones(4)):item())
  end)

  it("go by their short names too", function()
    assert.equal(gr.binary_cross_entropy_with_logits, gr.bce_with_logits)
    assert.equal(F.binary_cross_entropy_with_logits, F.bce_with_logits)
  end)

  it("stay finite and exact where exponentials would not", function()
    local far = gr.tensor { 1000.0, -1000.0, 1000.0, -1000.0 }
    local t = gr.tensor { 1.0, 0.0, 0.0, 1.0 }
    assert.same({ 0, 0, 1000, 1000 }, gr.bce_with_logits(far, t, { reduction = "none" }):totable())
    local z = gr.tensor { -30.0, 30.0 }:requires_grad_(true)
    gr.bce_with_logits(z, gr.tensor { 0.0, 1.0 }, { reduction = "sum" }):backward()
    assert.near(1, z.grad[1]:item() / math.exp(-30), 1e-6)
    assert.near(1, -z.grad[2]:item() / math.exp(-30), 1e-6)
  end)

  it("sum millions of elements in double", function()
    local n = 5e6 // 1 | 0
    assert.equal(0.25, gr.mse_loss(gr.zeros(n), gr.full({ n }, 0.5)):item())
    assert.equal(math.floor(n / 2), gr.l1_loss(gr.zeros(n), gr.full({ n }, 0.5), { reduction = "sum" }):item())
  end)

  it("are NaN over nothing, as PyTorch's are", function()
    local none = gr.zeros(0)
    for _, name in ipairs { "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "kl_div", "bce_with_logits" } do
      local loss = gr[name](none, none):item()
      assert.is_true(loss ~= loss, name)
      assert.equal(0, gr[name](none, none, { reduction = "sum" }):item())
    end
  end)
end)

describe("layers of losses", function()
  it("take two tensors, and say so", function()
    local x = gr.randn(3, 4)
    refused(function() nn.MSELoss()(x) end, "MSELoss.*1 inputs, expected 2")
    refused(function() nn.BCEWithLogitsLoss()(x) end, "BCEWithLogitsLoss.*1 inputs, expected 2 to 4")
    refused(function() nn.HuberLoss({ beta = 1 }) end, "unknown option 'beta'")
    assert.equal(gr.l1_loss(x, x + 2, { reduction = "sum" }):item(), nn.L1Loss("sum")(x, x + 2):item())
  end)
end)
