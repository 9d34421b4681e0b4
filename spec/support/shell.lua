-- Commands run by specs, and where the build under test is (GRADRUN_BUILD; "build" unless told otherwise).
local shell = {}

local pwd = io.popen("pwd")
shell.root = pwd:read("l")
pwd:close()
shell.build = os.getenv("GRADRUN_BUILD") or "build"
if shell.build:sub(1, 1) ~= "/" then shell.build = shell.root .. "/" .. shell.build end
shell.gradrun = shell.build .. "/gradrun"

function shell.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Runs a shell command: what it wrote (standard error among it), and its exit code, 128 + n for signal n.
function shell.run(command, ...)
  local pipe <close> = assert(io.popen("{ " .. command:format(...) .. "\n} 2>&1"))
  local out = pipe:read("a")
  local _, kind, code = pipe:close()
  return out, kind == "signal" and 128 + code or code
end

-- Stock Lua, ready to load core.so: what that was sanitized with must be in the process first.
local sanitizer = shell.run("readelf -d %s/lua/gradrun/core.so", shell.build):match "%[(lib%lsan)%.so"
shell.flags = sanitizer and "-fsanitize=" .. ({ libasan = "address", libtsan = "thread" })[sanitizer] or ""
shell.lua = sanitizer and ("LD_PRELOAD=$(cc -print-file-name=%s.so) lua5.4"):format(sanitizer) or "lua5.4"

-- A file that lasts as long as the process, with that text.
local files = setmetatable({}, { __gc = function(list) for _, name in ipairs(list) do os.remove(name) end end })
function shell.file(text)
  local name = os.tmpname()
  files[#files + 1] = name
  local f <close> = assert(io.open(name, "w"))
  f:write(text)
  return name
end

return shell
