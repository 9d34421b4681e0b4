"""Norms of three gradients of moderate size, of orders 1, 2, 3 and infinity; their 2-norm when cut to 0.75."""
import math

import torch

from parity import draw, row


def norms(dtype):
    grads = [torch.tensor(draw(40 + k, shape)).to(dtype) for k, shape in enumerate(([3, 4], [7], []))]
    cut = [g.clamp(-0.75, 0.75) for g in grads]
    return {"norms": [torch.nn.utils.get_total_norm(grads, p).item() for p in (1.0, 2.0, 3.0, math.inf)],
            "cut": torch.nn.utils.get_total_norm(cut, 2.0).item()}


row("clips", norms)
