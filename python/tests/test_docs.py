"""The examples of docstrings are run."""

from __future__ import annotations

import doctest

import pytest

import simplemix
from simplemix import _files, _interleave, _mixture, _table, alpaca, track


@pytest.mark.parametrize("module", [simplemix, _files, _interleave, _mixture, _table, alpaca, track])
def test_examples_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0 and found.failed == 0


def test_everything_public_has_a_docstring() -> None:
    without = [name for name in simplemix.__all__ if name not in ("trl", "torch", "__version__") and not getattr(simplemix, name).__doc__]
    assert not without
