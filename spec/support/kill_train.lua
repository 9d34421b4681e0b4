-- A training run that checkpoints every few steps and goes on from there when started again: what spec/kill_spec.lua
-- kills. gradrun spec/support/kill_train.lua FOLDER. Prints the step it begins with.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local EPOCHS, BATCH, EVERY = 4, 64, 3
local checkpoint, ending = arg[1] .. "/checkpoint.safetensors", arg[1] .. "/end.safetensors"

local set = assert(gr.data.digits "scripts/data/digits.csv.gz")
gr.manual_seed(6)
local net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 10))
local optimizer = gr.optim.AdamW(net:parameters(), { lr = 0.01 })
local at = { epoch = 1, step = 0, losses = {} }

local saved = io.open(checkpoint, "rb")
if saved then
  saved:close()
  at = assert(gr.load(checkpoint, { net = net, optimizer = optimizer })).at
end
print((at.epoch - 1) * (#set.x // BATCH) + at.step)

while at.epoch <= EPOCHS do
  at.order = at.order or gr.permutation(#set.x)
  while at.step < #set.x // BATCH do
    local rows = at.order:narrow(1, at.step * BATCH + 1, BATCH)
    optimizer:zero_grad()
    at.losses[#at.losses + 1] = gr.scope(function()
      local loss = F.cross_entropy(net(set.x:index_select(1, rows)), set.y:index_select(1, rows))
      loss:backward()
      return loss:item()
    end)
    optimizer:step()
    at.step = at.step + 1
    if at.step % EVERY == 0 then assert(gr.save(checkpoint, { net = net, optimizer = optimizer, at = at })) end
  end
  at.epoch, at.step, at.order = at.epoch + 1, 0, nil
end
assert(gr.save(ending, { net = net, optimizer = optimizer, losses = at.losses }))
