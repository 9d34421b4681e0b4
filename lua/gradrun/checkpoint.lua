-- Checkpoints: gr.save(path, t) and gr.load(path, objects), in safetensors files that other programs read too.
--
-- Tensors are stored under plain names, the path to them in t: "model.1.weight". What else t holds is one JSON text,
-- "gradrun" in the file's metadata: {version, random = {seed, counter}, step, index_base, value}, in which
--     {"$tensor": name}                   is a tensor of the file
--     {"$dict": [name, …], "$prefix": p}  is a state dict, in order; the file calls them p .. name
--     {"$float": "7ff0000000000000"}      is a float without a form in JSON, by its bits
--     {"$bytes": "00ff"}                  is a string that is not UTF-8
--     {"$pairs": [[key, value], …]}       is a table with keys that are not all such strings, and not 1..n
-- and a key of an object that begins with $ has another one before it.
local gr = require "gradrun.core"
local method = require("gradrun.check").method

local checkpoint = {}

local VERSION, KEY = 1, "gradrun"
local DEEPEST = 100

-- ---- what counts as what ------------------------------------------------------------------------------------

local function is_sequence(t)
  local n, count = #t, 0
  for k in next, t do
    if math.type(k) ~= "integer" or k < 1 or k > n then return false end
    count = count + 1
  end
  return n > 0 and count == n
end

local function is_text(s) return type(s) == "string" and utf8.len(s) ~= nil and not s:find("\0", 1, true) end

local RANK = { number = 1, string = 2, boolean = 3 }

local function sorted_keys(t)
  local keys = {}
  for k in next, t do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return (RANK[type(a)] or 4) < (RANK[type(b)] or 4) end
    if type(a) == "boolean" then return a and not b end
    return RANK[type(a)] and a < b or false
  end)
  return keys
end

-- Parts of a path that are numbers, by so much: "net.1.weight" ↔ "net.0.weight".
local function shifted(name, by)
  return (("." .. name .. "."):gsub("%.(%d+)%f[.]", function(digits)
    if digits:find("^0%d") or #digits > 15 then return nil end
    return ("." .. math.tointeger(digits) + by)
  end):sub(2, -2))
end

-- ---- values to JSON -----------------------------------------------------------------------------------------

local encode

-- A path as it may stand in a file.
local function as_text(path)
  return is_text(path) and path or path:gsub("[\0\128-\255]", function(c) return ("%%%02x"):format(c:byte()) end)
end

-- A name for a tensor at this path that no other has.
local function claim(out, path)
  local name = path == "" and "value" or as_text(path)
  local free, n = name, 1
  while out.taken[free] do
    n = n + 1
    free = name .. "_" .. n
  end
  out.taken[free] = true
  return free
end

