"""Gradients of the embedding where the padding token is in a text, for crates/simplemix-model/tests/transformers.rs.

Python 3.11, torch 2.11.0, transformers 5.24.0, peft 0.21.2. Usage: model_padding.py FAMILIES_DIR LORA_DIR OUT.json
"""
import json
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from model_families import IDS, numbers

FAMILIES = ["apertus", "arcee", "cohere", "cohere2", "exaone4", "gemma2", "gemma3", "gemma4", "glm", "glm4", "gpt2", "gpt_neox", "granite",
            "lfm2", "llama_tied", "ministral3", "mistral_whole", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_5", "seed_oss",
            "smollm3", "gemma3_whole", "gemma4_whole", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "smolvlm"]
# A token of the text, by its number and from the end of the vocabulary; none; one that is not in the text.
PADS = [17, -47, None, 2]
TABLES = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "embed_tokens_per_layer.weight")


def loaded(folder, pad):
    config = AutoConfig.from_pretrained(folder)
    config.get_text_config().pad_token_id = pad
    whole = hasattr(config, "vision_config")
    auto = AutoModelForImageTextToText if whole else AutoModelForCausalLM
    return auto.from_pretrained(folder, config=config, attn_implementation="eager").float().eval()


def gradients(model, is_wanted):
    ids = torch.tensor([IDS])
    logits = model(ids).logits
    (-torch.log_softmax(logits[0, :-1], -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()).backward()
    direction = lambda g: torch.cos(torch.arange(g.numel(), dtype=torch.float64)).view_as(g).to(g.dtype)
    return {name: numbers(torch.stack([p.grad.norm(), (p.grad * direction(p.grad)).sum()]))
            for name, p in model.named_parameters() if p.grad is not None and is_wanted(name)}


def main(families, adapters, out):
    cases = []
    for name in FAMILIES:
        for pad in PADS if name == "llama_tied" else PADS[:1]:
            found = gradients(loaded(os.path.join(families, name), pad), lambda parameter: parameter.endswith(TABLES))
            cases.append({"model": name, "pad_token_id": pad, "gradients": found})
    model = PeftModel.from_pretrained(loaded(os.path.join(families, "gemma3"), 17), os.path.join(adapters, "embeddings"), is_trainable=True)
    found = gradients(model.eval(), lambda parameter: "lora_embedding" in parameter)
    found = {name.replace(".default", ""): value for name, value in found.items()}
    cases.append({"model": "gemma3", "adapter": "embeddings", "pad_token_id": 17, "gradients": found})
    json.dump({"ids": IDS, "cases": cases}, open(out, "w"))


main(*sys.argv[1:])
