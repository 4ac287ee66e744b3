"""DPO training of one model on the same real pairs: `simplemix train` and TRL, in turn, on this machine's CPU in f32.

Python 3.11, torch 2.11.0, transformers 5.23.0, trl 1.16.0, datasets 5.2.0, peft 0.21.2. Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/train_peers.py MODEL_FOLDER OUT.json FILE... [--ways WAY,...]
    SIMPLEMIX=target/release/simplemix python benches/train_peers.py MODEL_FOLDER OUT.json FILE... --trajectory

A FILE is LLaMA-Factory's dpo_en_demo.json, as `cargo xtask fetch` leaves it in the cache, or JSON lines of prompt, chosen and
rejected messages. Pairs are taken from all files in turn, lengths as they are, the same pairs in the same order everywhere:
STEPS updates of BATCH pairs, beta 0.1, learning rate 1e-6, at most 1,024 tokens, no gradient checkpointing. Every way runs in a
process of its own. What is counted: TRL's own `train_runtime` (its defaults run the reference beside the policy), and that of a
run with a precomputed reference, without the precomputation; ours is the whole command less the same command with `--dry-run`
(start, loading, tokenising), so that scoring the reference and writing the model are counted, and the updates alone as
metrics.jsonl has them. Peak is the process's largest resident set. OUT.json is written after every way and gone on with.

`--trajectory` holds 50 updates of one pair each (those of at most 300 tokens), learning rate 5e-6, against TRL's: losses, gradient
norms, rewards.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, STEPS, RATE, SHORT = 4, 3, 1e-6, None


def read(path):
    """Pairs of a file, shuffled."""
    if path.endswith(".json"):
        turn = lambda role, text: [{"role": role, "content": text}]
        rows = [{"prompt": turn("user", row["conversations"][-1]["value"]), "chosen": turn("assistant", row["chosen"]["value"]),
                 "rejected": turn("assistant", row["rejected"]["value"])} for row in json.load(open(path))]
    else:
        rows = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in map(json.loads, open(path))]
    random.Random(0).shuffle(rows)
    if SHORT:
        # Some four characters a token.
        rows = [row for row in rows if sum(len(turn["content"]) for key in row for turn in row[key]) < 4 * SHORT]
    return rows


def chosen_pairs(paths):
    files = [read(path) for path in paths]
    return [files[i % len(files)][i // len(files)] for i in range(BATCH * STEPS)]


def trl(way, model, pairs, out):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(output_dir=out, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE, bf16=False,
                       gradient_checkpointing=False, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
                       use_cpu=True, train_sampling_strategy="sequential", precompute_ref_log_probs=way == "trl precomputed")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if way == "trl lora" else None
    start = time.perf_counter()
    trainer = DPOTrainer(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), args=config, peft_config=lora,
                         processing_class=AutoTokenizer.from_pretrained(model), train_dataset=Dataset.from_list(pairs))
    made = time.perf_counter() - start
    train = trainer.train().metrics["train_runtime"]
    log = [line for line in trainer.state.log_history if "loss" in line]
    return {"made": made, "seconds": train, "losses": [line["loss"] for line in log],
            "grad_norms": [line["grad_norm"] for line in log],
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def ours(way, model, pairs, out):
    data = os.path.join(out, "pairs.jsonl")
    with open(data, "w") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    more = {"ours": [], "ours lora": ["--lora-rank", "16"], "ours checkpointed": ["--set", "memory.activation_checkpointing=true"],
            "ours lora checkpointed": ["--lora-rank", "16", "--set", "memory.activation_checkpointing=true"]}[way]
    run = os.path.join(out, "run")
    command = [os.environ.get("SIMPLEMIX", "simplemix"), "train", "--model", model, "--train", data, "--output", run,
               "--batch-size", str(BATCH), "--max-steps", str(STEPS), "--learning-rate", str(RATE), "--set", "reference.source=computed",
               "--set", "tokens.cache=false", *more]
    seconds = {}
    for name, extra in [("dry", ["--dry-run"]), ("whole", [])]:
        start = time.perf_counter()
        subprocess.run([*command, *extra], check=True, capture_output=True)
        seconds[name] = time.perf_counter() - start
    lines = [json.loads(line) for line in open(os.path.join(run, "metrics.jsonl"))]
    return {"seconds": seconds["whole"] - seconds["dry"], "start": seconds["dry"],
            "updates": sum(BATCH / line["pairs_per_second"] for line in lines), "losses": [line["loss"] for line in lines],
            "grad_norms": [line["grad_norm"] for line in lines], "tokens_per_s": statistics.median(l["tokens_per_second"] for l in lines),
            "peak_gb": max(line["peak_memory_gb"] for line in lines)}


WAYS = ["ours", "trl", "ours lora", "trl lora", "trl precomputed", "ours checkpointed", "ours lora checkpointed"]


def main(args):
    results = json.load(open(args.out)) if os.path.exists(args.out) else {}
    for way in args.ways.split(","):
        child = [sys.executable, __file__, args.model, args.out, *args.files, "--child", way]
        said = subprocess.run(child + (["--trajectory"] if args.trajectory else []), check=True, capture_output=True, text=True)
        results[way] = json.loads(said.stdout.splitlines()[-1])
        results[way]["pairs_per_s"] = BATCH * STEPS / results[way]["seconds"]
        print(way, json.dumps(results[way]), flush=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        results |= {"date": time.strftime("%Y-%m-%d"), "commit": commit, "command": "benches/train_peers.py MODEL_FOLDER "
                    + " ".join(os.path.basename(path) for path in [args.out, *args.files]) + (" --trajectory" if args.trajectory else "")}
        json.dump(results, open(args.out, "w"), indent=1)
    if "ours" in results and "trl" in results:
        ours, theirs = results["ours"], results["trl"]
        loss = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"]))
        norm = max(abs(a - b) / b for a, b in zip(ours["grad_norms"], theirs["grad_norms"]))
        print(f"furthest loss {loss:.2e}, gradient norm {norm:.2e} of itself, over {len(ours['losses'])} updates")
        print(f"speed {theirs['seconds'] / ours['seconds']:.2f} times TRL's, peak {ours['peak_gb'] / theirs['peak_gb']:.3f} of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--ways")
    parser.add_argument("--trajectory", action="store_true")
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.trajectory:
        BATCH, STEPS, RATE, SHORT = 1, 50, 5e-6, 300
    args.ways = args.ways or ",".join(["ours", "trl"] if args.trajectory else WAYS)
    if args.child:
        with tempfile.TemporaryDirectory() as out:
            way = ours if args.child.startswith("ours") else trl
            print(json.dumps(way(args.child, args.model, chosen_pairs(args.files), out)))
    else:
        main(args)
