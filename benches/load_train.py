"""`simplemix train` over 50,000 tiny updates: memory, descriptors, files and time per update, sampled over the run.

Linux, Python 3.11, nothing beside it. Usage, from the repository's root, after `cargo build --release -p simplemix-cli`:

    python benches/load_train.py [OUT.json] [UPDATES]

A Llama of one layer, 16 wide, learns 64 pairs on one thread, with a checkpoint and an evaluation each 500 updates and TensorBoard's
events. Samples are taken from /proc each 1/50 of the run, by the lines of metrics.jsonl. Then the finished run is resumed,
for 10 more updates.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(os.environ.get("SIMPLEMIX", os.path.join("target", "release", "simplemix")))
WIDTH, INNER, VOCABULARY, SAMPLES = 16, 32, 257, 50


def symbols():
    """GPT-2's printable characters for bytes."""
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte if byte in printable else 0x100 + rest.index(byte)): byte for byte in range(256)}


def model(folder):
    """A Llama with random weights and a tokenizer of bytes."""
    os.makedirs(folder)
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": [VOCABULARY, WIDTH], "model.norm.weight": [WIDTH], layer + "input_layernorm.weight": [WIDTH],
              layer + "post_attention_layernorm.weight": [WIDTH], layer + "mlp.gate_proj.weight": [INNER, WIDTH],
              layer + "mlp.up_proj.weight": [INNER, WIDTH], layer + "mlp.down_proj.weight": [WIDTH, INNER],
              **{layer + f"self_attn.{name}_proj.weight": [WIDTH, WIDTH] for name in "qkvo"}}
    noise, head, data = random.Random(1), {}, b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if len(shape) == 1 else [noise.gauss(0, 0.1) for _ in range(count)]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *values)
    text = json.dumps(head).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    special = {"id": 256, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    files = {
        "config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH,
                        "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                        "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
                        "max_position_embeddings": 256, "hidden_act": "silu", "bos_token_id": 256, "eos_token_id": 256,
                        "pad_token_id": 256, "torch_dtype": "float32"},
        "tokenizer.json": {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None,
                           "pre_tokenizer": bytes_of, "post_processor": None, "decoder": bytes_of,
                           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                                     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                                     "vocab": symbols(), "merges": []}},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|end|>"},
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file)


def pairs(path, count, start):
    with open(path, "w") as file:
        for i in range(start, start + count):
            file.write(json.dumps({"prompt": f"{i}?", "chosen": f" yes {i}", "rejected": f" no {i}", "source": ["off", "on"][i % 2]}) + "\n")


def sample(pid, folder):
    """What the system says of the process, and what lies in the run's folder."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    growing = [path for path in files if os.path.basename(path) == "metrics.jsonl" or ".tfevents." in path]
    size = 0
    for path in set(files) - set(growing):
        try:
            size += os.path.getsize(path)
        except FileNotFoundError:
            pass
    metrics = os.path.join(folder, "metrics.jsonl")
    return {"rss_kb": int(fields["VmRSS"].split()[0]), "anonymous_kb": int(fields["RssAnon"].split()[0]),
            "threads": int(fields["Threads"]), "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "files": len(files),
            "bytes_beside_metrics": size, "metrics_bytes": os.path.getsize(metrics)}


def updates_in(path, read):
    """Adds the updates of the new lines of metrics.jsonl to `read`, a place and a number."""
    try:
        with open(path, "rb") as file:
            file.seek(read["place"])
            text = file.read()
    except FileNotFoundError:
        return
    whole = text.rfind(b"\n") + 1
    read["place"] += whole
    lines = text[:whole].splitlines()
    if lines:
        read["updates"] = json.loads(lines[-1])["step"]


def started(work, log, updates, *flags):
    command = [BINARY, "train", "--config", "run.toml", "--set", f"max_steps={updates}", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=work, stdout=log, stderr=log, env=environment)


def run(work, updates):
    """Trains, and samples each 1/50 of the run."""
    folder, samples, read = os.path.join(work, "run"), [], {"place": 0, "updates": 0}
    start = time.perf_counter()
    with open(os.path.join(work, "log"), "w") as log:
        child = started(work, log, updates)
        while child.poll() is None:
            updates_in(os.path.join(folder, "metrics.jsonl"), read)
            if read["updates"] * SAMPLES >= (len(samples) + 1) * updates:
                try:
                    found = sample(child.pid, folder)
                except (FileNotFoundError, ProcessLookupError, KeyError):
                    continue
                samples.append({"updates": read["updates"], "seconds": time.perf_counter() - start, **found})
                if len(samples) % 5 == 0:
                    print("{updates:>6} updates {seconds:7.1f} s  {rss_kb:>7} kB  {descriptors} descriptors  {threads} threads  {files} files"
                          .format(**samples[-1]), flush=True)
            time.sleep(0.02)
    assert child.returncode == 0, open(os.path.join(work, "log")).read()[-3000:]
    return samples, time.perf_counter() - start


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else None
    updates = int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    with tempfile.TemporaryDirectory() as work:
        model(os.path.join(work, "model"))
        pairs(os.path.join(work, "pairs.jsonl"), 64, 0)
        pairs(os.path.join(work, "held-out.jsonl"), 8, 64)
        with open(os.path.join(work, "run.toml"), "w") as file:
            file.write('model = "model"\ntrain = "pairs.jsonl"\noutput = "run"\nloss.beta = 0.1\noptimizer.learning_rate = 1e-4\n'
                       'batch.batch_size = 2\neval.files = "held-out.jsonl"\neval.eval_every_steps = 500\ncheckpoint.save_every_steps = 500\n'
                       'checkpoint.keep = 2\nlog.tensorboard = true\n')
        samples, seconds = run(work, updates)
        start = time.perf_counter()
        with open(os.path.join(work, "log"), "a") as log:
            assert started(work, log, updates + 10, "--resume").wait() == 0
        resumed = time.perf_counter() - start
        page = os.path.getsize(os.path.join(work, "run", "report.html"))
    early, late = samples[SAMPLES // 10 - 1], samples[-1]
    tenth = [samples[at + SAMPLES // 10]["seconds"] - samples[at]["seconds"] for at in (0, SAMPLES - SAMPLES // 10 - 1)]
    per_update = [1e3 * time_of / (updates / 10) for time_of in tenth]
    growth = late["rss_kb"] / early["rss_kb"] - 1
    print(f"{updates} updates in {seconds:.1f} s; resident {early['rss_kb'] / 1e3:.1f} MB after {early['updates']}, {late['rss_kb'] / 1e3:.1f} MB "
          f"after {late['updates']}: {100 * growth:+.1f} %; {per_update[0]:.2f} ms an update early, {per_update[1]:.2f} late; "
          f"10 more after --resume: {resumed:.1f} s in all; report.html {page / 1e3:.0f} kB")
    if out:
        with open(out, "w") as file:
            json.dump({"updates": updates, "seconds": seconds, "resident_growth": growth, "ms_per_update": per_update,
                       "resume_seconds": resumed, "report_bytes": page, "samples": samples}, file, indent=1)


if __name__ == "__main__":
    main()
