"""Ops that work element by element."""
import torch
import torch.nn.functional as F

from parity import INF, MASK, NAN, Input as I, op

BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum, "minimum": torch.minimum}
for name, f in BINARY.items():
    op(name, f, I(3, 5), I(3, 5))
    op(name, f, I(2, 3, 5), I(5))
    op(name, f, I(3, 1), I(1, 4))
    op(name, f, I(4), I())
    op(name, f, I(values=[1, NAN, INF, -INF, 0, 2, 2]), I(values=[NAN, 1, 1, 1, 0, 2, -1]))
op("add", torch.add, I(37, 53), I(37, 1))
for a, b in ((I(3, 5), I(3, 5, scale=0.5, shift=2)), (I(2, 3, 5), I(5, scale=0.25, shift=-1)),
             (I(values=[1, -1, 0, 3]), I(values=[0, 0, 0, INF]))):
    op("div", torch.div, a, b)
op("pow", torch.pow, I(3, 5, scale=0.5, shift=1.5), I(3, 5))
op("pow", torch.pow, I(2, 3, scale=0.5, shift=1.5), I(3))
op("pow", torch.pow, I(3, 4), I(values=2))
op("pow", torch.pow, I(3, 4), I(values=3))
op("pow", torch.pow, I(3, 4, shift=3), I(values=0.5))
op("pow", torch.pow, I(values=[0, 0, 0, 4]), I(values=[0, 1, 2, -0.5]), second=False)  # 0 log 0
for name, f in (("eq", torch.eq), ("ne", torch.ne), ("lt", torch.lt), ("le", torch.le), ("gt", torch.gt), ("ge", torch.ge)):
    op(name, f, I(values=[1, 2, 3, NAN, INF]), I(values=[2, 2, 2, NAN, INF]))
    op(name, f, I(3, 1), I(1, 5))
for name, f in (("isnan", torch.isnan), ("isinf", torch.isinf), ("isfinite", torch.isfinite)):
    op(name, f, I(values=[1, NAN, INF, -INF, 0, -2]))

op("neg", torch.neg, I(3, 4, 5))
op("abs", torch.abs, I(3, 4, 5))
op("abs", torch.abs, I(values=[0, -INF, NAN, -1]))
op("exp", torch.exp, I(3, 4, 5, scale=2))
op("exp", torch.exp, I(values=[0, INF, -INF, NAN, 88, -104]))
op("log", torch.log, I(3, 4, 5, scale=0.9375, shift=2))
op("log", torch.log, I(values=[0, 1, INF, NAN]))
op("sqrt", torch.sqrt, I(3, 4, 5, scale=0.9375, shift=2))
op("sqrt", torch.sqrt, I(values=[4, INF, NAN]))
op("tanh", torch.tanh, I(3, 4, 5, scale=2))
op("tanh", torch.tanh, I(values=[0, INF, -INF, NAN, 1e-5, 40]))
op("sigmoid", torch.sigmoid, I(3, 4, 5, scale=4))
op("sigmoid", torch.sigmoid, I(values=[0, INF, -INF, NAN, 80, -80]))
op("relu", torch.relu, I(3, 4, 5))
op("relu", torch.relu, I(values=[0, 1, -1, INF, -INF]))
op("leaky_relu", F.leaky_relu, I(3, 4, 5))
op("leaky_relu", lambda x: F.leaky_relu(x, 0.25), I(3, 5), negative_slope=0.25)
op("elu", F.elu, I(3, 4, 5))
op("elu", lambda x: F.elu(x, 0.5), I(3, 5), alpha=0.5)
op("elu", F.elu, I(values=[0, 1e-4, -1e-4, -100, 100]), second=False)  # a kink at 0
op("clamp", lambda x: x.clamp(-1, 0.5), I(3, 4, 5), min=-1.0, max=0.5)
op("clamp", lambda x: x.clamp(min=0), I(values=[-1, 0, 1, NAN]), min=0.0)
op("clamp", lambda x: x.clamp(max=1), I(values=[-1, 1, 2, INF]), max=1.0)
op("where", torch.where, I(3, 4, **MASK), I(3, 4), I(3, 4))
op("where", torch.where, I(3, 1, **MASK), I(4), I())
op("masked_fill", lambda x, m: x.masked_fill(m, -1.5), I(3, 4), I(3, 4, **MASK), value=-1.5)
op("masked_fill", lambda x, m: x.masked_fill(m, -INF), I(2, 3, 4), I(4, **MASK), value=-INF)
op("clone", torch.clone, I(3, 4))
op("to", lambda x: x.double(), I(3, 4), dtype="f64")
op("to", lambda x: x.float(), I(3, 4), dtype="f32")
op("to", lambda x: x.long(), I(3, 4, scale=3), dtype="i64")
