"""Bytes that two and four processes send an update, by the metric `processes/sent_gb` and by the loopback's own counter.

Usage, from the repository's root:

    SIMPLEMIX=target/debug/simplemix python benches/processes_bytes.py MODEL_FOLDER FILE.jsonl

The program runs in a network namespace of its own (`unshare --user --map-root-user --net`), where nothing else is sent. It trains
once for 2 and once for 12 updates, and the difference of the two is that of 10 updates: what starting, loading and ending send is
left out. The counter has the bytes of all processes, with the headers of TCP and IP, acknowledgements and signs of life; the metric is rank 0's.
"""
import json
import os
import subprocess
import sys
import tempfile

UPDATES = (2, 12)


def inside(model, data, processes, shard, updates):
    """Bytes of the loopback and of the metric, of one run in this namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Not /sys/class/net, which shows the namespace that it was mounted in.
    sent = lambda: int(next(line for line in open("/proc/net/dev") if line.strip().startswith("lo:")).split(":")[1].split()[8])
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "run")
        command = [os.environ["SIMPLEMIX"], "train", "--model", model, "--train", data, "--output", output, "--processes", str(processes),
                   "--max-steps", str(updates), "--batch-size", "4", "--set", "reference.source=computed",
                   "--set", f"parallel.shard={shard}", "--set", "eval.eval_at_end=false"]
        before = sent()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"})
        lines = [json.loads(line) for line in open(os.path.join(output, "metrics.jsonl"))]
        return sent() - before, sum(line["processes/sent_gb"] for line in lines[2:]) * 1e9


def outside(*arguments):
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, __file__, "--inside", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(model, data):
    print("| processes | shard | metric, all ranks, an update | loopback, an update | ratio |\n| --- | --- | --- | --- | --- |")
    for processes in (2, 4):
        for shard in ("none", "optimizer", "all"):
            few, many = (outside(model, data, processes, shard, updates) for updates in UPDATES)
            updates = UPDATES[1] - UPDATES[0]
            wire, metric = (many[0] - few[0]) / updates, processes * many[1] / updates
            print(f"| {processes} | {shard} | {metric:,.0f} | {wire:,.0f} | {wire / metric:.3f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        print(json.dumps(inside(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))))
    else:
        main(*sys.argv[1:])
