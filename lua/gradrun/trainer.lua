-- gr.fit: the loop around a model, an optimizer and a data set. Everything in it can be written by hand with
-- what the rest of gradrun offers; scripts/first.lua does.
local gr = require "gradrun.core"
local data = require "gradrun.data"
local progress = require "gradrun.progress"

local trainer = {}

local KNOWN = { model = true, optimizer = true, train = true, test = true, loss = true, epochs = true, batch_size = true,
                clip = true, schedule = true, on_epoch = true, quiet = true }

--- Share of right answers of the model on a set; in eval mode, without recording.
function trainer.accuracy(model, set, batch_size)
  local training, right = model.training, 0
  model:eval()
  gr.no_grad(function()
    for x, y in data.batches(set, { batch_size = batch_size or 256 }) do
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

--- Trains; returns {accuracy = on the test set after the last epoch, best =, loss =, seconds =}.
-- o.model, o.optimizer, o.train = {x, y}; o.test; o.loss (cross_entropy); o.epochs (1); o.batch_size (64);
-- o.clip; o.schedule = function(step, state) → rate, state = {steps, epoch, loss}; o.on_epoch(epoch, result).
function trainer.fit(o)
  for k in pairs(o) do
    if not KNOWN[k] then error(("fit: unknown option '%s'"):format(tostring(k)), 2) end
  end
  local model, optimizer, loss_fn = o.model, o.optimizer, o.loss or gr.nn.functional.cross_entropy
  local epochs, size = o.epochs or 1, o.batch_size or 64
  local parameters = model:parameters()
  local clip = clipper(o.clip, parameters)
  local steps = (#o.train.x + size - 1) // size
  local line = not o.quiet and progress.new { epochs = epochs, steps = steps }
  local state = { steps = epochs * steps, epoch = 1 }
  local result, start = { best = 0 }, gr.clock()

  local function train_step(x, y, step)
    if o.schedule then optimizer.lr = o.schedule((state.epoch - 1) * steps + step, state) end
    optimizer:zero_grad()
    local z = model(x)
    local loss = loss_fn(z, y)
    loss:backward()
    local before, after = clip()
    optimizer:step()
    state.loss = loss:item()
    return { epoch = state.epoch, step = step, loss = state.loss, norm = before, norm_after = after,
             accuracy = gr.no_grad(function() return z:argmax(2):eq(y):sum():item() / #y end) }
  end

  model:train()
  for epoch = 1, epochs do
    state.epoch = epoch
    local s, mean = nil, { loss = 0, accuracy = 0 }
    for x, y, step in data.batches(o.train, { batch_size = size, shuffle = true }) do
      s = gr.scope(train_step, x, y, step)
      for k in pairs(mean) do
        mean[k] = mean[k] + (s[k] - mean[k]) / math.min(step, 50) -- of about the last fifty steps
        s[k] = mean[k]
      end
      if line then line:step(s, #y) end
    end
    result.loss = s.loss
    if o.test then
      result.accuracy = trainer.accuracy(model, o.test)
      result.best = math.max(result.best, result.accuracy)
    end
    result.seconds = gr.clock() - start
    if line then line:epoch(s, o.test and ("test accuracy %.4f"):format(result.accuracy)) end
    if o.on_epoch then o.on_epoch(epoch, result) end
  end
  return result
end

return trainer
