-- Losses: what is refused, and in which words; names; large inputs; sums over many elements.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local function refused(f, text) assert.error_matches(f, text) end

describe("losses of numbers", function()
  local x = gr.randn(3, 4)

  it("want two tensors of one shape", function()
    for _, name in ipairs { "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss" } do
      refused(function() gr[name](x, gr.randn(3, 1)) end,
        name .. ": x is f32%[3,4%], but y is f32%[3,1%]: the shapes must be equal")
      refused(function() gr[name](x, gr.ones({ 3, 4 }, { dtype = "f64" })) end,
        name .. ": input 2 is f64%[3,4%], but input 1 is f32")
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
    refused(function() gr.bce_with_logits(x, t, gr.ones(3)) end,
      "weight is f32%[3%], which does not broadcast to x f32%[3,4%]")
    refused(function() gr.bce_with_logits(x, t, nil, gr.ones(2, 3, 4)) end,
      "pos_weight is f32%[2,3,4%], which does not broadcast")
    refused(function() gr.bce_with_logits(x, t, gr.ones({ 4 }, { dtype = "i64" })) end,
      "input 3 is i64%[4%], expected f32 or f64")
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

describe("losses of classes", function()
  local x = gr.randn(3, 4)
  local function classes(list) return gr.tensor(list, { dtype = "i64" }) end

  for _, name in ipairs { "cross_entropy", "nll_loss" } do
    local f = gr[name]

    it(name .. " names a class that there is not, its place, and what there is", function()
      refused(function() f(x, classes { 1, 5, 2 }) end,
        name .. ": target at %[2%] is 5, expected a class from 1 to 4$")
      refused(function() f(x, classes { 1, 4, -1 }) end, "target at %[3%] is %-1, expected a class from 1 to 4$")
      refused(function() f(x, classes { 0, 1, 2 }) end,
        "target at %[1%] is 0, expected a class from 1 to 4: class targets count from 1 here, 0%-based labels")
      refused(function() f(x, classes { 1, 2, 0 }, { ignore_index = 7 }) end, "target at %[3%] is 0")
      local images, targets = gr.randn(2, 4, 3), gr.ones({ 2, 3 }, { dtype = "u8" })
      targets[{ 2, 3 }] = 9
      refused(function() f(images, targets) end, "target at %[2,3%] is 9, expected a class from 1 to 4")
    end)

    it(name .. " says what does not fit", function()
      refused(function() f(x, gr.randn(3)) end, "target is f32%[3%], expected class numbers as i64 or u8")
      refused(function() f(x, classes { 1, 2 }) end, "x is f32%[3,4%], so target must be %[3%]")
      refused(function() f(gr.randn(2, 4, 3), classes { { 1, 2 }, { 1, 2 } }) end, "so target must be %[2,3%]")
      refused(function() f(x, classes { 1, 2, 3 }, gr.ones(3)) end,
        "weight is f32%[3%], expected %[4%], one for each class")
      refused(function() f(x, classes { 1, 2, 3 }, gr.ones({ 4 }, { dtype = "f64" })) end,
        "input 3 is f64%[4%], but input 1 is f32")
      refused(function() f(gr.tensor(1.0), classes { 1 }) end, "x is f32%[%], expected %[n,classes%]")
    end)

    it(name .. " counts nothing for ignored targets, whatever is in their rows", function()
      local z = x:clone()
      z[2] = 0 / 0
      z:requires_grad_(true)
      local loss = f(z, classes { 1, -100, 3 })
      assert.equal(loss:item(), f(x[{ { 1, 3, 2 } }], classes { 1, 3 }):item())
      loss:backward()
      assert.same({ 0, 0, 0, 0 }, z.grad[2]:totable())
      for _, reduction in ipairs { "mean", "sum" } do
        local weight = gr.ones({ 4 }, { requires_grad = true })
        local o = { reduction = reduction, label_smoothing = name == "cross_entropy" and 0.1 or nil }
        local function slopes(rows, target)
          return gr.grad(f(rows, target, weight, o), { rows, weight }, { create_graph = true })
        end
        local kept = x[{ { 1, 3, 2 } }]:clone():requires_grad_(true)
        local got, want = slopes(z, classes { 1, -100, 3 }), slopes(kept, classes { 1, 3 })
        assert.same({ 0, 0, 0, 0 }, got[1][2]:totable())
        assert.same(want[2]:totable(), got[2]:totable())
        if name == "cross_entropy" then -- nll_loss has the same gradient whatever x is
          local second = gr.grad((got[1] ^ 2):sum(), z)
          assert.same({ 0, 0, 0, 0 }, second[2]:totable())
          assert.is_true(second[3]:abs():sum():item() < math.huge)
        end
      end
      assert.same(f(z, classes { 3, 3, 1 }, { ignore_index = 3, reduction = "none" }):totable()[2], 0)
    end)

    it(name .. " has weights whose gradient an impossible class does not spoil", function()
      local z, weight = x:clone(), gr.ones({ 4 }, { requires_grad = true })
      z[{ 1, 2 }] = -math.huge
      local slope = gr.grad(f(z, classes { 1, 4, 3 }, weight, { reduction = "sum" }), weight):totable()
      assert.equal(0, slope[2])
      assert.is_true(slope[1] < math.huge)
    end)

    it(name .. " is NaN as a mean over nothing, with a gradient of 0", function()
      local z = x:clone():requires_grad_(true)
      local loss = f(z, classes { -100, -100, -100 })
      assert.is_true(loss:item() ~= loss:item())
      loss:backward()
      assert.equal(0, z.grad:abs():sum():item())
      assert.equal(0, f(z, classes { -100, -100, -100 }, { reduction = "sum" }):item())
    end)
  end

  it("refuse a label_smoothing outside 0 to 1", function()
    refused(function() gr.cross_entropy(x, classes { 1, 2, 3 }, { label_smoothing = 1.5 }) end,
      "cross_entropy: label_smoothing is 1.5")
    refused(function() gr.nll_loss(x, classes { 1, 2, 3 }, { label_smoothing = 0.5 }) end,
      "nll_loss: unknown option 'label_smoothing'")
  end)

  it("are the same for rows of every length, turned or not, alone or together", function()
    gr.manual_seed(4)
    for _, c in ipairs { 2, 10, 32, 33, 96, 999, 1000, 1003 } do
      local n = 70
      local logits, t = gr.randn(n, c) * 3, gr.rand(n):mul(c):to("i64") + 1
      local weight, options = gr.rand(c), { label_smoothing = 0.1, reduction = "none" }
      local whole = gr.cross_entropy(logits, t, weight, options)
      local dy = gr.rand(n)
      local dx = gr.hidden.cross_entropy_backward(dy, logits, t, weight, options)
      local p = -gr.log_softmax(logits:to("f64"))
      local q = gr.one_hot(t, c):to("f64") * 0.9 + 0.1 / c
      local want = (p * q * weight:to("f64")):sum { dim = 2 }
      assert.is_true((whole:to("f64") - want):abs():amax():item() < 1e-5 * want:amax():item(), c)
      for _, r in ipairs { 1, 17, 64, 70 } do
        local one = { { r, r } }
        assert.equal(whole[r]:item(), gr.cross_entropy(logits[one], t[one], weight, options):item())
        local row = gr.hidden.cross_entropy_backward(dy[one], logits[one], t[one], weight, options)
        assert.equal(0, dx[one]:ne(row):sum():item())
      end
    end
  end)
end)

describe("layers of losses", function()
  it("take two tensors, and say so", function()
    local x = gr.randn(3, 4)
    refused(function() nn.MSELoss()(x) end, "MSELoss.*1 inputs, expected 2")
    refused(function() nn.BCEWithLogitsLoss()(x) end, "BCEWithLogitsLoss.*1 inputs, expected 2 to 4")
    refused(function() nn.CrossEntropyLoss()(x) end, "CrossEntropyLoss.*1 inputs, expected 2 to 3")
    refused(function() nn.HuberLoss({ beta = 1 }) end, "unknown option 'beta'")
    assert.equal(gr.l1_loss(x, x + 2, { reduction = "sum" }):item(), nn.L1Loss("sum")(x, x + 2):item())
  end)
end)
