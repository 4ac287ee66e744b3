"""How fast libtorch reads a weight matrix for one row of input, by three calls: why simplemix_model::decoder::linear is as it is.

Python 3.11, torch 2.11.0. Usage: python benches/row_product.py. Prints GB/s of the best of five turns, over matrices that do not
fit the cache together.
"""
import time

import torch


def rate(call, weights):
    best = float("inf")
    for _ in range(6):  # the first warms up
        start = time.perf_counter()
        for weight in weights:
            call(weight)
        best = min(best, time.perf_counter() - start)
    return sum(weight.numel() * 4 for weight in weights) / best / 1e9


threads = torch.get_num_threads()
print(f"{threads} threads, torch {torch.__version__}")
with torch.no_grad():
    for outputs, inputs in [(576, 576), (1536, 576), (576, 1536), (49152, 576)]:
        weights = [torch.randn(outputs, inputs) for _ in range(max(2, 200_000_000 // (outputs * inputs * 4)))]
        row = torch.randn(1, inputs)
        parts = lambda weight: weight.view(threads, outputs // threads, inputs)
        turned = row.t().unsqueeze(0).expand(threads, -1, -1)
        laid = row.view(1, -1, 1).expand(threads, -1, -1)
        print(f"[{outputs}, {inputs}]  linear {rate(lambda w: torch.nn.functional.linear(row, w), weights):5.1f}"
              f"  parts, transposed row {rate(lambda w: torch.bmm(parts(w), turned), weights):5.1f}"
              f"  parts, row laid as a column {rate(lambda w: torch.bmm(parts(w), laid), weights):5.1f}  GB/s")
