-- What a value can do, whatever its type: options may be layers, objects of a script's own, or functions.
local gr = require "gradrun.core"

local check = {}

--- The method of that name, or nil; tensors and state dicts, which have any name, have none here.
function check.method(v, name)
  if type(v) ~= "table" and type(v) ~= "userdata" or gr.is_dict(v) or gr.is_tensor(v) then return nil end
  local ok, f = pcall(function() return v[name] end)
  return ok and type(f) == "function" and f or nil
end

function check.callable(v)
  if type(v) == "function" then return true end
  local meta = not gr.is_tensor(v) and getmetatable(v)
  return type(meta) == "table" and meta.__call ~= nil
end

return check
