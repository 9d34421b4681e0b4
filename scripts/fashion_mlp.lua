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

local loader = gr.data.loader(train, { batch_size = o.batch, shuffle = true })
local result = gr.fit {
  model = model, train = loader, test = test, epochs = o.epochs, clip = 1.0,
  optimizer = gr.optim.AdamW(model:parameters(), {
    lr = gr.schedule.cosine(o.lr, { steps = o.epochs * #loader }), weight_decay = 0.02,
  }),
}
print(("test accuracy %.4f"):format(result.accuracy))
