#!/usr/bin/env python3
"""Writes the figures of PyTorch that spec/parity_spec.lua compares with: ops.lua, layers.lua, training.lua,
clips.lua, here.

    python3 spec/parity/make.py          (needs torch and numpy; the figures checked in say which version)

Every input is drawn by draw() below, which the spec has too, so that only results are written: values are
multiples of 1/1024, exact in f32. Results of large cases are sampled: every STRIDE-th element in row-major order.
Dimensions, positions and classes count from 1 in the figures, as scripts count.
"""
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"f32": torch.float32, "f64": torch.float64}
STRIDE = 29  # of results above LARGE elements
LARGE = 400


# ---- inputs -------------------------------------------------------------------------------------------------

def draw(seed, shape, scale=1.0, shift=0.0, below=0):
    """Numbers in [-2, 2] times scale plus shift; with below, whole numbers 1 .. below."""
    n, state, values = math.prod(shape), seed, []
    for _ in range(n):
        state = (state * 1103515245 + 12345) % 2147483648
        v = (state >> 8) % 4097
        values.append(v % below + 1 if below else (v - 2048) / 1024 * scale + shift)
    return np.array(values, dtype=np.int64 if below else np.float64).reshape(shape)


class Input:
    """A tensor drawn from a seed, or given values."""

    def __init__(self, *shape, scale=1.0, shift=0.0, below=0, dtype=None, values=None):
        self.shape, self.scale, self.shift, self.below, self.dtype = list(shape), scale, shift, below, dtype
        self.values = values
        self.seed = 0

    def torch(self, dtype):
        if self.values is not None:
            array = np.array(self.values, dtype=np.float64)
        else:
            array = draw(self.seed, self.shape, self.scale, self.shift, self.below)
        if self.dtype == "u8":  # a mask
            return torch.tensor(array - 1).bool()
        if self.dtype == "i64":
            return torch.tensor(array).long()
        return torch.tensor(array).to(dtype).requires_grad_(True)

    def lua(self):
        fields = {"shape": self.shape if self.values is None else list(np.shape(self.values)), "seed": self.seed}
        if self.values is not None:
            fields["values"] = [float(v) for v in np.array(self.values, dtype=np.float64).flatten()]
            del fields["seed"]
        for name, usual in (("scale", 1.0), ("shift", 0.0), ("below", 0), ("dtype", None)):
            if getattr(self, name) != usual:
                fields[name] = getattr(self, name)
        return fields


# ---- writing Lua --------------------------------------------------------------------------------------------

def lua(v):
    if v is None or v is False:
        return "false"
    if v is True:
        return "true"
    if isinstance(v, str):
        return '"%s"' % v
    if isinstance(v, np.float32):
        return number(float(v), str(v))
    if isinstance(v, float):
        return number(v, repr(v))
    if isinstance(v, dict):
        return "{%s}" % ",".join(f"{k}={lua(x)}" for k, x in v.items())
    if isinstance(v, (list, tuple)):
        return "{%s}" % ",".join(lua(x) for x in v)
    return str(int(v))


def number(v, text):
    if math.isnan(v):
        return "0/0"
    if math.isinf(v):
        return "1/0" if v > 0 else "-1/0"
    return text[:-2] if text.endswith(".0") else text


def result(t):
    """A tensor's shape and elements, sampled where it is large; None stays None."""
    if t is None:
        return None
    array = t.detach().numpy()
    flat = array.flatten()
    if flat.size > LARGE:
        flat = flat[::STRIDE]
    values = flat if array.dtype == np.float32 else [x.item() for x in flat]
    return {"shape": list(array.shape), "v": list(values)}


def write(name, about, rows):
    path = os.path.join(HERE, name)
    with open(path, "w") as f:
        f.write(f"-- {about}\n-- By PyTorch {torch.__version__.split('+')[0]}: spec/parity/make.py.\nreturn {{\n")
        f.write("".join(lua(r) + ",\n" for r in rows))
        f.write("}\n")
    print(f"{name}: {len(rows)} cases, {os.path.getsize(path)} bytes")


# ---- ops ----------------------------------------------------------------------------------------------------

