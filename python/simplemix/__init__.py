"""Exact, resumable mixtures of preference data, for TRL and PyTorch.

A mixture says which row of which source stands at each position. Its shares are exact in every prefix and every batch, the row at a
position depends on settings, seed and position alone, and so resuming needs one integer.

>>> import simplemix as sm
>>> off = sm.Table.from_rows([{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(300)])
>>> on = sm.Table.from_rows([{"prompt": f"{i}!", "chosen": "yes", "rejected": "no"} for i in range(80)])
>>> mix = sm.Mixture({"off": off, "on": on}, {"off": "1/2", "on": "1/2"}, total=100, seed=7, batch=10)
>>> print(mix.plan())
source    rows      of  repeats  epochs
off         50     300        0       1
on          50      80        0       1
100 pairs; no prefix strays from a share by more than 0.5 pairs, every batch holds the shares
>>> mix[0]["source"], len(mix[:10])
('off', 10)

Neither torch nor pyarrow nor datasets is imported until something needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._files import Conversion, Summary, convert, inspect, read_pairs
from ._interleave import interleave_datasets
from ._mixture import At, Mixture, Plan, PlannedSource, Promise, hand_over, mix_files, verify
from ._native import Error, __version__
from ._table import Table

if TYPE_CHECKING:
    from . import alpaca as alpaca
    from . import torch as torch
    from . import track as track
    from . import trl as trl

__all__ = [
    "At",
    "Conversion",
    "Error",
    "Mixture",
    "Plan",
    "PlannedSource",
    "Promise",
    "Summary",
    "Table",
    "__version__",
    "alpaca",
    "convert",
    "hand_over",
    "inspect",
    "interleave_datasets",
    "mix_files",
    "read_pairs",
    "torch",
    "track",
    "trl",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in ("alpaca", "torch", "track", "trl"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
