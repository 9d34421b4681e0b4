"""Losses, of numbers and of classes, and logsigmoid."""
import torch.nn.functional as F
from torch import nn

from parity import INF, Input as I, layer, op

REDUCTIONS = ("mean", "sum", "none")

op("logsigmoid", F.logsigmoid, I(3, 5, scale=3))
op("logsigmoid", F.logsigmoid, I(values=[-100, -1, 0, 30, 100]))
for r in REDUCTIONS:
    op("l1_loss", lambda x, y, r=r: F.l1_loss(x, y, reduction=r), I(2, 3), I(2, 3), reduction=r)
    op("huber_loss", lambda x, y, r=r: F.huber_loss(x, y, reduction=r, delta=0.7), I(2, 3), I(2, 3),
       reduction=r, delta=0.7)
    op("smooth_l1_loss", lambda x, y, r=r: F.smooth_l1_loss(x, y, reduction=r, beta=0.7), I(2, 3), I(2, 3),
       reduction=r, beta=0.7)
op("l1_loss", F.l1_loss, I(values=[1, 2, 3]), I(values=[1, 3, 2]))
op("huber_loss", F.huber_loss, I(2, 3), I(2, 3))
op("smooth_l1_loss", F.smooth_l1_loss, I(2, 3), I(2, 3))
op("smooth_l1_loss", lambda x, y: F.smooth_l1_loss(x, y, beta=0.0), I(values=[1, 2, 3]), I(values=[1, 3, 2]), beta=0)

for r in REDUCTIONS:
    op("binary_cross_entropy_with_logits", lambda x, t, r=r: F.binary_cross_entropy_with_logits(x, t, reduction=r),
       I(2, 3, scale=3), I(2, 3, scale=0.25, shift=0.5), reduction=r)
    op("binary_cross_entropy_with_logits",
       lambda x, t, w, p, r=r: F.binary_cross_entropy_with_logits(x, t, w, reduction=r, pos_weight=p),
       I(2, 3), I(2, 3, scale=0.25, shift=0.5), I(2, 1, scale=0.25, shift=1, grad=False),
       I(3, scale=0.25, shift=2, grad=False), reduction=r)
op("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, I(values=[100, -100, 100, -100]),
   I(values=[1, 0, 0, 1], grad=False), second=False)  # PyTorch's are 0, ours of the order of 1e-45

for r in REDUCTIONS + ("batchmean",):
    op("kl_div", lambda x, t, r=r: F.kl_div(x, t, reduction=r), I(2, 3), I(2, 3, scale=0.25, shift=1), reduction=r)
    op("kl_div", lambda x, t, r=r: F.kl_div(x, t, reduction=r, log_target=True), I(2, 3), I(2, 3), reduction=r,
       log_target=True)
op("kl_div", lambda x, t: F.kl_div(x, t, reduction="sum"), I(values=[-1, -2, -3]), I(values=[0, 0.5, 0], grad=False),
   reduction="sum")

layer("LogSigmoid", [], {}, nn.LogSigmoid, (3, 5))
layer("MSELoss", [], {}, nn.MSELoss, (2, 3), (2, 3))
layer("L1Loss", ["sum"], {}, lambda: nn.L1Loss(reduction="sum"), (2, 3), (2, 3))
layer("HuberLoss", [], {"delta": 0.5}, lambda: nn.HuberLoss(delta=0.5), (2, 3), (2, 3))
layer("SmoothL1Loss", [], {"beta": 0.5}, lambda: nn.SmoothL1Loss(beta=0.5), (2, 3), (2, 3))
layer("KLDivLoss", [], {"reduction": "batchmean"}, lambda: nn.KLDivLoss(reduction="batchmean"), (2, 3),
      I(2, 3, scale=0.25, shift=1))
layer("BCEWithLogitsLoss", [], {}, nn.BCEWithLogitsLoss, (2, 3), I(2, 3, scale=0.25, shift=0.5))
layer("BCEWithLogitsLoss", [], {"reduction": "none"}, lambda: nn.BCEWithLogitsLoss(reduction="none"), (2, 3),
      I(2, 3, scale=0.25, shift=0.5), I(2, 3, scale=0.25, shift=1, grad=False), I(3, scale=0.25, shift=2, grad=False),
      call=lambda m, x, t, w, p: F.binary_cross_entropy_with_logits(x, t, w, reduction="none", pos_weight=p))
