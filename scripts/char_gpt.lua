-- A small transformer that learns to write as a text file does, byte by byte, and shows it: half a minute.
--   gradrun scripts/char_gpt.lua [README.md] [--steps 500] [--length 400] [--temperature 0.8]
local gr = require "gradrun"
local cli = require "gradrun.cli"
local nn, F = gr.nn, gr.nn.functional

local o, rest = cli.parse(arg, { steps = 500, batch = 16, lr = 0.001, context = 128, width = 128, heads = 4, layers = 4,
  length = 400, temperature = 0.8, seed = 1 })
local here = arg[0]:match("^(.*)/") or "."
local file, why = io.open(rest[1] or here .. "/../README.md", "rb")
if not file then error(why, 0) end
local text = file:read("a")
file:close()
if #text < 2 * o.context then error("the text is shorter than " .. 2 * o.context .. " bytes", 0) end

-- ---- text as classes, and back ----

local class, byte, tokens = {}, {}, {}
for i = 1, #text do
  local b = text:byte(i)
  if not class[b] then
    byte[#byte + 1] = string.char(b)
    class[b] = #byte
  end
  tokens[i] = class[b]
end
tokens = gr.tensor(tokens, { dtype = "i64" })

-- Pieces of context + 1 bytes from anywhere: what is read, and at each place what comes next.
local function draw()
  local starts = gr.rand(o.batch, 1):mul(#text - o.context):to "i64"
  local at = starts + gr.arange(1, o.context + 2, { dtype = "i64" })
  local piece = tokens:index_select(1, at:view(-1)):view(o.batch, o.context + 1)
  return piece:narrow(2, 1, o.context), piece:narrow(2, 2, o.context)
end

-- ---- the model ----

local Block = nn.layer {
  name = "Block",
  init = function(self)
    self.norm1, self.norm2 = nn.LayerNorm(o.width), nn.LayerNorm(o.width)
    self.attention = nn.MultiheadAttention(o.width, o.heads, { batch_first = true })
    self.dense = nn.Sequential(nn.Linear(o.width, 4 * o.width), nn.GELU(), nn.Linear(4 * o.width, o.width))
  end,
  forward = function(self, x)
    x = x + self.attention(self.norm1(x), { is_causal = true })
    return x + self.dense(self.norm2(x))
  end,
}

local Gpt = nn.layer {
  name = "Gpt",
  init = function(self)
    local blocks = {}
    for i = 1, o.layers do blocks[i] = Block() end
    self.token, self.place = nn.Embedding(#byte, o.width), nn.Embedding(o.context, o.width)
    self.blocks = nn.Sequential(blocks)
    self.norm, self.head = nn.LayerNorm(o.width), nn.Linear(o.width, #byte)
  end,
  forward = function(self, x)
    local places = self.place.weight:narrow(1, 1, x.shape[2])
    return self.head(self.norm(self.blocks(self.token(x) + places)))
  end,
}

gr.manual_seed(o.seed)
local model = Gpt()
local parameters = model:parameters()
local opt = gr.optim.AdamW(parameters, { lr = gr.schedule.cosine(o.lr, { steps = o.steps }), weight_decay = 0.1 })

-- ---- training ----

local started = gr.clock()
for step = 1, o.steps do
  gr.scope(function()
    local x, y = draw()
    opt:zero_grad()
    local loss = F.cross_entropy(model(x):view(-1, #byte), y:reshape(-1))
    loss:backward()
    gr.clip.norm_(parameters, 1.0)
    opt:step()
    if step == 1 or step % 50 == 0 then
      print(("step %4d  loss %.3f  %5.1f s"):format(step, loss:item(), gr.clock() - started))
    end
  end)
end

-- ---- a sample ----

local function pick(probabilities)
  local left = gr.rand(1):item()
  for i, p in ipairs(probabilities:totable()) do
    left = left - p
    if left < 0 then return i end
  end
  return probabilities:argmax():item()
end

model:eval()
io.write "\n"
local seen = { tokens[1]:item() }
for _ = 1, o.length do
  io.write(byte[seen[#seen]])
  seen[#seen + 1] = gr.scope(function()
    return gr.no_grad(function()
      local x = gr.tensor({ table.move(seen, math.max(1, #seen - o.context + 1), #seen, 1, {}) }, { dtype = "i64" })
      return pick((model(x)[{ 1, -1 }] * (1 / o.temperature)):softmax())
    end)
  end)
end
print()
