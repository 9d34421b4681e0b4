-- Everyday work on shapes that is made of ops there are: parts in lists, repetition, names users know.
-- All are functions of gr and methods of tensors: gr.split(x, 2) is x:split(2). Parts are views, and count from 1.
local gr = require "gradrun.core"

local views = {} -- by name; the first argument is a tensor

local function fail(who, text, ...) error(who .. ": " .. text:format(...), 3) end

local function whole(v) return math.type(v) == "integer" or math.type(v) == "float" and math.tointeger(v) ~= nil end

-- A dimension of t counted from 1: a number, {dim = 2}, or the first.
local function dimension(who, t, dim)
  if type(dim) == "table" then
    local key = next(dim)
    if key ~= nil and (key ~= "dim" or next(dim, key) ~= nil) then
      error(("%s: unknown option '%s' (known: dim)"):format(who, tostring(key ~= "dim" and key or next(dim, key))), 3)
    end
    dim = dim.dim
  end
  dim = dim == nil and 1 or dim
  if not whole(dim) then error(("%s: dim is %s, expected a whole number"):format(who, tostring(dim)), 3) end
  if dim == 0 then error(who .. ": dim is 0, but dimensions and positions count from 1 (or from the end: -1)", 3) end
  local d = dim < 0 and dim + t.rank + 1 or dim
  if d < 1 or d > t.rank then
    error(("%s: dimension %d: the tensor has %d dimension%s"):format(who, dim, t.rank, t.rank == 1 and "" or "s"), 3)
  end
  return math.tointeger(d)
end

-- ---- parts, in lists ----------------------------------------------------------------------------------------

