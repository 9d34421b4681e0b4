-- Ops, layers and optimizers against PyTorch: the figures of spec/parity/make.py, in f32 and f64; results,
-- gradients, and gradients of gradients.
package.path = "./?.lua;" .. package.path
local gr = require "gradrun"
local cases = require "spec.support.cases"
local shell = require "spec.support.shell"
local nn, F = gr.nn, gr.nn.functional

local STRIDE, LARGE = 29, 120 -- results of more than LARGE elements are sampled: parity.py
-- Relative to the element, or to a tenth of the largest one.
local TOL, TOL2 = { f32 = 1e-5, f64 = 1e-10 }, { f32 = 1e-4, f64 = 1e-9 }

-- ---- inputs: parity.py's draw -------------------------------------------------------------------------------

local function draw(seed, shape, dtype, scale, shift, below)
  local flat, state = {}, seed
  for i = 1, cases.numel(shape) do
    state = (state * 1103515245 + 12345) % 2147483648
    local v = (state >> 8) % 4097
    flat[i] = below and v % below + 1 or (v - 2048) / 1024 * (scale or 1) + (shift or 0)
  end
  return cases.tensor(flat, shape, dtype)
end

local function input(i, dtype, seed)
  local own = i.dtype or dtype
  if i.values then
    local t = cases.tensor(i.values, i.shape, own)
    return cases.is_float(t) and t:requires_grad_(i.grad ~= false) or t
  end
  if own == "u8" then return draw(seed or i.seed, i.shape, "i64", nil, nil, i.below):sub(1):to("u8") end
  if own == "i64" then return draw(seed or i.seed, i.shape, "i64", nil, nil, i.below) end
  return draw(seed or i.seed, i.shape, dtype, i.scale, i.shift):requires_grad_(i.grad ~= false)
end

-- ---- comparing ----------------------------------------------------------------------------------------------

local function zeros(want) return want and want.all == 0 end

local function check(got, want, tol, what)
  if not want then
    assert(not got or got:eq(0):sum():item() == got:numel(), what .. ": PyTorch has none")
    return
  end
  if not got and zeros(want) then return end
  assert(got, what .. ": is missing")
  assert(cases.same_shape(got.shape, want.shape), ("%s: shape %s, PyTorch has %s"):format(what,
    cases.shape_text(got.shape), cases.shape_text(want.shape)))
  local flat, largest, n = cases.flat(got), 0, cases.numel(want.shape)
  if #want.shape == 0 then flat = { got:item() } end
  local stride = n > LARGE and STRIDE or 1
  local count = want.v and #want.v or (n + stride - 1) // stride
  local function wanted(k) return want.v and want.v[k] or want.all end
  for k = 1, count do
    if math.abs(wanted(k)) < math.huge then largest = math.max(largest, math.abs(wanted(k))) end
  end
  for k = 1, count do
    local g, w = flat[(k - 1) * stride + 1], wanted(k)
    local same = g == w or (g ~= g and w ~= w)
    if not same and not (math.abs(g - w) <= tol * math.max(math.abs(w), largest / 10)) then
      error(("%s: element %s is %.17g, PyTorch has %.17g"):format(what,
        cases.position(want.shape, (k - 1) * stride + 1), g, w), 0)
    end
  end
end

