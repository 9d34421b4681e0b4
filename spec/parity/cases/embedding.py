"""Rows of tables."""
import torch.nn.functional as F
from torch import nn

from parity import Input as I, layer, op

op("embedding", lambda x, w: F.embedding(x - 1, w), I(3, 4, below=6, dtype="i64"), I(6, 5))
op("embedding", lambda x, w: F.embedding(x - 1, w, padding_idx=2), I(2, 3, 2, below=5, dtype="i64"), I(5, 3),
   padding_idx=3)
op("embedding", lambda x, w: F.embedding(x - 1, w, padding_idx=-1), I(40, below=4, dtype="i64"), I(4, 7),
   padding_idx=-1)

layer("Embedding", [7, 4], {}, lambda: nn.Embedding(7, 4), I(3, 5, below=7, dtype="i64"), call=lambda m, x: m(x - 1))
layer("Embedding", [5, 3], {"padding_idx": 2}, lambda: nn.Embedding(5, 3, padding_idx=1), I(12, below=5, dtype="i64"),
      call=lambda m, x: m(x - 1))
