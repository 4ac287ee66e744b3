"""Rounds of `simplemix run` with a real server that is started for each of them: `transformers serve`, or any other command.

An optional check, not part of `cargo test`. Python 3.11, transformers 5.24.0 with fastapi, uvicorn and openai. Usage, from the
repository's root, after `cargo build -p simplemix-cli`:

    pip install 'transformers[serving]==5.24.0' torch
    python tests/servers/rounds.py MODEL_FOLDER PAIRS [SIMPLEMIX_BINARY [COMMAND]]

MODEL_FOLDER is one such as SmolLM2-135M-Instruct, PAIRS any file of preference pairs. COMMAND has {model} and {port}. Two rounds with
the right server have to verify it; a server that serves the first model in each round has to end the run in the second one, by its
responses alone. Prints what both runs say, and fails by an assertion.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

SETTINGS = """
preset = "simplemix"
model = {model}
off_policy = {pairs}
rounds = 2
device = "cpu"
mix = {{ size = 8 }}
prompts = {{ files = ["prompts.jsonl"] }}
output = {output}

[collect]
sampling = {{ samples = 4, max_new_tokens = 24, temperature = 1.0, top_p = 1.0 }}
scorer = [{{ kind = "length", min = 10, max = 80, unit = "characters" }}]
server = {{ concurrency = 2, extra = {{ generation_config = {generation} }} }}
weights = {{ by = "serve", command = {command}, timeout_secs = 600 }}

[train]
optimizer.learning_rate = 1e-4
batch = {{ batch_size = 4 }}
tokens.max_length = 256
"""


def run(simplemix, folder, output, **values):
    """Runs the pipeline. Returns the process, the records of its stages, and its seconds."""
    settings = SETTINGS.format(output=json.dumps(output), **{key: json.dumps(value) for key, value in values.items()})
    path = os.path.join(folder, output + ".toml")
    with open(path, "w") as file:
        file.write(settings)
    started = time.time()
    ended = subprocess.run([simplemix, "run", path], cwd=folder, capture_output=True, text=True)
    records = {}
    stages = os.path.join(folder, output, "stages")
    for name in sorted(os.listdir(stages)) if os.path.isdir(stages) else []:
        record = os.path.join(stages, name, "stage.json")
        if os.path.exists(record):
            with open(record) as file:
                record = json.load(file)
            records[record["stage"]] = record["report"]
    return ended, records, time.time() - started


def left_over(port_file):
    """Processes that still serve on a port of these runs."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if port_file in line and "rounds.py" not in line]


def main():
    model, pairs = (os.path.abspath(path) for path in sys.argv[1:3])
    simplemix = os.path.abspath(sys.argv[3] if len(sys.argv) > 3 else os.path.join("target", "debug", "simplemix"))
    serve = f"{sys.executable} -c 'from transformers.cli.transformers import main; main()' serve"
    command = sys.argv[4] if len(sys.argv) > 4 else serve + " {model} --port {port} --device cpu"
    # `transformers serve` samples only if the model's own settings say so, which requests may replace.
    with open(os.path.join(model, "generation_config.json")) as file:
        generation = json.dumps({**json.load(file), "do_sample": True})
    given = {"model": model, "pairs": pairs, "generation": generation}
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "prompts.jsonl"), "w") as file:
            for i in range(8):
                turns = [{"role": "user", "content": f"Name {i + 2} animals that live in the sea."}]
                file.write(json.dumps({"prompt": turns}) + "\n")
        good, records, seconds = run(simplemix, folder, "good", command=command, **given)
        print(good.stdout + good.stderr)
        assert good.returncode == 0, good.returncode
        for stage in ["generate-1", "generate-2"]:
            print(stage, json.dumps(records[stage]["served"], indent=1))
        print("yardstick-2", json.dumps(records["yardstick-2"]))
        print(f"{seconds:.0f} s")
        assert records["generate-2"]["served"]["evidence"] in ("texts", "log-probabilities"), records["generate-2"]
        # The first model, whatever the round is.
        stale = re.sub(r"\{model\}", model, command) + " # {model}"
        bad, records, seconds = run(simplemix, folder, "bad", command=stale, **given)
        print(bad.stdout + bad.stderr)
        print(f"{seconds:.0f} s")
        assert bad.returncode == 1 and "responds by old weights" in bad.stderr, bad.returncode
        assert "generate-1" in records and "generate-2" not in records, records.keys()
        assert not left_over(folder), left_over(folder)


if __name__ == "__main__":
    main()
