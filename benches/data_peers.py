"""Reading a million preference pairs, and preparing some thousand: simplemix beside `datasets` and TRL.

Python 3.11, datasets 5.2.0, trl 1.16.0, transformers 5.23.0, pyarrow. Usage, from the repository's root:

    python benches/data_peers.py MODEL_DIR [--rows N] [OUT.json]

1. A parquet file in UltraFeedback-binarised shape (text prompt, chosen and rejected with the whole conversation) is
   normalised and written again: `simplemix convert` against `load_dataset` + a Python map + `to_parquet`.
2. 4,000 of its pairs are tokenised: `simplemix tokenize` against TRL's own `_prepare_dataset`, both whole processes.
Everything runs in processes of its own, in turn, three times; medians of seconds, highest resident sets.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 3

HF = """
import sys, tempfile
from datasets import load_dataset, disable_progress_bars
disable_progress_bars()
path, out = sys.argv[1:3]
def normalise(row):
    prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    if chosen[-1]["content"].strip() == rejected[-1]["content"].strip():
        return {"ok": False, "prompt": [], "chosen": [], "rejected": []}
    return {"ok": True, "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:],
            "source": "uf", "policy": "off"}
with tempfile.TemporaryDirectory() as cache:
    rows = load_dataset("parquet", data_files=path, split="train", cache_dir=cache)
    rows = rows.map(normalise, remove_columns=rows.column_names).filter(lambda ok: ok, input_columns="ok")
    rows.remove_columns("ok").to_parquet(out)
"""

TRL = """
import sys
from types import SimpleNamespace
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DPOTrainer
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = Dataset.from_parquet(sys.argv[2]).select_columns(["prompt", "chosen", "rejected"])
args = SimpleNamespace(dataset_num_proc=None, max_length=1024, truncation_mode="keep_start")
print(len(DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), rows, tokenizer, args, "train")))
"""


def make(path, rows):
    import numpy
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = numpy.random.default_rng(0)
    words = ["model", "answer", "question", "number", "sum", "robot", "star", "story", "rain", "because", "therefore", "is"]
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("prompt", pa.string()), ("chosen", turns), ("rejected", turns), ("score_chosen", pa.float64()), ("score_rejected", pa.float64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            text = lambda length: [" ".join(words[w] for w in row) for row in rng.integers(0, len(words), (n, length))]
            prompts = [f"{start + i} {p}" for i, p in enumerate(text(20))]
            side = lambda answers: [[{"role": "user", "content": p}, {"role": "assistant", "content": a}] for p, a in zip(prompts, answers)]
            columns = [pa.array(prompts), pa.array(side(text(60)), turns), pa.array(side(text(50)), turns), pa.array(rng.random(n)), pa.array(rng.random(n))]
            writer.write_table(pa.table(columns, schema=schema))


def run(command):
    start = time.perf_counter()
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return time.perf_counter() - start, int(done.stderr.split()[-1]) * 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("out", nargs="?")
    args = parser.parse_args()
    simplemix = os.environ.get("SIMPLEMIX")  # a built one
    if not simplemix:
        subprocess.run(["cargo", "build", "--release", "-p", "simplemix-cli"], check=True)
        simplemix = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "simplemix")
    with tempfile.TemporaryDirectory() as folder:
        big, small, out = (os.path.join(folder, name) for name in ("uf.parquet", "small.parquet", "out.parquet"))
        make(big, args.rows)
        make(small, 4000)
        canonical = os.path.join(folder, "canonical.parquet")
        run([simplemix, "convert", small, "-o", canonical])
        ways = {
            "simplemix convert": [simplemix, "convert", big, "-o", out],
            "datasets map and write": [sys.executable, "-c", HF, big, out],
            "simplemix tokenize": [simplemix, "tokenize", canonical, "--tokenizer", args.model],
            "TRL's preparation": [sys.executable, "-c", TRL, args.model, canonical],
            "python, imports only": [sys.executable, "-c", "import datasets, transformers; from trl.trainer.dpo_trainer import DPOTrainer"],
        }
        found = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, command in ways.items():
                found[name].append(run(command))
        seconds = {name: statistics.median(s for s, _ in runs) for name, runs in found.items()}
        peak = {name: max(m for _, m in runs) for name, runs in found.items()}
        result = {"date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores", "rows": args.rows,
                  "file_bytes": os.path.getsize(big), "command": " ".join(["python", *sys.argv]),
                  "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
                  "seconds": seconds, "peak_bytes": peak}
    for name in ways:
        print(f"{name:<26}{seconds[name]:>9.2f} s{peak[name] / 1e6:>9.0f} MB")
    print(f"convert: {seconds['datasets map and write'] / seconds['simplemix convert']:.1f} times as fast, "
          f"{peak['simplemix convert'] / peak['datasets map and write']:.2f} of the memory, "
          f"{args.rows / seconds['simplemix convert'] / 1e3:.0f} thousand rows/s")
    ours, theirs, bare = (seconds[name] for name in ("simplemix tokenize", "TRL's preparation", "python, imports only"))
    print(f"tokenise: {theirs / ours:.1f} times as fast as whole processes, {(theirs - bare) / ours:.1f} times without Python's imports")
    if args.out:
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


main()
