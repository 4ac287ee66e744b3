"""Golden dequantised weights for crates/simplemix-model/src/gguf/quant.rs.

Python 3.11, gguf 0.19.0, numpy 2. Prints for each type the FNV-1a hash of all weights in f32 of eight blocks, whose bytes are those
of a linear congruential generator, with scale 0.5 and, where there is one, minimum -0.25.
"""
import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

SCALES = {T.Q4_1: (0, 2), T.Q5_1: (0, 2), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q6_K: (208,),
          T.TQ1_0: (52,), T.TQ2_0: (64,), T.MXFP4: ()}
MASK = (1 << 64) - 1

for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS, T.TQ1_0,
             T.TQ2_0, T.MXFP4):
    size, state, drawn = GGML_QUANT_SIZES[kind][1], int(kind), []
    for _ in range(8 * size):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        drawn.append(state >> 56)
    blocks = np.array(drawn, dtype=np.uint8).reshape(8, size)
    for at, scale in zip(SCALES.get(kind, (0,)), (0.5, -0.25)):
        blocks[:, at:at + 2] = np.array([scale], dtype=np.float16).view(np.uint8)
    hashed = 0xCBF29CE484222325
    for byte in dequantize(blocks, kind).astype("<f4").tobytes():
        hashed = ((hashed ^ byte) * 0x100000001B3) & MASK
    text = f"{hashed:016x}"
    print(f"        ({int(kind)}, 0x{'_'.join(text[i:i + 4] for i in range(0, 16, 4))}), // {kind.name}")
