"""Compares the runs of one process and of several: losses of all updates within 1e-6, weights within 1e-6 of each tensor's norm.

Python 3.11 with torch and safetensors. Usage: compare.py ONE SEVERAL
"""
import json
import sys

from safetensors.torch import load_file


def losses(run):
    with open(f"{run}/metrics.jsonl") as lines:
        return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def main(one, several):
    a, b = losses(one), losses(several)
    assert len(a) == len(b) > 0, (len(a), len(b))
    loss = max(abs(x - y) for x, y in zip(a, b))
    a, b = load_file(f"{one}/model/model.safetensors"), load_file(f"{several}/model/model.safetensors")
    assert a.keys() == b.keys()
    weights = max(((a[name] - b[name]).double().norm() / a[name].double().norm().clamp(min=1e-9)).item() for name in a)
    print(f"{several}: {len(losses(one))} updates, losses differ by {loss:.1e} at most, weights by {weights:.1e} of their norm")
    if loss > 1e-6 or weights > 1e-6:
        sys.exit(1)


main(*sys.argv[1:])
