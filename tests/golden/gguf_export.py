"""Holds a file of `simplemix export-gguf` against its folder: metadata and weights by the gguf package's reader, logits of llama.cpp, where
llama-cpp-python is there, against those of transformers.

Python 3.11, torch 2.11.0, transformers 5.24.0, gguf 0.19.0, llama-cpp-python 0.3.36. Usage: gguf_export.py FOLDER FILE.gguf
"""
import sys

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, file = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
reader = GGUFReader(file)
text = lambda key: reader.fields[key].contents()
arch = text("general.architecture")
print("architecture", arch, "type", text("general.file_type"), "tensors", len(reader.tensors))
weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
heads, kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
worst = 0.0
names = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
}
late = arch in ("gemma2", "gemma3")
names |= {"attn_norm": "input_layernorm", "ffn_norm": "pre_feedforward_layernorm" if late else "post_attention_layernorm",
          "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
for tensor in reader.tensors:
    if tensor.name == "rope_freqs.weight":
        continue
    part, end = tensor.name.rsplit(".", 1)
    prefix = ""
    if part.startswith("blk."):
        _, layer, part = part.split(".")
        prefix = f"model.layers.{layer}."
    own = weights[f"{prefix}{names[part]}.{end}"]
    if arch in ("llama", "smollm3", "granite", "arcee") and part in ("attn_q", "attn_k"):
        n = heads if part == "attn_q" else kv_heads
        own = own.reshape(n, 2, own.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(own.shape)
    if arch.startswith("gemma") and part.endswith("norm"):
        own = own + 1
    found = dequantize(tensor.data, tensor.tensor_type).reshape(own.shape)
    worst = max(worst, float(np.abs(found - own).max() / max(np.abs(own).max(), 1e-30)))
print("largest difference of a weight, of the largest of its tensor:", worst)
try:
    import llama_cpp
except ImportError:
    sys.exit("llama-cpp-python is not there")
prompt = "The capital of France is Paris. 12 + 345 = 357.\n\nI'll see: naïve?"
llama = llama_cpp.Llama(file, n_ctx=256, logits_all=True, verbose=False)
ids = tokenizer(prompt)["input_ids"]
theirs = llama.tokenize(prompt.encode(), add_bos=text("tokenizer.ggml.add_bos_token"), special=True)
print("tokens agree:", ids == theirs, len(ids))
llama.eval(ids)
found = np.array(llama.scores[: len(ids)])
want = model(torch.tensor([ids])).logits[0].detach().numpy()
print("largest difference of a logit:", np.abs(found - want).max(), "of", np.abs(want).max())
print("greedy tokens agree:", (found.argmax(-1) == want.argmax(-1)).mean())
