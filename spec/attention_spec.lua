-- Attention: what it refuses, what masks and dropout do. Values are compared with PyTorch's in parity_spec.
local gr = require "gradrun"
local shell = require "spec.support.shell"
local nn, F = gr.nn, gr.nn.functional

local function same(a, b) return a:ne(b):sum():item() == 0 end

describe("scaled_dot_product_attention", function()
  local attend = F.scaled_dot_product_attention
  local function refuses(message, ...)
    local args = table.pack(...)
    assert.error_matches(function() attend(table.unpack(args, 1, args.n)) end, message)
  end

  it("refuses shapes that do not fit, with the shapes", function()
    local q, k, v = gr.zeros(2, 3, 4), gr.zeros(2, 5, 4), gr.zeros(2, 5, 6)
    refuses("q is f32%[4%], expected at least 2 dimensions", gr.zeros(4), k, v)
    refuses("q is f32%[2,3,4%], k f32%[2,5,3%]: their last dimensions differ", q, gr.zeros(2, 5, 3), v)
    refuses("k is f32%[2,5,4%], v f32%[2,6,6%]: 5 keys, but 6 values", q, k, gr.zeros(2, 6, 6))
    refuses("q f32%[2,3,4%], k f32%[3,5,4%], v f32%[2,5,6%]: the leading dimensions do not broadcast", q,
      gr.zeros(3, 5, 4), v)
    refuses("mask f32%[3,4%] does not broadcast to the scores %[2,3,5%]", q, k, v, gr.zeros(3, 4))
    refuses("mask f32%[4,2,3,5%] does not broadcast to the scores %[2,3,5%]", q, k, v, gr.zeros(4, 2, 3, 5))
  end)

  it("refuses other dtypes, and rates that are none", function()
    local x, y = gr.zeros(3, 4), gr.zeros({ 3, 4 }, { dtype = "f64" })
    refuses("input 2 is f64%[3,4%], but input 1 is f32%[3,4%]", x, y, x)
    refuses("mask is i64%[3,3%], expected u8 %(1 = take part%) or f32 %(added to the scores%)", x, x, x,
      gr.zeros({ 3, 3 }, { dtype = "i64" }))
    refuses("mask is f64%[3,3%], expected u8", x, x, x, gr.zeros({ 3, 3 }, { dtype = "f64" }))
    refuses("dropout_p is 1.5, expected 0 to 1", x, x, x, { dropout_p = 1.5 })
    refuses("unknown option 'causal'", x, x, x, { causal = true })
  end)

  it("lets no later key act on a query", function()
    local q, k, v = gr.randn(2, 70, 8), gr.randn(2, 70, 8), gr.randn(2, 70, 8)
    local y = attend(q, k, v, { is_causal = true })
    k:narrow(2, 41, 30):uniform_()
    v:narrow(2, 41, 30):uniform_()
    local z = attend(q, k, v, { is_causal = true })
    assert.is_true(same(y:narrow(2, 1, 40), z:narrow(2, 1, 40)))
    assert.is_false(same(y:narrow(2, 41, 1), z:narrow(2, 41, 1)))
  end)

  it("means the same by is_causal and by a triangular mask, of either kind", function()
    local q, k, v = gr.randn(3, 40, 8), gr.randn(3, 50, 8), gr.randn(3, 50, 5)
    local rows, columns = gr.zeros(40, 50), gr.zeros(40, 50)
    for i = 1, 40 do rows[i] = i end
    for j = 1, 50 do columns[{ {}, j }] = j end
    local seen = columns:le(rows)
    local y = attend(q, k, v, { is_causal = true })
    assert.is_true((y - attend(q, k, v, seen)):abs():amax():item() < 1e-6)
    local added = gr.zeros(40, 50):masked_fill(seen:eq(0), -math.huge)
    assert.is_true((y - attend(q, k, v, added)):abs():amax():item() < 1e-6)
  end)

  it("gives 0 and no gradient where a query sees no key", function()
    local q, k, v = gr.randn({ 2, 4 }, { requires_grad = true }), gr.randn(3, 4), gr.randn(3, 4)
    local y = attend(q, k, v, gr.tensor({ { 1, 0, 1 }, { 0, 0, 0 } }, { dtype = "u8" }))
    y:sum():backward()
    assert.same({ 0, 0, 0, 0 }, y[2]:detach():totable())
    assert.same({ 0, 0, 0, 0 }, q.grad[2]:totable())
    assert.is_true(q.grad[1]:abs():amax():item() > 0)
  end)

  it("drops a fraction dropout_p of the probabilities, anew at every call, again after the same seed", function()
    local n, p = 200, 0.3
    local q, k = gr.randn(4, n, 8), gr.randn(4, n, 8)
    local v = gr.zeros(4, n, n)
    for i = 1, n do v[{ {}, i, i }] = 1 end -- so that the result is the probabilities
    gr.manual_seed(5)
    local whole = attend(q, k, v)
    local a, b = attend(q, k, v, nil, p), attend(q, k, v, nil, p)
    gr.manual_seed(5)
    attend(q, k, v)
    local c = attend(q, k, v, nil, p)
    local kept = a:ne(0):sum():item()
    assert.is_true(math.abs(kept - (1 - p) * 4 * n * n) < 5 * math.sqrt(4 * n * n * p * (1 - p)), kept)
    assert.is_true((a - whole / (1 - p)):mul(a:ne(0)):abs():amax():item() < 1e-6)
    assert.is_true(a:ne(b):sum():item() > n)
    assert.is_true(same(a, c))
  end)
end)