local function encode_dict(dict, path, out)
  path = as_text(path)
  local prefix, n, names = path == "" and "" or path .. ".", 1, {}
  local function free()
    for name in pairs(dict) do if out.taken[prefix .. name] then return false end end
    return true
  end
  while not free() do
    n = n + 1
    prefix = ("%s_%d."):format(path, n)
  end
  for name, t in pairs(dict) do
    names[#names + 1] = name
    out.taken[prefix .. name] = true
    out.dict[prefix .. name] = t
  end
  return { ["$dict"] = names, ["$prefix"] = prefix }
end

local function child(path, key)
  return path == "" and tostring(key) or path .. "." .. tostring(key)
end

local function encode_table(t, path, out, depth)
  if out.open[t] then error(("save: %s is a table that contains itself"):format(path), 0) end
  if depth > DEEPEST then error(("save: %s is nested deeper than %d tables"):format(path, DEEPEST), 0) end
  out.open[t] = true
  local result, plain = {}, true
  if is_sequence(t) then
    for i, v in ipairs(t) do result[i] = encode(v, child(path, i), out, depth + 1) end
  else
    local keys = sorted_keys(t)
    for _, k in ipairs(keys) do
      if not RANK[type(k)] then
        error(("save: %s has a %s as a key, expected a string, number or boolean"):format(
          path == "" and "the table" or path, type(k)), 0)
      end
      plain = plain and is_text(k)
    end
    local pairs_of = {}
    for i, k in ipairs(keys) do
      local v = encode(t[k], child(path, k), out, depth + 1)
      if plain then
        result[k:find("^%$") and "$" .. k or k] = v
      else
        pairs_of[i] = { encode(k, path, out, depth + 1), v }
      end
    end
    if not plain then result["$pairs"] = pairs_of end
  end
  out.open[t] = nil
  return result
end

function encode(v, path, out, depth)
  local kind = type(v)
  if kind == "boolean" then return v end
  if kind == "number" then
    if math.type(v) == "integer" or v - v == 0 then return v end
    return { ["$float"] = ("%016x"):format((string.unpack("<i8", string.pack("<d", v)))) }
  end
  if kind == "string" then
    if utf8.len(v) then return v end
    return { ["$bytes"] = v:gsub(".", function(c) return ("%02x"):format(c:byte()) end) }
  end
  if gr.is_tensor(v) then
    local name = claim(out, path)
    out.dict[name] = v
    return { ["$tensor"] = name }
  end
  if gr.is_dict(v) then return encode_dict(v, path, out) end
  local state_dict = method(v, "state_dict")
  if state_dict then
    if out.open[v] then error(("save: %s is part of its own state"):format(path), 0) end
    out.open[v] = true
    local result = encode(state_dict(v), path, out, depth + 1)
    out.open[v] = nil
    return result
  end
  if kind == "table" then return encode_table(v, path, out, depth) end
  error(("save: %s is %s, expected a tensor, number, string, boolean, table or something with a state_dict"):format(
    path == "" and "the value" or path, gr.shown(v)), 0)
end

-- ---- JSON to values -----------------------------------------------------------------------------------------

-- A file's content is not believed: what is not as encode makes it ends in this.
local function corrupt(...) error({ corrupt = (...):format(select(2, ...)) }, 0) end

local function take(file, name)
  local t = type(name) == "string" and not name:find("\0", 1, true) and file.dict[name] or nil
  if not t then corrupt("there is no tensor '%s', which its structure names", tostring(name)) end
  file.left[name] = nil
  return t
end

local function only(node, ...)
  local n = 0
  for _ in next, node do n = n + 1 end
  if n ~= select("#", ...) then corrupt("its structure has '%s' with something beside it", (...)) end
end

local TAGS = {
  ["$tensor"] = function(node, file)
    only(node, "$tensor")
    return take(file, node["$tensor"])
  end,
  ["$dict"] = function(node, file)
    only(node, "$dict", "$prefix")
    local names, prefix, dict = node["$dict"], node["$prefix"], gr.dict()
    if type(names) ~= "table" or type(prefix) ~= "string" then corrupt "its structure has a '$dict' without names" end
    for _, name in ipairs(names) do
      if type(name) ~= "string" then corrupt "its structure has a '$dict' with a name that is none" end
      local t = take(file, prefix .. name)
      dict[name] = t
    end
    return dict
  end,
  ["$float"] = function(node)
    only(node, "$float")
    local bits = node["$float"]
    if type(bits) ~= "string" or not bits:find("^" .. ("%x"):rep(16) .. "$") then
      corrupt "its structure has a '$float' without bits"
    end
    return (string.unpack("<d", string.pack("<I8", tonumber(bits, 16))))
  end,
  ["$bytes"] = function(node)
    only(node, "$bytes")
    local hex = node["$bytes"]
    if type(hex) ~= "string" or #hex % 2 == 1 or hex:find("%X") then
      corrupt "its structure has '$bytes' that are none"
    end
    return (hex:gsub("..", function(byte) return string.char(tonumber(byte, 16)) end))
  end,
}

local function decode(node, file)
  if type(node) ~= "table" then return node end
  local result = {}
  if node["$pairs"] then
    only(node, "$pairs")
    if type(node["$pairs"]) ~= "table" then corrupt "its structure has '$pairs' that are none" end
    for _, pair in ipairs(node["$pairs"]) do
      local key = type(pair) == "table" and decode(pair[1], file)
      if key == nil or key ~= key or not RANK[type(key)] or pair[2] == nil then
        corrupt "its structure has a table with a key that is none"
      end
      result[key] = decode(pair[2], file)
    end
    return result
  end
  for k, v in next, node do
    if type(k) == "string" and k:find("^%$") then
      if TAGS[k] or k == "$prefix" then
        return (TAGS[k] or TAGS["$dict"])(node, file)
      elseif not k:find("^%$%$") then
        corrupt("its structure has an unknown '%s'", k)
      end
      k = k:sub(2)
    end
    result[k] = decode(v, file)
  end
  return result
end

-- ---- saving -------------------------------------------------------------------------------------------------

local function check_path(who, path)
  if type(path) ~= "string" then error(("%s: the file is %s, expected a path"):format(who, gr.shown(path)), 3) end
end

local function check_options(who, options, known)
  if type(options) ~= "table" then
    error(("%s: %s where a table of options is expected"):format(who, gr.shown(options)), 3)
  end
  for k in pairs(options) do
    if not known[k] then error(("%s: unknown option '%s'"):format(who, tostring(k)), 3) end
  end
  local base = options.index_base
  if base ~= nil and base ~= 0 and base ~= 1 then
    error(("%s: index_base is %s, expected 0 or 1"):format(who, tostring(base)), 3)
  end
end

--- Raises what gr.save would of t, and writes nothing.
function checkpoint.check(t)
  encode(t, "", { dict = gr.dict(), taken = { __metadata__ = true }, open = {} }, 1)
end

--- gr.save(path, t, { index_base = 1, metadata = {} }) → true; or nil and why not, and an earlier file is as it was.
-- t: a table of layers, optimizers, state dicts, tensors, other objects with a state_dict method, and plain values
-- (tables, numbers, strings, booleans; kept exactly); or one of these. The random state and the step counter are
-- saved with it. index_base = 0: parts of tensors' names that are numbers count from 0 in the file, as in PyTorch.
-- metadata: more texts for the file.
function checkpoint.save(path, t, options)
  options = options or {}
  check_path("save", path)
  check_options("save", options, { index_base = true, metadata = true })
  if options.metadata ~= nil and type(options.metadata) ~= "table" then
    error(("save: metadata is %s, expected a table of texts"):format(gr.shown(options.metadata)), 2)
  end
  local out = { dict = gr.dict(), taken = { __metadata__ = true }, open = {} }
  local ok, value = pcall(encode, t, "", out, 1)
  if not ok then error(value, 2) end
  local metadata = {}
  for k, v in pairs(options.metadata or {}) do metadata[k] = v end
  if metadata[KEY] then error(("save: metadata: the key '%s' is taken"):format(KEY), 2) end
  metadata[KEY] = gr.json.encode {
    version = VERSION, random = gr.get_rng_state(), step = gr.step(), index_base = options.index_base or 1,
    value = value,
  }
  if options.index_base == 0 then
    local renamed = gr.dict()
    for name, tensor in pairs(out.dict) do
      local new = shifted(name, -1)
      if new:find("-", 1, true) and not name:find("-", 1, true) then
        error(("save: '%s' has a part that counts from 0 already, with index_base = 0"):format(name), 2)
      end
      renamed[new] = tensor
    end
    out.dict = renamed
  end
  return gr.safetensors.write(path, out.dict, metadata)
end

-- ---- loading ------------------------------------------------------------------------------------------------

local function renamed(dict, by)
  local result = gr.dict()
  for name, t in pairs(dict) do result[shifted(name, by)] = t end
  return result
end

-- The value and the state of the run in a file that gr.save wrote.
local function unpack_file(dict, text)
  local head, message = gr.json.decode(text)
  if type(head) ~= "table" then corrupt("its structure is not JSON: %s", message or "a lone value") end
  if math.type(head.version) ~= "integer" then corrupt "its structure has no version" end
  if head.version > VERSION then
    corrupt("it was written by a later gradrun, version %d; this one reads %d", head.version, VERSION)
  end
  local random = head.random
  if type(random) ~= "table" or math.type(random.seed) ~= "integer" or math.type(random.counter) ~= "integer"
    or math.type(head.step) ~= "integer" or head.value == nil then
    corrupt "its structure is not whole"
  end
  if head.index_base == 0 then dict = renamed(dict, 1) end
  local file = { dict = dict, left = {} }
  for name in pairs(dict) do file.left[name] = true end
  local value = decode(head.value, file)
  local extra = next(file.left)
  if extra then corrupt("its structure does not name the tensor '%s'", extra) end
  return value, head
end

-- value, metadata, head (nil if another program wrote it); or nil, message
local function read(path, index_base)
  local dict, metadata = gr.safetensors.read(path)
  if not dict then return nil, metadata end
  local text = metadata[KEY]
  if not text then return index_base == 0 and renamed(dict, 1) or dict, metadata end
  local ok, value, head = pcall(unpack_file, dict, text)
  if not ok then
    if type(value) == "table" and value.corrupt then return nil, ("%s: %s"):format(path, value.corrupt) end
    error(value, 0)
  end
  metadata[KEY] = nil
  return value, metadata, head
end

-- A copy that shares nothing.
local function copy_of(v)
  if gr.is_tensor(v) then return v:detach():clone() end
  if gr.is_dict(v) then
    local dict = gr.dict()
    for name, t in pairs(v) do dict[name] = t:clone() end
    return dict
  end
  if type(v) ~= "table" then return v end
  local t = {}
  for k, inner in next, v do t[k] = copy_of(inner) end
  return t
end

local function names_of(value)
  local list = {}
  if gr.is_dict(value) then return "it is one state dict: object:load_state_dict(gr.load(path)) takes it" end
  if type(value) == "table" then
    for _, k in ipairs(sorted_keys(value)) do list[#list + 1] = tostring(k) end
  end
  return #list > 0 and table.concat(list, ", ") or "no table"
end

-- Pairs each object with what was saved of it: {object, state, name} in native and scripted; false, message if
-- something is missing. rest loses what is taken.
local function pair_up(objects, rest, path, found)
  local held = names_of(rest)
  for _, k in ipairs(sorted_keys(objects)) do
    local object, name = objects[k], child(path, k)
    local load_state_dict = method(object, "load_state_dict")
    local saved = (type(rest) == "table" and not gr.is_tensor(rest)) and rest[k] or nil
    if load_state_dict then
      if saved == nil then return false, ("it holds no '%s' (%s)"):format(name, held) end
      local list = type(object) == "userdata" and found.native or found.scripted
      if list == found.native and not gr.is_dict(saved) then
        return false, ("'%s' is no state dict in it"):format(name)
      end
      list[#list + 1] = { object, saved, name }
      rest[k] = nil
    elseif type(object) == "table" then
      if type(saved) ~= "table" then return false, ("it holds no table '%s' (%s)"):format(name, held) end
      local ok, message = pair_up(object, saved, name, found)
      if not ok then return false, message end
    elseif not RANK[type(object)] then
      error(("load: %s is %s, expected something with a load_state_dict"):format(name, gr.shown(object)), 0)
    end
  end
  return true
end

-- All of them, or none: what scripts wrote is put back by hand, the native half does it by itself.
-- True; or false and the error.
local function restore(found)
  local ok, message = pcall(gr.load_state_dicts, found.native, true)
  if not ok then return false, message end
  local before, n = {}, 0
  for i, entry in ipairs(found.scripted) do
    local state_dict = method(entry[1], "state_dict")
    if not state_dict then return false, entry[3] .. " has load_state_dict, but no state_dict" end
    before[i] = copy_of(state_dict(entry[1]))
  end
  while ok and n < #found.scripted do
    n = n + 1
    local object, state, name = table.unpack(found.scripted[n])
    ok, message = pcall(object.load_state_dict, object, state)
    if not ok and type(message) == "string" then message = name .. ": " .. message end
  end
  if ok then ok, message = pcall(gr.load_state_dicts, found.native) end
  for i = ok and 0 or n, 1, -1 do found.scripted[i][1]:load_state_dict(before[i]) end
  return ok, message
end

--- gr.load(path) → what was saved: objects as their state dicts, in a table as it was; and the file's metadata.
-- gr.load(path, { model = model, optimizer = opt, … }) also loads the states of that name into these objects, and
-- gives back the rest. All of them, or none. The step counter and the random state are set to the saved ones, but
-- with random = false the random state stays as it is. nil and a message if the file cannot be read, is damaged, or
-- holds no such object; raises if a state does not fit its object.
-- index_base = 0: the numbers in another program's names count from 0, as PyTorch's; they become ours, from 1.
-- (The "num_batches_tracked" of its batch norms has no counterpart: load_state_dict with partial, or drop it.)
function checkpoint.load(path, options)
  local objects = {}
  options = options or {}
  check_path("load", path)
  if type(options) ~= "table" then
    error(("load: %s where a table of objects by name is expected: gr.load(path, { model = model })"):format(
      gr.shown(options)), 2)
  end
  for k, v in pairs(options) do
    if k ~= "random" and k ~= "index_base" then objects[k] = v end
  end
  check_options("load", { index_base = options.index_base }, { index_base = true })
  if options.random ~= nil and type(options.random) ~= "boolean" then
    error(("load: random is a %s, expected true or false"):format(type(options.random)), 2)
  end
  local value, metadata, head = read(path, options.index_base)
  if value == nil then return nil, metadata end
  local found = { native = {}, scripted = {} }
  local ok, paired, message = pcall(pair_up, objects, value, "", found)
  if not ok then error(paired, 2) end
  if not paired then return nil, ("%s: %s"):format(path, message) end
  local any = #found.native + #found.scripted > 0
  if any then
    ok, message = restore(found)
    if not ok then error(type(message) == "string" and ("load: %s: %s"):format(path, message) or message, 2) end
  end
  if head and (any or options.random) then
    gr.step(head.step)
    if options.random ~= false then gr.set_rng_state(head.random) end
  end
  return value, metadata
end

return checkpoint
