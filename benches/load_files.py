"""`simplemix` on files of many short pairs: peak memory and time of mix, verify, convert, inspect, score and pair.

Python 3.11, nothing beside it. Usage, from the repository's root, after `cargo build --release -p simplemix-cli`:

    python benches/load_files.py FOLDER [MILLIONS] [OUT.json]

Two sources of MILLIONS (10) million pairs each, one of JSON lines and one of Parquet, are made in FOLDER and mixed to twice
as many; a pair is a line of 100 bytes. A file of a tenth as many candidates is scored and paired. FOLDER takes about 8 GB for
each 10 million; the files stay, so that a second call measures without making them. What is told of a command is what
the system says of its process: peak resident set, user and system time, wall time.
"""
import hashlib
import json
import os
import subprocess
import sys
import time

BINARY = os.path.abspath(os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix")))
CHUNK = 100_000


def digits(text):
    """Ten digits that look random, the same for the same text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") % 10**10


def pairs(path, name, count):
    """Lines of 100 bytes, each with another prompt."""
    salt = digits(name)
    with open(path + ".new", "w") as file:
        for start in range(0, count, CHUNK):
            file.write("".join(
                '{"prompt":"%s %010d ?","chosen":"yes %010d, so it","rejected":"no %010d it is not"}\n'
                % (name, i, (i * 2654435761 + salt) % 10**10, (i * 40503 + salt) % 10**10)
                for i in range(start, min(start + CHUNK, count))))
    os.rename(path + ".new", path)


def candidates(path, count):
    """Four candidates to each prompt, of different lengths."""
    with open(path + ".new", "w") as file:
        for i in range(count // 4):
            file.write("".join('{"prompt":"question %09d ?","response":"%s","tokens":5,"finish":"stop"}\n'
                               % (i, "word " * (1 + (i * 7 + 3 * k) % 13)) for k in range(4)))
    os.rename(path + ".new", path)


def measured(folder, name, *args):
    """Runs a command in `folder`; its figures."""
    start = time.perf_counter()
    with open(os.path.join(folder, f"{name}.log"), "w") as log:
        child = subprocess.Popen([BINARY, *args], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
    point = {"command": name, "status": os.waitstatus_to_exitcode(status), "seconds": time.perf_counter() - start,
             "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print("{command:<16} exit {status}  {seconds:7.1f} s  {cpu_seconds:7.1f} s of CPU  {peak_mb:7.0f} MB".format(**point), flush=True)
    return point


def main():
    folder = os.path.abspath(sys.argv[1])
    count = int(float(sys.argv[2] if len(sys.argv) > 2 else 10) * 1e6)
    os.makedirs(folder, exist_ok=True)
    made = {name: os.path.join(folder, name) for name in ["off.jsonl", "on.jsonl", "candidates.jsonl"]}
    for name in ["off.jsonl", "on.jsonl"]:
        if not os.path.exists(made[name]):
            pairs(made[name], name.split(".")[0].ljust(3), count)
    if not os.path.exists(made["candidates.jsonl"]):
        candidates(made["candidates.jsonl"], count // 10)
    again = ["--overwrite"]
    points = [
        measured(folder, "convert", "convert", "on.jsonl", "-o", "on.parquet", *again),
        measured(folder, "mix", "mix", "--source", "off=off.jsonl", "--source", "on=on.parquet", "--weights", "off=0.5,on=0.5",
                 "--seed", "1", "-o", "mixed.parquet", "--report", "mixed.json", *again),
        measured(folder, "verify", "mix", "--verify", "mixed.json"),
        measured(folder, "disjoint", "mix", "--source", "off=off.jsonl", "--source", "on=on.parquet", "--weights",
                 "off=0.5,on=0.5", "--prompts", "disjoint", "--seed", "1", "-o", "disjoint.parquet", *again),
        measured(folder, "inspect", "inspect", "mixed.parquet"),
        measured(folder, "distinct", "convert", "mixed.parquet", "--distinct", "-o", "distinct.parquet", *again),
        measured(folder, "convert-back", "convert", "mixed.parquet", "-o", "mixed.jsonl", *again),
        measured(folder, "score", "score", "--candidates", "candidates.jsonl", "--scorer", "length:5", "-o", "scored.parquet", *again),
        measured(folder, "pair", "pair", "--candidates", "scored.parquet", "-o", "paired.parquet", *again),
    ]
    if len(sys.argv) > 3:
        with open(sys.argv[3], "w") as file:
            json.dump({"pairs_of_each_source": count, "points": points}, file, indent=1)
    sys.exit(any(point["status"] for point in points))


if __name__ == "__main__":
    main()
