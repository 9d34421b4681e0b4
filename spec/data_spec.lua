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
      for x, y, step, steps in gr.data.loader(set, options):batches() do
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

  it("goes on at the place that was saved, in the same order", function()
    local rows = {}
    for i = 1, 50 do rows[i] = i end
    local set = { x = gr.tensor(rows), y = gr.tensor(rows, "i64") }
    local function rest(loader, epochs)
      local seen = {}
      while loader.epoch <= epochs do
        for x in loader:batches() do
          for _, v in ipairs(x:totable()) do seen[#seen + 1] = v end
        end
      end
      return seen
    end
    local options = { batch_size = 8, shuffle = true, seed = 3 }
    local whole = rest(gr.data.loader(set, options), 3)
    for place = 1, 20 do
      local a, done, taken = gr.data.loader(set, options), 0, 0
      repeat
        for x in a:batches() do
          done, taken = done + 1, taken + #x
          if done == place then break end
        end
      until done == place
      options.seed = 4 -- what is loaded wins
      local b = gr.data.loader(set, options)
      b:load_state_dict(a:state_dict())
      options.seed = 3
      assert.same(table.move(whole, taken + 1, #whole, 1, {}), rest(b, 3))
      gr.rand(3) -- the order is its own
    end
    local other = gr.data.loader(set, { batch_size = 4 })
    assert.error_matches(function() other:load_state_dict(gr.data.loader(set, options):state_dict()) end,
      "saved with batch_size = 8; here it is 4")
    assert.equal("loader: 50 samples, 13 batches of 4; epoch 1, step 0", tostring(other))
  end)

  it("applies a transform to every batch", function()
    local set = { x = gr.ones(4, 2), y = gr.zeros(4) }
    for x, y in gr.data.loader(set, { batch_size = 2, transform = function(a, b) return a * 3, b - 1 end }):batches() do
      assert.same({ { 3.0, 3.0 }, { 3.0, 3.0 } }, x:totable())
      assert.same({ -1.0, -1.0 }, y:totable())
    end
  end)

  it("refuses sets and options it cannot use", function()
    local set = { x = gr.ones(4, 2), y = gr.zeros(3) }
    for message, f in pairs {
      ["x has 4 rows, y has 3"] = function() gr.data.loader(set) end,
      ["a table with tensors x and y"] = function() gr.data.loader { 1, 2 } end,
      ["batch_size is 0, expected a whole number above 0"] = function()
        gr.data.loader({ x = gr.ones(4), y = gr.ones(4) }, { batch_size = 0 })
      end,
    } do
      assert.error_matches(f, message)
    end
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
