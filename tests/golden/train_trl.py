"""Trajectories of TRL's trainers on the tiny random model, as crates/simplemix-train/tests/trl.rs must retrace them.

Python 3.11, torch 2.11.0, transformers 5.23.0 (rewards, padding and Gemma 4: 5.24.0), trl 1.16.0, datasets 5.2.0, peft 0.21.2; f32 on the CPU. Usage:

    cargo run -p simplemix-model --example tiny -- /tmp/tiny 1
    cargo run -p simplemix-model --example tiny -- /tmp/tiny-gemma4 1 tests/golden/train/gemma4.json
    python tests/golden/train_trl.py /tmp/tiny [RUN..]

writes tests/golden/train/trl.json, of which other runs than those named stay, and tests/golden/train/adapter (LoRA's initial weights).
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

folder, only = sys.argv[1], sys.argv[2:]
here = pathlib.Path(__file__).parent / "train"
here.mkdir(exist_ok=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
words = "one two three four five six seven eight nine ten and but so then now here there maybe never always".split()


def sentence(seed, count):
    return " ".join(words[(seed * 7 + i * (seed % 5 + 1)) % len(words)] for i in range(count))


def pair(i):
    turn = lambda role, text: [{"role": role, "content": text}]
    return {"prompt": turn("user", f"{sentence(i, 3 + i % 6)}?"),
            "chosen": turn("assistant", sentence(i + 50, 2 + i % 5)),
            "rejected": turn("assistant", sentence(3 * i + 91, 1 + i % 7))}


pairs = [pair(i) for i in range(32)]
held_out = [pair(i) for i in range(100, 104)]
common = dict(per_device_train_batch_size=4, per_device_eval_batch_size=4, learning_rate=5e-4, logging_steps=1, bf16=False,
              gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, seed=42,
              train_sampling_strategy="sequential", num_train_epochs=20)
keep = ["loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "entropy", "mean_token_accuracy", "rewards/chosen",
        "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected", "logits/chosen",
        "logits/rejected", "min_reward", "mean_reward", "max_reward", "accuracy", "margin"]


def numbers(log):
    return {key: float(f"{value:.8g}") for key, value in log.items()
            if key.removeprefix("eval_") in keep and isinstance(value, (int, float))}


def model():
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def run(trainer):
    trainer.train()
    lines = [numbers(log) for log in trainer.state.log_history if "loss" in log]
    return {"log": lines, "eval": numbers(trainer.evaluate())}


def dpo(policy=None, steps=10, rows=32, **options):
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(output_dir=out, max_steps=steps, **{**common, **options})
        return run(DPOTrainer(policy or model(), args=config, processing_class=tokenizer,
                              train_dataset=Dataset.from_list(pairs[:rows]), eval_dataset=Dataset.from_list(held_out)))


def sft():
    rows = lambda all: Dataset.from_list([{"prompt": p["prompt"], "completion": p["chosen"]} for p in all])
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(output_dir=out, max_steps=10, **common)
        return run(SFTTrainer(model(), args=config, processing_class=tokenizer, train_dataset=rows(pairs),
                              eval_dataset=rows(held_out)))


def reward():
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(scorer.score.weight)
    with tempfile.TemporaryDirectory() as out:
        config = RewardConfig(output_dir=out, max_steps=10, disable_dropout=True, **common)
        return run(RewardTrainer(scorer, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list(pairs),
                                 eval_dataset=Dataset.from_list(held_out)))


def lora():
    torch.manual_seed(7)
    policy = get_peft_model(model(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    shutil.rmtree(here / "adapter", ignore_errors=True)
    policy.save_pretrained(here / "adapter")
    (here / "adapter" / "README.md").unlink(missing_ok=True)
    settings = json.loads((here / "adapter" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "tiny"
    (here / "adapter" / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return dpo(policy, steps=10, learning_rate=5e-3)


def padding(path=folder):
    """The token that ends each turn is the padding, as in SmolLM2's instruction models."""
    config = AutoConfig.from_pretrained(path)
    config.pad_token_id = 258
    return AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)


def gemma4():
    return padding(f"{folder}-gemma4")


runs = {
    "sigmoid": ({}, lambda: dpo(steps=50)),
    "hinge": ({"loss": {"name": "hinge"}}, lambda: dpo(loss_type=["hinge"])),
    "ipo": ({"loss": {"name": "ipo"}}, lambda: dpo(loss_type=["ipo"])),
    "robust": ({"loss": {"name": "robust", "label_smoothing": 0.1}}, lambda: dpo(loss_type=["robust"], label_smoothing=0.1)),
    "apo_zero": ({"loss": {"name": "apo_zero"}}, lambda: dpo(loss_type=["apo_zero"])),
    "sppo_hard": ({"loss": {"name": "sppo_hard"}}, lambda: dpo(loss_type=["sppo_hard"])),
    "wpo": ({"loss": {"wpo": "uncapped"}}, lambda: dpo(use_weighting=True)),
    "ld": ({"loss": {"ld_alpha": 0.5}}, lambda: dpo(ld_alpha=0.5)),
    # 30 pairs: every epoch ends with a batch of two.
    "random_order": ({"batch": {"shuffle": "trl"}}, lambda: dpo(steps=18, rows=30, train_sampling_strategy="random")),
    "decay_and_warmup": ({"optimizer": {"warmup_ratio": 0.2, "schedule": "cosine", "weight_decay": 0.1}},
                         lambda: dpo(warmup_steps=2, lr_scheduler_type="cosine", weight_decay=0.1)),
    "accumulation": ({"batch": {"batch_size": 8}}, lambda: dpo(gradient_accumulation_steps=2)),
    "lora": ({"lora": {"adapter": "adapter"}, "optimizer": {"learning_rate": 0.005}}, lora),
    "padding": ({"model": "padding", "optimizer": {"learning_rate": 0.005}}, lambda: dpo(padding(), learning_rate=5e-3)),
    # At higher rates TRL's own two kernels of attention part from each other by more than the test allows.
    "gemma4": ({"model": "gemma4", "optimizer": {"learning_rate": 5e-5}}, lambda: dpo(gemma4(), learning_rate=5e-5)),
    "gemma4_checkpointing": ({"model": "gemma4", "optimizer": {"learning_rate": 5e-5}, "memory": {"activation_checkpointing": True}},
                             lambda: dpo(gemma4(), learning_rate=5e-5)),
    "sft": ({"objective": "sft"}, sft),
    "reward": ({"objective": "reward"}, reward),
}
path = here / "trl.json"
done = json.loads(path.read_text())["runs"] if only else {}
done |= {name: {"settings": settings, **make()} for name, (settings, make) in runs.items() if not only or name in only}
path.write_text(json.dumps({"pairs": pairs, "held_out": held_out, "runs": done}, indent=0) + "\n")
for name, result in done.items():
    print(name, len(result["log"]), result["log"][0], result["eval"])
