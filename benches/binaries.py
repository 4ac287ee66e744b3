"""Two builds of `simplemix` in turn on the same files, such as one that is optimised throughout and one of `release`.

Python 3.11, nothing else. Usage:

    python benches/binaries.py OLD NEW [--rows N] [--turns N] [--tokenizer FOLDER]
    python benches/binaries.py OLD NEW --decode MODEL [--turns N]

With --decode, OLD and NEW are builds of simplemix-model's example `speed`, which answers 1, 8 and 32 prompts of 64 tokens with 64
tokens each. Else two JSON files of N conversations of a few hundred characters are made, then read, written, mixed, inspected and,
with --tokenizer, tokenised by both. Times are medians, wall clock and processor; the ratio is NEW over OLD.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time

CASES = {
    "convert jsonl to parquet": "convert a.jsonl -o out.parquet",
    "convert parquet to parquet": "convert a.parquet -o out.parquet",
    "convert parquet to jsonl": "convert a.parquet -o out.jsonl",
    "mix parquet": "mix --source a=a.parquet:1 --source b=b.parquet:1 -o out.parquet",
    "mix jsonl": "mix --source a=a.jsonl:1 --source b=b.jsonl:1 -o out.parquet",
    "inspect parquet": "inspect a.parquet",
}
WORDS = ["model", "answer", "question", "number", "sum", "robot", "star", "story", "rain", "because", "therefore", "is"]


def make(path, rows, seed):
    draw = random.Random(seed)
    turn = lambda role, text: [{"role": role, "content": text}]
    text = lambda length: " ".join(draw.choices(WORDS, k=length))
    with open(path, "w") as file:
        for i in range(rows):
            pair = {"prompt": turn("user", f"{i} {text(12)}"), "chosen": turn("assistant", text(30)), "rejected": turn("assistant", text(25))}
            file.write(json.dumps(pair) + "\n")


def run(program, command, folder):
    for name in ("out.parquet", "out.jsonl", "out.arrow"):
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([program, *command.split()], cwd=folder, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{program} {command}: {done.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokenizer")
    parser.add_argument("--decode")
    args = parser.parse_args()
    programs = [os.path.abspath(args.old), os.path.abspath(args.new)]
    cases = dict(CASES)
    if args.tokenizer:
        cases["tokenize jsonl"] = f"tokenize a.jsonl --tokenizer {os.path.abspath(args.tokenizer)} -o out.arrow"
    if args.decode:
        cases = {f"decode {rows} rows": f"generate {os.path.abspath(args.decode)} {rows} 64 64" for rows in (1, 8, 32)}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate("" if args.decode else "ab"):
            make(os.path.join(folder, f"{name}.jsonl"), args.rows, seed)
            run(programs[0], f"convert {name}.jsonl -o {name}.parquet", folder)
        for name, command in cases.items():
            times = [[run(program, command, folder) for program in programs] for _ in range(args.turns)]
            median = lambda side, what: statistics.median(turn[side][what] for turn in times)
            parts = [(label, median(0, i), median(1, i)) for i, label in enumerate(("wall", "processor"))]
            print(f"{name:28}", *(f"{label} {old:.2f} s, {new:.2f} s, {new / old:.2f} times" for label, old, new in parts), sep="  ", flush=True)


if __name__ == "__main__":
    main()
