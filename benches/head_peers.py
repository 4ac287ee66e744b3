"""The output head with its loss: simplemix-loss, TRL's own kernel and full logits, in turn, on this machine's CPU.

Python 3.11, torch 2.11.0, trl 1.16.0. Usage, from the repository's root, after `cargo xtask setup`:

    python benches/head_peers.py [OUT.json]

Each point runs in processes of its own: ours (an example of simplemix-loss), TRL 1.16's ChunkedLogProbFunction as
DPOTrainer sets it up, and TRL's older path (full logits, selective_log_softmax), one after the other, ROUNDS times. Times are
medians over all rounds; memory is the peak resident set above what was resident before, gradients included there.
"""
import json
import os
import statistics
import subprocess
import sys
import time

TURNS = 2
POINTS = [  # vocabulary, width, rows
    (49152, 576, 512),
    (49152, 576, 2048),
    (151936, 896, 512),
    (49152, 576, 8192),
]
BUDGET = 256 << 20
MEMORY = 20e9  # full logits hold three buffers of N * V floats


def child(way, vocab, width, rows, rounds):
    """One way in this process, as examples/head_point.rs does it."""
    import torch
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE, selective_log_softmax

    torch.manual_seed(0)
    head = torch.randn(vocab, width).mul_(0.02).requires_grad_(not way.endswith("frozen"))
    hidden = torch.randn(rows, width, requires_grad=True)
    responses = max(rows // 256, 2)
    targets = torch.randint(vocab, (rows,))
    owners = torch.arange(rows) // (rows // responses)

    def step():
        if way.startswith("trl"):
            outputs = ("log_probs", "entropy", "mean_logits", "is_top1")  # what DPOTrainer asks for
            args = (head, None, targets, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, outputs)
            token_logps = ChunkedLogProbFunction.apply(hidden, *args)[0]
        else:
            token_logps = selective_log_softmax(hidden @ head.T, targets)
        logps = torch.zeros(responses).index_add(0, owners, token_logps)
        torch.nn.functional.softplus(-0.1 * (logps[0::2] - logps[1::2])).sum().backward()

    def memory(name):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

    step()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before, seconds = memory("VmRSS"), []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "extra_bytes": memory("VmHWM") - before}))


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    ours = os.environ.get("HEAD_POINT")  # a built one
    if not ours:
        subprocess.run(["cargo", "build", "--release", "-p", "simplemix-loss", "--example", "head_point"], check=True)
        ours = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "examples", "head_point")
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, CPU, f32",
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "command": "python benches/head_peers.py",
        "points": [],
    }
    for vocab, width, rows in POINTS:
        size, rounds = (vocab, width, rows), 3 if rows * vocab < 1e8 else 1
        ways = {
            "bare products": [ours, "matmul", *size, rounds, BUDGET],
            "simplemix frozen": [ours, "frozen", *size, rounds, BUDGET],
            "simplemix trained": [ours, "trained", *size, rounds, BUDGET],
            "simplemix frozen, TRL's statistics": [ours, "frozen+stats", *size, rounds, BUDGET],
            "simplemix trained, TRL's statistics": [ours, "trained+stats", *size, rounds, BUDGET],
            "trl kernel frozen": [sys.executable, __file__, "--child", "trl frozen", *size, rounds],
            "trl kernel trained": [sys.executable, __file__, "--child", "trl trained", *size, rounds],
        }
        if 3 * 4 * rows * vocab < MEMORY:
            ways["full logits trained"] = [sys.executable, __file__, "--child", "naive trained", *size, rounds]
        found = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, command in ways.items():
                found[name].append(run(command))
        medians = {name: statistics.median(s for turn in turns for s in turn["seconds"]) for name, turns in found.items()}
        extra = {name: max(turn["extra_bytes"] for turn in turns) for name, turns in found.items()}
        print(f"\nV={vocab} H={width} N={rows}" + " " * 22 + "seconds   over 2 products   extra MB")
        for name in ways:
            over = medians[name] / medians["bare products"]
            print(f"  {name:<36}{medians[name]:>14.3f}{over:>16.2f}{extra[name] / 1e6:>13.0f}", flush=True)
        for head in ("frozen", "trained"):
            ratio = medians[f"trl kernel {head}"] / medians[f"simplemix {head}, TRL's statistics"]
            print(f"  {head}, statistics and all: {ratio:.2f} times as fast as TRL's kernel")
        if "full logits trained" in medians:
            print(f"  trained: {medians['full logits trained'] / medians['simplemix trained']:.2f} times as fast as full logits")
        result["points"].append({"vocab": vocab, "width": width, "rows": rows, "budget": BUDGET,
                                 "median_seconds": medians, "extra_bytes": extra})
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], *map(int, sys.argv[3:7]))
    else:
        main()
