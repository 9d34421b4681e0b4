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
    local good = gr.data.loader(set, options):state_dict()
    for message, wrong in pairs {
      ["saved with shuffle = false; here it is true"] = { shuffle = false },
      ["saved with drop_last = true; here it is false"] = { drop_last = true },
      ["its state has epoch = 0"] = { epoch = 0 },
      ["its state has step = 8"] = { step = 8 },
      ["its state has step = %-1"] = { step = -1 },
      ["its state has seed = 1.5"] = { seed = 1.5 },
      ["its state has seed = a table"] = { seed = {} },
      ["a state is a table; this is 3"] = 3,
    } do
      local loader, state = gr.data.loader(set, options), wrong
      if wrong ~= 3 then state = setmetatable(wrong, { __index = good }) end
      assert.error_matches(function() loader:load_state_dict(state) end, message)
      assert.equal("loader: 50 samples, 7 batches of 8, shuffled; epoch 1, step 0", tostring(loader))
    end
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
      ["here y is a text of 3 bytes"] = function() gr.data.loader { x = gr.ones(4), y = "a\nb" } end,
      ["here x is a number without rows"] = function() gr.data.loader { x = gr.tensor(4), y = gr.ones(4) } end,
      ["3 where a table of options is expected"] = function() gr.data.loader({ x = set.x, y = set.x }, 3) end,
      ["unknown option 'suffle' %(did you mean 'shuffle'%?%)"] = function()
        gr.data.loader({ x = set.x, y = set.x }, { suffle = true })
      end,
      ["shuffle is 1, expected true or false"] = function() gr.data.loader({ x = set.x, y = set.x }, { shuffle = 1 }) end,
      ["seed is 0.5, expected a whole number"] = function() gr.data.loader({ x = set.x, y = set.x }, { seed = 0.5 }) end,
      ["transform is a Tensor, expected a function"] = function()
        gr.data.loader({ x = set.x, y = set.x }, { transform = set.x })
      end,
      ["transform%(x, y%) gave no x and y back"] = function()
        gr.data.loader({ x = set.x, y = set.x }, { transform = function(x) return x end }):batches()()
      end,
      ["digits: the file is nil, expected a path"] = function() gr.data.digits() end,
      ["fashion_mnist: the folder is a table, expected a path"] = function() gr.data.fashion_mnist {} end,
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

-- ---- npy, npz, csv ------------------------------------------------------------------------------------------

local function same(a, b)
  assert.equal(a.dtype, b.dtype)
  assert.same(a:totable(), b:totable())
  assert.equal(tostring(a.shape), tostring(b.shape))
end

local function same_content(a, b)
  if gr.is_tensor(a) then return same(a, b) end
  for k, t in pairs(b) do same(t, a[k]) end
end

local tensors = {
  f32 = gr.tensor { { 1, -0.5, 1e-20 }, { 3e38, 1 / 0, -1 / 0 } },
  f64 = gr.tensor({ { 1, 0.1, 1 / 3 }, { 1e-300, 1e300, 5e-324 } }, "f64"),
  i64 = gr.tensor({ 1 << 62, -1, math.mininteger, (1 << 53) + 1 }, "i64"),
  u8 = gr.tensor({ { 0, 255 }, { 7, 8 } }, "u8"),
  turned = gr.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):transpose(),
  scalar = gr.tensor(2.5),
  empty = gr.zeros(0, 3),
  long = gr.rand(300, 401),
}

describe("what is written as", function()
  it("npy comes back the same", function()
    local path = temporary ""
    for _, t in pairs(tensors) do
      assert.is_true(gr.data.write_npy(path, t))
      same(t, assert(gr.data.npy(path)))
    end
    os.remove(path)
  end)

  it("npz comes back the same, by name", function()
    local path = temporary ""
    assert.is_true(gr.data.write_npz(path, tensors))
    local read = assert(gr.data.npz(path))
    for name, t in pairs(tensors) do same(t, read[name]) end
    for name in pairs(read) do assert.truthy(tensors[name], name) end
    assert.is_true(gr.data.write_npz(path, {}))
    assert.is_nil(next(assert(gr.data.npz(path))))
    os.remove(path)
  end)

  it("csv comes back the same, from short texts", function()
    local path = temporary ""
    local function text(t)
      assert.is_true(gr.data.write_csv(path, t))
      local f <close> = io.open(path)
      return f:read "a"
    end
    assert.equal("1,-0.5,1e-20\n3e+38,inf,-inf\n", text(tensors.f32))
    assert.equal("1,0.1,0.3333333333333333\n1e-300,1e+300,4.94065645841247e-324\n", text(tensors.f64))
    assert.equal("4611686018427387904\n-1\n-9223372036854775808\n9007199254740993\n", text(tensors.i64))
    assert.equal("0,255\n7,8\n", text(tensors.u8))
    assert.equal("1,4\n2,5\n3,6\n", text(tensors.turned))
    text(tensors.long)
    same(tensors.long, assert(gr.data.csv(path)))
    gr.default_dtype "f64"
    finally(function() gr.default_dtype "f32" end)
    for _, t in ipairs { tensors.f64, gr.tensor({ { (1 << 53) - 1, -(1 << 24) - 1 } }, "i64"), gr.rand(100, 7) } do
      text(t)
      same(t:to "f64", assert(gr.data.csv(path)))
    end
    assert.error_matches(function() gr.data.write_csv(path, tensors.scalar) end, "expected rows %[n%] or %[n,m%]")
    os.remove(path)
  end)

  it("any of them leaves an earlier file alone when it fails", function()
    for name, value in pairs { write_npy = tensors.f32, write_npz = tensors, write_csv = tensors.f32 } do
      local ok, message = gr.data[name]("/nowhere/file", value)
      assert.is_nil(ok)
      assert.matches("/nowhere/file: ", message)
    end
    local path = temporary "as it was"
    for n = 1, 3 do
      local t = n == 1 and "no tensor" or n == 2 and { 1 } or { a = 2 }
      assert.has_error(function() gr.data.write_npz(path, t) end)
    end
    local f <close> = io.open(path)
    assert.equal("as it was", f:read "a")
    os.remove(path)
  end)
end)

