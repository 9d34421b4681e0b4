-- Calls of everything gradrun has, with arguments of every kind, in any order:
--
--   gradrun spec/support/random_calls.lua CALLS [SEED]
--
-- Functions, methods, operators, indexing, on tensors, layers, optimizers and hooks, living and closed, views and
-- leaves, in and out of functions that gradrun calls. Any call may fail, with a message; none may crash, leak, or
-- leave the context unusable. Half the calls start from an op's own cases, and most then get one argument wrong.
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"

local CALLS, SEED = tonumber(arg[1] or 2000), arg[2] or "1"
local random = cases.random("calls" .. SEED)
local function pick(list) return list[random:int(1, #list)] end
local function chance(p) return random:unit() < p end

gr.memory_limit(64 * 2 ^ 20 // 1)
gr.hook.hook(print):remove() -- the context's own list of hooks stays
collectgarbage()
local before = gr.memory()

-- ---- what may be called -------------------------------------------------------------------------------------

-- Not called at random: what writes files, runs for as long as it is told, or starts threads without end.
local APART = { ["gr.save"] = true, ["gr.make_directory"] = true, ["gr.fit"] = true, ["gr.threads"] = true,
                ["gr.memory_limit"] = true, ["gr.detect_anomaly"] = true, ["gr.data.write_npy"] = true,
                ["gr.data.write_npz"] = true, ["gr.data.write_csv"] = true, ["gr.safetensors.write"] = true }

local functions, names, seen = {}, {}, {}
local function collect(path, t)
  if seen[t] then return end
  seen[t] = true
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = tostring(k) end
  table.sort(keys)
  for _, k in ipairs(keys) do
    local v, name = t[k], path .. "." .. k
    local called = type(v) == "function" or type(v) == "table" and getmetatable(v) and getmetatable(v).__call
    if called and not APART[name] and not name:find "^gr%.hook%." then
      functions[#functions + 1], names[v] = v, name
    elseif type(v) == "table" and name ~= "gr.hook" then
      collect(name, v)
    end
  end
end
collect("gr", gr)
assert(#functions > 200)

local described = gr.describe()

-- ---- what they are called with --------------------------------------------------------------------------------

local POOL = 80
local pool, value = {}, nil
local DTYPES = { "f32", "f32", "f32", "f64", "i64", "u8" }
local NUMBERS = { 0, 1, 2, 3, -1, -2, 0.5, 1e-3, 7, 100, 1e9, -1e9, 2 ^ 53, 1e300, -1e300, 1 / 0, -1 / 0, 0 / 0,
                  math.maxinteger, math.mininteger, 255, 256, 2 ^ 31, 1 << 40 }
local WORDS = { "", "f32", "f64", "i64", "u8", "mean", "sum", "none", "tanh", "weight", "lr", "x", "no such file", "\0\255",
                ("long "):rep(50), "1", "fan_in", "relu", "bicubic", "name", "0.weight", "1" }

local function shape(odd)
  local s = {}
  for d = 1, random:int(0, 4) do s[d] = chance(odd) and pick(NUMBERS) or random:int(0, 5) end
  return s
end

local function tensor()
  local t = gr.rand(shape(0), { dtype = pick { "f32", "f64" } })
  local dtype = pick(DTYPES)
  if dtype ~= t.dtype then t = t:mul(4):to(dtype) end
  if chance(0.4) and cases.is_float(t) then t:requires_grad_(true) end
  return t
end

local function object() return pool[random:int(1, POOL)] end

local function keep(v)
  if gr.is_tensor(v) and pcall(v.numel, v) and v:numel() > 4096 then return end
  pool[random:int(1, POOL)] = v
end

local function list(make)
  local l = {}
  for i = 1, random:int(0, 4) do l[i] = make() end
  return l
end

-- Options of one of the descriptors, or none that exists.
local function options()
  local o, of = {}, pick(pick { described.ops, described.layers, described.optims, described.clips })
  for _, a in ipairs(of.attrs) do
    if chance(0.5) then o[a.name] = chance(0.7) and a.default ~= nil and a.default or value(2) end
  end
  if chance(0.1) then o[pick(WORDS)] = value(2) end
  return o
end

-- What gradrun may call back: it uses what is in reach, and may fail, close, remove, or go deeper.
local depth, act = 0, nil
local function callback()
  return function(...)
    if depth > 2 then return ... end
    depth = depth + 1
    local ok, message = pcall(function() for _ = 1, random:int(0, 3) do act() end end)
    depth = depth - 1
    if not ok then error(message, 0) end
    local how = random:int(1, 6)
    if how == 1 then error(pick { "refused", {}, 7 }) end
    if how == 2 then return value(2) end
    if how == 3 then return nil end
    return ...
  end
end

function value(level)
  local r = random:unit()
  if r < 0.5 then return object() end
  if r < 0.65 then return random:int(-3, 6) end
  if r < 0.7 then return pick(NUMBERS) end
  if r < 0.78 then return shape(0.05) end
  if r < 0.82 then return pick(WORDS) end
  if r < 0.86 then return chance(0.5) end
  if r < 0.89 or level and level > 1 then return nil end
  if r < 0.92 then return list(object) end
  if r < 0.96 then return options() end
  if r < 0.98 then return callback() end
  return pick { io.stdout, coroutine.create(print), setmetatable({}, { __index = error }), print, pool }
end

local function arguments(from)
  local n = random:int(0, 4)
  local a = table.pack(table.unpack(from or {}))
  for _ = 1, n do
    a.n = a.n + 1
    a[a.n] = value()
  end
  return a
end

-- ---- acts -----------------------------------------------------------------------------------------------------

local failures, successes, kinds = 0, 0, {}

local function attempt(what, f, ...)
  local r = table.pack(pcall(f, ...))
  if r[1] then
    successes = successes + 1
    for i = 2, r.n do
      if type(r[i]) == "userdata" or (type(r[i]) == "table" and chance(0.05)) then keep(r[i]) end
    end
  else
    failures = failures + 1
    local message = r[2]
    assert(message ~= nil and message ~= "", what .. " failed without a message")
    kinds[what] = (kinds[what] or 0) + 1
  end
end

local function op_case()
  local op = pick(described.ops)
  if #op.cases == 0 then return end
  local index = random:int(1, #op.cases)
  local inputs = cases.sample(op, op.cases[index], pick { "f32", "f64" }, index)
  local wrong, attrs = random:int(1, #inputs + 6), cases.attrs(op.cases[index])
  for k = 1, #inputs do
    if inputs[k] and cases.is_float(inputs[k]) and chance(0.4) then inputs[k]:requires_grad_(true) end
    if inputs[k] and inputs[k].rank > 1 and chance(0.2) then inputs[k] = inputs[k]:transpose(1, 2):contiguous():transpose(1, 2) end
    if k == wrong then inputs[k] = value() end
  end
  if wrong == #inputs + 1 then attrs = options() end
  attempt(op.name, function()
    local outs = cases.call(op, inputs, attrs)
    for _, t in ipairs(outs) do keep(t) end
    for _, t in ipairs(inputs) do if t and chance(0.1) then keep(t) end end
    return table.unpack(outs)
  end)
end

local function method()
  local o = object()
  local mt = type(o) == "userdata" and getmetatable(o)
  local list_of = type(mt) == "table" and mt.__names
  if not list_of then return end
  local all = {}
  for k in pairs(list_of) do all[#all + 1] = k end
  table.sort(all)
  local name = pick(all)
  attempt(":" .. name, function() return list_of[name](table.unpack(arguments { o }, 1, nil)) end)
end

local ACTS = {
  { 30, op_case },
  { 20, method },
  { 20, function()
    local f = pick(functions)
    local a = arguments()
    attempt(names[f], f, table.unpack(a, 1, a.n))
  end },
  { 8, function() keep(tensor()) end },
  { 6, function() attempt("index", function() return object()[value()] end) end },
  { 4, function() attempt("assign", function() object()[value()] = value() end) end },
  { 5, function()
    local a, b = object(), value()
    attempt("operator", function()
      return pick { function() return a + b end, function() return b - a end, function() return a * b end, function() return a / b end,
                    function() return a ^ b end, function() return -a end, function() return #a end, function() return a % b end,
                    function() return a == b end, function() return a .. "" end, function() return tostring(a) end }()
    end)
  end },
  { 4, function()
    attempt("backward", function()
      local t = object()
      if chance(0.7) then t = t:sum() end
      t:backward(chance(0.3) and { retain_graph = true } or nil) -- create_graph makes a cycle, as in PyTorch
    end)
  end },
  { 2, function()
    attempt("grad", gr.grad, chance(0.5) and object() or list(object), list(object),
      { allow_unused = true, create_graph = chance(0.5), retain_graph = chance(0.5) })
  end },
  { 3, function()
    local kind = pick(described.layers)
    local a = {}
    for _, at in ipairs(kind.attrs) do
      if at.required then a[#a + 1] = random:int(1, 5) end
    end
    attempt("nn." .. kind.name, function() return gr.nn[kind.name](table.unpack(a)) end)
  end },
  { 2, function()
    attempt("optim", function()
      local leaves = {}
      for _, o in ipairs(pool) do
        if gr.is_tensor(o) and pcall(function() assert(o.requires_grad and o:is_leaf()) end) and chance(0.2) then
          leaves[#leaves + 1] = o
        end
      end
      return gr.optim[pick(described.optims).name](leaves, chance(0.5) and { lr = pick { 0.1, callback() } } or nil)
    end)
  end },
  { 3, function() attempt("step", function() object():step() end) end },
  { 4, function() attempt("call", function() return object()(object(), chance(0.3) and value() or nil) end) end },
  { 3, function()
    attempt("hook", function()
      local o = object()
      local register = pick { "register_hook", "register_forward_hook", "register_backward_hook", "register_step_pre_hook",
                              "register_forward_pre_hook", "register_post_accumulate_grad_hook" }
      return o[register](o, callback(), chance(0.3) and "named" or nil)
    end)
  end },
  { 1, function()
    local kind = pick { "hook", "forward_hook", "backward_hook", "step_hook" }
    attempt("gr.hook", function()
      local _ <close> = setmetatable({ h = gr.hook[kind](callback()) }, { __close = function(s) s.h:remove() end })
      for _ = 1, 3 do act() end
    end)
  end },
  { 3, function() attempt("close", function() object():free() end) end },
  { 1, function() attempt("threads", gr.threads, pick { 1, 2, 3, 0, -1, "two" }) end },
  { 1, function() attempt("scope", gr.scope, callback(), object()) end },
  { 1, function() collectgarbage(pick { "step", "collect" }) end },
}
local total = 0
for _, a in ipairs(ACTS) do total = total + a[1] end

function act()
  local r = random:unit() * total
  for _, a in ipairs(ACTS) do
    r = r - a[1]
    if r < 0 then return a[2]() end
  end
end

-- ---- running --------------------------------------------------------------------------------------------------

for i = 1, POOL do pool[i] = tensor() end
for i = 1, CALLS do
  act()
  depth = 0
  if i % 500 == 0 then
    gr.set_grad_enabled(true)
    gr.default_dtype "f32"
    assert(gr.ones(3):sum():item() == 3, "the context no longer computes")
  end
end
local dead = gr.memory()
pool = nil
gr.set_grad_enabled(true)
for _ = 1, 4 do collectgarbage() end
local after = gr.memory()
for _, what in ipairs { "tensors", "storages", "nodes", "layers", "optims", "hooks", "bytes" } do
  assert(after[what] == before[what], ("%d %s are left, %d were there at first"):format(after[what], what, before[what]))
end
print(("%d calls: %d succeeded, %d failed with a message; %d tensors were alive at the end"):format(successes + failures,
  successes, failures, dead.tensors))
