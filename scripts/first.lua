-- Exclusive or, by a network of two layers: model, hook, schedule and clip in one page, nothing hidden.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional
gr.manual_seed(1)
local model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
local opt = gr.optim.AdamW(model:parameters(), { lr = 0.05, weight_decay = 0.01 })
local x = gr.tensor{ {0,0}, {0,1}, {1,0}, {1,1} }
local y = gr.tensor{ {0}, {1}, {1}, {0} }
local h = model[1].weight:register_hook(function(g, ctx)      -- a clipping policy is a function
  if g:norm():item() > 1 then return g * (1 / g:norm():item()) end
end)
for step = 1, 300 do
  opt.lr = 0.05 * 0.99 ^ step                                 -- and so is a schedule
  opt:zero_grad()
  local loss = F.mse_loss(model(x), y)
  loss:backward()
  local before = gr.clip.norm_(model:parameters(), 1.0)
  opt:step()
  if step % 100 == 0 then print(step, loss:item(), before) end
end
h:remove()
print(model); print(model(x)); print(model[1].weight.grad.shape)   -- all three readable
