-- Checkpoints: what gr.save writes and gr.load gives back, bit for bit; hostile and unwritable files; other programs'.
local gr = require "gradrun"
local nn = gr.nn

local folder = os.tmpname()
os.remove(folder)
assert(gr.make_directory(folder))
local function path(name) return folder .. "/" .. name end

local function model()
  return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 2))
end

local function train(net, optimizer, steps)
  local x = gr.linspace and gr.arange(24):to("f32"):reshape(4, 6):mul(0.1) or gr.ones(4, 6)
  local y = gr.tensor({ 1, 2, 1, 2 }, "i64")
  for _ = 1, steps do
    optimizer:zero_grad()
    gr.scope(function() nn.functional.cross_entropy(net(x), y):backward() end)
    optimizer:step()
  end
end

describe("bit-exact resume", function()
  for _, kind in ipairs { "SGD", "Adam", "AdamW" } do
    it("holds for " .. kind, function()
      gr.manual_seed(5)
      local net = model()
      local optimizer = gr.optim[kind](net:parameters(), { lr = 0.05 })
      train(net, optimizer, 10)
      assert(gr.save(path "resume", { model = net, optimizer = optimizer }))
      train(net, optimizer, 10)
      local other = model()
      local again = gr.optim[kind](other:parameters(), { lr = 0.9 })
      gr.manual_seed(99)
      assert(gr.load(path "resume", { model = other, optimizer = again }))
      train(other, again, 10)
      assert.is_true(gr.diff(net, other).equal)
      assert.is_true(gr.diff(optimizer, again).equal)
    end)
  end
end)
