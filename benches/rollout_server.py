"""`simplemix generate --server` against a server that answers 1,000 requests a second: share of a core, and memory.

Python 3.11, nothing beside it. Usage, from the repository's root, after `cargo build --release -p simplemix-cli`:

    python benches/rollout_server.py [OUT.json] [REQUESTS ...]

The server is a process of its own that gives its n-th answer no earlier than n milliseconds after the first, each 50 ms
after its request at least, with 128 tokens of text and their log-probabilities. What is told of the client is what the
system says of its process: user and system time over the wall's, and the peak resident set.
"""
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

RATE, LATENCY, CONCURRENCY, SAMPLES = 1000, 0.05, 128, 4
BINARY = os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix"))


async def serve():
    text = "word " * 128
    logprobs = [{"token": "word ", "logprob": -0.5, "bytes": None, "top_logprobs": []}] * 128
    body = json.dumps({"id": "x", "object": "chat.completion", "choices": [{
        "index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": text},
        "logprobs": {"content": logprobs}}], "usage": {"prompt_tokens": 100, "completion_tokens": 128}}).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    state = {"next": 0.0}

    async def connection(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(length)
                now = time.perf_counter()
                due = max(state["next"], now)
                state["next"] = due + 1 / RATE
                await asyncio.sleep(max(due, now + LATENCY) - now)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def point(url, requests):
    with tempfile.TemporaryDirectory() as folder:
        prompts = os.path.join(folder, "prompts.jsonl")
        with open(prompts, "w") as file:
            for i in range(requests // SAMPLES):
                question = f"Question {i}: " + "how many are there of these things in all? " * 8
                file.write(json.dumps({"prompt": [{"role": "user", "content": question}]}) + "\n")
        command = [BINARY, "generate", "--server", url, "--server-model", "mock", "--prompts", prompts, "--samples", str(SAMPLES),
                   "--max-new-tokens", "128", "--concurrency", str(CONCURRENCY), "-o", os.path.join(folder, "c.parquet")]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        assert status == 0, status
        return {"requests": requests, "seconds": seconds, "requests_per_second": requests / seconds,
                "cores": (used.ru_utime + used.ru_stime) / seconds, "peak_mb": used.ru_maxrss / 1024}


def main():
    if sys.argv[1:] == ["--serve"]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        asyncio.run(serve())
    out = sys.argv[1] if len(sys.argv) > 1 else None
    sizes = [int(size) for size in sys.argv[2:]] or [10_000, 40_000]
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        points = [point(url, size) for size in sizes]
    finally:
        server.terminate()
    for of_size in points:
        print("{requests} requests: {seconds:.1f} s, {requests_per_second:.0f}/s, {cores:.2f} cores, {peak_mb:.0f} MB".format(**of_size))
    if out:
        json.dump({"rate": RATE, "latency": LATENCY, "concurrency": CONCURRENCY, "points": points}, open(out, "w"), indent=1)


if __name__ == "__main__":
    main()
