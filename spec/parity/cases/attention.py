"""Attention: the op, and MultiheadAttention."""
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from parity import INF, MASK, Input as I, layer, op


def attend(q, k, v, mask=None, **options):
    with sdpa_kernel(SDPBackend.MATH):  # the other ways have no second derivative
        return F.scaled_dot_product_attention(q, k, v, mask, **options)


NAME = "scaled_dot_product_attention"
op(NAME, attend, I(2, 2, 3, 2), I(2, 2, 3, 2), I(2, 2, 3, 2))
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(2, 4, 3), I(2, 4, 3), I(2, 4, 2), is_causal=True)
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.5), I(2, 3, 3), I(2, 5, 3), I(2, 5, 2),
   is_causal=True, scale=0.5)
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(2, 5, 3), I(2, 3, 3), I(2, 3, 2), is_causal=True)
op(NAME, lambda q, k, v: attend(q, k, v, scale=-0.3), I(3, 2), I(5, 2), I(5, 4), scale=-0.3)
op(NAME, attend, I(2, 3, 4), I(2, 5, 4), I(2, 5, 2), I(3, 5))
op(NAME, attend, I(2, 2, 2, 3), I(2, 2, 4, 3), I(2, 2, 4, 1), I(2, 1, 1, 4))
op(NAME, attend, I(2, 3, 4), I(2, 5, 4), I(2, 5, 2), I(2, 3, 5, **MASK))
op(NAME, attend, I(2, 4), I(3, 4), I(3, 2), I(values=[[1, 0, 1], [0, 0, 0]], dtype="u8"))
op(NAME, attend, I(2, 4), I(3, 4), I(3, 2), I(values=[[0.5, -INF, 1], [-INF, -INF, -INF]], grad=False))
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(3, 70, 5), I(3, 70, 5), I(3, 70, 4), is_causal=True,
   second=False)


def mha(args, options, *inputs, **called):
    """One module; inputs: query, and as far as given key, value, key_padding_mask and attn_mask."""
    def run(m, q, k=None, v=None, padding=None, mask=None):
        k = q if k is None else k
        v = k if v is None else v
        length = 1 if m.batch_first and q.dim() == 3 else 0
        if called.get("is_causal"):  # a mask must be given as well
            mask = torch.ones(q.shape[length], k.shape[length]).triu(1).bool()
        with sdpa_kernel(SDPBackend.MATH):
            y, weights = m(q, k, v, padding, attn_mask=mask, **{"need_weights": False, **called})
        return y if weights is None else (y, weights)

    layer("MultiheadAttention", args, options, lambda: nn.MultiheadAttention(*args, **options), *inputs, call=run,
          call_options=called)


mha([4, 2], {}, I(3, 2, 4))
mha([4, 2], {"batch_first": True, "bias": False}, I(2, 3, 4), is_causal=True)
mha([4, 2], {}, I(3, 2, 4), I(5, 2, 4), need_weights=True)
mha([4, 2], {"batch_first": True}, I(2, 2, 4), I(2, 3, 4), I(2, 3, 4), I(2, 3, **MASK))
mha([4, 2], {"kdim": 3, "vdim": 5}, I(3, 2, 4), I(4, 2, 3), I(4, 2, 5))
mha([4, 2], {"kdim": 3, "bias": False}, I(3, 4), I(4, 3), I(4, 4), need_weights=True, average_attn_weights=False)
mha([4, 2], {}, I(3, 2, 4), I(3, 2, 4), I(3, 2, 4), I(values=[[0, 0, 1], [0, 1, 0]], dtype="u8"),
    I(values=[[0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype="u8"))
mha([4, 2], {"batch_first": True}, I(2, 2, 4), I(2, 2, 4), I(2, 2, 4), I(2, 2), I(4, 2, 2), need_weights=True)
mha([4, 1], {}, I(2, 4), I(3, 4), I(3, 4), I(values=[0, 1, 0], dtype="u8"), I(2, 3))
