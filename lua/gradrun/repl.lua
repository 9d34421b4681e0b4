-- The interactive loop: read a line, run it, print what came out.
--
-- The terminal belongs to the program: repl.run gets an editor with
--   read(prompt) -> line, nil at the end of input, false after Ctrl-C
--   call(f, ...) -> true and f's results, or false and the error with its traceback; stoppable by Ctrl-C
local repl = {}

local DEPTH, ENTRIES, WIDTH, STRING = 3, 40, 78, 60 -- limits of what a table shows

-- ---- values as text --------------------------------------------------------------------------------------

local RANK = { string = 1, number = 2, boolean = 3 }

local function key_order(a, b)
  local ra, rb = RANK[type(a)] or 4, RANK[type(b)] or 4
  if ra ~= rb then return ra < rb end
  if ra <= 2 then return a < b end
  return tostring(a) < tostring(b)
end

local function is_name(s) return type(s) == "string" and s:find("^[%a_][%w_]*$") and load(s .. "=1") ~= nil end

local describe

-- The entries of t as texts: the sequence first, then the other keys in order.
local function entries(t, depth, seen)
  local out, count, left_out = {}, 0, 0
  local function add(text)
    if count < ENTRIES then out[#out + 1] = text() else left_out = left_out + 1 end
    count = count + 1
  end
  local n = 0
  while rawget(t, n + 1) ~= nil do
    n = n + 1
    add(function() return describe(rawget(t, n), depth + 1, seen) end)
  end
  local keys = {}
  for k in next, t do
    if not (math.type(k) == "integer" and k >= 1 and k <= n) then keys[#keys + 1] = k end
  end
  table.sort(keys, key_order)
  for _, k in ipairs(keys) do
    add(function()
      local name = is_name(k) and k or "[" .. describe(k, DEPTH, seen) .. "]"
      return name .. " = " .. describe(rawget(t, k), depth + 1, seen)
    end)
  end
  if left_out > 0 then out[#out + 1] = ("... %d more"):format(left_out) end
  return out
end

-- On one line if it fits, else in lines: short entries share one.
local function describe_table(t, depth, seen)
  if seen[t] then return "{...}" end
  if depth >= DEPTH then return next(t) == nil and "{}" or "{...}" end
  seen[t] = true
  local list = entries(t, depth, seen)
  seen[t] = nil
  local line = "{" .. table.concat(list, ", ") .. "}"
  if #line + 2 * depth <= WIDTH and not line:find("\n", 1, true) then return line end
  local indent = ("  "):rep(depth + 1)
  local lines, last = {}, WIDTH
  for i, text in ipairs(list) do
    text = text .. (i < #list and "," or "")
    local wide = text:find("\n", 1, true) and WIDTH or #text + 1
    if last + wide > WIDTH then
      lines[#lines + 1], last = indent .. text, #indent + wide
    else
      lines[#lines], last = lines[#lines] .. " " .. text, last + wide
    end
  end
  return "{\n" .. table.concat(lines, "\n") .. "\n" .. ("  "):rep(depth) .. "}"
end

function describe(v, depth, seen)
  if type(v) == "string" then
    local cut = #v > STRING and v:sub(1, STRING) or v
    cut = ("%q"):format(cut):gsub("\\\n", "\\n"):gsub("\\9", "\\t")
    return #v > STRING and ("%s... (%d bytes)"):format(cut, #v) or cut
  end
  local meta = type(v) == "table" and getmetatable(v)
  if type(v) ~= "table" or type(meta) == "table" and rawget(meta, "__tostring") then
    return (tostring(v):gsub("\n", "\n" .. ("  "):rep(depth)))
  end
  return describe_table(v, depth, seen)
end

-- What the loop prints for a value: strings as they are, tables opened, the rest by tostring.
function repl.format(v)
  if type(v) == "string" then return v end
  return describe(v, 0, {})
end

-- ---- lines as code -----------------------------------------------------------------------------------------

-- A string cannot go on in the next line; everything else that the end cuts short can.
local function incomplete(message)
  return message:find("<eof>$") ~= nil and not message:find("unfinished string near", 1, true)
end

-- As an expression if it is one, else as statements. Returns the function; or nil and the message, and
-- whether more lines could mend it.
function repl.compile(text)
  local expression = text:gsub("^%s*=", ""):gsub(";%s*$", "")
  local f, first = load("return " .. expression, "=stdin", "t")
  if f then return f end
  local message
  f, message = load(text, "=stdin", "t")
  if f then return f end
  return nil, message, incomplete(message) or incomplete(first)
end

-- Without the frames of this loop, which are below every other.
local function trim(message)
  message = message:gsub("\n\t%[C%]: in [^\n]*\n\t[^\n]*gradrun/repl%.lua:.*$", "")
  return (message:gsub("\nstack traceback:$", ""))
end

-- ---- the loop ----------------------------------------------------------------------------------------------

local function prompt(name, default)
  local p = rawget(_G, name)
  return p == nil and default or tostring(p)
end

-- Reads until the lines make a whole chunk. Returns its function (or nil and a message) and its text;
-- text is nil at the end of input, false after Ctrl-C.
local function read_chunk(editor)
  local text = editor.read(prompt("_PROMPT", "> "))
  if not text then return nil, nil, text end
  while true do
    local f, message, more = repl.compile(text)
    if f or not more then return f, message, text end
    local line = editor.read(prompt("_PROMPT2", ">> "))
    if line == false then return nil, nil, false end
    if line == nil then return nil, message, text end
    text = text .. "\n" .. line
  end
end

local function show(results)
  local texts, tall = {}, false
  for i = 1, results.n do
    texts[i] = repl.format(results[i])
    tall = tall or texts[i]:find("\n", 1, true)
  end
  io.stdout:write(table.concat(texts, tall and "\n" or "\t"), "\n")
end

local function run_chunk(editor, f, text)
  local results = table.pack(editor.call(f))
  if not results[1] then return io.stderr:write(trim(results[2]), "\n") end
  results = table.pack(table.unpack(results, 2, results.n))
  if results.n == 0 then return end
  if results[1] ~= nil then rawset(_G, "_", results[1]) end
  if text:find(";%s*$") then return end
  local ok, message = editor.call(show, results)
  if not ok then io.stderr:write(trim(message), "\n") end
end

-- Until the input ends. gr is there; _ is the last result; a line that ends in ; is not printed.
function repl.run(editor)
  rawset(_G, "gr", require "gradrun")
  while true do
    local f, message, text = read_chunk(editor)
    if text == nil then break end
    if f then
      run_chunk(editor, f, text)
    elseif text == false then
      io.stdout:write("\n")
    else
      io.stderr:write(message, "\n")
    end
  end
  io.stdout:write("\n")
end

return repl
