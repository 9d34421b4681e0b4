-- gr.diff(a, b): what differs between two state dicts, as an object that prints as a table.
local gr = require "gradrun.core"
local check = require "gradrun.check"

local diff = {}
diff.__index = diff

-- The values in a state dict, in an object that has one, or in a table, by path, in order: tensors (numbers count as
-- scalars), texts, booleans, and what else there is.
local function flatten(v, path, out, open)
  if type(v) == "number" then v = gr.tensor(v, math.type(v) == "integer" and "i64" or "f64") end
  local state_dict = check.method(v, "state_dict")
  if state_dict then v = state_dict(v) end
  if not gr.is_dict(v) and type(v) ~= "table" then
    local name = path == "" and "value" or path
    if out[name] == nil then out[#out + 1] = name end
    out[name] = gr.is_tensor(v) and v:detach() or v
    return out
  end
  if open[v] then error(("diff: %s is a table that contains itself"):format(path == "" and "the value" or path), 0) end
  open[v] = true
  local function go_on(k, inner) flatten(inner, path == "" and tostring(k) or path .. "." .. tostring(k), out, open) end
  if gr.is_dict(v) then
    for name, t in pairs(v) do go_on(name, t) end
  else
    local keys = {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys, function(x, y)
      if math.type(x) and math.type(y) then return x < y end
      return tostring(x) < tostring(y)
    end)
    for _, k in ipairs(keys) do go_on(k, v[k]) end
  end
  open[v] = nil
  return out
end

local function describe(v)
  if v == nil then return nil end
  return gr.is_tensor(v) and v.dtype .. tostring(v.shape) or gr.shown(v)
end

-- NaN is the same as NaN here.
local function measure(a, b)
  local same = a.dtype == b.dtype and a:eq(b) or a:to("f64"):eq(b:to("f64"))
  local x, y = a:to("f64"), b:to("f64")
  same = gr.maximum(same, x:eq(x):eq(0):mul(y:eq(y):eq(0)))
  local count = a:numel() - same:to("i64"):sum():item()
  if count == 0 then return 0, 0.0, 0.0 end
  local apart = gr.where(same, gr.zeros(x.shape, "f64"), (x - y):abs())
  local scale = gr.where(same, gr.ones(x.shape, "f64"), gr.maximum(x:abs(), y:abs()))
  return count, apart:amax():item(), (apart / scale):amax():item()
end

local function compare(name, t, u)
  local entry = { name = name, a = describe(t), b = describe(u) }
  if not gr.is_tensor(t) or not gr.is_tensor(u) then return entry, t == u end
  entry.numel = t:numel()
  if tostring(t.shape) ~= tostring(u.shape) then return entry, false end
  entry.count, entry.absolute, entry.relative = 0, 0.0, 0.0
  if entry.numel > 0 then entry.count, entry.absolute, entry.relative = measure(t, u) end
  return entry, entry.count == 0 and t.dtype == u.dtype
end

--- d = gr.diff(a, b): d.equal; d.entries, one for each name that differs: {name, a =, b = ("f32[3×4]", nil if it is
-- not there), count =, numel = (elements), absolute =, relative = (the largest differences)}; d.same: how many do not.
-- a, b: state dicts, layers, optimizers, tensors, or tables of these; numbers, texts and booleans in them count too.
function diff.new(a, b)
  local sides, given = {}, { a, b }
  for i = 1, 2 do
    local v = given[i]
    if type(v) ~= "table" and type(v) ~= "userdata" then
      error(("diff: argument %d is %s, expected a state dict, a layer, an optimizer, a tensor or a table"):format(
        i, gr.shown(v)), 2)
    end
    local ok, values = pcall(flatten, v, "", {}, {})
    if not ok then error(values, 2) end
    sides[i] = values
  end
  local x, y = sides[1], sides[2]
  local d = setmetatable({ entries = {}, same = 0 }, diff)
  gr.scope(function()
    for _, name in ipairs(x) do
      local entry, equal = compare(name, x[name], y[name])
      if equal then d.same = d.same + 1 else d.entries[#d.entries + 1] = entry end
    end
  end)
  for _, name in ipairs(y) do
    local u = y[name]
    if x[name] == nil then
      d.entries[#d.entries + 1] = { name = name, b = describe(u), numel = gr.is_tensor(u) and u:numel() or nil }
    end
  end
  d.equal = #d.entries == 0
  return d
end

local function pad(text, width) return text .. (" "):rep(width - utf8.len(text)) end

function diff:__tostring()
  local rows, width, only = {}, {}, { a = {}, b = {} }
  for _, e in ipairs(self.entries) do
    if not e.a or not e.b then
      table.insert(e.a and only.a or only.b, e.name)
    else
      local row = { e.name, e.a == e.b and e.a or e.a .. " / " .. e.b }
      if e.count then
        row[3] = ("%d of %d"):format(e.count, e.numel)
        row[4], row[5] = ("%.3g"):format(e.absolute), ("%.3g"):format(e.relative)
      elseif e.numel then
        row[3] = "shapes differ"
      else
        row[3] = "values differ"
      end
      rows[#rows + 1] = row
    end
  end
  if #rows > 0 then table.insert(rows, 1, { "name", "a / b", "elements", "largest |a - b|", "relative" }) end
  for _, row in ipairs(rows) do
    for c, cell in ipairs(row) do width[c] = math.max(width[c] or 0, utf8.len(cell)) end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    for c = 1, #row - 1 do row[c] = pad(row[c], width[c] + 2) end
    lines[#lines + 1] = table.concat(row)
  end
  for _, side in ipairs { "a", "b" } do
    if #only[side] > 0 then lines[#lines + 1] = ("only in %s: %s"):format(side, table.concat(only[side], ", ")) end
  end
  lines[#lines + 1] = self.equal and ("no difference in %d tensors"):format(self.same)
    or ("%d differ, %d do not"):format(#self.entries, self.same)
  return table.concat(lines, "\n")
end

return diff
