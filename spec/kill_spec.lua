-- Runs killed with SIGKILL at random moments and started again end with the same bits as one that never stopped:
-- weights, running statistics, optimizer state, losses, random state. KILLS: how many runs are killed (10).
local gr = require "gradrun"
local shell = require "spec.support.shell"

local KILLS = tonumber(os.getenv "KILLS") or 10
local top = shell.run("mktemp -d"):gsub("\n", "")

local seed = 4
local function random() -- in [0, 1)
  seed = (seed * 1103515245 + 12345) % (1 << 31)
  return (seed >> 8) / (1 << 23)
end

local function exists(path)
  local f = io.open(path, "rb")
  return f ~= nil and f:close()
end

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read("a")
end

-- Starts or goes on with the run in the folder, killed after so many seconds (nil: not). Returns whether it was, the
-- step it began with, and how long it took.
local function run(folder, seconds)
  local start = gr.clock()
  local kill = seconds and ("timeout -s KILL %.4f "):format(seconds) or ""
  local out, code = shell.run("exec %s%s spec/support/kill_train.lua %s", kill, shell.gradrun, folder)
  assert(code == 0 or (code == 137 and seconds), out)
  return code ~= 0, tonumber(out:match "^%d+") or 0, gr.clock() - start
end

describe("a run that is killed", function()
  teardown(function() shell.run("rm -rf %s", top) end)

  it("and goes on ends as one that never was", function()
    local straight, whole = top .. "/straight", math.huge
    for _ = 1, 2 do -- the shorter of two, to spread the kills over it
      shell.run("rm -rf %s; mkdir %s", straight, straight)
      whole = math.min(whole, (select(3, run(straight))))
    end
    local want = read(straight .. "/end.safetensors")
    local endings, kills, within, resumed = 0, 0, 0, 0
    while endings < KILLS or (resumed == 0 and endings < 10 * KILLS) do -- where starting takes long, few get far
      local folder, before, killed, step = ("%s/%d"):format(top, endings), kills, nil, nil
      local times = endings % 4 == 3 and 3 or 1 -- most are killed once, some three times
      shell.run("rm -rf %s; mkdir %s", folder, folder)
      for _ = 1, times do
        killed, step = run(folder, random() * whole / times)
        if killed then kills = kills + 1 end
        if step > 0 then resumed = resumed + 1 end
        if exists(folder .. "/checkpoint.safetensors.saving") then within = within + 1 end
        if exists(folder .. "/checkpoint.safetensors") then assert(gr.load(folder .. "/checkpoint.safetensors")) end
      end
      killed, step = run(folder)
      assert.is_false(killed)
      if step > 0 then resumed = resumed + 1 end
      assert.is_true(want == read(folder .. "/end.safetensors"), ("run %d ended with other bits"):format(endings))
      assert.is_false(exists(folder .. "/checkpoint.safetensors.saving"))
      if kills > before then endings = endings + 1 end -- or it was over before its time came
    end
    print(("# %d kills, %d of them inside a save; %d starts from a checkpoint; %d equal endings"):format(
      kills, within, resumed, endings))
    assert.is_true(resumed > 0)
    if KILLS >= 100 then assert.is_true(within > 0) end
  end)
end)
