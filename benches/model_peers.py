"""Training passes, generation and loading: simplemix-model and transformers, in turn, on this machine's CPU in f32.

Python 3.11, torch 2.11.0, transformers 5.23.0. Usage, from the repository's root, after `cargo xtask setup`:

    python benches/model_peers.py MODEL_FOLDER [OUT.json] [load|train|generate ...]

MODEL_FOLDER is a Hugging Face folder; `cargo xtask demo` leaves SmolLM2-135M-Instruct in the cache. Every point runs in
processes of its own, ours (crates/simplemix-model/examples/speed.rs) and theirs, TURNS times by turns; times are
medians. Training passes are forward and backward through everything below the output head, over pairs with the lengths
of HH-RLHF (prompt about 120 tokens, answers about 70, both log-normal), 4 pairs at a time: theirs padded, with sdpa, as
TRL feeds them; ours packed, with the prompt twice as theirs (plain) or once (shared). Tokens are counted as theirs
without padding. Generation is greedy; both must give the same tokens.
"""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 3
MICRO_BATCHES, PAIRS = 6, 4
PROMPT_TOKENS, NEW_TOKENS = 64, 64


def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def their(what, model, *args):
    """The same work as in speed.rs, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    def load():
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")

    if what == "load":
        start = time.perf_counter()
        policy = load()
        total = sum(p.sum().item() for p in policy.parameters())
        return {"seconds": time.perf_counter() - start, "sum": total, "peak_mb": peak_mb()}
    policy = load()
    if what == "train":
        batches, seconds = json.load(open(args[0])), []

        def step(batch):
            rows = [p + c for p, c, _ in batch] + [p + r for p, _, r in batch]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
            hidden = policy.model(ids, attention_mask=mask).last_hidden_state
            (hidden.square() * mask[..., None]).sum().backward()

        step(batches[0])
        for batch in batches:
            start = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "peak_mb": peak_mb()}
    rows, prompt, new = map(int, args)
    ids = torch.tensor([[100 + (i * 37 + row * 11) % 9000 for i in range(prompt)] for row in range(rows)])
    options = dict(attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        policy.generate(ids, max_new_tokens=1, **options)
        start = time.perf_counter()
        policy.generate(ids, max_new_tokens=1, **options)
        first = time.perf_counter() - start
        start = time.perf_counter()
        out = policy.generate(ids, max_new_tokens=new, **options)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "first": first, "tokens": out[:, prompt:].tolist(), "peak_mb": peak_mb()}


def ours(*args):
    out = subprocess.run(["cargo", "run", "--quiet", "--release", "-p", "simplemix-model", "--example", "speed", "--", *args],
                         check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def theirs(*args):
    out = subprocess.run([sys.executable, __file__, "--child", *args], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def by_turns(ways):
    """Results of each way, which run one after the other."""
    results = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, run in ways.items():
            results[name].append(run())
    return results


def median(results, key="seconds"):
    return statistics.median(sum(r[key]) if isinstance(r[key], list) else r[key] for r in results)


def load(model, peak):
    results = by_turns({"ours": lambda: ours("load", model), "transformers": lambda: theirs("load", model)})
    row = {name: {"seconds": median(r), "peak_mb": median(r, "peak_mb")} for name, r in results.items()}
    row["ratio"] = row["transformers"]["seconds"] / row["ours"]["seconds"]
    return row


def train(model, peak):
    numbers = random.Random(0)
    length = lambda middle: max(4, min(700, int(numbers.lognormvariate(0, 0.7) * middle)))
    tokens = lambda count: [numbers.randrange(10, 9000) for _ in range(count)]
    batches = [[[tokens(length(120)), tokens(length(70)), tokens(length(70))] for _ in range(PAIRS)]
               for _ in range(MICRO_BATCHES)]
    count = sum(2 * len(p) + len(c) + len(r) for batch in batches for p, c, r in batch)
    fed = sum(len(p) + len(c) + len(r) for batch in batches for p, c, r in batch)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(batches, file)
        file.flush()
        ways = {mode: lambda mode=mode: ours("train", model, file.name, mode)
                for mode in ("plain", "shared", "checkpointed")}
        results = by_turns({**ways, "transformers": lambda: theirs("train", model, file.name)})
    config = json.load(open(os.path.join(model, "config.json")))
    h, f, kv = config["hidden_size"], config["intermediate_size"], config["num_key_value_heads"]
    head = h // config["num_attention_heads"]
    weights = config["num_hidden_layers"] * (2 * h * h + 2 * h * kv * head + 3 * h * f)
    rows = {}
    for name, result in results.items():
        seconds = median(result)
        passes = 8 if name == "checkpointed" else 6
        done = passes * weights * (fed if name in ("shared", "checkpointed") else count)
        rows[name] = {"tokens_per_s": count / seconds, "peak_mb": median(result, "peak_mb"),
                      "of_gemm_peak": None if name == "transformers" else done / seconds / 1e9 / peak["gflops"]}
    for name in ways:
        rows[name]["ratio"] = rows[name]["tokens_per_s"] / rows["transformers"]["tokens_per_s"]
    return {"tokens": count, "tokens_with_shared_prompts": fed, **rows}


def generate(model, peak):
    table = {}
    for rows in (1, 8, 32):
        args = ("generate", model, str(rows), str(PROMPT_TOKENS), str(NEW_TOKENS))
        results = by_turns({"ours": lambda: ours(*args), "transformers": lambda: theirs(*args)})
        row = {}
        for name, result in results.items():
            # Of one token after the first.
            decode = statistics.median((r["seconds"] - r["first"]) / (NEW_TOKENS - 1) for r in result)
            row[name] = {"tokens_per_s": rows * NEW_TOKENS / median(result), "first_token_s": median(result, "first"),
                         "step_ms": decode * 1e3, "bandwidth_share": results["ours"][0]["weight_bytes"] / decode / 1e9 / peak["gbytes"]}
        row["ratio"] = row["ours"]["tokens_per_s"] / row["transformers"]["tokens_per_s"]
        pairs = zip(results["ours"][0]["tokens"], results["transformers"][0]["tokens"])
        row["equal_answers"] = sum(a == b for a, b in pairs)
        table[rows] = row
    return table


def main(model, out, what):
    peak = ours("peak")
    results = {"model": os.path.basename(model), "machine_peak": peak}
    for name in what:
        results[name] = {"load": load, "train": train, "generate": generate}[name](model, peak)
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    if out:
        results["command"] = "python " + " ".join(["benches/model_peers.py", "MODEL_FOLDER", os.path.basename(out), *what])
        results["date"] = time.strftime("%Y-%m-%d")
        results["commit"] = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        json.dump(results, open(out, "w"), indent=1)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(json.dumps(their(*sys.argv[2:])))
    else:
        rest = sys.argv[2:]
        out = next((arg for arg in rest if arg.endswith(".json")), None)
        main(sys.argv[1], out, [arg for arg in rest if arg != out] or ["load", "train", "generate"])
