"""A million-pair mixture of two files: `simplemix mix` beside Hugging Face `datasets`, and draws beside other samplers.

Python 3.11, datasets 5.2.0, numpy 2.4.6, pyarrow; with `--samplers` also grain 0.2.x, torchdata 0.11 and
mosaicml-streaming 0.13, those that are installed. Usage, from the repository's root:

    python benches/mix_peers.py [--rows N] [--words W] [--files A B] [--turns T] [--library] [--samplers] [OUT.json]

Both sides read two parquet files of N rows, mix them half and half, N pairs in all, and write parquet, in processes of
their own, in turn, three times or as often as `--turns` says; ours also a hundredth of N, and with 64 MB of rows in memory. Times are medians, memory the highest
resident set, processor time that of the user's part. `--words 190` makes pairs of 1.2 kB. `--library` runs the example of
simplemix-blend, which needs no libtorch, in place of the program; `SIMPLEMIX` names one that is built.
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
from datasets import load_dataset, interleave_datasets, disable_progress_bars
disable_progress_bars()
a, b, out, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
with tempfile.TemporaryDirectory() as cache:
    load = lambda path: load_dataset("parquet", data_files=path, split="train", cache_dir=cache)
    sets = [load(path).shuffle(seed=1) for path in (a, b)]
    mixed = interleave_datasets(sets, probabilities=[0.5, 0.5], seed=1, stopping_strategy="all_exhausted")
    mixed.select(range(n)).to_parquet(out)
"""


def make(path, rows, seed, total_words):
    """Conversations of so many words, in TRL's explicit form."""
    import numpy
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = numpy.random.default_rng(seed)
    words = ["model", "answer", "question", "number", "sum", "robot", "star", "story", "rain", "because", "therefore", "is"]
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("prompt", turn), ("chosen", turn), ("rejected", turn)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            def column(role, length):
                picks = rng.integers(0, len(words), (n, length))
                return [[{"role": role, "content": f"{start + i} " + " ".join(words[w] for w in row)}] for i, row in enumerate(picks)]
            columns = [column(role, round(total_words * share / 67)) for role, share in (("user", 12), ("assistant", 30), ("assistant", 25))]
            writer.write_table(pa.table([pa.array(c, turn) for c in columns], schema=schema))


def run(command):
    """Seconds, peak bytes and processor seconds of a command and its children."""
    start = time.perf_counter()
    done = subprocess.run(["/usr/bin/time", "-f", "%M %U", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    kilobytes, processor = done.stderr.split()[-2:]
    return time.perf_counter() - start, int(kilobytes) * 1024, float(processor)


def draws(n=1_000_000):
    """Rows a second of other tools' samplers, drawing sources of two sets of n rows; those that are installed."""
    import numpy
    found = {}
    start = time.perf_counter()
    rng, current, indices = numpy.random.default_rng(0), [0, 0], []
    while len(indices) < n:
        for source in rng.choice(2, size=1000, p=[0.5, 0.5]):
            indices.append((int(source), current[source]))
            current[source] += 1
    found["datasets' streaming rule (Python)"] = n / (time.perf_counter() - start)
    try:
        import grain.python as grain
        mixed = grain.MapDataset.mix([grain.MapDataset.range(n).shuffle(seed=i) for i in range(2)], weights=[0.5, 0.5])
        start = time.perf_counter()
        for i in range(n // 10):
            mixed[i]
        found["grain MapDataset.mix"] = n // 10 / (time.perf_counter() - start)
    except ImportError:
        pass
    try:
        from torchdata.nodes import IterableWrapper, MultiNodeWeightedSampler
        nodes = {name: IterableWrapper(range(n)) for name in ("off", "on")}
        node = MultiNodeWeightedSampler(nodes, {"off": 0.5, "on": 0.5}, seed=0)
        node.reset()
        start = time.perf_counter()
        for _ in range(n // 10):
            next(node)
        found["torchdata MultiNodeWeightedSampler"] = n // 10 / (time.perf_counter() - start)
    except ImportError:
        pass
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=67)
    parser.add_argument("--files", nargs=2, help="two files of N rows, in place of new ones")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--samplers", action="store_true")
    parser.add_argument("out", nargs="?")
    args = parser.parse_args()
    simplemix = os.environ.get("SIMPLEMIX")  # a built one
    if args.library and not simplemix:
        subprocess.run(["cargo", "build", "--release", "-p", "simplemix-blend", "--no-default-features", "--example", "mix_files"], check=True)
        simplemix = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "examples", "mix_files")
    elif not simplemix:
        subprocess.run(["cargo", "build", "--release", "-p", "simplemix-cli"], check=True)
        simplemix = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "simplemix")
    result = {"date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores", "rows": args.rows, "words": args.words, "turns": args.turns, "load": os.getloadavg(),
              "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
              "command": " ".join(["python", *sys.argv])}
    with tempfile.TemporaryDirectory() as folder:
        a, b = (os.path.join(folder, name) for name in ("a.parquet", "b.parquet"))
        if args.files:
            a, b = (os.path.abspath(path) for path in args.files)
        else:
            make(a, args.rows, 0, args.words)
            make(b, args.rows, 1, args.words)
        result["source_bytes"] = [os.path.getsize(path) for path in (a, b)]
        out = os.path.join(folder, "out.parquet")
        def ours(size, *more):
            sources = [f"off={a}", f"on={b}"]
            sources = sources if args.library else ["mix", "--source", sources[0], "--source", sources[1]]
            return [simplemix, *sources, "--size", str(size), "--seed", "1", "-o", out, *more]
        ways = {
            "simplemix mix": ours(args.rows),
            "simplemix mix, 64 MB of rows in memory": ours(args.rows, "--memory", "64"),
            "simplemix mix, a hundredth of the pairs": ours(args.rows // 100),
            "datasets": [sys.executable, "-c", HF, a, b, out, str(args.rows)],
        }
        found = {name: [] for name in ways}
        for _ in range(args.turns):
            for name, command in ways.items():
                found[name].append(run(command))
        result["seconds"] = {name: statistics.median(s for s, _, _ in runs) for name, runs in found.items()}
        result["processor_seconds"] = {name: statistics.median(p for _, _, p in runs) for name, runs in found.items()}
        result["peak_bytes"] = {name: max(m for _, m, _ in runs) for name, runs in found.items()}
    for name, seconds in result["seconds"].items():
        print(f"{name:<42}{seconds:>9.2f} s{result['peak_bytes'][name] / 1e6:>9.0f} MB")
    for name in list(ways)[:3]:
        ratio = result["seconds"]["datasets"] / result["seconds"][name]
        memory = result["peak_bytes"][name] / result["peak_bytes"]["datasets"]
        print(f"{name}: {ratio:.1f} times as fast as datasets, {memory:.2f} of its memory")
    if args.samplers:
        result["draws_per_second"] = draws()
        for name, rate in result["draws_per_second"].items():
            print(f"{name:<42}{rate / 1e6:>9.3f} million draws/s")
    if args.out:
        with open(args.out, "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")


main()
