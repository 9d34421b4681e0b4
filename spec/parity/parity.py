"""What the families of parity cases are made with: inputs, rows, and their writing as Lua.

Every input is drawn by draw() below, which the spec has too, so that only results are written: values are
multiples of 1/1024, exact in f32. Results of large cases are sampled: every STRIDE-th element in row-major order.
Dimensions, positions and classes count from 1 in the figures, as scripts count.
"""
import math
import os

import numpy as np
import torch
from torch import nn

DTYPES = {"f32": torch.float32, "f64": torch.float64}
STRIDE = 29  # of results above LARGE elements
LARGE = 120
NAN, INF = math.nan, math.inf
ROWS = []  # of the family under way


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
    """A tensor drawn from a seed, or given values. dtype: "u8", a mask; "i64", positions or classes from 1;
    None, the floating type under test. grad: whether a gradient is wanted of it."""

    def __init__(self, *shape, scale=1.0, shift=0.0, below=0, dtype=None, values=None, grad=True):
        self.shape, self.scale, self.shift, self.below, self.dtype = list(shape), scale, shift, below, dtype
        self.values, self.grad = values, grad
        self.seed = 0

    def torch(self, dtype):
        if self.values is not None:
            array = np.array(self.values, dtype=np.float64)
        else:
            array = draw(self.seed, self.shape, self.scale, self.shift, self.below)
        if self.dtype == "u8":
            return torch.tensor(array - 1).bool() if self.values is None else torch.tensor(array).bool()
        if self.dtype == "i64":
            return torch.tensor(array).long()
        return torch.tensor(array).to(dtype).requires_grad_(self.grad)

    def lua(self):
        fields = {"shape": self.shape if self.values is None else list(np.shape(self.values)), "seed": self.seed}
        if self.values is not None:
            fields["values"] = [float(v) for v in np.array(self.values, dtype=np.float64).flatten()]
            del fields["seed"]
        for name, usual in (("scale", 1.0), ("shift", 0.0), ("below", 0), ("dtype", None), ("grad", True)):
            if getattr(self, name) != usual:
                fields[name] = getattr(self, name)
        return fields


MASK = dict(below=2, dtype="u8")


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
    """A tensor's shape and elements, sampled where it is large, one number where all are equal; None stays None."""
    if t is None:
        return None
    array = t.numpy(force=True)
    flat = array.flatten()
    if flat.size > LARGE:
        flat = flat[::STRIDE]
    values = list(flat) if array.dtype == np.float32 else [x.item() for x in flat]
    if len(values) > 1 and all(v == values[0] for v in values):
        return {"shape": list(array.shape), "all": values[0]}
    return {"shape": list(array.shape), "v": values}


def row(kind, make, dtypes=("f32", "f64"), **fields):
    """A row of the family: its fields, and what make(dtype) finds in each of these types."""
    fields = {"kind": kind, **fields}
    for name, dtype in ((n, DTYPES[n]) for n in dtypes):
        torch.set_default_dtype(dtype)
        fields[name] = make(dtype)
    torch.set_default_dtype(torch.float32)
    ROWS.append(fields)


def write(path, about):
    """The rows so far, as a file; the next family starts anew."""
    with open(path, "w") as f:
        f.write(f"-- {about.strip()}\n-- By PyTorch {torch.__version__.split('+')[0]}: spec/parity/make.py.\nreturn {{\n")
        f.write("".join(lua(r) + ",\n" for r in ROWS))
        f.write("}\n")
    print(f"{os.path.basename(path)}: {len(ROWS)} cases, {os.path.getsize(path)} bytes")
    ROWS.clear()


# ---- derivatives --------------------------------------------------------------------------------------------

def tensors_of(y):
    """The tensors among what a call returned, tuples opened."""
    return [y] if isinstance(y, torch.Tensor) else [t for part in y for t in tensors_of(part)]


def weighted(ts, seed):
    """Sum over tensors that require a gradient of their elements times fixed weights; None if there is none."""
    parts = [(t * torch.tensor(draw(seed + k, list(t.shape))).to(t.dtype)).sum().double()
             for k, t in enumerate(ts) if t is not None and t.requires_grad]
    return sum(parts) if parts else None


def derivatives(outs, leaves, seed, second=True):
    """Gradients of weighted(outs), and of weighted(those gradients), by each leaf."""
    loss = weighted(outs, seed)
    if loss is None or not leaves:
        return {"grads": [None] * len(leaves)}
    first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    found = {"grads": [result(g) for g in first]}
    again = weighted(first, seed + 50) if second else None
    if again is not None:
        grads = torch.autograd.grad(again, leaves, allow_unused=True)
        if any(g is not None for g in grads):
            found["second"] = [result(g) for g in grads]
    return found


