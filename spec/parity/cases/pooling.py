"""Poolings and their layers; indices count from 1."""
import torch.nn.functional as F
from torch import nn

from parity import Input as I, layer, op


def pooling(name, *cases, indices=False):
    def call(x, kw):
        y = getattr(F, name)(x, **{k: tuple(v) if isinstance(v, list) else v for k, v in kw.items()},
                             **({"return_indices": True} if indices else {}))
        return (y[0], y[1] + 1) if indices else y

    for shape, kw in cases:
        op(name, lambda x, kw=kw: call(x, kw), I(*shape), **kw)


LINES = (((3, 5, 9), dict(kernel_size=2)), ((3, 4, 11), dict(kernel_size=3, stride=2, padding=1)),
         ((2, 5, 14), dict(kernel_size=5, stride=3, ceil_mode=True)))
PLANES = (((2, 3, 7, 5), dict(kernel_size=2)), ((2, 3, 7, 8), dict(kernel_size=[3, 2], stride=[2, 3], padding=1)),
          ((2, 3, 8, 5), dict(kernel_size=3, stride=2, padding=1, ceil_mode=True)),
          ((2, 3, 2, 5), dict(kernel_size=3, stride=[2, 3], ceil_mode=True)),
          ((1, 2, 9, 37), dict(kernel_size=3, stride=1, padding=1)))
pooling("max_pool1d", *LINES, ((3, 4, 11), dict(kernel_size=3, stride=1, dilation=2)), indices=True)
pooling("max_pool2d", *PLANES, indices=True)
pooling("avg_pool1d", *LINES, ((3, 4, 11), dict(kernel_size=3, padding=1, count_include_pad=False)))
pooling("avg_pool2d", *PLANES,
        ((2, 3, 8, 5), dict(kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)),
        ((1, 5, 7, 5), dict(kernel_size=[7, 5])))
EVEN = (((2, 3, 7, 6), dict(output_size=[3, 4])), ((2, 3, 5, 5), dict(output_size=1)),
        ((2, 3, 4, 6), dict(output_size=[2, 3])), ((2, 8, 3, 3), dict(output_size=[1, 5])))
pooling("adaptive_max_pool2d", *EVEN, indices=True)
pooling("adaptive_avg_pool2d", *EVEN)

layer("MaxPool1d", [3], {"stride": 2, "padding": 1}, lambda: nn.MaxPool1d(3, 2, 1), (3, 4, 11))
layer("AvgPool1d", [3], {"padding": 1}, lambda: nn.AvgPool1d(3, padding=1), (3, 4, 11))
layer("AvgPool2d", [[3, 2]], {"stride": 2, "count_include_pad": False, "padding": 1},
      lambda: nn.AvgPool2d((3, 2), 2, 1, count_include_pad=False), (2, 3, 7, 6))
layer("AdaptiveMaxPool2d", [[2, 3]], {}, lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 3, 5, 7))
layer("AdaptiveAvgPool2d", [1], {}, lambda: nn.AdaptiveAvgPool2d(1), (3, 4, 5, 4))
