"""Adapters of peft on the tiny checkpoints of model_families.py, and what they make of a text.

Python 3.11, torch 2.11.0, transformers 5.24.0, peft 0.21.0 (the first three cases: transformers 5.23.0, peft 0.21.2).
Usage: model_lora.py tests/golden/families OUT_DIR [CASE ...]
"""
import json
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]
# Name: model, rows of the resized vocabulary, settings.
CASES = {
    "all_linear": ("llama_tied", None, dict(r=4, lora_alpha=8, target_modules="all-linear")),
    "named_rslora": ("qwen2", None, dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj"])),
    "fused": ("phi3", None, dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "down_proj"])),
    "regex_patterns": ("qwen3", None, dict(
        r=2, lora_alpha=4, target_modules=r".*\.(?!3)\d+\.(self_attn|mlp)\.(q_proj|v_proj|down_proj)$",
        exclude_modules=["0.mlp.down_proj"],
        rank_pattern={r"layers\.1\..*q_proj": 5, "v_proj": 1}, alpha_pattern={"v_proj": 3})),
    "some_layers": ("llama_untied_bias", None, dict(
        r=2, lora_alpha=4, target_modules=["q_proj", "mlp.up_proj"], layers_to_transform=[1], layers_pattern="layers",
        bias="lora_only")),
    "all_biases": ("qwen2", None, dict(r=2, lora_alpha=4, target_modules=["q_proj", "o_proj"], bias="all")),
    "saved_modules": ("llama_tied", None, dict(
        r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens", "norm"])),
    "saved_embedding": ("gemma2", None, dict(
        r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "kept_tied": ("gemma2", None, dict(
        r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "embeddings": ("gemma3", None, dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "lm_head", "q_proj"])),
    "dora": ("qwen2", None, dict(
        r=2, lora_alpha=4, use_dora=True, use_rslora=True, target_modules=["q_proj", "down_proj", "embed_tokens"])),
    "dora_head": ("llama_untied_bias", None, dict(
        r=2, lora_alpha=4, use_dora=True, target_modules=["o_proj", "lm_head"])),
    "resized": ("llama_tied", 61, dict(r=2, lora_alpha=4, target_modules=["v_proj"])),
    "resized_saved": ("llama_untied_bias", 70, dict(
        r=2, lora_alpha=4, target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "neox_head": ("gpt_neox", None, dict(r=2, lora_alpha=4, target_modules=["dense", "lm_head"])),
    "gpt2_saved": ("gpt2", None, dict(r=2, lora_alpha=4, target_modules=["c_attn"], modules_to_save=["0.mlp.c_fc", "ln_f"])),
    "reward": ("qwen2", None, dict(r=2, lora_alpha=4, target_modules="all-linear", task_type="SEQ_CLS")),
    "turned": ("gpt2_plain", None, dict(r=2, lora_alpha=4, target_modules="all-linear")),
    "turned_dora": ("gpt2", None, dict(
        r=2, lora_alpha=4, use_dora=True, target_modules=["c_attn", "mlp.c_proj"], bias="lora_only", layers_to_transform=[1])),
    "turned_saved": ("gpt2", None, dict(r=2, lora_alpha=4, target_modules=["c_attn"], modules_to_save=["c_fc", "wpe", "ln_f"])),
    "turned_reward": ("gpt2", None, dict(r=2, lora_alpha=4, target_modules="all-linear", task_type="SEQ_CLS")),
    "by_head": ("gpt_neox", None, dict(r=2, lora_alpha=4, target_modules="all-linear", modules_to_save=["lm_head"])),
    "scaled": ("granite", None, dict(r=2, lora_alpha=4, target_modules=["up_proj", "embed_tokens"])),
    "side_by_side": ("cohere", None, dict(r=2, lora_alpha=4, target_modules="all-linear")),
    "ungated": ("apertus", None, dict(r=2, lora_alpha=4, target_modules="all-linear", modules_to_save=["attention_layernorm"])),
    "delta_rule": ("qwen3_5", None, dict(
        r=2, lora_alpha=4, target_modules="all-linear", modules_to_save=["conv1d", "linear_attn.norm"])),
    "experts_all": ("qwen3_moe", None, dict(r=2, lora_alpha=4, target_modules="all-linear")),
    "experts_named": ("mixtral", None, dict(
        r=2, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "w1", "w3"], target_parameters=["experts.down_proj"])),
    "experts_alone": ("olmoe", None, dict(
        r=3, lora_alpha=4, target_parameters=["experts.gate_up_proj"], rank_pattern={r"layers\.0\..*": 1})),
    "experts_in_groups": ("glm4_moe", None, dict(r=2, lora_alpha=4, target_modules=["o_proj", "gate", "down_proj"])),
    "short_convolution": ("lfm2", None, dict(r=2, lora_alpha=4, target_modules="all-linear", bias="all")),
    "own_embeddings": ("gemma4", None, dict(
        r=2, lora_alpha=4, target_modules="all-linear", modules_to_save=["embed_tokens_per_layer", "per_layer_projection_norm"])),
}

base, out, *only = sys.argv[1:]


def saved_name(name):
    """Name in the file of a parameter."""
    return name.replace(".modules_to_save.default", "").replace("_vector.default.weight", "_vector").replace(".default", "")


for seed, (name, (model, rows, extra)) in enumerate(CASES.items()):
    if only and name not in only:
        continue
    torch.manual_seed(seed)
    is_reward = extra.get("task_type") == "SEQ_CLS"
    made = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    labels = dict(num_labels=1) if is_reward else {}
    plain = made.from_pretrained(os.path.join(base, model), attn_implementation="eager", **labels).float()
    if rows is not None:
        plain.resize_token_embeddings(rows, mean_resizing=False)
    policy = get_peft_model(plain, LoraConfig(**{"task_type": "CAUSAL_LM", **extra})).eval()
    with torch.no_grad():
        for parameter_name, parameter in policy.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.3)
            elif parameter.requires_grad and seed > 2 and "lora_A" not in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
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
    if is_reward:
        loss = logits[0, 0]
    else:
        loss = -torch.log_softmax(logits[0, :-1], -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()
    loss.backward()
    json.dump({
        "model": model,
        "ids": IDS,
        "loss": loss.item(),
        "last_logits": logits[0].tolist() if is_reward else logits[0, -1].tolist(),
        "gradient_norms": {saved_name(n): p.grad.norm().item() for n, p in policy.named_parameters() if p.requires_grad},
    }, open(os.path.join(folder, "golden.json"), "w"))
