-- A clipping policy is a function: each parameter's gradient is held to a norm of its own, and counted.
--   gradrun scripts/clip/per_tensor.lua [--limit 0.2] [--epochs 10]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn = gr.nn

local o = cli.parse(arg, { limit = 0.2, epochs = 10, seed = 1 })
local here = arg[0]:match("^(.*)/") or "."
local train, test = gr.data.digits(here .. "/../data/digits.csv.gz")
if not train then error(test, 0) end

gr.manual_seed(o.seed)
local model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))

local clipped, seen = {}, {}
for name, p in model:named_parameters() do
  p:register_hook(function(g)
    seen[name] = (seen[name] or 0) + 1
    local norm = g:norm():item()
    if norm > o.limit then
      clipped[name] = (clipped[name] or 0) + 1
      return g * (o.limit / norm)
    end
  end, "per-tensor clip")
end

local result = gr.fit {
  model = model, train = train, test = test, epochs = o.epochs, batch_size = 32,
  optimizer = gr.optim.SGD(model:parameters(), { lr = 0.1, momentum = 0.9 }),
}
print "parameter   clipped"
for name in model:named_parameters() do
  print(("%-10s %6.1f %%"):format(name, 100 * (clipped[name] or 0) / seen[name]))
end
print(("test accuracy %.4f"):format(result.accuracy))
