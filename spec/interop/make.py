#!/usr/bin/env python3
"""What spec/interop_spec.lua exchanges with Python's safetensors and PyTorch.

    make.py write FILE      a torch.nn.Sequential, an input and its output, and one tensor of every dtype;
                            spec/interop/torch.safetensors was made so (torch 2.13, safetensors 0.8)
    make.py check IN OUT    loads IN, which gradrun saved with index_base = 0, into the same Sequential (strictly), runs
                            it on IN's "x", and writes what it read and the output "y" to OUT
"""
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)),
    )


def write(path):
    torch.manual_seed(3)
    net = network()
    net(torch.randn(5, 1, 4, 4))  # running statistics that are not those of the start
    net.eval()
    x = torch.randn(2, 1, 4, 4)
    tensors = {"net." + k: v for k, v in net.state_dict().items()}
    tensors |= {"x": x, "y": net(x).detach()}
    values = torch.tensor([0.0, -0.0, 1.5, -2.0, 100.0])
    for dtype in "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 bool".split():
        tensors["dtypes." + dtype] = (values.abs() if dtype.startswith("u") else values).to(getattr(torch, dtype))
    tensors["empty"] = torch.zeros(0, 3)
    tensors["scalar"] = torch.tensor(2.5)
    save_file(tensors, path, metadata={"format": "pt", "text": "größer als 😀"})


def check(source, target):
    tensors = load_file(source)
    net = network()
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    with safe_open(source, "pt") as f:
        metadata = f.metadata()
    net.eval()
    tensors["y"] = net(tensors["x"]).detach()
    save_file(tensors, target, metadata=metadata)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
