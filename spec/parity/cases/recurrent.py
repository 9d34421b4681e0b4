"""Recurrent layers and their cells."""
from torch import nn

from parity import Input, layer


def pair(module, x, h, c):
    return module(x, (h, c))


def both(kind, make, args, options, *inputs):
    lstm = kind.startswith("LSTM") and len(inputs) > 1
    inputs = [Input(*shape) for shape in (*inputs, inputs[-1])[:len(inputs) + lstm]]  # c0 is as h0
    layer(kind, args, options, lambda: make(*args, **options), *inputs, call=pair if lstm else None)


for name in ("RNN", "LSTM", "GRU"):
    module = getattr(nn, name)
    both(name, module, [2, 3], {}, (3, 2, 2))
    both(name, module, [1, 2, 2], {"bias": False}, (3, 2, 1), (2, 2, 2))
    both(name, module, [2, 1, 2], {"bidirectional": True}, (3, 2, 2), (4, 2, 1))
    both(name, module, [1, 2], {"bidirectional": True, "batch_first": True}, (2, 3, 1))
    both(name, module, [1, 2], {}, (3, 1), (1, 2))
both("RNN", nn.RNN, [2, 2, 2], {"nonlinearity": "relu"}, (3, 2, 2), (2, 2, 2))
for name in ("RNNCell", "LSTMCell", "GRUCell"):
    module = getattr(nn, name)
    both(name, module, [3, 2], {}, (2, 3), (2, 2))
    both(name, module, [2, 2], {"bias": False}, (2,))
both("RNNCell", nn.RNNCell, [3, 2], {"nonlinearity": "relu"}, (2, 3), (2, 2))
