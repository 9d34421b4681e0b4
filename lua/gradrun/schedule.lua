-- Schedules: numbers that change while training runs. A schedule is a function(step, state) → number, step counted
-- from 1: `opt.lr = gr.schedule.cosine(0.1, { steps = 1000 })` has it called before every step of the optimizer, and
-- any function will do. These are the usual ones; `value` is the number they start from or reach.
-- With PyTorch's options they give PyTorch's numbers; past their last step they stay where they are.
local gr = require "gradrun.core"
local check = require "gradrun.check"

local schedule = {}

local REQUIRED = {}

-- ---- what they accept -----------------------------------------------------------------------------------------

local function finite(v) return v - v == 0 end
local function count(v) return v >= 1 and v % 1 == 0 end
local function count_from_0(v) return v >= 0 and v % 1 == 0 end
local function share(v) return v >= 0 and v <= 1 end
local function positive(v) return v > 0 and finite(v) end
local function not_negative(v) return v >= 0 and finite(v) end

-- What a number of that name has to be, in whichever schedule it is.
local WANTED = {
  every = { count, "a whole number above 0" }, steps = { count, "a whole number above 0" },
  pct_start = { share, "a share from 0 to 1" }, patience = { count_from_0, "a whole number from 0 on" },
  cooldown = { count_from_0, "a whole number from 0 on" }, div_factor = { positive, "a number above 0" },
  final_div_factor = { positive, "a number above 0" }, threshold = { not_negative, "a number from 0 on" },
  eps = { not_negative, "a number from 0 on" },
  factor = { function(v) return v > 0 and v < 1 end, "a number between 0 and 1" },
}
local ANY = { finite, "a finite number" }

local function want(who, what, v, wanted, level)
  wanted = wanted or WANTED[what] or ANY
  if type(v) ~= "number" or not wanted[1](v) then
    error(("schedule.%s: %s is %s, expected %s"):format(who, what, gr.shown(v), wanted[2]), level or 3)
  end
end

