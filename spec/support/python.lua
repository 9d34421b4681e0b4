-- A Python that has PyTorch and safetensors: GRADRUN_PYTHON, PYTHON or python3; false where there is none.
local shell = require "spec.support.shell"

local python = os.getenv "GRADRUN_PYTHON" or os.getenv "PYTHON" or "python3"
local _, code = shell.run("%s -c 'import torch, safetensors'", python)
return code == 0 and python
