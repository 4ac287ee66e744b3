"""DPO training by one process of two threads and by two processes of one thread each, in turn, on this machine's CPU in f32.

Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/processes.py MODEL_FOLDER OUT.json FILE... [--turns N] [--batch N] [--updates N]

A FILE is LLaMA-Factory's dpo_en_demo.json, as `cargo xtask fetch` leaves it in the cache, or JSON lines of prompt, chosen and
rejected messages. Pairs are taken from all files in turn; those of at most some 300 tokens, the same pairs in the same order
everywhere. Threads of libtorch and of the rest of the program are two for one process and one for each of two. What is counted is
the speed of updates as metrics.jsonl has it, without the first one of a run, which touches memory and learns when gradients are
final. A turn is each way once; a ratio is that of a turn, and the median of the turns is what counts. OUT.json is written after
every turn.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

from train_peers import read

WAYS = {
    "one process of two threads": (1, "none"),
    "two processes of one thread": (2, "none"),
    "two processes, sharded optimiser": (2, "optimizer"),
    "two processes, all sharded": (2, "all"),
}


def run(model, data, args, processes, shard):
    threads = str(2 // processes)
    own = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "run")
        command = [os.environ.get("SIMPLEMIX", "simplemix"), "train", "--model", model, "--train", data, "--output", output,
                   "--batch-size", str(args.batch), "--max-steps", str(args.updates), "--learning-rate", "1e-6",
                   "--set", "loss.name=simpo", "--set", "eval.eval_at_end=false",
                   "--processes", str(processes), "--set", f"parallel.shard={shard}"]
        if processes > 1 and args.bucket_mb:
            command += ["--set", f"parallel.bucket_mb={args.bucket_mb}"]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        lines = [json.loads(line) for line in open(os.path.join(output, "metrics.jsonl"))][1:]
    median = lambda key: statistics.median(line[key] for line in lines if key in line) if key in lines[0] else None
    return {"pairs_per_s": median("pairs_per_second"), "tokens_per_s": median("tokens_per_second"), "losses": [line["loss"] for line in lines],
            "seconds_waited": median("processes/seconds_waited"), "sent_gb": median("processes/sent_gb"), "peak_gb": median("peak_memory_gb")}


def main(args):
    files = [read(path) for path in args.files]
    long = lambda pair: sum(len(turn["content"]) for side in ("prompt", "chosen") for turn in pair[side])
    files = [[pair for pair in pairs if long(pair) < 4 * 300] for pairs in files]
    pairs = [files[i % len(files)][i // len(files)] for i in range(args.batch * args.updates)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    results = {"date": time.strftime("%Y-%m-%d"), "commit": commit, "batch": args.batch, "updates": args.updates, "turns": []}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as data:
        data.writelines(json.dumps(pair) + "\n" for pair in pairs)
        data.flush()
        ways = [way for way in WAYS if args.ways is None or way in args.ways.split(";")]
        for _ in range(args.turns):
            turn = {}
            for way in ways:
                turn[way] = run(args.model, data.name, args, *WAYS[way])
                print(way, json.dumps(turn[way]), flush=True)
            results["turns"].append(turn)
            first = [turn[ways[0]]["pairs_per_s"] for turn in results["turns"]]
            for way in ways[1:]:
                ratios = [turn[way]["pairs_per_s"] / one for turn, one in zip(results["turns"], first)]
                results.setdefault("ratio", {})[way] = statistics.median(ratios)
            json.dump(results, open(args.out, "w"), indent=1)
    print(json.dumps(results["ratio"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--bucket-mb", type=float)
    parser.add_argument("--ways", help="names of ways, separated by semicolons")
    main(parser.parse_args())
