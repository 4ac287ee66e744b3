"""That transformers and peft load what crates/simplemix-model/examples/adapter.rs wrote, with its numbers.

Python 3.11, torch 2.11.0, transformers 5.23.0, peft 0.21.2. Usage: model_back.py MODEL_FOLDER OUTPUT_FOLDER
"""
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model, output = sys.argv[1:]
ids = torch.tensor([[(i * 7 + 3) % 60 for i in range(24)]])


def log_prob(model):
    with torch.no_grad():
        logps = torch.log_softmax(model(ids).logits[0, :-1], -1)
    return logps.gather(1, ids[0, 1:, None]).sum().item()


base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
print(f"before {log_prob(base):.6f}")
print(f"peft   {log_prob(PeftModel.from_pretrained(base, os.path.join(output, 'adapter'))):.6f}")
print(f"merged {log_prob(AutoModelForCausalLM.from_pretrained(os.path.join(output, 'merged'))):.6f}")
