-- Checkpoints: what gr.save writes gr.load gives back, bit for bit; files that are damaged, places that cannot be
-- written, and objects that refuse.
local gr = require "gradrun"
local shell = require "spec.support.shell"
local exact = require "spec.support.exact"
local nn, F = gr.nn, gr.nn.functional

-- In memory where that can be: every save waits for the disk.
local folder = shell.run("mktemp -d -p /dev/shm 2> /dev/null || mktemp -d"):gsub("\n", "")
local function path(name) return folder .. "/" .. name end

local function read(name)
  local f <close> = assert(io.open(path(name), "rb"))
  return f:read("a")
end

local function write(name, bytes)
  local f <close> = assert(io.open(path(name), "wb"))
  f:write(bytes)
  return path(name)
end

local function files() return (shell.run("ls -A %s", folder)) end

teardown(function() shell.run("rm -rf %s", folder) end)

local function comes_back(v, name)
  name = name or "value"
  assert.is_true(gr.save(path(name), v))
  local back, metadata = gr.load(path(name))
  assert(back ~= nil, metadata)
  assert.equal(exact(v), exact(back))
  return back
end

-- ---- values ---------------------------------------------------------------------------------------------------

describe("a saved value comes back", function()
  it("whatever its kind", function()
    local nan = 0 / 0
    for _, v in ipairs {
      0, -1, math.maxinteger, math.mininteger, 1.0, 0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, math.huge, -math.huge,
      nan, -nan, (string.unpack("<d", "\1\2\3\4\5\6\xf7\x7f")), true, false, "", "text", "\0", "a\0b", "\xff\xfe",
      "ünïcödé 😀", "line\nquote\"back\\slash", "\u{d7ff}", "\xed\xa0\x80", "$float",
    } do
      comes_back { v = v }
      comes_back { [1] = v, [3] = v }
    end
    comes_back {}
    comes_back { {}, { {} }, a = { b = { c = {} } } }
    comes_back { 1, 2, 3, 4.0, "five", { 6 } }
    comes_back { 1, 2, nil, 4 }
    comes_back { [0] = 1, [-1] = 2, [1.5] = 3, [true] = 4, [false] = 5, x = 6, ["1"] = 7, [1] = 8, ["\xff"] = 9, [""] = 10 }
    comes_back { ["$tensor"] = "x", ["$"] = 1, ["$$"] = 2, ["$dict"] = {}, ["$pairs"] = { { 1, 2 } }, ["$float"] = "zz" }
    comes_back { [math.huge] = 1, [-math.huge] = 2, [math.maxinteger] = 3, [2 ^ 53] = 4, [2.0 ^ 60 + 0.0] = 5 }
    comes_back { gradrun = 1, __metadata__ = gr.ones(1), version = { 2 } }
  end)

  it("nested at random", function()
    local seed = 7
    local function random(n)
      seed = (seed * 1103515245 + 12345) % (1 << 31)
      return seed // 65536 % n + 1
    end
    local atoms = { 1, 2.5, "x", "\xff", true, false, 1 / 0, -0.0, "k.l", "$n" }
    local function make(depth)
      if depth == 0 or random(3) == 1 then
        if random(5) == 1 then return gr.full({ random(3) }, random(9), ({ "f32", "f64", "i64", "u8" })[random(4)]) end
        return atoms[random(#atoms)]
      end
      local t = {}
      for i = 1, random(4) do
        local key = random(3) == 1 and i or atoms[random(#atoms)]
        t[key] = make(depth - 1)
      end
      return t
    end
    for i = 1, 60 do comes_back({ make(6) }, "random" .. i % 3) end
  end)

  it("as tensors of every dtype and shape, strided ones too", function()
    local t = { list = {} }
    for _, dtype in ipairs { "f32", "f64", "i64", "u8" } do
      for _, shape in ipairs { {}, { 0 }, { 1 }, { 5 }, { 2, 3 }, { 2, 0, 3 }, { 1, 2, 1, 2, 1, 2, 1, 3 } } do
        local x = gr.uniform(shape, { lo = 0, hi = 200 }):to(dtype)
        t.list[#t.list + 1] = x
        if x.rank == 2 then t.list[#t.list + 1] = x:transpose(1, 2) end
      end
    end
    t.expanded = gr.tensor { { 1 }, { 2 } }:expand(2, 3)
    t.special = gr.tensor({ 0.0, -0.0, 1 / 0, -1 / 0, 0 / 0, 5e-324 }, "f64")
    t.dict = gr.dict { b = gr.ones(2), a = gr.zeros(0) }
    t.dict.first = gr.ones(3)
    local back = comes_back(t)
    assert.is_true(back.list[1]:is_contiguous())
    assert.is_false(gr.load(path "value").special.requires_grad)
  end)

  it("under names that no other has", function()
    local back = comes_back {
      ["a.b"] = gr.ones(1), a = { b = gr.zeros(2), ["b_2"] = gr.ones(3) }, [1] = gr.ones(4), ["1"] = gr.ones(5),
      ["\xff\0"] = gr.ones(6), ["\xfe"] = gr.dict { x = gr.ones(1) }, d = gr.dict { x = gr.ones(7) }, ["d.x"] = gr.ones(8), e = { gr.ones(9), gr.ones(10) },
    }
    assert.equal(7, #back.d.x)
  end)

  it("alone: a tensor, a layer, a number", function()
    comes_back(gr.ones(2))
    comes_back(5)
    comes_back("text")
    local m = nn.Linear(2, 2)
    assert.is_true(gr.save(path "layer", m))
    assert.equal(exact(m:state_dict()), exact(gr.load(path "layer")))
  end)

  it("from a file that safetensors.write made, with texts or without", function()
    local dict = gr.dict { a = gr.ones(2) }
    for _, texts in ipairs { false, {}, { by = "hand" } } do
      assert.is_true(gr.safetensors.write(path "plain", dict, texts or nil))
      local back, metadata = gr.load(path "plain")
      assert.is_true(gr.diff(dict, back).equal)
      assert.same(texts or {}, metadata)
    end
  end)

  it("into the same bytes each time", function()
    local t = { z = 1, y = { 2.5, x = true, [3] = "" }, model = nn.Linear(3, 2), w = gr.ones(2) }
    gr.save(path "once", t)
    gr.save(path "twice", t)
    assert.equal(read "once", read "twice")
    local back = gr.load(path "once")
    gr.save(path "again", back)
    assert.equal(read "once", read "again")
  end)

  it("unless it cannot be saved: then its place is named", function()
    local loop = { inner = {} }
    loop.inner.outer = loop
    local deep = {}
    for _ = 1, 200 do deep = { deep } end
    for says, v in pairs {
      ["save: a%.b%.2 is a function"] = { a = { b = { 1, print } } },
      ["save: the value is a function"] = print,
      ["save: f is a FILE%*"] = { f = io.stdout },
      ["save: c is a thread"] = { c = coroutine.create(print) },
      ["save: inner%.outer is a table that contains itself"] = loop,
      ["save: a has a table as a key"] = { a = { [{}] = 1 } },
      ["save: 1%.1%..* is nested deeper than 100 tables"] = deep,
    } do
      local ok, message = pcall(gr.save, path "refused", v)
      assert.is_false(ok)
      assert.matches(says, message)
    end
    for message, f in pairs {
      ["save: the file is a table, expected a path"] = function() gr.save({}, {}) end,
      ["save: 3 where a table of options is expected"] = function() gr.save(path "refused", {}, 3) end,
      ["save: metadata is 'x', expected a table of texts"] = function() gr.save(path "refused", {}, { metadata = "x" }) end,
      ["load: a Layer where a table of objects by name"] = function() gr.load(path "value", nn.Linear(1, 1)) end,
    } do
      assert.error_matches(f, message)
    end
    assert.error_matches(function() gr.save(path "refused", { t = gr.ones(1) }, { indexbase = 0 }) end, "unknown option")
    assert.error_matches(function() gr.save(path "refused", {}, { index_base = 2 }) end, "index_base is 2")
    assert.error_matches(function() gr.save(path "refused", {}, { metadata = { gradrun = "" } }) end, "taken")
    assert.error_matches(function() gr.save(path "refused", {}, { metadata = { a = 1 } }) end, "expected texts")
    assert.is_nil(io.open(path "refused"))
  end)
end)

-- ---- objects --------------------------------------------------------------------------------------------------

local function network()
  return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
end

local function train(net, optimizer, steps)
  local x = gr.sin(gr.tensor { { 1, 2, 3, 4, 5, 6 }, { 2, 4, 6, 8, 1, 3 }, { 9, 1, 5, 0, 2, 7 }, { 4, 4, 1, 8, 3, 2 } })
  local y, losses = gr.tensor({ 1, 3, 2, 3 }, "i64"), {}
  for i = 1, steps do
    optimizer:zero_grad()
    losses[i] = gr.scope(function()
      local loss = F.cross_entropy(net(x), y)
      loss:backward()
      return loss:item()
    end)
    optimizer:step()
  end
  return losses
end

-- An object of a script's own; refuses what is negative.
local counter = {}
counter.__index = counter
local function new_counter(n) return setmetatable({ n = n, t = gr.full({ 2 }, n) }, counter) end
function counter:state_dict() return { n = self.n, t = self.t } end
function counter:load_state_dict(state)
  self.n = state.n
  if state.n < 0 then error("n is negative", 0) end
  self.t = state.t
end

describe("bit-exact resume", function()
  -- each optimizer as it is, with each of its switches on, and with momentum
  local variants = {}
  for _, o in ipairs(gr.describe().optims) do
    variants[#variants + 1] = { o.name, {} }
    for _, a in ipairs(o.attrs) do
      if a.kind == "bool" and a.name ~= "nesterov" then variants[#variants + 1] = { o.name, { [a.name] = true } } end
      if a.name == "momentum" then variants[#variants + 1] = { o.name, { momentum = 0.9 } } end
      if a.name == "nesterov" then variants[#variants + 1] = { o.name, { momentum = 0.9, nesterov = true } } end
    end
  end
  for _, v in ipairs(variants) do
    local kind, options = v[1], v[2]
    it(("holds for %s %s"):format(kind, exact(options)), function()
      options.lr = 0.01
      gr.manual_seed(5)
      gr.step(1)
      local net = network()
      local optimizer = gr.optim[kind](net:parameters(), options)
      train(net, optimizer, 10)
      assert.is_true(gr.save(path "resume", { model = net, optimizer = optimizer, losses = { 1.5 } }))
      local losses, step, random = train(net, optimizer, 10), gr.step(), gr.get_rng_state()
      gr.save(path "straight", { net, optimizer })

      gr.manual_seed(77)
      gr.step(1000)
      local other = network()
      local again = gr.optim[kind](other:parameters())
      train(other, again, 3)
      local rest = gr.load(path "resume", { model = other, optimizer = again })
      assert.same({ losses = { 1.5 } }, rest)
      assert.equal(exact(losses), exact(train(other, again, 10)))
      assert.equal(step, gr.step())
      assert.same(random, gr.get_rng_state())
      assert.is_true(gr.save(path "resumed", { other, again }))
      assert.equal(read "straight", read "resumed")
      gr.step(1)
    end)
  end
end)

describe("loading into objects", function()
  local function saved(name, n)
    gr.manual_seed(11)
    local net = network()
    local optimizer = gr.optim.Adam(net:parameters(), { lr = 0.125 })
    train(net, optimizer, 2)
    local t = { model = net, optimizer = optimizer, counter = new_counter(n or 3), nested = { c = new_counter(4), x = 1 }, y = "z" }
    assert.is_true(gr.save(path(name), t))
    return t
  end

  it("restores those asked for and gives back the rest", function()
    local t = saved "objects"
    local net, c, d = network(), new_counter(0), new_counter(0)
    local rest, metadata = gr.load(path "objects", { model = net, counter = c, nested = { c = d } })
    assert.is_true(gr.diff(net, t.model).equal)
    assert.same({ 3, 4, 3, 3 }, { c.n, d.n, table.unpack(c.t:totable()) })
    assert.same({ x = 1 }, rest.nested)
    assert.equal("z", rest.y)
    assert.is_nil(rest.model)
    assert.is_true(gr.diff(rest.optimizer, t.optimizer).equal)
    assert.same({}, metadata)
  end)

  it("restores the random state and the step, unless told not to", function()
    gr.manual_seed(3)
    gr.step(41)
    gr.save(path "random", { c = new_counter(1) })
    local want = gr.rand(3):totable()
    gr.manual_seed(1000)
    gr.step(1)
    local other = gr.get_rng_state()
    gr.load(path "random")
    assert.same(other, gr.get_rng_state())
    gr.load(path "random", { c = new_counter(0), random = false })
    assert.same(other, gr.get_rng_state())
    assert.equal(41, gr.step())
    gr.step(1)
    gr.load(path "random", { c = new_counter(0) })
    assert.same(want, gr.rand(3):totable())
    gr.manual_seed(1000)
    gr.load(path "random", { random = true })
    assert.same(want, gr.rand(3):totable())
    gr.set_rng_state { seed = -1, counter = math.maxinteger }
    assert.same({ seed = -1, counter = math.maxinteger }, gr.get_rng_state())
    assert.error_matches(function() gr.set_rng_state { seed = 1 } end, "seed and counter are expected")
    assert.error_matches(function() gr.load(path "random", { random = 1 }) end, "random is a number")
    gr.step(1)
    gr.manual_seed(0)
  end)

  it("is all or nothing", function()
    saved "fine"
    saved("bad", -1)
    local net, c, d = network(), new_counter(7), new_counter(8)
    local optimizer = gr.optim.Adam(net:parameters(), { lr = 0.5 })
    gr.save(path "before", { net, optimizer })
    local random, step = gr.get_rng_state(), gr.step()
    local function unchanged()
      gr.set_rng_state(random)
      gr.save(path "after", { net, optimizer })
      assert.equal(read "before", read "after")
      assert.same({ 7, 8, 7, 8 }, { c.n, d.n, c.t:totable()[1], d.t:totable()[2] })
      assert.equal(step, gr.step())
    end
    -- a script's object refuses, before and after another one was loaded
    for _, objects in ipairs {
      { model = net, optimizer = optimizer, counter = c, nested = { c = d } }, { a = c, counter = c, model = net, nested = { c = d } },
    } do
      local ok, message = pcall(gr.load, path "bad", objects)
      if ok then assert.is_nil(message) else assert.matches("counter: n is negative", message) end
      unchanged()
    end
    -- a state does not fit
    local small = nn.Linear(2, 2)
    local ok, message = pcall(gr.load, path "fine", { model = small, optimizer = optimizer, counter = c })
    assert.is_false(ok)
    assert.matches("fine: model: the state does not fit, nothing was loaded: .*missing: weight, bias", message)
    unchanged()
    ok, message = pcall(gr.load, path "fine", { model = net, optimizer = gr.optim.SGD(net:parameters()), counter = c })
    assert.is_false(ok)
    assert.matches("fine: optimizer: the state does not fit", message)
    unchanged()
    -- something is not there
    local v
    v, message = gr.load(path "fine", { model = net, counter = c, nope = d })
    assert.is_nil(v)
    assert.matches("it holds no 'nope' %(counter, model, nested, optimizer, y%)", message)
    v, message = gr.load(path "fine", { model = net, counter = c, nested = { nope = d } })
    assert.is_nil(v)
    assert.matches("it holds no 'nested%.nope' %(c, x%)", message)
    v, message = gr.load(path "fine", { y = net, counter = c })
    assert.is_nil(v)
    assert.matches("'y' is no state dict", message)
    unchanged()
    assert.error_matches(function() gr.load(path "fine", { model = print }) end, "load: model is a function")
  end)

  it("takes numbers among the objects as a wish for nothing", function()
    saved "numbers"
    assert.equal("z", gr.load(path "numbers", { model = network(), y = "other" }).y)
  end)

  it("restores loaders and schedules", function()
    local set = { x = gr.arange and gr.rand(10, 2) or gr.rand(10, 2), y = gr.ones({ 10 }, "i64") }
    local loader = gr.data.loader(set, { batch_size = 3, shuffle = true })
    local plateau = gr.schedule.plateau(1, { patience = 0 })
    plateau:report(1)
    plateau:report(1)
    local batches = loader:batches()
    batches()
    batches()
    gr.save(path "parts", { loader = loader, plateau = plateau })
    local want = exact { batches() }
    local again, other = gr.data.loader(set, { batch_size = 3, shuffle = true }), gr.schedule.plateau(1, { patience = 0 })
    gr.load(path "parts", { loader = again, plateau = other })
    assert.equal(want, exact { again:batches()() })
    assert.equal(plateau(), other())
    assert.not_equal(1, other())
    assert.error_matches(function()
      gr.load(path "parts", { loader = gr.data.loader(set, { batch_size = 4 }), plateau = other })
    end, "load: .*parts: loader: .*batch_size = 3")
  end)
end)

-- ---- files that are not what they should be ---------------------------------------------------------------------

describe("a damaged file", function()
  local good
  local function damaged(bytes)
    local before = gr.memory()
    local v, message = gr.load(write("damaged", bytes))
    if v == nil then
      assert(type(message) == "string" and message:find(path "damaged", 1, true) == 1, message)
    else
      exact(v) -- whatever it is, it can be looked at
    end
    return v, before
  end

  setup(function()
    gr.manual_seed(1)
    gr.save(path "good", {
      m = nn.Linear(2, 2), o = gr.optim.SGD { gr.ones(2, { requires_grad = true }) }, k = { [1] = 1, x = "\xff" }, n = 1 / 0,
    })
    good = read "good"
  end)

  it("is refused or read whatever its length", function()
    for n = 0, #good - 1 do assert.is_nil(damaged(good:sub(1, n))) end
    assert.is_nil(damaged(good .. "x"))
    assert.is_not_nil(damaged(good))
  end)

  it("is refused or read whatever its bytes", function()
    local read_anyway = 0
    for i = 1, #good do
      local byte = good:byte(i)
      for _, other in ipairs { byte ~ 1, byte ~ 0x80, 0x22, 0x30, 0x7d } do
        if other ~= byte then
          if damaged(good:sub(1, i - 1) .. string.char(other) .. good:sub(i + 1)) then read_anyway = read_anyway + 1 end
        end
      end
    end
    assert.is_true(read_anyway > 0) -- in the tensors' own bytes
  end)

  it("leaves the objects it is loaded into as they were, and nothing behind", function()
    local m = nn.Linear(2, 2)
    local before = exact(m:state_dict())
    collectgarbage()
    local live = gr.memory()
    for i = 1, #good, 3 do
      write("damaged", good:sub(1, i - 1) .. string.char(good:byte(i) ~ 4) .. good:sub(i + 1))
      local ok, v = pcall(gr.load, path "damaged", { m = m })
      if ok and v then
        m:load_state_dict(gr.load(path "good").m)
        before = exact(m:state_dict())
      else
        assert.equal(before, exact(m:state_dict()))
      end
    end
    for _ = 1, 3 do collectgarbage() end
    local after = gr.memory()
    for _, what in ipairs { "tensors", "storages", "dicts" } do assert.equal(live[what], after[what]) end
  end)

  it("is told what is wrong with its structure", function()
    local function with(text) gr.safetensors.write(path "structure", { a = gr.ones(1) }, { gradrun = text }) end
    local function head(value, more)
      return ('{"version":1,"step":1,"random":{"seed":0,"counter":0}%s,"value":%s}'):format(more or "", value)
    end
    for says, text in pairs {
      ["structure is not JSON"] = "{", ["has no version"] = "{}", ["not whole"] = '{"version":1}',
      ["later gradrun, version 9; this one reads 1"] = '{"version":9}', ["lone value"] = "3",
      ["does not name the tensor 'a'"] = head "1", ["no tensor 'b'"] = head '{"$tensor":"b"}',
      ["unknown '$x'"] = head '{"$x":1}', ["with something beside it"] = head '{"$tensor":"a","y":1}',
      ["'$float' without bits"] = head '{"x":{"$float":"7"}}', ["'$bytes' that are none"] = head '{"$bytes":"0"}',
      ["'$pairs' that are none"] = head '{"$pairs":1}', ["a key that is none"] = head '{"$pairs":[[{},1]]}',
      ["'$dict' without names"] = head '{"$dict":1,"$prefix":""}', ["a name that is none"] = head '{"$dict":[1],"$prefix":""}',
      ["null"] = head "null",
    } do
      with(text)
      local v, message = gr.load(path "structure")
      assert.is_nil(v)
      assert(message:find(says, 1, true), message .. " // " .. says)
    end
    with(head '{"$tensor":"a"}')
    assert.same({ 1 }, gr.load(path "structure"):totable())
  end)

  it("is an environment failure, as is one that is missing", function()
    local v, message = gr.load(path "missing")
    assert.is_nil(v)
    assert.matches("missing: No such file", message)
    v, message = gr.load(folder)
    assert.is_nil(v)
    assert.matches("is a directory", message)
    v, message = gr.load(write("text", "no checkpoint"))
    assert.is_nil(v)
    assert.matches("not a safetensors file", message)
    v, message = gr.load(write("zip", "PK\3\4\20\0\0\8\8\0" .. ("\0"):rep(40)))
    assert.is_nil(v)
    assert.matches("zip: not a safetensors file but a zip archive, as torch.save writes", message)
    assert.error_matches(function() gr.load(path "missing", { index_base = 3 }) end, "index_base is 3")
    assert.error_matches(function() gr.load() end, "load: the file is nil, expected a path")
  end)
end)

-- ---- places that cannot be written ------------------------------------------------------------------------------

describe("a save that fails", function()
  local save = shell.file [[
    local gr = require "gradrun"
    local ok, message = gr.save(arg[1], { x = gr.ones(tonumber(arg[2])) })
    print(ok, message)]]
  local before
  local function keeps(command, ...)
    gr.save(path "kept", { x = gr.zeros(3), y = "earlier" })
    before = read "kept"
    local names = files()
    local out, code = shell.run(command, ...)
    assert.equal(0, code, out)
    assert.equal(before, read "kept")
    assert.equal(names, files())
    return out
  end

  it("for want of space says so, and the earlier checkpoint is there", function()
    for _, blocks in ipairs { 0, 1, 8, 100, 4000 } do -- of 512 bytes
      local out = keeps("(trap '' XFSZ; ulimit -f %d; exec %s %s %s 1000000)", blocks, shell.gradrun, save, path "kept")
      assert.matches("^nil\t.*/kept: writing failed: File too large\n$", out)
    end
  end)

  it("on a full disk too", function()
    local out, code = shell.run([[unshare -m sh -c '
      mount -t tmpfs -o size=256k tmpfs %s || exit 99
      %s %s %s/small 100 && cp %s/small %s/copy && rm %s/copy && before=$(md5sum < %s/small)
      %s %s %s/small 1000000; ls -A %s; [ "$before" = "$(md5sum < %s/small)" ] && echo kept']],
      folder, shell.gradrun, save, folder, folder, folder, folder, folder, shell.gradrun, save, folder, folder, folder)
    if code == 99 or code == 1 or code == 127 then return pending("no right to mount a disk: " .. out) end
    assert.matches("^true\tnil\nnil\t.*/small: writing failed: No space left on device\nsmall\nkept\n$", out)
  end)

  it("in a folder that may not be written", function()
    gr.save(path "kept", { x = gr.zeros(3) })
    shell.run("chmod 755 %s; chmod 644 %s/*", folder, folder)
    local run = "%s %s %s 10"
    if shell.run("id -u") == "0\n" then run = "setpriv --reuid 65534 --regid 65534 --clear-groups " .. run end
    shell.run("chmod 644 %s; chmod a-w %s", save, folder)
    local out, code = shell.run(run, shell.gradrun, save, path "kept")
    shell.run("chmod 755 %s", folder)
    if code ~= 0 then return pending("no way to be another user: " .. out) end
    assert.matches("^nil\t.*/kept: cannot be written.*: Permission denied\n$", out)
  end)

  it("for a path that the system would cut short raises", function()
    local x, names = gr.ones(2), files()
    for _, f in ipairs { gr.save, gr.safetensors.write, gr.data.write_npz } do
      assert.error_matches(function() f(path "a\0b", { x = x }) end, "no zero byte")
    end
    for _, f in ipairs { gr.data.write_npy, gr.data.write_csv } do
      assert.error_matches(function() f(path "a\0b", x) end, "no zero byte")
    end
    for _, f in ipairs { gr.load, gr.data.npy, gr.data.npz, gr.data.csv, gr.data.idx } do
      assert.error_matches(function() f(path "a\0b") end, "no zero byte")
    end
    assert.error_matches(function() gr.data.write_npz(path "a", { ["x\0y"] = x }) end, "'x%.%.%.' has a zero byte")
    assert.equal(names, files())
  end)

  it("where there is no folder, or no file can be", function()
    keeps "true"
    for says, name in pairs {
      ["its folder cannot be opened: No such file"] = path "no/such/folder/x", ["is a directory"] = folder,
      ["Not a directory"] = path "kept/x", ["no regular file"] = "/dev/full", ["expected 1 to"] = "",
    } do
      local ok, message = gr.save(name, { x = 1 })
      assert.is_nil(ok)
      assert(message:find(says, 1, true), message)
      assert(message:find(name, 1, true), message)
    end
    assert.equal(before, read "kept")
    assert.error_matches(function() gr.save(path "a\0b", {}) end, "zero byte")
    assert.error_matches(function() gr.save(path "kept", { ["\xff"] = nn.ReLU(), f = print }) end, "f is a function")
    assert.equal(before, read "kept")
  end)
end)
