"""Prepares pairs with calls of tools and template arguments with TRL's own DPOTrainer code, as golden values for simplemix-data.

Run with: trl==1.16.0, transformers==5.24.0, tokenizers==0.23.3, datasets==5.2.0.

    python data_tools.py TOKENIZER_DIR OUT.json    (TOKENIZER_DIR: tests/golden/data_tokens)

The rows are written as JSON lines and loaded by `datasets`, as a user of TRL does. Fields of a message stand in the order of
our canonical schema, since a template that writes whole messages shows their order.
"""

import json
import pathlib
import sys
import tempfile
from types import SimpleNamespace

import datasets
import transformers
import trl
from datasets import load_dataset
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DPOTrainer

assert (trl.__version__, transformers.__version__, datasets.__version__) == ("1.16.0", "5.24.0", "5.2.0")


def call(name, **arguments):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def said(text, **fields):
    return {"role": "assistant", "content": text, **fields}


TOOLS = [{"type": "function", "function": {"name": "die", "description": "Rolls <n> dice.", "parameters": {"n": 1}}}]
ROWS = [
    {
        "prompt": [
            user("Weather?"),
            said("", tool_calls=[call("weather", place="Bern", days=2, parts=["a", None])]),
            {"role": "tool", "content": "12", "name": "weather", "tool_call_id": "c1"},
        ],
        "chosen": [said("It is 12.")],
        "rejected": [said("No idea.")],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    },
    {
        "prompt": [user("Roll a die")],
        "chosen": [said(None, tool_calls=[call("die", n=1, sides=6.5)])],
        "rejected": [said(None, tool_calls=[call("coin")])],
        "tools": TOOLS,
    },
    {
        "prompt": [user("2 + 2?")],
        "chosen": [said("4", reasoning_content="Two and two.")],
        "rejected": [said("5", thinking="A guess.")],
        "chat_template_kwargs": {"enable_thinking": False, "level": "low"},
    },
    {"prompt": [user("plain")], "chosen": [said("yes")], "rejected": [said("no")]},
]
# Writes everything that it is given, also what is undefined, none or an empty list.
SHOWS_ALL = (
    "{{ tools | tojson }} {{ documents is none }} {{ level is defined }} {{ enable_thinking | default('unset') }}\n"
    "{% for m in messages %}{{ m | tojson }} {{ m.content is defined }} {{ m.tool_calls is defined }}"
    " {{ m.thinking }} {{ m.reasoning_content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


def prepare(tokenizer, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = load_dataset("json", data_files=str(path), split="train", cache_dir=folder)
        args = SimpleNamespace(dataset_num_proc=None, max_length=4096, truncation_mode="keep_start")
        prepared = DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), dataset, tokenizer, args, "train")
        return [[row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] for row in prepared]


def main():
    folder, out = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    golden = []
    qwen = (pathlib.Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    # Each row by itself: `datasets` would fill in nulls where a row has no arguments, which TRL's code does not take.
    for name, template in {"shows_all": SHOWS_ALL, "qwen3": qwen}.items():
        tokenizer.chat_template = template
        for row in ROWS:
            golden.append({"name": name, "template": template, "row": row, "ids": prepare(tokenizer, [row])[0]})
    pathlib.Path(out).write_text(json.dumps(golden, ensure_ascii=False) + "\n")


main()
