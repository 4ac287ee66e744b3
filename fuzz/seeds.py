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
for name in ["jsonl", "parquet", "template", "hh"]:
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