I = Input
NAN, INF = math.nan, math.inf
MASK = dict(below=2, dtype="u8")
# (op, attributes as scripts give them, function of the inputs, inputs...)
OPS = []


def op(name, f, *inputs, **attrs):
    OPS.append((name, attrs, f, inputs))


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
op("pow", torch.pow, I(values=[0, 0, 0, 4]), I(values=[0, 1, 2, -0.5]))
for name, f in (("eq", torch.eq), ("ne", torch.ne), ("lt", torch.lt), ("le", torch.le), ("gt", torch.gt), ("ge", torch.ge)):
    op(name, f, I(values=[1, 2, 3, NAN, INF]), I(values=[2, 2, 2, NAN, INF]))
    op(name, f, I(3, 1), I(1, 5))

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
op("elu", F.elu, I(values=[0, 1e-4, -1e-4, -100, 100]))
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

for name, f in (("sum", torch.sum), ("mean", torch.mean), ("amax", torch.amax)):
    op(name, f, I(3, 4, 5))
    op(name, lambda x, f=f: f(x, dim=1), I(3, 4, 5), dim=2)
    op(name, lambda x, f=f: f(x, dim=(0, 2)), I(3, 4, 5), dim=[1, 3])
    op(name, lambda x, f=f: f(x, dim=-1, keepdim=True), I(3, 4, 5), dim=-1, keepdim=True)
    op(name, lambda x, f=f: f(x, dim=0), I(70, 9), dim=1)
    op(name, f, I(values=[1, NAN, 3]))
op("amax", torch.amax, I(values=[[1, 3, 3], [3, 0, 2]]))
op("amax", lambda x: x.amax(1), I(values=[[1, 3, 3], [0, 0, 0]]), dim=2)
op("argmax", lambda x: x.argmax() + 1, I(3, 4, 5))
op("argmax", lambda x: x.argmax(1) + 1, I(3, 4, 5), dim=2)
op("argmax", lambda x: x.argmax(-1, keepdim=True) + 1, I(6, 10), dim=-1, keepdim=True)
for p in (2.0, 1.0, 3.0, 2.5, INF):
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p), I(3, 4, 5), p=p)
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p, dim=1), I(3, 4, 5), p=p, dim=2)
    op("norm", lambda x, p=p: torch.linalg.vector_norm(x, p, dim=(0, 2), keepdim=True), I(3, 4, 5), p=p, dim=[1, 3],
       keepdim=True)
op("norm", torch.linalg.vector_norm, I(values=[0, 0, 0]))

for a, b in (((2, 3), (3, 4)), ((5,), (5,)), ((3, 4), (4,)), ((4,), (4, 3)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)),
             ((3, 4), (2, 4, 5)), ((2, 3, 4), (4,)), ((40, 48), (48, 56)), ((3, 33, 17), (17, 35))):
    op("matmul", torch.matmul, I(*a), I(*b))
op("linear", F.linear, I(4, 3), I(5, 3), I(5))
op("linear", F.linear, I(2, 4, 3), I(5, 3))
op("linear", F.linear, I(3), I(5, 3), I(5))
op("linear", F.linear, I(64, 100), I(50, 100), I(50))


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
for name, f in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
    op(name, lambda x, f=f: f(x, dim=-1), I(4, 7, scale=3))
    op(name, lambda x, f=f: f(x, dim=1), I(2, 5, 3), dim=2)
    op(name, lambda x, f=f: f(x, dim=-1), I(values=[[1000, 0, -1000], [-INF, 0, 1]]))
    op(name, lambda x, f=f: f(x, dim=-1), I(30, 50))
for x, t in (((5, 7), (5,)), ((2, 4, 3), (2, 3)), ((2, 4, 3, 2), (2, 3, 2)), ((7,), ()), ((64, 10), (64,))):
    classes = x[1] if len(x) > 1 else x[0]
    for reduction in ("mean", "sum", "none"):
        op("cross_entropy", lambda x, t, r=reduction: F.cross_entropy(x, t - 1, reduction=r), I(*x, scale=2),
           I(*t, below=classes, dtype="i64"), reduction=reduction)
