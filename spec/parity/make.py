#!/usr/bin/env python3
"""Writes spec/parity/figures.lua: what PyTorch 2.13 gives for every op and layer, in f32 and f64.

    python3 spec/parity/make.py > spec/parity/figures.lua

Inputs are not stored: both sides compute element i of input k as

    lo + (hi - lo) * ((7 i^2 + (13 + 2 k) i + 31 k) mod 1009) / 1009

in f64, then round to the dtype. The gradient of the output is input 50 on [-1, 1]. A case is one line of
Lua, run with x = the inputs; the figures are the output and the gradient of every floating input.
"""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

inf = float("inf")


def make_input(shape, k, lo=-1.0, hi=1.0, dtype=torch.float64):
    n = 1
    for d in shape:
        n *= d
    i = torch.arange(n, dtype=torch.int64)
    u = ((7 * i * i + (13 + 2 * k) * i + 31 * k) % 1009).double() / 1009
    return (lo + (hi - lo) * u).reshape(shape).to(dtype)


def classes(shape, k, count):  # 0-based here, 1-based in Lua
    return (make_input(shape, k, 0, 1) * count).long()


CASES = []


def case(lua, fn, *shapes, lo=-1.0, hi=1.0, ints=()):
    """ints: positions of inputs that are not floating: (position, "mask" or a number of classes)."""
    CASES.append((lua, fn, shapes, lo, hi, dict(ints)))


# ---- ops ----
for name, fn in (("add", torch.add), ("sub", torch.sub), ("mul", torch.mul),
                 ("maximum", torch.maximum), ("minimum", torch.minimum)):
    case(f"gr.{name}(x[1], x[2])", fn, (3, 4), (3, 4))
    case(f"gr.{name}(x[1], x[2])", fn, (2, 3, 4), (3, 1))
case("gr.div(x[1], x[2])", torch.div, (3, 4), (4,), lo=0.5, hi=2)
case("gr.pow(x[1], x[2])", torch.pow, (3, 4), (4,), lo=0.5, hi=2)
for p in (2, 3, 0.5, -1, 1.7):
    case(f"x[1] ^ {p}", lambda a, p=p: a ** p, (3, 5), lo=0.5, hi=2)
for name, fn in (("neg", torch.neg), ("exp", torch.exp), ("abs", torch.abs), ("tanh", torch.tanh),
                 ("sigmoid", torch.sigmoid), ("relu", torch.relu)):
    case(f"x[1]:{name}()", fn, (3, 7), lo=-3, hi=3)
for name, fn in (("log", torch.log), ("sqrt", torch.sqrt)):
    case(f"x[1]:{name}()", fn, (3, 7), lo=0.2, hi=4)
case("x[1]:leaky_relu(0.2)", lambda a: F.leaky_relu(a, 0.2), (3, 7))
case("x[1]:elu(0.7)", lambda a: F.elu(a, 0.7), (3, 7), lo=-3, hi=3)
case("x[1]:clamp(-0.5, 0.25)", lambda a: a.clamp(-0.5, 0.25), (3, 7))
case("gr.where(x[1], x[2], x[3])", torch.where, (3, 4), (3, 4), (4,), ints=[(0, "mask")])
case("x[1]:masked_fill(x[2], 7)", lambda a, m: a.masked_fill(m, 7), (3, 4), (3, 4), ints=[(1, "mask")])
for d in ((), (1,), (0, 2), (2,)):
    lua = "{" + ", ".join(str(k + 1) for k in d) + "}"
    for name in ("sum", "mean", "amax"):
        keep = name == "mean"
        opts = ", keepdim = true" if keep else ""
        args = f"{{dim = {lua}{opts}}}" if d else ("{keepdim = true}" if keep else "")
        kw = {"dim": d or (0, 1, 2), "keepdim": keep}
        case(f"x[1]:{name}({args})", lambda a, name=name, kw=kw: getattr(a, name)(**kw), (3, 4, 5))
for p in (1, 2, 3, inf):
    lua = "math.huge" if p == inf else p
    case(f"x[1]:norm({{p = {lua}}})", lambda a, p=p: torch.linalg.vector_norm(a, p), (3, 4))
    case(f"x[1]:norm({{p = {lua}, dim = {{2}}}})", lambda a, p=p: torch.linalg.vector_norm(a, p, dim=1), (3, 4, 2))
for a, b in (((3,), (3,)), ((4,), (4, 3)), ((2, 3), (3,)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)),
             ((2, 1, 3, 4), (5, 4, 2))):
    case("gr.matmul(x[1], x[2])", torch.matmul, a, b)
