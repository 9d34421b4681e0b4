-- The program: options, arg, exit codes, tracebacks, Ctrl-C, the interactive loop.
local shell = require "spec.support.shell"
local run, quote, file = shell.run, shell.quote, shell.file

local function gradrun(args, ...) return run(shell.gradrun .. " " .. args, ...) end

describe("gradrun", function()
  it("prints versions, instruction set and threads", function()
    for _, option in ipairs { "-v", "--version" } do
      local out, code = gradrun(option)
      assert.equal(0, code)
      assert.matches("^gradrun %d+%.%d+%.%d+ %(Lua 5%.4%.%d+, BLIS %d+[%d.]*, %w+, %d+ threads?%)\n$", out)
    end
    assert.matches("generic, 3 threads%)", (run("GRADRUN_ISA=generic %s --threads 3 -v", shell.gradrun)))
    assert.matches("1 thread%)", (gradrun "--threads=1 -v"))
  end)

  it("prints help", function()
    for _, option in ipairs { "-h", "--help" } do
      local out, code = gradrun(option)
      assert.equal(0, code)
      assert.matches("^usage: gradrun", out)
      for _, name in ipairs { "-e STAT", "-l MOD", "-i ", "-v,", "--threads N", "--seed N" } do
        assert.truthy(out:find(name, 1, true), name)
      end
    end
  end)

  it("refuses options it does not have, naming them", function()
    for option, complaint in pairs {
      ["-x"] = "there is no option '-x'", ["--thread 2"] = "there is no option '--thread'",
      ["-e"] = "option '-e' wants statements", ["-l"] = "option '-l' wants a module's name",
      ["--threads 0"] = "option '--threads' wants a number from 1 to 64", ["--threads 65"] = "from 1 to 64",
      ["--threads two"] = "from 1 to 64", ["--threads"] = "from 1 to 64", ["--seed -1"] = "a whole number from 0",
      ["--seed 18446744073709551616"] = "a whole number from 0", ["--seed=x"] = "option '--seed=x' wants",
    } do
      local out, code = gradrun(option)
      assert.equal(1, code, option)
      assert.truthy(out:find(complaint, 1, true), out)
      assert.truthy(out:find("usage: gradrun", 1, true))
    end
    local out, code = run("GRADRUN_ISA=abacus %s -e ''", shell.gradrun)
    assert.equal(1, code)
    assert.truthy(out:find("GRADRUN_ISA=abacus", 1, true))
  end)

  it("runs -e and -l in their order, joined or apart", function()
    assert.equal("1\n2\n", (gradrun [[-e 'x = 1 print(x)' -e'print(x + 1)']]))
    local name = file "return { answer = 42, name = ... }"
    local path = ("LUA_PATH=%s/?"):format(name:match "^(.*)/")
    local mod = name:match "[^/]*$"
    assert.equal("42\n", (run("%s %s -l m=%s -e 'print(m.answer)'", path, shell.gradrun, mod)))
    assert.equal(mod .. "\n", (run("%s %s -l%s -e 'print(_G[%q].name)'", path, shell.gradrun, mod, mod)))
    local out, code = gradrun "-l no.such.module -e 'print(1)'"
    assert.equal(1, code)
    assert.matches("module 'no.such.module' not found", out)
  end)

  it("fills arg and ... as lua does", function()
    local show = [[
      local low = 0
      while arg[low - 1] do low = low - 1 end
      for i = low, #arg do io.write(i, "=", arg[i]:match("[^/]*$"), " ") end
      print(select("#", ...), ...)]]
    local script = file(show)
    local base = script:match "[^/]*$"
    for _, args in ipairs { script .. " a 'b c' -e", "-e 'x=1' " .. script, script, "-- " .. script .. " 1" } do
      local stock = run("lua5.4 %s", args):gsub("lua5%.4", "gradrun")
      assert.equal(stock, (gradrun(args)))
      assert.truthy(stock:find("0=" .. base, 1, true))
    end
    assert.equal(("-3=gradrun -2=--threads -1=1 0=%s 1=x 1\tx\n"):format(base),
      (gradrun("--threads 1 %s x", script)))
    assert.equal("gradrun\t-e\t0\n", (gradrun "-e 'print(arg[0]:match(\"[^/]*$\"), arg[1], select(\"#\", ...))'"))
    assert.equal("-1=gradrun 0=- 1=one 1\tone\n", (gradrun("- one < %s", script)))
  end)

  it("runs standard input for - and when it is no terminal", function()
    assert.equal("in\n", (run("echo 'print \"in\"' | %s -", shell.gradrun)))
    assert.equal("in\n", (run("echo 'print \"in\"' | %s", shell.gradrun)))
    local out, code = run("echo 'error \"in\"' | %s", shell.gradrun)
    assert.equal(1, code)
    assert.matches("stdin:1: in", out)
  end)

  it("passes over a first line that begins with #", function()
    assert.equal("1\n", (gradrun(file "#!/usr/bin/env gradrun\nprint(1)")))
  end)

  it("ends with 1, the error and a traceback on standard error", function()
    local script = file "local function inner() error('boom') end\nlocal function outer() inner() end\nouter()"
    local out, code = gradrun("%s 2>/dev/null", script)
    assert.equal(1, code)
    assert.equal("", out)
    out = gradrun(script)
    assert.matches("^gradrun: [^\n]*:1: boom\nstack traceback:\n", out)
    for line = 1, 3 do assert.matches(script .. ":" .. line .. ": in ", out) end
    for text, message in pairs {
      ["x = = 1"] = "gradrun: [^\n]*:1: unexpected symbol near '='\n$",
      ["error({})"] = "%(error object is a table value%)",
      ["error(setmetatable({}, { __tostring = function() return 'mine' end }))"] = "^gradrun: mine\n$",
      ["local function f() return 1 + f() end f()"] = "stack overflow",
      ["local gr = require 'gradrun' print(gr.ones(2, 3):matmul(gr.ones(2, 3)))"] = ":1: matmul: ",
    } do
      out, code = gradrun(file(text))
      assert.equal(1, code)
      assert.matches(message, out)
    end
    out, code = gradrun "/no/such/script.lua"
    assert.equal(1, code)
    assert.matches("^gradrun: cannot open /no/such/script.lua", out)
  end)

  it("ends with the options there are where a script has no such option", function()
    local script = file("local cli = require 'gradrun.cli'; cli.parse(arg, { epochs = 3, save = cli.TEXT, go = false })\n")
    for args, complaint in pairs { ["--epoch 4"] = "unknown option --epoch", ["--epochs x"] = "--epochs needs a number",
      ["--save"] = "--save needs a value", ["--save --go"] = "--save needs a value", ["--save="] = "--save needs a value",
      ["--go=false"] = "--go takes no value", ["-h"] = "unknown option -h" } do
      local out, code = gradrun(script .. " " .. args)
      assert.equal(1, code)
      assert.equal("gradrun: " .. complaint .. "\noptions: --epochs (3), --go (false), --save\n", out)
    end
  end)

  it("leaves with the code of os.exit, everything printed", function()
    local out, code = gradrun [[-e 'io.write "done" os.exit(7)']]
    assert.equal("done", out)
    assert.equal(7, code)
    out, code = gradrun [[-e 'io.write "done" os.exit(true, true)']]
    assert.equal("done", out)
    assert.equal(0, code)
  end)

  it("seeds and threads by option, without changing results", function()
    local draw = "-e 'print(require(\"gradrun\").randn(3))'"
    local seeded = gradrun("--seed 7 " .. draw)
    assert.equal(seeded, (gradrun("--seed=7 --threads 1 " .. draw)))
    assert.not_equal(seeded, (gradrun(draw)))
    assert.equal(seeded, (gradrun "-e 'local gr = require \"gradrun\" gr.manual_seed(7) print(gr.randn(3))'"))
    assert.equal("5\n", (gradrun "--threads 5 -e 'print(require(\"gradrun\").threads())'"))
  end)

  it("has its modules inside, and reads them from a folder when told", function()
    assert.matches("^f32%[2%]", (run("cd / && %s -e 'print(require(\"gradrun\").zeros(2))'", shell.gradrun)))
    local folder = run("mktemp -d"):gsub("\n", "")
    run("mkdir %s/gradrun && echo 'return { edited = ... }' > %s/gradrun/init.lua", folder, folder)
    local out = run("GRADRUN_LUA_PATH=%s %s -e 'print(require(\"gradrun\").edited)'", folder, shell.gradrun)
    run("rm -r %s", folder)
    assert.equal("gradrun\n", out)
    out = run("GRADRUN_LUA_PATH=/nowhere %s -e 'require \"gradrun\"'", shell.gradrun)
    assert.matches("/nowhere/gradrun/init.lua", out)
  end)

  it("starts with nothing of gradrun's Lua loaded, collecting generationally", function()
    assert.equal("nil\tnil\n", (gradrun "-e 'print(package.loaded.gradrun, gr)'"))
    assert.equal("generational\n", (gradrun "-e 'print(collectgarbage(\"incremental\"))'"))
  end)
end)

