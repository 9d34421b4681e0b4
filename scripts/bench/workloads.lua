-- The workloads of the speed table, one function each: it builds and returns a step, which returns the loss.
-- Models, shapes, losses, clips and optimizers are those of torch_peer.py beside this file.
local gr = require "gradrun"
local nn, F = gr.nn, gr.nn.functional

local W = { order = {} }

local function workload(name, about, make)
  W.order[#W.order + 1] = name
  W[name] = { about = about, make = make }
end

local function mlp_sizes(sizes, act)
  local layers = {}
  for i = 1, #sizes - 1 do
    layers[#layers + 1] = nn.Linear(sizes[i], sizes[i + 1])
    if i < #sizes - 1 then layers[#layers + 1] = (act or nn.ReLU)() end
  end
  return nn.Sequential(layers)
end

local function classes(n, count) return gr.rand(n):mul_(count):to("i64"):add_(1) end -- 1 .. count

local function trainer(model, loss_fn, opt, limit)
  local parameters = model:parameters()
  return function()
    opt:zero_grad()
    local loss = loss_fn()
    loss:backward()
    if limit then gr.clip.norm_(parameters, limit) end
    opt:step()
    return loss
  end
end

workload("tiny_mlp", "10-5-1 ReLU regression, batch 100, plain SGD: the overhead workload.", function()
  local m = mlp_sizes { 10, 5, 1 }
  local x, y = gr.randn(100, 10), gr.randn(100, 1)
  return trainer(m, function() return F.mse_loss(m(x), y) end, gr.optim.SGD(m:parameters(), { lr = 0.1 }))
end)

local function classifier(sizes, batch)
  local m = mlp_sizes(sizes)
  local x, y = gr.randn(batch, 784), classes(batch, 10)
  return trainer(m, function() return F.cross_entropy(m(x), y) end, gr.optim.Adam(m:parameters(), { lr = 1e-3 }), 1.0)
end

workload("mlp", "784-256-128-10 ReLU classifier, batch 64, Adam, global-norm clip 1.", function()
  return classifier({ 784, 256, 128, 10 }, 64)
end)

workload("mlp_wide", "784-2048-2048-10 ReLU classifier, batch 256, Adam, clip 1: GEMM-bound.", function()
  return classifier({ 784, 2048, 2048, 10 }, 256)
end)

workload("deep_hooks", "50 layers of 64 tanh units, batch 64, SGD, one script hook per parameter.", function()
  local sizes = {}
  for i = 1, 51 do sizes[i] = 64 end
  local m = mlp_sizes(sizes, nn.Tanh)
  local x, y = gr.randn(64, 64), gr.randn(64, 64)
  for _, p in ipairs(m:parameters()) do p:register_hook(function(g) return g:clamp(-1.0, 1.0) end) end
  return trainer(m, function() return F.mse_loss(m(x), y) end, gr.optim.SGD(m:parameters(), { lr = 0.01 }))
end)

workload("cnn", "Two 3x3 convolutions (32, 64) with pooling and two dense layers on 28x28, batch 64.", function()
  local m = nn.Sequential(
    nn.Conv2d(1, 32, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
  local x, y = gr.randn(64, 1, 28, 28), classes(64, 10)
  return trainer(m, function() return F.cross_entropy(m(x), y) end, gr.optim.Adam(m:parameters(), { lr = 1e-3 }), 1.0)
end)

local Block = nn.layer {
  name = "Block",
  init = function(self, cin, cout, stride)
    self.c1 = nn.Conv2d(cin, cout, 3, { stride = stride, padding = 1, bias = false })
    self.b1 = nn.BatchNorm2d(cout)
    self.c2 = nn.Conv2d(cout, cout, 3, { padding = 1, bias = false })
    self.b2 = nn.BatchNorm2d(cout)
    if stride ~= 1 or cin ~= cout then
      self.skip = nn.Sequential(nn.Conv2d(cin, cout, 1, { stride = stride, bias = false }), nn.BatchNorm2d(cout))
    end
  end,
  forward = function(self, x)
    local y = F.relu(self.b1(self.c1(x)))
    y = self.b2(self.c2(y))
    return F.relu(y + (self.skip and self.skip(x) or x))
  end,
}

local ResNet20 = nn.layer {
  name = "ResNet20",
  init = function(self)
    self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, { padding = 1, bias = false }), nn.BatchNorm2d(16), nn.ReLU())
    local blocks, cin = {}, 16
    for k, cout in ipairs { 16, 16, 16, 32, 32, 32, 64, 64, 64 } do
      blocks[k] = Block(cin, cout, cout == cin and 1 or 2)
      cin = cout
    end
    self.blocks = nn.Sequential(blocks)
    self.head = nn.Linear(64, 10)
  end,
  forward = function(self, x) return self.head(self.blocks(self.stem(x)):mean { 3, 4 }) end,
}

workload("resnet20", "ResNet-20 with batch norm on 3x32x32, batch 64, SGD momentum 0.9, weight decay.", function()
  local m = ResNet20()
  local x, y = gr.randn(64, 3, 32, 32), classes(64, 10)
  local opt = gr.optim.SGD(m:parameters(), { lr = 0.1, momentum = 0.9, weight_decay = 1e-4 })
  return trainer(m, function() return F.cross_entropy(m(x), y) end, opt)
end)

local about_char_lstm = "Two-layer LSTM (256) language model, 64 steps x batch 32, vocabulary 96, clip 0.25."
workload("char_lstm", about_char_lstm, function()
  local m = nn.Sequential(nn.Embedding(96, 64), nn.LSTM(64, 256, 2), nn.Linear(256, 96))
  local x, y = classes({ 64, 32 }, 96), classes(64 * 32, 96)
  local opt = gr.optim.Adam(m:parameters(), { lr = 2e-3 })
  return trainer(m, function() return F.cross_entropy(m(x):view(-1, 96), y) end, opt, 0.25)
end)

local GptBlock = nn.layer {
  name = "GptBlock",
  init = function(self, d, h)
    self.heads = h
    self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
    self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
    self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
  end,
  forward = function(self, x)
    local b, t, d = table.unpack(x.shape)
    local qkv = self.qkv(self.n1(x))
    local function heads(i) return qkv:narrow(3, i * d + 1, d):view(b, t, self.heads, d // self.heads):transpose(2, 3) end
    local a = F.scaled_dot_product_attention(heads(0), heads(1), heads(2), { is_causal = true })
    x = x + self.proj(a:transpose(2, 3):reshape(b, t, d))
    return x + self.down(F.gelu(self.up(self.n2(x))))
  end,
}

local Gpt = nn.layer {
  name = "Gpt",
  init = function(self, vocab, d, h, layers, context)
    local blocks = {}
    for i = 1, layers do blocks[i] = GptBlock(d, h) end
    self.tok, self.pos = nn.Embedding(vocab, d), nn.Embedding(context, d)
    self.blocks = nn.Sequential(blocks)
    self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocab)
  end,
  forward = function(self, x)
    local places = self.pos.weight:narrow(1, 1, x.shape[2])
    return self.head(self.norm(self.blocks(self.tok(x) + places)))
  end,
}

workload("gpt", "Four pre-norm transformer blocks (128 wide, 4 heads), context 128, batch 16, AdamW, clip 1.", function()
  local m = Gpt(96, 128, 4, 4, 128)
  local x, y = classes(16 * 128, 96):view(16, 128), classes(16 * 128, 96)
  local opt = gr.optim.AdamW(m:parameters(), { lr = 3e-4 })
  return trainer(m, function() return F.cross_entropy(m(x):view(-1, 96), y) end, opt, 1.0)
end)

workload("clip_adamw_10m", "Global-norm clip and AdamW alone over ten 1000x1000 parameters: memory-bound.", function()
  local ps = {}
  for i = 1, 10 do
    ps[i] = gr.randn({ 1000, 1000 }, { requires_grad = true })
    ps[i].grad = gr.randn(1000, 1000)
  end
  local opt = gr.optim.AdamW(ps, { lr = 1e-4 })
  return function()
    gr.clip.norm_(ps, 1.0)
    opt:step()
    return ps[1]:sum()
  end
end)

workload("op_add", "z = a + b on ten elements, recorded for backward: dispatch overhead alone.", function()
  local a, b = gr.randn({ 10 }, { requires_grad = true }), gr.randn(10)
  return function() return a + b end
end)

local about_layernorm_softmax = "LayerNorm then softmax over 4096x1024, forward and backward: bandwidth-bound."
workload("layernorm_softmax", about_layernorm_softmax, function()
  local x = gr.randn({ 4096, 1024 }, { requires_grad = true })
  local n = nn.LayerNorm(1024)
  local g = gr.randn(4096, 1024)
  return function()
    x.grad = nil
    n:zero_grad()
    local y = F.softmax(n(x), -1)
    y:backward(g)
    return y:sum()
  end
end)

return W
