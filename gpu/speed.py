"""Trains on the same model and pairs with simplemix or with TRL and tells how fast: `speed.py WAY --inputs FOLDER ...`.

Ways: ours, ours-lora, ours-reward, trl, trl-liger, trl-lora. Everywhere: the same pairs in the same order, sigmoid loss, beta 0.1,
learning rate 1e-6 falling linearly, at most 2,048 tokens, the reference scored before. TRL holds bf16 weights and moments on a GPU;
simplemix holds f32 copies and moments beside its bf16 weights. The first updates warm up and are not counted. Work is told in pairs,
in tokens of prompts and both responses, and as the share of the rate that `machine.py` measured for products. The peak is the GPU's
memory in use, seen from outside, or the process's largest resident set on a CPU. Results go to the file RESULTS."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time

import results
import shapes

RATE = 1e-6
RANK = 16


def train_ours(args, out):
    run = os.path.join(out, "run")
    more = {"ours": [], "ours-lora": ["--lora-rank", str(RANK), "--lora-alpha", str(2 * RANK)],
            "ours-reward": ["--objective", "reward"]}[args.way]
    command = ["simplemix", "train", "--device", args.device, "--dtype", args.dtype, "--model", os.path.join(args.inputs, "speed"),
               "--train", os.path.join(args.inputs, "pairs.jsonl"), "--output", run, "--batch-size", str(args.batch),
               "--max-steps", str(args.updates), "--learning-rate", str(RATE), "--max-length", "2048", "--shuffle", "none",
               "--set", "reference.source=computed", "--set", "tokens.cache=false", *more]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        raise SystemExit(f"simplemix ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}")
    with open(os.path.join(run, "metrics.jsonl")) as file:
        lines = [line for line in map(json.loads, file) if "loss" in line]
    lines = lines[:args.updates]
    told = {key: lines[-1][key] for key in ("device_peak_memory_gb", "peak_memory_gb") if key in lines[-1]}
    return {"seconds": [args.batch / line["pairs_per_second"] for line in lines], "losses": [line["loss"] for line in lines],
            "grad_norms": [line["grad_norm"] for line in lines], **told}


def train_trl(args, out):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    gpu, model = args.device != "cpu", os.path.join(args.inputs, "speed")
    with open(os.path.join(args.inputs, "pairs.jsonl")) as file:
        rows = [json.loads(line) for line in file][:args.batch * args.updates]
    config = DPOConfig(output_dir=out, per_device_train_batch_size=args.micro_batch, max_steps=args.updates, learning_rate=RATE,
                       gradient_accumulation_steps=args.batch // args.micro_batch, bf16=gpu, gradient_checkpointing=False,
                       report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=not gpu, max_length=2048,
                       train_sampling_strategy="sequential", precompute_ref_log_probs=True,
                       use_liger_kernel=args.way == "trl-liger")
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    ends = []

    class Clock(TrainerCallback):
        def now(self):
            if gpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

        def on_train_begin(self, *_, **__):
            self.now()

        def on_step_end(self, *_, **__):
            self.now()

    trainer = DPOTrainer(AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"),
                         args=config, peft_config=lora if args.way == "trl-lora" else None,
                         processing_class=AutoTokenizer.from_pretrained(model), train_dataset=Dataset.from_list(rows),
                         callbacks=[Clock()])
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    log = [line for line in trainer.state.log_history if "loss" in line]
    told = {"device_peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if gpu else {}
    return {"seconds": [end - start for start, end in zip(ends, ends[1:])], "losses": [line["loss"] for line in log],
            "grad_norms": [line["grad_norm"] for line in log], **told}


class Memory(threading.Thread):
    """Most memory in use on the GPU, looked at twenty times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        import pynvml
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.used = lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used
        self.before = self.most = self.used()
        self.start()

    def run(self):
        while True:
            self.most = max(self.most, self.used())
            time.sleep(0.05)

    def peak_gb(self):
        return (self.most - self.before) / 1e9


def watched(args):
    """The way in a process of its own, and the most memory that it held."""
    memory = None
    if args.device != "cpu":
        try:
            memory = Memory()
        except Exception as error:  # No figure is better than no run.
            print(f"the GPU's memory cannot be watched: {error}", flush=True)
    child = subprocess.run([sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--child"], stdout=subprocess.PIPE, text=True)
    if child.returncode != 0:
        raise SystemExit(f"{args.way} ended with {child.returncode}")
    found = json.loads(child.stdout.splitlines()[-1])
    if memory:
        found["seen_peak_gb"] = memory.peak_gb()
    elif "peak_memory_gb" not in found:
        found["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return found


def told(args, found):
    with open(os.path.join(args.inputs, "lengths.json")) as file:
        lengths = json.load(file)
    counted = range(args.warm, args.updates)
    pairs = [pair for update in counted for pair in lengths[update * args.batch:(update + 1) * args.batch]]
    seconds = sum(found["seconds"][update] for update in counted)
    flop = sum(shapes.useful_flop(args.shape, *pair, adapted="lora" in args.way, head=args.way != "ours-reward")
               for pair in pairs)
    machine = [line for line in results.read(os.environ["RESULTS"]) if line.get("stage") == "machine"]
    line = {"stage": args.way, "ok": all(loss == loss for loss in found["losses"]), "shape": args.shape, "dtype": args.dtype,
            "device": args.device, "batch": args.batch, "updates": args.updates, "warm": args.warm,
            "pairs_per_s": len(pairs) / seconds, "tokens_per_s": sum(map(sum, pairs)) / seconds, "tflops": flop / seconds / 1e12}
    if machine:
        line["mfu"] = line["tflops"] / machine[-1]["product_tflops"]
    return {**line, **{key: value for key, value in found.items() if key != "seconds"}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["ours", "ours-lora", "ours-reward", "trl", "trl-liger", "trl-lora"])
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--shape", choices=list(shapes.SHAPES), required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, required=True, help="pairs of a forward pass of TRL")
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="updates that are not counted")
    parser.add_argument("--child", action="store_true")
    args = parser.parse_args()
    if not args.child:
        results.append(told(args, watched(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.inputs) as out:
        train = train_ours if args.way.startswith("ours") else train_trl
        print(json.dumps(train(args, out)))


if __name__ == "__main__":
    main()