-- Starts a script, waits until it prints "ready", sends SIGINT.
local function interrupted(text)
  return run([[
    out=$(mktemp)
    %s %s > $out 2>&1 &
    for i in $(seq 1000); do grep -q ready $out && break; sleep 0.02; done
    sleep 0.05; kill -INT $!
    for i in $(seq 500); do kill -0 $! 2>/dev/null || break; sleep 0.02; done
    kill -KILL $! 2>/dev/null; wait $!; code=$?; cat $out; rm $out; exit $code]], shell.gradrun, file(text))
end

local ready = "print 'ready' io.stdout:flush() "

describe("Ctrl-C", function()
  for what, text in pairs {
    ["a loop"] = ready .. "while true do end",
    ["a loop in a coroutine"] =
      "coroutine.wrap(function() coroutine.wrap(function() " .. ready .. "while true do end end)() end)()",
    ["a loop in a resumed coroutine"] = ready ..
      "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    ["a generator's consumer"] =
      "local f = coroutine.wrap(function() while true do coroutine.yield() end end) " .. ready ..
      "while true do f() end",
    ["a loop of pcall"] = ready .. "while true do pcall(function() while true do end end) end",
    ["a pcall that is the last act"] = ready .. "return pcall(function() while true do end end)",
    ["a loop of xpcall"] = ready ..
      "while true do xpcall(function() while true do end end, function(m) return m .. '!' end) end",
    ["a long backward"] = [[
      local gr = require "gradrun"
      local x = gr.ones(1000):requires_grad_()
      local y = x
      for _ = 1, 200000 do y = y + 1 end
      local loss = y:sum()
      ]] .. ready .. "while true do pcall(loss.backward, loss, { retain_graph = true }) end",
    ["products in a loop"] = "local gr = require 'gradrun' local a = gr.ones(1500, 1500) " .. ready ..
      "while true do pcall(a.matmul, a, a) end",
  } do
    it("stops " .. what .. ", with code 130", function()
      local out, code = interrupted(text)
      assert.equal(130, code)
      assert.matches("^ready\ngradrun: [^\n]*interrupted\n", out)
    end)
  end

  it("lets finalizers run", function()
    local out, code = interrupted("local t = require('gradrun').ones(1) setmetatable({}, "
      .. "{ __gc = function() print(t:item(), 'collected') end }) " .. ready .. "while true do end")
    assert.equal(130, code)
    assert.matches("\n1%.0\tcollected\n$", out)
  end)

  it("kills when it comes again", function()
    local out, code = run([[
      %s -e 'print "ready" io.stdout:flush() string.rep("a", 40000):find(("a-"):rep(20) .. "b")' & p=$!
      sleep 0.3; kill -INT $p; sleep 0.2; kill -INT $p; wait $p]], shell.gradrun)
    assert.equal(130, code)
    assert.not_matches("interrupted", out)
  end)
end)