describe("NumPy's files", function()
  local corpus = "spec/fuzz/corpus/" -- by NumPy
  it("are read, whatever the type, byte order and version", function()
    local rows = { { 0, 1, 2 }, { 3, 4, 5 } }
    for name, dtype in pairs { f32 = "f32", f16 = "f32", f64big = "f64", i8 = "i64", u16big = "i64", u64 = "i64",
                               fortran = "f32", version2 = "f32" } do
      local t = assert(gr.data.npy(corpus .. "npy/" .. name .. ".npy"))
      assert.equal(dtype, t.dtype, name)
      assert.same(rows, t:to("i64"):totable(), name)
    end
    assert.equal("u8", gr.data.npy(corpus .. "npy/bool.npy").dtype)
    assert.equal(3.0, gr.data.npy(corpus .. "npy/scalar.npy"):item())
    assert.equal("[0×3]", tostring(gr.data.npy(corpus .. "npy/empty.npy").shape))
    assert.equal("[1×2×1×1×2×1×1×1]", tostring(gr.data.npy(corpus .. "npy/rank8.npy").shape))
    local packed = assert(gr.data.npz(corpus .. "npz/packed.npz"))
    assert.equal("[20×20]", tostring(packed.weight.shape))
    assert.same({ 0.0, 1.0, 2.0 }, packed.b:totable())
  end)

  it("that are damaged, or hold no numbers, give nil and what was found", function()
    local function header(dict, data)
      return "\x93NUMPY\1\0" .. ("<I2"):pack(#dict) .. dict .. (data or "")
    end
    for _, case in ipairs {
      { "", "header cut short: 0 bytes of 10" },
      { "PK\3\4 567890", "starts with 50 4b 03 04" },
      { "\x93NUMPY\9\0\0\0", "version 9.0" },
      { header "{'descr': '<f4'}", "without 'fortran_order'" },
      { header "{'descr': '<c8', 'fortran_order': False, 'shape': ()}", "elements of type '<c8'" },
      { header "{'descr': [('a', '<f4')], }", "records are not read" },
      { header "{'descr': '<f4', 'descr': '<f4'}", "a second or unknown 'descr'" },
      { header "{'shape': (2,, 3)}", "expected a size" },
      { header "{'shape': (1,1,1,1,1,1,1,1,1)}", "after 8 sizes" },
      { header "{'shape': (99999999999, 99999999999)}", "sizes that memory can address" },
      { header "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999,)}", "cut short: [99999999]" },
      { header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "1234567"), "data cut short: 7 bytes of 8" },
      { header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "12345"), "left over behind the 1 elements" },
      { header("{'descr': '<u8', 'fortran_order': False, 'shape': (1,)}", ("\255"):rep(8)), "too large for i64" },
    } do
      local path = temporary(case[1])
      local t, message = gr.data.npy(path)
      assert.is_nil(t)
      assert.truthy(message:find(path .. ": ", 1, true) == 1 and message:find(case[2], 1, true), message)
      os.remove(path)
    end
  end)

  it("cut short anywhere never come back wrong", function()
    for _, name in ipairs { "npy/f32.npy", "npz/two.npz", "npz/packed.npz" } do
      local f <close> = io.open(corpus .. name, "rb")
      local whole, read = f:read "a", gr.data[name:match "%a+"]
      for n = 0, #whole - 1 do
        local path = temporary(whole:sub(1, n))
        local t, message = read(path)
        if t then same_content(t, read(corpus .. name)) -- an archive without its last bytes, all members there
        else assert.truthy(message:find(path, 1, true) == 1, message) end
        os.remove(path)
      end
    end
  end)
end)
