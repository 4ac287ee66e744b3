"""GGUF files of the tiny checkpoints of model_families.py, as llama.cpp's converter writes them, and their logits.

Python 3.11, torch 2.11.0, transformers 5.24.0, gguf 0.19.0. Names of tensors are those of the gguf package. Rows of queries and keys
are permuted, matrices are turned, and one is added to norms, as convert_hf_to_gguf.py does for the architecture. Weights are Q8_0 where their rows have
whole blocks, else F16. Usage: gguf_models.py tests/golden/families OUT_DIR
"""
import json
import math
import os
import sys

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from transformers import AutoConfig, AutoModelForCausalLM

IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]
# Architecture: checkpoint, rows permuted, changes of the configuration: what no published model has is left out.
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32)
CASES = {
    "llama": ("llama_tied", True, dict(rope_parameters=LLAMA3)),
    "qwen2": ("qwen2", False, {}),
    "qwen3": ("qwen3", False, dict(rope_parameters=YARN)),
    "gemma2": ("gemma2", False, {}),
    "gemma3": ("gemma3", False, {}),
    "phi3": ("phi3_long", False, {}),
    "olmo2": ("olmo2", False, {}),
    "smollm3": ("smollm3", True, dict(
        no_rope_layers=None, no_rope_layer_interval=4, layer_types=None, use_sliding_window=False, mlp_bias=False)),
    "granite": ("granite", True, dict(attention_bias=False, mlp_bias=False)),
    "arcee": ("arcee", True, dict(mlp_bias=False)),
    "gptneox": ("gpt_neox", False, {}),
    "gpt2": ("gpt2", False, dict(scale_attn_by_inverse_layer_idx=False)),
    "chatglm": ("glm", False, {}),
    "glm4": ("glm4", False, dict(attention_bias=True)),
    "exaone4": ("exaone4", False, dict(rope_parameters=dict(LLAMA3, factor=16.0))),
    "seed_oss": ("seed_oss", False, {}),
    "command-r": ("cohere", False, {}),
    "cohere2": ("cohere2", False, {}),
    "olmo3": ("olmo3", False, dict(rope_parameters=dict(
        full_attention=dict(YARN, rope_theta=50000.0), sliding_attention=dict(rope_type="default", rope_theta=5000.0)))),
    "apertus": ("apertus", False, dict(rope_parameters=dict(LLAMA3, rope_theta=12e6))),
    "mistral3": ("ministral3", True, {}),
}
# OLMo 3 has OLMo 2's architecture.
NAMES = {"olmo3": "olmo2"}
base, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)


