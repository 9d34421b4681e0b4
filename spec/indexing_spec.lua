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

describe("gather and scatter", function()
  local x = gr.range(1, 6):to("f32"):view(2, 3)

  it("name the position, its place, and shapes that do not fit", function()
    assert.error_matches(function() x:gather(2, i64 { { 1 }, { 4 } }) end,
      "gather: position 4 %(place %[2,1%] of the index%) is outside dimension 2 of %[2,3%]: 1 to 3")
    assert.error_matches(function() x:gather(1, i64 { { 0, 1 } }) end, "position 0.*positions count from 1, not from 0")
    assert.error_matches(function() x:gather(2, i64 { 1, 2 }) end,
      "the index is i64%[2%], expected 2 dimensions, as many as %[2,3%] has")
    assert.error_matches(function() x:gather(2, gr.ones({ 3, 1 }, "i64")) end,
      "the index i64%[3,1%] is larger than %[2,3%] in dimension 1, which is not the indexed one")
    assert.error_matches(function() x:gather(3, gr.ones({ 2, 1 }, "i64")) end, "dimension 3: the tensor has 2 dimensions")
    assert.error_matches(function() x:gather(2, gr.ones { 2, 1 }) end, "the index is f32%[2,1%], expected i64")
    assert.error_matches(function() x:scatter_add(2, gr.ones({ 2, 1 }, "i64"), gr.ones(2, 2)) end,
      "src is f32%[2,2%], expected one value or the shape of the index, %[2,1%]")
    assert.error_matches(function() x:scatter(2, gr.ones({ 2, 1 }, "i64"), gr.ones({ 2, 1 }, "f64")) end,
      "src is f64%[2,1%], but x is f32%[2,3%]; convert it with :to%(\"f32\"%)")
  end)

  it("work in place, and change nothing when they fail", function()
    local t = gr.zeros(2, 3)
    assert.equal(t, t:scatter_(2, i64 { { 2 }, { 3 } }, 1))
    assert.same({ { 0, 1, 0 }, { 0, 0, 1 } }, t:totable())
    t:scatter_add_(2, i64 { { 2, 2 }, { 1, 1 } }, gr.ones(2, 2))
    assert.same({ { 0, 3, 0 }, { 2, 0, 1 } }, t:totable())
    assert.is_false(pcall(t.scatter_add_, t, 2, i64 { { 2 }, { 4 } }, 1))
    t:scatter_add_(1, i64 { { 1, 1, 2 } }, t[{ { 2, 2 } }]) -- from itself
    assert.same({ { 2, 3, 0 }, { 2, 0, 2 } }, t:totable())
    local leaf = gr.zeros({ 2, 3 }, { requires_grad = true })
    assert.error_matches(function() leaf:scatter_add_(2, i64 { { 1 }, { 1 } }, 1) end, "scatter_add_")
  end)

  it("keep the last value where several meet, and send the gradient there alone", function()
    local base, src = gr.zeros({ 3 }, { requires_grad = true }), gr.tensor({ 1, 2, 3, 4 }, { requires_grad = true })
    local y = base:scatter(1, i64 { 2, 1, 2, 2 }, src)
    assert.same({ 2, 4, 0 }, y:totable())
    y:backward(gr.tensor { 5, 6, 7 })
    assert.same({ 0, 0, 7 }, base.grad:totable())
    assert.same({ 0, 5, 0, 6 }, src.grad:totable())
  end)

  it("count", function()
    assert.same({ 2, 0, 3 }, gr.zeros({ 3 }, "i64"):scatter_add(1, i64 { 3, 1, 3, 1, 3 }, 1):totable())
    assert.same({ 1, 2 }, gr.zeros({ 2 }, "u8"):scatter_add(1, i64 { 2, 1, 2 }, 1):totable())
  end)
end)

describe("masks", function()
  it("are u8 and broadcast", function()
    local x = gr.range(1, 6):view(2, 3)
    assert.same({ 4, 5, 6 }, x:masked_select(x:gt(3)):totable())
    assert.same({ 2, 5 }, x:masked_select(gr.tensor({ 0, 1, 0 }, "u8")):totable())
    assert.same({ 0 }, x:masked_select(x:gt(9)).shape)
    assert.error_matches(function() x:masked_select(x) end, "the mask is i64%[2,3%], expected u8: the result of a comparison")
    assert.error_matches(function() x:masked_select(gr.ones({ 4 }, "u8")) end, "shapes i64%[2,3%] and u8%[4%] do not broadcast")
  end)

  it("select the same on any number of threads, and as many as they say", function()
    gr.manual_seed(3)
    local x, threads = gr.randn(300000), gr.threads()
    local mask = x:gt(0.3)
    local count = mask:sum():item()
    for n = 1, 2 do
      gr.threads(n)
      local y = x:masked_select(mask)
      assert.equal(count, y:numel())
      assert.equal(count, y:gt(0.3):sum():item())
      assert.near(gr.where(mask, x, gr.zeros(1)):to("f64"):sum():item(), y:to("f64"):sum():item(), 1e-9)
    end
    gr.threads(threads)
  end)
end)

