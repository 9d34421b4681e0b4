"""Ops that pick elements by index tensors and masks, or put them in another order."""
import torch
import torch.nn.functional as F

from parity import Input as I, op

MASK = dict(below=2, dtype="u8")


def index(*shape, below):
    return I(*shape, below=below, dtype="i64")


op("gather", lambda x, i: x.gather(1, i - 1), I(3, 4, 5), index(2, 6, 5, below=4), dim=2)
op("gather", lambda x, i: x.gather(-1, i - 1), I(6, 5), index(6, 1, below=5), dim=-1)
op("gather", lambda x, i: x.gather(0, i - 1), I(5), index(8, below=5), dim=1)
op("scatter_add", lambda x, i, s: x.scatter_add(1, i - 1, s), I(3, 4, 5), index(2, 6, 5, below=4), I(2, 6, 5), dim=2)
op("scatter_add", lambda x, i, s: x.scatter_add(0, i - 1, s), I(4), index(9, below=4), I(9), dim=1)
op("scatter", lambda x, i, s: x.scatter(1, i - 1, s), I(2, 4),
   I(values=[[3, 1], [2, 4]], dtype="i64"), I(2, 2), dim=2)
op("scatter", lambda x, i, s: x.scatter(0, i - 1, s), I(3, 4),
   I(values=[[3, 1, 2, 2]], dtype="i64"), I(1, 4), dim=1)
op("masked_select", torch.masked_select, I(3, 4), I(3, 4, **MASK))
op("masked_select", torch.masked_select, I(2, 3, 1), I(3, 4, **MASK))
op("one_hot", lambda c: F.one_hot(c - 1, 5), index(2, 6, below=5), num_classes=5)
op("one_hot", lambda c: F.one_hot(c - 1), index(9, below=4))
op("tril", torch.tril, I(2, 4, 5))
op("tril", lambda x: x.tril(-1), I(4, 3), diagonal=-1)
op("triu", torch.triu, I(2, 4, 5))
op("triu", lambda x: x.triu(2), I(4, 5), diagonal=2)
op("flip", lambda x: x.flip(0, 2), I(3, 2, 4), dims=[1, 3])
op("flip", lambda x: x.flip(1), I(3, 4), dims=[2])
op("roll", lambda x: x.roll(2), I(3, 4), shifts=[2])
op("roll", lambda x: x.roll((-1, 5), (0, 2)), I(3, 2, 4), shifts=[-1, 5], dims=[1, 3])
op("diagonal", lambda x: x.diagonal(-1), I(4, 3), offset=-1)
op("diagonal", lambda x: x.diagonal(1, 2, 0), I(3, 2, 4), offset=1, dim1=3, dim2=1)
op("diag_embed", lambda x: x.diag_embed(), I(2, 3))
op("diag_embed", lambda x: x.diag_embed(-2, 0, 2), I(2, 3), offset=-2, dim1=1, dim2=3)
