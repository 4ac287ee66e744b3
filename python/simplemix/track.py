"""Follows a run of `simplemix train` into a tracker: trackio, Weights & Biases or MLflow.

    python -m simplemix.track runs/dpo --to trackio --project dpo

Every line of the run's `metrics.jsonl` becomes one call of the tracker with its step, under TRL's names. It ends when the run has ended
(`finished.json`), or with `--once` when everything that is there has been sent. The tracker's own variables hold: `WANDB_MODE=offline`,
`MLFLOW_TRACKING_URI`, and so on. A run that was resumed has its last lines cut off and written again; those are sent once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

from . import _native

TRACKERS = ("trackio", "wandb", "mlflow")


class Tracker(Protocol):
    """Where metrics go."""

    def log(self, values: dict[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


class _Module:
    """trackio and wandb, which have the same functions."""

    def __init__(self, name: str, project: str, run: str, config: dict[str, Any]) -> None:
        self._module = importlib.import_module(name)
        self._run = self._module.init(project=project, name=run, config=config)

    def log(self, values: dict[str, float], step: int) -> None:
        self._module.log(values, step=step)

    def finish(self) -> None:
        self._module.finish()


class _Mlflow:
    def __init__(self, project: str, run: str, config: dict[str, Any]) -> None:
        mlflow = self._mlflow = importlib.import_module("mlflow")
        mlflow.set_experiment(project)
        mlflow.start_run(run_name=run)
        mlflow.log_dict(config, "identity.json")

    def log(self, values: dict[str, float], step: int) -> None:
        # MLflow refuses `@` and some other signs in names.
        self._mlflow.log_metrics({name.replace("@", ".").replace(":", "."): value for name, value in values.items()}, step=step)

    def finish(self) -> None:
        self._mlflow.end_run()


def tracker(name: str, project: str, run: str, config: dict[str, Any]) -> Tracker:
    """A tracker by name.

    Raises:
        Error: The name is none of `TRACKERS`, or the package is not installed.
    """
    if name not in TRACKERS:
        raise _native.Error(f"`to` is `{name}`, expected {', '.join(TRACKERS)}")
    try:
        return _Mlflow(project, run, config) if name == "mlflow" else _Module(name, project, run, config)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise _native.Error(f"`to` is `{name}`, which is not installed; run `pip install {name}`") from None


class Follower:
    """The lines of a `metrics.jsonl`, each once, though the file may be cut and written again by a run that is resumed.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "metrics.jsonl")
    >>> follower = Follower(path)
    >>> list(follower.new())
    []
    >>> with open(path, "w") as file:
    ...     _ = file.write('{"step": 1, "loss": 0.7}' + chr(10) + '{"step": 2, "lo')
    >>> list(follower.new())
    [(1, {'loss': 0.7})]
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._number = 0
        self._sent: set[tuple[int, bool]] = set()

    def new(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Steps and values of the whole lines that have come since."""
        try:
            file = open(self._path, "rb")
        except FileNotFoundError:
            return
        with file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._offset, self._number = 0, 0
            file.seek(self._offset)
            while (line := file.readline()).endswith(b"\n"):
                self._offset += len(line)
                self._number += 1
                step, values = self._read(line)
                kind = (step, any(name.startswith("eval_") for name in values))
                if kind not in self._sent:
                    self._sent.add(kind)
                    yield step, values

    def _read(self, line: bytes) -> tuple[int, dict[str, float]]:
        try:
            read = json.loads(line)
            step = int(read.pop("step"))
            # JSON has null in place of NaN and infinity.
            return step, {name: math.nan if value is None else float(value) for name, value in read.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            text = line[:60].decode("utf-8", "replace").rstrip()
            where = f"{self._path}, line {self._number}"
            raise _native.Error(f"{where}: found `{text}`, expected an object with `step` and numbers") from None


def follow(run: str | os.PathLike[str], to: Tracker, *, once: bool = False, every_secs: float = 2.0) -> int:
    """Sends a run's metrics to a tracker until the run has ended; returns the number of lines that were sent.

    Args:
        run: Run folder.
        to: The tracker; see `tracker`.
        once: Whether to end when everything that is there has been sent.
        every_secs: Seconds between two looks.
    """
    folder = os.fspath(run)
    follower, sent = Follower(os.path.join(folder, "metrics.jsonl")), 0
    while True:
        # Asked first: what is written before it is then sent too.
        ended = os.path.exists(os.path.join(folder, "finished.json"))
        for step, values in follower.new():
            to.log(values, step)
            sent += 1
        if once or ended:
            to.finish()
            return sent
        time.sleep(every_secs)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m simplemix.track", description="Follow a run of `simplemix train` into a tracker."
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--to", required=True, choices=TRACKERS, help="tracker")
    parser.add_argument("--project", default="simplemix", help="project or experiment [default: simplemix]")
    parser.add_argument("--name", help="name of the run [default: the folder's]")
    parser.add_argument("--once", action="store_true", help="end when everything that is there has been sent")
    given = parser.parse_args(arguments)
    if not os.path.isdir(given.run):
        print(f"error: {given.run} is no folder, expected that of a run", file=sys.stderr)
        return 2
    config: dict[str, Any] = {}
    try:
        with open(os.path.join(given.run, "identity.json"), encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        pass
    name = given.name or os.path.basename(os.path.abspath(given.run))
    try:
        sent = follow(given.run, tracker(given.to, given.project, name, config), once=given.once)
    except _native.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{sent} lines sent to {given.to}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
