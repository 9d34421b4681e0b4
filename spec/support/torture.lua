-- One of everything that keeps Lua values for the core, while the collector runs at every few instructions. Prints what
-- came out. Run by spec/torture_spec.lua:  gradrun spec/support/torture.lua [INSTRUCTIONS | allocation]
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local every = arg[1]
if tonumber(every) then debug.sethook(function() collectgarbage() end, "", tonumber(every)) end
-- no pause, and a step as long as a whole cycle: wherever Lua may collect, in the binding's C too, it does
if every == "allocation" then collectgarbage("incremental", 1, 1000, 60) end

local function show(name, ...)
  local list = { ... }
  for i, v in ipairs(list) do list[i] = gr.is_tensor(v) and table.concat(v:reshape({ -1 }):totable(), " ") or tostring(v) end
  print(name, table.concat(list, " | "))
end

local square = gr.func {
  name = "square",
  forward = function(ctx, x) ctx.x = x; return x * x end,
  backward = function(ctx, dy) return dy * ctx.x * 2 end,
}

local Block = nn.layer {
  name = "Block",
  init = function(self, n) self.fc, self.act = nn.Linear(n, n), nn.Tanh() end,
  forward = function(self, x) return x + self.act(self.fc(x)) end,
}

gr.manual_seed(1)
local seen = { grad = 0, forward = 0, backward = 0, step = 0, accumulate = 0 }

local function model()
  local m = nn.Sequential(nn.Linear(3, 4), Block(4), nn.Dropout(0.2), nn.Linear(4, 2))
  m[1].weight:register_hook(function(g, ctx) seen.grad = seen.grad + ctx.step; return g * 0.5 end)
  m[1].bias:register_post_accumulate_grad_hook(function() seen.accumulate = seen.accumulate + 1 end)
  m[2]:register_forward_hook(function(_, _, y) seen.forward = seen.forward + 1; return y * 1 end)
  m[2]:register_backward_hook(function() seen.backward = seen.backward + 1 end)
  return m
end

local m = model()
local opt = gr.optim.AdamW({ { params = m[1]:parameters() }, { params = m[4]:parameters(), lr = 0.02 } }, { lr = 0.01 })
opt:register_step_hook(function() seen.step = seen.step + 1 end)
local x = gr.tensor { { 1, 2, 3 }, { -1, 0, 1 } }
local target = gr.tensor({ 2, 1 }, { dtype = "i64" })

for _ = 1, 3 do
  opt:zero_grad()
  local loss = F.cross_entropy(square(m(x)), target)
  loss:backward()
  local norm = gr.clip.norm_(m:parameters(), 0.5)
  opt:step()
  show("step", loss:item(), norm)
end
show("seen", seen.grad, seen.forward, seen.backward, seen.step, seen.accumulate)
for name, p in m:named_parameters() do show(name, p) end

-- gradients of gradients, through views and an op written in Lua
local a = gr.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "f64", requires_grad = true })
local y = (square(a:transpose())[{ 1, {} }] * a[2]):sum()
local first = gr.grad(y, a, { create_graph = true })
show("second", first, gr.grad(first:sum(), a))

-- results that outlive what they were made from
local out = gr.scope(function()
  local b = gr.ones({ 2, 2 }, { requires_grad = true })
  b:register_hook(function(g) return g * 3 end)
  return (b * b * 2):sum()
end)
show("outlives", out)
out:backward()

-- states to a file and back
local checkpoint = os.tmpname()
assert(gr.save(checkpoint, { m = m, opt = opt, list = { 1.5, "x", [true] = gr.ones(2) } }))
local copy = model()
local again = gr.optim.AdamW({ { params = copy[1]:parameters() }, { params = copy[4]:parameters() } })
local rest = gr.load(checkpoint, { m = copy, opt = again })
show("saved", gr.diff({ m, opt }, { copy, again }), rest.list[1], rest.list[2], rest.list[true])
show("partly", #copy:load_state_dict(gr.dict { ["1.weight"] = gr.zeros(4, 3) }, { partial = true }).missing)
os.remove(checkpoint)

-- errors on the way
show("raised", (pcall(function()
  local bad = gr.func { forward = function(_, t) return t end, backward = function() error { code = 7 } end }
  bad(gr.ones({ 2 }, { requires_grad = true })):sum():backward()
end)))
show("raised", select(2, pcall(function() m(gr.ones { 2, 7 }) end)))
show("printed", #tostring(m), #tostring(x), #tostring(opt))

-- layers of several inputs and outputs, a schedule, batches, a checkpoint
local Reader = nn.layer {
  name = "Reader",
  init = function(self)
    self.embed, self.lstm, self.attend = nn.Embedding(7, 4), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2)
    self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 7)
  end,
  forward = function(self, t)
    local h = self.lstm(self.embed(t))
    return self.head(self.norm(h + self.attend(h, h, h)))
  end,
}
local reader = Reader()
local rate = gr.schedule.plateau(0.05)
local adam = gr.optim.RAdam(reader:parameters(), { lr = rate, weight_decay = function(step) return step / 1000 end })
local rows = gr.permutation(24):sub(1):fmod(7):add(1):reshape(8, 3)
local loader = gr.data.loader({ x = rows, y = rows }, { batch_size = 3, shuffle = true })
local path = os.tmpname()
local function pass()
  for t in loader:batches() do
    adam:zero_grad()
    local loss = F.cross_entropy(reader(t:transpose()):reshape(-1, 7), t:transpose():reshape(-1))
    loss:backward()
    adam:step()
    rate:report(loss:item())
    show("read", loss:item())
  end
end
pass()
assert(gr.save(path, { reader = reader, adam = adam, loader = loader, rate = rate, mine = { 1, { "two" } } }))
pass()
show("rest", assert(gr.load(path, { reader = reader, adam = adam, loader = loader, rate = rate })).mine[2][1])
pass()
os.remove(path)