--- x:split(size, dim): parts of that size, the last one perhaps smaller. x:split({2, 3}, dim): parts of those sizes.
function views.split(x, sizes, dim)
  local d = dimension("split", x, dim)
  local n, list, at = x.shape[d], {}, 1
  if type(sizes) ~= "table" then
    if not whole(sizes) or sizes < 1 then
      fail("split", "the size is %s, expected at least 1, or a list", tostring(sizes))
    end
    while at <= n do
      list[#list + 1] = x:narrow(d, at, math.min(sizes, n - at + 1))
      at = at + sizes
    end
    if n == 0 then list[1] = x:narrow(d, 1, 0) end
    return list
  end
  local sum = 0
  for i, size in ipairs(sizes) do
    if not whole(size) or size < 0 then fail("split", "size %d is %s, expected a whole number", i, tostring(size)) end
    sum = sum + size
  end
  if sum ~= n then
    fail("split", "sizes of {%s} add up to %d, but dimension %d has %d positions", table.concat(sizes, ", "), sum, d, n)
  end
  for i, size in ipairs(sizes) do
    list[i] = size > 0 and x:narrow(d, at, size) or x:narrow(d, 1, 0)
    at = at + size
  end
  return list
end

--- x:chunk(n, dim): n parts of equal size, the last one perhaps smaller; fewer where x has fewer positions.
function views.chunk(x, n, dim)
  local d = dimension("chunk", x, dim)
  if not whole(n) or n < 1 then fail("chunk", "the number of parts is %s, expected at least 1", tostring(n)) end
  return views.split(x, math.max(1, (x.shape[d] + n - 1) // n), d)
end

--- x:unbind(dim): what is at each position of dim, without that dimension.
function views.unbind(x, dim)
  local d, list = dimension("unbind", x, dim), {}
  for i = 1, x.shape[d] do list[i] = x:select(d, i) end
  return list
end

-- ---- repetition ---------------------------------------------------------------------------------------------

-- Position i of dimension d, n times: in a row, or (around) the whole dimension n times over. One copy.
local function repeated(x, d, n, around)
  local wide, joined = {}, {}
  for k, size in ipairs(x.shape) do
    joined[k] = k == d and size * n or size
    wide[k > d and k + 1 or k] = size
  end
  wide[d], wide[d + 1] = around and n or x.shape[d], around and x.shape[d] or n
  return x:unsqueeze(around and d or d + 1):expand(wide):reshape(joined)
end

--- x:tile(2, 3): x that many times over along its last dimensions; what Torch7 calls repeatTensor.
function views.tile(x, ...)
  local times = type((...)) == "table" and (...) or { ... }
  for i, n in ipairs(times) do
    if not whole(n) or n < 0 then fail("tile", "number %d is %s, expected at least 0", i, tostring(n)) end
  end
  local y = x
  while y.rank < #times do y = y:unsqueeze(1) end
  for i = #times, 1, -1 do -- from the last on: what is copied twice is small
    if times[i] ~= 1 then y = repeated(y, y.rank - #times + i, times[i], true) end
  end
  return y == x and x:clone() or y
end

--- x:repeat_interleave(n, dim): every position of dim n times in a row.
function views.repeat_interleave(x, n, dim)
  local d = dimension("repeat_interleave", x, dim)
  if not whole(n) or n < 0 then fail("repeat_interleave", "the number is %s, expected at least 0", tostring(n)) end
  return repeated(x, d, n, false)
end

-- ---- dimensions ---------------------------------------------------------------------------------------------

-- The dimensions in v, a number or a list, and the set of them.
local function dimensions(x, v)
  local list, set = {}, {}
  for i, dim in ipairs(type(v) == "table" and v or { v }) do
    local d = whole(dim) and (dim < 0 and dim + x.rank + 1 or dim) or 0
    if d < 1 or d > x.rank then
      error(("movedim: dimension %s: the tensor has %d dimensions, counted from 1"):format(tostring(dim), x.rank), 3)
    end
    if set[d] then error(("movedim: dimension %d is given twice"):format(d), 3) end
    list[i], set[d] = d, true
  end
  return list, set
end

--- x:movedim(from, to): dimension from (or a list of them) comes to be number to; the others keep their order.
function views.movedim(x, from, to)
  local sources, moved = dimensions(x, from)
  local targets = dimensions(x, to)
  if #sources ~= #targets then fail("movedim", "%d dimensions to %d places", #sources, #targets) end
  local order, at = {}, 0
  for i, d in ipairs(sources) do order[targets[i]] = d end
  for k = 1, x.rank do
    if not order[k] then
      repeat at = at + 1 until not moved[at]
      order[k] = at
    end
  end
  return x:permute(order)
end

--- x:t(): the transpose of a matrix.
function views.t(x)
  if x.rank > 2 then fail("t", "%d dimensions, a matrix is expected; see transpose and permute", x.rank) end
  return x.rank < 2 and x:view(x.shape) or x:transpose()
end

function views.view_as(x, other) return x:view(other.shape) end
function views.reshape_as(x, other) return x:reshape(other.shape) end
function views.expand_as(x, other) return x:expand(other.shape) end

-- ---- vectors and matrices -----------------------------------------------------------------------------------

--- x:diag(offset): a vector as a matrix with it on the diagonal; of a matrix, the diagonal.
function views.diag(x, offset)
  if x.rank == 1 then return x:diag_embed { offset = offset or 0 } end
  if x.rank ~= 2 then fail("diag", "%d dimensions, a vector or a matrix is expected; see diagonal", x.rank) end
  return x:diagonal { offset = offset or 0 }
end

--- x:trace(): the sum of a matrix's diagonal.
function views.trace(x)
  if x.rank ~= 2 then fail("trace", "%d dimensions, a matrix is expected", x.rank) end
  return x:diagonal():sum()
end

local function vectors(who, a, b)
  if not gr.is_tensor(b) then error(("%s: argument 2 is a %s, expected a tensor"):format(who, type(b)), 3) end
  if a.rank ~= 1 or b.rank ~= 1 then
    error(("%s: %d and %d dimensions, two vectors are expected"):format(who, a.rank, b.rank), 3)
  end
end

--- a:dot(b): the sum of the products of two vectors.
function views.dot(a, b)
  vectors("dot", a, b)
  return a:matmul(b)
end

--- a:outer(b): the matrix of all products of two vectors.
function views.outer(a, b)
  vectors("outer", a, b)
  return a:unsqueeze(2):mul(b)
end

-- ---- dtypes, and tensors like others ------------------------------------------------------------------------

for name, dtype in pairs { float = "f32", double = "f64", long = "i64", byte = "u8" } do
  views[name] = function(x) return x:to(dtype) end
end

local makers = { zeros_like = gr.zeros, ones_like = gr.ones, rand_like = gr.uniform, randn_like = gr.normal }

-- {dtype = x's, …} with what the script says instead.
local function like(x, options)
  if type(options) == "string" then return { dtype = options } end
  local o = { dtype = x.dtype }
  for k, v in pairs(options or {}) do o[k] = v end
  return o
end

for name, make in pairs(makers) do
  views[name] = function(x, options) return make(x.shape, like(x, options)) end
end

function views.full_like(x, value, options) return gr.full(x.shape, value, like(x, options)) end

-- ---- offered as functions and as methods --------------------------------------------------------------------

local methods = getmetatable(gr.zeros(1)).__names

local function offer(name, f) gr[name], methods[name] = f, f end

for name, f in pairs(views) do
  offer(name, function(x, ...)
    if not gr.is_tensor(x) then error(("%s: argument 1 is a %s, expected a tensor"):format(name, type(x)), 2) end
    return f(x, ...)
  end)
end
for _, name in ipairs { "mm", "bmm", "mv" } do offer(name, gr.matmul) end
