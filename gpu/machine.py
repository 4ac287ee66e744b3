"""Tells the machine, and the rates that it reaches at most: `machine.py DEVICE`. Results go to the file RESULTS."""
import sys
import time

import torch
import transformers

import results


def rate(device, work, amount, seconds=1.0):
    """Amount a second of `work`, the best of repeated runs."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    work()
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        wait()
        start = time.perf_counter()
        work()
        wait()
        best = max(best, amount / (time.perf_counter() - start))
    return best


def main(device):
    kind, size = (torch.bfloat16, 8192) if device == "cuda" else (torch.float32, 1024)
    # Random numbers: zeros are multiplied quicker.
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    block = torch.randn(1 << (30 if device == "cuda" else 26), device=device)
    copied = torch.empty_like(block)
    facts = {"stage": "machine", "ok": True, "torch": torch.__version__, "transformers": transformers.__version__,
             "threads": torch.get_num_threads(), "product_tflops": rate(device, lambda: a @ b, 2 * size**3) / 1e12,
             "copy_gb_per_s": rate(device, lambda: copied.copy_(block), 2 * block.numel() * 4) / 1e9}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {"gpu": properties.name, "memory_gb": properties.total_memory / 1e9, "cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version()}
    results.append(facts)


if __name__ == "__main__":
    main(sys.argv[1])
