-- exact(value): a text that tells all values apart: dtypes and shapes of tensors, whole numbers and floats, -0.0, the
-- bits of NaN, names and order in state dicts.
local gr = require "gradrun"

local function exact(v)
  if gr.is_tensor(v) then return v.dtype .. tostring(v.shape) .. exact(v:totable()) end
  if gr.is_dict(v) then
    local parts = {}
    for name, t in pairs(v) do parts[#parts + 1] = ("%q:%s"):format(name, exact(t)) end
    return "dict(" .. table.concat(parts, " ") .. ")"
  end
  if type(v) == "table" then
    local parts = {}
    for k, x in pairs(v) do parts[#parts + 1] = exact(k) .. "=" .. exact(x) end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
  end
  if math.type(v) == "float" then return ("float %016x"):format((string.unpack("<i8", string.pack("<d", v)))) end
  return type(v) .. ("%q"):format(v)
end

return exact
