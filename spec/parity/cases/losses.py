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

# Class targets count from 1 here, from 0 in PyTorch; so does an ignore_index that is a class.
CLASSES = (((4, 3), (4,)), ((2, 3, 2), (2, 2)), ((2, 3, 1, 2), (2, 1, 2)), ((3,), ()))
for x, t in CLASSES:
    c = x[1] if len(x) > 1 else x[0]
    target, weight = I(*t, below=c, dtype="i64"), I(c, scale=0.25, shift=1, grad=False)
    for r in REDUCTIONS:
        op("nll_loss", lambda x, t, r=r: F.nll_loss(x, t - 1, reduction=r), I(*x), target, reduction=r)
        op("nll_loss", lambda x, t, w, r=r: F.nll_loss(x, t - 1, w, ignore_index=1, reduction=r),
           I(*x), target, weight, reduction=r, ignore_index=2)
        op("cross_entropy",
           lambda x, t, w, r=r: F.cross_entropy(x, t - 1, w, ignore_index=1, reduction=r, label_smoothing=0.3),
           I(*x, scale=2), target, weight, reduction=r, ignore_index=2, label_smoothing=0.3)
op("cross_entropy", lambda x, t: F.cross_entropy(x, t - 1, label_smoothing=0.1),
   I(3, 40), I(3, below=40, dtype="i64"), label_smoothing=0.1)
op("cross_entropy", lambda x, t, w: F.cross_entropy(x, t - 1, w), I(70, 5), I(70, below=5, dtype="i64"),
   I(5, scale=0.25, shift=1, grad=False))
# Every target ignored: NaN for the mean, 0 for the sum.
for r in REDUCTIONS:
    op("cross_entropy", lambda x, t, r=r: F.cross_entropy(x, t - 1, ignore_index=1, reduction=r), I(2, 3),
       I(values=[2, 2], dtype="i64"), second=False, reduction=r, ignore_index=2)
    op("nll_loss", lambda x, t, r=r: F.nll_loss(x, t - 1, ignore_index=1, reduction=r), I(2, 3),
       I(values=[2, 2], dtype="i64"), second=False, reduction=r, ignore_index=2)

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
one_based = dict(call=lambda m, x, t: m(x, t - 1))
layer("CrossEntropyLoss", [], {"label_smoothing": 0.2, "ignore_index": 2},
      lambda: nn.CrossEntropyLoss(label_smoothing=0.2, ignore_index=1),
      (4, 3), I(4, below=3, dtype="i64"), **one_based)
layer("NLLLoss", ["sum"], {}, lambda: nn.NLLLoss(reduction="sum"), (4, 3), I(4, below=3, dtype="i64"), **one_based)
layer("NLLLoss", [], {}, nn.NLLLoss, (4, 3), I(4, below=3, dtype="i64"), I(3, scale=0.25, shift=1, grad=False),
      call=lambda m, x, t, w: F.nll_loss(x, t - 1, w))
