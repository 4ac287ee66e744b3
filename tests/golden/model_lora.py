"""Adapters of peft on the tiny checkpoints of model_families.py, and what they make of a text.

Python 3.11, torch 2.11.0, transformers 5.23.0, peft 0.21.2. Usage: model_lora.py tests/golden/families OUT_DIR
"""
import json
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]
CASES = {
    "all_linear": ("llama_tied", dict(r=4, lora_alpha=8, target_modules="all-linear")),
    "named_rslora": ("qwen2", dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj"])),
    "fused": ("phi3", dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "down_proj"])),
}

base, out = sys.argv[1:]
for seed, (name, (model, extra)) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    plain = AutoModelForCausalLM.from_pretrained(os.path.join(base, model), attn_implementation="eager").float()
    policy = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **extra)).eval()
    with torch.no_grad():
        for parameter_name, parameter in policy.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.3)
    folder = os.path.join(out, name)
    policy.save_pretrained(folder)
    readme = os.path.join(folder, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    path = os.path.join(folder, "adapter_config.json")
    settings = json.load(open(path))
    settings["base_model_name_or_path"] = model
    json.dump(settings, open(path, "w"), indent=2, sort_keys=True)
    ids = torch.tensor([IDS])
    logits = policy(ids).logits
    loss = -torch.log_softmax(logits[0, :-1], -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()
    loss.backward()
    json.dump({
        "model": model,
        "ids": IDS,
        "loss": loss.item(),
        "last_logits": logits[0, -1].tolist(),
        "gradient_norms": {n.replace(".default", ""): p.grad.norm().item()
                           for n, p in policy.named_parameters() if p.requires_grad},
    }, open(os.path.join(folder, "golden.json"), "w"))
