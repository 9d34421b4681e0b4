-- gr.fit: the loop around a model, an optimizer and a data set. Everything in it can be written by hand with
-- what the rest of gradrun offers; scripts/first.lua does.
local gr = require "gradrun.core"
local check = require "gradrun.check"
local checkpoint = require "gradrun.checkpoint"
local data = require "gradrun.data"
local progress = require "gradrun.progress"

local trainer = {}

-- ---- options --------------------------------------------------------------------------------------------------

local function does(...)
  local names = { ... }
  return function(v)
    for _, name in ipairs(names) do if not check.method(v, name) then return false end end
    return true
  end
end

local function of(kind) return function(v) return type(v) == kind end end
local function whole(least) return function(v) return type(v) == "number" and v >= least and v % 1 == 0 end end

local SET = { of "table", "a table with tensors x and y, or a loader" } -- what is wrong in one its loader says
local OPTIONS = {
  model = { does("parameters", "children", "train", "eval"), "a layer" },
  optimizer = { does("zero_grad", "step"), "an optimizer" }, train = SET, test = SET,
  loss = { check.callable, "a function(output, y)" }, on_epoch = { check.callable, "a function(epoch, result)" },
  epochs = { whole(0), "a whole number" }, batch_size = { whole(1), "a whole number above 0" },
  save = { of "string", "a folder" }, save_every = { whole(1), "a whole number above 0" },
  clip = { function(v) return type(v) == "number" and v >= 0 or check.callable(v) end,
           "a norm, or a function(parameters)" },
  quiet = { of "boolean", "true or false" }, resume = { of "boolean", "true or false" },
  state = { of "table", "a table" },
}

local function fail(message, ...) error(("fit: " .. message):format(...), 0) end

