"""The Python package beside `datasets`, torch's samplers and the official AlpacaEval procedure, in one run.

Python 3.11, datasets 5.2.0, pyarrow 26, numpy 2.4, torch 2.11; for win rates scikit-learn 1.5 or later and pandas. The package is the one
that is installed. Usage, from the repository's root:

    python benches/python_peers.py [--rows N] [--annotations VERDICTS.parquet --gamed DF_GAMED.csv --models 12] [OUT.json]

* Order: which row comes next, of two sources of N rows, N draws. `datasets.interleave_datasets` makes its list of indices;
  `simplemix.interleave_datasets` the same list; `Mixture.draws` an exact mixture's; torch's samplers are iterated, where torch is installed.
* Data: two sources of N pairs of 1.2 kB, saved by `datasets` as Arrow, become one data set of N shuffled pairs, each way in a process of
  its own: `interleave_datasets` and `to_parquet`, against `Mixture.to_dataset` in a file, and in memory.
* Win rates: the models of VERDICTS against LogisticRegressionCV as the official package calls it (see eval_peers.py).

Times are medians of TURNS runs, taken in turn. Memory is the highest resident set; `anonymous` is the part that is no mapped file.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from eval_peers import OFFICIAL

TURNS = 3

PEAK = """
import threading, time
peak, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        with open("/proc/self/status") as file:
            peak[0] = max(peak[0], *(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
        time.sleep(0.01)
thread = threading.Thread(target=watch, daemon=True); thread.start()
def told(seconds):
    stop.set(); thread.join()
    import json
    # Not ru_maxrss, which a child takes over from the process that started it.
    with open("/proc/self/status") as file:
        highest = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": highest * 1024, "anonymous": peak[0] * 1024}))
"""

WAYS = {
    "datasets: interleave_datasets + to_parquet": """
import sys, datasets
datasets.disable_progress_bars()
a, b = (datasets.load_from_disk(path) for path in sys.argv[1:3])
start = time.perf_counter()
mixed = datasets.interleave_datasets([a.shuffle(seed=1), b.shuffle(seed=1)], probabilities=[0.5, 0.5], seed=1, stopping_strategy="all_exhausted")
mixed.select(range(int(sys.argv[4]))).to_parquet(sys.argv[3])
told(time.perf_counter() - start)
""",
    "simplemix: Mixture.to_dataset(path)": """
import sys, datasets, simplemix
a, b = (datasets.load_from_disk(path) for path in sys.argv[1:3])
start = time.perf_counter()
simplemix.Mixture({"a": a, "b": b}, total=int(sys.argv[4]), seed=1, batch=128).to_dataset(sys.argv[3], overwrite=True)
told(time.perf_counter() - start)
""",
    "simplemix: Mixture.to_dataset()": """
import sys, datasets, simplemix
a, b = (datasets.load_from_disk(path) for path in sys.argv[1:3])
start = time.perf_counter()
simplemix.Mixture({"a": a, "b": b}, total=int(sys.argv[4]), seed=1, batch=128).to_dataset()
told(time.perf_counter() - start)
""",
}

OURS = """
import sys, time, json, warnings
warnings.simplefilter("ignore")
start = time.perf_counter()
import simplemix
imported = time.perf_counter() - start
start = time.perf_counter()
rates = simplemix.alpaca.win_rates(sys.argv[1], gamed=sys.argv[2], baseline=sys.argv[3])
print(json.dumps({"import": imported, "seconds": time.perf_counter() - start,
                  "rates": {one.model: one.length_controlled_winrate for one in rates}}))
"""


def median(work, turns=TURNS):
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def order(rows):
    """Draws a second of each way to say which row comes next."""
    import datasets

    import simplemix as sm

    sets = [datasets.Dataset.from_dict({"x": range(rows)}) for _ in range(2)]
    half = [0.5, 0.5]
    mix = sm.Mixture({"a": sets[0], "b": sets[1]}, total=rows, seed=1, batch=128)
    made = {}

    def theirs():
        made["theirs"] = datasets.interleave_datasets(sets, half, seed=1)

    def ours():
        made["ours"] = sm.interleave_datasets(sets, half, seed=1)

    def at():
        for position in range(rows // 10):
            mix.at(position)

    ways = {
        "datasets.interleave_datasets": (theirs, lambda: len(made["theirs"])),
        "simplemix.interleave_datasets, the same rows": (ours, lambda: len(made["ours"])),
        "Mixture.draws": (lambda: mix.draws(), lambda: rows),
        "Mixture.at in a loop": (at, lambda: rows // 10),
    }
    try:
        import torch
        from torch.utils.data import DistributedSampler, RandomSampler, WeightedRandomSampler
    except ImportError:
        print("torch is not installed: without its samplers", file=sys.stderr)
    else:
        weights = torch.ones(rows)
        ways |= {
            "torch RandomSampler": (lambda: sum(1 for _ in RandomSampler(range(rows))), lambda: rows),
            "torch WeightedRandomSampler": (lambda: sum(1 for _ in WeightedRandomSampler(weights, rows)), lambda: rows),
            "torch DistributedSampler": (lambda: sum(1 for _ in DistributedSampler(range(rows), 1, 0)), lambda: rows),
            "MixtureSampler": (lambda: sum(1 for _ in sm.torch.MixtureSampler(mix)), lambda: rows),
        }
    found = {}
    for name, (work, count) in ways.items():
        seconds = median(work)
        found[name] = {"seconds": seconds, "rows_per_second": count() / seconds}
    assert made["ours"]["x"][:1000] == made["theirs"]["x"][:1000]
    return found


def save(path, rows, seed):
    """Pairs of 1.2 kB, as `datasets` keeps them."""
    import datasets
    import numpy
    import pyarrow as pa

    rng = numpy.random.default_rng(seed)
    words = numpy.array(["model", "answer", "question", "number", "sum", "robot", "star", "story", "rain", "because", "is"])
    pools = [[" ".join(words[rng.integers(0, len(words), length)]) for _ in range(1000)] for length in (30, 100, 90)]

    def batches():
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            columns = ([f"{start + i} {pool[pick]}" for i, pick in enumerate(rng.integers(0, 1000, count))] for pool in pools)
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], ["prompt", "chosen", "rejected"])

    table = pa.Table.from_batches(batches())
    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(path)


def data(rows):
    """Seconds and memory of each way to make one data set of two."""
    found = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in "ab"]
        for seed, path in enumerate(paths):
            save(path, rows, seed)
        out = os.path.join(folder, "out.parquet")
        for _ in range(TURNS):
            for name, code in WAYS.items():
                command = [sys.executable, "-c", PEAK + code, *paths, out, str(rows)]
                found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
    figure = lambda runs: {key: statistics.median(run[key] for run in runs) for key in ("seconds",)} | {
        key: max(run[key] for run in runs) for key in ("peak", "anonymous")
    }
    return {name: figure(runs) | {"runs": runs} for name, runs in found.items()}


def win_rates(annotations, gamed, models, baseline):
    """Seconds of both, for some models, and how far their rates are apart."""
    import pandas as pd

    verdicts = pd.read_parquet(annotations)
    names = [name for name in verdicts.model.unique() if name != baseline][:models]
    found = {"models": len(names), "ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "verdicts.parquet")
        verdicts[verdicts.model.isin(names)].to_parquet(path)
        for _ in range(TURNS):
            for side, code in (("theirs", OFFICIAL), ("ours", OURS)):
                start = time.perf_counter()
                done = subprocess.run([sys.executable, "-c", code, path, gamed, baseline], check=True, capture_output=True, text=True)
                found[side].append(time.perf_counter() - start)
                found[f"{side}_output"] = json.loads(done.stdout.splitlines()[-1])
    theirs = {row["model"]: row["length_controlled_winrate"] for row in found.pop("theirs_output")["rows"]}
    ours = found.pop("ours_output")
    found["of_which_ours_computes"] = ours["seconds"]
    found["largest_difference_points"] = max(abs(ours["rates"][model] - rate) for model, rate in theirs.items())
    return found | {side: statistics.median(found[side]) for side in ("ours", "theirs")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--annotations")
    parser.add_argument("--gamed")
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--baseline", default="gpt4_1106_preview")
    parser.add_argument("out", nargs="?")
    args = parser.parse_args()
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "command": " ".join(["python", *sys.argv]),
        "rows": args.rows,
        "order": order(args.rows),
        "data": data(args.rows),
    }
    if args.annotations and args.gamed:
        result["win_rates"] = win_rates(args.annotations, args.gamed, args.models, args.baseline)
    result["load_after"] = os.getloadavg()[0]
    text = json.dumps(result, indent=1)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
