"""Convolutions of lines, transposed convolutions, and their layers."""
import torch.nn.functional as F
from torch import nn

from parity import Input as I, layer, op


def torch_options(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def convolution(name, *cases):
    f = getattr(F, name)
    for shapes, kw in cases:
        op(name, lambda *t, kw=kw: f(*t, **torch_options(kw)), *[I(*s, scale=0.5) for s in shapes], **kw)


convolution("conv1d",
            (((3, 5, 9), (9, 5, 3), (9,)), dict(padding=1)),
            (((3, 4, 11), (20, 2, 4)), dict(stride=2, padding=2, dilation=3, groups=2)),
            (((3, 3, 15), (3, 1, 3), (3,)), dict(groups=3)),
            (((4, 3, 16), (2, 3, 1), (2,)), dict()))
convolution("conv_transpose2d",
            (((2, 4, 4, 5), (4, 4, 3, 3), (4,)), dict(padding=1)),
            (((3, 4, 3, 4), (4, 3, 2, 2), (3,)), dict(stride=2)),
            (((2, 8, 3, 3), (8, 3, 3, 2), (6,)),
             dict(stride=[2, 3], padding=[1, 0], output_padding=[1, 2], groups=2)),
            (((2, 4, 4, 4), (4, 6, 3, 2)), dict(stride=[2, 1], padding=2, dilation=[2, 3])),
            (((3, 3, 4, 4), (3, 3, 1, 1), (3,)), dict()))
# wide enough for every way there is to compute one: planes of whole vectors, of half a one, of odd width; strides
for shapes, kw in (
        (((1, 5, 6, 32), (7, 5, 3, 3)), dict(padding=1)),
        (((2, 3, 8, 8), (18, 3, 3, 3), (18,)), dict(padding=1)),
        (((1, 4, 9, 14), (6, 2, 5, 3)), dict(padding=[2, 1], groups=2)),
        (((1, 3, 16, 16), (5, 3, 3, 3)), dict(stride=2, padding=1)),
        (((1, 6, 7, 16), (4, 6, 1, 1)), dict(stride=2)),
        (((1, 2, 11, 19), (3, 2, 4, 3)), dict(stride=[3, 2], padding=[1, 2], dilation=[1, 2])),
        (((2, 3, 6, 17), (6, 1, 3, 3), (6,)), dict(padding=1, groups=3)),
        (((1, 4, 9, 8), (4, 1, 5, 5)), dict(stride=2, padding=2, groups=4))):
    op("conv2d", lambda *t, kw=kw: F.conv2d(*t, **torch_options(kw)), *[I(*s, scale=0.5) for s in shapes], **kw)

layer("Conv1d", [3, 14, 3], {"padding": 1}, lambda: nn.Conv1d(3, 14, 3, padding=1), (3, 3, 16))
layer("Conv1d", [4, 6, 3], {"stride": 2, "dilation": 2, "groups": 2, "bias": False},
      lambda: nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2, bias=False), (2, 4, 17))
layer("ConvTranspose2d", [3, 2, 3], {"stride": 2, "padding": 1, "output_padding": 1},
      lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 3, 4, 4))
layer("ConvTranspose2d", [4, 6, [3, 2]], {"groups": 2, "dilation": [1, 2], "bias": False},
      lambda: nn.ConvTranspose2d(4, 6, (3, 2), groups=2, dilation=(1, 2), bias=False), (2, 4, 4, 4))
