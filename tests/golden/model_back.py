"""That transformers and peft load what crates/simplemix-model/examples/adapter.rs wrote, with its numbers.

Python 3.11, torch 2.11.0, transformers 5.23.0, peft 0.21.2. Usage: model_back.py MODEL_FOLDER OUTPUT_FOLDER
"""
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

model, output = sys.argv[1:]
ids = torch.tensor([[(i * 7 + 3) % 60 for i in range(24)]])


def log_prob(model):
    with torch.no_grad():
        logps = torch.log_softmax(model(ids).logits[0, :-1], -1)
    return logps.gather(1, ids[0, 1:, None]).sum().item()


def loaded(folder):
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except ValueError:  # a multimodal model
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


base = loaded(model)
print(f"before {log_prob(base):.6f}")
print(f"peft   {log_prob(PeftModel.from_pretrained(base, os.path.join(output, 'adapter'))):.6f}")
merged = loaded(os.path.join(output, "merged"))
print(f"merged {log_prob(merged):.6f}")
# Without the adapter, whose layers have other names.
base, merged = loaded(model).state_dict(), merged.state_dict()
changed = {name for name in base if not torch.equal(base[name], merged[name])}
print(f"{len(changed)} of {len(base)} tensors changed, in {sorted({name.split('.layers.')[0] for name in changed})}")
