"""`simplemix collect --server` with 100,000 prompts against a server of which every fifth answer is a fault of some kind.

Python 3.11, nothing beside it. Usage, from the repository's root, after `cargo build --release -p simplemix-cli`:

    python benches/load_collect.py [OUT.json] [PROMPTS ...] [--killed]

For each number of PROMPTS (10000 50000 100000) two responses to each are collected, once in one go and, for the last number,
once more with a `kill -9` in the middle; with `--killed`, only that. A machine that is busy otherwise needs a longer time limit of
a request, LOAD_TIMEOUT=20 (seconds) in place of 2. The server knows which answers it gave: each sample's right answer names its prompt
and its seed, and faults name nothing or something else. Afterwards each sample stands in the file of candidates once, with the
answer meant for it; the server gave no sample's answer twice, beside those that were under way at the kill; and the client
counted each fault. A second copy of an answer has the id of the first. Faults are drawn from prompt, seed and attempt, never more
than three in a row for one sample.
"""
import asyncio
import collections
import gzip
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

SHARE, SAMPLES, CONCURRENCY, HUGE = 0.2, 2, 128, 17 << 20
TIMEOUT = float(os.environ.get("LOAD_TIMEOUT", 2))
BINARY = os.path.abspath(os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix")))

# Each fault with its weight. The first ones end in a response; after the others the client has to ask again.
ANSWERED = {"null content": 10, "finish length": 10, "gzip": 10, "answer twice": 10, "second answer late": 10}
REPEATED = {"429": 5, "429 with a wait": 5, "500": 10, "502 page": 10, "503": 10, "dropped": 10, "half a body": 10, "stall": 2,
            "page in 200": 10, "error in 200": 10, "no choices": 10, "two choices": 10, "malformed": 10, "huge body": 0.3}
KINDS, WEIGHTS = zip(*(ANSWERED | REPEATED).items())
# How the client counts them.
REASONS = {"429": "status 429", "429 with a wait": "status 429", "500": "status 500", "502 page": "status 502", "503": "status 503",
           "dropped": "connection", "half a body": "connection", "stall": "timeout", "page in 200": "unreadable reply",
           "error in 200": "error 503 in the reply", "no choices": "wrong number of responses", "two choices": "wrong number of responses",
           "malformed": "unreadable reply", "huge body": "reply too large"}


def fault(prompt, seed, attempt):
    """The fault that this attempt meets, if any: a function of its arguments."""
    if attempt >= 3:
        return None
    number = int.from_bytes(hashlib.blake2b(b"%d %d %d" % (prompt, seed, attempt), digest_size=8).digest(), "big") / 2**64
    if number >= SHARE:
        return None
    number *= sum(WEIGHTS) / SHARE
    for kind, weight in zip(KINDS, WEIGHTS):
        number -= weight
        if number < 0:
            return kind
    return KINDS[0]


def text_of(prompt, seed):
    return f"answer to {prompt} with {seed}" + " so" * (seed % 7)


def reply(name, content, finish="stop", choices=1):
    logprobs = {"content": [{"token": "so", "logprob": -0.5, "bytes": None, "top_logprobs": []}] * 4}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}, "logprobs": logprobs}
    return json.dumps({"id": name, "object": "chat.completion", "choices": [choice] * choices,
                       "usage": {"prompt_tokens": 9, "completion_tokens": 4}}).encode()


def http(body, status="200 OK", headers=b"", length=None):
    length = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s" % (status.encode(), length, headers, body)


def error(message, code):
    return json.dumps({"error": {"message": message, "code": code}}).encode()


