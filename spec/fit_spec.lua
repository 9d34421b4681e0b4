-- gr.fit: the loop, its checkpoints, what it refuses.
local gr = require "gradrun"
local shell = require "spec.support.shell"
local nn = gr.nn

local train, test = gr.data.digits "scripts/data/digits.csv.gz"

local function folder() return (shell.run("mktemp -d"):gsub("\n", "")) end

-- A run of three epochs of 45 steps; ended by an error before step `stop` of it.
local function run(options)
  gr.manual_seed(3)
  local model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))
  local plateau = gr.schedule.plateau(0.01, { patience = 1, threshold = 10 })
  local optimizer = gr.optim.AdamW(model:parameters(), { lr = plateau })
  local own, steps = { losses = {} }, 0
  optimizer:register_step_pre_hook(function()
    steps = steps + 1
    if steps == options.stop then error "stopped" end
  end)
  local ok, result = pcall(gr.fit, {
    model = model, optimizer = optimizer, train = train, test = test, epochs = 3, batch_size = 32, quiet = true,
    save = options.save, resume = options.resume, save_every = 7, state = { plateau = plateau, own = own },
    on_epoch = function(_, r)
      plateau:report(r.loss)
      own.losses[#own.losses + 1] = r.loss
    end,
  })
  return ok and { accuracy = result.accuracy, best = result.best, loss = result.loss, losses = own.losses, rate = plateau() },
    model, optimizer, result
end

describe("gr.fit", function()
  local whole, model, optimizer = run {}

  it("learns the digits", function()
    assert.truthy(whole.accuracy > 0.9)
    assert.equal(3, #whole.losses)
  end)

  for _, stop in ipairs { 1, 7, 8, 20, 45, 46, 91, 134, 135 } do
    it("goes on to the same end after an end before step " .. stop, function()
      local dir = folder()
      local first, _, _, message = run { save = dir, stop = stop }
      assert.is_false(first)
      assert.matches("stopped", message)
      local again, same_model, same_optimizer = run { save = dir, resume = true }
      assert.same(whole, again)
      assert.is_true(gr.diff(model, same_model).equal)
      assert.is_true(gr.diff(optimizer, same_optimizer).equal)
      shell.run("rm -r %s", dir)
    end)
  end

  it("has nothing left to do when it was done", function()
    local dir = folder()
    run { save = dir }
    local again, same_model = run { save = dir, resume = true, stop = 1 }
    assert.same(whole, again)
    assert.is_true(gr.diff(model, same_model).equal)
    shell.run("rm -r %s", dir)
  end)

  it("says what it cannot use", function()
    for message, options in pairs {
      ["unknown option 'epoch'"] = { epoch = 3 },
      ["resume needs save"] = { resume = true },
      ["state.model: that name is fit's own"] = { save = folder(), state = { model = 1 } },
      ["/proc/nowhere: cannot make this folder: No such file or directory"] = { save = "/proc/nowhere" },
    } do
      local given = { model = model, optimizer = optimizer, train = train, quiet = true }
      for k, v in pairs(options) do given[k] = v end
      local ok, found = pcall(gr.fit, given)
      assert.is_false(ok)
      assert.truthy(tostring(found):find(message, 1, true), found)
    end
    local dir = folder()
    shell.run("echo damaged > %s/checkpoint.safetensors", dir)
    local ok, found = pcall(gr.fit, { model = model, optimizer = optimizer, train = train, save = dir, resume = true })
    assert.is_false(ok)
    assert.truthy(found:find(dir .. "/checkpoint.safetensors: ", 1, true), found)
    shell.run("rm -r %s", dir)
  end)

  it("goes on when it cannot save, and says so", function()
    local dir = folder()
    local out, code = shell.run([[cd %s && rm -rf gone && mkdir gone && %s -e '
      local gr = require "gradrun"
      local set = { x = gr.rand(64, 4), y = gr.ones(64):to "i64" }
      local m = gr.nn.Linear(4, 2)
      gr.fit { model = m, optimizer = gr.optim.SGD(m:parameters()), train = set, save = "gone", epochs = 2,
               on_epoch = function() os.execute "rm -rf gone" end }']], dir, shell.gradrun)
    assert.equal(0, code, out)
    assert.matches("not saved: gone/checkpoint.safetensors: its folder cannot be opened", out)
    shell.run("rm -r %s", dir)
  end)
end)
