"""Layer and group normalisation."""
import torch.nn.functional as F
from torch import nn

from parity import Input as I, layer, op

for shape, last in (((5, 7), 1), ((2, 3, 4), 2), ((4, 130), 1), ((6,), 1)):
    sizes = list(shape[len(shape) - last:])
    op("layer_norm", lambda x, w, b, n=sizes: F.layer_norm(x, n, w, b), I(*shape), I(*sizes), I(*sizes),
       normalized_shape=sizes)
    op("layer_norm", lambda x, w, n=sizes: F.layer_norm(x, n, w, eps=0.5), I(*shape), I(*sizes), eps=0.5)
op("layer_norm", lambda x: F.layer_norm(x, [7]), I(5, 7, scale=100, shift=30), normalized_shape=[7])
for shape, groups in (((2, 6, 3), 3), ((3, 4), 2), ((2, 4, 3, 2), 1), ((2, 3, 4, 5), 3)):
    op("group_norm", lambda x, w, b, g=groups: F.group_norm(x, g, w, b), I(*shape), I(shape[1]), I(shape[1]),
       num_groups=groups)
op("group_norm", lambda x: F.group_norm(x, 2, eps=0.5), I(2, 4, 3, scale=20, shift=5), num_groups=2, eps=0.5)

layer("LayerNorm", [7], {}, lambda: nn.LayerNorm(7), (5, 7))
layer("LayerNorm", [[3, 4]], {"eps": 0.01}, lambda: nn.LayerNorm((3, 4), eps=0.01), (2, 3, 4))
layer("LayerNorm", [7], {"bias": False}, lambda: nn.LayerNorm(7, bias=False), (2, 3, 7))
layer("LayerNorm", [7], {"elementwise_affine": False}, lambda: nn.LayerNorm(7, elementwise_affine=False),
      (5, 7))
layer("GroupNorm", [3, 6], {}, lambda: nn.GroupNorm(3, 6), (2, 6, 2, 3))
layer("GroupNorm", [2, 4], {"affine": False, "eps": 0.01}, lambda: nn.GroupNorm(2, 4, affine=False, eps=0.01),
      (3, 4, 5))
