-- Data sets as plain tables {x =, y =, classes =} and their batches in seeded order.
-- Images stay u8 until a batch is made; class targets count from 1.
local gr = require "gradrun.core"

local data = gr.data

data.FASHION_MNIST = "/usr/share/datasets/fashion-mnist"

local function read_pair(dir, images, labels)
  local x, y, message
  x, message = data.idx(dir .. "/" .. images)
  if not x then return nil, message end
  y, message = data.idx(dir .. "/" .. labels)
  if not y then return nil, message end
  if x.rank ~= 3 or y.rank ~= 1 or #x ~= #y then
    return nil, ("%s: images %s and labels %s do not belong together"):format(dir, tostring(x.shape), tostring(y.shape))
  end
  return { x = x:unsqueeze(2), y = y:to("i64"):add_(1) }
end

--- train, test = data.fashion_mnist(dir): 60,000 and 10,000 images u8[N×1×28×28], classes 1..10.
-- dir: GRADRUN_DATA or Debian's package `dataset-fashion-mnist` if nil. On failure: nil, message.
function data.fashion_mnist(dir)
  dir = dir or os.getenv("GRADRUN_DATA") or data.FASHION_MNIST
  local train, test, message
  train, message = read_pair(dir, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
  if train then test, message = read_pair(dir, "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz") end
  if not test then
    return nil, message .. "\n(Fashion-MNIST comes with the Debian package dataset-fashion-mnist; " ..
      "another folder: GRADRUN_DATA or an argument)"
  end
  local classes = { "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot" }
  train.classes, test.classes, train.scale, test.scale = classes, classes, 1 / 255, 1 / 255
  return train, test
end

--- train, test = data.digits(path): 1,797 images f32[N×1×8×8] in 0..1, classes 1..10; every fifth row is the test.
function data.digits(path)
  local t, message = data.csv(path)
  if not t then return nil, message end
  if t.rank ~= 2 or t.shape[2] ~= 65 then
    return nil, ("%s: rows of 64 pixels and a label are expected, found %s"):format(path, tostring(t.shape))
  end
  local parts = { train = {}, test = {} }
  for i = 1, #t do table.insert(i % 5 == 0 and parts.test or parts.train, i) end
  local function pick(rows)
    local part = t:index_select(1, gr.tensor(rows, "i64"))
    return {
      x = part:narrow(2, 1, 64):reshape(#rows, 1, 8, 8):mul(1 / 16),
      y = part:select(2, 65):to("i64"):add_(1),
    }
  end
  return pick(parts.train), pick(parts.test)
end

--- for x, y, step, steps in data.batches(set, {batch_size =, shuffle =, drop_last =}) do … end
-- x is floating; u8 images are scaled by set.scale. The order comes from the context's generator.
function data.batches(set, options)
  options = options or {}
  for k in pairs(options) do
    if k ~= "batch_size" and k ~= "shuffle" and k ~= "drop_last" then
      error(("batches: unknown option '%s' (known: batch_size shuffle drop_last)"):format(tostring(k)), 2)
    end
  end
  local size, n = options.batch_size or 64, #set.x
  local order = options.shuffle and gr.permutation(n) or nil
  local steps = options.drop_last and n // size or (n + size - 1) // size
  local step = 0
  return function()
    if step == steps then return nil end
    local from = step * size + 1
    local count = math.min(size, n - from + 1)
    step = step + 1
    local x, y
    if order then
      local rows = order:narrow(1, from, count)
      x, y = set.x:index_select(1, rows), set.y:index_select(1, rows)
    else
      x, y = set.x:narrow(1, from, count), set.y:narrow(1, from, count)
    end
    if x.dtype == "u8" then x = x:to(gr.default_dtype()):mul_(set.scale or 1) end
    return x, y, step, steps
  end
end

return data
