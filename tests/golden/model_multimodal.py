"""Tiny random multimodal models and what transformers makes of text with them, for crates/simplemix-model/tests/.

Python 3.11, torch 2.11.0, transformers 5.24.0, safetensors 0.8.0. Usage: model_multimodal.py OUT_DIR [NAME...]
"""
import json
import os
import sys
import zlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from model_families import DEFAULT, DELTA, IDS, REWARDS, causal, rewards

TEXT = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.4,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, rope_parameters=DEFAULT)
QWEN = {**TEXT, "hidden_size": 32, "rope_parameters": {**DEFAULT, "mrope_section": [2, 1, 1]}}
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
QWEN_VISION = dict(depth=1, hidden_size=8, embed_dim=8, num_heads=2, intermediate_size=8, mlp_ratio=1, out_hidden_size=32,
                   patch_size=2, fullatt_block_indexes=[0], deepstack_visual_indexes=[0], num_position_embeddings=4)
GEMMA = {**TEXT, "query_pre_attn_scalar": 24, "sliding_window": 4,
         "layer_types": ["sliding_attention", "full_attention"],
         "rope_parameters": {"sliding_attention": DEFAULT,
                             "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}}
GEMMA4 = {**{key: value for key, value in TEXT.items() if key != "rope_parameters"}, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
          "global_head_dim": 12, "sliding_window": 4, "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 64,
          "final_logit_softcapping": 5.0, "layer_types": ["sliding_attention", "full_attention"] * 2}
CASES = {
    "gemma4_whole": ("gemma4", dict(
        text_config=GEMMA4, image_token_id=63, video_token_id=62, audio_token_id=61, vision_config={
            **VISION, "num_key_value_heads": 2, "head_dim": 4, "position_embedding_size": 16, "standardize": True},
        audio_config=dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, subsampling_conv_channels=[4, 2],
                          output_proj_dims=8))),
    "gemma3_whole": ("gemma3", dict(text_config=GEMMA, mm_tokens_per_image=4, vision_config={
        "model_type": "siglip_vision_model", "vision_use_head": False, **VISION})),
    "mistral3": ("mistral3", dict(text_config={"model_type": "mistral", "sliding_window": None, **TEXT},
                                  tie_word_embeddings=False, vision_config={"model_type": "pixtral", "head_dim": 4, **VISION})),
    "mistral3_ministral": ("mistral3", dict(text_config={"model_type": "ministral3", **TEXT, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
        "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0}},
        tie_word_embeddings=False, vision_config={"model_type": "pixtral", "head_dim": 4, **VISION})),
    "qwen2_vl": ("qwen2_vl", dict(text_config=QWEN, vision_config={**QWEN_VISION, "hidden_size": 32})),
    "qwen2_5_vl": ("qwen2_5_vl", dict(text_config=QWEN, tie_word_embeddings=True, vision_config=QWEN_VISION)),
    "qwen3_vl": ("qwen3_vl", dict(text_config={**TEXT, "rope_parameters": {**DEFAULT, "mrope_section": [2, 1, 1],
                                                                         "mrope_interleaved": True}},
                                  vision_config={**QWEN_VISION, "out_hidden_size": 16})),
    "qwen3_5_whole": ("qwen3_5", dict(
        text_config={**TEXT, "full_attention_interval": 2, **DELTA, "rope_parameters": {
            **DEFAULT, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0], "mrope_interleaved": True}},
        vision_config={**QWEN_VISION, "out_hidden_size": 16})),
    "llava": ("llava", dict(text_config={"model_type": "qwen2", **TEXT, "hidden_size": 32},
                            vision_config={"model_type": "clip_vision_model", **VISION})),
    "internvl": ("internvl", dict(text_config={"model_type": "qwen3", **TEXT}, vision_config={
        **VISION, "image_size": [8, 8], "patch_size": [4, 4]})),
    "smolvlm": ("smolvlm", dict(text_config={"model_type": "llama", **TEXT}, scale_factor=2, vision_config=VISION)),
}


def main(out, *names):
    for name, (model_type, extra) in CASES.items():
        if names and name not in names:
            continue
        torch.manual_seed(zlib.crc32(name.encode()))
        folder = os.path.join(out, name)
        auto = AutoModelForCausalLM if model_type == "gemma3" else AutoModelForImageTextToText
        golden = causal(AutoConfig.for_model(model_type, **extra), folder, auto)
        if model_type in ("gemma3", "qwen3_5"):
            config = AutoConfig.for_model(model_type, **extra)
            golden["rewards"] = {"ids": REWARDS, "scores": rewards(config, os.path.join(folder, "reward"))}
        json.dump(golden, open(os.path.join(folder, "golden.json"), "w"))
        json.dump({"kept": "as it is"}, open(os.path.join(folder, "preprocessor_config.json"), "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
