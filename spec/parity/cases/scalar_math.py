"""Functions of one number, and remainders."""
import torch

from parity import INF, NAN, Input as I, op

ENDS = [0, INF, -INF, NAN, 1e-6, -1]
op("sin", torch.sin, I(3, 4, 5, scale=3))
op("sin", torch.sin, I(values=ENDS + [1000, 65536, 1e6, -1e8]))
op("cos", torch.cos, I(3, 4, 5, scale=3))
op("cos", torch.cos, I(values=ENDS + [1000, 65536, 1e6, -1e8]))
op("erf", torch.erf, I(3, 4, 5, scale=1.5))
op("erf", torch.erf, I(values=ENDS + [3.5, -3.5, 6, 30]), second=False)
for name, f in (("floor", torch.floor), ("ceil", torch.ceil), ("trunc", torch.trunc), ("round", torch.round)):
    op(name, f, I(3, 4, 5, scale=2))
    op(name, f, I(values=[0, -0.5, 0.5, 1.5, 2.5, -2.5, 8388609, INF, -INF, NAN]))
    op(name, f, I(5, below=7, dtype="i64"))
op("sign", torch.sign, I(3, 4, 5))
op("sign", torch.sign, I(values=[0, 1e-30, -1e-30, INF, -INF]))  # of NaN PyTorch says 0
for name, f in (("fmod", torch.fmod), ("remainder", torch.remainder)):
    op(name, f, I(3, 4, 5, scale=4), I(3, 4, 5, scale=0.5, shift=1.5))
    op(name, f, I(2, 3, 5, scale=4), I(5, scale=0.5, shift=-1.5))
    op(name, f, I(6, scale=100), I(values=3))
    op(name, f, I(values=[7, -7, 7, -7, 1, 5, -5, 1e30, 0]), I(values=[3, 3, -3, -3, 0, INF, INF, 7, 5]),
       second=False)
    op(name, f, I(6, below=90, dtype="i64"), I(6, below=4, dtype="i64"))
op("erfinv", torch.erfinv, I(3, 4, 5, scale=0.4375))
op("erfinv", torch.erfinv, I(values=[0, 1e-6, -0.84, 0.86, 0.99951171875]))
op("erfinv", torch.erfinv, I(values=[1, -1, 1.5, NAN]), second=False)