for reduction in ("mean", "sum", "none"):
    op("mse_loss", lambda x, y, r=reduction: F.mse_loss(x, y, reduction=r), I(3, 4, 5), I(3, 4, 5), reduction=reduction)
for shape in ((4, 3), (2, 3, 5), (2, 3, 4, 2), (8, 16, 7, 7)):
    op("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), I(*shape), I(shape[1]), I(shape[1]),
       training=True)
    op("batch_norm", lambda x, w, b, m, v: F.batch_norm(x, m.detach(), v.detach(), w, b, eps=1e-3), I(*shape), I(shape[1]),
       I(shape[1]), I(shape[1]), I(shape[1], scale=0.25, shift=1), eps=1e-3)

op("reshape", lambda x: x.reshape(4, -1), I(2, 3, 4), shape=[4, -1])
op("view", lambda x: x.view(6, 4), I(2, 3, 4), shape=[6, 4])
op("flatten", lambda x: x.flatten(1, 2), I(2, 3, 4, 2), start_dim=2, end_dim=3)
op("transpose", lambda x: x.transpose(0, 2), I(2, 3, 4), dim0=1, dim1=3)
op("permute", lambda x: x.permute(2, 0, 1), I(2, 3, 4), dims=[3, 1, 2])
op("squeeze", lambda x: x.squeeze(), I(1, 3, 1, 2))
op("squeeze", lambda x: x.squeeze(0), I(1, 3, 1), dim=1)
op("unsqueeze", lambda x: x.unsqueeze(1), I(3, 2), dim=2)
op("unsqueeze", lambda x: x.unsqueeze(-1), I(3, 2), dim=-1)
op("expand", lambda x: x.expand(4, 3, 5), I(3, 1), shape=[4, 3, 5])
op("narrow", lambda x: x.narrow(1, 1, 2), I(2, 5, 3), dim=2, start=2, length=2)
op("slice", lambda x: x[:, 1:6:2], I(2, 7), dim=2, start=2, stop=6, step=2)
op("select", lambda x: x.select(1, 2), I(2, 5, 3), dim=2, index=3)
op("select", lambda x: x.select(0, -1), I(2, 5), dim=1, index=-1)
op("cat", lambda *t: torch.cat(t, 1), I(2, 1, 3), I(2, 4, 3), I(2, 2, 3), dim=2)
op("stack", lambda *t: torch.stack(t, 1), I(2, 3), I(2, 3), I(2, 3), dim=2)
op("index_select", lambda x, i: x.index_select(1, i - 1), I(3, 5, 2), I(7, below=5, dtype="i64"), dim=2)
op("contiguous", lambda x: x.contiguous(), I(2, 3))


def run_op(f, inputs, dtype, seed):
    """The result, the gradients for a fixed dy; None where there is none."""
    tensors = [i.torch(dtype) for i in inputs]
    y = f(*tensors)
    y_grad = None
    if y.requires_grad:
        y_grad = torch.tensor(draw(seed, list(y.shape))).to(y.dtype)
        y.backward(y_grad)
    if y.dtype == torch.bool:
        y = y.long()
    grads = [result(t.grad) if t.requires_grad and y_grad is not None else None for t in tensors]
    return {"out": result(y), "grads": grads}


def ops():
    rows = []
    for number_, (name, attrs, f, inputs) in enumerate(OPS):
        for k, i in enumerate(inputs):
            i.seed = 1000 * (number_ + 1) + k
        row = {"op": name, "attrs": attrs, "inputs": [i.lua() for i in inputs], "seed": 1000 * (number_ + 1) + 999}
        for dtype in DTYPES:
            row[dtype] = run_op(f, inputs, DTYPES[dtype], row["seed"])
        rows.append(row)
    write("ops.lua", "Results and gradients of ops.", rows)


# ---- layers -------------------------------------------------------------------------------------------------

