-- gr.nn.init: how parameters begin. Each function fills a tensor in place, without recording, from the context's
-- generator, and returns it; names, formulas and defaults are PyTorch's. Options come in the order written here, by
-- name from one trailing table, or both: init.kaiming_normal_(w, { mode = "fan_out", nonlinearity = "relu" }).
--
-- fan_in and fan_out of a weight [out, in, kernel…] are in and out times the kernel's size.
local gr = require "gradrun.core"

local init = {}

-- ---- arguments ----------------------------------------------------------------------------------------------

local function fail(name, text, ...) error(name .. ": " .. text:format(...), 0) end

local function shown(v)
  if v == nil then return "missing" end
  return type(v) == "string" and "'" .. v .. "'" or tonumber(v) and tostring(v) or "a " .. type(v)
end

-- The values of the options of `fields`, {name, default} or {name, type = } in order, from positional ones and a
-- trailing table.
local function options(name, fields, ...)
  local given, values, names, known = table.pack(...), {}, {}, {}
  local named = {}
  if type(given[given.n]) == "table" then
    named = given[given.n]
    given.n = given.n - 1
  end
  if given.n > #fields then fail(name, "argument %d is one too many", #fields + 2) end
  for i, field in ipairs(fields) do
    local v
    if i <= given.n then v = given[i] end
    if v == nil then v = named[field[1]] end
    if v == nil then v = field[2] end
    local want = field.type or type(field[2])
    if type(v) ~= want then fail(name, "%s is %s, expected a %s", field[1], shown(v), want) end
    values[i], names[i], known[field[1]] = v, field[1], true
  end
  for key in pairs(named) do
    if not known[key] then error(gr.unknown(name, "option", tostring(key), table.concat(names, " ")), 0) end
  end
  return table.unpack(values, 1, #fields)
end

-- A function of the module: f(t, options…) without recording, its temporaries freed; errors have the caller's place.
local function define(name, fields, f)
  local function run(t, ...)
    if not gr.is_tensor(t) then fail(name, "argument 1 is %s, expected a tensor", shown(t)) end
    local values = { options(name, fields, ...) }
    gr.no_grad(gr.scope, f, t, table.unpack(values, 1, #fields))
  end
  init[name] = function(t, ...)
    local ok, message = pcall(run, t, ...)
    if not ok then
      if type(message) == "string" then message = message:gsub("^[^\n]*initialisers%.lua:%d+: ", "") end
      error(message, type(message) == "string" and 2 or 0)
    end
    return t
  end
end

local function text(t) return ("%s[%s]"):format(t.dtype, table.concat(t.shape, ",")) end

-- fan_in, fan_out
local function fans(name, t)
  if t.rank < 2 then fail(name, "%s has no fan_in and fan_out: at least 2 dimensions are expected", text(t)) end
  local out, kernel = t.shape[1], 1
  for d = 3, t.rank do kernel = kernel * t.shape[d] end
  return t.shape[2] * kernel, out * kernel
end

-- ---- gain ---------------------------------------------------------------------------------------------------

local GAINS = { linear = 1, conv1d = 1, conv2d = 1, conv3d = 1, conv_transpose1d = 1, conv_transpose2d = 1,
                conv_transpose3d = 1, sigmoid = 1, tanh = 5 / 3, relu = math.sqrt(2), selu = 3 / 4 }
local NONLINEARITIES = "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d sigmoid tanh "
  .. "relu leaky_relu selu"

local function gain_of(name, nonlinearity, param)
  if nonlinearity == "leaky_relu" then
    if param == nil then param = 0.01 end
    if type(param) ~= "number" then fail(name, "param is %s, expected a number: the negative slope", shown(param)) end
    return math.sqrt(2 / (1 + param ^ 2))
  end
  if GAINS[nonlinearity] then return GAINS[nonlinearity] end
  error(gr.unknown(name, "nonlinearity", tostring(nonlinearity), NONLINEARITIES), 0)
end

--- calculate_gain(nonlinearity, param): by what its inputs' standard deviation must be multiplied for its outputs'
-- to be 1; param is the negative slope of leaky_relu, 0.01 if none is given.
function init.calculate_gain(nonlinearity, param)
  local ok, gain = pcall(gain_of, "calculate_gain", nonlinearity, param)
  if not ok then error(gain, 2) end
  return gain
end

-- ---- values and draws ---------------------------------------------------------------------------------------

--- uniform_(t, a = 0, b = 1)
define("uniform_", { { "a", 0 }, { "b", 1 } }, function(t, a, b) t:uniform_(a, b) end)

--- normal_(t, mean = 0, std = 1)
define("normal_", { { "mean", 0 }, { "std", 1 } }, function(t, mean, std) t:normal_(mean, std) end)

--- trunc_normal_(t, mean = 0, std = 1, a = -2, b = 2): between the values a and b, whatever the mean.
define("trunc_normal_", { { "mean", 0 }, { "std", 1 }, { "a", -2 }, { "b", 2 } }, function(t, mean, std, a, b)
  t:trunc_normal_(mean, std, a, b)
end)

--- constant_(t, value)
define("constant_", { { "value", type = "number" } }, function(t, value) t:fill_(value) end)
define("zeros_", {}, function(t) t:fill_(0) end)
define("ones_", {}, function(t) t:fill_(1) end)

--- xavier_uniform_(t, gain = 1): variance 2 gain² / (fan_in + fan_out).
-- Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
define("xavier_uniform_", { { "gain", 1 } }, function(t, gain)
  local fan_in, fan_out = fans("xavier_uniform_", t)
  if t:numel() == 0 then return end
  local bound = gain * math.sqrt(6 / (fan_in + fan_out))
  t:uniform_(-bound, bound)
end)

--- xavier_normal_(t, gain = 1)
define("xavier_normal_", { { "gain", 1 } }, function(t, gain)
  local fan_in, fan_out = fans("xavier_normal_", t)
  if t:numel() > 0 then t:normal_(0, gain * math.sqrt(2 / (fan_in + fan_out))) end
end)

-- He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers": variance gain² / fan.
local KAIMING = { { "a", 0 }, { "mode", "fan_in" }, { "nonlinearity", "leaky_relu" } }

local function kaiming_std(name, t, a, mode, nonlinearity)
  local fan_in, fan_out = fans(name, t)
  if mode ~= "fan_in" and mode ~= "fan_out" then error(gr.unknown(name, "mode", mode, "fan_in fan_out"), 0) end
  return gain_of(name, nonlinearity, a) / math.sqrt(mode == "fan_in" and fan_in or fan_out)
end

--- kaiming_uniform_(t, a = 0, mode = "fan_in", nonlinearity = "leaky_relu"): a is leaky_relu's negative slope.
define("kaiming_uniform_", KAIMING, function(t, ...)
  local bound = math.sqrt(3) * kaiming_std("kaiming_uniform_", t, ...)
  if t:numel() > 0 then t:uniform_(-bound, bound) end
end)

--- kaiming_normal_(t, a = 0, mode = "fan_in", nonlinearity = "leaky_relu")
define("kaiming_normal_", KAIMING, function(t, ...)
  local std = kaiming_std("kaiming_normal_", t, ...)
  if t:numel() > 0 then t:normal_(0, std) end
end)

-- ---- structure ----------------------------------------------------------------------------------------------

--- eye_(t): 1 where row and column are the same, else 0.
define("eye_", {}, function(t)
  if t.rank ~= 2 then fail("eye_", "%s: a tensor of 2 dimensions is expected", text(t)) end
  t:fill_(0)
  for i = 1, math.min(t.shape[1], t.shape[2]) do t[{ i, i }] = 1 end
end)

--- dirac_(t, groups = 1): a convolution that passes its input channels on, as many as there are outputs for.
define("dirac_", { { "groups", 1 } }, function(t, groups)
  if t.rank < 3 or t.rank > 5 then
    fail("dirac_", "%s: the weight of a convolution is expected, of 3, 4 or 5 dimensions", text(t))
  end
  if groups < 1 or groups % 1 ~= 0 or t.shape[1] % groups ~= 0 then
    fail("dirac_", "%d output channels cannot be shared by %s groups", t.shape[1], tostring(groups))
  end
  local share, at = math.tointeger(t.shape[1] // groups), {}
  for d = 3, t.rank do at[d] = t.shape[d] // 2 + 1 end
  t:fill_(0)
  if t:numel() == 0 then return end
  for group = 0, groups - 1 do
    for channel = 1, math.min(share, t.shape[2]) do
      at[1], at[2] = group * share + channel, channel
      t[at] = 1
    end
  end
end)

local BLOCK = 32

-- The rows of v made orthonormal in place, by Gram and Schmidt: block by block against all before it (products of
-- matrices), row by row within a block, and all twice, after which nothing but rounding is left.
-- Giraud, Langou & Rozložník 2005, "The loss of orthogonality in the Gram-Schmidt orthogonalization process".
local function orthonormalise(v)
  local count = v.shape[1]
  for first = 1, count, BLOCK do
    local block = v:narrow(1, first, math.min(BLOCK, count - first + 1))
    local before = first > 1 and v:narrow(1, 1, first - 1)
    for _ = 1, 2 do
      if before then block:sub_(block:matmul(before:transpose(1, 2)):matmul(before)) end
      for i = 1, #block do
        local row = block:narrow(1, i, 1)
        if i > 1 then
          local above = block:narrow(1, 1, i - 1)
          row:sub_(row:matmul(above:transpose(1, 2)):matmul(above))
        end
        row:div_(row:norm())
      end
    end
  end
end

--- orthogonal_(t, gain = 1): t as a matrix of its first dimension by all others has orthogonal rows or columns,
-- whichever are fewer, of length gain; uniform among all such, as the Gaussian matrix it is made from prefers no
-- direction. Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
-- neural networks".
define("orthogonal_", { { "gain", 1 } }, function(t, gain)
  if t.rank < 2 or not t.dtype:find "^f" then
    fail("orthogonal_", "%s: floating numbers in at least 2 dimensions are expected", text(t))
  end
  if t:numel() == 0 then return end
  local rows = t.shape[1]
  local columns = t:numel() // rows
  local v = gr.normal({ math.min(rows, columns), math.max(rows, columns) }, { dtype = "f64" })
  orthonormalise(v)
  if gain ~= 1 then v:mul_(gain) end
  t:copy_((rows <= columns and v or v:transpose(1, 2)):reshape(t.shape))
end)

return init
