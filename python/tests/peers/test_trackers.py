"""`simplemix.track` into trackio, wandb and mlflow, without a network: what they hold afterwards is read back from their own stores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LINES = [
    {"step": 1, "loss": 0.7, "rewards/margins@on": 0.25, "rewards/margins@task:math": 0.5},
    {"step": 2, "loss": 0.5, "rewards/margins@on": 0.5},
]


def run_of(folder: Path) -> Path:
    run = folder / "dpo"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (run / "identity.json").write_text('{"seed": 3}')
    (run / "finished.json").write_text("{}")
    return run


def track(run: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "simplemix.track", str(run), "--to", to, "--project", "p"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=run)
    assert done.returncode == 0 and f"2 lines sent to {to}" in done.stderr, done.stderr[-2000:]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    track(run_of(tmp_path), "mlflow", monkeypatch)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("p")
    [run] = client.search_runs([experiment.experiment_id])
    history = [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, "rewards/margins.on")]
    assert history == [(1, 0.25), (2, 0.5)] and run.data.metrics["rewards/margins.task.math"] == 0.5
    assert run.info.status == "FINISHED" and run.info.run_name == "dpo"


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track(run_of(tmp_path), "wandb", monkeypatch)
    from wandb.proto import wandb_internal_pb2

    [path] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    # A log of LevelDB behind 7 bytes: each record after its checksum (4 bytes), length (2) and type (1).
    content, place, history = path.read_bytes(), 7, []
    while place + 7 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        data, place = content[place + 7 : place + 7 + length], place + 7 + length
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            history.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item})
    shown = [{name: line[name] for name in ("_step", "loss", "rewards/margins@on")} for line in history]
    assert shown == [{"_step": 1, "loss": 0.7, "rewards/margins@on": 0.25}, {"_step": 2, "loss": 0.5, "rewards/margins@on": 0.5}]


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    track(run_of(tmp_path), "trackio", monkeypatch)
    code = "from trackio.sqlite_storage import SQLiteStorage; import json; print(json.dumps(SQLiteStorage.get_logs('p', 'dpo'), default=str))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    logs = json.loads(found.stdout.strip().splitlines()[-1])
    assert [(line["step"], line["loss"], line["rewards/margins@on"]) for line in logs] == [(1, 0.7, 0.25), (2, 0.5, 0.5)]
