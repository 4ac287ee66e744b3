"""What `simplemix train --dry-run` expects at its peak, from config.json alone, beside what the run then takes.

Python 3.11 with numpy. Usage, from the repository's root:

    SIMPLEMIX=target/release/simplemix python benches/dry_run_memory.py [CASE..]

Each case makes a model of its shape with random weights, and pairs of its lengths; a token is a byte. The run is two updates
long. The peak is that of the whole process (`ru_maxrss`).
"""
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy

BODY = dict(vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
            num_key_value_heads=4)
WIDE = dict(vocab_size=100_000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4)
HALF = dict(vocab_size=60_000, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2)
GEMMA = dict(model_type="gemma4_text", architectures=["Gemma4ForCausalLM"], vocab_size=8192, hidden_size=512, intermediate_size=1024,
             num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=1, head_dim=128, global_head_dim=256, sliding_window=64,
             layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2, num_kv_shared_layers=3,
             use_double_wide_mlp=True, hidden_size_per_layer_input=128, vocab_size_per_layer_input=8192, final_logit_softcapping=30.0)
MIDDLE = (12, (100, 120, 110))  # pairs, tokens of prompt, chosen, rejected
# Name: shape, pairs and their lengths, settings.
CASES = {
    "full f32": (BODY, MIDDLE, []),
    "full f32, 2048 tokens": (BODY, (24, (100, 120, 110)), ["batch.micro_batch_tokens=2048", "batch.batch_size=8"]),
    "untied head": (BODY | dict(tie_word_embeddings=False, vocab_size=16384), MIDDLE, []),
    "as many key heads": (BODY | dict(num_key_value_heads=8), MIDDLE, []),
    "checkpointing": (BODY, MIDDLE, ["memory.activation_checkpointing=true"]),
    "LoRA": (BODY, MIDDLE, ["lora.rank=16"]),
    "LoRA on q and v, dropout": (BODY, MIDDLE, ["lora.rank=16", "lora.targets=['q_proj','v_proj']", "lora.dropout=0.1"]),
    "LoRA, checkpointing": (BODY, MIDDLE, ["lora.rank=16", "memory.activation_checkpointing=true"]),
    "LoRA, 8 bits": (BODY, MIDDLE, ["lora.rank=16", "quantization.load_in='8bit'"]),
    "LoRA, 4 bits": (BODY, MIDDLE, ["lora.rank=16", "quantization.load_in='4bit'"]),
    "long pairs": (BODY, (4, (600, 900, 500)), ["batch.batch_size=1", "tokens.max_length=2048"]),
    "many short pairs": (BODY, (192, (8, 10, 9)), ["batch.batch_size=64"]),
    "prompts apart": (BODY, MIDDLE, ["memory.share_prompts=false"]),
    "large vocabulary": (WIDE, MIDDLE, []),
    "large vocabulary, untied": (WIDE | dict(tie_word_embeddings=False), MIDDLE, ["memory.logits_bytes=67108864"]),
    "second model": (BODY, MIDDLE, ["reference.source='on-the-fly'"]),
    "SFT": (BODY, MIDDLE, ["objective='sft'"]),
    "reward": (BODY, MIDDLE, ["objective='reward'"]),
    "HyPO": (BODY, MIDDLE, ["hypo.lambda=0.001", "hypo.max_new_tokens=64", "hypo.prompts=2"]),
    "Gemma 4": (GEMMA, MIDDLE, []),
    "Gemma 4, checkpointing": (GEMMA, MIDDLE, ["memory.activation_checkpointing=true"]),
    "Gemma 4, LoRA": (GEMMA, MIDDLE, ["lora.rank=16"]),
    "full bf16": (HALF, (6, (20, 24, 20)), ["dtype='bfloat16'", "batch.batch_size=2"]),
    "LoRA bf16": (HALF, (6, (20, 24, 20)), ["dtype='bfloat16'", "batch.batch_size=2", "lora.rank=8"]),
}
TOKENS = 256


def config(shape):
    base = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5,
                rope_theta=10000.0, tie_word_embeddings=True, max_position_embeddings=4096, torch_dtype="float32")
    if "model_type" in shape:
        base = {key: base[key] for key in ("rms_norm_eps", "tie_word_embeddings", "max_position_embeddings", "torch_dtype")}
    return base | shape


