-- Hand-written digits, 8×8 pixels: the small real data set that is shipped (scripts/data/). Under a second.
--   gradrun scripts/digits.lua [--epochs 30]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn = gr.nn

local o = cli.parse(arg, { epochs = 30, seed = 1 })
local here = arg[0]:match("^(.*)/") or "."
local train, test = gr.data.digits(here .. "/data/digits.csv.gz")
if not train then error(test, 0) end

gr.manual_seed(o.seed)
local model = nn.Sequential(
  nn.Conv2d(1, 16, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
  nn.Flatten(), nn.Linear(16 * 16, 64), nn.ReLU(), nn.Linear(64, 10))

local result = gr.fit {
  model = model, train = train, test = test, epochs = o.epochs, batch_size = 32, clip = 1.0,
  optimizer = gr.optim.Adam(model:parameters(), { lr = 0.003 }),
}
print(("test accuracy %.4f"):format(result.accuracy))
