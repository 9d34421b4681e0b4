"""Softmax, losses of classes and numbers, batch normalisation."""
import torch.nn.functional as F

from parity import INF, Input as I, op

for name, f in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
    op(name, lambda x, f=f: f(x, dim=-1), I(4, 7, scale=3))
    op(name, lambda x, f=f: f(x, dim=1), I(2, 5, 3), dim=2)
    op(name, lambda x, f=f: f(x, dim=-1), I(values=[[1000, 0, -1000], [-INF, 0, 1]]))
    op(name, lambda x, f=f: f(x, dim=-1), I(30, 50))
for x, t in (((5, 7), (5,)), ((2, 4, 3), (2, 3)), ((2, 4, 3, 2), (2, 3, 2)), ((7,), ()), ((64, 10), (64,))):
    classes = x[1] if len(x) > 1 else x[0]
    for reduction in ("mean", "sum", "none"):
        op("cross_entropy", lambda x, t, r=reduction: F.cross_entropy(x, t - 1, reduction=r), I(*x, scale=2),
           I(*t, below=classes, dtype="i64"), reduction=reduction)
for reduction in ("mean", "sum", "none"):
    op("mse_loss", lambda x, y, r=reduction: F.mse_loss(x, y, reduction=r), I(3, 4, 5), I(3, 4, 5), reduction=reduction)
for shape in ((4, 3), (2, 3, 5), (2, 3, 4, 2), (8, 16, 7, 7)):
    op("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), I(*shape), I(shape[1]), I(shape[1]),
       training=True)
    op("batch_norm", lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, eps=1e-3), I(*shape), I(shape[1]), I(shape[1]),
       I(shape[1], grad=False), I(shape[1], scale=0.25, shift=1, grad=False), eps=1e-3)
