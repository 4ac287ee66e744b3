"""Token ids of transformers for folders whose tokenizer it builds anew by class, or that declare tokens in several files, and
TRL's ids of pairs with them, for crates/simplemix-data/tests/it/tokenizers.rs.

Python 3.11, transformers 5.24.0, tokenizers 0.23.3, trl 1.16.0, datasets. Usage: data_tokenizers.py OUT_DIR

OUT_DIR gets bytes.json and pieces.json, two small tokenizers, and cases.json.
"""
import copy
import json
import logging
import pathlib
import sys
import tempfile
from types import SimpleNamespace

import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, TokenizersBackend
from trl.trainer.dpo_trainer import DPOTrainer

assert (transformers.__version__, trl.__version__) == ("5.24.0", "1.16.0")
logging.disable(logging.ERROR)
CORPUS = ["the sum of two and two is four and the answer is 1234 or 12 and it's raining", "Write  a story: don't stop 2024 2025"] * 4
TEXTS = ["the sum of 12 and 1234 is 2024", " two  and\n\n two", "it's raining, don't  stop", "<s>the answer</s>", "e\u0301te\u0301 \u4f60\u597d",
         "a<|im_end|>b<tool> c", "", "12345", "x<extra>y <model> z"]
PAIRS = [{"prompt": "<s>the sum of", "chosen": " two", "rejected": " four"}, {"prompt": "the answer", "chosen": " is 12</s>", "rejected": " is</s></s>"},
         {"prompt": "two", "chosen": " and", "rejected": " or"}]


