"""Collecting beside training: the time of a pipeline with `collect.lag = 1`, one stage after the other and beside each other.

Python 3.11, nothing beside it. Usage, from the repository's root, after `cargo build --release -p simplemix-cli`:

    python benches/semi_online.py MODEL_FOLDER OUT.json [SECONDS] [ROUNDS]

Scores come from a command that waits for SECONDS (default 20), as a judge or a server far away does, and uses no core. Both runs
have the same plan, and the same results: the models are compared byte by byte.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix")))
PROMPTS, SAMPLES = 24, 4


def run(folder, model, beside, seconds, rounds):
    scorer = "command:sleep %s; awk '{print \"{\\\"score\\\": \" length($0) %% 17 \"}\"}'" % seconds
    sets = [f"rounds={rounds}", f"collect.beside={beside}", f"collect.sampling.samples={SAMPLES}", "collect.sampling.max_new_tokens=16",
            "train.batch.batch_size=4", "train.tokens.max_length=256", "train.optimizer.epsilon=1e-8"]
    command = [BINARY, "run", "--preset", "semi-online", "--model", model, "--prompts", "prompts.jsonl", "--scorer", scorer,
               "--size", "16", "--output", beside]
    begin = time.perf_counter()
    subprocess.run(command + [word for text in sets for word in ("--set", text)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begin
    stages = json.loads((folder / beside / "summary.json").read_text())["stages"]
    of = lambda kinds: sum(stage["seconds"] for stage in stages if stage["stage"].split("-")[0] in kinds)
    weights = (folder / beside / "model" / "model.safetensors").read_bytes()
    return {"wall": wall, "collecting": of({"generate", "score", "pair"}), "training": of({"mix", "train"})}, weights


def main():
    model, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    seconds, rounds = (int(word) for word in (sys.argv[3:5] + ["20", "4"][len(sys.argv[3:5]):]))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with open(folder / "prompts.jsonl", "w") as file:
            for i in range(PROMPTS):
                file.write(json.dumps({"prompt": [{"role": "user", "content": f"What is {i} times {i + 3}?"}]}) + "\n")
        result, weights = {}, {}
        for beside in ("none", "servers"):
            result[beside], weights[beside] = run(folder, model, beside, seconds, rounds)
    result["same_model"] = weights["none"] == weights["servers"]
    pathlib.Path(out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


main()