case("gr.matmul(x[1]:transpose(1, 2), x[2])", lambda a, b: a.t() @ b, (4, 3), (4, 5))
case("F.linear(x[1], x[2], x[3])", F.linear, (3, 4), (5, 4), (5,))
case("F.linear(x[1], x[2])", F.linear, (2, 3, 4), (5, 4))
for s, kw, lua in (((2, 3, 7, 6), {}, ""), ((2, 3, 7, 6), {"stride": 2, "padding": 1}, ", {stride = 2, padding = 1}"),
                   ((1, 3, 9, 8), {"dilation": 2, "padding": (2, 1)}, ", {dilation = 2, padding = {2, 1}}")):
    case(f"F.conv2d(x[1], x[2], x[3]{lua})", lambda a, w, b, kw=kw: F.conv2d(a, w, b, **kw), s, (4, 3, 3, 3), (4,))
case("F.conv2d(x[1], x[2], nil, {groups = 2})", lambda a, w: F.conv2d(a, w, groups=2), (2, 4, 5, 5), (6, 2, 3, 2))
case("F.conv2d(x[1], x[2])", F.conv2d, (2, 4, 5, 5), (6, 4, 1, 1))
case("(F.max_pool2d(x[1], 2))", lambda a: F.max_pool2d(a, 2), (2, 3, 6, 7))
case("(F.max_pool2d(x[1], {kernel_size = 3, stride = 2, padding = 1}))",
     lambda a: F.max_pool2d(a, 3, 2, 1), (1, 2, 8, 7))
for d in (0, 1, -1):
    lua = d + 1 if d >= 0 else d
    case(f"x[1]:softmax({lua})", lambda a, d=d: a.softmax(d), (3, 5, 4), lo=-4, hi=4)
    case(f"x[1]:log_softmax({lua})", lambda a, d=d: a.log_softmax(d), (3, 5, 4), lo=-4, hi=4)
for red in ("mean", "sum", "none"):
    case(f"F.cross_entropy(x[1], x[2], {{reduction = '{red}'}})",
         lambda a, t, red=red: F.cross_entropy(a, t, reduction=red), (6, 5), (6,), lo=-3, hi=3, ints=[(1, 5)])
    case(f"F.mse_loss(x[1], x[2], {{reduction = '{red}'}})",
         lambda a, t, red=red: F.mse_loss(a, t, reduction=red), (4, 3), (4, 3))
case("F.cross_entropy(x[1], x[2])", F.cross_entropy, (2, 4, 3, 2), (2, 3, 2), ints=[(1, 4)])
case("x[1]:reshape(4, 6)", lambda a: a.reshape(4, 6), (2, 3, 4))
case("x[1]:transpose(1, 3):reshape(-1)", lambda a: a.transpose(0, 2).reshape(-1), (2, 3, 4))
case("x[1]:permute(3, 1, 2)", lambda a: a.permute(2, 0, 1), (2, 3, 4))
case("x[1]:squeeze(2):unsqueeze(1)", lambda a: a.squeeze(1).unsqueeze(0), (2, 1, 3))
case("x[1]:expand(2, 3, 4)", lambda a: a.expand(2, 3, 4), (3, 1))
case("x[1]:narrow(2, 2, 3)", lambda a: a.narrow(1, 1, 3), (3, 5))
case("x[1]:select(2, -1)", lambda a: a.select(1, -1), (3, 5))
case("gr.cat({x[1], x[2]}, 2)", lambda a, b: torch.cat([a, b], 1), (3, 2), (3, 4))
case("gr.stack({x[1], x[2], x[1]}, 2)", lambda a, b: torch.stack([a, b, a], 1), (3, 2), (3, 2))
case("x[1]:index_select(2, x[2])", lambda a, i: a.index_select(1, i), (3, 4), (6,), ints=[(1, 4)])

# ---- layers: their parameters are inputs 20, 21, ... on [-0.5, 0.5], in the order of named_parameters ----
LAYERS = [
    ("nn.Linear(4, 3)", nn.Linear(4, 3), (5, 4)),
    ("nn.Linear(4, 3, {bias = false})", nn.Linear(4, 3, bias=False), (2, 5, 4)),
    ("nn.Conv2d(3, 4, 3, {stride = 2, padding = 1})", nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 7, 6)),
    ("nn.Conv2d(4, 6, {3, 2}, {groups = 2, bias = false})", nn.Conv2d(4, 6, (3, 2), groups=2, bias=False), (1, 4, 5, 5)),
    ("nn.MaxPool2d(2)", nn.MaxPool2d(2), (2, 3, 6, 6)),
    ("nn.BatchNorm1d(3)", nn.BatchNorm1d(3), (6, 3)),
    ("nn.BatchNorm1d(3)", nn.BatchNorm1d(3), (4, 3, 5)),
    ("nn.BatchNorm2d(3, {momentum = 0.3, eps = 0.001})", nn.BatchNorm2d(3, momentum=0.3, eps=0.001), (4, 3, 2, 3)),
    ("nn.BatchNorm2d(2, {affine = false})", nn.BatchNorm2d(2, affine=False), (3, 2, 2, 2)),
    ("nn.Flatten()", nn.Flatten(), (2, 3, 4)),
    ("nn.Tanh()", nn.Tanh(), (3, 4)), ("nn.Sigmoid()", nn.Sigmoid(), (3, 4)), ("nn.ReLU()", nn.ReLU(), (3, 4)),
    ("nn.LeakyReLU(0.3)", nn.LeakyReLU(0.3), (3, 4)), ("nn.ELU()", nn.ELU(), (3, 4)),
    ("nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))",
     nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), (5, 4)),
]

