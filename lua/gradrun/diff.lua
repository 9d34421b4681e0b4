-- gr.diff(a, b): what differs between two state dicts, as an object that prints as a table.
local gr = require "gradrun.core"

local diff = {}
diff.__index = diff

-- The tensors of a state dict, of an object that has one, or of a table (numbers count as scalars), by path; in order.
local function flatten(v, path, out)
  if type(v) == "number" then v = gr.tensor(v, math.type(v) == "integer" and "i64" or "f64") end
  if gr.is_tensor(v) then
    local name = path == "" and "value" or path
    if not out[name] then out[#out + 1] = name end
    out[name] = v:detach()
    return out
  end
  if not gr.is_dict(v) and (type(v) == "userdata" or type(v) == "table" and type(v.state_dict) == "function") then
    v = v:state_dict()
  end
  if gr.is_dict(v) then
    for name, t in pairs(v) do flatten(t, path == "" and name or path .. "." .. name, out) end
  elseif type(v) == "table" then
    local keys = {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys, function(x, y) return tostring(x) < tostring(y) end)
    for _, k in ipairs(keys) do flatten(v[k], path == "" and tostring(k) or path .. "." .. tostring(k), out) end
  end
  return out
end

local function describe(t) return t.dtype .. tostring(t.shape) end

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

--- d = gr.diff(a, b): d.equal; d.entries, one for each name that differs: {name, a =, b = ("f32[3×4]", nil if it is
-- not there), count =, numel = (elements), absolute =, relative = (the largest differences)}; d.same: how many do not.
-- a, b: state dicts, layers, optimizers, or tables of tensors.
function diff.new(a, b)
  local x, y = flatten(a, "", {}), flatten(b, "", {})
  local d = setmetatable({ entries = {}, same = 0 }, diff)
  gr.scope(function()
    for _, name in ipairs(x) do
      local t, u = x[name], y[name]
      local entry = { name = name, a = describe(t), b = u and describe(u), numel = t:numel() }
      if u and tostring(t.shape) == tostring(u.shape) then
        entry.count, entry.absolute, entry.relative = 0, 0.0, 0.0
        if t:numel() > 0 then entry.count, entry.absolute, entry.relative = measure(t, u) end
      end
      if entry.count == 0 and entry.a == entry.b then
        d.same = d.same + 1
      else
        d.entries[#d.entries + 1] = entry
      end
    end
  end)
  for _, name in ipairs(y) do
    local u = not x[name] and y[name]
    if u then d.entries[#d.entries + 1] = { name = name, b = describe(u), numel = u:numel() } end
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
      else
        row[3] = "shapes differ"
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
