"""Quantised weights as bitsandbytes, AutoGPTQ and AutoAWQ make and read them, and QLoRA of transformers and peft over a tiny model.

Python 3.11, torch 2.11.0, transformers 5.24.0, peft 0.21.2, bitsandbytes 0.50.2, on a CPU. AutoGPTQ 0.7.1 and AutoAWQ 0.2.9 are unpacked, not
installed: of the first `qlinear_cuda.py` and `qlinear_cuda_old.py`, of the second `packing_utils.py` are run.
Usage: model_quantized.py tests/golden AUTO_GPTQ/NN_MODULES/QLINEAR PACKING_UTILS.PY

bitsandbytes' kernel for a CPU takes a wrong scale where a row is no whole number of blocks, as in these tiny matrices: its own plain
version of the function (backends/default) is run in its place. So it is for the codes of scales, which the kernel looks up in a table that
is coarse near the middle between two.
"""
import importlib.util
import json
import os
import sys

import bitsandbytes.functional as F
import torch
from bitsandbytes.nn import Int8Params
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.functional import get_4bit_type

overriding = torch.library.Library("bitsandbytes", "IMPL")
overriding.impl(
    "dequantize_4bit",
    lambda a, absmax, block, kind, shape, dtype: _dequantize_4bit_compute.__wrapped__(
        a.reshape(-1), absmax, get_4bit_type(kind, device="cpu"), block, shape, dtype),
    "CPU", allow_override=True)


def quantize_blockwise(a, code, blocksize):
    """bitsandbytes' plain version, line by line."""
    flat = a.reshape(-1).float()
    rem = flat.numel() % blocksize
    full = flat.numel() - rem
    blocks = flat[:full].reshape(-1, blocksize)
    absmax = blocks.abs().amax(-1)
    scaled = torch.clamp(blocks * (1.0 / absmax.clamp(min=1e-38).view(-1, 1)), -1, 1).reshape(-1)
    if rem:
        am = flat[full:].abs().max().clamp(min=1e-38)
        absmax, scaled = torch.cat([absmax, am.unsqueeze(0)]), torch.cat([scaled, torch.clamp(flat[full:] / am, -1, 1)])
    q = torch.bucketize(scaled, (code[:-1] + code[1:]) / 2, out_int32=True).to(torch.uint8)
    return q.reshape(a.shape), absmax


overriding.impl("quantize_blockwise", quantize_blockwise, "CPU", allow_override=True)
golden, qlinear, packing = sys.argv[1:]
out = os.path.join(golden, "quantized")
os.makedirs(out, exist_ok=True)
IDS = [3, 17, 42, 5, 60, 1, 33, 8, 25, 11]


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


# Matrices. The second has blocks of scales enough for double quantisation in two blocks; the third ends within a block.
torch.manual_seed(0)
tensors = {}
sizes = {"whole": (12, 32), "many": (140, 128), "cut": (5, 27)}
for name, size in sizes.items():
    weight = (torch.randn(size) * torch.rand(size[0], 1) * 0.1).half()
    if name == "whole":
        weight[3] = 0
        weight[4, 5] = 100
    tensors[f"{name}.weight"] = weight
    for kind in ["nf4", "fp4"]:
        packed, state = F.quantize_4bit(weight.float(), blocksize=64, quant_type=kind)
        if kind == "nf4":
            tensors[f"{name}.packed"], tensors[f"{name}.absmax"] = packed.flatten(), state.absmax
            if name == "cut":
                tensors[f"{name}.nf4"] = F.dequantize_4bit(packed, state)
    if name == "many":
        packed, state = F.quantize_4bit(weight.float(), blocksize=64, quant_type="nf4", compress_statistics=True)
        tensors["many.nested_codes"], tensors["many.nested_absmax"] = state.absmax, state.state2.absmax
        tensors["many.nested_map"], tensors["many.offset"] = state.state2.code.clone(), state.offset.reshape(1)
        tensors["many.scales"] = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
        # The first rows, to the bit.
        tensors["many.nested"] = F.dequantize_4bit(packed, state)[:8].clone()
    if name == "whole":
        tensors["whole.nf4"] = F.dequantize_4bit(*F.quantize_4bit(weight.float(), blocksize=64, quant_type="nf4"))
        own = Int8Params(weight[:3].float(), requires_grad=False)._quantize("cpu")
        tensors["int8.codes"], tensors["int8.scales"] = own.CB, own.SCB
        tensors["int8.weight"] = F.int8_vectorwise_dequant(own.CB, own.SCB)
