"""What `simplemix train --dry-run` expects at its peak, beside what the run then takes.

Python 3.11, standard library only. Usage, from the repository's root, after `cargo xtask fetch`:

    SIMPLEMIX=target/release/simplemix python benches/memory_estimate.py MODEL_FOLDER PAIRS.json

PAIRS.json is a list of pairs, as LLaMA-Factory's dpo_en_demo.json in the demo's cache; the first twelve are used.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

model, pairs = sys.argv[1:]
simplemix = os.environ.get("SIMPLEMIX", "simplemix")
with tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "pairs.json")
    with open(pairs) as file, open(data, "w") as out:
        json.dump(json.load(file)[:12], out)
    for name, more in [("plain", []), ("checkpointed", ["--set", "memory.activation_checkpointing=true"]),
                       ("2048 tokens", ["--set", "batch.micro_batch_tokens=2048"])]:
        output = os.path.join(folder, name)
        command = [simplemix, "train", "--model", model, "--train", data, "--output", output, "--batch-size", "4",
                   "--max-steps", "3", *more]
        said = subprocess.run([*command, "--dry-run"], check=True, capture_output=True, text=True).stdout
        expected = float(re.search(r"expected peak memory ([0-9.]+) GB", said)[1])
        subprocess.run(command, check=True, capture_output=True)
        with open(os.path.join(output, "metrics.jsonl")) as lines:
            taken = max(json.loads(line).get("peak_memory_gb", 0) for line in lines)
        print(f"{name:<14} expected {expected:.2f} GB, taken {taken:.2f} GB, ratio {expected / taken:.3f}", flush=True)
