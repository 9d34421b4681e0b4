-- Exchange of tensors with Python's safetensors and PyTorch, both ways.
local gr = require "gradrun"
local shell = require "spec.support.shell"
local exact = require "spec.support.exact"
local python = require "spec.support.python"
local nn = gr.nn

local folder = shell.run("mktemp -d"):gsub("\n", "")
local function path(name) return folder .. "/" .. name end

teardown(function() shell.run("rm -rf %s", folder) end)

-- The same network as spec/interop/make.py's; our names count from 1.
local function torch_network()
  return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
    nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)))
end

-- The tensors whose names begin so, without that.
local function part(dict, prefix)
  local d = gr.dict()
  for name, t in pairs(dict) do
    if name:sub(1, #prefix) == prefix then d[name:sub(#prefix + 1)] = t end
  end
  return d
end

local function runs_as_torch_does(dict, metadata)
  local net, state = torch_network(), part(dict, "net.")
  assert.same({ "2.num_batches_tracked" }, net:load_state_dict(state, { partial = true }).unexpected)
  state["2.num_batches_tracked"] = nil
  net:load_state_dict(state)
  net:eval()
  local y = gr.no_grad(function() return net(dict.x) end)
  assert.near(0, (y - dict.y):abs():amax():item(), 2e-6)
  for name, t in pairs(part(dict, "dtypes.")) do
    local unsigned = name:find "^u" ~= nil
    local want = name == "bool" and { 0, 0, 1, 1, 1 } or name:find "int" and { 0, 0, 1, unsigned and 2 or -2, 100 }
      or { 0, -0.0, 1.5, -2, 100 }
    assert.same(want, t:totable())
    local dtype = ({ bool = "u8", uint8 = "u8", float64 = "f64" })[name] or name:find "int" and "i64" or "f32"
    assert.equal(dtype, t.dtype, name)
  end
  assert.same({ 0, 3 }, { table.unpack(dict.empty.shape) })
  assert.equal(2.5, dict.scalar:item())
  assert.same({ format = "pt", text = "größer als 😀" }, metadata)
end

describe("PyTorch", function()
  it("writes files that are read", function()
    runs_as_torch_does(gr.load("spec/interop/torch.safetensors", { index_base = 0 }))
  end)

  it("counts from 0, and is told so", function()
    local dict = gr.load "spec/interop/torch.safetensors"
    assert.is_not_nil(dict["net.0.weight"])
    assert.error_matches(function() torch_network():load_state_dict(part(dict, "net.")) end, "index_base = 0")
    assert.error_matches(function() gr.save(path "zero", dict, { index_base = 0 }) end, "counts from 0 already")
    local v, message = gr.load("spec/interop/torch.safetensors", { net = torch_network() })
    assert.is_nil(v)
    assert.matches("it holds no 'net' %(it is one state dict", message)
  end)

  it("is given names that count from 0, which come back as ours", function()
    local m = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1)))
    gr.save(path "base", { model = m, ["10"] = { gr.ones(1), gr.ones(2) }, ["01"] = gr.ones(3) }, { index_base = 0 })
    local names = {}
    for name in pairs((gr.safetensors.read(path "base"))) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "01", "9.0", "9.1", "model.0.bias", "model.0.weight", "model.1.0.bias", "model.1.0.weight" }, names)
    for _, options in ipairs { {}, { index_base = 0 }, { index_base = 1 } } do
      local back = gr.load(path "base", options)
      assert.is_true(gr.diff(m, back.model).equal)
      assert.equal(2, #back["10"][2])
    end
    gr.save(path "base", m, { index_base = 0 })
    assert.is_true(gr.diff(m, gr.load(path "base")).equal)
  end)

  local test = python and it or pending
  test("reads what is saved, strictly, and gives back the same bits", function()
    local net = torch_network()
    net(gr.randn(5, 1, 4, 4))
    net:eval()
    local dict, x = gr.dict(), gr.randn(2, 1, 4, 4)
    for name, t in pairs(net:state_dict()) do dict["net." .. name] = t end
    dict.x, dict.y = x, gr.no_grad(function() return net(x) end)
    dict.f64 = gr.tensor({ 1 / 3, -0.0, 1 / 0, 0 / 0, 5e-324 }, "f64")
    dict.i64, dict.u8 = gr.tensor({ math.maxinteger, math.mininteger }, "i64"), gr.tensor({ 0, 255 }, "u8")
    dict.empty = gr.zeros(2, 0)
    dict.turned = gr.randn(3, 5):transpose(1, 2)
    assert(gr.save(path "ours", dict, { index_base = 0, metadata = { format = "pt" } }))
    local out, code = shell.run("%s spec/interop/make.py check %s %s", python, path "ours", path "theirs")
    assert.equal(0, code, out)
    local back = gr.safetensors.read(path "theirs")
    local ours = gr.safetensors.read(path "ours")
    assert.near(0, (back.y - ours.y):abs():amax():item(), 2e-6)
    back.y = ours.y
    local a, b = {}, {}
    for name, t in pairs(ours) do a[name] = t end
    for name, t in pairs(back) do b[name] = t end
    assert.equal(exact(a), exact(b))
    assert.equal(exact(dict.turned), exact(back.turned))
  end)

  test("writes the same file as the one checked in", function()
    local out, code = shell.run("%s spec/interop/make.py write %s", python, path "fresh")
    assert.equal(0, code, out)
    runs_as_torch_does(gr.load(path "fresh", { index_base = 0 }))
  end)
end)
