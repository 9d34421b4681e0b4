-- Command-line options of a script: cli.parse(arg, {epochs = 3, ...}) -> options, positional arguments.
local cli = { TEXT = {} }

--- Options are `--name VALUE` or `--name=VALUE`, of their default's type; a boolean takes no value. cli.TEXT stands for
-- a text without a default: nil unless given.
-- Unknown ones stop the script with the list of those there are.
function cli.parse(args, defaults)
  local options, rest, i = {}, {}, 1
  for k, v in pairs(defaults) do if v ~= cli.TEXT then options[k] = v end end
  local function fail(message)
    local names = {}
    for k, v in pairs(defaults) do
      names[#names + 1] = "--" .. k .. (v ~= cli.TEXT and " (" .. tostring(v) .. ")" or "")
    end
    table.sort(names)
    local text = ("%s\noptions: %s"):format(message, table.concat(names, ", "))
    error(setmetatable({}, { __tostring = function() return text end })) -- the runner shows it without a traceback
  end
  while i <= #args do
    local name, equals, value = args[i]:match("^%-%-([%w_-]+)(=?)(.*)$")
    if not name and args[i]:find("^%-%a") then
      fail("unknown option " .. args[i])
    elseif not name or equals == "" and value ~= "" then
      rest[#rest + 1] = args[i]
    else
      name = name:gsub("-", "_")
      local default = defaults[name]
      if default == nil then fail("unknown option --" .. name) end
      if type(default) == "boolean" then
        if equals ~= "" then fail("--" .. name .. " takes no value") end
        options[name] = true
      else
        if equals == "" then
          i = i + 1
          value = args[i] or ""
        end
        if value == "" or equals == "" and value:find("^%-%-") then fail("--" .. name .. " needs a value") end
        if type(default) == "number" then value = tonumber(value) or fail("--" .. name .. " needs a number") end
        options[name] = value
      end
    end
    i = i + 1
  end
  return options, rest
end

return cli