# ---- ops ----------------------------------------------------------------------------------------------------

def op(name, f, *inputs, second=True, **attrs):
    """gr.NAME(inputs, attrs) is f(inputs): results, gradients, and, where PyTorch's are right, gradients of gradients."""
    seed = 1000 * (len(ROWS) + 1)
    for k, i in enumerate(inputs):
        i.seed = seed + k

    def make(dtype):
        given = [i.torch(dtype) for i in inputs]
        outs = tensors_of(f(*given))
        found = derivatives(outs, [t for t in given if t.requires_grad], seed + 900, second)
        return {"outs": [result(y.long() if y.dtype == torch.bool else y) for y in outs], **found}

    row("op", make, op=name, attrs=attrs, inputs=[i.lua() for i in inputs], seed=seed + 900)


# ---- layers -------------------------------------------------------------------------------------------------

def set_parameters(module, seed, scale=0.25):
    """Every parameter from a seed of its own, in order."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.copy_(torch.tensor(draw(seed + k, list(p.shape), scale)))


def layer(name, args, options, make_module, *inputs, call=None, call_options=None, scale=0.25):
    """gr.nn.NAME(args, options) is make_module(): two training passes, so that running statistics move; of the
    second, results, gradients and gradients of gradients by inputs and parameters; then a pass in eval mode.
    call(module, inputs): what PyTorch's module wants otherwise than in order; call_options: scripts' last argument."""
    layers([(name, args, options, make_module)], *inputs, call=call, call_options=call_options, scale=scale)


def layers(parts, *inputs, call=None, call_options=None, scale=0.25):
    """Several layers as one Sequential; one layer stays by itself."""
    seed = 5000 * (len(ROWS) + 1)
    inputs = [i if isinstance(i, Input) else Input(*i) for i in inputs]

    def make(dtype):
        modules = [p[3]() for p in parts]
        model = modules[0] if len(modules) == 1 else nn.Sequential(*modules)
        set_parameters(model, seed, scale)
        for turn in range(2):
            for k, i in enumerate(inputs):
                i.seed = seed + 500 + 10 * turn + k
            given = [i.torch(dtype) for i in inputs]
            outs = tensors_of(call(model, *given) if call else model(*given))
        leaves = [t for t in given if t.requires_grad] + list(model.parameters())
        found = {"outs": [result(y) for y in outs], **derivatives(outs, leaves, seed + 900)}
        found["buffers"] = [result(b) for n, b in model.named_buffers() if not n.endswith("num_batches_tracked")]
        model.eval()
        found["eval"] = [result(y) for y in tensors_of(call(model, *given) if call else model(*given))]
        return found

    row("layers", make, layers=[{"name": n, "args": a, "options": o} for n, a, o, _ in parts],
        inputs=[i.lua() for i in inputs], call_options=call_options or {}, seed=seed, scale=scale)


# ---- training -----------------------------------------------------------------------------------------------

def clip(params, max_norm):
    """As PyTorch's, without the 1e-6 that it adds to the norm. Returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(params, math.inf)
    if norm > max_norm:
        for p in params:
            p.grad.mul_(max_norm / norm)
    return norm


def training(kind, options, max_norm=None, groups=False, absent=()):
    """Ten steps of a small classifier with gr.optim.KIND(options); the rate changes at step 6; losses, norms, and
    parameters at the end. groups: weights and biases of the second layer at half the rate. absent: steps in which the
    bias of the second layer has no gradient."""
    seed = 700000 + 1000 * len(ROWS)

    def make(dtype):
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        set_parameters(model, seed)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        params = list(model.parameters())
        listed = [{"params": params[:2]}, {"params": params[2:], "lr": given["lr"] / 2}] if groups else params
        opt = getattr(torch.optim, kind)(listed, foreach=False, **given)
        x = torch.tensor(draw(seed + 500, [12, 4])).to(dtype)
        target = torch.tensor(draw(seed + 501, [12], below=3)) - 1
        losses, norms = [], []
        for step in range(1, 11):
            if step == 6:
                for g in opt.param_groups:
                    g["lr"] *= 0.5
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), target)
            loss.backward()
            if step in absent:
                params[3].grad = None
            norms.append(clip(params, max_norm if max_norm is not None else math.inf))
            opt.step()
            losses.append(loss.detach())
        return {"losses": result(torch.stack(losses)), "norms": result(torch.stack(norms)),
                "params": [result(p) for p in params]}

    row("training", make, optim=kind, options=options, max_norm=max_norm, groups=groups, absent=list(absent), seed=seed)
