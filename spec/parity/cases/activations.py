"""Activations: ops, then layers."""
import torch.nn.functional as F
from torch import nn

from parity import INF, NAN, Input as I, layer, op

FAR = [0, 1e-5, -1e-5, 6, -6, 12, -12, 40, -40, 1e4, -1e4, NAN]  # gelu of infinity: NaN in PyTorch's f32
for approximate in ("none", "tanh"):
    f = lambda x, a=approximate: F.gelu(x, approximate=a)
    op("gelu", f, I(3, 4, 5, scale=2), approximate=approximate)
    op("gelu", f, I(values=FAR), second=False, approximate=approximate)
op("silu", F.silu, I(3, 4, 5, scale=3))
op("silu", F.silu, I(values=FAR + [INF, -INF]), second=False)
op("softplus", F.softplus, I(3, 4, 5, scale=3))
op("softplus", lambda x: F.softplus(x, 2.5, 3), I(3, 5), beta=2.5, threshold=3)
op("softplus", lambda x: F.softplus(x, -1), I(3, 5, scale=12), beta=-1)
op("softplus", F.softplus, I(values=FAR + [INF, -INF]), second=False)
op("selu", F.selu, I(3, 4, 5, scale=2))
op("selu", F.selu, I(values=[0, 1e-4, -1e-4, -100, 100, INF, -INF]), second=False)  # a kink at 0
OFF = 1 / 2048  # the kink at 0
op("prelu", F.prelu, I(3, 4, 5, shift=OFF), I(1))
op("prelu", F.prelu, I(3, 4, 5, shift=OFF), I(4))
op("prelu", F.prelu, I(2, 3, 4, 2, shift=OFF), I(3))
op("prelu", F.prelu, I(7, shift=OFF), I(1))
op("prelu", F.prelu, I(2, 5, shift=OFF), I())

for name, args, options, make, shape in (
        ("GELU", [], {}, nn.GELU, (3, 5)),
        ("GELU", [], {"approximate": "tanh"}, lambda: nn.GELU("tanh"), (3, 5)),
        ("SiLU", [], {}, nn.SiLU, (3, 5)),
        ("Softplus", [], {}, nn.Softplus, (3, 5)),
        ("Softplus", [0.5, 1.5], {}, lambda: nn.Softplus(0.5, 1.5), (3, 5)),
        ("SELU", [], {}, nn.SELU, (3, 5)),
        ("PReLU", [], {}, nn.PReLU, (3, 5)),
        ("PReLU", [4], {"init": 0.5}, lambda: nn.PReLU(4, 0.5), (3, 4, 2)),
        ("Softmax", [], {}, lambda: nn.Softmax(-1), (3, 5)),
        ("Softmax", [2], {}, lambda: nn.Softmax(1), (2, 4, 3)),
        ("LogSoftmax", [2], {}, lambda: nn.LogSoftmax(1), (2, 4, 3)),
        ("Identity", [], {}, nn.Identity, (3, 5))):
    layer(name, args, options, make, shape)
