-- Ops, layers and optimizers against PyTorch: the figures of spec/parity/make.py, in f32 and f64.
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"
local nn, F = gr.nn, gr.nn.functional

local STRIDE, LARGE = 29, 400 -- results of more than LARGE elements are sampled: make.py
-- Relative to the element, or to a tenth of the largest one.
local TOL = { f32 = 1e-5, f64 = 1e-10 }

-- ---- inputs: make.py's draw ---------------------------------------------------------------------------------

local function draw(seed, shape, dtype, scale, shift, below)
  local flat, state = {}, seed
  for i = 1, cases.numel(shape) do
    state = (state * 1103515245 + 12345) % 2147483648
    local v = (state >> 8) % 4097
    flat[i] = below and v % below + 1 or (v - 2048) / 1024 * (scale or 1) + (shift or 0)
  end
  return cases.tensor(flat, shape, dtype)
end

local function input(i, dtype)
  if i.values then return cases.tensor(i.values, i.shape, dtype):requires_grad_(true) end
  if i.dtype == "u8" then return draw(i.seed, i.shape, "i64", nil, nil, i.below):sub(1):to("u8") end
  if i.dtype == "i64" then return draw(i.seed, i.shape, "i64", nil, nil, i.below) end
  return draw(i.seed, i.shape, dtype, i.scale, i.shift):requires_grad_(true)
end

-- ---- comparing ----------------------------------------------------------------------------------------------

local function check(got, want, tol, what)
  if not want then
    assert(not got, what .. ": PyTorch has none")
    return
  end
  assert(got, what .. ": is missing")
  assert(cases.same_shape(got.shape, want.shape), ("%s: shape %s, PyTorch has %s"):format(what,
    cases.shape_text(got.shape), cases.shape_text(want.shape)))
  local flat, largest = cases.flat(got), 0
  if cases.numel(want.shape) == 1 and #want.shape == 0 then flat = { got:item() } end
  for _, w in ipairs(want.v) do
    if math.abs(w) < math.huge then largest = math.max(largest, math.abs(w)) end
  end
  local stride = cases.numel(want.shape) > LARGE and STRIDE or 1
  for k, w in ipairs(want.v) do
    local g = flat[(k - 1) * stride + 1]
    local same = g == w or (g ~= g and w ~= w)
    if not same and not (math.abs(g - w) <= tol * math.max(math.abs(w), largest / 10)) then
      error(("%s: element %s is %.17g, PyTorch has %.17g"):format(what,
        cases.position(want.shape, (k - 1) * stride + 1), g, w), 0)
    end
  end
end

