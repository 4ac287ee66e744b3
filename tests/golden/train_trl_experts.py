"""Trajectories of TRL's DPO trainer on a tiny mixture of experts, whose routers have a loss, as crates/simplemix-train/tests/trl.rs must
retrace them.

Python 3.11, torch 2.11.0, transformers 5.24.0, trl 1.16.0, datasets 5.2.0; f32 on the CPU. The pairs are those of train_trl.py. Usage:

    cargo run -p simplemix-model --example tiny -- /tmp/experts 3 tests/golden/train/experts_config.json
    python tests/golden/train_trl_experts.py /tmp/experts

writes tests/golden/train/experts.json.
"""
import json
import pathlib
import sys
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

folder = sys.argv[1]
here = pathlib.Path(__file__).parent / "train"
tokenizer = AutoTokenizer.from_pretrained(folder)
pairs = json.loads((here / "trl.json").read_text())["pairs"]
common = dict(per_device_train_batch_size=4, learning_rate=5e-4, logging_steps=1, bf16=False, gradient_checkpointing=False, report_to=[],
              save_strategy="no", disable_tqdm=True, use_cpu=True, seed=42, train_sampling_strategy="sequential", num_train_epochs=20)
keep = ["loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected",
        "aux_loss"]


def dpo(**options):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as out:
        trainer = DPOTrainer(model, args=DPOConfig(output_dir=out, max_steps=8, **{**common, **options}), processing_class=tokenizer,
                             train_dataset=Dataset.from_list(pairs))
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return [{key: float(f"{log[key]:.8g}") for key in keep if key in log} for log in logs]


runs = {
    "own_factor": ({}, dpo()),
    "set_factor": ({"loss": {"router_aux_loss_coef": 2.0}}, dpo(router_aux_loss_coef=2.0)),
    "decay": ({"optimizer": {"weight_decay": 0.1}}, dpo(weight_decay=0.1)),
    "no_factor": ({"loss": {"router_aux_loss_coef": 0.0}}, dpo(router_aux_loss_coef=0.0)),
}
out = {"runs": {name: {"settings": settings, "log": log} for name, (settings, log) in runs.items()}}
(here / "experts.json").write_text(json.dumps(out, indent=0) + "\n")
for name, (_, log) in runs.items():
    print(name, log[0], log[-1])