describe("the interactive loop", function()
  local function typed(text, options)
    local out, code = run("printf '%%s' %s | %s %s -i", quote(text), shell.gradrun, options or "")
    return out:gsub("^gradrun [^\n]*\n", ""), code
  end

  it("prints expressions, with or without =", function()
    assert.equal("> 3\n> 4\n> 1\tnil\ttwo\n> \n", (typed "1 + 2\n= 4\n1, nil, 'two'\n"))
    assert.equal("> > nil\n> \n", (typed "local x = 1\nx\n"))
  end)

  it("has gr, and prints tensors", function()
    assert.equal("> f32[2]\n  0.  0.\n> \n", (typed "gr.zeros(2)\n"))
  end)

  it("goes on over several lines until a chunk is whole", function()
    assert.equal("> >> >> 1\n2\n> \n", (typed "for i = 1, 2 do\nprint(i)\nend\n"))
    assert.equal("> >> 3\n> \n", (typed "1 +\n2\n"))
    assert.equal("> >> {1, 2}\n> \n", (typed "{1,\n2}\n"))
    assert.matches("'end' expected near <eof>", (typed "for i = 1, 2 do\n"))
  end)

  it("keeps the last result in _, and prints nothing after ;", function()
    assert.equal("> 6\n> 12\n> > 13\n> \n", (typed "2 * 3\n_ * 2\n_ + 1;\n_\n"))
  end)

  it("opens tables, within limits", function()
    local nested = typed "{ 1, 'a', {}, x = { y = { z = { 1 } } } }\n"
    assert.equal("> {1, \"a\", {}, x = {y = {z = {...}}}}\n> \n", nested)
    assert.equal("> > {me = {...}}\n> \n", (typed "t = {} t.me = t\nt\n"))
    local out = typed "t = {} for i = 1, 1e4 do t[i] = i end\nt\n"
    assert.truthy(#out < 300)
    assert.matches("9960 more", out)
  end)

  it("shows errors with a traceback of the user's own frames, and goes on", function()
    local out, code = typed "function f() error('boom') end\n_ = f()\nx y\nerror{}\n7\n"
    assert.equal(0, code)
    assert.matches("stdin:1: boom\nstack traceback:\n\t[^\n]*error'\n\tstdin:1: in function 'f'\n"
      .. "\tstdin:1: in main chunk\n", out)
    assert.matches("stdin:1: syntax error near 'y'", out)
    assert.matches("table value", out)
    assert.matches("> 7\n> \n$", out)
    assert.not_matches("repl", out)
  end)

  it("survives what printing raises", function()
    local out = typed "setmetatable({}, { __tostring = function() error 'no' end })\n7\n"
    assert.matches("stdin:1: no", out)
    assert.matches("> 7\n", out)
  end)

  it("follows a script, and knows its variables", function()
    assert.equal("> 5\n> \n", (typed("x\n", "-e 'x = 5'")))
    local out, code = typed("x\n", "-e 'error()'")
    assert.equal(1, code)
    assert.not_matches(">", out)
  end)

  it("stops a run and clears a line by Ctrl-C on a terminal", function()
    if select(2, run "script -qec true /dev/null") ~= 0 then return pending "needs script(1) and a pseudo-terminal" end
    local out, code = run([[
      { sleep 0.5; printf 'n = 0 while true do n = n + 1 end\n'
        sleep 0.4; printf '\003'; sleep 0.3; printf 'print("kept", n > 0)\n'
        sleep 0.2; printf 'half a line'; sleep 0.1; printf '\003'; sleep 0.2; printf 'print("still", 6 * 7)\n'
        sleep 0.2; printf 'if true then\n'; sleep 0.1; printf '\003'; sleep 0.2; printf '\004'; sleep 0.2; } |
      script -qec 'exec %s' /dev/null]], shell.gradrun)
    assert.equal(0, code)
    assert.matches("^gradrun %d", out:gsub("^[^g]*", ""))
    assert.matches("stdin:1: interrupted", out)
    assert.matches("kept\ttrue", (out:gsub("\r", "")))
    assert.matches("still\t42", (out:gsub("\r", "")))
  end)
end)