# (name, positional arguments, options, module, input shape); layers of a list are one Sequential
LAYERS = [
    [("Linear", [7, 5], {}, lambda: nn.Linear(7, 5)), (3, 7)],
    [("Linear", [7, 5], {"bias": False}, lambda: nn.Linear(7, 5, bias=False)), (2, 3, 7)],
    [("Conv2d", [3, 4, 3], {}, lambda: nn.Conv2d(3, 4, 3)), (2, 3, 6, 5)],
    [("Conv2d", [4, 6, [3, 2]], {"stride": 2, "padding": [1, 2], "groups": 2, "bias": False},
      lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), groups=2, bias=False)), (2, 4, 6, 5)],
    [("Conv2d", [2, 3, 3], {"dilation": 2, "padding": 1}, lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=1)), (2, 2, 7, 6)],
    [("MaxPool2d", [2], {}, lambda: nn.MaxPool2d(2)), (2, 3, 6, 7)],
    [("MaxPool2d", [3], {"stride": 2, "padding": 1}, lambda: nn.MaxPool2d(3, 2, 1)), (2, 3, 6, 7)],
    [("BatchNorm1d", [5], {}, lambda: nn.BatchNorm1d(5)), (4, 5)],
    [("BatchNorm1d", [5], {"momentum": 0.3, "eps": 1e-3}, lambda: nn.BatchNorm1d(5, momentum=0.3, eps=1e-3)), (4, 5, 3)],
    [("BatchNorm1d", [5], {"affine": False}, lambda: nn.BatchNorm1d(5, affine=False)), (4, 5)],
    [("BatchNorm1d", [5], {"track_running_stats": False}, lambda: nn.BatchNorm1d(5, track_running_stats=False)), (4, 5)],
    [("BatchNorm2d", [3], {}, lambda: nn.BatchNorm2d(3)), (4, 3, 4, 5)],
    [("ReLU", [], {}, nn.ReLU), (3, 5)],
    [("Tanh", [], {}, nn.Tanh), (3, 5)],
    [("Sigmoid", [], {}, nn.Sigmoid), (3, 5)],
    [("LeakyReLU", [0.25], {}, lambda: nn.LeakyReLU(0.25)), (3, 5)],
    [("ELU", [0.5], {}, lambda: nn.ELU(0.5)), (3, 5)],
    [("Flatten", [], {}, nn.Flatten), (3, 2, 4)],
    [("Linear", [6, 9], {}, lambda: nn.Linear(6, 9)), ("Tanh", [], {}, nn.Tanh), ("Linear", [9, 4], {}, lambda: nn.Linear(9, 4)),
     ("Sigmoid", [], {}, nn.Sigmoid), (5, 6)],
    [("Conv2d", [1, 4, 3], {"padding": 1, "bias": False}, lambda: nn.Conv2d(1, 4, 3, padding=1, bias=False)),
     ("BatchNorm2d", [4], {}, lambda: nn.BatchNorm2d(4)),
     ("ReLU", [], {}, nn.ReLU), ("MaxPool2d", [2], {}, lambda: nn.MaxPool2d(2)), ("Flatten", [], {}, nn.Flatten),
     ("Linear", [64, 5], {}, lambda: nn.Linear(64, 5)), (6, 1, 8, 8)],
]


