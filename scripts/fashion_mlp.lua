-- A dense network 784-256-128-100-10 on Fashion-MNIST; the data set's own table gives 0.8833 for it.
--   gradrun scripts/fashion_mlp.lua [FOLDER] [--epochs 10] [--batch 128] [--lr 0.002]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn = gr.nn

local o, rest = cli.parse(arg, { epochs = 10, batch = 128, lr = 0.002, seed = 1 })
local train, test = gr.data.fashion_mnist(rest[1])
if not train then error(test, 0) end

gr.manual_seed(o.seed)
local model = nn.Sequential(
  nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
  nn.Linear(128, 100), nn.ReLU(), nn.Linear(100, 10))
print(model)

local result = gr.fit {
  model = model, train = train, test = test, epochs = o.epochs, batch_size = o.batch, clip = 1.0,
  optimizer = gr.optim.AdamW(model:parameters(), { lr = o.lr, weight_decay = 0.02 }),
  schedule = function(step, run) return o.lr * 0.5 * (1 + math.cos(math.pi * step / run.steps)) end,
}
print(("test accuracy %.4f"):format(result.accuracy))
