-- busted as a script of the gradrun under test: gradrun spec/support/busted.lua FILES
table.insert(arg, 1, "--output=TAP")
require "busted.runner" { standalone = false }
