"""Most memory of each of four processes that share a training run, by the kernel's count, with and without a checkpoint in it.

Usage, from the repository's root, on Linux:

    SIMPLEMIX=target/release/simplemix python benches/processes_memory.py MODEL_FOLDER FILE...

A FILE is as for `processes.py`. Two updates of supervised fine-tuning of four pairs, in f32, with one thread a process. What is told is the
largest `VmHWM` of rank 0 and of the others, which holds the program and its libraries too; the result, which every run writes, is in it.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from train_peers import read

CASES = {
    "`none`": ["parallel.shard=none", "memory.activation_checkpointing=true"],
    "`optimizer`": ["parallel.shard=optimizer", "memory.activation_checkpointing=true"],
    "`all`": ["parallel.shard=all"],
}


def descendants(pid):
    for child in map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        yield child
        yield from descendants(child)


def peaks(command):
    """Largest resident memory of every rank in GB, by rank."""
    own = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found = {}
    while running.poll() is None:
        try:
            for pid in descendants(running.pid):
                environment = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
                rank = next((int(line[5:]) for line in environment if line.startswith("RANK=")), None)
                lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                most = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
                if rank is not None and most is not None:
                    found[rank] = most * 1024 / 1e9
        except (FileNotFoundError, ProcessLookupError):
            pass  # one ended while it was looked at
        time.sleep(0.05)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)}\n{running.stderr.read()}")
    return found


def main(model, files):
    files = [read(path) for path in files]
    pairs = [pair for pairs in files for pair in pairs][:8]
    print("| `parallel.shard` | checkpoints | rank 0, GB | most of the others, GB |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "pairs.jsonl")
        pathlib.Path(data).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        for name, settings in CASES.items():
            for every in (0, 1):
                output = os.path.join(folder, f"{name.strip('`')}-{every}")
                command = [os.environ.get("SIMPLEMIX", "simplemix"), "train", "--model", model, "--train", data, "--output", output,
                           "--processes", "4", "--max-steps", "2", "--batch-size", "4", "--dtype", "float32", "--save-every-steps", str(every)]
                for setting in ["objective=sft", "tokens.max_length=128", *settings]:
                    command += ["--set", setting]
                found = peaks(command)
                most = max(found[rank] for rank in found if rank)
                print(f"| {name} | {2 if every else 0} | {found[0]:.3f} | {most:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
