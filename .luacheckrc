-- luacheck lua scripts spec
std = "lua54"
max_line_length = false
unused_args = false
ignore = { "581" } -- not (x <= y) is not x > y: NaN
exclude_files = { "spec/parity/*.lua" } -- figures
files["spec/*_spec.lua"] = { std = "+busted", ignore = { "311" } } -- y = nil lets go of y
files["spec/support/fault.lua"] = { read_globals = { "fault" } }
files["scripts/embed/train.lua"] = { globals = { "predict", "scale", "points", "steps" } } -- the host's
