-- The cases of an op's descriptor as tensors and calls.
--
-- in:    one word per input: sizes "3,4", "()" a scalar, "-" an absent input. A dtype and the range of whole
--        numbers it is drawn from may come first: "u8:3" (0 or 1), "i64(1..5):3,4". Else the dtype under test.
-- attrs: the trailing option table as a script writes it. give, want: Lua table constructors.
local gr = require "gradrun"

local M = {}

-- ---- random numbers: the same in every run ------------------------------------------------------------------

local Random = {}
Random.__index = Random

-- One generator per text, so that adding a case does not move the others.
function M.random(text)
  local h = 1469598103934665603
  for i = 1, #text do h = (h ~ text:byte(i)) * 1099511628211 end
  return setmetatable({ state = h }, Random)
end

-- splitmix64; a number in [0, 1)
function Random:unit()
  self.state = self.state + 0x9E3779B97F4A7C15
  local z = self.state
  z = (z ~ z >> 30) * 0xBF58476D1CE4E5B9
  z = (z ~ z >> 27) * 0x94D049BB133111EB
  return ((z ~ z >> 31) >> 11) * 0x1p-53
end

function Random:int(lo, hi) return lo + math.floor(self:unit() * (hi - lo + 1)) end

-- ---- shapes and values --------------------------------------------------------------------------------------

