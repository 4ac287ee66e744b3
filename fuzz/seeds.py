"""Writes small valid inputs for the fuzzers into fuzz/corpus. Needs pyarrow 25 (any recent one will do).

python fuzz/seeds.py
"""

import gzip
import json
import math
import pathlib
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent
golden = here.parent / "tests" / "golden"
corpus = here / "corpus"
targets = ["adapter", "checkpoint", "config", "gguf", "grammar", "hh", "journal", "jsonl", "parquet", "receipt", "server",
           "template", "tokenizer", "trl"]
for name in targets:
    (corpus / name).mkdir(parents=True, exist_ok=True)

turn = lambda role, content: {"role": role, "content": content}
rows = {
    "text": {"prompt": "2 + 2?", "chosen": " 4", "rejected": " 5"},
    "turns": {"prompt": [turn("user", "q")], "chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]},
    "implicit": {"chosen": "Q? Yes, so", "rejected": "Q? No, never"},
    "ranked": {"prompt": "q", "responses": [{"text": "a", "rank": 0}, {"text": "b", "rank": 1}]},
    "hh": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    "scores": {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1.5, "score_rejected": None},
}
for name, row in rows.items():
    text = json.dumps(row).encode()
    (corpus / "jsonl" / f"{name}.jsonl").write_bytes(text + b"\n" + text)
    (corpus / "jsonl" / f"{name}.json").write_bytes(b"[" + text + b"," + text + b"]")
    (corpus / "jsonl" / f"{name}.gz").write_bytes(gzip.compress(text))
    table = pa.Table.from_pylist([row] * 3)
    for codec in ["none", "snappy", "zstd"]:
        pq.write_table(table, corpus / "parquet" / f"{name}-{codec}.parquet", compression=codec)
    for codec in [None, "lz4", "zstd"]:
        options = pa.ipc.IpcWriteOptions(compression=codec)
        for kind, new in [("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)]:
            place = corpus / "parquet" / f"{name}-{codec}-{kind}.arrow"
            with pa.OSFile(str(place), "wb") as file, new(file, table.schema, options=options) as out:
                out.write_table(table)
for name, template in json.loads((golden / "data_templates.json").read_text())["templates"].items():
    (corpus / "template" / f"{name}.jinja").write_text(template["template"])
(corpus / "hh" / "one").write_bytes(rows["hh"]["chosen"].encode() + rows["hh"]["rejected"].encode())

# A model of one layer and four weights wide, for every family that the tiny shape suits.
wide, layer = 4, "model.layers.0."
shapes = {"model.embed_tokens.weight": [8, wide], "model.norm.weight": [wide]}
shapes |= {f"{layer}{name}.weight": [wide] for name in ["input_layernorm", "post_attention_layernorm"]}
shapes |= {f"{layer}self_attn.{name}_proj.weight": [wide, wide] for name in "qkvo"}
shapes |= {f"{layer}mlp.{name}_proj.weight": [wide, wide] for name in ["gate", "up", "down"]}
biases = {f"{layer}self_attn.{name}_proj.bias": [wide] for name in "qkv"}
norms = {f"{layer}self_attn.{name}_norm.weight": [wide] for name in "qk"}
config = {"vocab_size": 8, "hidden_size": wide, "intermediate_size": wide, "num_hidden_layers": 1,
          "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": wide, "rms_norm_eps": 1e-6,
          "rope_theta": 10000.0, "max_position_embeddings": 32, "tie_word_embeddings": True, "hidden_act": "silu"}
scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 16}
for name, family, more, extra in [
    ("llama", "llama", {}, {}),
    ("llama3", "llama", {"rope_scaling": scaling}, {}),
    ("mistral", "mistral", {"sliding_window": 8}, {}),
    ("qwen2", "qwen2", {}, biases),
    ("qwen3", "qwen3", {}, norms),
]:
    header, data = {}, b""
    for tensor, shape in (shapes | extra).items():
        count = 1
        for size in shape:
            count *= size
        header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += b"\0\0\x80\x3e" * count
    text = json.dumps(header).encode()
    settings = json.dumps(config | {"model_type": family} | more).encode()
    seed = settings + b"\0" + len(text).to_bytes(8, "little") + text + data
    (corpus / "checkpoint" / name).write_bytes(seed)
    (corpus / "config" / name).write_bytes(settings)
    if name == "llama":
        # The model that adapters are loaded into.
        (here / "base.seed").write_bytes(seed)
for number, case in enumerate(json.loads((golden / "model_configs.json").read_text())):
    (corpus / "config" / f"golden-{number}").write_text(json.dumps(case["config"]))

# An adapter of rank 1 for that model.
names = [f"{layer}self_attn.{name}_proj" for name in "qv"]
header, data = {}, b""
for name in names:
    for part, shape in [("A", [1, wide]), ("B", [wide, 1])]:
        place = [len(data), len(data) + 4 * wide]
        header[f"base_model.model.{name}.lora_{part}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": place}
        data += b"\0\0\x80\x3e" * wide
text = json.dumps(header).encode()
weights = len(text).to_bytes(8, "little") + text + data
peft = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"],
        "bias": "none", "use_rslora": False, "fan_in_fan_out": False, "init_lora_weights": True}
for name, more in [("plain", {}), ("rslora", {"use_rslora": True}), ("all", {"target_modules": "all-linear"})]:
    (corpus / "adapter" / name).write_bytes(json.dumps(peft | more).encode() + b"\0" + weights)

# Tokenizers: of bytes, of pieces, and small ones of the other models.
for place in [golden / "data_tokenizers" / "bytes.json", golden / "data_tokenizers" / "pieces.json"]:
    (corpus / "tokenizer" / place.name).write_bytes(place.read_bytes())
vocabulary = {"a": 0, "b": 1, "ab": 2, "[UNK]": 3, " ": 4}
models = {
    "bpe": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]], "unk_token": "[UNK]"},
    "pieces": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100},
    "words": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    "unigram": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]],
                "byte_fallback": False},
}
normalizers = {
    "bpe": {"type": "NFC"}, "pieces": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                       "strip_accents": None, "lowercase": True},
    "words": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": " +"}, "content": " "},
                                                  {"type": "Prepend", "prepend": "a"}, {"type": "Lowercase"}]},
    "unigram": {"type": "Strip", "strip_left": True, "strip_right": True},
}
pre_tokenizers = {
    "bpe": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "pieces": {"type": "BertPreTokenizer"}, "words": {"type": "Split", "pattern": {"Regex": "\\s+"},
                                                      "behavior": "Removed", "invert": False},
    "unigram": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
}
added = {"id": 5, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": True, "normalized": False, "special": True}
post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}}
for name, model in models.items():
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added],
                 "normalizer": normalizers[name], "pre_tokenizer": pre_tokenizers[name], "post_processor": post,
                 "decoder": {"type": "Fuse"}, "model": model}
    (corpus / "tokenizer" / f"small-{name}.json").write_text(json.dumps(tokenizer))