def byte_level():
    """Digits split off one by one, then bytes, as SmolLM2's file has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # Merges of digits too, which only another pre-tokeniser uses.
    with_digits = Tokenizer(models.BPE())
    with_digits.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<|endoftext|>", "<s>", "</s>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    with_digits.train_from_iterator(CORPUS, trainer)
    made = json.loads(with_digits.to_str())
    made["pre_tokenizer"] = json.loads(tokenizer.to_str())["pre_tokenizer"]
    made["decoder"] = json.loads(tokenizer.to_str())["decoder"]
    return made


def pieces():
    """Llama 2's kind, with the normaliser that its file has: a space before every part."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", "<|im_end|>"], show_progress=False,
                                  initial_alphabet=[chr(c) for c in range(33, 127)])
    tokenizer.train_from_iterator(CORPUS, trainer)
    made = json.loads(tokenizer.to_str())
    free = len(made["model"]["vocab"])
    made["model"]["vocab"].update({f"<0x{byte:02X}>": free + byte for byte in range(256)})
    made["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return made


def adding(bos=None, eos=None):
    """A post-processor that adds tokens."""
    special = [token for token in (bos, eos) if token]
    single = " ".join(filter(None, [bos, "$A", eos]))
    return lambda tokenizer: processors.TemplateProcessing(single=single, special_tokens=[(token, tokenizer["model"]["vocab"][token]) for token in special])


END = "<|endoftext|>"
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CASES = [
    # name, tokenizer, post-processor, tokenizer_config.json, config.json, other files
    ("llama, its class", "pieces", adding("<s>"), {"tokenizer_class": "LlamaTokenizer", **NAMES}, "llama", {}),
    ("llama, legacy", "pieces", adding("<s>"), {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, **NAMES}, "llama", {}),
    ("llama, no prefix", "pieces", None, {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False, **NAMES}, "llama", {}),
    ("llama, no special tokens named", "pieces", None, {"tokenizer_class": "LlamaTokenizer"}, "llama", {}),
    ("llama, file", "pieces", adding("<s>"), {"tokenizer_class": "PreTrainedTokenizerFast", **NAMES}, "llama", {}),
    ("mistral, wrong class", "pieces", adding("<s>"), {"tokenizer_class": "LlamaTokenizer", **NAMES}, "mistral", {}),
    ("phi3, wrong class", "pieces", adding("<s>"), {"tokenizer_class": "LlamaTokenizer", **NAMES}, "phi3", {}),
    ("gemma2, its class", "pieces", adding("<s>"), {"tokenizer_class": "GemmaTokenizer", **NAMES, "pad_token": "<pad>"}, "gemma2", {}),
    ("gemma3, no class", "pieces", None, {**NAMES}, "gemma3_text", {}),
    ("llama of bytes under llama's name", "bytes", adding("<s>"), {"tokenizer_class": "LlamaTokenizer", **NAMES, "unk_token": None}, "llama", {}),
    ("smollm2", "bytes", None, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": END}, "llama", {}),
    ("gpt2, prefix", "bytes", None, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "eos_token": "</s>"}, "llama", {}),
    ("gpt neox", "bytes", adding("<s>"), {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<s>", "eos_token": "</s>"}, "llama", {}),
    ("qwen2, its class", "bytes", None, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": END}, "qwen2", {}),
    ("qwen2, another class", "bytes", None, {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "<|im_end|>"}, "qwen2", {}),
    ("qwen3, file", "bytes", None, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}, "qwen3", {}),
    ("olmo2, another class", "bytes", None, {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>"}, "olmo2", {}),
    ("cohere, its class", "bytes", adding("<s>"), {"tokenizer_class": "CohereTokenizerFast", "bos_token": "<s>", "eos_token": "<|im_end|>"}, "cohere2", {}),
    ("cohere, no class", "bytes", None, {"add_prefix_space": True, "eos_token": "</s>"}, "cohere", {}),
    ("granite, another class", "bytes", None, {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>"}, "granite", {}),
    ("gpt2, no class", "bytes", None, {"eos_token": "</s>"}, "gpt2", {}),
    ("gpt neox, no class", "bytes", None, {"eos_token": "</s>"}, "gpt_neox", {}),
    # Tokens that tokenizer.json lacks.
    ("token of the configuration", "bytes", None, {"eos_token": "</s>", "added_tokens_decoder": {
        "2": {"content": "</s>", "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False},
        "330": {"content": "<tool>", "special": False, "normalized": False, "lstrip": True, "rstrip": False, "single_word": False}}}, "llama", {}),
    ("token of the configuration, another id", "bytes", None, {"eos_token": "</s>", "added_tokens_decoder": {
        "999": {"content": "<tool>", "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}}}, "llama", {}),
    ("added tokens", "bytes", None, {"eos_token": "</s>"}, "llama", {"added_tokens.json": {"<tool>": 331, "<extra>": 330}}),
    ("names in the map", "bytes", None, {"eos_token": "</s>"}, "llama", {"special_tokens_map.json": {"eos_token": "<|im_end|>", "additional_special_tokens": ["<tool>"]}}),
    ("extra tokens", "bytes", None, {"eos_token": "</s>", "additional_special_tokens": ["<extra>", "<tool>"], "image_token": "<model>"}, "llama", {}),
    ("no token of that name", "pieces", None, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": None}, "llama", {"special_tokens_map.json": {"additional_special_tokens": ["<extra>"]}}),
    ("added tokens, and names in the map", "pieces", None, {**NAMES}, "phi3", {"added_tokens.json": {"<extra>": 437, "<model>": 438}, "special_tokens_map.json": {"additional_special_tokens": ["<extra>"]}}),
    ("lists under three names", "bytes", None, {"eos_token": "</s>", "additional_special_tokens": ["<tool>"], "extra_special_tokens": {"a_token": "<model>"}}, "llama",
     {"special_tokens_map.json": {"additional_special_tokens": ["<extra>"]}}),
    ("a table of extra tokens", "bytes", None, {"eos_token": "</s>", "extra_special_tokens": {"tool_token": "<tool>"}}, "llama", {}),
    ("tokens for a class", "pieces", adding("<s>"), {"tokenizer_class": "LlamaTokenizer", **NAMES}, "llama", {"added_tokens.json": {"<tool>": 9, "<extra>": 10}}),
    ("an end that is not in the vocabulary", "bytes", None, {"eos_token": "<end>"}, "llama", {}),
    ("split", "bytes", adding("<s>"), {"bos_token": "<s>", "eos_token": "</s>", "split_special_tokens": True}, "llama", {}),
    # Tokens added to texts.
    ("begins and ends", "bytes", adding("<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>"}, "llama", {}),
    ("ends", "bytes", adding(None, "</s>"), {"bos_token": "<s>", "eos_token": "</s>"}, "llama", {}),
]


def prepare(tokenizer, rows):
    if tokenizer.eos_token is None:
        return None
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    args = SimpleNamespace(dataset_num_proc=None, max_length=1024, truncation_mode="keep_start")
    prepared = DPOTrainer._prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, args, "train")
    return [[row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] for row in prepared]


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    bases = {"bytes": byte_level(), "pieces": pieces()}
    for name, base in bases.items():
        (out / f"{name}.json").write_text(json.dumps(base, ensure_ascii=False))
    results = []
    for name, base, post, config, model_type, files in CASES:
        tokenizer = copy.deepcopy(bases[base])
        if post:
            made = Tokenizer.from_str(json.dumps(tokenizer))
            made.post_processor = post(tokenizer)
            tokenizer["post_processor"] = json.loads(made.to_str())["post_processor"]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
            for file, value in files.items():
                (folder / file).write_text(json.dumps(value))
            auto, as_file = AutoTokenizer.from_pretrained(folder), TokenizersBackend.from_pretrained(folder)
            ids = lambda tokenizer: [tokenizer(text)["input_ids"] for text in TEXTS]
            results.append({
                "name": name, "base": base, "post_processor": tokenizer["post_processor"], "tokenizer_config": config,
                "config": {"model_type": model_type}, "files": files, "class": type(auto).__name__,
                "transformers": ids(auto), "file": ids(as_file), "pairs": prepare(auto, PAIRS), "pairs_file": prepare(as_file, PAIRS),
            })
            if results[-1]["pairs"] == results[-1]["pairs_file"]:
                results[-1]["pairs_file"] = None
    with open(out / "cases.json", "w") as file:
        file.write(json.dumps({"texts": TEXTS, "pairs": PAIRS}, ensure_ascii=False)[:-1] + ', "cases": [\n')
        file.write(",\n".join(json.dumps(result, ensure_ascii=False) for result in results) + "\n]}\n")


main()
