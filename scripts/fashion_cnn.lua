-- The main job: a convolutional network on Fashion-MNIST (60,000 training images, 10,000 test images).
--   gradrun scripts/fashion_cnn.lua [FOLDER] [--epochs 3] [--batch 64] [--lr 0.002] [--clip 1] [--save DIR] [--resume]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn = gr.nn

local o, rest = cli.parse(arg, { epochs = 3, batch = 64, lr = 0.002, clip = 1.0, seed = 1, save = cli.TEXT,
  resume = false })
local train, test = gr.data.fashion_mnist(rest[1])
if not train then error(test, 0) end

gr.manual_seed(o.seed)
local model = nn.Sequential(
  nn.Conv2d(1, 32, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
  nn.Conv2d(32, 64, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
  nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
print(model)

-- warm up over 200 steps, then half a cosine down to nothing
local loader = gr.data.loader(train, { batch_size = o.batch, shuffle = true })
local steps = math.max(1, o.epochs * #loader - 200)
local rate = gr.schedule.warmup(gr.schedule.cosine(o.lr, { steps = steps }), { steps = 200 })
local result = gr.fit {
  model = model, train = loader, test = test, epochs = o.epochs, clip = o.clip,
  optimizer = gr.optim.AdamW(model:parameters(), { lr = rate, weight_decay = 0.01 }),
  save = o.save, resume = o.resume,
}
print(("test accuracy %.4f"):format(result.accuracy))
