"""Tiny random Llama checkpoints and what transformers makes of them, for crates/simplemix-model/tests/transformers.rs.

Python 3.11, torch 2.11.0, transformers 5.23.0, safetensors 0.8.0. Usage: model_llama.py OUT_DIR
"""
import json
import os
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {
    "tied": dict(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    "untied_bias": dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, head_dim=12,
                        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    "llama3_rope": dict(tie_word_embeddings=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}),
}
IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]

out = sys.argv[1]
for seed, (name, extra) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.3,
                         bos_token_id=1, eos_token_id=2, attn_implementation="eager", **extra)
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith(("norm.weight", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = os.path.join(out, name)
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))
    ids = torch.tensor([IDS])
    result = model(ids, output_hidden_states=True)
    loss = -torch.log_softmax(result.logits[0, :-1], -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()
    loss.backward()
    greedy, current = [], ids
    with torch.no_grad():
        for _ in range(12):
            current = torch.cat([current, model(current).logits[:, -1:].argmax(-1)], 1)
    json.dump({
        "ids": IDS,
        "last_logits": result.logits[0, -1].tolist(),
        "hidden_norms": result.hidden_states[-1][0].norm(dim=-1).tolist(),
        "loss": loss.item(),
        "gradient_norms": {n: p.grad.norm().item() for n, p in model.named_parameters()},
        "greedy": current[0, len(IDS):].tolist(),
    }, open(os.path.join(folder, "golden.json"), "w"))
