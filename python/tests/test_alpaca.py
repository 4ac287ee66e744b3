"""Win rates from annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import simplemix as sm


def verdicts(model: str, preferences: list[float | None]) -> list[dict[str, object]]:
    return [
        {
            "instruction": f"Do {i}",
            "output_1": "base " * (i + 1),
            "output_2": "ours " * (2 * i + 1),
            "generator_1": "base",
            "generator_2": model,
            "annotator": "judge",
            "preference": preference,
        }
        for i, preference in enumerate(preferences)
    ]


def test_win_rates_need_verdicts(tmp_path: Path) -> None:
    with pytest.raises(sm.Error, match="missing.json"):
        sm.alpaca.win_rates(tmp_path / "missing.json")
    with pytest.raises(sm.Error, match="no verdict on m, expected some"), pytest.warns(UserWarning, match="without a verdict"):
        sm.alpaca.win_rates(verdicts("m", [None]))
    with pytest.raises(TypeError, match="paths and other values"):
        sm.alpaca.win_rates([tmp_path / "a.json", {}])
    twice = [*verdicts("m", [1.0]), *({**row, "annotator": "other"} for row in verdicts("m", [2.0]))]
    with pytest.raises(sm.Error, match="judged by judge against base already"):
        sm.alpaca.win_rates(twice)


def test_win_rates_are_means_of_verdicts(tmp_path: Path) -> None:
    rows = verdicts("weak", [1.0, 1.25, 1.5]) + verdicts("strong", [2.0, 1.75, 1.5])
    rates = sm.alpaca.win_rates(rows)
    assert [(one.model, one.win_rate, one.n_total) for one in rates] == [("strong", 75.0, 3), ("weak", 25.0, 3)]
    assert rates[0].length_controlled_winrate is None and rates[0].details["n_draws"] == 1
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    assert list(sm.alpaca.win_rates(path)) == list(rates) == list(sm.alpaca.win_rates(pd.DataFrame(rows)))
    assert "strong" in str(rates)
    with_intervals = sm.alpaca.win_rates(rows, bootstrap=50, seed=3)
    assert with_intervals[0].details["win_rate_interval"]["low"] <= 75.0 <= with_intervals[0].details["win_rate_interval"]["high"]


def test_length_control_needs_the_gamed_rows(tmp_path: Path) -> None:
    gamed = tmp_path / "df_gamed.csv"
    with pytest.raises(sm.Error, match="df_gamed.csv"):
        sm.alpaca.win_rates(verdicts("m", [2.0, 1.0]), gamed=gamed)
