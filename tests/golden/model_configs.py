"""What transformers takes from config.json files that leave keys out or have two words for one thing, for
crates/simplemix-model/src/config_tests.rs.

Python 3.11, torch 2.11.0, transformers 5.24.0. Usage: model_configs.py OUT.json
"""
import copy
import json
import logging
import os
import sys
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.lfm2.modeling_lfm2 import Lfm2MLP

assert transformers.__version__ == "5.24.0"
logging.disable(logging.ERROR)
SHAPE = dict(vocab_size=16, hidden_size=256, intermediate_size=16, num_hidden_layers=6, num_attention_heads=32, head_dim=8)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 4.0, 6.0, 8.0]}
LINEAR = {"type": "linear", "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 1024}
CASES = [
    *[{"model_type": name} for name in ["gemma2", "gemma3_text", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3"]],
    *[{"model_type": name, "num_key_value_heads": 2} for name in ["mistral", "qwen2", "gemma2"]],
    {"model_type": "llama", "num_key_value_heads": None},
    {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": None},
    {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": 7},
    {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": 7, "layer_types": ["full_attention", "sliding_attention"] * 3},
    {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": 7, "layer_types": None},
    {"model_type": "qwen2", "num_key_value_heads": None, "use_sliding_window": True, "max_window_layers": 2},
    {"model_type": "qwen3", "num_key_value_heads": 4, "use_sliding_window": True, "max_window_layers": 1, "sliding_window": 5},
    {"model_type": "phi3", "sliding_window": 5},
    {"model_type": "gemma3_text", "sliding_window": 5, "sliding_window_pattern": 2},
    {"model_type": "gemma3_text", "attn_logit_softcapping": 0.01},
    {"model_type": "gemma2", "attn_logit_softcapping": 0.01},
    {"model_type": "gemma2", "attn_logit_softcapping": None},
    *[{"model_type": name} for name in ["arcee", "ministral3", "olmo3", "seed_oss", "smollm3"]],
    {"model_type": "ministral3", "sliding_window": 5, "layer_types": ["full_attention"] * 6, "original_max_position_embeddings": 512},
    {"model_type": "ministral3", "rope_theta": 50.0, "rope_scaling": {"rope_type": "default", "llama_4_scaling_beta": 0,
                                                                      "original_max_position_embeddings": 64}},
    {"model_type": "ministral3", "max_position_embeddings": 128, "rope_parameters": {
        "rope_type": "dynamic", "factor": 2.0, "rope_theta": 60.0, "llama_4_scaling_beta": 1, "original_max_position_embeddings": 32},
     "original_max_position_embeddings": 64},
    {"model_type": "olmo3", "rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 20, "attention_factor": 1.2079,
                                                                "original_max_position_embeddings": 32}},
    {"model_type": "olmo3", "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"] * 3, "rope_scaling": LINEAR},
    {"model_type": "seed_oss", "num_key_value_heads": None},
    {"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 2},
    {"model_type": "smollm3", "use_sliding_window": True, "no_rope_layers": [1, 0, 0, 1, 1, 0, 1, 1]},
    {"model_type": "smollm3", "use_sliding_window": False, "sliding_window": 5, "no_rope_layers": [1] * 6, "num_key_value_heads": None},
    {"model_type": "smollm3", "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"] * 3},
    # Rules under both names.
    {"model_type": "llama", "rope_scaling": LINEAR},
    {"model_type": "llama", "rope_parameters": DEFAULT, "rope_scaling": LINEAR},
    {"model_type": "llama", "rope_parameters": DEFAULT, "rope_scaling": LINEAR, "rope_theta": 700.0},
    {"model_type": "llama", "rope_parameters": DEFAULT, "rope_scaling": None, "rope_theta": 700.0},
    {"model_type": "llama", "rope_parameters": DEFAULT, "rope_scaling": {}},
    {"model_type": "qwen2", "num_key_value_heads": 4, "rope_parameters": {**DEFAULT, **LLAMA3, "original_max_position_embeddings": 9},
     "rope_scaling": {"rope_type": "default", "rope_theta": 900.0}},
    {"model_type": "mistral", "num_key_value_heads": 4, "rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 800.0},
    # Contexts of the pre-training, inside the rule, beside it and absent.
    {"model_type": "llama", "rope_scaling": LLAMA3, "max_position_embeddings": 64},
    {"model_type": "llama", "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16}, "max_position_embeddings": 64},
    {"model_type": "llama", "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16}, "original_max_position_embeddings": 24,
     "max_position_embeddings": 64},
    {"model_type": "phi3", "rope_scaling": {"type": "su", **LONG, "original_max_position_embeddings": 32}, "max_position_embeddings": 8192},
    {"model_type": "phi3", "rope_scaling": {"type": "yarn", **LONG, "original_max_position_embeddings": 99},
     "original_max_position_embeddings": 64, "max_position_embeddings": 128},
    {"model_type": "phi3", "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]},
     "partial_rotary_factor": 0.5, "rope_theta": 300.0, "original_max_position_embeddings": 64, "max_position_embeddings": 64},
    {"model_type": "llama", "rope_scaling": {"rope_type": "longrope", **LONG, "factor": 3.0, "original_max_position_embeddings": 32}},
    # YaRN: every key of its own, present, null, zero and absent.
    {"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 64},
    {"model_type": "qwen2", "num_key_value_heads": 4, "rope_theta": 1e6, "max_position_embeddings": 32768, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    {"model_type": "qwen3", "num_key_value_heads": 4, "head_dim": 64, "rope_parameters": {
        **YARN, "rope_theta": 1e6, "factor": None, "beta_fast": 24, "beta_slow": 2.0}, "max_position_embeddings": 4096},
    {"model_type": "llama", "head_dim": 64, "rope_scaling": {**YARN, "truncate": False, "attention_factor": 1.5}},
    {"model_type": "llama", "head_dim": 64, "rope_scaling": {**YARN, "truncate": None, "mscale": 1.0, "mscale_all_dim": 0.5}},
    {"model_type": "llama", "head_dim": 64, "rope_scaling": {**YARN, "mscale": 0.7, "beta_fast": 0, "beta_slow": None}},
    {"model_type": "llama", "head_dim": 64, "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0}},
    {"model_type": "olmo2", "head_dim": 64, "rope_scaling": YARN, "original_max_position_embeddings": 64},
    {"model_type": "mistral", "num_key_value_heads": 4, "rope_scaling": {**YARN, "factor": 0.5, "beta_fast": 2, "beta_slow": 2}},
    {"model_type": "gemma2", "rope_theta": 30.0, "rope_scaling": {**YARN, "original_max_position_embeddings": 8}},
    # Frequencies by the length of a sequence.
    {"model_type": "llama", "head_dim": 16, "rope_scaling": {"type": "dynamic", "factor": 2.5}, "max_position_embeddings": 64},
    {"model_type": "qwen3", "num_key_value_heads": 4, "head_dim": 16, "max_position_embeddings": 128, "rope_parameters": {
        "rope_type": "dynamic", "factor": 1.0, "rope_theta": 1e6}, "original_max_position_embeddings": 64},
    {"model_type": "olmo2", "rope_scaling": {"rope_type": "longrope", **LONG, "original_max_position_embeddings": 64},
     "max_position_embeddings": 128},
    {"model_type": "gemma3_text", "max_position_embeddings": 64, "rope_parameters": {
        "full_attention": {"rope_type": "longrope", **LONG, "attention_factor": 1.25, "original_max_position_embeddings": 100},
        "sliding_attention": {"rope_type": "dynamic", "factor": 4.0}}},
    # A rule for each kind of layer.
    {"model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 8.0}},
    {"model_type": "gemma3_text", "original_max_position_embeddings": 64, "rope_parameters": {
        "truncate": False, "full_attention": {**YARN, "truncate": True}, "sliding_attention": {"rope_type": "yarn", "factor": 2.0}}},
    {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 600.0,
     "rope_local_base_freq": 50.0},
    {"model_type": "gemma3_text", "rope_scaling": {"factor": 2.0}, "rope_theta": 600.0, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 400.0},
        "sliding_attention": {"rope_type": "linear", "factor": 3.0}}},
    {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 400.0}},
    # Families with words and defaults of their own.
    *[{"model_type": name} for name in ["apertus", "cohere", "cohere2", "exaone4", "glm", "glm4", "gpt_neox", "gpt2", "granite"]],
    {"model_type": "apertus", "rope_theta": 500.0},
    {"model_type": "apertus", "rope_parameters": {}, "rope_scaling": {}},
    {"model_type": "apertus", "rope_theta": 500.0, "rope_parameters": {}},
    {"model_type": "apertus", "rope_theta": 500.0, "rope_scaling": LLAMA3, "num_key_value_heads": None},
    {"model_type": "apertus", "rope_scaling": LINEAR, "num_key_value_heads": 8},
    {"model_type": "cohere", "layer_norm_eps": 0.25, "rms_norm_eps": 0.5, "rope_theta": 600.0, "tie_word_embeddings": False},
    {"model_type": "cohere2", "sliding_window": 7, "sliding_window_pattern": 3},
    {"model_type": "cohere2", "sliding_window_pattern": 2, "layer_types": ["full_attention", "sliding_attention"] * 3},
    {"model_type": "cohere2", "sliding_window_pattern": None, "layer_types": ["sliding_attention", "full_attention"] * 3},
    {"model_type": "exaone4", "sliding_window": 7, "sliding_window_pattern": 2},
    {"model_type": "exaone4", "sliding_window": None, "layer_types": ["full_attention"] * 6},
    {"model_type": "exaone4", "sliding_window_pattern": "LLG", "layer_types": ["sliding_attention", "full_attention"] * 3},
    {"model_type": "glm", "partial_rotary_factor": None},
    {"model_type": "glm4", "partial_rotary_factor": 0.25, "rope_theta": 300.0},
    {"model_type": "glm4", "partial_rotary_factor": 0.25, "rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.75}},
    {"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 300, "rope_theta": 5.0, "partial_rotary_factor": 1.0},
    {"model_type": "gpt_neox", "rotary_pct": 1.0, "rope_scaling": LINEAR, "num_key_value_heads": 4, "rms_norm_eps": 0.5},
    {"model_type": "gpt_neox", "rotary_pct": 0.5, "rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.75}},
    {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 9, "n_ctx": 5, "layer_norm_epsilon": 0.25},
    {"model_type": "qwen3_5_text"},
    {"model_type": "qwen3_5_text", "full_attention_interval": 3, "rope_theta": 300.0, "partial_rotary_factor": 0.5,
     "linear_num_key_heads": 4, "linear_num_value_heads": 8, "linear_key_head_dim": 6, "linear_value_head_dim": 10},
    {"model_type": "qwen3_5_text", "layer_types": ["full_attention", "linear_attention"] * 3, "full_attention_interval": 2,
     "rope_parameters": DEFAULT, "linear_conv_kernel_dim": 2, "tie_word_embeddings": True, "num_key_value_heads": 8},
    {"model_type": "qwen3_5_text", "head_dim": 64, "rope_scaling": YARN, "partial_rotary_factor": None},
    {"model_type": "qwen3_5_text", "head_dim": 64, "rope_parameters": {**YARN, "partial_rotary_factor": 0.75}},
    {"model_type": "lfm2"},
    {"model_type": "lfm2", "block_ff_dim": 100, "block_multiple_of": 7, "block_ffn_dim_multiplier": 1.5, "full_attn_idxs": [1, 4],
     "conv_L_cache": 5, "conv_bias": True, "tie_embedding": False, "norm_eps": 0.25, "rms_norm_eps": 0.5, "num_key_value_heads": 4},
    {"model_type": "lfm2", "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"] * 3, "full_attn_idxs": [0],
     "rope_theta": 500.0, "tie_word_embeddings": False},
    {"model_type": "lfm2", "block_ffn_dim_multiplier": 2, "rope_parameters": DEFAULT, "tie_embedding": False},
    {"model_type": "gemma4_text"},
    {"model_type": "gemma4_text", "global_head_dim": 12, "num_global_key_value_heads": 8, "attention_k_eq_v": True, "sliding_window": 7,
     "layer_types": ["full_attention", "sliding_attention"] * 3, "hidden_size_per_layer_input": 4, "rope_theta": 5.0,
     "final_logit_softcapping": None},
    {"model_type": "gemma4_text", "num_global_key_value_heads": 8, "num_kv_shared_layers": 3, "use_double_wide_mlp": True,
     "hidden_size_per_layer_input": 0, "layer_types": ["sliding_attention", "full_attention"] * 3},
    {"model_type": "gemma4_text", "per_layer_config": {"1": {"head_dim": 24}, "5": {"head_dim": 24, "num_key_value_heads": 4},
                                                      "3": {"head_dim": 24, "num_key_value_heads": 4}}, "global_head_dim": 20,
     "layer_types": ["sliding_attention", "full_attention"] * 3, "num_key_value_heads": 4, "num_kv_shared_layers": 0,
     "rope_parameters": {"full_attention": {"rope_type": "proportional", "rope_theta": 50.0, "factor": 3.0},
                         "sliding_attention": {"rope_theta": 40.0}}},
    {"model_type": "gemma4_text", "per_layer_config": None, "global_head_dim": 20, "use_bidirectional_attention": "vision",
     "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 60.0, "partial_rotary_factor": 0.5},
                         "sliding_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 70.0}}},
    *[{"model_type": name} for name in ["qwen3_moe", "olmoe", "mixtral", "glm4_moe"]],
    {"model_type": "qwen3_moe", "num_local_experts": 6, "num_experts_per_tok": 3, "norm_topk_prob": True, "mlp_only_layers": [0, 4],
     "decoder_sparse_step": 2, "moe_intermediate_size": 5, "router_aux_loss_coef": 0.25, "use_sliding_window": True, "sliding_window": 5,
     "rope_scaling": YARN},
    {"model_type": "olmoe", "num_local_experts": 5, "num_experts_per_tok": 2, "num_key_value_heads": 4, "norm_topk_prob": True,
     "rope_scaling": LINEAR},
    {"model_type": "mixtral", "num_experts": 5, "sliding_window": 7, "rope_theta": 700.0},
    {"model_type": "glm4_moe", "num_local_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 3, "first_k_dense_replace": 4, "n_group": 2,
     "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 2.5, "partial_rotary_factor": 0.25, "rope_scaling": YARN},
    {"model_type": "gpt2", "max_position_embeddings": 11, "n_positions": 9, "n_inner": None, "num_key_value_heads": 4},
]
# Families that have as many key heads as query heads, whatever a file says.
ALL_HEADS = ["gpt_neox", "gpt2"]


def loaded(case):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({**SHAPE, **case}, file)
        return AutoConfig.from_pretrained(folder)


def windows(config):
    layers, window = config.num_hidden_layers, getattr(config, "sliding_window", None)
    if config.model_type in ("ministral3", "mistral", "mixtral", "phi3", "qwen3_moe"):
        return [window] * layers
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def rotary(config):
    """Inverse frequencies and factor: of whole layers, and of layers with a window where they differ."""
    config = copy.deepcopy(config)
    config.pad_token_id = None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).base_model
    if not hasattr(model, "rotary_emb"):
        return []
    kind = type(model.rotary_emb)
    rope = kind(copy.deepcopy(config))
    if hasattr(rope, "inv_freq"):
        return [{"inv_freq": rope.inv_freq.tolist(), "factor": rope.attention_scaling, **by_length(kind, config)}]
    return [{"inv_freq": getattr(rope, f"{layer}_inv_freq").tolist(), "factor": getattr(rope, f"{layer}_attention_scaling"),
             **by_length(kind, config, layer)}
            for layer in ("full_attention", "sliding_attention")]


def by_length(kind, config, layer=None):
    """Inverse frequencies of sequences of some lengths, each in a model that has seen no other, where they differ."""
    rule = config.rope_parameters[layer] if layer else config.rope_parameters
    if rule["rope_type"] not in ("dynamic", "longrope"):
        return {}
    found = []
    for length in (7, 64, 65, 100, 101, 128, 129, 1000):
        rope = kind(copy.deepcopy(config))
        rope(torch.zeros(1), torch.arange(length)[None], **({"layer_type": layer} if layer else {}))
        found.append({"length": length, "inv_freq": getattr(rope, f"{layer}_inv_freq" if layer else "inv_freq").tolist()})
    return {"by_length": found}


def logits(config):
    config = copy.deepcopy(config)
    config.pad_token_id = None
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        return model(torch.tensor([[3, 1, 4, 1, 5]])).logits


def is_capped(config):
    """Whether products of queries and keys are capped: whether the numbers change without the key."""
    if getattr(config, "attn_logit_softcapping", None) is None:
        return False
    without = copy.deepcopy(config)
    without.attn_logit_softcapping = None
    return not torch.equal(logits(config), logits(without))


def experts(config):
    """Sizes of experts, layers that have them, and how they are chosen."""
    with torch.device("meta"):
        layers = AutoModelForCausalLM.from_config(config).model.layers
    sparse = [layer.mlp for layer in layers if hasattr(layer.mlp, "experts")]
    router, own = sparse[0].gate, sparse[0].experts
    shared = getattr(sparse[0], "shared_experts", None)
    return {"count": own.num_experts, "per_token": router.top_k, "width": own.intermediate_dim,
            "shared": shared.intermediate_size if shared else 0, "sparse": [hasattr(layer.mlp, "experts") for layer in layers],
            "normed": getattr(router, "norm_topk_prob", True), "coef": getattr(config, "router_aux_loss_coef", None),
            "groups": [router.num_group, router.topk_group, router.routed_scaling_factor] if hasattr(router, "num_group") else None}


def own(config):
    if config.model_type in ("qwen3_moe", "olmoe", "mixtral", "glm4_moe"):
        return {"experts": experts(config)}
    """Facts of single families: layers that are rotated, and the growth of queries."""
    if config.model_type == "smollm3":
        return {"rotated": [bool(flag) for flag in config.no_rope_layers[:config.num_hidden_layers]]}
    if config.model_type == "cohere2":
        return {"rotated": [kind == "sliding_attention" for kind in config.layer_types]}
    if config.model_type == "exaone4":
        return {"rotated": [config.sliding_window is None or kind == "sliding_attention" for kind in config.layer_types]}
    if config.model_type == "qwen3_5_text":
        return {"rotated": [kind == "full_attention" for kind in config.layer_types], "delta_rule": [
            config.linear_num_key_heads, config.linear_num_value_heads, config.linear_key_head_dim,
            config.linear_value_head_dim, config.linear_conv_kernel_dim]}
    if config.model_type == "lfm2":
        return {"rotated": [kind == "full_attention" for kind in config.layer_types], "feed_forward": width(config),
                "short_convolution": [config.conv_L_cache, config.conv_bias]}
    if config.model_type == "gemma4_text":
        own = layers(config)
        return {"layers": [[layer.self_attn.q_proj.weight.shape[0], layer.mlp.up_proj.weight.shape[0],
                            *[width_of(layer.self_attn, name) for name in ("k_proj", "v_proj")]] for layer in own.layers],
                "table": list(own.embed_tokens_per_layer.weight.shape) if own.hidden_size_per_layer_input else None}
    if config.model_type == "ministral3":
        # As rotary embeddings leave it, before attention reads it.
        config = copy.deepcopy(config)
        config.standardize_rope_params()
        rule = config.rope_parameters
        return {"query_growth": [rule["llama_4_scaling_beta"], rule["original_max_position_embeddings"]]}
    return {}


def layers(config):
    """A model without memory."""
    config = copy.deepcopy(config)
    config.pad_token_id = None
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).base_model


def width_of(module, name):
    """Outputs of a linear layer that may be absent."""
    layer = getattr(module, name, None)
    return layer.weight.shape[0] if layer is not None else None


def eps(config):
    keys = {"lfm2": "norm_eps", "cohere": "layer_norm_eps", "cohere2": "layer_norm_eps", "gpt_neox": "layer_norm_eps", "gpt2": "layer_norm_epsilon"}
    return getattr(config, keys.get(config.model_type, "rms_norm_eps"))


def shape(config):
    found = {key: getattr(config, key, None) for key in SHAPE}
    if config.model_type == "lfm2":
        return {**found, "intermediate_size": width(config)}
    return {**found, "intermediate_size": found["intermediate_size"] or 4 * config.hidden_size}


def width(config):
    """Width of LFM2's feed-forward layers."""
    return Lfm2MLP(copy.deepcopy(config)).w1.weight.shape[0]


def main(out):
    results = []
    for case in CASES:
        config = loaded(case)
        defaults = type(config)()
        for each in (config, defaults):
            # Sizes of layers where no layer has its own.
            each.allow_global_per_layer_attribute_access = True
        results.append({
            "config": {**SHAPE, **case},
            "num_key_value_heads":
                config.num_attention_heads if config.model_type in ALL_HEADS else config.num_key_value_heads,
            "rms_norm_eps": eps(config),
            "max_position_embeddings": config.max_position_embeddings,
            "tied": config.tie_word_embeddings,
            "windows": windows(config),
            "ropes": rotary(config),
            "attention_capped": is_capped(config),
            **own(config),
            "shape": shape(defaults),
        })
    with open(out, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(result) for result in results) + "\n]\n")


main(sys.argv[1])
