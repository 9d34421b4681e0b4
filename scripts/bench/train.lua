-- One complete training step per workload, timed: a JSON line each, with the keys of torch_peer.py.
--   gradrun scripts/bench/train.lua [NAMES…] [--threads 2] [--seconds 2] [--list]
local gr = require "gradrun"
local cli = require "gradrun.cli"

local here = arg[0]:match("^(.*)/") or "."
local W = dofile(here .. "/workloads.lua")
local o, names = cli.parse(arg, { threads = 2, seconds = 2.0, list = false })

if o.list then
  for _, name in ipairs(W.order) do print(("%-20s %s"):format(name, W[name].about)) end
  return
end
for _, name in ipairs(names) do
  if not W[name] then error("unknown workload: " .. name .. "; --list shows them", 0) end
end

local function run(step, n)
  local last
  for _ = 1, n do last = step() end
  return last
end

local function measure(name)
  gr.manual_seed(1)
  local step = W[name].make()
  local last = run(step, 5)
  local t = gr.clock()
  step()
  local per_round = math.max(1, o.seconds / 7 // math.max(gr.clock() - t, 1e-7) // 1)
  local rounds = {}
  for i = 1, 7 do
    t = gr.clock()
    last = run(step, per_round)
    rounds[i] = (gr.clock() - t) / per_round * 1e6
  end
  table.sort(rounds)
  local first = last:detach():flatten()[1]:item()
  print(('{"workload": "%s", "us": %.3f, "us_min": %.3f, "rss_mib": %.1f, "loss": %.6f, "gradrun": "%s", "threads": %d}')
    :format(name, rounds[4], rounds[1], gr.peak_rss() / 2 ^ 20, first, gr.version, gr.threads()))
  io.stdout:flush()
end

gr.threads(o.threads)
for _, name in ipairs(#names > 0 and names or W.order) do measure(name) end
