"""Sorting, the best k, medians, largest and smallest elements with their places."""
import torch

from parity import INF, NAN, Input as I, op


def places(pair):
    """Positions from 1."""
    return pair[0], pair[1] + 1


for name, f in (("max", torch.max), ("min", torch.min), ("median", torch.median)):
    op(name, lambda x, f=f: places(f(x, 1)), I(2, 5, 3), dim=2)
    op(name, lambda x, f=f: places(f(x, -1, keepdim=True)), I(3, 8), dim=-1, keepdim=True)
    op(name, lambda x, f=f: places(f(x, 0)), I(values=[3, NAN, 1, 4]), dim=1)
op("max", lambda x: places(x.max(1)), I(values=[[1, 3, 3], [2, 2, 0]]), dim=2)
op("median", lambda x: places(x.median(1)), I(3, 60, scale=8), dim=2)
for descending in (False, True):
    op("sort", lambda x, d=descending: places(x.sort(1, descending=d)), I(2, 6, 2), dim=2, descending=descending)
    op("sort", lambda x, d=descending: places(x.sort(descending=d, stable=True)),
       I(values=[2, 0, 2, NAN, 0, -INF, INF]), descending=descending)
    op("argsort", lambda x, d=descending: x.argsort(0, descending=d) + 1, I(6, 2), dim=1, descending=descending)
op("sort", lambda x: places(x.sort()), I(2, 60, scale=8))
for largest in (True, False):
    op("topk", lambda x, b=largest: places(x.topk(3, 1, largest=b)), I(2, 6, 2), k=3, dim=2, largest=largest)
    op("topk", lambda x, b=largest: places(x.topk(2, largest=b)), I(values=[[1, NAN, 3], [-INF, 2, INF]]), k=2,
       largest=largest)
op("topk", lambda x: places(x.topk(5)), I(2, 400, scale=8), k=5)
