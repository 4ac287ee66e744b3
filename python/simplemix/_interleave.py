"""`interleave_datasets` under the signature of `datasets`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _native

if TYPE_CHECKING:
    from datasets import Dataset, DatasetInfo, NamedSplit


def interleave_datasets(
    datasets: Sequence[Dataset],
    probabilities: Sequence[float] | None = None,
    seed: int | None = None,
    info: DatasetInfo | None = None,
    split: NamedSplit | None = None,
    stopping_strategy: str = "first_exhausted",
    *,
    exact: bool = False,
) -> Dataset:
    """Interleaves map-style data sets: the rows of `datasets.interleave_datasets` (5.x), in its order, or exact shares.

    Args:
        datasets: Data sets to interleave; an `IterableDataset` is refused.
        probabilities: Probability of each data set, of sum 1; without, they take turns.
        seed: Random seed. Without one, NumPy would draw from the system's entropy, and so does this.
        info: As in `datasets`.
        split: As in `datasets`.
        stopping_strategy: `first_exhausted`, `all_exhausted` or `all_exhausted_without_replacement`.
        exact: Whether every prefix has the shares to within a row, where independent draws hold them on average. The rows of a data
            set then come in its order too, and nothing is random. Refuses `all_exhausted_without_replacement`, whose shares change.

    Raises:
        Error: What `datasets` refuses too, or would never end.

    >>> from datasets import Dataset
    >>> a, b = Dataset.from_dict({"x": [0, 1, 2]}), Dataset.from_dict({"x": [10, 11, 12, 13]})
    >>> interleave_datasets([a, b])["x"][:]
    [0, 10, 1, 11, 2, 12]
    >>> interleave_datasets([a, b], [0.5, 0.5], seed=42, exact=True)["x"][:4]
    [0, 10, 1, 11]
    """
    import datasets as hf

    if not datasets:
        raise _native.Error("`datasets` is empty, expected at least one datasets.Dataset")
    for number, one in enumerate(datasets):
        if not isinstance(one, hf.Dataset):
            kind = type(one).__name__
            raise TypeError(
                f"data set {number} is a {kind}, expected a datasets.Dataset; datasets.interleave_datasets interleaves streams"
            )
    rows = [len(one) for one in datasets]
    if exact:
        indices = _exact(rows, probabilities, seed, stopping_strategy)
    else:
        drawn = int.from_bytes(os.urandom(8), "big") >> 1 if seed is None else seed
        indices = _native.interleave(rows, None if probabilities is None else list(probabilities), drawn, stopping_strategy)
    import pyarrow as pa

    index = pa.table(indices).column("index")
    whole: Any = hf.concatenate_datasets(list(datasets), info=info, split=split)
    selected: Dataset = whole.select(index.to_numpy().astype("int64", copy=False))
    return selected


def _exact(rows: list[int], probabilities: Sequence[float] | None, seed: int | None, stopping: str) -> _native.Table:
    from ._mixture import draws_of

    rules = {"first_exhausted": "first-exhausted", "all_exhausted": "all-exhausted"}
    if stopping not in rules:
        raise _native.Error(
            f"`stopping_strategy` is `{stopping}`, expected first_exhausted or all_exhausted, since exact shares never change"
        )
    weights: Sequence[float] = [1.0] * len(rows) if probabilities is None else probabilities
    if len(weights) != len(rows):
        raise _native.Error(f"`probabilities` is a list of {len(weights)}, expected one for each source")
    return draws_of(rows, weights, 0 if seed is None else seed, rules[stopping])
