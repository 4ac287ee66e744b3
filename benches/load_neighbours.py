"""Updates and decoding on a machine with other work: `simplemix`, and TRL, alone and beside busy loops.

Python 3.11, torch 2.11.0, transformers 5.24.0, trl 1.16.0, datasets 5.2.0, peft 0.21.0. Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/load_neighbours.py MODEL_FOLDER OUT.json PAIRS.jsonl PROMPTS.jsonl [WAY,...]

Each way is measured alone and with BUSY processes that do nothing but count, in turn, TURNS times (3, or the variable of that
name); the machine should have no other work. With T threads on as many processors the fair share of a way is T / (T + BUSY) of the
machine, so (T + BUSY) / T times its time alone is fair. `ours` waits as the program does by itself, asleep; `ours spinning` as
libgomp does unless told otherwise. Updates are one of BATCH pairs as in train_peers.py, TRL's with its defaults; decoding is 64
tokens to 8 prompts. OUT.json has seconds, their medians, and the ratio busy / alone / fair.
"""
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time

import train_peers

BUSY, TURNS = 4, int(os.environ.get("TURNS", 3))
SIMPLEMIX = os.environ.get("SIMPLEMIX", "simplemix")
ENVIRONMENTS = {"ours": {}, "ours spinning": {"GOMP_SPINCOUNT": "300000"}}


def count():
    while True:
        pass


def update(way, model, files):
    pairs = train_peers.chosen_pairs(files)
    with tempfile.TemporaryDirectory() as out:
        if way == "trl":
            return train_peers.trl("trl", model, pairs, out)["seconds"]
        os.environ.update(ENVIRONMENTS[way])
        return train_peers.ours("ours", model, pairs, out)["updates"]


def decoding(model, prompts, environment):
    with tempfile.TemporaryDirectory() as out:
        seconds = {}
        for tokens in ["1", "65"]:
            start = time.perf_counter()
            subprocess.run([SIMPLEMIX, "generate", "--model", model, "--prompts", prompts, "--limit", "8", "--max-new-tokens", tokens,
                            "-o", os.path.join(out, tokens + ".jsonl")], check=True, capture_output=True, env=os.environ | environment)
            seconds[tokens] = time.perf_counter() - start
    return seconds["65"] - seconds["1"]


def measure(way, model, files, prompts):
    if way.startswith("decoding"):
        return decoding(model, prompts, ENVIRONMENTS["ours"])
    child = [sys.executable, __file__, model, "-", *files, prompts, "--child", way]
    return json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main(model, out, files, prompts, ways):
    results = json.load(open(out)) if os.path.exists(out) else {}
    cores = os.cpu_count()
    fair = (cores + BUSY) / cores
    for way in ways:
        seconds = {"alone": [], "busy": []}
        for _ in range(TURNS):
            seconds["alone"].append(measure(way, model, files, prompts))
            neighbours = [multiprocessing.Process(target=count, daemon=True) for _ in range(BUSY)]
            [process.start() for process in neighbours]
            seconds["busy"].append(measure(way, model, files, prompts))
            [process.kill() for process in neighbours]
            [process.join() for process in neighbours]
        alone, busy = (statistics.median(seconds[name]) for name in ["alone", "busy"])
        results[way] = seconds | {"median_alone": alone, "median_busy": busy, "of_fair_share": busy / alone / fair}
        print(way, json.dumps(results[way]), flush=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        results |= {"date": time.strftime("%Y-%m-%d"), "commit": commit, "cores": cores, "busy": BUSY, "turns": TURNS}
        json.dump(results, open(out, "w"), indent=1)


if __name__ == "__main__":
    train_peers.STEPS = 1
    if "--child" in sys.argv:
        model, _, *files, _prompts, _, way = sys.argv[1:]
        print(json.dumps(update(way, model, files)))
    else:
        model, out, pairs, prompts, *ways = sys.argv[1:]
        main(model, out, [pairs], prompts, ways[0].split(",") if ways else ["ours", "ours spinning", "decoding", "trl"])
