"""Logits after transformers' processors, and greedy answers under them, for crates/simplemix-model/tests/transformers.rs.

Python 3.11, torch 2.11.0, transformers 5.24.0. Usage, in tests/golden: model_processors.py > model_processors.json
The processors and their order are those that `generate` itself picks for a generation config.
"""
import json

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

model = AutoModelForCausalLM.from_pretrained("families/llama_tied").eval()
END = 9
PROMPTS = [[5], [7, 8, 6, 7, 8, 6, 7, 8], list(range(20, 40)), [11, 11, 11, 11]]
CONFIGS = [
    {},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"suppress_tokens": [3, 4, 5, 9, 60]},
    {"begin_suppress_tokens": list(range(32))},
    {"min_new_tokens": 12},
    {"min_length": 14},
    {"bad_words_ids": [[9], [50], [8, 6], [7, 8, 11], [11, 11, 11, 11, 11, 11, 11, 11, 3]]},
    {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "suppress_tokens": [40, 41, 42], "begin_suppress_tokens": [1],
     "min_new_tokens": 6, "bad_words_ids": [[50], [5, 6]]},
]


def processed(config, prompt, answer, logits):
    """The logits after the processors for the token that follows prompt and answer."""
    processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(prompt),
                                             encoder_input_ids=torch.tensor([prompt]), device="cpu")
    ids = torch.tensor([prompt + answer])
    return processors(ids, logits.clone())[0] if len(processors) else logits[0]


def main():
    generator = torch.Generator().manual_seed(7)
    before = torch.tensor([[(token * 37 % 64 - 32) / 8 for token in range(64)]])
    cases = []
    for fields in CONFIGS:
        config = GenerationConfig(eos_token_id=END, pad_token_id=0, bos_token_id=1, do_sample=False, max_new_tokens=16, **fields)
        model._prepare_special_tokens(config, device="cpu")
        for prompt in PROMPTS:
            steps = []
            for length in [0, 1, 5, 13]:
                answer = torch.randint(3, 14, (length,), generator=generator).tolist()
                after = processed(config, prompt, answer, before).tolist()
                changed = {token: None if value == float("-inf") else value
                           for token, value in enumerate(after) if value != before[0, token]}
                steps.append({"answer": answer, "changed": changed})
            out = model.generate(torch.tensor([prompt]), generation_config=config, attention_mask=torch.ones(1, len(prompt)))
            cases.append({"config": fields, "prompt": prompt, "steps": steps, "greedy": out[0, len(prompt):].tolist()})
    print(json.dumps({"end": END, "max_new_tokens": 16, "cases": cases}))


if __name__ == "__main__":
    main()
