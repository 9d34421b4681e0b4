-- The speed table: ours and the peers in turn, in the same run, several rounds.
--   gradrun scripts/bench/compare.lua [NAMES…] [--threads 2] [--seconds 2] [--rounds 3] [--python python3]
-- Peers that are not installed are left out. Each figure is the smallest of the rounds' medians; a busy core
-- distorts the peers far more than us, so the table says when the machine was not idle.
local cli = require "gradrun.cli"

local here = arg[0]:match("^(.*)/") or "."
local W = dofile(here .. "/workloads.lua")
local o, names = cli.parse(arg, { threads = 2, seconds = 2.0, rounds = 3, python = "python3" })
if #names == 0 then names = W.order end

-- ---- is the machine idle? ----

local function cpu_times()
  local f = io.open("/proc/stat")
  if not f then return 0, 1 end
  local idle, total, k = 0, 0, 0
  for n in f:read("l"):gmatch("%d+") do
    k, total = k + 1, total + n
    if k == 4 or k == 5 then idle = idle + n end
  end
  f:close()
  return idle, total
end

local function busy_share(seconds)
  local i0, t0 = cpu_times()
  os.execute("sleep " .. seconds)
  local i1, t1 = cpu_times()
  return t1 > t0 and 1 - (i1 - i0) / (t1 - t0) or 0
end

-- ---- running one side once ----

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

local function run(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe:read("a")
  if not pipe:close() then return nil end
  local r = {}
  for key, value in line:gmatch('"([%w_]+)": ([%d.eE+-]+)') do r[key] = tonumber(value) end
  return r.us and r or nil
end

local tail = (" --threads %d --seconds %g"):format(o.threads, o.seconds)
local function side(name, needs, program, script, extra)
  return { name = name, needs = needs, command = function(workload)
    return table.concat({ program, quote(here .. "/" .. script), workload, tail, extra }, " ")
  end }
end
local sides = {
  side("gradrun", nil, quote(arg[-1] or "gradrun"), "train.lua"),
  side("eager", "torch", o.python, "torch_peer.py"),
  side("compiled", "torch", o.python, "torch_peer.py", "--compile"),
  side("jax", "jax, optax", o.python, "jax_peer.py"),
}
local present = {}
for _, s in ipairs(sides) do
  if not s.needs or os.execute(o.python .. " -c 'import " .. s.needs .. "' 2>/dev/null") then
    present[#present + 1] = s
  else
    io.stderr:write(s.name, ": not installed, left out\n")
  end
end

-- ---- the table ----

local function number(v) return v and (v < 100 and ("%.2f"):format(v) or ("%.0f"):format(v)) or "–" end
local function ratio(a, b) return a and b and ("%.2f"):format(a / b) or "–" end
local function row(cells)
  local out = {}
  for i, c in ipairs(cells) do
    local pad = (i == 1 and 16 or 11) - utf8.len(c)
    out[i] = i == 1 and c .. (" "):rep(pad) or (" "):rep(math.max(pad, 1)) .. c
  end
  print(table.concat(out))
end

local function best(a, b) return a and b and math.min(a, b) or a or b end

local disturbed = 0
row { "µs a step", "gradrun", "eager", "compiled", "jax", "÷ PyTorch", "÷ best", "MiB", "MiB eager" }
for _, w in ipairs(names) do
  local us, mib = {}, {}
  for _ = 1, o.rounds do
    for _, s in ipairs(present) do
      local busy = busy_share(0.3)
      if busy > 0.1 then disturbed = math.max(disturbed, busy) end
      local r = run(s.command(w))
      if r then
        us[s.name] = best(us[s.name], r.us)
        mib[s.name] = r.rss_mib
      end
    end
  end
  local torch = best(us.eager, us.compiled)
  row { w, number(us.gradrun), number(us.eager), number(us.compiled), number(us.jax), ratio(us.gradrun, torch),
        ratio(us.gradrun, best(torch, us.jax)), number(mib.gradrun), number(mib.eager) }
  io.stdout:flush()
end
if disturbed > 0 then
  print(("\nThe machine was not idle (up to %.0f %% busy before a run): these ratios are worth nothing.")
    :format(disturbed * 100))
end