function M.numel(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- {v1, v2, ...} as a tensor. Values go through a flat table: a nested one cannot say (0,3).
function M.tensor(flat, shape, dtype)
  if #shape == 0 then return gr.tensor(flat[1], { dtype = dtype }) end
  if #flat == 0 then return gr.zeros(shape, { dtype = dtype }) end
  return gr.tensor(flat, { dtype = dtype }):view(shape)
end

-- The elements in row-major order.
function M.flat(t)
  if t:numel() == 0 then return {} end
  return t:detach():reshape({ -1 }):totable()
end

function M.shape_text(shape) return "[" .. table.concat(shape, ",") .. "]" end

function M.same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do if a[i] ~= b[i] then return false end end
  return true
end

-- The coordinates of element `at` (from 1) of a tensor of that shape, for messages.
function M.position(shape, at)
  local where, rest = {}, at - 1
  for d = #shape, 1, -1 do
    where[d] = rest % shape[d] + 1
    rest = rest // shape[d]
  end
  return "(" .. table.concat(where, ",") .. ")"
end

-- {dtype = nil or "u8", lo =, hi =, shape = {…}} for each input; false for an absent one.
function M.parse(text)
  local inputs = {}
  for word in text:gmatch("%S+") do
    local input = false
    if word ~= "-" then
      local dtype, range, sizes = word:match("^([fiu]%d+)(%b())%:(.*)$")
      if not dtype then dtype, sizes = word:match("^([fiu]%d+)%:(.*)$") end
      input = { dtype = dtype, shape = {} }
      if range then
        local lo, hi = range:match("^%((%-?%d+)%.%.(%-?%d+)%)$")
        input.lo, input.hi = assert(tonumber(lo), text), assert(tonumber(hi), text)
      end
      for size in (sizes or word):gmatch("%-?%d+") do input.shape[#input.shape + 1] = math.tointeger(size) end
    end
    inputs[#inputs + 1] = input
  end
  return inputs
end

local function draw(case, input, dtype, random)
  local flat = {}
  for i = 1, M.numel(input.shape) do
    if input.dtype and not input.dtype:find("^f") then
      flat[i] = random:int(input.lo or 0, input.hi or 1)
    else
      local x
      repeat x = case.lo + (case.hi - case.lo) * random:unit() until not case.kink or math.abs(x - case.kink) > 0.05
      flat[i] = x
    end
  end
  return M.tensor(flat, input.shape, input.dtype or dtype)
end

-- Random tensors for the case; an absent input is false. shapes: instead of the case's own.
function M.inputs(case, dtype, random, shapes)
  local list = {}
  for i, input in ipairs(shapes or M.parse(case["in"])) do
    if input and input.dtype == "i64" and not input.lo and M.numel(input.shape) > 0 and not case.give then
      error("case '" .. case["in"] .. "': i64 needs a range, as i64(1..5):3")
    end
    list[i] = input and draw(case, input, dtype, random)
  end
  return list
end

-- A nested table as a tensor; a number is a scalar.
local function literal(value, dtype)
  if type(value) == "table" and #value == 0 then return gr.zeros({ 0 }, { dtype = dtype }) end
  return gr.tensor(value, { dtype = dtype })
end
M.literal = literal

-- The hand values as tensors, in the places of the inputs that are there.
function M.given(case, dtype)
  local values, list = table.pack(assert(load("return " .. (case.give or "")))()), {}
  local at = 0
  for i, input in ipairs(M.parse(case["in"])) do
    if input then at = at + 1 end
    list[i] = input and literal(values[at], input.dtype or dtype)
  end
  assert(at == values.n, "give has another number of values than there are inputs: " .. (case.give or ""))
  return list
end

function M.wanted(case) return table.pack(assert(load("return " .. case.want))()) end

-- The inputs to test with: hand values where they are given, else random ones.
function M.sample(op, case, dtype, index)
  if case.give then return M.given(case, dtype) end
  return M.inputs(case, dtype, M.random(op.name .. index))
end

function M.attrs(case) return case.attrs and assert(load("return {" .. case.attrs .. "}"))() or nil end

-- ---- calling ------------------------------------------------------------------------------------------------

-- Names of the tensors among an op's inputs ("dim:" is an attribute given between them).
function M.input_names(op)
  local names = {}
  for word in op.inputs:gmatch("%S+") do
    if word:sub(-1) ~= ":" then names[#names + 1] = word end
  end
  return names
end

function M.takes_list(op) return op.inputs:find("*", 1, true) ~= nil end

function M.draws(op)
  for _, a in ipairs(op.attrs) do if a.name == "counter" then return true end end
  return false
end

-- Its results as a list.
function M.call(op, inputs, attrs)
  local f = (op.hidden and gr.hidden or gr)[op.name]
  if M.takes_list(op) then return { f(inputs, attrs) } end
  local args, n = {}, #inputs
  for i = 1, n do args[i] = inputs[i] or nil end
  if attrs then
    n = n + 1
    args[n] = attrs
  end
  return { f(table.unpack(args, 1, n)) }
end

function M.is_float(t) return t.dtype == "f32" or t.dtype == "f64" end

-- Positions of the floating tensors in a list.
function M.floats(list)
  local at = {}
  for i = 1, #list do
    if list[i] and M.is_float(list[i]) then at[#at + 1] = i end
  end
  return at
end

function M.title(op, index)
  local case = op.cases[index]
  return ("%s, case %d (%s%s)"):format(op.name, index, case["in"], case.attrs and "; " .. case.attrs or "")
end

-- ---- comparing ----------------------------------------------------------------------------------------------

local function largest(flat)
  local m = 0
  for i = 1, #flat do
    local a = math.abs(flat[i])
    if a > m and a < math.huge then m = a end
  end
  return m
end

-- Nil if |got - want| <= tol * max(|want|, floor * largest |want|) throughout, else a message. NaN is NaN's equal.
function M.difference(got, want, tol, floor)
  if not M.same_shape(got.shape, want.shape) then
    return ("shape %s, expected %s"):format(M.shape_text(got.shape), M.shape_text(want.shape))
  end
  local g, w = M.flat(got), M.flat(want)
  local least = largest(w) * (floor or 1)
  for i = 1, #w do
    local same = g[i] == w[i] or (g[i] ~= g[i] and w[i] ~= w[i])
    if not same and not (math.abs(g[i] - w[i]) <= tol * math.max(math.abs(w[i]), least)) then
      return ("element %s is %.17g, expected %.17g"):format(M.position(want.shape, i), g[i], w[i])
    end
  end
end

-- Nil if the elements are equal throughout (NaN is NaN's equal), else how many differ. Fast on large tensors.
function M.unequal(a, b)
  if a.dtype ~= b.dtype then return ("dtype %s, expected %s"):format(a.dtype, b.dtype) end
  if not M.same_shape(a.shape, b.shape) then
    return ("shape %s, expected %s"):format(M.shape_text(a.shape), M.shape_text(b.shape))
  end
  if a:numel() == 0 then return nil end
  a, b = a:detach(), b:detach()
  local n = a:ne(b):sum():item()
  if n > 0 and M.is_float(a) then n = n - gr.mul(a:ne(a), b:ne(b)):sum():item() end
  if n > 0 then return ("%d of %d elements differ"):format(n, a:numel()) end
end

return M
