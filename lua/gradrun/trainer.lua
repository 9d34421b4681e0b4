-- gr.fit: the loop around a model, an optimizer and a data set. Everything in it can be written by hand with
-- what the rest of gradrun offers; scripts/first.lua does.
local gr = require "gradrun.core"
local data = require "gradrun.data"
local progress = require "gradrun.progress"

local trainer = {}

local KNOWN = { model = true, optimizer = true, train = true, test = true, loss = true, epochs = true,
                batch_size = true, clip = true, on_epoch = true, quiet = true, save = true, save_every = true,
                resume = true, state = true }

--- Share of right answers of the model on a set; in eval mode, without recording.
function trainer.accuracy(model, set, batch_size)
  local training, right = model.training, 0
  model:eval()
  gr.no_grad(function()
    for x, y in data.loader(set, { batch_size = batch_size or 256 }):batches() do
      gr.scope(function() right = right + model(x):argmax(2):eq(y):sum():item() end)
    end
  end)
  model:train(training)
  return right / #set.x
end

-- clip: a number (largest global norm) or a function(parameters) -> norm before, norm after
local function clipper(clip, parameters)
  if type(clip) == "function" then return function() return clip(parameters) end end
  if clip then
    return function()
      local before, report = gr.clip.norm_(parameters, clip)
      return before, report.norm_after
    end
  end
  return function()
    local norm = gr.clip.measure(parameters)
    return norm, norm
  end
end

-- ---- checkpoints ----------------------------------------------------------------------------------------------

-- What a run is made of; `run` holds its numbers.
local function parts_of(o, loader, run)
  local parts = { model = o.model, optimizer = o.optimizer, data = loader, run = run }
  for k, v in pairs(o.state or {}) do
    if parts[k] then error(("fit: state.%s: that name is fit's own"):format(k), 3) end
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
    if o.resume then error("fit: resume needs save, the folder to resume from", 3) end
    return nil
  end
  local made, message = gr.make_directory(o.save)
  if not made then error("fit: " .. message, 3) end
  return o.save .. "/checkpoint.safetensors"
end

-- Plain values of o.state: what was saved of them goes back into their table.
local function put_back(into, from)
  for k, v in pairs(from) do
    if type(v) == "table" and type(into[k]) == "table" then put_back(into[k], v) else into[k] = v end
  end
end

-- Restores what a run is made of from its checkpoint, if there is one; returns the run's numbers.
local function resume(o, path, loader, run)
  if not exists(path) then return run end
  local loaded, message = gr.load(path, parts_of(o, loader, nil))
  if not loaded then error("fit: " .. message, 3) end
  for name, saved in pairs(loaded) do
    if name ~= "run" and type(saved) == "table" then put_back(o.state[name], saved) end
  end
  return loaded.run
end

-- ---- the loop -----------------------------------------------------------------------------------------------

local function train_step(o, run, clip, x, y)
  local optimizer = o.optimizer
  optimizer:zero_grad()
  local z = o.model(x)
  local loss = o.loss(z, y)
  loss:backward()
  local before, after = clip()
  optimizer:step()
  local s = { loss = loss:item(), accuracy = gr.no_grad(function() return z:argmax(2):eq(y):sum():item() / #y end) }
  run.seen = run.seen + 1
  for k, v in pairs(s) do run[k] = run[k] + (v - run[k]) / math.min(run.seen, 50) end -- of about the last fifty steps
  return before, after
end

--- Trains; returns {accuracy = on the test set after the last epoch, best =, loss =, seconds =}.
-- o.model, o.optimizer, o.train = {x, y} or a loader; o.test; o.loss (cross_entropy); o.epochs (1); o.batch_size (64).
-- o.clip: a number, or a function(parameters) → norm before, norm after; o.on_epoch(epoch, result); o.quiet.
-- o.save: a folder, where checkpoint.safetensors is written after every epoch and every o.save_every (500) steps;
-- o.resume: goes on from there, to the same end bit for bit, or begins if there is none; o.state: more to save, by
-- name (a plateau schedule, the script's own numbers).
function trainer.fit(o)
  for k in pairs(o) do
    if not KNOWN[k] then error(("fit: unknown option '%s'"):format(tostring(k)), 2) end
  end
  o = setmetatable({ loss = o.loss or gr.nn.functional.cross_entropy, epochs = o.epochs or 1,
                     save_every = o.save_every or 500 }, { __index = o })
  local loader = o.train.batches and o.train or data.loader(o.train, { batch_size = o.batch_size, shuffle = true })
  local clip, path = clipper(o.clip, o.model:parameters()), checkpoint_of(o)
  local run = { seen = 0, loss = 0.0, accuracy = 0.0, best = 0.0, test = 0.0, seconds = 0.0 }
  if o.resume then run = resume(o, path, loader, run) end
  local line = not o.quiet and progress.new { epochs = o.epochs, steps = #loader,
    done = (loader.epoch - 1) * #loader + loader.step }
  local start = gr.clock() - run.seconds

  local function save()
    run.seconds = gr.clock() - start
    local ok, message = gr.save(path, parts_of(o, loader, run))
    if not ok and line then line:note("not saved: " .. message) end -- the earlier checkpoint is still there
  end

  o.model:train()
  while loader.epoch <= o.epochs do
    local epoch, before, after = loader.epoch, 0, 0
    local function state(step)
      return { epoch = epoch, step = step, loss = run.loss, accuracy = run.accuracy, norm = before, norm_after = after }
    end
    if loader.step == 0 then run.seen = 0 end
    for x, y, step, steps in loader:batches() do
      before, after = gr.scope(train_step, o, run, clip, x, y)
      if line then line:step(state(step), #y) end
      if path and step % o.save_every == 0 and step < steps then save() end
    end
    if o.test then
      run.test = trainer.accuracy(o.model, o.test)
      run.best = math.max(run.best, run.test)
    end
    if line then line:epoch(state(#loader), o.test and ("test accuracy %.4f"):format(run.test)) end
    run.seconds = gr.clock() - start
    if o.on_epoch then
      o.on_epoch(epoch, { accuracy = run.test, best = run.best, loss = run.loss, seconds = run.seconds })
    end
    if path then save() end
  end
  return { accuracy = o.test and run.test or nil, best = run.best, loss = run.loss, seconds = run.seconds }
end

return trainer
