"""Runs that are looked at from outside: `manners.py pipeline|memory|counts --inputs FOLDER ...`.

pipeline: `simplemix run` with sampling in this process. memory: training that does not fit ends in one line and code 1, and leaves
a whole run folder. counts: kernels and waits of an update, on a GPU. Results go to the file RESULTS."""
import argparse
import json
import os
import subprocess
import tempfile
import time

import results


def command(args, verb, out, *more):
    """A run of simplemix on the small model, or on that of the speed runs."""
    return ["simplemix", verb, "--device", args.device, "--output", os.path.join(out, "run"), *more]


def trains(args, out, *more):
    return command(args, "train", out, "--model", os.path.join(args.inputs, "speed"), "--dtype", args.dtype, "--train",
                   os.path.join(args.inputs, "pairs.jsonl"), "--max-length", "2048", "--set", "tokens.cache=false", *more)


def run(command, **more):
    return subprocess.run(command, capture_output=True, text=True, **more)


def pipeline(args, out):
    at = lambda name: os.path.join(args.inputs, name)
    ended = run(command(args, "run", out, "--preset", "simplemix", "--model", at("small"), "--prompts", at("prompts.jsonl"),
                        "--off-policy", at("off.jsonl"), "--scorer", "digit-share", "--size", "8", "--json",
                        "--set", "train.batch.batch_size=4", "--set", "collect.sampling.max_new_tokens=16"))
    if ended.returncode != 0:
        return False, f"ended with {ended.returncode}: {last(ended.stderr)}"
    stages = {stage["stage"]: stage["seconds"] for stage in json.loads(ended.stdout)["stages"]}
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items())
    return {"generate", "pair", "mix", "train"} <= set(stages), told


def last(text):
    return text.strip().splitlines()[-1] if text.strip() else "nothing was said"


def address_space_kib(command, env):
    """Most address space of a run that fits."""
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while child.poll() is None:
        try:
            with open(f"/proc/{child.pid}/status") as file:
                most = max([most, *(int(line.split()[1]) for line in file if line.startswith("VmPeak"))])
        except OSError:
            break
        time.sleep(0.01)
    if child.wait() != 0:
        raise SystemExit(f"a run that fits ended with {child.returncode}")
    return most


def memory(args, out):
    """Little memory is given: on a GPU by a setting of libtorch's allocator, on a CPU by a limit of the process."""
    # One pass over all pairs, which needs gigabytes.
    large = ["--batch-size", "256", "--max-steps", "1", "--set", "batch.micro_batch_tokens=1000000", "--set",
             "memory.logits_bytes=100000000000", "--set", "reference.source=on-the-fly"]
    if args.device == "cpu":
        env = {**os.environ, "OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2"}
        fits = os.path.join(out, "fits")
        os.mkdir(fits)
        limit = address_space_kib(trains(args, fits, "--batch-size", "4", "--max-steps", "1"), env) + (1 << 19)
        ended = run(["bash", "-c", f"ulimit -v {limit}; exec \"$@\"", "bash", *trains(args, out, *large)], env=env)
    else:
        env = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{args.fraction}"}
        ended = run(trains(args, out, *large), env=env)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    wanted = ended.returncode == 1 and len(errors) == 1 and "out of memory" in errors[0] and "lower" in errors[0]
    clean = not any(word in ended.stderr for word in ("panicked", "frame #", "Exception raised", "terminate called"))
    return wanted and clean, f"code {ended.returncode}, {errors[0] if errors else last(ended.stderr)}"


def counts(args, out):
    """Kernels, copies, waits and allocations of an update: those of four updates less those of two, halved."""
    found, batch = [], 2 if args.device == "cpu" else 16
    for updates in (2, 4):
        path = os.path.join(out, f"counts-{updates}.json")
        folder = os.path.join(out, str(updates))
        os.mkdir(folder)
        ended = run(trains(args, folder, "--batch-size", str(batch), "--max-steps", str(updates), "--set", "reference.source=computed"),
                    env={**os.environ, "LD_PRELOAD": args.counter, "COUNT_FILE": path})
        if ended.returncode != 0:
            return False, f"ended with {ended.returncode}: {last(ended.stderr)}"
        with open(path) as file:
            found.append(json.load(file))
    an_update = {key: (found[1][key] - found[0][key]) / 2 for key in found[0]}
    told = f"an update of {batch} pairs: " + ", ".join(f"{key} {number:.0f}" for key, number in an_update.items())
    # Without CUDA there is nothing to count.
    return args.device == "cpu" or an_update["launches"] > 0, told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["pipeline", "memory", "counts"])
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the GPU's memory, for `memory`")
    parser.add_argument("--counter", help="libcount.so, for `counts`")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.inputs) as out:
        ok, told = {"pipeline": pipeline, "memory": memory, "counts": counts}[args.what](args, out)
    results.append({"stage": args.what, "ok": ok, "told": told})
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