def tensors_of_gemma(c):
    h, v, layers, p = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"], c["hidden_size_per_layer_input"]
    yield "model.embed_tokens.weight", (v, h)
    yield "model.embed_tokens_per_layer.weight", (v, layers * p)
    yield "model.per_layer_model_projection.weight", (layers * p, h)
    yield "model.per_layer_projection_norm.weight", (p,)
    for i, kind in enumerate(c["layer_types"]):
        at, is_shared = f"model.layers.{i}", i >= layers - c["num_kv_shared_layers"]
        d = c["global_head_dim"] if kind == "full_attention" else c["head_dim"]
        q, kv, f = c["num_attention_heads"] * d, c["num_key_value_heads"] * d, c["intermediate_size"] * (1 + is_shared)
        own = [] if is_shared else [("self_attn.k_proj", (kv, h)), ("self_attn.v_proj", (kv, h)), ("self_attn.k_norm", (d,))]
        for name, size in [("self_attn.q_proj", (q, h)), ("self_attn.q_norm", (d,)), ("self_attn.o_proj", (h, q)), *own,
                           ("mlp.gate_proj", (f, h)), ("mlp.up_proj", (f, h)), ("mlp.down_proj", (h, f)),
                           ("per_layer_input_gate", (p, h)), ("per_layer_projection", (h, p)),
                           *[(f"{norm}norm", (h,)) for norm in ("input_layer", "post_attention_layer", "pre_feedforward_layer",
                                                                "post_feedforward_layer", "post_per_layer_input_")]]:
            yield f"{at}.{name}.weight", size
        yield f"{at}.layer_scalar", (1,)
    yield "model.norm.weight", (h,)


def tensors(c):
    if c["model_type"] == "gemma4_text":
        yield from tensors_of_gemma(c)
        return
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = h // c["num_attention_heads"] * c["num_key_value_heads"]
    yield "model.embed_tokens.weight", (v, h)
    for i in range(c["num_hidden_layers"]):
        for name, size in [("self_attn.q_proj", (h, h)), ("self_attn.k_proj", (kv, h)), ("self_attn.v_proj", (kv, h)),
                           ("self_attn.o_proj", (h, h)), ("mlp.gate_proj", (f, h)), ("mlp.up_proj", (f, h)),
                           ("mlp.down_proj", (h, f)), ("input_layernorm", (h,)), ("post_attention_layernorm", (h,))]:
            yield f"model.layers.{i}.{name}.weight", size
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (v, h)


def write_model(folder, shape):
    folder.mkdir()
    c = config(shape)
    (folder / "config.json").write_text(json.dumps(c))
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    symbol = {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=False, byte_fallback=False, vocab={symbol[b]: b for b in range(256)}, merges=[])
    end = dict(id=TOKENS, content="<end>", single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=[end], normalizer=None, pre_tokenizer=level,
        post_processor=None, decoder=level, model=model)))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", eos_token="<end>", pad_token="<end>", model_max_length=4096)))
    header, at, sizes = {}, 0, list(tensors(c))
    for name, size in sizes:
        length = 4 * int(numpy.prod(size))
        header[name] = dict(dtype="F32", shape=size, data_offsets=[at, at + length])
        at += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = numpy.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, size in sizes:
            values = numpy.ones(size) if name.endswith(("norm.weight", "layer_scalar")) else random.normal(0, 0.02, size)
            out.write(values.astype("<f4").tobytes())


def write_pairs(path, count, lengths):
    def text(i, kind, length):  # A token is a byte; the end of a response is one more.
        return (f"{kind}{i:04d} " + "words and more words " * (length // 10))[:length]
    rows = [dict(zip(("prompt", "chosen", "rejected"), (text(i, kind, n) for kind, n in zip("pcr", lengths))))
            for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(command, folder):
    env = os.environ | dict(SIMPLEMIX_CACHE=str(folder / "cache"))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    said = process.stdout.read()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{errors}")
    return said, usage.ru_maxrss * 1024


def make(folder, shape, count, lengths):
    write_model(folder / "model", shape)
    write_pairs(folder / "pairs.jsonl", count, lengths)


def case(name):
    shape, (count, lengths), settings = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # In a process of its own: the largest resident set of a program counts what its parent had when it was started.
        maker = multiprocessing.Process(target=make, args=(folder, shape, count, lengths))
        maker.start()
        maker.join()
        command = [os.environ.get("SIMPLEMIX", "simplemix"), "train", "--model", str(folder / "model"), "--train",
                   str(folder / "pairs.jsonl"), "--output", str(folder / "run"), "--max-steps", "2",
                   "--batch-size", "4", "--learning-rate", "1e-4"]
        for setting in settings:
            command += ["--set", setting]
        if any(setting.startswith("batch.batch_size") for setting in settings):
            at = command.index("--batch-size")
            del command[at:at + 2]
        said, dry = run([*command, "--dry-run"], folder)
        expected = float(re.search(r"expected peak memory ([0-9.]+) GB", said)[1])
        _, taken = run(command, folder)
    return said, expected, taken / 1e9, dry / 1e6


if __name__ == "__main__":
    print(f"{'case':<26} {'estimated':>9} {'measured':>9} {'ratio':>6} {'dry run':>9}")
    for name in sys.argv[1:] or CASES:
        said, expected, taken, dry = case(name)
        if os.environ.get("VERBOSE"):
            print(said)
        print(f"{name:<26} {expected:>6.2f} GB {taken:>6.2f} GB {expected / taken:>6.3f} {dry:>6.0f} MB", flush=True)
