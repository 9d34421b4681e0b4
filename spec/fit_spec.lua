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
      ["fit: model is 3, expected a layer"] = { model = 3 },
      ["fit: optimizer is a table, expected an optimizer"] = { optimizer = {} },
      ["fit: train: loader: x has 4 rows, y has 3"] = { train = { x = gr.ones(4, 64), y = gr.ones(3) } },
      ["fit: train: it has no batch (loader: 3 samples, 0 batches of 8"] = {
        train = gr.data.loader({ x = gr.ones(3, 64), y = gr.ones(3) }, { batch_size = 8, drop_last = true }) },
      ["fit: train: a loader has a batch_size of its own"] = { train = gr.data.loader(train), batch_size = 8 },
      ["fit: test: loader: a set is a table with tensors x and y, a sample a row; here y is nil"] = { test = { x = test.x } },
      ["fit: loss is a Tensor, expected a function"] = { loss = gr.ones(1) },
      ["fit: loss(output, y) gave nil, expected a tensor"] = { loss = function() end },
      ["fit: epochs is 'x', expected a whole number"] = { epochs = "x" },
      ["fit: clip is -1, expected a norm, or a function"] = { clip = -1 },
      ["fit: on_epoch is true, expected a function"] = { on_epoch = true },
      ["fit: save_every is 0, expected a whole number above 0"] = { save_every = 0 },
      ["fit: save is true, expected a folder"] = { save = true },
      ["save: own.f is a function"] = { save = folder(), state = { own = { f = print } } },
    } do
      local given = { model = model, optimizer = optimizer, train = train, quiet = true }
      for k, v in pairs(options) do given[k] = v end
      local steps = optimizer:steps()
      local ok, found = pcall(gr.fit, given)
      assert.is_false(ok, message)
      assert.equal(steps, optimizer:steps(), message)
      assert.truthy(tostring(found):find(message, 1, true), found)
    end
    local dir = folder()
    shell.run("echo damaged > %s/checkpoint.safetensors", dir)
    local ok, found = pcall(gr.fit, { model = model, optimizer = optimizer, train = train, save = dir, resume = true })
    assert.is_false(ok)
    assert.truthy(found:find(dir .. "/checkpoint.safetensors: ", 1, true), found)
    shell.run("rm -r %s", dir)
  end)

  it("has the optimizer's schedules back, asked or not", function()
    local dir, set = folder(), { x = gr.rand(8, 4), y = gr.ones(8):to "i64" }
    local function go(epochs)
      local m, plateau = nn.Linear(4, 2), gr.schedule.plateau(0.5, { patience = 0, threshold = 10 })
      local opt = gr.optim.SGD(m:parameters(), { lr = plateau })
      gr.fit { model = m, optimizer = opt, train = set, save = dir, resume = true, quiet = true, epochs = epochs,
               on_epoch = function(_, r) plateau:report(r.loss) end }
      return plateau()
    end
    assert.near(0.05, go(2), 1e-15)
    assert.near(0.05, go(2), 1e-15)
    assert.near(0.005, go(3), 1e-15)
    shell.run("rm -r %s", dir)
  end)

  it("has the script's numbers and tensors back after resuming, in the tables it gave", function()
    local dir, set = folder(), { x = gr.rand(8, 4), y = gr.ones(8):to "i64" }
    local function go(state, epochs)
      local m = nn.Linear(4, 2)
      gr.fit { model = m, optimizer = gr.optim.SGD(m:parameters()), train = set, save = dir, resume = true, quiet = true,
               epochs = epochs, state = state, on_epoch = function(epoch)
                 state.tries, state.inner.word, state.inner.mean[1] = epoch, "x" .. epoch, epoch
                 state.new = { 1, 2 }
               end }
    end
    local mean = gr.zeros(2)
    go({ tries = 0, inner = { mean = gr.zeros(2) } }, 2)
    local state = { tries = 0, inner = { mean = mean, more = 5 } }
    go(state, 2)
    assert.same({ 2, "x2", 5, { 1, 2 } }, { state.tries, state.inner.word, state.inner.more, state.new })
    assert.same({ 2.0, 0.0 }, mean:totable()) -- the same tensor, filled
    shell.run("rm -r %s", dir)
  end)

  it("lets hooks, losses and clips keep the tensors they see", function()
    local m, kept = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {}
    local function keep(t) kept[#kept + 1] = t end
    m[2].weight:register_hook(function(g) keep(g * 2) end)
    m[2]:register_forward_hook(function(_, _, out) keep(out) end)
    local opt = gr.optim.SGD(m:parameters())
    opt:register_step_hook(function() keep(gr.no_grad(function() return m[2].weight * 1 end)) end)
    gr.fit { model = m, optimizer = opt, train = gr.data.loader(train, { batch_size = 700 }), test = test, quiet = true,
             loss = function(z, y)
               keep(z:detach())
               return gr.nn.functional.cross_entropy(z, y)
             end,
             clip = function(list) keep(list[1].grad:norm()) end }
    assert.truthy(#kept > 15)
    for _, t in ipairs(kept) do assert.truthy(t:numel() > 0) end
  end)

  it("trains what has no classes, and measures its loss", function()
    local x = gr.randn(64, 3)
    local set = { x = x, y = x:sum(2, { keepdim = true }) }
    local m = nn.Linear(3, 1)
    local result = gr.fit { model = m, optimizer = gr.optim.Adam(m:parameters(), { lr = 0.1 }), train = set, test = set,
                            loss = gr.nn.functional.mse_loss, epochs = 30, batch_size = 16, quiet = true }
    assert.is_nil(result.accuracy)
    assert.near(gr.nn.functional.mse_loss(m(x), set.y):item(), result.test_loss, 1e-6)
    assert.truthy(result.best <= result.test_loss and result.best < 0.05, result.best)
    assert.error_matches(function() gr.accuracy(m, set) end, "accuracy: .* classes .* y is f32%[64×1%]")
  end)

  it("leaves each layer in the mode it was in", function()
    local m = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    m[4]:eval() -- frozen
    local mean = m[4].running_mean:clone()
    gr.fit { model = m, optimizer = gr.optim.SGD(m:parameters()), train = train, test = test, quiet = true }
    assert.same({ true, true, false }, { m.training, m[2].training, m[4].training })
    assert.is_true(mean:eq(m[4].running_mean):amin():item() == 1)
    assert.error_matches(function() gr.accuracy(m, { x = gr.ones(2, 3), y = test.y:narrow(1, 1, 2) }) end, "3 features")
    assert.same({ true, true, false }, { m.training, m[2].training, m[4].training })
  end)

  it("measures on a loader's batches, from the first, with its transform", function()
    local m, set = nn.Flatten(), { x = gr.eye(4):neg(), y = gr.arange(1, 5, { dtype = "i64" }) }
    local loader = gr.data.loader(set, { batch_size = 3, shuffle = true, transform = function(x, y) return -x, y end })
    loader:batches()()
    assert.equal(1.0, gr.accuracy(m, loader))
    assert.equal(1, loader.step)
    assert.equal(0.0, gr.accuracy(m, set))
  end)

  it("goes on when it cannot save, and says so", function()
    local dir = folder()
    local out, code = shell.run([[cd %s && rm -rf gone && mkdir gone && %s -e '
      local gr = require "gradrun"
      local set = { x = gr.rand(64, 4), y = gr.ones(64):to "i64" }
      local m = gr.nn.Linear(4, 2)
      local r = gr.fit { model = m, optimizer = gr.optim.SGD(m:parameters()), train = set, save = "gone", epochs = 2,
                         quiet = true, on_epoch = function() os.execute "rm -rf gone" end }
      print(r.not_saved)']], dir, shell.gradrun)
    assert.equal(0, code, out)
    local message = "gone/checkpoint.safetensors: its folder cannot be opened: No such file or directory\n"
    assert.equal(("not saved: " .. message):rep(2) .. message, out)
    shell.run("rm -r %s", dir)
  end)
end)

describe("the progress line", function()
  local progress = require "gradrun.progress"

  local function drawn(columns, f)
    local out = { write = function(self, ...) self[#self + 1] = table.concat { ... } end, flush = function() end }
    local line = progress.new { epochs = 2, steps = 10, out = out }
    line.columns = columns
    f(line)
    return table.concat(out)
  end

  it("shows 80 columns as far as the gradient, with an arrow where it was clipped", function()
    local s = { epoch = 1, step = 10, loss = 0.5, accuracy = 0.75, norm = 2.5, norm_after = 1.0 }
    local text = drawn(80, function(line) line:step(s, 640) end)
    assert.matches("epoch 1/2  10/10  loss 0%.5000  accuracy 0%.7500  gradient 2%.5 → 1  ", text)
    assert.is_true(utf8.len(text:gsub("^\r\27%[K", "")) < 80)
    s.norm_after = s.norm
    assert.matches("gradient 2%.5  %d", drawn(80, function(line) line:step(s, 640) end))
    assert.matches("loss 0%.5000  %ds left", drawn(80, function(line)
      line:step({ epoch = 1, step = 10, loss = 0.5 }, 640)
    end))
  end)

  it("keeps a line of each epoch, and draws no live one where there is no terminal", function()
    local s = { epoch = 1, step = 10, loss = 0.5, norm = 2.5 }
    local text = drawn(nil, function(line)
      line:step(s, 640)
      line:epoch(s, "test loss 0.4")
    end)
    assert.matches("^epoch 1/2  loss 0%.5000  gradient 2%.5  test loss 0%.4  %ds\n$", text)
  end)
end)
