"""Prepares pairs with TRL's own DPOTrainer code, as golden values for simplemix-data.

Run with: trl==1.16.0, transformers==5.23.0, tokenizers==0.23.3, datasets==5.2.0.

    python data_tokens.py OUT_DIR                            the committed values: a small tokenizer and its ids
    python data_tokens.py OUT_DIR MODEL_DIR FILE.parquet     ids of a real tokenizer on real pairs, for a trial

OUT_DIR gets tokenizer.json, tokenizer_config.json, chat_template.jinja (of the small tokenizer) and tokens.json.
"""

import json
import pathlib
import sys
from types import SimpleNamespace

import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from trl.trainer.dpo_trainer import DPOTrainer

assert trl.__version__ == "1.16.0"

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The prompt alone ends in words that vanish once an answer follows.
SHIFTING = TEMPLATE.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")

CORPUS = [
    "the sum of two and two is four, and the answer to the question is that it is raining today",
    "write a story about a small robot that counts the stars and then counts them again",
    "yes no maybe sure the model answers the question with a number 1 2 3 4 5 6 7 8 9 10 12 24",
]


def small_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    return fast


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


MESSAGES = [
    {
        "prompt": chat(("system", "Count."), ("user", "How many stars?")),
        "chosen": chat(("assistant", "The sum is 24 — vierundzwanzig.")),
        "rejected": chat(("assistant", "maybe")),
    },
    {
        "prompt": chat(("user", "1"), ("assistant", "2"), ("user", "3?")),
        "chosen": chat(("assistant", "four")),
        "rejected": chat(("assistant", "fourteen 😀")),
    },
    {
        "prompt": chat(("user", "write a story about a small robot that counts the stars " * 3)),
        "chosen": chat(("assistant", "the robot counts")),
        "rejected": chat(("assistant", "no")),
    },
    {
        "prompt": chat(("user", "short")),
        "chosen": chat(("assistant", "the sum of two and two is four " * 4)),
        "rejected": chat(("assistant", "it is raining today " * 6)),
    },
]
TEXTS = [
    {"prompt": "The answer to the question is", "chosen": " yes", "rejected": " no, maybe"},
    {"prompt": "the sum of t", "chosen": "wo and two", "rejected": "hree and one"},
    {"prompt": "ends already", "chosen": " in its token<|im_end|>", "rejected": " without"},
    {"prompt": "long " * 40, "chosen": "a", "rejected": "b"},
    {"prompt": "1 2 3", "chosen": " 4 5 6 7 8 9 10 12 24" * 5, "rejected": " 5"},
]
IMPLICIT_MESSAGES = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in MESSAGES]
IMPLICIT_TEXTS = [
    {"chosen": "The sky is blue today.", "rejected": "The sky is green today."},
    {"chosen": "Two and two: four", "rejected": "Two and two: five"},
    {"chosen": "Zürich ist größer", "rejected": "Zürich ist großartig"},
    {"chosen": "a  b", "rejected": "a  c"},
]


def prepare(tokenizer, rows, max_length):
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start")
    indexed = Dataset.from_list([{**row, "index": index} for index, row in enumerate(rows)])
    prepared = DPOTrainer._prepare_dataset(trainer, indexed, tokenizer, args, "train")
    kept = []
    for row in prepared:
        room = max_length - len(row["prompt_ids"])
        # What the collator keeps of prompt and completion together.
        kept.append([row["index"], row["prompt_ids"], row["chosen_ids"][:room], row["rejected_ids"][:room]])
    return kept


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
        rows = Dataset.from_parquet(sys.argv[3]).select_columns(["prompt", "chosen", "rejected"]).to_list()
        (out / "tokens.json").write_text(json.dumps(prepare(tokenizer, rows, 1024)))
        return
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(out)
    sets = {"messages": MESSAGES, "texts": TEXTS, "implicit_messages": IMPLICIT_MESSAGES, "implicit_texts": IMPLICIT_TEXTS}
    golden = [
        {"name": name, "max_length": max_length, "template": None, "rows": rows, "kept": prepare(tokenizer, rows, max_length)}
        for name, rows in sets.items()
        for max_length in (64, 1024)
    ]
    tokenizer.chat_template = SHIFTING
    kept = prepare(tokenizer, MESSAGES, 1024)
    golden.append({"name": "shifting", "max_length": 1024, "template": SHIFTING, "rows": MESSAGES, "kept": kept})
    (out / "tokens.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


main()