OPTIMS = [
    ("gr.optim.SGD(p, {lr = 0.1})", lambda p: torch.optim.SGD(p, lr=0.1)),
    ("gr.optim.SGD(p, {lr = 0.1, momentum = 0.9, weight_decay = 0.05})",
     lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05)),
    ("gr.optim.SGD(p, {lr = 0.1, momentum = 0.9, nesterov = true})",
     lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
    ("gr.optim.Adam(p, {lr = 0.05})", lambda p: torch.optim.Adam(p, lr=0.05)),
    ("gr.optim.Adam(p, {lr = 0.05, betas = {0.8, 0.95}, weight_decay = 0.1})",
     lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), weight_decay=0.1)),
    ("gr.optim.AdamW(p, {lr = 0.05, weight_decay = 0.1})",
     lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1)),
]


def numbers(t):
    fmt = "%.9g" if t.dtype == torch.float32 else "%.17g"
    return "{" + ",".join(fmt % v for v in t.detach().reshape(-1).tolist()) + "}"


def shape_text(shape):
    return "{" + ",".join(str(d) for d in shape) + "}"


def write_op(lua, fn, shapes, lo, hi, ints, dtype, name):
    x, kinds = [], []
    for k, s in enumerate(shapes):
        kind = ints.get(k)
        if kind == "mask":
            x.append(make_input(s, k + 1, -1, 1) > 0)
            kinds.append('"mask"')
        elif kind:
            x.append(classes(s, k + 1, kind))
            kinds.append(str(kind))
        else:
            x.append(make_input(s, k + 1, lo, hi, dtype).requires_grad_())
            kinds.append("false")
    y = fn(*x)
    y.backward(make_input(y.shape, 50, dtype=dtype))
    grads = [numbers(t.grad) if t.is_floating_point() else "false" for t in x]
    print(f"{{lua=[[{lua}]], dtype=\"{name}\", lo={lo}, hi={hi}, kinds={{{','.join(kinds)}}}, "
          f"shapes={{{','.join(shape_text(s) for s in shapes)}}},\n y={numbers(y)}, grads={{{','.join(grads)}}}}},")


def write_layer(lua, layer, shape, dtype, name):
    layer = layer.to(dtype)
    for mode in ("train", "eval"):
        if mode == "eval" and "BatchNorm" not in lua:
            continue
        layer.train(mode == "train")
        x = make_input(shape, 1, dtype=dtype).requires_grad_()
        if mode == "train":
            with torch.no_grad():
                for k, p in enumerate(layer.parameters()):
                    p.copy_(make_input(p.shape, 20 + k, -0.5, 0.5, dtype))
        layer.zero_grad()
        y = layer(x)
        y.backward(make_input(y.shape, 50, dtype=dtype))
        grads = ",".join(numbers(p.grad) for p in layer.parameters())
        buffers = ",".join(numbers(b) for b in layer.buffers() if b.is_floating_point())
        print(f"{{lua=[[{lua}]], dtype=\"{name}\", mode=\"{mode}\", shape={shape_text(shape)},\n y={numbers(y)}, "
              f"dx={numbers(x.grad)}, grads={{{grads}}}, buffers={{{buffers}}}}},")


def write_optim(lua, make):
    p = [make_input((3, 4), 20), make_input((5,), 21)]
    for t in p:
        t.requires_grad_()
    opt, trace = make(p), []
    for step in range(10):
        for k, t in enumerate(p):
            t.grad = make_input(t.shape, 30 + 7 * step + k)
        opt.step()
        trace.append("{" + ",".join(numbers(t) for t in p) + "}")
    print(f"{{lua=[[{lua}]],\n trace={{{','.join(trace)}}}}},")


def main():
    print(f"-- PyTorch {torch.__version__.split('+')[0]}; written by spec/parity/make.py, which says what the fields are.")
    print("local ops, layers, optims = {")
    for c in CASES:
        for dtype, name in ((torch.float32, "f32"), (torch.float64, "f64")):
            write_op(*c, dtype, name)
    print("}, {")
    for lua, layer, shape in LAYERS:
        for dtype, name in ((torch.float32, "f32"), (torch.float64, "f64")):
            if hasattr(layer, "reset_running_stats"):
                layer.reset_running_stats()
            write_layer(lua, layer, shape, dtype, name)
    print("}, {")
    for lua, make in OPTIMS:
        write_optim(lua, make)
    print("}\nreturn { ops = ops, layers = layers, optims = optims }")


if __name__ == "__main__":
    sys.exit(main())
