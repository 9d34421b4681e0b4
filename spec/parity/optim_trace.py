#!/usr/bin/env python3
"""Writes spec/c/optim_trace.h: ten steps of every optimizer by PyTorch, in f64.

    python3 spec/parity/optim_trace.py > spec/c/optim_trace.h

Two parameters, p[3] and q[2,1]. At step t (from 1) the gradient of p[i] (i from 1) is (t i mod 5) - 1.75; q
has no gradient in steps 1 to 3, so that it counts its own updates; then it is [t / 2 - 3, -t / 8].
"""
import torch

CASES = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, weight_decay=0.05)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.05)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05)),
    ("Adam", dict(lr=0.05)),
    ("Adam", dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("Adam", dict(lr=0.05, betas=(0.5, 0.6), amsgrad=True)),
    ("AdamW", dict(lr=0.05)),
    ("AdamW", dict(lr=0.05, betas=(0.5, 0.6), weight_decay=0.2, amsgrad=True)),
    ("RMSprop", dict(lr=0.05)),
    ("RMSprop", dict(lr=0.05, alpha=0.8, eps=1e-3, weight_decay=0.1, momentum=0.5)),
    ("RMSprop", dict(lr=0.05, centered=True)),
    ("RMSprop", dict(lr=0.05, alpha=0.9, momentum=0.9, centered=True)),
    ("Adagrad", dict(lr=0.1)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-3)),
    ("NAdam", dict(lr=0.05)),
    ("NAdam", dict(lr=0.05, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1, momentum_decay=0.1)),
    ("NAdam", dict(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)),
    ("RAdam", dict(lr=0.05)),
    ("RAdam", dict(lr=0.05, betas=(0.5, 0.8), eps=1e-3, weight_decay=0.1)),
    ("RAdam", dict(lr=0.05, betas=(0.5, 0.9), weight_decay=0.1, decoupled_weight_decay=True)),
]


def trace(kind, options):
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    q = torch.nn.Parameter(torch.tensor([[0.25], [-1.5]]))
    optim = getattr(torch.optim, kind)([p, q], foreach=False, **options)
    for t in range(1, 11):
        p.grad = torch.tensor([t * i % 5 - 1.75 for i in (1, 2, 3)])
        q.grad = None if t <= 3 else torch.tensor([[t / 2 - 3], [-t / 8]])
        optim.step()
        yield p.tolist() + q.flatten().tolist()


def flat(options):
    for name, value in options.items():
        if name == "betas":
            yield from (("beta1", value[0]), ("beta2", value[1]))
        else:
            yield name, float(value)


torch.set_default_dtype(torch.float64)
print(f"/* By PyTorch {torch.__version__.split('+')[0]}: spec/parity/optim_trace.py, which says what was done. */")
print("static const struct trace {")
print("    const char *kind;")
print("    struct { const char *name; double value; } options[8];")
print("    double want[10][5]; /* p[0..2], q[0..1] after each step */")
print("} traces[] = {")
for kind, options in CASES:
    print(f'    {{"{kind}",')
    print("     {" + ", ".join(f'{{"{n}", {v!r}}}' for n, v in flat(options)) + "},")
    rows = ["{" + ", ".join("%.17g" % v for v in row) + "}" for row in trace(kind, options)]
    print("     {" + ",\n      ".join(rows) + "}},")
print("};")
