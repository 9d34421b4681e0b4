-- gradrun in a host program: the example host, runtimes as C sees them, and the header by itself.
local shell = require "spec.support.shell"
local run, file = shell.run, shell.file

describe("the example host", function()
  it("lends a buffer, trains on it, reads the result, closes clean", function()
    local out, code = run("%s/embed_host scripts/embed/train.lua", shell.build)
    assert.equal(0, code, out)
    assert.matches("predict%(2%) = 5%.00%d, shape 1 x 1\n", out)
    assert.matches("points%[1%] is now 0.15625, ", out)
    assert.matches("status 11 %(script error%): wrong.lua:2: matmul: [^\n]*f32%[2,3%]", out)
    assert.matches("stack traceback:\n", out)
    assert.matches("closed with 0 live objects\n$", out)
  end)
end)

describe("a runtime", function()
  local out = run("CMOCKA_MESSAGE_OUTPUT=STDOUT %s/runtime_test", shell.build)
  local count, seen = tonumber(out:match "Running (%d+) test"), 0
  for name in out:gmatch "%[ RUN +%] ([%l%d_]+)\n" do
    seen = seen + 1
    it((name:gsub("_", " ")), function()
      local from, to = out:find("[ RUN      ] " .. name, 1, true), out:find("[       OK ] " .. name, 1, true)
      assert.truthy(to, out:sub(from, from + 2000))
    end)
  end
  it("has all its tests run", function() assert.truthy(count and count > 10 and count == seen, out) end)
end)

describe("gradrun.h", function()
  for _, how in ipairs {
    "cc -x c -std=c99 -pedantic", "cc -x c -std=c11 -pedantic",
    "c++ -x c++ -std=c++11 -pedantic", "c++ -x c++ -std=c++17 -pedantic",
  } do
    it("compiles alone with " .. how, function()
      if select(2, run("command -v %s", how:match "%S+")) ~= 0 then return pending "no such compiler" end
      local out, code = run("%s -Wall -Wextra -Werror -fsyntax-only -Iruntime %s", how, file "#include <gradrun.h>\n")
      assert.equal(0, code, out)
    end)
  end

  it("is all that libgradrun exports", function()
    local declared, exported = {}, 0
    local header <close> = assert(io.open "runtime/gradrun.h")
    for name in header:read("a"):gmatch "(gr_[%w_]+)%(" do declared[name] = true end
    for name in run("nm -D --defined-only %s/libgradrun.so", shell.build):gmatch " [A-Z] ([%w_]+)\n" do
      if name ~= "luaopen_gradrun_core" then
        assert.truthy(declared[name], name .. " is exported but not in gradrun.h")
        exported = exported + 1
      end
    end
    assert.truthy(exported > 50)
  end)
end)
