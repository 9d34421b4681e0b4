-- Attention: what it refuses, what masks and dropout do. Values are compared with PyTorch's in parity_spec.
local gr = require "gradrun"
local F = gr.nn.functional

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
    assert.is_true((y - attend(q, k, v, gr.zeros(40, 50):masked_fill(seen:eq(0), -math.huge))):abs():amax():item() < 1e-6)
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
