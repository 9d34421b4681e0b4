"""Convolution and pooling of planes."""
import torch.nn.functional as F

from parity import Input as I, op


def conv(x, w, b=None, **kw):
    return F.conv2d(x, w, b, **kw)


for shapes, kw in (
        (((2, 3, 5, 5), (4, 3, 3, 3), (4,)), dict()),
        (((2, 3, 5, 5), (4, 3, 3, 3)), dict(padding=1)),
        (((2, 3, 8, 7), (4, 3, 3, 2), (4,)), dict(stride=2, padding=1)),
        (((1, 2, 9, 8), (3, 2, 3, 2), (3,)), dict(stride=[2, 1], padding=[1, 2], dilation=[2, 3])),
        (((2, 4, 6, 5), (6, 2, 3, 3), (6,)), dict(groups=2, padding=1)),
        (((2, 4, 6, 5), (4, 1, 3, 3), (4,)), dict(groups=4)),
        (((2, 3, 4, 5), (4, 3, 1, 1), (4,)), dict()),
        (((3, 8, 14, 14), (16, 8, 3, 3), (16,)), dict(padding=1)),
        (((2, 3, 12, 12), (8, 3, 5, 5), (8,)), dict(stride=2, padding=2))):
    op("conv2d", lambda *t, kw=kw: conv(*t, **{k: tuple(v) if isinstance(v, list) else v for k, v in kw.items()}),
       *[I(*s) for s in shapes], **kw)
for shape, kw in (((2, 3, 6, 6), dict(kernel_size=2)), ((2, 2, 7, 8), dict(kernel_size=[3, 2], stride=[2, 3], padding=1)),
                  ((2, 2, 7, 5), dict(kernel_size=2, ceil_mode=True)),
                  ((1, 2, 9, 9), dict(kernel_size=3, stride=1, padding=1, dilation=2))):
    op("max_pool2d", lambda x, kw=kw: F.max_pool2d(x, **kw), I(*shape), **kw)
