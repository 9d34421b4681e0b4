"""Layers: the first there were, and layers in line."""
from torch import nn

from parity import layer, layers

layer("Linear", [7, 5], {}, lambda: nn.Linear(7, 5), (3, 7))
layer("Linear", [7, 5], {"bias": False}, lambda: nn.Linear(7, 5, bias=False), (2, 3, 7))
layer("Conv2d", [3, 4, 3], {}, lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 5))
layer("Conv2d", [4, 6, [3, 2]], {"stride": 2, "padding": [1, 2], "groups": 2, "bias": False},
      lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), groups=2, bias=False), (2, 4, 6, 5))
layer("Conv2d", [2, 3, 3], {"dilation": 2, "padding": 1}, lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=1), (2, 2, 7, 6))
layer("MaxPool2d", [2], {}, lambda: nn.MaxPool2d(2), (2, 3, 6, 7))
layer("MaxPool2d", [3], {"stride": 2, "padding": 1}, lambda: nn.MaxPool2d(3, 2, 1), (2, 3, 6, 7))
layer("BatchNorm1d", [5], {}, lambda: nn.BatchNorm1d(5), (4, 5))
layer("BatchNorm1d", [5], {"momentum": 0.3, "eps": 1e-3}, lambda: nn.BatchNorm1d(5, momentum=0.3, eps=1e-3), (4, 5, 3))
layer("BatchNorm1d", [5], {"affine": False}, lambda: nn.BatchNorm1d(5, affine=False), (4, 5))
layer("BatchNorm1d", [5], {"track_running_stats": False}, lambda: nn.BatchNorm1d(5, track_running_stats=False), (4, 5))
layer("BatchNorm2d", [3], {}, lambda: nn.BatchNorm2d(3), (4, 3, 4, 5))
layer("ReLU", [], {}, nn.ReLU, (3, 5))
layer("Tanh", [], {}, nn.Tanh, (3, 5))
layer("Sigmoid", [], {}, nn.Sigmoid, (3, 5))
layer("LeakyReLU", [0.25], {}, lambda: nn.LeakyReLU(0.25), (3, 5))
layer("ELU", [0.5], {}, lambda: nn.ELU(0.5), (3, 5))
layer("Flatten", [], {}, nn.Flatten, (3, 2, 4))
layers([("Linear", [6, 9], {}, lambda: nn.Linear(6, 9)), ("Tanh", [], {}, nn.Tanh),
        ("Linear", [9, 4], {}, lambda: nn.Linear(9, 4)), ("Sigmoid", [], {}, nn.Sigmoid)], (5, 6))
layers([("Conv2d", [1, 4, 3], {"padding": 1, "bias": False}, lambda: nn.Conv2d(1, 4, 3, padding=1, bias=False)),
        ("BatchNorm2d", [4], {}, lambda: nn.BatchNorm2d(4)), ("ReLU", [], {}, nn.ReLU),
        ("MaxPool2d", [2], {}, lambda: nn.MaxPool2d(2)), ("Flatten", [], {}, nn.Flatten),
        ("Linear", [64, 5], {}, lambda: nn.Linear(64, 5))], (6, 1, 8, 8))
