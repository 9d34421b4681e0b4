-- Data sets as plain tables {x =, y =, classes =} and their batches in seeded order.
-- Images stay u8 until a batch is made; class targets count from 1.
local gr = require "gradrun.core"
local check = require "gradrun.check"

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
  if dir ~= nil and type(dir) ~= "string" then
    error(("fashion_mnist: the folder is %s, expected a path"):format(gr.shown(dir)), 2)
  end
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
  if type(path) ~= "string" then error(("digits: the file is %s, expected a path"):format(gr.shown(path)), 2) end
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

-- ---- batches ------------------------------------------------------------------------------------------------

local loader = {}
loader.__index = loader

local function is_boolean(v) return type(v) == "boolean" end

local OPTIONS = {
  batch_size = { function(v) return type(v) == "number" and (math.tointeger(v) or 0) >= 1 end,
                 "a whole number above 0" },
  shuffle = { is_boolean, "true or false" }, drop_last = { is_boolean, "true or false" },
  seed = { function(v) return math.type(v) == "integer" end, "a whole number" },
  transform = { check.callable, "a function(x, y)" },
}

local function check_set(set)
  local found
  if type(set) ~= "table" then
    found = gr.shown(set)
  else
    for _, k in ipairs { "x", "y" } do
      if not found and not gr.is_tensor(set[k]) then found = ("%s is %s"):format(k, gr.shown(set[k])) end
      if not found and set[k].rank == 0 then found = k .. " is a number without rows" end
    end
  end
  if found then error("loader: a set is a table with tensors x and y, a sample a row; here " .. found, 3) end
  if #set.x ~= #set.y then error(("loader: x has %d rows, y has %d"):format(#set.x, #set.y), 3) end
end

local function check_options(options)
  if type(options) ~= "table" then
    error(("loader: %s where a table of options is expected"):format(gr.shown(options)), 3)
  end
  for k, v in pairs(options) do
    local wanted = OPTIONS[k]
    if not wanted then
      error(gr.unknown("loader", "option", tostring(k), "batch_size drop_last seed shuffle transform"), 3)
    elseif not wanted[1](v) then
      error(("loader: %s is %s, expected %s"):format(k, gr.shown(v), wanted[2]), 3)
    end
  end
end

--- loader = data.loader(set, { batch_size = 64, shuffle = false, drop_last = false, seed =, transform = })
-- The batches of a set in an order that its seed and the epoch fix, so that the place reached can be saved.
-- seed: drawn from gradrun's generator unless given. transform(x, y) → x, y is applied to every batch.
function data.loader(set, options)
  check_set(set)
  options = options or {}
  check_options(options)
  local self = { set = set, batch_size = math.tointeger(options.batch_size or 64), shuffle = options.shuffle or false,
                 drop_last = options.drop_last or false, transform = options.transform, epoch = 1, step = 0 }
  self.seed = options.seed or self.shuffle and gr.rand(1, { dtype = "f64" }):mul(2 ^ 53):to("i64"):item() or 0
  return setmetatable(self, loader)
end

--- #loader: the batches of an epoch.
function loader:__len()
  local n = #self.set.x
  return self.drop_last and n // self.batch_size or (n + self.batch_size - 1) // self.batch_size
end

function loader:__tostring()
  return ("loader: %d samples, %d batches of %d%s; epoch %d, step %d"):format(#self.set.x, #self, self.batch_size,
    self.shuffle and ", shuffled" or "", self.epoch, self.step)
end

local function batch(self, order, step)
  local set = self.set
  local from = (step - 1) * self.batch_size + 1
  local count = math.min(self.batch_size, #set.x - from + 1)
  local x, y
  if order then
    local rows = order:narrow(1, from, count)
    x, y = set.x:index_select(1, rows), set.y:index_select(1, rows)
  else
    x, y = set.x:narrow(1, from, count), set.y:narrow(1, from, count)
  end
  if x.dtype == "u8" then x = x:to(gr.default_dtype()):mul_(set.scale or 1) end
  if self.transform then
    x, y = self.transform(x, y)
    if x == nil or y == nil then error("loader: transform(x, y) gave no x and y back", 0) end
  end
  return x, y
end

--- for x, y, step, steps in loader:batches() do … end: what is left of the epoch under way; after its last batch the
-- next epoch begins. x is floating: u8 images are scaled by set.scale.
function loader:batches()
  local steps = #self
  local order = self.shuffle and gr.permutation(#self.set.x, { seed = self.seed, counter = self.epoch }) or nil
  return function()
    if self.step >= steps then
      self.epoch, self.step = self.epoch + 1, 0
      return nil
    end
    local x, y = batch(self, order, self.step + 1)
    self.step = self.step + 1
    return x, y, self.step, steps
  end
end

--- Where it is: the next batch is that of step + 1 in this epoch.
function loader:state_dict()
  return { epoch = self.epoch, step = self.step, seed = self.seed, samples = #self.set.x,
           batch_size = self.batch_size, shuffle = self.shuffle, drop_last = self.drop_last }
end

--- Goes to a place that state_dict gave; raises if the batches here are not the same.
function loader:load_state_dict(state)
  if type(state) ~= "table" then error(("loader: a state is a table; this is %s"):format(gr.shown(state)), 2) end
  local here = self:state_dict()
  for _, k in ipairs { "samples", "batch_size", "shuffle", "drop_last" } do
    if state[k] ~= here[k] then
      error(("loader: it was saved with %s = %s; here it is %s"):format(k, gr.shown(state[k]), tostring(here[k])), 2)
    end
  end
  for k, least in pairs { epoch = 1, step = 0, seed = math.mininteger } do
    if math.type(state[k]) ~= "integer" or state[k] < least or k == "step" and state[k] > #self then
      error(("loader: its state has %s = %s"):format(k, gr.shown(state[k])), 2)
    end
  end
  self.epoch, self.step, self.seed = state.epoch, state.step, state.seed
end

return data
