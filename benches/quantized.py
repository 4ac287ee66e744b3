"""LoRA training and sampling over weights in f32, 8 and 4 bits: memory of the whole process, by what it is of, and speed.

Linux, Python 3.11, nothing beside it. Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/quantized.py MODEL_FOLDER PAIRS OUT.json [WAY..]

MODEL_FOLDER is SmolLM2-135M as `simplemix import-gguf` makes it of the demo's file, PAIRS LLaMA-Factory's dpo_en_demo.json, which
`cargo xtask fetch` leaves beside it. A way is a form, and `checkpointed` where layers are computed again in the backward pass, which
they are over quantised weights in any case.

Training is UPDATES updates of 2 pairs, rank 16, passes of at most 256 tokens, with its reference and its two saved models; its speed is
that of the updates alone, as metrics.jsonl has it. Sampling is 16 responses of 64 tokens at once, and then one at a time; loading counts.
Memory is looked at each 10 ms (/proc/PID/smaps_rollup): resident in all, and what of it is no file. The dry run's estimate stands beside.
OUT.json is written after every way.
"""
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix")))
UPDATES, PAIRS, SHORT = 4, 8, 200
WAYS = {"f32": [], "f32 checkpointed": ["--set", "memory.activation_checkpointing=true"],
        "8bit": ["--load-in", "8bit"], "4bit": ["--load-in", "4bit"],
        "4bit double": ["--load-in", "4bit", "--set", "quantization.double_quant=true"]}


def pairs(path):
    """Short pairs of the demo, in an order that does not change."""
    turn = lambda role, text: [{"role": role, "content": text}]
    rows = [{"prompt": turn("user", row["conversations"][-1]["value"]), "chosen": turn("assistant", row["chosen"]["value"]),
             "rejected": turn("assistant", row["rejected"]["value"])} for row in json.load(open(path))]
    random.Random(0).shuffle(rows)
    # Some four characters a token.
    return [row for row in rows if sum(len(turn["content"]) for key in row for turn in row[key]) < 4 * SHORT][:PAIRS]


def watched(command, folder):
    """Seconds and most memory of a command."""
    env = os.environ | {"SIMPLEMIX_CACHE": os.path.join(folder, "cache")}
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    with open(os.path.join(folder, "said"), "w") as said:
        start, before = time.perf_counter(), used()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=env)
        resident, own = 0, 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/smaps_rollup") as file:
                    found = dict(line.split(":", 1) for line in file if line.endswith("kB\n"))
                resident = max(resident, int(found["Rss"].split()[0]) * 1024)
                own = max(own, int(found["Anonymous"].split()[0]) * 1024)
            except (OSError, KeyError):
                pass
            time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{open(os.path.join(folder, 'said')).read()}")
    return {"seconds": time.perf_counter() - start, "processor_seconds": used() - before, "resident_gb": resident / 1e9, "anonymous_gb": own / 1e9}


def training(way, model, data, folder):
    command = [BINARY, "train", "--model", model, "--train", data, "--output", os.path.join(folder, "run"), "--lora-rank", "16",
               "--max-steps", str(UPDATES), "--batch-size", "2", "--learning-rate", "1e-5", "--set", "batch.micro_batch_tokens=256",
               *WAYS[way]]
    said = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout
    found = watched(command, folder)
    found["estimated_gb"] = float(re.search(r"expected peak memory ([0-9.]+) GB", said)[1])
    found["estimated_weights_gb"] = float(re.search(r"weights +([0-9.]+) GB", said)[1])
    with open(os.path.join(folder, "run", "metrics.jsonl")) as file:
        updates = [record for record in map(json.loads, file) if "loss" in record]
    found["losses"] = [record["loss"] for record in updates]
    found["tokens_per_second"] = [record["tokens_per_second"] for record in updates if "tokens_per_second" in record]
    return found


def sampling(way, model, data, folder):
    form = WAYS[way][1] if WAYS[way][:1] == ["--load-in"] else "none"
    found = {}
    for rows, limit in [(16, 4), (1, 1)]:
        output = os.path.join(folder, f"candidates-{rows}.jsonl")
        command = [BINARY, "generate", "--model", model, "--prompts", data, "--limit", str(limit), "--samples", str(rows // limit),
                   "--max-new-tokens", "64", "--min-new-tokens", "64", "--batch-rows", str(rows), "--load-in", form, "-o", output]
        found[f"{rows} rows"] = watched(command, folder)
        with open(output) as file:
            found[f"{rows} rows"]["tokens"] = sum(json.loads(line)["tokens"] for line in file)
    return found


def main():
    model, path, out, *ways = sys.argv[1:]
    results = json.load(open(out)) if os.path.exists(out) else {}
    for way in ways or WAYS:
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "pairs.jsonl")
            with open(data, "w") as file:
                file.writelines(json.dumps(row) + "\n" for row in pairs(path))
            results[way] = {"training": training(way, model, data, folder)}
            if "checkpointed" not in way and "double" not in way:
                results[way]["sampling"] = sampling(way, model, data, folder)
        with open(out, "w") as file:
            json.dump(results, file, indent=1)
        train = results[way]["training"]
        print(f"{way:<17} training {train['resident_gb']:.3f} GB ({train['anonymous_gb']:.3f} of it no file; {train['estimated_gb']:.2f} "
              f"estimated), {statistics.median(train['tokens_per_second']):.0f} tokens/s, {train['processor_seconds']:.1f} processor s", flush=True)
        for rows, found in results[way].get("sampling", {}).items():
            print(f"{'':<17} {rows:<8} {found['resident_gb']:.3f} GB, {found['tokens']} tokens in {found['seconds']:.1f} s, {found['processor_seconds']:.1f} processor s", flush=True)


if __name__ == "__main__":
    main()
