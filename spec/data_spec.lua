-- Data sets, batches and the errors of files that are missing or wrong.
local gr = require "gradrun"

local function temporary(bytes)
  local path = os.tmpname()
  local f = assert(io.open(path, "wb"))
  f:write(bytes)
  f:close()
  return path
end

describe("data", function()
  it("batches every sample once, in an order the seed fixes", function()
    local set = { x = gr.tensor { 1, 2, 3, 4, 5, 6, 7 }, y = gr.tensor({ 1, 2, 3, 4, 5, 6, 7 }, "i64") }
    local function order(options)
      local out, sizes = {}, {}
      for x, y, step, steps in gr.data.batches(set, options) do
        assert.same(x:totable(), y:totable())
        assert.is_true(step <= steps)
        sizes[#sizes + 1] = #y
        for _, v in ipairs(y:totable()) do out[#out + 1] = v end
      end
      return out, sizes
    end
    local plain, sizes = order { batch_size = 3 }
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, plain)
    assert.same({ 3, 3, 1 }, sizes)
    gr.manual_seed(4)
    local a = order { batch_size = 3, shuffle = true }
    gr.manual_seed(4)
    assert.same(a, (order { batch_size = 3, shuffle = true }))
    assert.is_not.same(plain, a)
    table.sort(a)
    assert.same(plain, a)
    assert.equal(6, #order { batch_size = 3, drop_last = true })
    assert.error_matches(function() order { batchsize = 3 } end, "unknown option 'batchsize'")
  end)

  it("reads the digits that are shipped", function()
    local train, test = gr.data.digits("scripts/data/digits.csv.gz")
    assert.equal("[1438×1×8×8]", tostring(train.x.shape))
    assert.equal(359, #test.y)
    assert.same({ 1, 10 }, { -(-train.y:to("f32")):amax():item(), train.y:to("f32"):amax():item() })
  end)

  it("gives nil and a message for a missing folder or file", function()
    local t, message = gr.data.fashion_mnist("/nowhere")
    assert.is_nil(t)
    assert.matches("/nowhere/train%-images%-idx3%-ubyte%.gz.*dataset%-fashion%-mnist", message)
    t, message = gr.data.idx("/nowhere/x")
    assert.is_nil(t)
    assert.matches("/nowhere/x", message)
  end)

  it("gives nil and a message for a truncated or hostile IDX file", function()
    local cases = {
      { "\0\0\8\1\0\0\0\5abc", "5" }, -- three bytes of five
      { "\0\0\8\3\255\255\255\255\255\255\255\255\255\255\255\255", "" }, -- a shape of 2^96
      { "\0\0\7\1\0\0\0\1a", "" }, -- no such type
      { "PK\3\4", "" }, { "", "" }, { "\0\0\8\1\0\0\0\1ab", "" }, -- a byte too many
    }
    for _, c in ipairs(cases) do
      local path = temporary(c[1])
      local before = gr.memory().tensors
      local t, message = gr.data.idx(path)
      assert.is_nil(t)
      assert.is_truthy(message:find(path, 1, true), message)
      assert.matches(c[2], message)
      assert.equal(before, gr.memory().tensors)
      os.remove(path)
    end
  end)

  it("says so when labels count from 0", function()
    local z, y = gr.rand(3, 5), gr.tensor({ 0, 1, 4 }, "i64")
    assert.error_matches(function() gr.nn.functional.cross_entropy(z, y) end, "0.*count from 1")
    assert.error_matches(function() gr.nn.functional.cross_entropy(z, y + 2) end, "6")
  end)
end)
