"""TRL's DPOTrainer on a mixture, with metrics by source, on a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import simplemix as sm

trl = pytest.importorskip("trl")
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789 ?!"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=42,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def ref_model() -> LlamaForCausalLM:
    return model()


def pairs(name: str, count: int) -> sm.Table:
    rows = ({"prompt": f"{name} {i}?", "chosen": f"yes {i}", "rejected": "no"} for i in range(count))
    return sm.Table.from_rows(rows)


def mixture() -> sm.Mixture:
    return sm.Mixture({"off": pairs("off", 40), "on": pairs("on", 40)}, {"off": 3, "on": 1}, total=32, seed=1, batch=8)


def config(folder: Path, **settings: Any) -> DPOConfig:
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": 64,
        **settings,
    }
    return DPOConfig(**given)


class Trainer(sm.trl.SourceMetrics, DPOTrainer):  # type: ignore[misc]
    seen: list[list[str]]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.model.training:
            names = [self._source_names[number] for number in inputs[sm.trl.KEY].tolist()]
            self.seen = [*getattr(self, "seen", []), names]
        return super().compute_loss(model, inputs, *args, **kwargs)


def train(folder: Path, data: Any, trainer: type = Trainer, **settings: Any) -> Any:
    made = trainer(model(), ref_model(), args=config(folder, **settings), train_dataset=data, processing_class=tokenizer(), eval_dataset=settings.pop("eval", None))
    made.train()
    return made


def test_data_without_sources_are_refused(tmp_path: Path) -> None:
    data = mixture().to_dataset().remove_columns("source")
    with pytest.raises(sm.Error, match="no data set has a column `source`"):
        train(tmp_path, data)


def test_another_collator_is_refused(tmp_path: Path) -> None:
    made = Trainer(model(), ref_model(), args=config(tmp_path), train_dataset=mixture().to_dataset(), processing_class=tokenizer())
    made.data_collator = made.data_collator.collator
    with pytest.raises(KeyError, match=sm.trl.KEY):
        made.train()

    class Plain(sm.trl.SourceMetrics, DPOTrainer):  # type: ignore[misc]
        pass

    made = Plain(model(), ref_model(), args=config(tmp_path), train_dataset=mixture().to_dataset(), processing_class=tokenizer())
    made.data_collator = made.data_collator.collator
    with pytest.raises(sm.Error, match="the data collator was replaced"):
        made.train()


def test_metrics_by_source_add_up_to_trls_own(tmp_path: Path) -> None:
    mix = mixture()
    made = train(tmp_path, mix.to_dataset())
    expected = [[mix.at(i).source for i in range(start, start + 8)] for start in range(0, 32, 8)]
    assert made.seen == expected
    logs = [line for line in made.state.log_history if "rewards/margins" in line]
    assert len(logs) == 4
    for line in logs:
        assert (line["pairs@off"], line["pairs@on"]) == (6, 2)
        for name in sm.trl.METRICS:
            assert (6 * line[f"{name}@off"] + 2 * line[f"{name}@on"]) / 8 == pytest.approx(line[name], rel=1e-5, abs=1e-6), name
    assert logs[-1]["rewards/margins@on"] != logs[-1]["rewards/margins@off"]


def test_losses_are_those_of_trl_without_the_mixin(tmp_path: Path) -> None:
    data = mixture().to_dataset()
    ours = train(tmp_path / "a", data).state.log_history
    theirs = train(tmp_path / "b", data, DPOTrainer).state.log_history
    assert [line["loss"] for line in ours if "loss" in line] == [line["loss"] for line in theirs if "loss" in line]


def test_means_are_over_pairs_of_accumulated_batches(tmp_path: Path) -> None:
    made = train(tmp_path, mixture().to_dataset(), per_device_train_batch_size=4, gradient_accumulation_steps=2, logging_steps=2)
    lines = [line for line in made.state.log_history if "pairs@off" in line]
    assert [(line["pairs@off"], line["pairs@on"]) for line in lines] == [(12, 4)] * 2


def test_evaluation_has_its_own(tmp_path: Path) -> None:
    held_out = sm.Mixture({"off": pairs("o", 9), "on": pairs("n", 5)}, {"off": 9, "on": 5}, seed=2).to_dataset()
    made = Trainer(model(), ref_model(), args=config(tmp_path), train_dataset=mixture().to_dataset(), eval_dataset=held_out, processing_class=tokenizer())
    metrics = made.evaluate()
    line = made.state.log_history[-1]
    assert (line["eval_pairs@off"], line["eval_pairs@on"]) == (9, 5) and "eval_loss" in metrics
    assert line["eval_rewards/margins@off"] == 0.0


def test_a_stream_needs_the_names(tmp_path: Path) -> None:
    stream = mixture().to_dataset().to_iterable_dataset()
    with pytest.raises(sm.Error, match="source_names, such as to mix.names"):
        train(tmp_path, stream, max_steps=2)

    class Named(Trainer):
        source_names = ("off", "on")

    made = train(tmp_path, stream, Named, max_steps=2)
    assert made.seen == [[mixture().at(i).source for i in range(start, start + 8)] for start in (0, 8)]


def test_another_trl_is_refused_by_name(tmp_path: Path) -> None:
    class Other(DPOTrainer):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            gather, self.accelerator.gather = self.accelerator.gather, lambda tensor: gather(tensor.float().mean()[None])
            try:
                return super().compute_loss(*args, **kwargs)
            finally:
                self.accelerator.gather = gather

    class Mixed(sm.trl.SourceMetrics, Other):  # type: ignore[misc]
        pass

    with pytest.raises(sm.Error, match=r"TRL .* does not gather rewards/chosen, .* pair by pair"):
        train(tmp_path, mixture().to_dataset(), Mixed)


def test_the_default_strategy_loses_the_order(tmp_path: Path) -> None:
    made = train(tmp_path, mixture().to_dataset(), train_sampling_strategy="random")
    assert made.seen != [[mixture().at(i).source for i in range(start, start + 8)] for start in range(0, 32, 8)]


def test_two_processes_see_the_batches_of_the_mixture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    logs = json.loads((tmp_path / "logs.json").read_text())
    assert [(line["pairs@off"], line["pairs@on"]) for line in logs] == [(6, 2)] * 4
    # Each process has half of each batch, and the figures are those of one process with all of it.
    one = [line for line in train(tmp_path, mixture().to_dataset()).state.log_history if "rewards/margins" in line]
    for line, alone in zip(logs, one, strict=True):
        for name in sm.trl.METRICS:
            assert line[f"{name}@on"] == pytest.approx(alone[f"{name}@on"], rel=1e-3, abs=1e-4), name


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trained = train(folder, mixture().to_dataset(), per_device_train_batch_size=4, ddp_backend="gloo")
    if trained.accelerator.is_main_process:
        shown = [line for line in trained.state.log_history if "rewards/margins" in line]
        (folder / "logs.json").write_text(json.dumps(shown))