describe("MultiheadAttention", function()
  local function mask(t) return gr.tensor(t, { dtype = "u8" }) end
  local x = gr.randn(3, 2, 8)

  it("refuses heads that do not divide the width", function()
    assert.error_matches(function() nn.MultiheadAttention(10, 4) end,
      "embed_dim = 10, num_heads = 4: expected at least 1 each, and the first divisible by the second")
    assert.error_matches(function() nn.MultiheadAttention(8, 0) end, "num_heads is 0, expected at least 1")
    assert.error_matches(function() nn.MultiheadAttention(8, 2, { dropout = 2 }) end, "dropout is 2, expected 0 to 1")
  end)

  it("says where a shape is wrong", function()
    local m, first = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, { batch_first = true })
    local net = nn.Sequential(nn.Tanh(), m)
    assert.error_matches(function() net(gr.zeros(3, 7)) end,
      "2 %(MultiheadAttention 8, 2 heads%): query is f32%[3,7%], expected %[t,n,8%] or, without a batch, %[t,8%]")
    assert.error_matches(function() m(x, gr.zeros(3, 8)) end, "key is f32%[3,8%], expected %[s,n,8%] .*, as query")
    assert.error_matches(function() first(x, gr.zeros(2, 4, 8)) end,
      "query is f32%[3,2,8%], key f32%[2,4,8%]: batches of 3 and 2")
    assert.error_matches(function() m(x, x, gr.zeros(4, 2, 8)) end,
      "key is f32%[3,2,8%], value f32%[4,2,8%]: 3 keys, but 4 values")
    assert.error_matches(function() m() end, "the input is missing")
  end)

  it("refuses masks of other shapes and dtypes", function()
    local m = nn.MultiheadAttention(8, 2)
    local function refuses(message, options)
      assert.error_matches(function() m(x, x, x, options) end, message)
    end
    refuses("key_padding_mask is u8%[3,2%], expected %[2,3%]",
      { key_padding_mask = gr.zeros({ 3, 2 }, { dtype = "u8" }) })
    refuses("attn_mask is f32%[3,2%], expected %[3,3%]", { attn_mask = gr.zeros(3, 2) })
    refuses("attn_mask is f32%[2,3,3%], expected %[4,3,3%]", { attn_mask = gr.zeros(2, 3, 3) })
    refuses("attn_mask is i64%[3,3%], expected u8 %(1 = ignored%) or f32 %(added to the scores%)",
      { attn_mask = gr.zeros({ 3, 3 }, { dtype = "i64" }) })
  end)

  it("takes its options by name, and no others", function()
    local m = nn.MultiheadAttention(8, 2)
    local padding = mask { { 0, 0, 1 }, { 0, 1, 0 } }
    assert.is_true(same(m(x, x, x, padding), m(x, { key_padding_mask = padding })))
    assert.error_matches(function() m(x, { need_weight = true }) end,
      "unknown option 'need_weight' %(did you mean 'need_weights'")
    assert.error_matches(function() m(x, { atn_mask = padding }) end,
      "unknown option 'atn_mask' %(did you mean 'attn_mask'")
    assert.error_matches(function() m(x, x, x, padding, { key_padding_mask = padding }) end,
      "key_padding_mask is given twice")
    assert.error_matches(function() m(x, { attn_mask = 3 }) end, "attn_mask is 3, expected a tensor")
    assert.error_matches(function() m(x, { need_weights = 1 }) end, "need_weights is 1, expected true or false")
    assert.error_matches(function() m(x, { x }) end, "option table has the key 1; names are expected")
  end)

  it("gives weights only when asked, with the same result", function()
    local m = nn.MultiheadAttention(8, 2)
    assert.equal(1, select("#", m(x)))
    local options = { need_weights = true, is_causal = true, attn_mask = gr.randn(3, 3) }
    local y, w = m(x, options)
    assert.same({ 2, 3, 3 }, w.shape)
    assert.is_true((w:sum(-1) - 1):abs():amax():item() < 1e-6)
    assert.equal(0, w[1][1][2]:item())
    options.need_weights = false
    assert.is_true((y - m(x, options)):abs():amax():item() < 1e-6)
  end)

  it("joins masks of both kinds, and lets a query that sees nothing give the bias", function()
    local m = nn.MultiheadAttention(8, 2)
    local padding, added = mask { { 0, 1, 0 }, { 1, 1, 1 } }, gr.randn(3, 3)
    local hidden = gr.zeros(2, 3):masked_fill(padding, -math.huge)
    local y, w = m(x, { key_padding_mask = padding, attn_mask = added, need_weights = true })
    assert.is_true((y - m(x, { key_padding_mask = hidden, attn_mask = added })):abs():amax():item() < 1e-6)
    assert.equal(0, w[2]:abs():sum():item())
    assert.is_true(same(y[1][2], m.out_proj.bias))
  end)

  it("drops while training only", function()
    local m = nn.MultiheadAttention(8, 2, { dropout = 0.5 })
    assert.is_false(same(m(x), m(x)))
    m:eval()
    assert.is_true(same(m(x), m(x)))
  end)

  it("may stand in a Sequential, and hooks see all its results", function()
    local m, seen = nn.MultiheadAttention(8, 2), 0
    assert.is_true(same(nn.Sequential(m)(x), m(x)))
    m:register_forward_hook(function(_, inputs, outputs)
      seen = seen + 1
      assert.equal(5, #inputs)
      assert.is_false(inputs[2])
      assert.equal(2, #outputs)
    end)
    m(x, { need_weights = true, attn_mask = gr.zeros(3, 3) })
    assert.equal(1, seen)
  end)
end)

describe("scripts/char_gpt.lua", function()
  it("learns a text and writes one", function()
    local out = shell.run("%s scripts/char_gpt.lua --steps 50 --width 32 --heads 2 --layers 1 --context 32 --lr 0.01 " ..
      "--length 80", shell.gradrun)
    local first, last = out:match("step +1  loss ([%d.]+)"), out:match("step +50  loss ([%d.]+)")
    assert.is_true(tonumber(last) < tonumber(first) - 1, out)
    assert.equal(80, #out:match("\n\n(.*)\n$"))
  end)
end)