# Answers of servers; the first byte is even for a chat completion.
reply = {"choices": [{"message": {"role": "assistant", "content": "4"}, "finish_reason": "stop", "logprobs": {"content": [
    {"token": "4", "logprob": -0.5, "top_logprobs": [{"token": "4", "logprob": -0.5}]}]}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "prompt_token_ids": [1, 2, 3]}
completion = {"choices": [{"text": "4", "finish_reason": "length", "logprobs": {"tokens": ["4"], "token_logprobs": [-0.5]}}]}
parts = {"choices": [{"message": {"content": [{"type": "text", "text": "4"}], "reasoning": "r", "refusal": None,
                                  "tool_calls": [{"id": "x"}]}, "finish_reason": "tool_calls"}]}
event = lambda delta, finish=None: "data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}) + "\n\n"
stream = event({"role": "assistant", "content": "4"}) + ": ping\n\n" + event({"reasoning_content": "r"}, "stop") + "data: [DONE]\n\n"
answers = {
    "chat": b"\0" + json.dumps(reply).encode(), "text": b"\1" + json.dumps(completion).encode(),
    "parts": b"\0" + json.dumps(parts).encode(), "stream": b"\0" + stream.encode(),
    "error": b'\0{"error": {"message": "too long", "code": 400}}', "page": b"\0<html><title>502</title></html>",
    "python": b'\0{"choices": [{"message": {"content": "\\ud83d"}, "logprobs": NaN, "x": -Infinity}]}',
    "detail": b'\0{"detail": [{"msg": "field required"}]}',
}
for name, answer in answers.items():
    (corpus / "server" / name).write_bytes(answer)

# A journal with two records and a torn line.
(corpus / "journal" / "one").write_text('{"key":"k"}\n[[0,"a"],[5,"b"]]\n[[4294967295,{"text":"c"}]]\n[[1,"')

for name, text in {
    "dpo": "model_name_or_path: m\nbeta: 0.1\nlearning_rate: 5.0e-7\nloss_type: sigmoid\nbf16: true\nmax_length: 1024\n",
    "lora": "use_peft: true\nlora_r: 16\nlora_target_modules: [q_proj, v_proj]\nwarmup_ratio: 0.1\nseed: 42\n",
    "list": "loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.5]\ndataset_name: d\nsave_strategy: steps\nsave_steps: 100\n",
    "yaml": "a: &x {b: 1}\nc: *x\n<<: *x\nd: |\n  text\ne: !!str 1\n---\nf: 0x10\n",
}.items():
    (corpus / "trl" / name).write_text(text)

# A GGUF file of one layer and a vocabulary of six.
value = lambda kind, data: kind.to_bytes(4, "little") + data
word = lambda text: len(text.encode()).to_bytes(8, "little") + text.encode()
number = lambda n: value(4, n.to_bytes(4, "little"))
real = lambda x: value(6, struct.pack("<f", x))
items = lambda kind, all: value(9, kind.to_bytes(4, "little") + len(all).to_bytes(8, "little") + b"".join(all))
pieces = ["<unk>", "<s>", "</s>", "a", "b", "ab"]
metadata = {
    "general.architecture": value(8, word("llama")), "llama.block_count": number(1), "llama.embedding_length": number(4),
    "llama.feed_forward_length": number(4), "llama.attention.head_count": number(1), "llama.context_length": number(32),
    "llama.attention.layer_norm_rms_epsilon": real(1e-5), "tokenizer.ggml.model": value(8, word("gpt2")),
    "tokenizer.ggml.pre": value(8, word("smollm")), "tokenizer.ggml.merges": items(8, [word("a b")]),
    "tokenizer.ggml.tokens": items(8, [word(piece) for piece in pieces]),
    "tokenizer.ggml.token_type": items(5, [n.to_bytes(4, "little") for n in [2, 3, 3, 1, 1, 1]]),
    "tokenizer.ggml.bos_token_id": number(1), "tokenizer.ggml.eos_token_id": number(2),
}
blocks = {"token_embd": [4, 6], "output_norm": [4], "blk.0.attn_norm": [4], "blk.0.ffn_norm": [4]}
blocks |= {f"blk.0.{name}": [4, 4] for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]}
table, place = b"", 0
for name, dimensions in blocks.items():
    table += word(f"{name}.weight") + len(dimensions).to_bytes(4, "little")
    table += b"".join(n.to_bytes(8, "little") for n in dimensions) + (0).to_bytes(4, "little") + place.to_bytes(8, "little")
    place += (4 * math.prod(dimensions) + 31) // 32 * 32
start = b"GGUF" + (3).to_bytes(4, "little") + len(blocks).to_bytes(8, "little") + len(metadata).to_bytes(8, "little")
start += b"".join(word(key) + data for key, data in metadata.items()) + table
(corpus / "gguf" / "llama").write_bytes(start + b"\0" * (-len(start) % 32 + place))

# A receipt of a mixture of `receipt.jsonl`, as `simplemix mix --report` wrote it.
(corpus / "receipt" / "one.json").write_bytes((here / "receipt.json").read_bytes())

# Bytes that the grammar turns into templates.
generator = random.Random(1)
for length in [16, 64, 256, 1024]:
    (corpus / "grammar" / str(length)).write_bytes(generator.randbytes(length))