class Server(asyncio.Protocol):
    attempts = collections.Counter()
    answers = collections.Counter()
    sent = collections.Counter()

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = re.search(rb"content-length: *(\d+)", head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            body, self.buffer = self.buffer[end + 4:whole], self.buffer[whole:]
            self.respond(head, body)

    def respond(self, head, body):
        if head.startswith(b"get /stats"):
            samples = collections.Counter(self.answers.values())
            return self.transport.write(http(json.dumps({"sent": self.sent, "answers": samples}).encode()))
        if head.startswith(b"post /reset"):
            for counter in [self.attempts, self.answers, self.sent]:
                counter.clear()
            return self.transport.write(http(b"{}"))
        prompt, seed = int(re.search(rb"#(\d+)#", body)[1]), int(re.search(rb'"seed":(\d+)', body)[1])
        attempt = self.attempts[prompt, seed]
        self.attempts[prompt, seed] += 1
        kind = None if b"no faults" in body else fault(prompt, seed, attempt)
        self.sent[kind or "right"] += 1
        if kind is None or kind in ANSWERED:
            self.answers[prompt, seed] += 1
        self.send(kind, f"{prompt}-{seed}-{attempt}", text_of(prompt, seed))

    def send(self, kind, name, text):
        write, right = self.transport.write, reply(name, text)
        match kind:
            case None:
                write(http(right))
            case "null content":
                write(http(reply(name, None)))
            case "finish length":
                write(http(reply(name, text, "length")))
            case "gzip":
                write(http(gzip.compress(right, 1), headers=b"content-encoding: gzip\r\n"))
            case "answer twice":
                write(http(right) + http(right))
            case "second answer late":
                write(http(right))
                asyncio.get_running_loop().call_later(0.002, self.late, right)
            case "429":
                write(http(error("slow down", 429), "429 Too Many Requests", b"retry-after: 0\r\n"))
            case "429 with a wait":
                write(http(error("slow down", 429), "429 Too Many Requests", b"retry-after-ms: 10\r\n"))
            case "500":
                write(http(error("CUDA out of memory", 500), "500 Internal Server Error"))
            case "502 page":
                write(http(b"<html><body><h1>502 Bad Gateway</h1></body></html>", "502 Bad Gateway"))
            case "503":
                write(http(b"", "503 Service Unavailable"))
            case "dropped":
                self.transport.abort()
            case "half a body":
                write(http(right[:len(right) // 2], length=len(right)))
                self.transport.close()
            case "stall":
                asyncio.get_running_loop().call_later(TIMEOUT * 1.5, self.late, right)
            case "page in 200":
                write(http(b"<!doctype html><title>Sign in</title>"))
            case "error in 200":
                write(http(error("the model is overloaded", 503)))
            case "no choices":
                write(http(b'{"choices": []}'))
            case "two choices":
                write(http(reply(name, text, choices=2)))
            case "malformed":
                write(http(right.replace(b'"choices": [', b'"choices": [,')))
            case "huge body":
                write(http(b'{"choices": [' + b"0," * (HUGE // 2)))

    def late(self, right):
        if not self.transport.is_closing():
            self.transport.write(http(right))


async def serve():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def asked(url, path, method="GET"):
    request = urllib.request.Request(url.removesuffix("/v1") + path, method=method, data=b"{}" if method == "POST" else None)
    return json.load(urllib.request.urlopen(request))


async def limit(port, seconds=5):
    """Answers a second of the server to a client that does nothing else."""
    body = b'{"no faults": 1, "seed":7, "prompt": "#1#"}'
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    ends, count = time.perf_counter() + seconds, 0

    async def one():
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < ends:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            count += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(64)))
    return count / seconds


def collect(folder, url, kill_after=None):
    """Runs the command; its exit status and what the system says of it."""
    command = [BINARY, "collect", "--server", url, "--server-model", "mock", "--prompts", "prompts.jsonl", "--samples", str(SAMPLES),
               "--max-new-tokens", "16", "--concurrency", str(CONCURRENCY), "--timeout", str(TIMEOUT), "--scorer", "digit-share",
               "--on-refused", "skip", "-o", "on.parquet", "--json"]
    start = time.perf_counter()
    with open(os.path.join(folder, "stdout"), "w") as out, open(os.path.join(folder, "stderr"), "w") as err:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        if kill_after:
            journal = os.path.join(folder, ".on.candidates.parquet.partial")
            while not (os.path.exists(journal) and os.path.getsize(journal) > kill_after):
                assert child.poll() is None, "ended before the kill"
                time.sleep(0.05)
            child.send_signal(signal.SIGKILL)
        _, status, used = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in ([-9] if kill_after else [0]), (code, open(os.path.join(folder, "stderr")).read()[-2000:])
    return time.perf_counter() - start, used


def check(folder, prompts, stats, kills):
    """What the file of candidates holds, against what the server gave."""
    subprocess.run([BINARY, "score", "--candidates", "on.candidates.parquet", "--scorer", "digit-share", "-o", "all.jsonl"],
                   cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found, null = collections.Counter(), 0
    with open(os.path.join(folder, "all.jsonl")) as rows:
        for row in map(json.loads, rows):
            number = int(row["prompt_id"])
            found[number] += 1
            null += row["response"] is None
            assert row["response"] in (None, text_of(number, row["seed"])), row
    assert len(found) == prompts and set(found.values()) == {SAMPLES}, "each sample once"
    assert null <= stats["sent"].get("null content", 0)
    report = json.load(open(os.path.join(folder, "stdout")))["generate"]
    # Where the copy of an earlier answer came first, or a busy machine took longer than the time limit, the right one was not taken.
    not_taken = sum(report["failed"].get(reason, 0) for reason in ["repeated reply", "timeout"])
    twice = sum(count * (int(times) - 1) for times, count in stats["answers"].items())
    assert twice <= kills * CONCURRENCY + not_taken, f"{twice} samples were answered twice"
    expected = collections.Counter()
    for kind, count in stats["sent"].items():
        if kind in REASONS:
            expected[REASONS[kind]] += count
    return {"candidates": sum(found.values()), "without_text": null, "answered_twice": twice, "failed_by_client": report["failed"],
            "failed_by_server": dict(expected)}


def point(url, prompts, kill):
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        with open(os.path.join(folder, "prompts.jsonl"), "w") as file:
            for i in range(prompts):
                file.write(json.dumps({"id": str(i), "prompt": [{"role": "user", "content": f"Question #{i}#?"}]}) + "\n")
        asked(url, "/reset", "POST")
        peaks, seconds = [], 0
        if kill:
            took, used = collect(folder, url, kill_after=prompts * SAMPLES * 75)
            peaks, seconds = [used.ru_maxrss / 1024], took
        took, used = collect(folder, url)
        seconds += took
        stats = asked(url, "/stats")
        peaks.append(used.ru_maxrss / 1024)
        requests = sum(stats["sent"].values())
        return {"prompts": prompts, "killed": kill, "seconds": seconds, "requests": requests, "requests_per_second": requests / seconds,
                "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": peaks, "sent": stats["sent"], **check(folder, prompts, stats, int(kill))}


def main():
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    words = [word for word in sys.argv[1:] if word != "--killed"]
    out = words[0] if words else None
    sizes = [int(size) for size in words[1:]] or [10_000, 50_000, 100_000]
    whole = [] if "--killed" in sys.argv else sizes
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        url = f"http://127.0.0.1:{port}/v1"
        result = {"share": SHARE, "concurrency": CONCURRENCY, "limit": asyncio.run(limit(port)), "points": []}
        print(f"the server alone: {result['limit']:.0f} answers a second", flush=True)
        for size, kill in [(size, False) for size in whole] + [(sizes[-1], True)]:
            result["points"].append(of_size := point(url, size, kill))
            print("{prompts} prompts{}: {seconds:.1f} s, {requests} requests, {requests_per_second:.0f}/s, {cpu_seconds:.1f} s of CPU, peak MB {}"
                  .format(", killed" if kill else "", [round(peak) for peak in of_size["peak_mb"]], **of_size), flush=True)
            print("   ", {key: of_size[key] for key in ["candidates", "without_text", "answered_twice"]})
            for reason in sorted(of_size["failed_by_server"] | of_size["failed_by_client"]):
                counts = [of_size[key].get(reason, 0) for key in ["failed_by_server", "failed_by_client"]]
                print("    {:<26} sent {:>6}, counted {:>6}".format(reason, *counts), flush=True)
    finally:
        server.terminate()
    if out:
        json.dump(result, open(out, "w"), indent=1)


if __name__ == "__main__":
    main()