def set_parameters(module, seed):
    """Every parameter and buffer from a seed of its own, in order of name lists."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.copy_(torch.tensor(draw(seed + k, list(p.shape), 0.25)))


def run_layer(modules, shape, dtype, seed):
    """Two training passes, with running statistics moving, gradients of the second; then one in eval mode."""
    torch.set_default_dtype(dtype)
    model = nn.Sequential(*[make() for make in modules])
    set_parameters(model, seed)
    out = {}
    for turn in range(2):
        x = torch.tensor(draw(seed + 500 + turn, list(shape))).to(dtype).requires_grad_(True)
        y = model(x)
        model.zero_grad()
        y.backward(torch.tensor(draw(seed + 600 + turn, list(y.shape))).to(dtype))
    out["out"], out["input_grad"] = result(y), result(x.grad)
    out["grads"] = [result(p.grad) for p in model.parameters()]
    out["buffers"] = [result(b) for n, b in model.named_buffers() if not n.endswith("num_batches_tracked")]
    model.eval()
    out["eval"] = result(model(x))
    torch.set_default_dtype(torch.float32)
    return out


def layers():
    rows = []
    for number_, row in enumerate(LAYERS):
        parts, shape = row[:-1], row[-1]
        seed = 5000 * (number_ + 1)
        entry = {"layers": [{"name": n, "args": a, "options": o} for n, a, o, _ in parts], "shape": list(shape), "seed": seed}
        for dtype in DTYPES:
            entry[dtype] = run_layer([p[3] for p in parts], shape, DTYPES[dtype], seed)
        rows.append(entry)
    write("layers.lua", "Layers: two training passes, gradients, running statistics, evaluation.", rows)


# ---- training -----------------------------------------------------------------------------------------------

# (optimizer, options as scripts give them, max_norm of a clip or None, groups)
TRAINING = [
    ("SGD", dict(lr=0.1), None, False),
    ("SGD", dict(lr=0.05, momentum=0.9), None, False),
    ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01), None, False),
    ("SGD", dict(lr=0.1, momentum=0.5, dampening=0.25), None, True),
    ("Adam", dict(lr=0.05), None, False),
    ("Adam", dict(lr=0.05, betas=[0.8, 0.9], eps=1e-4, weight_decay=0.1), None, False),
    ("Adam", dict(lr=0.05, amsgrad=True), None, True),
    ("AdamW", dict(lr=0.05), None, False),
    ("AdamW", dict(lr=0.05, weight_decay=0.2, amsgrad=True), None, True),
    ("AdamW", dict(lr=0.05), 0.25, False),
    ("SGD", dict(lr=0.5, momentum=0.9), 0.1, False),
]


def clip(params, max_norm):
    """As PyTorch's, without the 1e-6 that it adds to the norm. Returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(params, math.inf)
    if norm > max_norm:
        for p in params:
            p.grad.mul_(max_norm / norm)
    return norm


def run_training(kind, options, max_norm, groups, dtype, seed):
    """Ten steps of a small classifier; the rate changes at step 6; losses, norms, parameters at the end."""
    torch.set_default_dtype(dtype)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    set_parameters(model, seed)
    options = dict(options)
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    params = list(model.parameters())
    listed = [{"params": params[:2]}, {"params": params[2:], "lr": options["lr"] / 2}] if groups else params
    opt = getattr(torch.optim, kind)(listed, foreach=False, **options)
    x = torch.tensor(draw(seed + 500, [12, 4])).to(dtype)
    target = torch.tensor(draw(seed + 501, [12], below=3)) - 1
    losses, norms = [], []
    for step in range(1, 11):
        if step == 6:
            for g in opt.param_groups:
                g["lr"] *= 0.5
        opt.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        norms.append(clip(params, max_norm if max_norm is not None else math.inf))
        opt.step()
        losses.append(loss.detach())
    torch.set_default_dtype(torch.float32)
    return {"losses": result(torch.stack(losses)), "norms": result(torch.stack(norms)), "params": [result(p) for p in params]}


def training():
    rows = []
    for number_, (kind, options, max_norm, groups) in enumerate(TRAINING):
        seed = 700000 + 1000 * number_
        row = {"optim": kind, "options": options, "max_norm": max_norm, "groups": groups, "seed": seed}
        for dtype in DTYPES:
            row[dtype] = run_training(kind, options, max_norm, groups, DTYPES[dtype], seed)
        rows.append(row)
    write("training.lua", "Ten steps of training with every optimizer: losses, gradient norms, parameters.", rows)


# ---- norms --------------------------------------------------------------------------------------------------

def clips():
    """Norms of gradients of moderate size, in f64: where PyTorch is right."""
    grads = [torch.tensor(draw(40 + k, shape)) for k, shape in enumerate(([3, 4], [7], []))]
    norms = [torch.nn.utils.get_total_norm(grads, p).item() for p in (1.0, 2.0, 3.0, math.inf)]
    cut = [g.clamp(-0.75, 0.75) for g in grads]
    write("clips.lua", "Norms of three gradients, of orders 1, 2, 3 and infinity; their 2-norm when cut to 0.75.",
          [norms, torch.nn.utils.get_total_norm(cut, 2.0).item()])


torch.set_num_threads(1)
ops()
layers()
training()
clips()
