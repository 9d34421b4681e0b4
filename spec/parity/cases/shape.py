"""Ops that move elements or look at them in another way."""
import torch

from parity import Input as I, op

op("reshape", lambda x: x.reshape(4, -1), I(2, 3, 4), shape=[4, -1])
op("view", lambda x: x.view(6, 4), I(2, 3, 4), shape=[6, 4])
op("flatten", lambda x: x.flatten(1, 2), I(2, 3, 4, 2), start_dim=2, end_dim=3)
op("transpose", lambda x: x.transpose(0, 2), I(2, 3, 4), dim0=1, dim1=3)
op("permute", lambda x: x.permute(2, 0, 1), I(2, 3, 4), dims=[3, 1, 2])
op("squeeze", lambda x: x.squeeze(), I(1, 3, 1, 2))
op("squeeze", lambda x: x.squeeze(0), I(1, 3, 1), dim=1)
op("unsqueeze", lambda x: x.unsqueeze(1), I(3, 2), dim=2)
op("unsqueeze", lambda x: x.unsqueeze(-1), I(3, 2), dim=-1)
op("expand", lambda x: x.expand(4, 3, 5), I(3, 1), shape=[4, 3, 5])
op("narrow", lambda x: x.narrow(1, 1, 2), I(2, 5, 3), dim=2, start=2, length=2)
op("slice", lambda x: x[:, 1:6:2], I(2, 7), dim=2, start=2, stop=6, step=2)
op("select", lambda x: x.select(1, 2), I(2, 5, 3), dim=2, index=3)
op("select", lambda x: x.select(0, -1), I(2, 5), dim=1, index=-1)
op("cat", lambda *t: torch.cat(t, 1), I(2, 1, 3), I(2, 4, 3), I(2, 2, 3), dim=2)
op("stack", lambda *t: torch.stack(t, 1), I(2, 3), I(2, 3), I(2, 3), dim=2)
op("index_select", lambda x, i: x.index_select(1, i - 1), I(3, 5, 2), I(7, below=5, dtype="i64"), dim=2)
op("contiguous", lambda x: x.contiguous(), I(2, 3))
