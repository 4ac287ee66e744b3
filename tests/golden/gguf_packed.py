"""Blocks of GGML's tensor types as the gguf package packs them.

Python 3.11, numpy 2.4.6, gguf 0.19.0. Usage: gguf_packed.py OUT.JSON
"""
import json
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import quantize

rng = np.random.default_rng(7)
x = (rng.standard_normal(4 * 32) * np.repeat([1, 1e-3, 50, 0.02], 32)).astype(np.float32)
x[40], x[70] = 0, -x[70:96].max()
rows = x.reshape(1, -1)
out = {"weights": [float(v) for v in x]}
for name in ["Q8_0", "Q4_0", "BF16", "F16", "F32"]:
    out[name] = quantize(rows, T[name]).tobytes().hex()
json.dump(out, open(sys.argv[1], "w"))
