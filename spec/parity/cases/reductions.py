"""Smallest elements, products, variances, logarithms of sums of exponentials, running sums."""
import torch

from parity import INF, NAN, Input as I, op

for name, f in (("amin", torch.amin), ("prod", torch.prod), ("var", torch.var), ("std", torch.std),
                ("logsumexp", torch.logsumexp)):
    whole = {"logsumexp": lambda x: torch.logsumexp(x, (0, 1, 2))}.get(name, f)
    op(name, whole, I(2, 2, 3))
    op(name, lambda x, f=f: f(x, dim=1), I(2, 3, 2), dim=2)
    op(name, lambda x, f=f: f(x, dim=-1, keepdim=True), I(2, 5), dim=-1, keepdim=True)
    op(name, lambda x, f=f: f(x, dim=0), I(33, 1), dim=1)
    if name != "prod":
        op(name, lambda x, f=f: f(x, dim=(0, 2)), I(2, 3, 2), dim=[1, 3])
for name, f in (("all", torch.all), ("any", torch.any)):
    op(name, f, I(values=[[1, 0, 0], [3, 0, 2]]))
    op(name, lambda x, f=f: f(x, 1), I(values=[[1, NAN, -INF], [0, 0, 0], [0, 2, 0]]), dim=2)
    op(name, lambda x, f=f: f(x, 0, keepdim=True), I(2, 5), dim=1, keepdim=True)
op("amin", torch.amin, I(values=[[1, 0, 0], [3, 0, 2]]))
op("amin", torch.amin, I(values=[1, NAN, 3]))
op("argmin", lambda x: x.argmin() + 1, I(3, 4, 5))
op("argmin", lambda x: x.argmin(1) + 1, I(3, 4, 5), dim=2)
op("argmin", lambda x: x.argmin(-1, keepdim=True) + 1, I(6, 10), dim=-1, keepdim=True)
op("prod", lambda x: x.prod(0).prod(1), I(2, 3, 2), dim=[1, 3])
op("prod", lambda x: x.prod(1), I(values=[[1, 2, 3], [0, 2, 3], [0, 2, 0]]), dim=2)
op("prod", torch.prod, I(values=[-1, NAN, 2], grad=False))  # PyTorch's gradient of NaN's own place is NaN, too
op("prod", torch.prod, I(values=[2, 0, 3]))
for correction in (0, 2, 0.5):
    op("var", lambda x, c=correction: torch.var(x, dim=1, correction=c), I(3, 5), dim=2, correction=correction)
    op("std", lambda x, c=correction: torch.std(x, dim=1, correction=c), I(3, 5), dim=2, correction=correction)
op("var", torch.var, I(values=[2, 2, 2]))
op("std", torch.std, I(values=[2, 2, 2]), second=False)  # NaN; ours is 0, as the gradient is
op("std", torch.std, I(values=[2, NAN, 3]))
op("logsumexp", lambda x: x.logsumexp(1), I(4, 5, scale=60), dim=2)
op("logsumexp", lambda x: x.logsumexp(1), I(values=[[-INF, 0], [3, NAN], [-INF, -1]]), dim=2)
op("logsumexp", lambda x: x.logsumexp(1), I(values=[[-INF, -INF], [INF, 3], [INF, -INF]], grad=False), dim=2)
for dim in (1, 2, 3):
    op("cumsum", lambda x, d=dim: x.cumsum(d - 1), I(2, 3, 2), dim=dim)
op("cumsum", lambda x: x.cumsum(-1), I(2, 1100), dim=-1)
op("cumsum", lambda x: x.cumsum(0), I(values=[1, INF, NAN, 2]), dim=1)