describe("one_hot", function()
  it("names the class that is outside", function()
    assert.error_matches(function() gr.one_hot(i64 { 1, 4 }, 3) end,
      "one_hot: class 4 at %[2%] is outside 1 to 3")
    assert.error_matches(function() gr.one_hot(i64 { { 1, 0 } }, 3) end,
      "class 0 at %[1,2%] is outside 1 to 3; classes count from 1, 0%-based labels need %+ 1")
    assert.error_matches(function() gr.one_hot(i64 { 0 }) end, "0 at")
    assert.error_matches(function() gr.one_hot(i64 {}) end, "num_classes is not given, and there are no classes")
    assert.error_matches(function() gr.one_hot(i64 { 1 }, 0) end, "num_classes is 0, expected at least 1")
    assert.error_matches(function() gr.one_hot(gr.ones(2), 3) end, "the classes are f32%[2%], expected i64 or u8")
  end)
end)

describe("t[k] with a tensor", function()
  local function x() return gr.range(1, 6):to("f32"):view(2, 3) end
  local rows, mask = i64 { 2, 1 }, gr.tensor({ 0, 1 }, "u8")

  it("reads elements and rows", function()
    local t = x()
    assert.same({ 4, 5, 6 }, t[t:gt(3)]:totable())
    assert.same({ { 4, 5, 6 } }, t[mask]:totable())
    assert.same({ { 4, 5, 6 }, { 1, 2, 3 } }, t[rows]:totable())
    local w = gr.ones({ 2, 3 }, { requires_grad = true });
    (w[mask]:sum() + w[rows]:sum()):backward()
    assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, w.grad:totable())
  end)

  it("assigns them", function()
    local t = x()
    t[t:gt(4)] = 0
    assert.same({ { 1, 2, 3 }, { 4, 0, 0 } }, t:totable())
    t[t:eq(0)] = gr.tensor { 7, 8 }
    assert.same({ { 1, 2, 3 }, { 4, 7, 8 } }, t:totable())
    t[mask] = gr.tensor { 5, 6, 7 }
    assert.same({ { 1, 2, 3 }, { 5, 6, 7 } }, t:totable())
    t[gr.tensor({ 1, 1 }, "u8")] = gr.tensor { { 1, 1, 1 }, { 2, 2, 2 } }
    assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, t:totable())
    t[rows] = gr.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, "f64")
    assert.same({ { 4, 5, 6 }, { 1, 2, 3 } }, t:totable())
    t[i64 { 1 }] = 9
    assert.same({ { 9, 9, 9 }, { 1, 2, 3 } }, t:totable())
  end)

  it("says what does not fit", function()
    local t = x()
    assert.error_matches(function() return t[gr.ones({ 3 }, "u8")] end, "neither the tensor's shape nor one entry for each")
    assert.error_matches(function() return t[gr.ones(2)] end, "index: a tensor of dtype f32; a mask %(u8%) or positions %(i64%)")
    assert.error_matches(function() return t[gr.ones({ 2, 1 }, "i64")] end, "positions in 2 dimensions, expected one")
    assert.error_matches(function() return t[i64 { 3 }] end, "position 3 .* is outside dimension 1 of %[2,3%]")
    assert.error_matches(function() t[i64 { 0 }] = 1 end, "positions count from 1")
    assert.error_matches(function() t[t:gt(0)] = gr.ones(3) end, "the mask selects 6 elements, the value has 3")
    assert.error_matches(function() t[i64 { 1 }] = gr.ones(2) end, "does not expand to")
    assert.error_matches(function() t[mask] = "a" end, "assignment: string, expected a number or a tensor")
    assert.error_matches(function() return t[true] end, "a tensor cannot be indexed with a boolean")
    assert.error_matches(function() return gr.tensor(1)[mask] end, "a scalar has no positions")
    local w = gr.ones({ 2, 3 }, { requires_grad = true })
    assert.error_matches(function() w[mask] = 1 end, "in place while gradients are recorded")
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
  end)
end)