save_file({name: t.contiguous() for name, t in tensors.items()}, os.path.join(out, "matrices.safetensors"))

# Checkpoints of bitsandbytes, and peft's adapter over them.
base, adapter = os.path.join(golden, "families", "llama_tied"), os.path.join(golden, "lora", "all_linear")
FORMS = {
    "nf4_double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}
ids = torch.tensor([IDS])
for name, settings in FORMS.items():
    config = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float32, **settings)
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=torch.float32, device_map="cpu", attn_implementation="eager")
    folder = os.path.join(out, name)
    model.save_pretrained(folder)
    for extra in os.listdir(folder):
        if extra not in ("config.json", "model.safetensors"):
            os.remove(os.path.join(folder, extra))
    path = os.path.join(folder, "config.json")
    written = json.load(open(path))
    written.pop("_name_or_path", None)
    json.dump(written, open(path, "w"), indent=2, sort_keys=True)
    facts = {"ids": IDS}
    if name == "int8":
        # Products of quantised activations are not computed here: the plain model with the weights of the file.
        stored = load_file(os.path.join(folder, "model.safetensors"))
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        for key in [key for key in stored if key.endswith(".SCB")]:
            layer = model.get_submodule(key.removesuffix(".SCB"))
            codes = stored[key.removesuffix("SCB") + "weight"]
            layer.weight.data = F.int8_vectorwise_dequant(codes, stored[key])
    facts["last_logits"] = model(ids).logits[0, -1].tolist()
    if name != "int8":
        policy = PeftModel.from_pretrained(model, adapter, is_trainable=True).train()
        logits = policy(ids).logits
        loss = -torch.log_softmax(logits[0, :-1].float(), -1)[torch.arange(len(IDS) - 1), ids[0, 1:]].sum()
        loss.backward()
        facts["loss"] = loss.item()
        facts["gradients"] = {
            n.replace(".default", ""): [p.grad.norm().item(), *p.grad.flatten()[:3].tolist()]
            for n, p in policy.named_parameters() if p.requires_grad
        }
        # What peft adds the product of the matrices to.
        layer = policy.base_model.model.model.layers[0].mlp.down_proj
        whole = F.dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state)
        facts["merged_row"] = (whole.float() + layer.get_delta_weight("default"))[0].tolist()
    json.dump(facts, open(os.path.join(folder, "golden.json"), "w"))

# One matrix of each of GPTQ's and AWQ's forms: random integers, read by the packages' own functions.
# The older class adds one to a zero point within its bits, as it is packed; the newer one alone knows an order of the inputs.
newer, older = (module(name, os.path.join(qlinear, f"{name}.py")) for name in ["qlinear_cuda", "qlinear_cuda_old"])
awq = module("packing_utils", packing)
groups = {}


def integers(shape):
    return torch.randint(-(2**31), 2**31, shape, dtype=torch.int64).to(torch.int32)


OUTPUTS, INPUTS = 32, 64
for name, bits, group, order in [("gptq4", 4, 32, False), ("gptq4_order", 4, 16, True), ("gptq8", 8, -1, False)]:
    layer = (newer if order else older).QuantLinear(bits, group, INPUTS, OUTPUTS, bias=False, weight_dtype=torch.float32)
    layer.autogptq_cuda_available = False
    layer.qweight, layer.qzeros = integers(layer.qweight.shape), integers(layer.qzeros.shape)
    layer.scales = torch.rand(layer.scales.shape).half().float() * 0.0625
    if order:
        layer.qzeros &= 0x77777777
        layer.g_idx = layer.g_idx[torch.randperm(INPUTS)]
    for part in ["qweight", "qzeros", "scales", "g_idx"]:
        groups[f"{name}.{part}"] = getattr(layer, part).clone()
    groups[f"{name}.scales"] = groups[f"{name}.scales"].half()
    # Rows of the identity give the transposed weight.
    groups[f"{name}.weight"] = layer(torch.eye(INPUTS)).t().contiguous()
qweight, qzeros = integers((INPUTS, OUTPUTS // 8)), integers((INPUTS // 32, OUTPUTS // 8))
scales = (torch.rand(INPUTS // 32, OUTPUTS) * 0.0625).half()
groups.update({"awq.qweight": qweight, "awq.qzeros": qzeros, "awq.scales": scales})
groups["awq.weight"] = awq.dequantize_gemm(qweight, qzeros, scales.float(), 4, 32).t().contiguous()
save_file(groups, os.path.join(out, "groups.safetensors"))
