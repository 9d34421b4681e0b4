-- gradrun from stock lua5.4, in the tree and installed; a stranger's program against what was installed.
local shell = require "spec.support.shell"
local run, file = shell.run, shell.file

local use = file [[
  local gr = require "gradrun"
  assert(gr.version == gr._VERSION)
  print(gr.tensor { 1, 2, 3 }:sum():item(), gr.data ~= nil)]]

-- make as the user would call it, for the build under test as it is: other specs are running it
local function make(args, ...)
  return run("make -s -o all B=%s " .. args, shell.build:gsub("^" .. shell.root:gsub("%p", "%%%0") .. "/", ""), ...)
end

describe("stock lua5.4", function()
  it("finds gradrun in the tree", function()
    local out, code = run([[LUA_PATH="lua/?.lua;lua/?/init.lua;;" LUA_CPATH="%s/lua/?.so;;" %s %s]],
      shell.build, shell.lua, use)
    assert.equal("6.0\ttrue\n", out)
    assert.equal(0, code)
  end)

  it("is told when the two halves are of different versions", function()
    local out, code = run([[LUA_PATH="lua/?.lua;lua/?/init.lua;;" lua5.4 -e '
      package.preload["gradrun.core"] = function() return { _VERSION = "0.0.1" } end
      require "gradrun"']])
    assert.equal(1, code)
    assert.matches("0%.0%.1", out)
  end)

  it("lends its own Lua to core.so", function()
    local out = run("readelf -d %s/lua/gradrun/core.so", shell.build)
    assert.matches("NEEDED.*libblis", out)
    assert.not_matches("NEEDED[^\n]*liblua", out)
  end)
end)

describe("make install", function()
  local top, prefix
  setup(function()
    top = run("mktemp -d"):gsub("\n", "")
    prefix = top .. "/opt/gr"
    local out, code = make("install DESTDIR=%s PREFIX=/opt/gr", top)
    assert(code == 0, out)
  end)
  teardown(function() run("rm -r %s", top) end)

  it("puts every file in its place", function()
    for _, name in ipairs {
      "bin/gradrun", "include/gradrun.h", "lib/libgradrun.a", "lib/libgradrun.so", "lib/libgradrun.so.0",
      "lib/pkgconfig/gradrun.pc", "lib/lua/5.4/gradrun/core.so", "share/lua/5.4/gradrun/init.lua",
    } do
      assert.equal(0, (select(2, run("test -s %s/%s", prefix, name))), name)
    end
    assert.equal("libgradrun.so.0\n", (run("readlink %s/lib/libgradrun.so", prefix)))
  end)

  it("serves stock lua5.4", function()
    local out = run([[cd / && LUA_PATH="%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua" \
      LUA_CPATH="%s/lib/lua/5.4/?.so" %s %s]], prefix, prefix, prefix, shell.lua, use)
    assert.equal("6.0\ttrue\n", out)
  end)

  it("serves the installed program, without its source", function()
    assert.equal("6.0\ttrue\n", (run("cd / && env -i %s/bin/gradrun %s", prefix, use)))
  end)

  it("serves a C program, by pkg-config", function()
    local out, code = run([[cd %s && export PKG_CONFIG_PATH=%s/lib/pkgconfig
      cc %s %s/scripts/embed/host.c $(pkg-config --define-variable=prefix=%s --cflags --libs gradrun) -lm -o host &&
      LD_LIBRARY_PATH=%s/lib ./host %s/scripts/embed/train.lua]], top, prefix, shell.flags, shell.root, prefix, prefix, shell.root)
    assert.equal(0, code, out)
    assert.matches("closed with 0 live objects", out)
    out = run("PKG_CONFIG_PATH=%s/lib/pkgconfig pkg-config --modversion gradrun", prefix)
    assert.equal(run("%s -e 'print(require(\"gradrun\").version)'", shell.gradrun), out)
  end)
end)

describe("make deps", function()
  it("is silent when nothing is missing", function()
    local out, code = make "deps PACKAGES='bash coreutils'"
    assert.equal("", out)
    assert.equal(0, code)
  end)

  it("lists what to install where there is no apt-get, and stops", function()
    local bin = run("mktemp -d"):gsub("\n", "")
    run("for t in sh cc make dpkg-query sed tr id uname; do ln -s $(command -v $t) %s/$t; done", bin)
    local out, code = run("PATH=%s make -s deps PACKAGES='bash no-such-package another-one'", bin)
    run("rm -r %s", bin)
    assert.equal(2, code)
    assert.matches("packages, or what they hold: no%-such%-package another%-one\n", out)
  end)
end)