local function check_options(o)
  if type(o) ~= "table" then fail("%s where a table of options is expected", gr.shown(o)) end
  local names = {}
  for k in pairs(OPTIONS) do names[#names + 1] = k end
  table.sort(names)
  for k, v in pairs(o) do
    local wanted = OPTIONS[k]
    if not wanted then error(gr.unknown("fit", "option", tostring(k), table.concat(names, " ")), 0) end
    if not wanted[1](v) then fail("%s is %s, expected %s", k, gr.shown(v), wanted[2]) end
  end
  for _, k in ipairs { "model", "optimizer", "train" } do
    if o[k] == nil then fail("%s is missing: %s", k, OPTIONS[k][2]) end
  end
end

-- ---- measuring ------------------------------------------------------------------------------------------------

-- f() with the model in eval mode and without recording; then each of its layers is in its own mode again.
local function evaluating(model, f)
  local modes = {}
  local function remember(layer)
    modes[#modes + 1] = { layer, layer.training }
    for _, child in layer:children() do remember(child) end
  end
  remember(model)
  model:eval()
  local ok, result = pcall(gr.no_grad, f)
  for _, mode in ipairs(modes) do mode[1]:train(mode[2]) end
  if not ok then error(result, 0) end
  return result
end

-- How many of the outputs z[n×k] have the class y[n] on top; nil if they are not outputs and classes.
local function right(z, y)
  if not gr.is_tensor(z) or z.rank ~= 2 or y.rank ~= 1 or #z ~= #y or y.dtype == "f32" or y.dtype == "f64" then
    return nil
  end
  return z:argmax(2):eq(y):sum():item()
end

-- A loader of the samples in order, from the first: of a set, or of a loader's with its transform.
local function in_order(set, batch_size)
  if check.method(set, "batches") and set.set then
    return data.loader(set.set, { batch_size = batch_size or set.batch_size, transform = set.transform })
  end
  return data.loader(set, { batch_size = batch_size or 256 })
end

-- { accuracy = share of right answers, nil if y are no classes; loss = the mean of a sample's, nil without loss }
local function measure(model, loader, loss)
  local counted, total, n = 0, 0.0, #loader.set.x
  evaluating(model, function()
    for x, y in loader:batches() do
      local z = model(x)
      local count = right(z, y)
      counted = counted and count and counted + count
      if loss and not counted then total = total + loss(z, y):item() * #y end
    end
  end)
  return { accuracy = counted and counted / n, loss = not counted and loss and total / n or nil }
end

--- Share of right answers of the model on a set or a loader's, whose y are classes; in eval mode, without recording.
function trainer.accuracy(model, set, batch_size)
  if not OPTIONS.model[1](model) then
    error(("accuracy: the model is %s, expected a layer"):format(gr.shown(model)), 2)
  end
  local ok, loader = pcall(in_order, set, batch_size)
  if not ok then error("accuracy: " .. loader, 2) end
  if #loader == 0 then error("accuracy: the set has no samples", 2) end
  local accuracy = measure(model, loader).accuracy
  if not accuracy then
    error("accuracy: outputs [n×k] and classes y[n] (i64 or u8) are expected; y is " ..
      loader.set.y.dtype .. tostring(loader.set.y.shape), 2)
  end
  return accuracy
end

-- clip: a number (largest global norm) or a function(parameters) → norm before, norm after, if it likes
local function clipper(clip, parameters)
  if type(clip) == "number" then
    return function()
      local before, report = gr.clip.norm_(parameters, clip)
      return before, report.norm_after
    end
  elseif clip then
    return function()
      local before, after = clip(parameters)
      if type(before) ~= "number" then return nil end
      return before, type(after) == "number" and after or before
    end
  end
  return function()
    local norm = gr.clip.measure(parameters)
    return norm, norm
  end
end

-- ---- checkpoints ----------------------------------------------------------------------------------------------

-- The optimizer's schedules that remember something, as a table by "group.name"; nil if there are none.
local function schedules_of(optimizer)
  local held
  for _, s in ipairs(check.method(optimizer, "schedules") and optimizer:schedules() or {}) do
    if check.method(s.schedule, "load_state_dict") then
      held = held or {}
      held[s.group .. "." .. s.name] = s.schedule
    end
  end
  return held
end

-- What a run is made of; `run` holds its numbers.
local function parts_of(o, loader, run)
  local parts = { model = o.model, optimizer = o.optimizer, schedules = schedules_of(o.optimizer), data = loader,
                  run = run }
  for k, v in pairs(o.state or {}) do
    if parts[k] then fail("state.%s: that name is fit's own", k) end
    parts[k] = v
  end
  return parts
end

local function exists(path)
  local f = io.open(path, "rb")
  return f and f:close()
end

-- The file a run saves to, its folder made; nil if it does not save.
local function checkpoint_of(o)
  if not o.save then
    if o.resume then fail "resume needs save, the folder to resume from" end
    return nil
  end
  local made, message = gr.make_directory(o.save)
  if not made then fail("%s", message) end
  return o.save .. "/checkpoint.safetensors"
end

-- The part of v that gr.load puts back by itself; nil if there is none.
local function objects_of(v)
  if check.method(v, "load_state_dict") then return v end
  local objects
  for k, inner in pairs(type(v) == "table" and v or {}) do
    local found = objects_of(inner)
    if found then
      objects = objects or {}
      objects[k] = found
    end
  end
  return objects
end

-- The rest of what was saved of o.state goes back into it: numbers, texts, tensors, tables of them.
local function put_back(into, saved)
  for k, v in pairs(saved) do
    local here = into[k]
    if type(v) == "table" and type(here) == "table" then
      put_back(here, v)
    elseif gr.is_tensor(v) and gr.is_tensor(here) and v.dtype == here.dtype
      and tostring(v.shape) == tostring(here.shape) then
      gr.no_grad(function() here:copy_(v) end)
    else
      into[k] = v
    end
  end
end

-- Restores what a run is made of from its checkpoint, if there is one; returns the run's numbers.
local function resume(o, path, loader, run)
  if not exists(path) then return run end
  local ok, loaded, message = pcall(gr.load, path, objects_of(parts_of(o, loader)))
  if not ok or not loaded then fail("%s", message or loaded) end
  run, loaded.run, loaded.schedules = loaded.run, nil, nil
  if type(run) ~= "table" then fail("%s: it holds no run", path) end
  if o.state then put_back(o.state, loaded) end
  return run
end

-- ---- the loop -----------------------------------------------------------------------------------------------

-- The options with their defaults, the loaders, the file to save to and the run's numbers; raises before anything
-- is trained, or made on the disk.
local function prepare(given)
  check_options(given)
  local o = setmetatable({ loss = given.loss or gr.nn.functional.cross_entropy, epochs = given.epochs or 1,
                           save_every = given.save_every or 500 }, { __index = given })
  local function loader_of(name, make)
    local ok, loader = pcall(make)
    if not ok then fail("%s: %s", name, loader) end
    if #loader == 0 then fail("%s: it has no batch (%s)", name, tostring(loader)) end
    return loader
  end
  local loader = loader_of("train", function()
    if not check.method(o.train, "batches") then
      return data.loader(o.train, { batch_size = o.batch_size, shuffle = true })
    end
    if o.batch_size then error("a loader has a batch_size of its own", 0) end
    return o.train
  end)
  local test = o.test and loader_of("test", function() return in_order(o.test) end)
  local run = { seen = 0, loss = 0.0, seconds = 0.0, test = {} }
  if o.save then checkpoint.check(parts_of(o, loader, run)) end
  local path = checkpoint_of(o)
  if o.resume then run = resume(o, path, loader, run) end
  return o, loader, test, path, run
end

-- Without a gr.scope, though its tensors die with it: hooks, losses and clips may keep what they see. (Measured on
-- scripts/fashion_cnn.lua: as fast, and a peak 1 % higher, as native bytes drive the collector.)
local function train_step(o, run, clip, x, y)
  local optimizer = o.optimizer
  optimizer:zero_grad()
  local z = o.model(x)
  local loss = o.loss(z, y)
  if not gr.is_tensor(loss) then fail("loss(output, y) gave %s, expected a tensor", gr.shown(loss)) end
  loss:backward()
  local before, after = clip()
  optimizer:step()
  local count = gr.no_grad(right, z, y)
  local s = { loss = loss:item(), accuracy = count and count / #y }
  run.seen = run.seen + 1
  for k, v in pairs(s) do -- of about the last fifty steps
    local before_it = run[k] or v
    run[k] = before_it + (v - before_it) / math.min(run.seen, 50)
  end
  return before, after
end

-- Measures on the test set, keeps the best; returns it in words.
local function test_epoch(o, run, test)
  local now = measure(o.model, test, o.loss)
  run.test = now
  if now.accuracy then
    run.best = math.max(run.best or 0.0, now.accuracy)
    return ("test accuracy %.4f"):format(now.accuracy)
  end
  run.best = math.min(run.best or math.huge, now.loss)
  return ("test loss %.4f"):format(now.loss)
end

local function result_of(run)
  return { accuracy = run.test.accuracy, test_loss = run.test.loss, best = run.best, loss = run.loss,
           seconds = run.seconds, not_saved = run.not_saved }
end

--- Trains; returns {accuracy = on the test set after the last epoch, or test_loss if y are no classes; best = of these,
-- loss = of about the last fifty steps, seconds =, not_saved = why the last checkpoint could not be written}.
-- o.model, o.optimizer, o.train = {x, y} or a loader; o.test, either too; o.loss (cross_entropy); o.epochs (1);
-- o.batch_size (64).
-- o.clip: a number, or a function(parameters) → norm before, norm after; o.on_epoch(epoch, result); o.quiet.
-- o.save: a folder, where checkpoint.safetensors is written after every epoch and every o.save_every (500) steps;
-- o.resume: goes on from there, to the same end bit for bit, or begins if there is none. Saved are model, optimizer,
-- its schedules that have a state, the place in the data, and o.state: more, by name, such as the script's own numbers
-- and tensors, which are back in that table after resuming.
function trainer.fit(options)
  local prepared = table.pack(pcall(prepare, options))
  if not prepared[1] then error(prepared[2], 2) end
  local o, loader, test, path, run = table.unpack(prepared, 2, prepared.n)
  local clip = clipper(o.clip, o.model:parameters())
  local line = progress.new { epochs = o.epochs, steps = #loader, quiet = o.quiet,
    done = (loader.epoch - 1) * #loader + loader.step }
  local start = gr.clock() - run.seconds

  local function save()
    run.seconds, run.not_saved = gr.clock() - start, nil
    local ok, message = gr.save(path, parts_of(o, loader, run))
    if ok then return end
    run.not_saved = message -- the earlier checkpoint is still there
    line:note("not saved: " .. message)
  end

  if not o.model.training then o.model:train() end -- layers that a script has set to eval stay so
  while loader.epoch <= o.epochs do
    local epoch, before, after = loader.epoch, nil, nil
    local function state(step)
      return { epoch = epoch, step = step, loss = run.loss, accuracy = run.accuracy, norm = before, norm_after = after }
    end
    if loader.step == 0 then run.seen = 0 end
    for x, y, step, steps in loader:batches() do
      before, after = train_step(o, run, clip, x, y)
      line:step(state(step), #y)
      if path and step % o.save_every == 0 and step < steps then save() end
    end
    local remark = test and test_epoch(o, run, test)
    line:epoch(state(#loader), remark)
    run.seconds = gr.clock() - start
    if o.on_epoch then o.on_epoch(epoch, result_of(run)) end
    if path then save() end
  end
  return result_of(run)
end

return trainer
