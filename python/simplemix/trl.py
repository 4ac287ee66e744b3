"""Metrics by source in TRL's `DPOTrainer`: `rewards/margins@on`, `rewards/accuracies@on` and the rest.

TRL averages its metrics over the batch, so a source that is being unlearnt hides behind the others. `SourceMetrics` splits TRL's own
figures by the column `source`; it computes no reward itself.

    import simplemix as sm
    from trl import DPOConfig, DPOTrainer

    class Trainer(sm.trl.SourceMetrics, DPOTrainer):
        pass

    trainer = Trainer(
        model,
        args=DPOConfig(..., train_sampling_strategy="sequential"),
        train_dataset=mix.to_dataset(),
    )

`train_sampling_strategy="sequential"` keeps the order of the mixture. TRL's default shuffles all rows: the shares then hold over the run,
but neither in a batch nor in a prefix, and a schedule is lost.

Tested with TRL 1.16. A release that computes its metrics in another way is refused by name at the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from . import _native

#: Metrics of TRL that are split, if they are logged.
METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)

#: Key of a batch under which the numbers of its pairs' sources stand.
KEY = "source_numbers"


class SourceCollator:
    """A data collator that adds the number of each pair's source to what another one makes, as `source_numbers`.

    Args:
        collator: The collator that makes the batch, such as TRL's.
        names: Names of the sources; a pair of another source, or of none, has the number -1 and is in no metric by source.
        column: Column that holds the source of a row.
    """

    def __init__(self, collator: Callable[..., Any], names: Sequence[str], column: str = "source") -> None:
        self.collator, self.names, self.column = collator, list(names), column
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __call__(self, examples: list[dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
        numbers = [self._numbers.get(example.get(self.column), -1) for example in examples]  # type: ignore[arg-type]
        batch: dict[str, Any] = dict(self.collator(examples, *args, **kwargs))
        batch[KEY] = torch.tensor(numbers, dtype=torch.long)
        return batch


class _Watched(list[Any]):
    """The values of one of TRL's metrics, which tells when one is added."""

    def __init__(self, values: Iterable[Any], seen: Callable[[Any], None]) -> None:
        super().__init__(values)
        self._seen = seen

    def append(self, value: Any) -> None:
        super().append(value)
        self._seen(value)


if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object


class SourceMetrics(_Base):  # type: ignore[misc]
    """Mixin for `DPOTrainer`, before it in the list of bases: adds each of `METRICS` by source, such as `rewards/margins@on`, and
    `pairs@on`, the pairs of the source since the last log.

    They are means over the pairs of a source since the last log, over all ranks. A source without a pair has no entry. Evaluation has
    the same with the prefix `eval_`.

    Names of the sources are found in the column `source` of the data sets; set the class attribute `source_names` for an
    `IterableDataset`, and `source_column` for a column of another name.
    """

    source_names: Sequence[str] | None = None
    source_column: str = "source"
    data_collator: Any
    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = self.source_names
        if names is None:
            names = _names([self.train_dataset, self.eval_dataset], self.source_column)
        self._source_names = list(names)
        self._by_source: dict[str, dict[str, torch.Tensor]] = {"train": {}, "eval": {}}
        self.data_collator = SourceCollator(self.data_collator, self._source_names, self.source_column)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.source_column not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, self.source_column]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        numbers = inputs.pop(KEY, None)
        if numbers is None:
            raise _native.Error(
                f"a batch has no `{KEY}`: the data collator was replaced after the trainer was made; wrap the new one in "
                "simplemix.trl.SourceCollator"
            )
        mode = "train" if self.model.training else "eval"
        with self._watching(mode, numbers):
            return super().compute_loss(model, inputs, *args, **kwargs)

    @contextmanager
    def _watching(self, mode: str, numbers: torch.Tensor) -> Any:
        """Takes the values of each pair as TRL gathers them, and knows them by the mean that TRL then notes down."""
        gather, metrics = self.accelerator.gather, self._metrics[mode]
        sources = gather(numbers)
        # Gathered and not yet noted down, oldest first.
        pending: list[torch.Tensor] = []
        split: set[str] = set()

        def gathering(tensor: Any) -> Any:
            gathered = gather(tensor)
            if isinstance(gathered, torch.Tensor) and gathered.shape == sources.shape:
                pending.append(gathered)
            return gathered

        def seen(name: str, value: float) -> None:
            for place, values in enumerate(pending):
                if not values.is_floating_point():
                    continue
                mean = values.mean().item()
                if mean == value or mean != mean and value != value:
                    split.add(name)
                    self._add(mode, name, pending.pop(place).detach().double(), sources)
                    return

        for name in METRICS:
            metrics[name] = _Watched(metrics[name], partial(seen, name))
        self.accelerator.gather = gathering
        try:
            yield
        finally:
            del self.accelerator.gather
            for name in METRICS:
                metrics[name] = list(metrics[name])
        missing = [name for name in METRICS if name not in split]
        if missing:
            import trl

            raise _native.Error(
                f"TRL {trl.__version__} does not gather {', '.join(missing)} pair by pair, expected 1.16, or one that does as "
                "it does; train without simplemix.trl.SourceMetrics"
            )
        self._add(mode, "pairs", torch.ones_like(sources, dtype=torch.double), sources)

    def _add(self, mode: str, name: str, values: torch.Tensor, sources: torch.Tensor) -> None:
        # Rows of sums and counts by source; pairs of no known source are left out.
        kept = sources >= 0
        count = len(self._source_names)
        sums = torch.zeros(2, count, dtype=torch.double, device=values.device)
        sums[0].index_add_(0, sources[kept], values[kept])
        sums[1].index_add_(0, sources[kept], torch.ones_like(values[kept]))
        sums = sums.cpu()
        known = self._by_source[mode].get(name)
        self._by_source[mode][name] = sums if known is None else known + sums

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        mode = "train" if self.model.training else "eval"
        prefix = "eval_" if mode == "eval" else ""
        for name, (sums, counts) in self._by_source[mode].items():
            for source, total, count in zip(self._source_names, sums.tolist(), counts.tolist(), strict=True):
                if count > 0:
                    logs[f"{prefix}{name}@{source}"] = total if name == "pairs" else total / count
        self._by_source[mode].clear()
        super().log(logs, *args, **kwargs)


def _names(data: list[Any], column: str) -> list[str]:
    """Names of the sources in some data sets."""
    flat = [one for value in data for one in (value.values() if isinstance(value, dict) else [value]) if one is not None]
    names: set[str] = set()
    for one in flat:
        if not hasattr(one, "unique"):
            raise _native.Error(
                f"the sources of a {type(one).__name__} are not known before it is read: set the trainer's class attribute "
                "source_names, such as to mix.names"
            )
        if column in one.column_names:
            names.update(name for name in one.unique(column) if name is not None)
    if not names:
        raise _native.Error(f"no data set has a column `{column}` with names of sources, expected that of Mixture.to_dataset()")
    return sorted(names)
