"""Writes what the runs need, from seeds: `inputs.py FOLDER SHAPE DTYPE DEVICE`.

speed/ is a model of SHAPE with random weights; small/ has two layers and the tokenizer's vocabulary, so that what it says has a
text. pairs.jsonl has pairs as long as UltraFeedback's, a token a character; lengths.json their lengths in tokens."""
import json
import math
import os
import random
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import shapes

PAIRS = 256
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def tokenizer():
    """Byte-level, without a merge: a token a byte."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, bos_token=SPECIAL[1], eos_token=SPECIAL[2],
                                   pad_token=SPECIAL[0], model_max_length=4096)


def model(folder, config, dtype, device):
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump({**config, "dtype": str(dtype).removeprefix("torch.")}, file)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    torch.manual_seed(7)
    # Zeros would be quicker to multiply than what a model holds.
    tensors = {name: torch.ones(tensor.shape, dtype=dtype) if name.endswith("norm.weight")
               else (torch.randn(tensor.shape, device=device) * 0.03).to(dtype).cpu()
               for name, tensor in skeleton.named_parameters()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    tokenizer().save_pretrained(folder)


def text(draw, characters):
    words = "".join(draw.choice("abcdefghij klmno pqrst uvwxyz 0123456789 ") for _ in range(characters))
    return words.strip() or "a"


def pairs(path, lengths_path, shape):
    draw = random.Random(11)
    of_prompt, of_response = shapes.LENGTHS[shape]

    def length(mean, spread):
        drawn = draw.lognormvariate(math.log(mean) - spread * spread / 2, spread)
        return int(min(max(drawn, mean / 8), 1.35 * mean + 300 * mean / 350))

    rows, lengths = [], []
    made = tokenizer()
    for _ in range(PAIRS):
        row = {"prompt": [{"role": "user", "content": text(draw, length(of_prompt, shapes.SPREADS[0]))}]}
        for side in ("chosen", "rejected"):
            row[side] = [{"role": "assistant", "content": text(draw, length(of_response, shapes.SPREADS[1]))}]
        rows.append(row)
        prompt = len(made.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False))
        lengths.append([prompt] + [len(made(row[side][0]["content"])["input_ids"]) + 2 for side in ("chosen", "rejected")])
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with open(lengths_path, "w") as file:
        json.dump(lengths, file)


def main(folder, shape, dtype, device):
    os.makedirs(folder, exist_ok=True)
    dtype = getattr(torch, dtype)
    at = lambda name: os.path.join(folder, name)
    model(at("speed"), shapes.config(shape), dtype, device)
    model(at("small"), shapes.config("small", shapes.TOKENS), dtype, device)
    pairs(at("pairs.jsonl"), at("lengths.json"), shape)
    with open(at("prompts.jsonl"), "w") as file:
        file.writelines(json.dumps({"prompt": f"What is {i} plus {i}?", "answer": str(2 * i)}) + "\n" for i in range(12))
    with open(at("off.jsonl"), "w") as file:
        file.writelines(json.dumps({"prompt": f"Say {i}.", "chosen": f"It is {i}.", "rejected": "No."}) + "\n" for i in range(24))


if __name__ == "__main__":
    main(*sys.argv[1:5])
