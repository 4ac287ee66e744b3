"""Following a run into a tracker."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import simplemix as sm
from simplemix import track


class Memory:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sm.Error, match="`to` is `tensorboard`, expected trackio, wandb, mlflow"):
        track.tracker("tensorboard", "p", "r", {})
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 0.5}\n{"loss": 1}\n')
    with pytest.raises(sm.Error, match=r"metrics.jsonl, line 2: found `\{\"loss\": 1\}`, expected an object with `step`"):
        track.follow(tmp_path, Memory(), once=True)
    done = subprocess.run([sys.executable, "-m", "simplemix.track", str(tmp_path / "no"), "--to", "wandb"], capture_output=True, text=True)
    assert done.returncode == 2 and "is no folder" in done.stderr


def test_lines_are_sent_once_though_a_resumed_run_writes_them_again(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    first = [{"step": 1, "loss": 0.7, "rewards/margins@on": 0.1}, {"step": 2, "loss": None}, {"step": 2, "eval_loss": 0.6}]
    write(metrics, first)
    follower = track.Follower(str(metrics))
    lines = list(follower.new())
    assert lines[0] == (1, {"loss": 0.7, "rewards/margins@on": 0.1}) and math.isnan(lines[1][1]["loss"]) and len(lines) == 3
    write(metrics, first[:1])
    assert list(follower.new()) == []
    write(metrics, [*first, {"step": 3, "loss": 0.5}])
    assert list(follower.new()) == [(3, {"loss": 0.5})]


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    tracker = Memory()
    sent: list[int] = []
    following = threading.Thread(target=lambda: sent.append(track.follow(tmp_path, tracker, every_secs=0.02)))
    following.start()
    with open(tmp_path / "metrics.jsonl", "w") as file:
        for step in range(5):
            file.write(json.dumps({"step": step, "loss": step / 2})[:8])
            file.flush()
            time.sleep(0.03)
            file.write(json.dumps({"step": step, "loss": step / 2})[8:] + "\n")
            file.flush()
    (tmp_path / "finished.json").write_text("{}")
    following.join(timeout=20)
    assert sent == [5] and tracker.finished == 1
    assert tracker.lines == [(step, {"loss": step / 2}) for step in range(5)]
