"""What transformers takes from config.json files of multimodal models, for crates/simplemix-model/src/config_tests.rs.

Python 3.11, torch 2.11.0, transformers 5.24.0. Usage: model_multimodal_configs.py OUT.json TYPE...
"""
import json
import logging
import sys

import transformers
from transformers import CONFIG_MAPPING, AutoModel

assert transformers.__version__ == "5.24.0"
logging.disable(logging.ERROR)
# What any text model needs, so that small ones are made.
SMALL = dict(vocab_size=16, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2)
SHAPE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps"]
TIES = [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, {"tie_word_embeddings": None}]
# Without a name, the text part of this class has to have one.
NAMED = {"exaone4_5": {"model_type": "exaone4"}}


def loaded(name, whole, text):
    return CONFIG_MAPPING[name](**whole, text_config={**NAMED.get(name, {}), **text})


def tied(name, whole, text):
    try:
        return bool(getattr(loaded(name, whole, {**SMALL, **text}), "tie_word_embeddings", False))
    except Exception:
        return None  # this class refuses it


def of_first(text):
    """End of the name of the first layer's frequencies."""
    return "sliding_attention_inv_freq" if "gemma" in text.model_type else "inv_freq"


def main(out, *names):
    results = []
    for name in names:
        text = loaded(name, {}, {}).get_text_config()
        # Sizes of layers where no layer has its own.
        text.allow_global_per_layer_attribute_access = True
        eps = getattr(text, "rms_norm_eps", None) or getattr(text, "layer_norm_eps", None)
        shape = {**{key: getattr(text, key, None) for key in SHAPE}, "rms_norm_eps": eps}
        small = loaded(name, {}, SMALL | ({"rope_parameters": {"mrope_section": [4, 2, 2]}} if "vl" in text.model_type else {}))
        rope = AutoModel.from_config(small.get_text_config()).rotary_emb
        results.append({
            "model_type": name,
            "text": NAMED.get(name, {}),
            "family": text.model_type,
            "shape": shape,
            "pad_token_id": text.pad_token_id,
            "small": small.get_text_config().rope_parameters.get("mrope_section") and {
                **SMALL, "rope_parameters": {"mrope_section": [4, 2, 2]}} or SMALL,
            "inv_freq": next(buffer for key, buffer in rope.named_buffers() if key.endswith(of_first(text))).tolist(),
            "tied": [{"whole": whole, "text": part, "tied": tied(name, whole, part)} for whole in TIES for part in TIES[:3]],
        })
    with open(out, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(result) for result in results) + "\n]\n")


main(*sys.argv[1:])
