"""Matrix products."""
import torch
import torch.nn.functional as F

from parity import Input as I, op

for a, b in (((2, 3), (3, 4)), ((5,), (5,)), ((3, 4), (4,)), ((4,), (4, 3)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)),
             ((3, 4), (2, 4, 5)), ((2, 3, 4), (4,)), ((40, 48), (48, 56)), ((3, 33, 17), (17, 35))):
    op("matmul", torch.matmul, I(*a), I(*b))
op("linear", F.linear, I(4, 3), I(5, 3), I(5))
op("linear", F.linear, I(2, 4, 3), I(5, 3))
op("linear", F.linear, I(3), I(5, 3), I(5))
op("linear", F.linear, I(64, 100), I(50, 100), I(50))
