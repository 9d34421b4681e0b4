"""Sums, means, largest elements, norms."""
import torch

from parity import INF, NAN, Input as I, op

for name, f in (("sum", torch.sum), ("mean", torch.mean), ("amax", torch.amax)):
    op(name, f, I(3, 4, 5))
    op(name, lambda x, f=f: f(x, dim=1), I(3, 4, 5), dim=2)
    op(name, lambda x, f=f: f(x, dim=(0, 2)), I(3, 4, 5), dim=[1, 3])
    op(name, lambda x, f=f: f(x, dim=-1, keepdim=True), I(3, 4, 5), dim=-1, keepdim=True)
    op(name, lambda x, f=f: f(x, dim=0), I(70, 9), dim=1)
    op(name, f, I(values=[1, NAN, 3]))
op("amax", torch.amax, I(values=[[1, 3, 3], [3, 0, 2]]))
op("amax", lambda x: x.amax(1), I(values=[[1, 3, 3], [0, 0, 0]]), dim=2)
op("argmax", lambda x: x.argmax() + 1, I(3, 4, 5))
op("argmax", lambda x: x.argmax(1) + 1, I(3, 4, 5), dim=2)
op("argmax", lambda x: x.argmax(-1, keepdim=True) + 1, I(6, 10), dim=-1, keepdim=True)
for p in (2.0, 1.0, 3.0, 2.5, INF):
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p), I(3, 4, 5), p=p)
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p, dim=1), I(3, 4, 5), p=p, dim=2)
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p, dim=(0, 2), keepdim=True), I(3, 4, 5), p=p, dim=[1, 3],
       keepdim=True)
op("norm", torch.linalg.vector_norm, I(values=[0, 0, 0]), second=False)  # NaN; ours is 0, as the gradient is
