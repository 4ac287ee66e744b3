"""Writes small valid inputs for the fuzzers into fuzz/corpus. Needs pyarrow 25 (any recent one will do).

python fuzz/seeds.py
"""

import gzip
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent
golden = here.parent / "tests" / "golden"
corpus = here / "corpus"
for name in ["jsonl", "parquet", "template", "hh", "checkpoint"]:
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
