-- The live line of a training run: on a terminal it is redrawn in place; elsewhere a line at the end of an epoch,
-- at most one a second.
local gr = require "gradrun.core"

local progress = {}
progress.__index = progress

local function duration(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  if seconds < 60 then return ("%ds"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(seconds // 60, seconds % 60) end
  return ("%dh%02dm"):format(seconds // 3600, seconds % 3600 // 60)
end

--- progress.new{ epochs = n, steps = steps in an epoch, done = 0 steps done before, quiet = false, out = io.stderr }
-- quiet: notes only.
function progress.new(options)
  return setmetatable({
    epochs = options.epochs, steps = options.steps, before = options.done or 0, quiet = options.quiet,
    out = options.out or io.stderr, columns = gr.terminal(), start = gr.clock(), drawn = -1, samples = 0,
  }, progress)
end

local function measured(s)
  local words = ("loss %.4f"):format(s.loss)
  if s.accuracy then words = words .. ("  accuracy %.4f"):format(s.accuracy) end
  if s.norm then words = words .. ("  gradient %.3g"):format(s.norm) end
  if s.norm_after and s.norm_after ~= s.norm then words = words .. (" → %.3g"):format(s.norm_after) end -- clipped
  return words
end

-- What matters most comes first: a terminal of 80 columns has room as far as the time that is left.
local function text(self, s)
  local now = gr.clock() - self.start
  local done = (s.epoch - 1) * self.steps + s.step
  local left = now / math.max(done - self.before, 1) * (self.epochs * self.steps - done)
  return ("epoch %d/%d  %d/%d  %s  %s left  %.0f samples/s"):format(s.epoch, self.epochs, s.step, self.steps,
    measured(s), duration(left), self.samples / math.max(now, 1e-9))
end

--- Counts a step; draws at most ten times a second. s: {epoch, step, loss}, also {accuracy, norm, norm_after} if known.
function progress:step(s, samples)
  self.samples = self.samples + samples
  if not self.columns or self.quiet then return end
  local now = gr.clock()
  if now - self.drawn < 0.1 and s.step < self.steps then return end
  self.drawn = now
  local line = text(self, s)
  local width = utf8.len(line)
  if width >= self.columns then line = line:sub(1, utf8.offset(line, self.columns) - 1) end
  self.out:write("\r\27[K", line)
  self.out:flush()
end

--- A line of its own above the live one.
function progress:note(words)
  self.out:write(self.columns and not self.quiet and "\r\27[K" or "", words, "\n")
  self.out:flush()
end

--- Ends an epoch: a line that stays, with a remark behind it.
function progress:epoch(s, remark)
  if self.quiet then return end
  local now = gr.clock()
  if not self.columns and now - self.drawn < 1 and s.epoch < self.epochs then return end
  self.drawn = now
  self:note(("epoch %d/%d  %s%s  %s"):format(s.epoch, self.epochs, measured(s), remark and "  " .. remark or "",
    duration(now - self.start)))
end

return progress
