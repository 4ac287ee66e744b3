"""On-policy collection end to end: `simplemix collect`, and transformers' `generate` with a scorer in Python, in turn.

Python 3.11, torch 2.11.0, transformers 5.23.0. Usage, from the repository's root, after
`cargo build --release -p simplemix-cli`:

    python benches/rollout_peers.py MODEL_FOLDER PROMPTS.jsonl [OUT.json] [TURNS] [COUNT]

MODEL_FOLDER is a Hugging Face folder (`simplemix import-gguf` makes one of SmolLM2's GGUF file); PROMPTS.jsonl has
`prompt` (messages) and `answer`, such as GSM8K's questions. Both take the first COUNT prompts (64), draw 4 answers to each at
temperature 0.7 and top-p 0.9, at most 128 new tokens, in f32 on the CPU, score them by the last number and a rule of
length, and write the best against the worst of each prompt as pairs. Everything counts, from the start of the process:
imports, loading, sampling, scoring, writing. Theirs runs with several batch sizes, ours with its default; the best of
theirs is compared. Each point is a process of its own, TURNS times by turns; times are medians.
"""
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

SAMPLES, NEW_TOKENS = 4, 128
THEIR_ROWS = [32, 64]
BINARY = os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix"))


def theirs(model, prompts, count, rows, output):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    items = [json.loads(line) for line in open(prompts)][:count]
    texts = [tokenizer.apply_chat_template(i["prompt"], tokenize=False, add_generation_prompt=True) for i in items]
    # Prompts of like length together, as a careful user would.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers, tokens = [None] * len(items), 0
    for start in range(0, len(order), rows // SAMPLES):
        batch = order[start:start + rows // SAMPLES]
        inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            drawn = policy.generate(**inputs, do_sample=True, temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=NEW_TOKENS,
                                    num_return_sequences=SAMPLES, pad_token_id=tokenizer.pad_token_id)
        new = drawn[:, inputs["input_ids"].shape[1]:]
        tokens += int((new != tokenizer.pad_token_id).sum())
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        for place, i in enumerate(batch):
            answers[i] = decoded[place * SAMPLES:(place + 1) * SAMPLES]

    def score(text, answer):
        found = re.findall(r"-?\d[\d,]*\.?\d*", text)
        right = bool(found) and float(found[-1].replace(",", "").rstrip(".") or 0) == float(answer.replace(",", ""))
        words = len(text.split())
        return float(right) + 0.1 * (1.0 if words <= 40 else max(0.0, 1 - (words - 40) / 40))

    pairs = []
    for item, texts in zip(items, answers):
        scores = [score(text, item["answer"]) for text in texts]
        best, worst = max(range(SAMPLES), key=scores.__getitem__), min(range(SAMPLES), key=scores.__getitem__)
        if scores[best] > scores[worst]:
            turn = lambda text: [{"role": "assistant", "content": text}]
            pairs.append({"prompt": item["prompt"], "chosen": turn(texts[best]), "rejected": turn(texts[worst])})
    with open(output, "w") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    return {"pairs": len(pairs), "tokens": tokens}


def ours(model, prompts, count, output):
    command = [BINARY, "collect", "--model", model, "--prompts", prompts, "--limit", str(count), "--samples", str(SAMPLES),
               "--temperature", "0.7", "--top-p", "0.9", "--max-new-tokens", str(NEW_TOKENS), "--scorer", "exact-answer",
               "--scorer", "0.1*length:40", "-o", output, "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"pairs": report["pair"]["pairs"], "tokens": report["generate"]["tokens"]}


def timed(*args):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, "--point", *args], check=True, capture_output=True, text=True)
    point = json.loads(done.stdout.splitlines()[-1])
    return {**point, "seconds": time.perf_counter() - start}


def main():
    if sys.argv[1] == "--point":
        who, model, prompts, count, *rest = sys.argv[2:]
        with tempfile.TemporaryDirectory() as folder:
            if who == "ours":
                print(json.dumps(ours(model, prompts, count, os.path.join(folder, "on.parquet"))))
            else:
                print(json.dumps(theirs(model, prompts, int(count), int(rest[0]), os.path.join(folder, "on.jsonl"))))
        return
    model, prompts = sys.argv[1:3]
    out = sys.argv[3] if len(sys.argv) > 3 else None
    turns = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    count = sys.argv[5] if len(sys.argv) > 5 else "64"
    points = [("ours",)] + [("theirs", str(rows)) for rows in THEIR_ROWS]
    runs = {point: [] for point in points}
    for turn in range(turns):
        for point in points:
            runs[point].append(timed(point[0], model, prompts, count, *point[1:]))
            print(turn, *point, runs[point][-1], flush=True)
    result = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "turns": turns, "prompts": int(count), "points": []}
    for point, of_point in runs.items():
        seconds = statistics.median(run["seconds"] for run in of_point)
        speed = statistics.median(run["pairs"] / run["seconds"] for run in of_point)
        tokens = statistics.median(run["tokens"] / run["seconds"] for run in of_point)
        result["points"].append({"who": " ".join(point), "seconds": seconds, "pairs_per_second": speed, "tokens_per_second": tokens})
        print(f"{' '.join(point):<12} {seconds:7.1f} s  {speed:6.3f} pairs/s  {tokens:7.1f} tokens/s")
    by = lambda key: (result["points"][0][key], max(p[key] for p in result["points"][1:]))
    for key in ["pairs_per_second", "tokens_per_second"]:
        own, best = by(key)
        result[f"ratio_{key}"] = own / best
        print(f"{key}: {own / best:.2f} times the best of theirs")
    if out:
        json.dump(result, open(out, "w"), indent=1)


if __name__ == "__main__":
    main()
