"""Golden dequantised weights for crates/simplemix-model/src/gguf/quant.rs.

Python 3.11, gguf 0.19.0, numpy 2. Prints weights 4, 13 and 31 of one block whose bytes are (7 i + 3) mod 256, with
scale 0.5 and, for Q4_1, minimum -0.25.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

for kind, size in ((T.Q4_0, 18), (T.Q4_1, 20), (T.Q8_0, 34)):
    block = np.array([(7 * i + 3) % 256 for i in range(size)], dtype=np.uint8)
    block[:2] = np.array([0.5], dtype=np.float16).view(np.uint8)
    if kind == T.Q4_1:
        block[2:4] = np.array([-0.25], dtype=np.float16).view(np.uint8)
    weights = dequantize(block[None], kind)[0]
    print(int(kind), [float(weights[i]) for i in (4, 13, 31)])
