-- The main job: a convolutional network on Fashion-MNIST (60,000 training images, 10,000 test images).
--   gradrun scripts/fashion_cnn.lua [FOLDER] [--epochs 3] [--batch 64] [--lr 0.002] [--clip 1]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn = gr.nn

local o, rest = cli.parse(arg, { epochs = 3, batch = 64, lr = 0.002, clip = 1.0, seed = 1 })
local train, test = gr.data.fashion_mnist(rest[1])
if not train then error(test, 0) end

gr.manual_seed(o.seed)
local model = nn.Sequential(
  nn.Conv2d(1, 32, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
  nn.Conv2d(32, 64, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
  nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
print(model)

local result = gr.fit {
  model = model, train = train, test = test, epochs = o.epochs, batch_size = o.batch, clip = o.clip,
  optimizer = gr.optim.AdamW(model:parameters(), { lr = o.lr, weight_decay = 0.01 }),
  -- warm up over 200 steps, then half a cosine down to nothing
  schedule = function(step, run)
    return o.lr * math.min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * step / run.steps))
  end,
}
print(("test accuracy %.4f"):format(result.accuracy))
