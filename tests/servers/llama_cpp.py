"""`simplemix` against llama.cpp's own server, by its Python package: chat, completions, log-probabilities, seeds, resume.

An optional check, not part of `cargo test`, since the package is built from source. Python 3.11, llama-cpp-python 0.3.16
with its server. Usage, from the repository's root, after `cargo build -p simplemix-cli`:

    pip install 'llama-cpp-python[server]==0.3.16'
    python tests/servers/llama_cpp.py MODEL.gguf [SIMPLEMIX_BINARY]

MODEL.gguf is SmolLM2-135M-Instruct's, which `cargo xtask fetch` leaves in the cache. Fails by an assertion.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rows(simplemix, folder, candidates):
    """The rows of a file of candidates, scored by length and made pairs of, as JSON."""
    scored, pairs = os.path.join(folder, "s.parquet"), os.path.join(folder, "p.jsonl")
    for args in (["score", "--candidates", candidates, "--scorer", "length:20", "-o", scored, "--overwrite"],
                 ["pair", "--candidates", scored, "--select", "all-gaps", "-o", pairs, "--overwrite"]):
        subprocess.run([simplemix, *args], check=True)
    return [json.loads(line) for line in open(pairs)]


def main():
    model = sys.argv[1]
    simplemix = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else os.path.join("target", "debug", "simplemix"))
    port, key = free_port(), "sk-llama-cpp-test"
    server = subprocess.Popen([sys.executable, "-m", "llama_cpp.server", "--model", model, "--port", str(port), "--n_ctx", "1024",
                               "--logits_all", "true", "--api_key", key, "--model_alias", "smollm2"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(240):
            try:
                request = urllib.request.Request(url + "/models", headers={"authorization": f"Bearer {key}"})
                urllib.request.urlopen(request, timeout=1)
                break
            except OSError:
                assert server.poll() is None, "the server has ended"
                time.sleep(0.5)
        with tempfile.TemporaryDirectory() as folder:
            for form in ["messages", "text"]:
                prompts = os.path.join(folder, f"{form}.jsonl")
                with open(prompts, "w") as file:
                    for i in range(6):
                        question = f"What is {i} + 2?"
                        prompt = [{"role": "user", "content": question}] if form == "messages" else question
                        file.write(json.dumps({"prompt": prompt, "answer": str(i + 2)}) + "\n")
                output = os.path.join(folder, f"{form}.parquet")
                command = [simplemix, "generate", "--server", url, "--prompts", prompts, "--samples", "2", "--temperature", "0.8",
                           "--max-new-tokens", "24", "--concurrency", "2", "--api-key-env", "LLAMA_KEY", "-o", output]
                # Stopped half-way, then gone on with.
                environment = {**os.environ, "LLAMA_KEY": key}
                child = subprocess.Popen(command, env=environment)
                time.sleep(3)
                child.send_signal(signal.SIGINT)
                assert child.wait() in (0, 130)
                report = subprocess.run([*command, "--json"], env=environment, check=True, capture_output=True, text=True).stdout
                report = json.loads(report)
                assert report["candidates"] == 12 and report["tokens"] > 12, report
                pairs = rows(simplemix, folder, output)
                assert all(pair["generator"] == "smollm2" for pair in pairs)
                assert all(pair["logp_chosen"] < 0 and pair["tokens_chosen"] > 0 for pair in pairs)
                print(form, report, f"{len(pairs)} pairs")
            refused = subprocess.run([*command[:-1], os.path.join(folder, "x.parquet")], env={**os.environ, "LLAMA_KEY": "wrong-key"},
                                     capture_output=True, text=True)
            assert refused.returncode == 1 and "401" in refused.stderr and "wrong-key" not in refused.stderr, refused.stderr
            print("refused:", refused.stderr.strip())
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