local function check_all(got, want, tol, what)
  assert(#got == #want, ("%d of %s, PyTorch has %d"):format(#got, what, #want))
  for k, w in ipairs(want) do check(got[k], w, type(tol) == "table" and tol[got[k].dtype] or tol, what .. " " .. k) end
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

-- ---- derivatives --------------------------------------------------------------------------------------------

-- Sum over tensors that require a gradient of their elements times fixed weights; nil if there is none.
local function weighted(list, count, seed)
  local sum
  for k = 1, count do
    local t = list[k]
    if t and t.requires_grad then
      local part = (t * draw(seed + k - 1, t.shape, t.dtype)):sum():to "f64"
      sum = sum and sum + part or part
    end
  end
  return sum
end

local function check_derivatives(want, outs, leaves, seed, dtype)
  local loss = weighted(outs, #outs, seed)
  if not loss then
    for k = 1, #want.grads do check(nil, want.grads[k], 0, "the gradient of leaf " .. k) end
    return
  end
  local first = gr.grad(loss, leaves, { create_graph = want.second and true or false, allow_unused = true })
  for k = 1, #want.grads do check(first[k], want.grads[k], TOL[dtype], "the gradient of leaf " .. k) end
  if not want.second then return end
  local again, second = weighted(first, #leaves, seed + 50), {}
  if again then second = gr.grad(again, leaves, { allow_unused = true }) end
  for k = 1, #want.second do check(second[k], want.second[k], TOL2[dtype], "the second derivative by leaf " .. k) end
end

local function leaves_of(list)
  local leaves = {}
  for _, t in ipairs(list) do
    if t.requires_grad then leaves[#leaves + 1] = t end
  end
  return leaves
end

local function in_dtype(dtype, f, ...)
  local was = gr.default_dtype()
  gr.default_dtype(dtype)
  local ok, message = pcall(f, ...)
  gr.default_dtype(was)
  if not ok then error(message, 0) end
end

-- ---- one function for each kind of row: checks[kind](row, row's figures, dtype) --------------------------------

local checks, described = {}, {}
for _, op in ipairs(gr.describe().ops) do described[op.name] = op end

function checks.op(row, want, dtype)
  local inputs = {}
  for k, i in ipairs(row.inputs) do inputs[k] = input(i, dtype) end
  local outs = cases.call(described[row.op], inputs, next(row.attrs) and row.attrs or nil)
  outs = table.move(outs, 1, #want.outs, 1, {}) -- an op may have results that PyTorch's has not
  check_all(outs, want.outs, { f32 = TOL.f32, f64 = TOL[dtype], i64 = 0, u8 = 0 },
    "result")
  check_derivatives(want, outs, leaves_of(inputs), row.seed, dtype)
end

-- Parameters in PyTorch's order, drawn from seed, seed + 1, ...
local function set_parameters(model, seed, scale)
  gr.no_grad(function()
    for k, p in ipairs(model:parameters()) do p:copy_(draw(seed + k - 1, p.shape, p.dtype, scale or 0.25)) end
  end)
end

local function build(row)
  local list = {}
  for k, l in ipairs(row.layers) do
    local args = table.move(l.args, 1, #l.args, 1, {})
    if next(l.options) then args[#args + 1] = l.options end
    list[k] = nn[l.name](table.unpack(args))
  end
  return #list == 1 and list[1] or nn.Sequential(table.unpack(list))
end

function checks.layers(row, want, dtype)
  local model, inputs, outs = build(row), nil, nil
  set_parameters(model, row.seed, row.scale)
  local function call()
    local given = table.move(inputs, 1, #inputs, 1, {})
    if next(row.call_options) then given[#given + 1] = row.call_options end
    return { model(table.unpack(given)) }
  end
  for turn = 0, 1 do
    inputs = {}
    for k, i in ipairs(row.inputs) do inputs[k] = input(i, dtype, row.seed + 500 + 10 * turn + k - 1) end
    outs = call()
  end
  local leaves = leaves_of(inputs)
  table.move(model:parameters(), 1, #model:parameters(), #leaves + 1, leaves)
  check_all(outs, want.outs, TOL[dtype], "result")
  check_derivatives(want, outs, leaves, row.seed + 900, dtype)
  check_all(model:buffers(), want.buffers, TOL[dtype], "buffer")
  model:eval()
  check_all(call(), want.eval, TOL[dtype], "result of eval")
end

-- Rounding grows over ten steps: Adam divides by the root of small second moments.
local TRAIN_TOL = { f32 = 2e-4, f64 = 1e-9 }

function checks.training(row, want, dtype)
  local tol = TRAIN_TOL[dtype]
  local model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
  set_parameters(model, row.seed)
  local params = model:parameters()
  local listed = params
  if row.groups then
    listed = { { params = { params[1], params[2] } }, { params = { params[3], params[4] }, lr = row.options.lr / 2 } }
  end
  local opt = gr.optim[row.optim](listed, row.options)
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
    for _, absent in ipairs(row.absent) do
      if step == absent then params[4].grad = nil end
    end
    norms[step] = gr.clip.norm_(params, row.max_norm or math.huge)
    opt:step()
    losses[step] = loss:item()
  end
  check(gr.tensor(losses, { dtype = "f64" }), want.losses, tol, "the losses")
  check(gr.tensor(norms, { dtype = "f64" }), want.norms, tol, "the norms of the gradients")
  check_all(params, want.params, tol, "parameter")
end

function checks.clips(_, want, dtype)
  local function leaves()
    local list = {}
    for k, shape in ipairs { { 3, 4 }, { 7 }, {} } do
      list[k] = gr.zeros(shape, { dtype = dtype, requires_grad = true })
      list[k].grad = draw(39 + k, shape, dtype)
    end
    return list
  end
  local tol = { f32 = 1e-6, f64 = 1e-12 }
  for k, p in ipairs { 1, 2, 3, math.huge } do
    local list, norm = leaves(), want.norms[k]
    assert.near(norm, gr.clip.measure(list, { p = p }), tol[dtype] * norm)
    assert.near(norm, gr.clip.norm_(list, 1.5, { p = p }), tol[dtype] * norm)
    assert.near(1.5, gr.clip.measure(list, { p = p }), 2 * tol[dtype])
  end
  local list = leaves()
  assert.near(want.norms[2], gr.clip.value_(list, 0.75), tol[dtype] * want.norms[2])
  assert.near(want.cut, gr.clip.measure(list), tol[dtype] * want.cut)
end

-- A loss that falls, stalls, and is noisy: schedules.py's.
local function reported(step)
  return math.exp(-math.min(step, 400) / 150) + 0.05 * draw(step, { 1 }, "f64"):item()
end

function checks.schedule(row, want)
  local names = setmetatable({}, { __index = gr.schedule })
  local rate, step = load("return " .. row.title, "=schedule", "t", names)(), 0
  for _, run in ipairs(want.rates) do
    local w, times = run, 1
    if type(run) == "table" then w, times = run[1], run[2] end
    for _ = 1, times do
      step = step + 1
      local got = rate(step)
      if math.abs(got - w) > 1e-12 * math.abs(w) + 1e-17 then
        error(("step %d: %.17g, PyTorch has %.17g"):format(step, got, w), 0)
      end
      if row.reported then rate:report(reported(step)) end
    end
  end
  assert(step == 1000, step)
end

-- ---- all families --------------------------------------------------------------------------------------------

local function title(row)
  if row.op then return row.op .. " " .. options_text(row.attrs) end
  if row.optim then
    return ("ten steps of %s %s%s%s"):format(row.optim, options_text(row.options), row.groups and ", two groups" or "",
      row.max_norm and ", clipped" or "")
  end
  if not row.layers then return row.title or row.kind end
  local names = {}
  for k, l in ipairs(row.layers) do
    names[k] = l.name .. (next(l.options) and "{" .. options_text(l.options) .. "}" or "")
  end
  return table.concat(names, ", ")
end

local seen = { ops = {}, layers = {}, optims = {} }
for name in shell.run("ls spec/parity/figures"):gmatch "([%w_]+)%.lua" do
  describe("PyTorch agrees: " .. name .. ",", function()
    for n, row in ipairs(dofile("spec/parity/figures/" .. name .. ".lua")) do
      seen.ops[row.op or 0], seen.optims[row.optim or 0] = true, true
      for _, l in ipairs(row.layers or {}) do seen.layers[l.name] = true end
      for _, dtype in ipairs { "f32", "f64" } do
        if row[dtype] then
          it(("%d, %s: %s"):format(n, dtype, title(row)), function()
            in_dtype(dtype, checks[row.kind], row, row[dtype], dtype)
          end)
        end
      end
    end
  end)
end

describe("the figures", function()
  it("leave no op out", function()
    for _, op in ipairs(gr.describe().ops) do
      -- draws have their own statistics; nothing but NaN is computed by fill
      local told = op.hidden or op.inputs == "" or cases.draws(op)
      assert(told or seen.ops[op.name], op.name .. " has no case in spec/parity/cases/")
    end
  end)
  it("leave no layer out", function()
    for _, l in ipairs(gr.describe().layers) do
      local told = l.name == "Sequential" or l.name == "Dropout" -- the first runs all others, the second is below
      assert(told or seen.layers[l.name], l.name .. " has no case in spec/parity/cases/")
    end
  end)
  it("leave no optimizer out", function()
    for _, o in ipairs(gr.describe().optims) do assert(seen.optims[o.name], o.name .. " has no case") end
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