def permuted(weight, heads):
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rope_freqs(rule, width):
    divisors = []
    for i in range(width // 2):
        length = 2 * math.pi * rule["rope_theta"] ** (2 * i / width)
        low, high = (rule["original_max_position_embeddings"] / rule[key] for key in ("low_freq_factor", "high_freq_factor"))
        if length < high:
            divisors.append(1.0)
        elif length > low:
            divisors.append(rule["factor"])
        else:
            smooth = (rule["original_max_position_embeddings"] / length - rule["low_freq_factor"]) / (
                rule["high_freq_factor"] - rule["low_freq_factor"])
            divisors.append(1 / ((1 - smooth) / rule["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


numbers = {}
for architecture, (name, permutes, changes) in CASES.items():
    config = AutoConfig.from_pretrained(os.path.join(base, name))
    settings = config.to_dict()
    settings.update(changes)
    if architecture == "gemma2" or architecture == "gemma3":
        settings["query_pre_attn_scalar"] = settings["head_dim"]
    config = type(config)(**settings)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(base, name), config=config, attn_implementation="eager").float()
    arch = NAMES.get(architecture, architecture)
    of_gpt = arch in ("gptneox", "gpt2")
    if architecture == "glm4":  # biases that the checkpoint lacks
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("proj.bias"):
                parameter.data = torch.linspace(-0.5, 0.5, parameter.numel())
    heads = config.num_attention_heads
    kv_heads = heads if of_gpt else config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer = gguf.GGUFWriter(os.path.join(out, f"{architecture}.gguf"), arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(4 * config.n_embd if arch == "gpt2" else config.intermediate_size)
    writer.add_head_count(heads)
    if not of_gpt:
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if of_gpt or arch in ("command-r", "cohere2"):
        writer.add_layer_norm_eps(config.layer_norm_epsilon if arch == "gpt2" else config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rule = getattr(config, "rope_parameters", None) or dict(rope_type="default", rope_theta=1e4)
    full = rule.get("full_attention", rule)
    writer.add_rope_freq_base(full["rope_theta"])
    kind = full["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(full["factor"])
    if "beta_fast" in full:
        writer.add_rope_scaling_yarn_beta_fast(full["beta_fast"])
    if kind in ("longrope", "yarn"):
        original = full.get("original_max_position_embeddings") or config.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
    if kind == "longrope":
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(full.get("attention_factor") or math.sqrt(1 + math.log(scale) / math.log(original)))
        writer.add_tensor("rope_factors_long.weight", np.array(full["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(full["short_factor"], dtype=np.float32))
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_freqs(full, head_dim))
    rotated = int(head_dim * (full.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0))
    if arch != "gpt2":
        writer.add_rope_dimension_count(rotated)
    if architecture in ("gemma2", "gemma3", "phi3") and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window_pattern", 3)
        writer.add_float32("gemma3.rope.freq_base_swa", rule["sliding_attention"]["rope_theta"])
    for key, add in (("attn_logit_softcapping", writer.add_attn_logit_softcapping),
                     ("final_logit_softcapping", writer.add_final_logit_softcapping)):
        if getattr(config, key, None):
            add(getattr(config, key))
    if architecture == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if architecture in ("exaone4", "cohere2", "olmo3"):
        writer.add_sliding_window(config.sliding_window)
        slides = [kind == "sliding_attention" for kind in config.layer_types]
        assert slides == [True, False, True]
        # llama.cpp reads a list of flags, or a number.
        writer.add_sliding_window_pattern(2 if architecture == "cohere2" else slides)
    if architecture == "olmo3":
        writer.add_float32("olmo2.rope.freq_base_swa", rule["sliding_attention"]["rope_theta"])
        writer.add_rope_scaling_yarn_attn_factor(1 + 0.1 * math.log(full["factor"]))
    if architecture == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if arch in ("command-r", "cohere2"):
        writer.add_logit_scale(config.logit_scale)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if architecture == "apertus":
        acts = [layer.mlp.act_fn for layer in model.model.layers]
        for key in ("alpha_n", "alpha_p", "beta", "eps"):
            getattr(writer, f"add_xielu_{key}")([getattr(act, key).float().item() for act in acts])
    if architecture == "mistral3":
        writer.add_rope_scaling_yarn_log_mul(rule["mscale_all_dim"])
        writer.add_attn_temperature_scale(rule["llama_4_scaling_beta"])
    pieces = ["<unk>", "<s>", "</s>"] + [f"p{i}" for i in range(3, config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(pieces)
    writer.add_token_types([3] * 3 + [1] * (config.vocab_size - 3))
    writer.add_token_merges(["p 3"])
    fused = {}
    names = gguf.get_tensor_name_map(next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch), config.num_hidden_layers)
    tied = config.tie_word_embeddings
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            module, _, part = parameter_name.rpartition(".")
            weight = parameter.detach().numpy().copy()
            turned = arch == "gpt2" and module.endswith(("c_attn", "c_proj", "c_fc")) and parameter.dim() == 2
            if ".act_fn." in parameter_name:
                continue
            if turned:
                weight = weight.T
            if parameter.dim() == 2 and not module.endswith("norm"):
                kind = gguf.GGMLQuantizationType.Q8_0 if weight.shape[1] % 32 == 0 else gguf.GGMLQuantizationType.F16
                weight = np.ascontiguousarray(weight)
                rounded = torch.from_numpy(dequantize(quantize(weight, kind), kind).astype(np.float32))
                parameter.copy_(rounded.T if turned else rounded)
            else:
                kind = gguf.GGMLQuantizationType.F32
            if permutes and module.endswith(("q_proj", "k_proj")):
                weight = permuted(weight, heads if module.endswith("q_proj") else kv_heads)
            if module.endswith("query_key_value"):
                split = weight.reshape(heads, 3, head_dim, -1).swapaxes(0, 1)
                weight = split.reshape(weight.shape)
            if architecture.startswith("gemma") and parameter_name.endswith("norm.weight"):
                weight = weight + 1
            if arch == "chatglm" and module.endswith(("q_proj", "k_proj", "v_proj")):
                # One matrix in the older checkpoints of the model.
                layer = module.split(".")[2]
                parts = fused.setdefault((layer, part), [])
                parts.append(weight)
                if len(parts) == 3:
                    whole = np.ascontiguousarray(np.concatenate(parts))
                    writer.add_tensor(f"blk.{layer}.attn_qkv.{part}", quantize(whole, kind), raw_dtype=kind)
                continue
            target = names.get_name(module)
            assert target is not None, parameter_name
            writer.add_tensor(f"{target}.{part}", quantize(np.ascontiguousarray(weight), kind), raw_dtype=kind)
        numbers[architecture] = {"ids": IDS, "last_logits": model(torch.tensor([IDS])).logits[0, -1].tolist()}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
json.dump(numbers, open(os.path.join(out, "golden.json"), "w"))
