"""Attention: the op, and MultiheadAttention."""
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from parity import INF, MASK, Input as I, op


def attend(q, k, v, mask=None, **options):
    with sdpa_kernel(SDPBackend.MATH):  # the other ways have no second derivative
        return F.scaled_dot_product_attention(q, k, v, mask, **options)


NAME = "scaled_dot_product_attention"
op(NAME, attend, I(2, 2, 4, 3), I(2, 2, 4, 3), I(2, 2, 4, 3))
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(2, 4, 3), I(2, 4, 3), I(2, 4, 2), is_causal=True)
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.5), I(2, 3, 3), I(2, 5, 3), I(2, 5, 2),
   is_causal=True, scale=0.5)
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(2, 5, 3), I(2, 3, 3), I(2, 3, 2), is_causal=True)
op(NAME, lambda q, k, v: attend(q, k, v, scale=-0.3), I(3, 2), I(5, 2), I(5, 4), scale=-0.3)
op(NAME, attend, I(2, 3, 4), I(2, 5, 4), I(2, 5, 2), I(3, 5))
op(NAME, attend, I(2, 2, 3, 4), I(2, 2, 5, 4), I(2, 2, 5, 2), I(2, 1, 1, 5))
op(NAME, attend, I(2, 3, 4), I(2, 5, 4), I(2, 5, 2), I(2, 3, 5, **MASK))
op(NAME, attend, I(2, 4), I(3, 4), I(3, 2), I(values=[[1, 0, 1], [0, 0, 0]], dtype="u8"))
op(NAME, attend, I(2, 4), I(3, 4), I(3, 2), I(values=[[0.5, -INF, 1], [-INF, -INF, -INF]], grad=False))
op(NAME, lambda q, k, v: attend(q, k, v, is_causal=True), I(3, 70, 5), I(3, 70, 5), I(3, 70, 4), is_causal=True,
   second=False)
