-- Parts in lists, repetition, dimensions moved, and names users know: made in Lua of ops there are.
local gr = require "gradrun"

local function counted(...) return gr.range(1, gr.zeros(...):numel()):to("f32"):view(...) end

local function tables(list)
  local out = {}
  for i, t in ipairs(list) do out[i] = t:totable() end
  return out
end

describe("split, chunk and unbind", function()
  local x = counted(2, 5)

  it("give lists of parts", function()
    assert.same({ { { 1, 2 }, { 6, 7 } }, { { 3, 4 }, { 8, 9 } }, { { 5 }, { 10 } } }, tables(x:split(2, 2)))
    assert.same({ { { 1 }, { 6 } }, { {}, {} }, { { 2, 3, 4, 5 }, { 7, 8, 9, 10 } } }, tables(gr.split(x, { 1, 0, 4 }, -1)))
    assert.same({ { 2, 3 }, { 2, 2 } }, { x:chunk(2, { dim = 2 })[1].shape, x:chunk(2, 2)[2].shape })
    assert.same({ 3, 2, 1 }, { #gr.zeros(5):chunk(3), #gr.zeros(4):chunk(3), #gr.zeros(0, 2):chunk(3) })
    assert.same({ { 1, 6 }, { 2, 7 }, { 3, 8 }, { 4, 9 }, { 5, 10 } }, tables(x:unbind(2)))
    assert.same({}, gr.zeros(0, 2):unbind())
  end)

  it("give views", function()
    local t = gr.zeros(2, 4)
    t:split(2, 2)[2]:fill_(1)
    t:unbind()[2]:add_(1)
    assert.same({ { 0, 0, 1, 1 }, { 1, 1, 2, 2 } }, t:totable())
  end)

  it("send gradients back to their places", function()
    local w = gr.zeros({ 2, 5 }, { requires_grad = true })
    local parts = w:split({ 2, 3 }, 2);
    (parts[1]:sum() + (parts[2] * 3):sum()):backward()
    assert.same({ { 1, 1, 3, 3, 3 }, { 1, 1, 3, 3, 3 } }, w.grad:totable())
  end)

  it("say what does not fit", function()
    assert.error_matches(function() x:split({ 1, 2 }, 2) end,
      "split: sizes of {1, 2} add up to 3, but dimension 2 has 5 positions")
    assert.error_matches(function() x:split(0) end, "split: the size is 0, expected at least 1, or a list")
    assert.error_matches(function() x:split { 1, -1 } end, "split: size 2 is %-1")
    assert.error_matches(function() x:split(1, 3) end, "split: dimension 3: the tensor has 2 dimensions")
    assert.error_matches(function() x:split(1, 0) end, "split: dim is 0, but dimensions and positions count from 1")
    assert.error_matches(function() x:split(1, { din = 1 }) end, "split: unknown option 'din' %(known: dim%)")
    assert.error_matches(function() x:chunk(0) end, "chunk: the number of parts is 0")
    assert.error_matches(function() gr.tensor(1):unbind() end, "unbind: dimension 1: the tensor has 0 dimensions")
    assert.error_matches(function() gr.split({}, 1) end, "split: argument 1 is a table, expected a tensor")
    local _, message = pcall(function() x:split(0) end)
    assert.matches("views_spec%.lua:%d+: split", message) -- the caller's line
  end)
end)

describe("tile and repeat_interleave", function()
  it("repeat, with gradients", function()
    local x = gr.tensor({ { 1, 2 } }, { requires_grad = true })
    assert.same({ { 1, 2, 1, 2 }, { 1, 2, 1, 2 } }, x:tile(2, 2):totable())
    assert.same({ 3, 1, 2 }, x:tile({ 3, 1, 1 }).shape)
    assert.same({ { 1, 2, 1, 2 } }, x:tile(2):totable())
    assert.same({ { 1, 1, 1, 2, 2, 2 } }, x:repeat_interleave(3, 2):totable())
    assert.same({ { 1, 2 }, { 1, 2 } }, x:repeat_interleave(2):totable())
    assert.same({ 0, 2 }, x:tile(0, 1).shape);
    (x:tile(3, 2) * counted(3, 4)):sum():backward()
    assert.same({ { 1 + 3 + 5 + 7 + 9 + 11, 2 + 4 + 6 + 8 + 10 + 12 } }, x.grad:totable())
    assert.error_matches(function() x:tile(-1) end, "tile: number 1 is %-1, expected at least 0")
    assert.error_matches(function() x:repeat_interleave(1.5, 1) end, "repeat_interleave: the number is 1.5")
  end)

  it("copy", function()
    local x = gr.zeros(2)
    x:tile(1):fill_(1)
    assert.same({ 0, 0 }, x:totable())
  end)
end)

describe("roll", function()
  it("takes a shift and a dimension as numbers, or lists of both", function()
    local t = gr.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    local by_row = { { 4, 5, 6 }, { 1, 2, 3 } }
    assert.same(by_row, t:roll(1, 1):totable())
    assert.same(by_row, gr.roll(t, { 1 }, { 1 }):totable())
    assert.same(by_row, t:roll(-3, { dims = 1 }):totable())
    assert.same({ { 6, 1, 2 }, { 3, 4, 5 } }, t:roll(1):totable())
    assert.error_matches(function() t:roll { 1, 2 } end, "2 shifts, but dims is missing")
  end)
end)

describe("movedim, t, diag, trace, dot and outer", function()
  it("are what PyTorch's are", function()
    assert.same({ 3, 4, 2 }, gr.zeros(2, 3, 4):movedim(1, 3).shape)
    assert.same({ 3, 4, 2 }, gr.zeros(2, 3, 4):movedim({ 1, 2 }, { -1, 1 }).shape)
    assert.same({ { 1, 3 }, { 2, 4 } }, counted(2, 2):t():totable())
    assert.same({ 1, 2 }, counted(2):t():totable())
    assert.same({ { 0, 1, 0 }, { 0, 0, 2 }, { 0, 0, 0 } }, counted(2):diag(1):totable())
    assert.same({ 4 }, counted(2, 3):diag(-1):totable())
    assert.equal(5, counted(2, 2):trace():item())
    assert.equal(14, counted(3):dot(counted(3)):item())
    assert.same({ { 1, 2 }, { 2, 4 } }, gr.outer(counted(2), counted(2)):totable())
    assert.same({ { 7, 10 }, { 15, 22 } }, counted(2, 2):mm(counted(2, 2)):totable())
    assert.same({ 2, 3 }, gr.zeros(6):view_as(gr.zeros(2, 3)).shape)
    assert.same({ "f32", "f64", "i64", "u8" }, { gr.zeros({ 1 }, "u8"):float().dtype, gr.zeros(1):double().dtype,
      gr.zeros(1):long().dtype, gr.zeros(1):byte().dtype })
  end)

  it("say what does not fit", function()
    local x = gr.zeros(2, 3, 4)
    assert.error_matches(function() x:movedim(1, 4) end, "movedim: dimension 4: the tensor has 3 dimensions")
    assert.error_matches(function() x:movedim({ 1, -3 }, { 1, 2 }) end, "movedim: dimension 1 is given twice")
    assert.error_matches(function() x:movedim({ 1, 2 }, 1) end, "movedim: 2 dimensions to 1 places")
    assert.error_matches(function() x:t() end, "t: 3 dimensions, a matrix is expected")
    assert.error_matches(function() x:diag() end, "diag: 3 dimensions, a vector or a matrix")
    assert.error_matches(function() x:trace() end, "trace: 3 dimensions")
    assert.error_matches(function() x:dot(x) end, "dot: 3 and 3 dimensions, two vectors")
    assert.error_matches(function() x:outer(3) end, "outer: argument 2 is a number, expected a tensor")
  end)
end)
