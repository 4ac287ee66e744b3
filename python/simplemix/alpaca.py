"""AlpacaEval 2.0: win rates and length-controlled win rates from a judge's annotations, as the official package computes them.

The inputs of the length control, `df_gamed.csv`, are a file of the data set `tatsu-lab/alpaca_eval`; docs/evaluation.md says where to get
it. Nothing is downloaded here.
"""

from __future__ import annotations

import glob
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _native

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class WinRate:
    """Figures of one model. Rates are in percent."""

    #: Name of the model.
    model: str
    #: Win rate; a draw counts half.
    win_rate: float
    #: Standard error of the win rate.
    standard_error: float
    #: Length-controlled win rate; `None` without the inputs of the length control.
    length_controlled_winrate: float | None
    #: Standard error of the length-controlled win rate.
    lc_standard_error: float | None
    #: Verdicts.
    n_total: int
    #: Mean characters of the model's responses.
    avg_length: int | None
    #: Everything, under the official leaderboard's names: wins, draws, intervals, weights of the regression, categories.
    details: dict[str, Any]


class WinRates(list[WinRate]):
    """Figures of several models, best first. Printing it shows a table."""

    def __str__(self) -> str:
        width = max([5, *(len(one.model) for one in self)])
        lines = [f"{'model':<{width}}  LC win rate  win rate  s.e.  verdicts"]
        for one in self:
            controlled = "-" if one.length_controlled_winrate is None else f"{one.length_controlled_winrate:.2f}"
            lines.append(
                f"{one.model:<{width}}  {controlled:>11}  {one.win_rate:>8.2f}  {one.standard_error:>4.2f}  {one.n_total:>8}"
            )
        return "\n".join(lines)


def _named(path: Path) -> list[Path]:
    """Files that a path or a pattern names."""
    text = os.fspath(path)
    if os.path.exists(text) or not glob.has_magic(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True))
    if not found:
        raise _native.Error(f"{text}: no file has such a name, expected at least one")
    return list(found)


def win_rates(
    annotations: Path | Sequence[Path] | Iterable[Mapping[str, Any]],
    *,
    gamed: Path | None = None,
    difficulty: Path | None = None,
    weights: Path | None = None,
    categories: Path | None = None,
    by_category: bool = False,
    baseline: str = "gpt4_1106_preview",
    bootstrap: int = 0,
    seed: int = 1,
) -> WinRates:
    """Figures of the models in some annotations, best first.

    Args:
        annotations: Paths or patterns of annotations (the official package's JSON, or Parquet), or the annotations themselves: dicts, or a pandas
            data frame of them. A file may hold several models.
        gamed: `df_gamed.csv`, which length-controlled win rates need.
        difficulty: `instruction_difficulty.csv`; by default from `gamed`.
        weights: Published weights of the regression by model, `baseline_*.csv`; other models are fitted.
        categories: Category of each instruction, CSV or JSON; implies `by_category`.
        by_category: Whether to add the figures of each category.
        baseline: Name of the baseline, for annotations that do not name it.
        bootstrap: Replicates for 95 % intervals.
        seed: Random seed of the bootstrap.

    Raises:
        Error: A file cannot be read, a model has no verdict, or a model was judged twice.

    >>> verdict = {"instruction": "Hi", "output_1": "a", "output_2": "b", "generator_1": "base", "generator_2": "ours"}
    >>> verdict["annotator"] = "judge"
    >>> [ours] = win_rates([{**verdict, "preference": 2.0}, {**verdict, "instruction": "Ho", "preference": 1.5}])
    >>> ours.model, ours.win_rate, ours.n_total
    ('ours', 75.0, 2)
    """
    frame: Any = annotations
    if hasattr(frame, "to_json") and hasattr(frame, "columns"):
        given: list[Any] = json.loads(frame.to_json(orient="records"))
    else:
        given = [annotations] if isinstance(annotations, (str, os.PathLike)) else list(annotations)
    paths = [found for one in given if isinstance(one, (str, os.PathLike)) for found in _named(one)]
    if paths and not all(isinstance(one, (str, os.PathLike)) for one in given):
        raise TypeError("`annotations` holds paths and other values, expected either paths or dicts")
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            # A model that the verdicts do not name is named after the folder.
            path = os.path.join(folder, "annotations", "annotations.json")
            os.mkdir(os.path.dirname(path))
            with open(path, "w", encoding="utf-8") as file:
                json.dump([dict(one) for one in given], file)
            paths = [path]
        text = _native.win_rates(
            paths, gamed, difficulty, weights, categories, by_category, baseline, int(bootstrap), int(seed)
        )
    entries, notices = json.loads(text)
    for notice in notices:
        warnings.warn(notice, UserWarning, stacklevel=2)
    empty = [entry["model"] for entry in entries if entry["n_total"] == 0]
    if empty or not entries:
        raise _native.Error(f"no verdict on {', '.join(empty) or 'any model'}, expected some")
    rates = WinRates()
    for entry in entries:
        rates.append(
            WinRate(
                model=entry["model"],
                win_rate=entry["win_rate"],
                standard_error=entry["standard_error"],
                length_controlled_winrate=entry["length_controlled_winrate"],
                lc_standard_error=entry["lc_standard_error"],
                n_total=entry["n_total"],
                avg_length=entry["avg_length"],
                details=entry,
            )
        )
    return rates
