-- Index tensors, masks, and views in lists: what they refuse, and what the list of ops cannot say.
local gr = require "gradrun"
local nn = gr.nn

local function i64(t) return gr.tensor(t, "i64") end

describe("an index tensor", function()
  local x, w = gr.zeros(4, 3), gr.zeros(5, 2)

  it("counts from 1: position, place and range are named", function()
    assert.error_matches(function() x:index_select(1, i64 { 1, 0 }) end,
      "index_select: position 0 %(place %[2%] of the index%) is outside dimension 1 of %[4,3%]: 1 to 4; " ..
      "positions count from 1, not from 0")
    assert.error_matches(function() x:index_select(2, i64 { 4 }) end,
      "position 4 %(place %[1%] of the index%) is outside dimension 2 of %[4,3%]: 1 to 3")
    assert.error_matches(function() gr.embedding(i64 { { 1, 5 }, { 6, 1 } }, w) end,
      "embedding: position 6 %(place %[2,1%] of the index%) is outside dimension 1 of %[5,2%]: 1 to 5")
    assert.error_matches(function() gr.embedding(i64 { { 1, 0 } }, w) end, "position 0.*count from 1, not from 0")
    assert.error_matches(function() gr.embedding(i64(-1), w) end, "embedding: position %-1 is outside")
    assert.error_matches(function() gr.embedding(i64 { 1 }, gr.zeros(0, 2)) end, "dimension 1 of %[0,2%] is empty")
  end)

  it("is i64", function()
    assert.error_matches(function() x:index_select(1, gr.tensor { 1 }) end,
      "the index is f32%[1%], expected i64; convert it with :to%(\"i64\"%)")
    assert.error_matches(function() gr.embedding(gr.tensor { 1 }, w) end, "embedding: the index is f32%[1%]")
  end)

  it("finds what is wrong in a million entries, on any number of threads", function()
    local threads, index = gr.threads(), gr.ones({ 1000, 1000 }, "i64")
    index[{ 700, 3 }] = 7
    for n = 1, 2 do
      gr.threads(n)
      assert.error_matches(function() gr.embedding(index, w) end, "position 7 %(place %[700,3%]")
    end
    gr.threads(threads)
  end)
end)

describe("Embedding", function()
  it("starts normally distributed, its padding row at zero", function()
    gr.manual_seed(4)
    local e = nn.Embedding(200, 100, { padding_idx = -1 })
    assert.same({ 200, 100 }, e.weight.shape)
    assert.equal(0, e.weight[200]:abs():sum():item())
    assert.near(0, e.weight:mean():item(), 0.03)
    assert.near(199 / 200, (e.weight * e.weight):mean():item(), 0.03)
    assert.equal(-1, e.padding_idx)
    assert.is_nil(nn.Embedding(2, 2).padding_idx)
    assert.matches("Embedding 200→100", tostring(e))
  end)

  it("gives the padding row no gradient, and every other the sum of its uses", function()
    local e = nn.Embedding(3, 2, { padding_idx = 2 })
    e(i64 { { 1, 2, 1 }, { 2, 2, 3 } }):sum():backward()
    assert.same({ { 2, 2 }, { 0, 0 }, { 1, 1 } }, e.weight.grad:totable())
  end)

  it("refuses sizes and rows that do not fit", function()
    assert.error_matches(function() nn.Embedding(5, 0) end, "embedding_dim is 0, expected at least 1")
    assert.error_matches(function() nn.Embedding(5) end, "embedding_dim is missing")
    assert.error_matches(function() nn.Embedding(5, 2, { padding_idx = 6 }) end, "padding_idx = 6: the 5 rows are 1 to 5")
    assert.error_matches(function() nn.Embedding(5, 2, { padding_idx = 0 }) end, "padding_idx is 0, but .* count from 1")
    assert.error_matches(function() gr.embedding(i64 { 1 }, gr.zeros(5, 2), { padding_idx = -6 }) end,
      "padding_idx %-6 is no row of the weight f32%[5,2%]")
    assert.error_matches(function() gr.embedding(i64 { 1 }, gr.zeros(5)) end, "the weight is f32%[5%], expected floating rows")
    local e = nn.Sequential(nn.Embedding(5, 2))
    assert.error_matches(function() e(i64 { 6 }) end, "1 %(Embedding 5→2%): embedding: position 6")
  end)

  it("adds up the same bits on any number of threads", function()
    local threads, got = gr.threads(), {}
    gr.manual_seed(1)
    local x, w = gr.uniform({ 20000 }, { lo = 1, hi = 51 }):to("i64"), gr.randn({ 50, 96 }, { requires_grad = true })
    local dy = gr.randn(20000, 96)
    for n = 1, 3 do
      gr.threads(n)
      got[n] = gr.grad(gr.embedding(x, w), w, { gradient = dy })
    end
    gr.threads(threads)
    assert.equal(0, got[1]:ne(got[2]):sum():item() + got[1]:ne(got[3]):sum():item())
  end)
end)