-- Options over their defaults, all of them checked: those that are numbers here, the rest by who asks.
local function options_of(name, given, defaults)
  if given ~= nil and type(given) ~= "table" then
    error(("schedule.%s: %s where a table of options is expected"):format(name, gr.shown(given)), 3)
  end
  local o, known = {}, {}
  for key in pairs(defaults) do known[#known + 1] = key end
  table.sort(known)
  for k, v in pairs(given or {}) do
    if defaults[k] == nil then
      error(("schedule.%s: unknown option '%s' (known: %s)"):format(name, tostring(k), table.concat(known, " ")), 3)
    end
    o[k] = v
  end
  for _, k in ipairs(known) do
    local default = defaults[k]
    if o[k] == nil then
      if default == REQUIRED then error(("schedule.%s: option '%s' is missing"):format(name, k), 3) end
      o[k] = default
    elseif default == REQUIRED or type(default) == "number" then
      want(name, k, o[k], nil, 4)
    end
  end
  return o
end

local function between(from, to, part) return from + (to - from) * part end
local function half_cosine(from, to, part) return to + (from - to) / 2 * (1 + math.cos(math.pi * part)) end

-- ---- functions of the step ------------------------------------------------------------------------------------

--- schedule.constant(value)
function schedule.constant(value, options)
  want("constant", "value", value)
  options_of("constant", options, {})
  return function() return value end
end

--- schedule.step(value, { every = n | at = {n, …}, gamma = 0.1 }): times gamma after every n steps, or after those.
function schedule.step(value, options)
  want("step", "value", value)
  local o = options_of("step", options, { every = 1, at = {}, gamma = 0.1 })
  if not options or (options.every == nil) == (options.at == nil) then
    error("schedule.step: one of the options 'every' and 'at' is wanted", 2)
  end
  if type(o.at) ~= "table" then
    error(("schedule.step: at is %s, expected a table of steps"):format(gr.shown(o.at)), 2)
  end
  local every = options.every
  for _, n in ipairs(o.at) do want("step", "one of 'at'", n, WANTED.steps) end
  return function(step)
    if every then return value * o.gamma ^ ((step - 1) // every) end
    local past = 0
    for _, n in ipairs(o.at) do
      if step > n then past = past + 1 end
    end
    return value * o.gamma ^ past
  end
end

--- schedule.exponential(value, { gamma = }): times gamma at every step.
function schedule.exponential(value, options)
  want("exponential", "value", value)
  local o = options_of("exponential", options, { gamma = REQUIRED })
  return function(step) return value * o.gamma ^ (step - 1) end
end

--- schedule.linear(from, to, { steps = }): from at step 1, to after `steps` steps.
function schedule.linear(from, to, options)
  want("linear", "from", from)
  want("linear", "to", to)
  local o = options_of("linear", options, { steps = REQUIRED })
  return function(step) return between(from, to, math.min(1, (step - 1) / o.steps)) end
end

--- schedule.cosine(value, { steps =, min = 0 }): half a cosine, down to min after `steps` steps.
-- Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", without the restarts.
function schedule.cosine(value, options)
  want("cosine", "value", value)
  local o = options_of("cosine", options, { steps = REQUIRED, min = 0 })
  return function(step) return half_cosine(value, o.min, math.min(1, (step - 1) / o.steps)) end
end

--- schedule.warmup(after, { steps =, from = 1 / steps }): from that share of its first value up to it in `steps`
-- steps, then `after` (a number or a schedule) from its own first step.
function schedule.warmup(after, options)
  local o = options_of("warmup", options, { steps = REQUIRED, from = 0 })
  if type(after) == "number" then
    want("warmup", "after", after)
    after = schedule.constant(after)
  elseif not check.callable(after) then
    error(("schedule.warmup: after is %s, expected a number or a schedule"):format(gr.shown(after)), 2)
  end
  local from = options.from or 1 / o.steps
  local function rate(step, state)
    if step > o.steps then return after(step - o.steps, state) end
    return after(1, state) * between(from, 1, (step - 1) / o.steps)
  end
  if not check.method(after, "state_dict") then return rate end
  return setmetatable({ -- what `after` remembers is saved with this
    state_dict = function() return after:state_dict() end,
    load_state_dict = function(_, saved) after:load_state_dict(saved) end,
  }, { __call = function(_, step, state) return rate(step, state) end })
end

--- schedule.one_cycle(max, { steps =, pct_start = 0.3, div_factor = 25, final_div_factor = 1e4,
-- anneal = "cos" | "linear", three_phase = false }): from max / div_factor up to max, and down to that through
-- final_div_factor.
-- Smith & Topin 2019, "Super-convergence: very fast training of neural networks using large learning rates".
function schedule.one_cycle(max, options)
  want("one_cycle", "max", max)
  local o = options_of("one_cycle", options, { steps = REQUIRED, pct_start = 0.3, div_factor = 25,
                                               final_div_factor = 1e4, anneal = "cos", three_phase = false })
  want("one_cycle", "steps", o.steps, { function(v) return v > 1 end, "a whole number above 1" })
  local bend = o.anneal == "cos" and half_cosine or o.anneal == "linear" and between
  if not bend then
    error(("schedule.one_cycle: anneal is '%s', expected 'cos' or 'linear'"):format(tostring(o.anneal)), 2)
  end
  local first, last, start = max / o.div_factor, o.steps - 1, o.pct_start * o.steps
  local least = first / o.final_div_factor
  local phases = { { start - 1, first, max }, { last, max, least } }
  if o.three_phase then
    phases = { { start - 1, first, max }, { 2 * start - 2, max, first }, { last, first, least } }
  end
  return function(step)
    local at, from = math.min(step - 1, last), 0
    for k, phase in ipairs(phases) do
      if at <= phase[1] or k == #phases then -- a phase of no steps has its end at once
        return bend(phase[2], phase[3], phase[1] > from and (at - from) / (phase[1] - from) or 1)
      end
      from = phase[1]
    end
  end
end

-- ---- plateau: the one with a memory -------------------------------------------------------------------------

local plateau = {}
plateau.__index = plateau

--- schedule.plateau(value, { factor = 0.1, patience = 10, threshold = 1e-4, threshold_mode = "rel" | "abs",
-- cooldown = 0, min = 0, eps = 1e-8, mode = "min" | "max" }): times factor when what is reported has not become better
-- (smaller, or larger) by threshold for more than `patience` reports. `p:report(loss)` once an epoch, or whenever it is
-- measured.
function schedule.plateau(value, options)
  want("plateau", "value", value)
  local o = options_of("plateau", options, { factor = 0.1, patience = 10, threshold = 1e-4, threshold_mode = "rel",
                                             cooldown = 0, min = 0, eps = 1e-8, mode = "min" })
  for name, words in pairs { mode = "min max", threshold_mode = "rel abs" } do
    if type(o[name]) ~= "string" or not (" " .. words .. " "):find(" " .. o[name] .. " ", 1, true) then
      error(("schedule.plateau: %s is '%s', expected one of: %s"):format(name, tostring(o[name]), words), 2)
    end
  end
  local best = o.mode == "min" and math.huge or -math.huge
  return setmetatable({ options = o, value = value, best = best, bad = 0, cooling = 0 }, plateau)
end

function plateau:__call() return self.value end

local function better(self, metric)
  local o, best = self.options, self.best
  local margin = o.threshold * (o.threshold_mode == "rel" and math.abs(best) or 1)
  if best - best ~= 0 then margin = 0 end -- nothing was reported yet
  if o.mode == "min" then return metric < best - margin end
  return metric > best + margin
end

--- Tells it the latest loss (or accuracy, with mode = "max"); true if the value went down.
function plateau:report(metric)
  local o, before = self.options, self.value
  if type(metric) ~= "number" then
    error(("plateau: report(%s), expected a number%s"):format(gr.shown(metric),
      gr.is_tensor(metric) and ": loss:item()" or ""), 2)
  end
  if better(self, metric) then self.best, self.bad = metric, 0 else self.bad = self.bad + 1 end
  if self.cooling > 0 then self.cooling, self.bad = self.cooling - 1, 0 end
  if self.bad > o.patience then
    local lower = math.max(self.value * o.factor, o.min)
    if self.value - lower > o.eps then self.value = lower end
    self.cooling, self.bad = o.cooldown, 0
  end
  return self.value < before
end

function plateau:state_dict()
  return { value = self.value, best = self.best, bad = self.bad, cooling = self.cooling }
end

function plateau:load_state_dict(state)
  if type(state) ~= "table" then error(("plateau: a state is a table; this is %s"):format(gr.shown(state)), 2) end
  for _, k in ipairs { "value", "best", "bad", "cooling" } do
    if type(state[k]) ~= "number" then error(("plateau: the state has no '%s'"):format(k), 2) end
  end
  self.value, self.best, self.bad, self.cooling = state.value, state.best, state.bad, state.cooling
end

return schedule
