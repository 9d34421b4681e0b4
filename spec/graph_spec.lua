-- Random graphs: ops of every kind put together, tensors used several times, views of views. However the gradient is
-- computed it must be the one that differences give.
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"

local GRAPHS, STEPS, LARGEST = 60, 14, 48

local function pick(random, list) return list[random:int(1, #list)] end

local function same_shape(random, pool, x)
  local fits = {}
  for _, t in ipairs(pool) do
    if cases.same_shape(t.shape, x.shape) then fits[#fits + 1] = t end
  end
  return pick(random, fits)
end

-- Each makes a tensor from x and perhaps others of the pool, or nil if x does not suit. All are smooth.
local MAKERS = {
  function(x) return x:tanh() end,
  function(x) return x:sigmoid() * x end,
  function(x) return (x * 0.5):exp() end,
  function(x) return (x * x + 1):log() end,
  function(x) return (x * x + 0.5):sqrt() end,
  function(x) return -x end,
  function(x) return x:clone() end,
  function(x) return x:contiguous() * 1.5 end,
  function(x, random, pool) return x + same_shape(random, pool, x) end,
  function(x, random, pool) return x - same_shape(random, pool, x) end,
  function(x, random, pool) return x * same_shape(random, pool, x) end,
  function(x, random, pool) return x / (same_shape(random, pool, x):tanh() + 2) end,
  function(x) return x * x end,
  function(x) return x.rank > 0 and x * x:sum(x.rank, true):tanh() or nil end,
  function(x, random) return x.rank > 0 and x:mean(random:int(1, x.rank)) or nil end,
  function(x, random) return x.rank > 0 and x:sum(random:int(1, x.rank), true) or nil end,
  function(x, random) return x.rank > 0 and x:softmax(random:int(1, x.rank)) or nil end,
  function(x, random) return x.rank > 0 and x:log_softmax(random:int(1, x.rank)) or nil end,
  function(x) return x.rank > 1 and x:transpose(1, x.rank) or nil end,
  function(x) return x.rank == 3 and x:permute { 2, 3, 1 } or nil end,
  function(x) return x:reshape { -1 } end,
  function(x, random) return x.rank < 3 and x:unsqueeze(random:int(1, x.rank + 1)) or nil end,
  function(x) return x.rank < 3 and x:unsqueeze(1):expand(2, table.unpack(x.shape)) or nil end,
  function(x, random)
    local d = x.rank > 0 and random:int(1, x.rank)
    return d and x.shape[d] > 1 and x:narrow(d, 2, x.shape[d] - 1) or nil
  end,
  function(x, random)
    local d = x.rank > 0 and random:int(1, x.rank)
    return d and x.shape[d] > 0 and x:select(d, random:int(1, x.shape[d])) or nil
  end,
  function(x) return x.rank > 0 and x.shape[1] > 2 and x[{ { 1, -1, 2 } }] or nil end,
  function(x, random, pool) return x.rank > 0 and gr.cat({ x, same_shape(random, pool, x), x }, x.rank) or nil end,
  function(x, random, pool) return x.rank < 3 and gr.stack({ x, same_shape(random, pool, x) }, 1) or nil end,
  function(x) return x.rank == 2 and x:matmul(x:transpose()) or nil end,
  function(x, random, pool) return x.rank == 2 and gr.linear(x, same_shape(random, pool, x)) or nil end,
  function(x, random)
    if x.rank == 0 or x.shape[1] == 0 then return nil end
    local at = {}
    for k = 1, 3 do at[k] = random:int(1, x.shape[1]) end
    return gr.index_select(x, gr.tensor(at, { dtype = "i64" }), { dim = 1 })
  end,
  function(x, random)
    local mask = {}
    for k = 1, x:numel() do mask[k] = random:int(0, 1) end
    if #mask == 0 then return nil end
    return gr.where(cases.tensor(mask, x.shape, "u8"), x, x * 3)
  end,
}

-- A number made from the leaves in STEPS random steps; the same steps for the same seed.
local function build(seed, leaves)
  local random, pool, used = cases.random("graph" .. seed), { table.unpack(leaves) }, {}
  for _ = 1, STEPS do
    local y
    repeat
      local x = pick(random, pool)
      y = pick(random, MAKERS)(x, random, pool)
    until y and y:numel() > 0 and y:numel() <= LARGEST
    pool[#pool + 1] = y
  end
  local value
  for k, t in ipairs(pool) do
    used[k] = (t * (0.1 * k)):tanh():sum()
    value = value and value + used[k] or used[k]
  end
  return value
end

local function make_leaves(seed)
  local random, leaves = cases.random("leaves" .. seed), {}
  for k, shape in ipairs { { 2, 3 }, { 3 }, { 2, 2, 2 }, {} } do
    local flat = {}
    for i = 1, cases.numel(shape) do flat[i] = 2 * random:unit() - 1 end
    leaves[k] = cases.tensor(flat, shape, "f64"):requires_grad_(true)
  end
  return leaves
end

-- grads against differences of value(), a number.
local function check_differences(leaves, grads, value)
  local h = 1e-5
  for k, x in ipairs(leaves) do
    local flat, got = x:detach():view { -1 }, cases.flat(grads[k])
    for e = 1, x:numel() do
      local at = flat[e]:item()
      flat[e] = at + h
      local above = value()
      flat[e] = at - h
      local below = value()
      flat[e] = at
      local want = (above - below) / (2 * h)
      if not (math.abs(got[e] - want) <= 2e-6 * math.max(1, math.abs(want))) then
        error(("leaf %d, element %s: %.12g, differences give %.12g"):format(k, cases.position(x.shape, e), got[e], want), 0)
      end
    end
  end
end

-- Some weights times the gradients, summed.
local function weigh(grads)
  local sum
  for k, g in ipairs(grads) do
    local part = (g * (0.3 * k)):sum()
    sum = sum and sum + part or part
  end
  return sum
end

describe("a random graph", function()
  for seed = 1, GRAPHS do
    it("has one gradient, and one of that, seed " .. seed, function()
      collectgarbage "stop"
      local before = gr.memory()
      gr.scope(function()
        local leaves = make_leaves(seed)
        local fast = gr.grad(build(seed, leaves), leaves)
        check_differences(leaves, fast, function()
          return gr.no_grad(function() return build(seed, leaves):item() end)
        end)
        local recorded = gr.grad(build(seed, leaves), leaves, { create_graph = true })
        check_differences(leaves, gr.grad(weigh(recorded), leaves), function()
          return weigh(gr.grad(build(seed, leaves), leaves)):item()
        end)
        local looked = gr.detect_anomaly(function() return gr.grad(build(seed, leaves), leaves) end)
        local alone = gr.grad(build(seed, leaves), leaves[2])
        build(seed, leaves):backward()
        local value = build(seed, leaves)
        value:backward { retain_graph = true }
        value:backward()
        for k, x in ipairs(leaves) do
          assert.is_nil(cases.difference(recorded[k], fast[k], 1e-12))
          assert.is_nil(cases.difference(looked[k], fast[k], 1e-12))
          assert.is_nil(cases.difference(x.grad, fast[k] * 3, 1e-12))
        end
        assert.is_nil(cases.unequal(alone, fast[2]))
      end)
      local after = gr.memory()
      collectgarbage "restart"
      for _, what in ipairs { "tensors", "storages", "nodes", "bytes" } do assert.equal(before[what], after[what], what) end
    end)
  end
end)
