"""Tiny random checkpoints of every family and what transformers makes of them, for crates/simplemix-model/tests/.

Python 3.11, torch 2.11.0, safetensors 0.8.0, peft 0.21; transformers as `config.json` of each says.
Usage: model_families.py OUT_DIR [NAME...]
"""
import json
import os
import sys
import zlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.3,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=12,
             linear_conv_kernel_dim=4)
LONG = {"short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [2.0, 4.0, 6.0, 8.0]}
CASES = {
    "llama_tied": ("llama", dict(tie_word_embeddings=True, rope_parameters=DEFAULT)),
    "llama_untied_bias": ("llama", dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, head_dim=12,
                                        rope_parameters={"rope_type": "default", "rope_theta": 500000.0})),
    "llama3_rope": ("llama", dict(tie_word_embeddings=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32})),
    "llama_linear_rope": ("llama", dict(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})),
    "mistral_window": ("mistral", dict(sliding_window=4, head_dim=8, rope_parameters=DEFAULT)),
    "mistral_whole": ("mistral", dict(sliding_window=None, head_dim=16, rope_parameters=DEFAULT)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=3, max_window_layers=1,
                                   rope_parameters=DEFAULT)),
    "qwen3": ("qwen3", dict(tie_word_embeddings=True, head_dim=16, rope_parameters=DEFAULT)),
    "gemma2": ("gemma2", dict(head_dim=16, query_pre_attn_scalar=24, sliding_window=4, attn_logit_softcapping=5.0,
                              final_logit_softcapping=3.0, rope_parameters=DEFAULT)),
    "gemma3": ("gemma3_text", dict(
        num_hidden_layers=3, head_dim=16, query_pre_attn_scalar=24, sliding_window=4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": DEFAULT,
                         "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}})),
    "olmo2": ("olmo2", dict(tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 5e5})),
    "phi3": ("phi3", dict(sliding_window=5, rope_parameters={**DEFAULT, "partial_rotary_factor": 1.0})),
    "phi3_long": ("phi3", dict(original_max_position_embeddings=32, rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 4.0], "original_max_position_embeddings": 32})),
    "qwen3_yarn": ("qwen3", dict(head_dim=16, rope_parameters={
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 4.0,
        "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.4})),
    # Frequencies by the length of a sequence: prompts on either side of the boundary, and answers that cross it.
    "llama_dynamic": ("llama", dict(max_position_embeddings=8, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0})),
    "llama_long_rope": ("llama", dict(rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 14, "factor": 9.0, **LONG})),
    "phi3_longer": ("phi3", dict(original_max_position_embeddings=14, rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 14, **LONG})),
    "olmo3": ("olmo3", dict(
        num_hidden_layers=3, sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 5e3}, "full_attention": {
            "rope_type": "yarn", "rope_theta": 5e4, "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
            "attention_factor": 1.2}})),
    "ministral3": ("ministral3", dict(head_dim=16, rope_parameters={
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 4, "beta_fast": 4.0,
        "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5})),
    "smollm3": ("smollm3", dict(
        num_hidden_layers=3, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=4, mlp_bias=True,
        rope_parameters=DEFAULT)),
    "seed_oss": ("seed_oss", dict(head_dim=12, attention_out_bias=True, rope_parameters=DEFAULT)),
    "arcee": ("arcee", dict(mlp_bias=True, rope_parameters=DEFAULT)),
    "granite": ("granite", dict(
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True, embedding_multiplier=3.0, attention_multiplier=0.3,
        residual_multiplier=0.4, logits_scaling=2.5, rope_parameters=DEFAULT)),
    "cohere": ("cohere", dict(use_qk_norm=True, logit_scale=0.25, attention_bias=True, layer_norm_eps=1e-3,
                              rope_parameters=DEFAULT)),
    "cohere2": ("cohere2", dict(
        num_hidden_layers=3, sliding_window=4, logit_scale=0.3, head_dim=12, rope_parameters=DEFAULT,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "glm": ("glm", dict(head_dim=16, rope_parameters={**DEFAULT, "partial_rotary_factor": 0.5})),
    "glm4": ("glm4", dict(head_dim=16, attention_bias=False, rope_parameters={**DEFAULT, "partial_rotary_factor": 0.75})),
    "exaone4": ("exaone4", dict(num_hidden_layers=3, sliding_window=4, rope_parameters=DEFAULT,
                                layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "exaone4_whole": ("exaone4", dict(sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True,
                                      rope_parameters=DEFAULT)),
    "apertus": ("apertus", dict(attention_bias=True, rope_parameters=DEFAULT)),
    "gpt_neox": ("gpt_neox", dict(rope_parameters={**DEFAULT, "partial_rotary_factor": 0.5}, layer_norm_eps=1e-3)),
    "gpt_neox_serial": ("gpt_neox", dict(
        use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast", tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, "partial_rotary_factor": 1.0})),
    "gpt2": ("gpt2", dict(max_position_embeddings=32, scale_attn_by_inverse_layer_idx=True, layer_norm_epsilon=1e-3)),
    "qwen3_5": ("qwen3_5_text", dict(
        head_dim=16, tie_word_embeddings=True, attention_bias=True, full_attention_interval=2, **DELTA, rope_parameters={
            **DEFAULT, "partial_rotary_factor": 0.25, "mrope_section": [1, 1, 0], "mrope_interleaved": True})),
    "qwen3_5_hybrid": ("qwen3_5_text", dict(
        num_hidden_layers=3, head_dim=8, **{**DELTA, "linear_num_value_heads": 2, "linear_conv_kernel_dim": 3},
        layer_types=["full_attention", "linear_attention", "linear_attention"],
        rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0, "partial_rotary_factor": 0.5})),
    "lfm2": ("lfm2", dict(num_hidden_layers=3, conv_bias=True, conv_L_cache=3, block_multiple_of=8, norm_eps=1e-5, layer_types=[
        "conv", "full_attention", "conv"], rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "lfm2_plain": ("lfm2", dict(conv_L_cache=4, block_auto_adjust_ff_dim=False, tie_word_embeddings=False, full_attn_idxs=[0],
                                rope_parameters=DEFAULT)),
    # As E2B: embeddings of layers, and keys and values that several layers read. As 31B: keys that are values.
    "gemma4": ("gemma4_text", dict(
        num_hidden_layers=5, head_dim=8, global_head_dim=16, num_kv_shared_layers=3, use_double_wide_mlp=True, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=66, final_logit_softcapping=3.0)),
    "gemma4_plain": ("gemma4_text", dict(
        num_hidden_layers=3, head_dim=8, global_head_dim=12, num_global_key_value_heads=1, attention_k_eq_v=True, attention_bias=True,
        layer_types=["sliding_attention", "full_attention", "full_attention"], sliding_window=5, hidden_size_per_layer_input=0,
        tie_word_embeddings=False, use_bidirectional_attention="vision", rope_parameters={"sliding_attention": DEFAULT, "full_attention": {
            "rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "factor": 2.0}})),
    "qwen3_moe": ("qwen3_moe", dict(
        num_hidden_layers=4, head_dim=16, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2, norm_topk_prob=True,
        mlp_only_layers=[2], router_aux_loss_coef=0.02, rope_parameters=DEFAULT)),
    "qwen3_moe_steps": ("qwen3_moe", dict(
        num_hidden_layers=4, head_dim=8, moe_intermediate_size=20, num_experts=5, num_experts_per_tok=3, decoder_sparse_step=2,
        use_sliding_window=True, sliding_window=4, tie_word_embeddings=True, attention_bias=True, rope_parameters=DEFAULT)),
    "olmoe": ("olmoe", dict(num_key_value_heads=4, num_experts=8, num_experts_per_tok=3, rope_parameters=DEFAULT)),
    "olmoe_normed": ("olmoe", dict(num_experts=5, num_experts_per_tok=4, norm_topk_prob=True, tie_word_embeddings=True,
                                   rope_parameters=DEFAULT)),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=4, rope_parameters={
        "rope_type": "default", "rope_theta": 1e6})),
    "mixtral_whole": ("mixtral", dict(num_local_experts=3, num_experts_per_tok=2, sliding_window=None, tie_word_embeddings=True,
                                      rope_parameters=DEFAULT)),
    "glm4_moe": ("glm4_moe", dict(
        num_hidden_layers=3, head_dim=16, moe_intermediate_size=16, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
        n_group=4, topk_group=2, routed_scaling_factor=1.7, first_k_dense_replace=1, use_qk_norm=True, attention_bias=True,
        rope_parameters={**DEFAULT, "partial_rotary_factor": 0.5})),
    "glm4_moe_plain": ("glm4_moe", dict(
        num_hidden_layers=2, moe_intermediate_size=24, n_routed_experts=4, num_experts_per_tok=2, norm_topk_prob=False,
        first_k_dense_replace=0, head_dim=8, rope_parameters={**DEFAULT, "partial_rotary_factor": 1.0})),
    "gpt2_plain": ("gpt2", dict(max_position_embeddings=32, n_inner=48, scale_attn_weights=False, reorder_and_upcast_attn=True,
                                activation_function="relu", tie_word_embeddings=False)),
}
# Cases from here on are random by their names, so that any may come or go.
BY_NAME = list(CASES).index("qwen3_yarn")
IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]
LENGTHS = [1, 2, 63, 64, 65, 130]
PROMPT, RESPONSES = list(range(1, 9)), [list(range(20, 28)), list(range(40, 45))]
REWARDS = [IDS, [9, 8, 7], [44, 2, 0, 0]]


def randomise(model):
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(torch.randn_like(buffer) * 0.2)
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "bias", "A_log", "ln_1.weight", "ln_2.weight", "ln_f.weight", "alpha_p", "alpha_n")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.add_(torch.randn_like(buffer) * 0.2)


def save(model, folder):
    model.save_pretrained(folder)
    path = os.path.join(folder, "generation_config.json")
    if os.path.exists(path):
        os.remove(path)


def numbers(tensor):
    return [float(f"{x:.8g}") for x in tensor.detach().flatten().tolist()]


def causal(config, folder, auto=AutoModelForCausalLM):
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    randomise(model)
    save(model, folder)
    ids = torch.tensor([IDS])
    result = model(ids, output_hidden_states=True)
    loss = -torch.log_softmax(result.logits[0, :-1], -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()
    loss.backward()
    with torch.no_grad():
        current = greedy(model, ids)
        if "gemma4" in config.model_type:  # a cache of its own
            cached = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
            assert torch.equal(cached, current)
    # Weights of `Conv1D` are turned.
    turned = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, Conv1D)}
    gradients = {n: p.grad.t().contiguous() if n in turned else p.grad for n, p in model.named_parameters()
                 if p.grad is not None}
    return {
        "ids": IDS,
        "last_logits": numbers(result.logits[0, -1]),
        "layers": [numbers(states[0]) for states in result.hidden_states],
        "loss": loss.item(),
        "gradients": summaries(gradients),
        "greedy": current[0, len(IDS):].tolist(),
        **by_length(config, folder),
        **by_chunks(model),
        **by_router(model),
    }


def by_expert(gradients):
    """Gradients under the names of single experts, whose matrices the class holds in one tensor."""
    found = {}
    for name, gradient in gradients.items():
        if ".experts." not in name:
            found[name] = gradient
            continue
        start, part = name.rsplit(".", 1)
        for expert, own in enumerate(gradient):
            parts = zip(("gate_proj", "up_proj"), own.chunk(2)) if part == "gate_up_proj" else [(part, own)]
            found.update({f"{start}.{expert}.{part}.weight": own.contiguous() for part, own in parts})
    return found


def summaries(gradients):
    """A gradient's norm and its product with a fixed direction: what any difference would change."""
    direction = lambda g: torch.cos(torch.arange(g.numel(), dtype=torch.float64)).view_as(g).to(g.dtype)
    return {n: numbers(torch.stack([g.norm(), (g * direction(g)).sum()])) for n, g in by_expert(gradients).items()}


def by_router(model):
    """Loss of the routers over two padded responses to one prompt."""
    if not hasattr(model.config, "router_aux_loss_coef"):
        return {}
    model.zero_grad()
    rows = [PROMPT + response for response in RESPONSES]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    loss = model(ids, attention_mask=mask, output_router_logits=True).aux_loss
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"router": {"loss": loss.item(), "gradients": summaries(gradients)}}


def greedy(model, ids):
    for _ in range(12):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


def by_length(config, folder):
    """Where frequencies depend on a sequence's length: answers with a cache, and logits of a longer sequence. A model keeps
    frequencies of the longest sequence so far, so each comes from one that has seen no other."""
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") not in ("dynamic", "longrope"):
        return {}
    fresh = lambda: AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()
    longer = torch.tensor([(IDS * 3)[:24]])
    with torch.no_grad():
        answer = fresh().generate(torch.tensor([IDS]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        logits = fresh()(longer).logits[0, -1]
    return {"greedy": answer[0, len(IDS):].tolist(), "longer": {"ids": longer[0].tolist(), "last_logits": numbers(logits)}}


def by_chunks(model):
    """Where tokens are computed in chunks: sequences that end around their edges, each in a pass of its own. Gradients are those of a
    weighted sum of all last log-probabilities. Token 0 is padding, whose embedding torch keeps from being trained."""
    if not {"linear_attention", "conv"} & set(getattr(model.config.get_text_config(), "layer_types", None) or []):
        return {}
    model.zero_grad()
    total, last = 0, []
    for length in LENGTHS:
        ids = torch.tensor([[1 + (7 * i + length) % 63 for i in range(length)]])
        logits = model(ids).logits[0, -1]
        total = total + (torch.log_softmax(logits, -1) * torch.cos(torch.arange(64.0))).sum()
        last.append(numbers(logits))
    total.backward()
    direction = lambda g: torch.cos(torch.arange(g.numel(), dtype=torch.float64)).view_as(g).to(g.dtype)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"chunks": {"lengths": LENGTHS, "last_logits": last, "gradients": {
        n: numbers(torch.stack([g.norm(), (g * direction(g)).sum()])) for n, g in gradients.items()}}}


def rewards(config, folder):
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").float().eval()
    randomise(model)
    save(model, folder)
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits.item() for ids in REWARDS]


def main(out, *names):
    for place, (name, (model_type, extra)) in enumerate(CASES.items()):
        if names and name not in names:
            continue
        torch.manual_seed(place if place < BY_NAME else zlib.crc32(name.encode()))
        config = lambda: AutoConfig.for_model(model_type, **{**SHAPE, **extra})
        folder = os.path.join(out, name)
        golden = causal(config(), folder)
        if name in ("ministral3", "olmo3", "smollm3", "llama_tied", "qwen2", "gemma3", "phi3", "exaone4", "glm", "glm4", "gpt2", "gpt_neox",
                    "qwen3_5", "qwen3_moe", "mixtral"):
            golden["rewards"] = {"ids": REWARDS, "scores": rewards(config(), os.path.join(folder, "reward"))}
        json.dump(golden, open(os.path.join(folder, "golden.json"), "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
