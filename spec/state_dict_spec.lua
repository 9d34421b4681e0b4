-- State dicts as scripts see them: names, order, loading whole or in part, and what differs between two.
local gr = require "gradrun"
local nn = gr.nn

local Block = nn.layer {
  name = "Block",
  init = function(self, n)
    self.fc = nn.Linear(n, n)
    self.gain = gr.ones(n, { requires_grad = true })
    self:register_buffer("mean", gr.zeros(n))
  end,
  forward = function(self, x) return self.fc(x) * self.gain + self.mean end,
}

local function names(dict)
  local list = {}
  for name in pairs(dict) do list[#list + 1] = name end
  return list
end

describe("a state dict", function()
  it("keeps its order and holds tensors only", function()
    local d = gr.dict()
    d.b = gr.ones(2)
    d.a = gr.zeros(3)
    d["x.1"] = gr.ones(1)
    assert.same({ "b", "a", "x.1" }, names(d))
    d.b = gr.full({ 2 }, 7)
    assert.same({ "b", "a", "x.1" }, names(d))
    assert.same({ 7, 7 }, d.b:totable())
    d.b = nil
    assert.same({ "a", "x.1" }, names(d))
    assert.equal(2, #d)
    assert.is_nil(d.b)
    assert.is_nil(d[1])
    assert.is_true(gr.is_dict(d))
    assert.is_false(gr.is_dict {})
    assert.equal("a    f32[3]\nx.1  f32[1]\n2 tensors", tostring(d))
    assert.error_matches(function() d.c = 3 end, "Tensor expected")
    assert.error_matches(function() d["c\0"] = gr.ones(1) end, "zero byte")
    d:free()
    assert.error_matches(function() return d.a end, "was closed")
    assert.equal("state dict (closed)", tostring(d))
  end)

  it("is made of a table, by name", function()
    local d = gr.dict { z = gr.ones(1), a = gr.ones(2), m = gr.ones(3) }
    assert.same({ "a", "m", "z" }, names(d))
    assert.error_matches(function() gr.dict { a = 1 } end, "'a' is a number, expected a tensor")
    assert.error_matches(function() gr.dict { gr.ones(1) } end, "a key is a number")
  end)

  it("holds tensors without history that share memory", function()
    local w = gr.ones(2, { requires_grad = true })
    local d = gr.dict { w = w }
    assert.is_false(d.w.requires_grad)
    gr.no_grad(function() w:fill_(3) end)
    assert.same({ 3, 3 }, d.w:totable())
  end)
end)

describe("a layer's state", function()
  it("has parameters and buffers, nested, in order", function()
    local m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Block(2))
    assert.same({
      "1.weight", "1.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var",
      "3.gain", "3.mean", "3.fc.weight", "3.fc.bias",
    }, names(m:state_dict()))
    local listed, state = {}, m:state_dict()
    for name, t in m:named_parameters() do
      listed[#listed + 1] = name
      assert.same(t:totable(), state[name]:totable())
    end
    assert.equal(7, #listed)
    assert.same({ "gain", "mean", "fc.weight", "fc.bias" }, names(m[3]:state_dict()))
    assert.equal(0, #nn.ReLU():state_dict())
  end)

  it("shares memory with the layer, and loading keeps that", function()
    local a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    local kept, weight = b:state_dict(), b.weight
    assert.is_nil(b:load_state_dict(a:state_dict()))
    assert.same(a.weight:totable(), kept.weight:totable())
    assert.equal(weight, b.weight)
    assert.is_true(b.weight.requires_grad)
    gr.no_grad(function() b.weight:fill_(5) end)
    assert.equal(5, kept.weight:sum():item() / 4)
    assert.not_equal(5, a.weight:sum():item() / 4)
  end)

  it("loads with recording on, and refuses a backward that needs the old values", function()
    local m = nn.Linear(2, 2)
    local x = gr.ones({ 1, 2 }, { requires_grad = true })
    local y = m(x):sum()
    m:load_state_dict { weight = gr.zeros(2, 2), bias = gr.zeros(2) }
    assert.error_matches(function() y:backward() end, "overwritten in place")
  end)

  it("loads all or nothing, and says what does not fit", function()
    local m = nn.Sequential(nn.Linear(2, 3), Block(3))
    local before = gr.dict {}
    for name, t in pairs(m:state_dict()) do before[name] = t:clone() end
    local d = nn.Sequential(nn.Linear(2, 3), Block(3)):state_dict()
    d["1.bias"], d["2.fc.weight"], d["0.more"] = nil, gr.ones(3, 4), gr.ones(1)
    local ok, message = pcall(m.load_state_dict, m, d)
    assert.is_false(ok)
    assert.matches("1 missing: 1%.bias; 1 unexpected: 0%.more; " ..
      "1 mismatched: 2%.fc%.weight %(f32%[3,4%], expected f32%[3,3%]%)", message)
    assert.matches("index_base = 0", message)
    assert.is_true(gr.diff(before, m).equal)
    assert.error_matches(function() m:load_state_dict(3) end, "table expected")
    assert.error_matches(function() m:load_state_dict(d, { partal = true }) end, "did you mean 'partial'")
    assert.error_matches(function() m:load_state_dict { ["1.bias"] = gr.ones({ 3 }, "i64") } end,
      "1%.bias %(i64%[3%], expected f32%[3%]%)")
  end)

  it("loads in part when asked", function()
    local m, d = nn.Linear(2, 3), gr.dict()
    d.weight, d.bias, d.more = gr.ones(3, 2), gr.ones(4), gr.ones(1)
    local report = m:load_state_dict(d, { partial = true })
    assert.same({
      loaded = { "weight" }, missing = {}, unexpected = { "more" },
      mismatched = { { name = "bias", found = "f32[4]", expected = "f32[3]" } },
    }, report)
    assert.equal(6, m.weight:sum():item())
    assert.same({ "weight", "bias" }, m:load_state_dict({}, { partial = true }).missing)
    m:load_state_dict({ weight = gr.zeros({ 3, 2 }, "f64") }, { partial = true }) -- floating dtypes are converted
    assert.equal(0, m.weight:sum():item())
  end)

  it("has tied parameters once, and takes them by any of their names", function()
    local Tied = nn.layer {
      init = function(self)
        self.a, self.b = nn.Linear(3, 3, { bias = false }), nn.Linear(3, 3)
        self.tied = self.a.weight
      end,
      forward = function(self, x) return self.b(self.a(x)) end,
    }
    local m = Tied()
    assert.same({ "tied", "b.weight", "b.bias" }, names(m:state_dict()))
    local d = m:state_dict()
    d.tied, d["a.weight"] = nil, gr.full({ 3, 3 }, 2)
    m:load_state_dict(d)
    assert.equal(18, m.tied:sum():item())
    d.tied = gr.zeros(3, 3)
    m:load_state_dict(d) -- under both names: the last counts
    assert.equal(18, m.tied:sum():item())
    d.tied, d["a.weight"] = nil, nil
    assert.error_matches(function() m:load_state_dict(d) end, "1 missing: tied$")
  end)

  it("may be loaded from itself, turned around", function()
    local m = nn.Linear(2, 2, { bias = false })
    local turned = m.weight:detach():clone():transpose(1, 2):totable()
    m:load_state_dict { weight = m.weight:detach():transpose(1, 2) }
    assert.same(turned, m.weight:totable())
  end)
end)

describe("an optimizer's state", function()
  local function trained(kind, options)
    local m = nn.Linear(2, 1)
    local o = gr.optim[kind]({ { params = { m.weight } }, { params = { m.bias }, lr = 0.5 } }, options)
    m(gr.ones(1, 2)):sum():backward()
    o:step()
    return m, o
  end

  it("is counts, hyper-parameters and state tensors", function()
    local _, o = trained("SGD", { lr = 0.25, momentum = 0.5 })
    local d = o:state_dict()
    assert.same({ "steps", "updates", "groups.1.lr", "groups.1.momentum" }, { table.unpack(names(d), 1, 4) })
    assert.equal(1, d.steps:item())
    assert.same({ 1, 1 }, d.updates:totable())
    assert.same({ 0.25, 0.5, 0.5, 0 }, { d["groups.1.lr"]:item(), d["groups.2.lr"]:item(),
      d["groups.2.momentum"]:item(), d["groups.2.nesterov"]:item() })
    assert.same({ { 1, 1 } }, d["state.1.momentum_buffer"]:totable())
    assert.same({ 1 }, d["state.2.momentum_buffer"]:totable())
  end)

  it("goes into another optimizer, whole", function()
    local _, o = trained("Adam", { lr = 0.25 })
    local m = nn.Linear(2, 1)
    local other = gr.optim.Adam { { params = { m.weight } }, { params = { m.bias } } }
    other:load_state_dict(o:state_dict())
    assert.is_true(gr.diff(o, other).equal)
    assert.same({ 0.25, 0.5, 1 }, { other.groups[1].lr, other.groups[2].lr, other:steps() })
    local d = o:state_dict()
    d["state.1.exp_avg"], d["groups.1.lr"] = nil, gr.tensor(-1, "f64")
    assert.error_matches(function() other:load_state_dict(d) end, "lr = %-1")
    d["groups.1.lr"] = gr.tensor(0.1, "f64")
    assert.error_matches(function() other:load_state_dict(d) end, "1 missing: state%.1%.exp_avg")
    assert.error_matches(function() other:load_state_dict(d, { partial = true }) end, "whole or not")
    assert.is_true(gr.diff(o, other).equal)
    assert.error_matches(function() other:load_state_dict(gr.optim.Adam { m.bias }:state_dict()) end,
      "mismatched: updates %(i64%[1%], expected i64%[2%]%)")
  end)

  it("is out of reach once it is closed, by its groups too", function()
    local opt = gr.optim.SGD(nn.Linear(2, 3):parameters(), { lr = 0.5 })
    local group = opt.groups[1]
    assert.matches("^2 parameters, lr 0.5, momentum 0.0", tostring(group))
    assert.equal("SGD: " .. tostring(group), tostring(opt))
    opt:free()
    assert.error_matches(function() return group.lr end, "was closed")
    assert.error_matches(function() return group.params end, "was closed")
    assert.error_matches(function() group.lr = 1 end, "was closed")
    assert.same({ "group (closed)", "optimizer (closed)" }, { tostring(group), tostring(opt) })
  end)

  it("may be of parameters that are frozen for a while: they stay, and go on later", function()
    local m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for _, p in m[1]:named_parameters() do p.requires_grad = false end
    local opt = gr.optim.SGD(m:parameters(), { lr = 0.1, momentum = 0.9 })
    local first, second = m[1].weight:clone(), m[2].weight:clone()
    local function step()
      opt:zero_grad()
      m(gr.ones(4, 2)):sum():backward()
      gr.clip.norm_(m:parameters(), 1)
      opt:step()
    end
    step()
    assert.is_true(gr.diff(first, m[1].weight).equal)
    assert.is_false(gr.diff(second, m[2].weight).equal)
    assert.is_nil(next(opt:state(m[1].weight)))
    m[1].weight.requires_grad = true
    step()
    assert.is_false(gr.diff(first, m[1].weight).equal)
    assert.truthy(opt:state(m[1].weight).momentum_buffer)
    assert.error_matches(function() gr.optim.SGD { gr.ones(2) } end, "does not require a gradient")
    assert.error_matches(function() gr.optim.SGD { m[1].bias, m[2].bias, m[1].bias } end, "1%.bias.* is listed twice")
  end)

  it("is of a list of parameters", function()
    local layer = nn.Linear(2, 3)
    assert.error_matches(function() gr.optim.SGD(layer) end, "its parameters are layer:parameters%(%)")
    assert.error_matches(function() gr.clip.norm_(layer, 1) end, "its parameters are layer:parameters%(%)")
    assert.error_matches(function() gr.optim.SGD(layer.weight) end, "got a Tensor: put it in a table")
    assert.error_matches(function() gr.optim.SGD() end, "a list of parameters expected, got no value")
  end)

  it("does not share memory after loading", function()
    local _, o = trained("SGD", { lr = 0.1, momentum = 0.5 })
    local d = o:state_dict()
    o:load_state_dict(d)
    d["state.1.momentum_buffer"]:fill_(9)
    assert.same({ { 1, 1 } }, o:state_dict()["state.1.momentum_buffer"]:totable())
  end)
end)

describe("the difference of two states", function()
  it("is none between equals", function()
    local m = nn.Linear(2, 2)
    local d = gr.diff(m, m:state_dict())
    assert.is_true(d.equal)
    assert.equal(2, d.same)
    assert.equal("no difference in 2 tensors", tostring(d))
  end)

  it("names what differs, how much, and what is on one side only", function()
    local nan = 0 / 0
    local a = { w = gr.tensor { 1, 2, nan, -4 }, s = gr.ones(2, 3), n = 3, same = gr.tensor { nan }, only_a = gr.ones(1) }
    local b = { w = gr.tensor { 1, 2.5, nan, -4 }, s = gr.ones(3, 2), n = 4, same = gr.tensor { nan }, t = { u = 1 } }
    local d = gr.diff(a, b)
    assert.is_false(d.equal)
    assert.equal(1, d.same)
    assert.equal(table.concat({
      "name  a / b              elements       largest |a - b|  relative",
      "n     i64[]              1 of 1         1                0.25",
      "s     f32[2×3] / f32[3×2]  shapes differ",
      "w     f32[4]             1 of 4         0.5              0.2",
      "only in a: only_a",
      "only in b: t.u",
      "5 differ, 1 do not",
    }, "\n"):gsub(" +", " "), (tostring(d):gsub(" +", " ")))
    assert.same({ "n", "only_a", "s", "w", "t.u" }, { d.entries[1].name, d.entries[2].name, d.entries[3].name,
      d.entries[4].name, d.entries[5].name })
  end)

  it("sees what rounding, dtypes and infinities make", function()
    local d = gr.diff({ x = gr.tensor({ (1 << 53) + 1 }, "i64") }, { x = gr.tensor({ 1 << 53 }, "i64") })
    assert.equal(1, d.entries[1].count)
    d = gr.diff({ x = gr.ones(2) }, { x = gr.ones({ 2 }, "f64") })
    assert.equal(0, d.entries[1].count)
    assert.is_false(d.equal)
    d = gr.diff({ x = gr.tensor { math.huge, 1 } }, { x = gr.tensor { math.huge, 0 / 0 } })
    assert.equal(1, d.entries[1].count)
    assert.is_true(d.entries[1].absolute ~= d.entries[1].absolute)
    assert.is_true(gr.diff({ x = gr.zeros(0, 3) }, { x = gr.zeros(0, 3) }).equal)
    assert.is_true(gr.diff({}, {}).equal)
  end)

  it("sees texts and booleans, and refuses what is no state", function()
    local a, b = { { word = "x", on = true, [10] = 1 }, t = gr.ones(2) }, { { word = "y", on = false, [10] = 1 }, t = "x" }
    local d = gr.diff(a, b)
    assert.is_false(d.equal)
    assert.equal(1, d.same)
    assert.matches("1%.on +true / false +values differ\n1%.word +'x' / 'y' +values differ\nt +f32%[2%] / 'x' ", tostring(d))
    assert.is_true(gr.diff(a, a).equal)
    local layer, loop = nn.Linear(1, 1), {}
    loop.inner = loop
    for message, pair in pairs {
      ["argument 1 is nil, expected a state dict"] = { nil, layer },
      ["argument 2 is 'x', expected a state dict"] = { layer, "x" },
      ["inner is a table that contains itself"] = { loop, loop },
    } do
      assert.error_matches(function() gr.diff(pair[1], pair[2]) end, message)
    end
  end)
end)

describe("json", function()
  local encode, decode = gr.json.encode, gr.json.decode

  it("keeps every number and text", function()
    for _, v in ipairs { 0, -1, math.maxinteger, math.mininteger, 0.1, -0.0, 1e308, 5e-324, 1 / 3, 2.0, true, false, "",
                         "ü\0\n\"\\/€😀" } do
      local back = decode(encode(v))
      assert.equal(math.type(v), math.type(back))
      assert.equal(("%q"):format(v), ("%q"):format(back))
    end
    assert.equal('{"a":[1,2.0,{"b":{}}],"z":"x"}', encode { z = "x", a = { 1, 2.0, { b = {} } } })
    assert.same({ a = { 1, { b = {} } } }, decode '{"a": [1, {"b": []}]}')
  end)

  it("refuses what has no counterpart", function()
    for says, v in pairs {
      ["is no number of JSON's"] = 1 / 0, ["not UTF%-8"] = "\xff", ["a function has no form"] = print,
      ["a number as a key"] = { [2] = 1 }, ["zero byte"] = { ["a\0"] = 1 },
    } do
      assert.error_matches(function() encode(v) end, says)
    end
    local deep = {}
    for _ = 1, 600 do deep = { deep } end
    assert.error_matches(function() encode(deep) end, "nested deeper")
  end)

  it("gives nil and a message for what is not JSON", function()
    for _, text in ipairs { "", "{", "[1,]", '{"a":1,"a":2}', "null", '[{"a":null}]', "\xff", "1e400", ("["):rep(5000) } do
      local v, message = decode(text)
      assert.is_nil(v)
      assert.matches("^json: ", message)
    end
  end)
end)
