#!/usr/bin/env python3
"""Writes the figures of PyTorch that spec/parity_spec.lua compares with: figures/NAME.lua for each cases/NAME.py.

    python3 spec/parity/make.py [NAMES]      (needs torch and numpy; the figures checked in say which version)

A family of cases is one module in cases/ that calls what parity.py offers: op(), layer(), training(), ...
"""
import importlib
import os
import sys

import torch

import parity

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "cases"))
sys.dont_write_bytecode = True
torch.set_num_threads(1)
every = sorted(f[:-3] for f in os.listdir(os.path.join(HERE, "cases")) if f.endswith(".py"))
for name in sys.argv[1:] or every:
    module = importlib.import_module(name)
    parity.write(os.path.join(HERE, "figures", name + ".lua"), module.__doc__)
