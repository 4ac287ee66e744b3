"""DPO training of one model on the same real pairs: `simplemix train` and TRL, in turn, on this machine's CPU in f32.

Python 3.11, torch 2.11.0, transformers 5.23.0, trl 1.16.0, datasets 5.2.0, peft 0.21.2. Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/train_peers.py MODEL_FOLDER PAIRS.json OUT.json [WAY ...]

PAIRS.json is LLaMA-Factory's dpo_en_demo.json, as `cargo xtask fetch` leaves it in the cache. STEPS updates of BATCH pairs,
the same pairs in the same order, beta 0.1, learning rate 1e-6, at most 1,024 tokens, no gradient checkpointing. Every way runs
in a process of its own. What is counted: TRL's own `train_runtime` (its defaults run the reference beside the policy), and
that of a run with a precomputed reference, with and without the precomputation; ours is the whole command less the same
command with `--dry-run` (start, loading, tokenising), so that scoring the reference and writing the model are counted, and the
updates alone as metrics.jsonl has them. Peak is the process's largest resident set.
"""
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, STEPS = 4, 4


def chosen_pairs(path):
    rows = json.load(open(path))
    random.Random(0).shuffle(rows)
    turn = lambda role, text: [{"role": role, "content": text}]
    return [{"prompt": turn("user", row["conversations"][-1]["value"]), "chosen": turn("assistant", row["chosen"]["value"]),
             "rejected": turn("assistant", row["rejected"]["value"])} for row in rows[:BATCH * STEPS]]


def trl(way, model, pairs, out):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(output_dir=out, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=1e-6, bf16=False,
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
    more = {"ours": [], "ours lora": ["--lora-rank", "16"], "ours checkpointed": ["--activation-checkpointing"]}[way]
    run = os.path.join(out, "run")
    command = [os.environ.get("SIMPLEMIX", "simplemix"), "train", "--model", model, "--train", data, "--output", run,
               "--batch-size", str(BATCH), "--max-steps", str(STEPS), "--reference", "computed", *more]
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


WAYS = ["ours", "trl", "ours lora", "trl lora", "trl precomputed", "ours checkpointed"]


def main(model, path, out, ways):
    pairs = BATCH * STEPS
    results = {}
    for way in ways:
        said = subprocess.run([sys.executable, __file__, "--child", way, model, path], check=True, capture_output=True, text=True)
        results[way] = json.loads(said.stdout.splitlines()[-1])
        results[way]["pairs_per_s"] = pairs / results[way]["seconds"]
        print(way, json.dumps(results[way]), flush=True)
    results |= {"date": time.strftime("%Y-%m-%d"), "command": "benches/train_peers.py MODEL_FOLDER dpo_en_demo.json " + os.path.basename(out),
                "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()}
    json.dump(results, open(out, "w"), indent=1)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        way, model, path = sys.argv[2:]
        with tempfile.TemporaryDirectory() as out:
            print(json.dumps((ours if way.startswith("ours") else trl)(way, model, chosen_pairs(path), out)))
    else:
        main(*sys.argv[1:4], sys.argv[4:] or WAYS)
