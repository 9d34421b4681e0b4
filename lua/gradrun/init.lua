-- gradrun: what `require "gradrun"` gives. The native half is gradrun.core; here are names and policy.
local gr = require "gradrun.core"

local VERSION = "0.1.0"
if gr._VERSION ~= VERSION then
  error(("gradrun: the Lua modules are version %s, but gradrun.core is version %s"):format(VERSION, gr._VERSION), 0)
end
gr.version = VERSION

-- Names users of PyTorch know.
gr.rand, gr.randn, gr.randperm = gr.uniform, gr.normal, gr.permutation
gr.bce_with_logits = gr.binary_cross_entropy_with_logits
gr.nn.functional.bce_with_logits = gr.bce_with_logits

gr.nn.init = require "gradrun.initialisers"
require "gradrun.views"
gr.data = require "gradrun.data"
gr.save, gr.load = require("gradrun.checkpoint").save, require("gradrun.checkpoint").load
gr.diff = require("gradrun.diff").new
gr.schedule = require "gradrun.schedule"
gr.fit = require("gradrun.trainer").fit
gr.accuracy = require("gradrun.trainer").accuracy

return gr