local function options_text(t)
  local keys, parts = {}, {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  for _, k in ipairs(keys) do
    local v = t[k]
    parts[#parts + 1] = k .. "=" .. (type(v) == "table" and "{" .. table.concat(v, ",") .. "}" or tostring(v))
  end
  return table.concat(parts, " ")
end

-- ---- ops ----------------------------------------------------------------------------------------------------

local figures = require "spec.parity.ops"
local by_name, described = {}, {}
for _, op in ipairs(gr.describe().ops) do described[op.name] = op end
for _, row in ipairs(figures) do
  by_name[row.op] = by_name[row.op] or {}
  table.insert(by_name[row.op], row)
end

local function check_op(row, dtype)
  local want, inputs, leaves = row[dtype], {}, {}
  for k, i in ipairs(row.inputs) do inputs[k] = input(i, dtype) end
  local out = cases.call(described[row.op], inputs, next(row.attrs) and row.attrs or nil)[1]
  check(out, want.out, TOL[out.dtype] or TOL[dtype], "the result")
  for k = 1, #inputs do
    if cases.is_float(inputs[k]) and want.grads[k] then leaves[#leaves + 1] = inputs[k] end
  end
  if #leaves == 0 then
    assert(not out.requires_grad or not described[row.op].differentiable, "it has a gradient, in PyTorch it has none")
    return
  end
  local grads = gr.grad(out, leaves, { gradient = draw(row.seed, out.shape, out.dtype) })
  local at = 0
  for k = 1, #inputs do
    if cases.is_float(inputs[k]) and want.grads[k] then
      at = at + 1
      check(grads[at], want.grads[k], TOL[dtype], "the gradient of input " .. k)
    end
  end
end

describe("PyTorch and", function()
  for _, op in ipairs(gr.describe().ops) do
    -- draws have their own statistics; nothing but NaN is computed by fill
    if not op.hidden and op.inputs ~= "" and not cases.draws(op) then
      for _, dtype in ipairs { "f32", "f64" } do
        it(op.name .. " agree in " .. dtype, function()
          assert(by_name[op.name], "there are no figures: add a case to spec/parity/make.py")
          for n, row in ipairs(by_name[op.name]) do
            local ok, message = pcall(check_op, row, dtype)
            if not ok then error(("case %d (%s): %s"):format(n, options_text(row.attrs), message), 0) end
          end
        end)
      end
    end
  end
end)

-- ---- layers -------------------------------------------------------------------------------------------------

-- Parameters in PyTorch's order, drawn from seed, seed + 1, ...
local function set_parameters(model, seed)
  gr.no_grad(function()
    for k, p in ipairs(model:parameters()) do p:copy_(draw(seed + k - 1, p.shape, p.dtype, 0.25)) end
  end)
end

local function in_dtype(dtype, f)
  local was = gr.default_dtype()
  gr.default_dtype(dtype)
  local ok, message = pcall(f)
  gr.default_dtype(was)
  if not ok then error(message, 0) end
end

local function build(row)
  local list = {}
  for k, l in ipairs(row.layers) do
    local args = table.move(l.args, 1, #l.args, 1, {})
    if next(l.options) then args[#args + 1] = l.options end
    list[k] = nn[l.name](table.unpack(args))
  end
  return nn.Sequential(table.unpack(list))
end

local function check_layers(row, dtype)
  local want, tol = row[dtype], TOL[dtype]
  local model = build(row)
  set_parameters(model, row.seed)
  local x, y
  for turn = 0, 1 do
    x = draw(row.seed + 500 + turn, row.shape, dtype):requires_grad_(true)
    y = model(x)
    model:zero_grad()
    y:backward(draw(row.seed + 600 + turn, y.shape, dtype))
  end
  check(y, want.out, tol, "the result")
  check(x.grad, want.input_grad, tol, "the gradient of the input")
  local params, buffers = model:parameters(), model:buffers()
  assert(#params == #want.grads, #params .. " parameters")
  for k, p in ipairs(params) do check(p.grad, want.grads[k], tol, "the gradient of parameter " .. k) end
  assert(#buffers == #want.buffers, #buffers .. " buffers")
  for k, b in ipairs(buffers) do check(b, want.buffers[k], tol, "buffer " .. k) end
  model:eval()
  check(model(x), want.eval, tol, "the result of eval")
end

describe("PyTorch and the layers", function()
  local seen = { Sequential = true, Dropout = true } -- the first runs all others, the second is below
  for n, row in ipairs(require "spec.parity.layers") do
    local names = {}
    for k, l in ipairs(row.layers) do
      names[k], seen[l.name] = l.name .. (next(l.options) and "{" .. options_text(l.options) .. "}" or ""), true
    end
    for _, dtype in ipairs { "f32", "f64" } do
      it(("%d: %s agree in %s"):format(n, table.concat(names, ", "), dtype), function()
        in_dtype(dtype, function() check_layers(row, dtype) end)
      end)
    end
  end
  it("leave none out", function()
    for _, l in ipairs(gr.describe().layers) do
      assert(seen[l.name], "there are no figures for " .. l.name .. ": add a case to spec/parity/make.py")
    end
  end)
end)

-- ---- training -----------------------------------------------------------------------------------------------

-- Rounding grows over ten steps: Adam divides by the root of small second moments.
local TRAIN_TOL = { f32 = 2e-4, f64 = 1e-9 }

local function make_optim(row, params)
  local list = params
  if row.groups then
    list = { { params = { params[1], params[2] } }, { params = { params[3], params[4] }, lr = row.options.lr / 2 } }
  end
  return gr.optim[row.optim](list, row.options)
end

local function check_training(row, dtype)
  local want, tol = row[dtype], TRAIN_TOL[dtype]
  local model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
  set_parameters(model, row.seed)
  local params = model:parameters()
  local opt = make_optim(row, params)
  local x = draw(row.seed + 500, { 12, 4 }, dtype)
  local target = draw(row.seed + 501, { 12 }, "i64", nil, nil, 3)
  local losses, norms = {}, {}
  for step = 1, 10 do
    if step == 6 then
      for _, g in ipairs(opt.groups) do g.lr = g.lr * 0.5 end
    end
    opt:zero_grad()
    local loss = F.cross_entropy(model(x), target)
    loss:backward()
    norms[step] = gr.clip.norm_(params, row.max_norm or math.huge)
    opt:step()
    losses[step] = loss:item()
  end
  check(gr.tensor(losses, { dtype = "f64" }), want.losses, tol, "the losses")
  check(gr.tensor(norms, { dtype = "f64" }), want.norms, tol, "the norms of the gradients")
  for k, p in ipairs(params) do check(p, want.params[k], tol, "parameter " .. k) end
end

describe("ten steps of", function()
  local seen = {}
  for n, row in ipairs(require "spec.parity.training") do
    seen[row.optim] = true
    for _, dtype in ipairs { "f32", "f64" } do
      it(("%s (%s%s%s), trace %d, end where PyTorch does in %s"):format(row.optim, options_text(row.options),
        row.groups and ", two groups" or "", row.max_norm and ", clipped" or "", n, dtype), function()
        in_dtype(dtype, function() check_training(row, dtype) end)
      end)
    end
  end
  it("every optimizer there is", function()
    for _, o in ipairs(gr.describe().optims) do assert(seen[o.name], o.name .. " has no trace in spec/parity/make.py") end
  end)
end)

-- ---- what is drawn ------------------------------------------------------------------------------------------

describe("Dropout", function()
  local n, p = 200000, 0.3
  it("drops a fraction p, scales the rest, and sends the gradient the same way", function()
    gr.manual_seed(7)
    local layer = nn.Dropout(p)
    local x = gr.ones({ n }, { requires_grad = true })
    local y = layer(x)
    y:sum():backward()
    local kept = y:ne(0):sum():item()
    -- five standard deviations: one failure in two million seeds
    assert.is_true(math.abs(kept - (1 - p) * n) < 5 * math.sqrt(n * p * (1 - p)), kept)
    assert.near(1 / (1 - p), y:amax():item(), 1e-6)
    assert.equal(n, y:eq(x.grad):sum():item())
  end)
  it("draws anew at every call, again after the same seed, and nothing in eval", function()
    local layer, x = nn.Dropout(0.5), gr.ones { 1000 }
    gr.manual_seed(3)
    local a, b = layer(x), layer(x)
    gr.manual_seed(3)
    local c = layer(x)
    assert.is_true(a:ne(b):sum():item() > 300)
    assert.equal(0, a:ne(c):sum():item())
    assert.equal(0, layer:eval()(x):ne(x):sum():item())
  end)
end)

-- ---- clips, where PyTorch is right --------------------------------------------------------------------------

describe("gr.clip", function()
  local figures_of_clips = require "spec.parity.clips"
  local norms, cut = figures_of_clips[1], figures_of_clips[2]
  local function leaves()
    local list = {}
    for k, shape in ipairs { { 3, 4 }, { 7 }, {} } do
      list[k] = gr.zeros(shape, { dtype = "f64", requires_grad = true })
      list[k].grad = draw(39 + k, shape, "f64")
    end
    return list
  end
  for k, p in ipairs { 1, 2, 3, math.huge } do
    it("measures, and clips to, the norm of order " .. p, function()
      local list, want = leaves(), norms[k]
      assert.near(want, gr.clip.measure(list, { p = p }), 1e-12 * want)
      assert.near(want, gr.clip.norm_(list, 1.5, { p = p }), 1e-12 * want)
      assert.near(1.5, gr.clip.measure(list, { p = p }), 1e-12)
    end)
  end
  it("cuts by value", function()
    local list = leaves()
    assert.near(norms[2], gr.clip.value_(list, 0.75), 1e-12 * norms[2])
    assert.near(cut, gr.clip.measure(list), 1e-12 * cut)
  end)
end)
