"""Mixtures: which row of which source stands at each position."""

from __future__ import annotations

import json
import numbers
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

from . import _native, _sources
from ._table import Table

if TYPE_CHECKING:
    from fractions import Fraction

    from datasets import Dataset, NamedSplit

    from .torch import MixtureDataset

#: A weight: a number, a fraction, or a text such as `"1/3"` or `"50%"`.
Weight: TypeAlias = "int | float | str | Fraction"

_SHARES: dict[str, object] = {
    "exact": "exact",
    "bernoulli": {"bernoulli": {"replace": False}},
    "bernoulli-replace": {"bernoulli": {"replace": True}},
    "quota": "quota",
    "tokens": "tokens",
}


class At(NamedTuple):
    """Source, row and epoch at a position."""

    #: Name of the source.
    source: str
    #: Row of the source, from zero.
    row: int
    #: Pass over the source, from zero.
    epoch: int


class PlannedSource(NamedTuple):
    """Rows that one source gives over the whole mixture; with routing, one task of a source."""

    #: Name of the source, or `source/task`.
    name: str
    #: Rows that it has.
    available: int
    #: Rows that it gives, repeats included.
    rows: int
    #: Rows that come more than once.
    repeats: int
    #: Passes over it that are begun.
    epochs: int


class Promise(NamedTuple):
    """Bounds on how far a mixture strays from its shares."""

    #: Most pairs by which any prefix strays from a share; `None` if sources are drawn at random.
    prefix: float | None
    #: Whether every batch holds each share, rounded up or down.
    batches: bool


class Plan(NamedTuple):
    """Rows and promise of a mixture, before a row is gathered. Printing it shows a table."""

    sources: list[PlannedSource]
    promise: Promise
    #: Number of pairs.
    total: int

    def __str__(self) -> str:
        width = max([6, *(len(source.name) for source in self.sources)])
        lines = [f"{'source':<{width}}  {'rows':>6}  {'of':>6}  repeats  epochs"]
        for one in self.sources:
            lines.append(f"{one.name:<{width}}  {one.rows:>6}  {one.available:>6}  {one.repeats:>7}  {one.epochs:>6}")
        parts = []
        if self.promise.prefix is None:
            parts.append("shares hold on average")
        else:
            parts.append(f"no prefix strays from a share by more than {self.promise.prefix:g} pairs")
        if self.promise.batches:
            parts.append("every batch holds the shares")
        return "\n".join([*lines, f"{self.total} pairs; {', '.join(parts)}"])


def hand_over(start: Weight, end: Weight) -> dict[str, Any]:
    """A schedule of the first source alone up to `start`, the second alone from `end`, and a straight line between them; both are
    fractions of the run.

    >>> hand_over(0, "1/2")["points"][1]
    {'at': '1/2', 'weights': ['0', '1']}
    """
    points = [{"at": _weight("start", start), "weights": ["1", "0"]}, {"at": _weight("end", end), "weights": ["0", "1"]}]
    return {"curve": "linear", "points": points}


class Mixture:
    """A mixture of sources: exact shares, any position at once, resumed by one integer.

    It is a sequence of rows (dicts), so a `torch.utils.data.DataLoader` takes it as it is; slices are Arrow tables; `to_dataset`
    and `to_iterable` give what TRL and PyTorch train on. Settings mean what they mean for `simplemix mix` (docs/mixing.md), with the
    same defaults, so both give the same rows in the same order from the same rows.

    Args:
        sources: Name -> source: a `datasets.Dataset`; a table of pyarrow, polars, pandas, DuckDB or another library with Arrow's
            PyCapsule interface; or a path, read as by `read_pairs`. At most 64.
        weights: Name -> weight, relative to the others; equal weights by default. Exact fractions: `0.3` is 3/10.
        total: Number of pairs. By default, as many as no source has to repeat.
        seed: Random seed.
        batch: Batch size over all ranks and accumulation steps. Every batch then holds each share, rounded up or down.
        shares: Meaning of the weights: `exact`, `bernoulli` (sources drawn independently), `bernoulli-replace` (rows too), `quota`
            (numbers of pairs) or `tokens` (shares of response tokens; needs `tokens`).
        order: Order within a batch: `interleaved`, or `batch-shuffled`.
        rows: Order within a source: `shuffled`, anew in each epoch, or `file`.
        exhaustion: Rule for a source that is too small: `refuse`, `first-exhausted` or `all-exhausted`.
        epochs: Most passes over a source; then a source that is too small repeats.
        schedule: Shares that change over the run: `{"curve": "linear", "points": [{"at": 0, "weights": ...}, ...]}`, where weights
            are by name or in the order of the sources. See `hand_over`.
        routing: Shares by task: `{"tasks": {"math": {"off": 0.2, "on": 0.8}}, "default": {...}, "shares": {...}}`.
        task_column: Column of the tasks, for routing.
        tokens: Name -> response tokens of all its rows together, for shares and totals in tokens.
        total_tokens: Number of response tokens, in place of `total`.
        columns: Columns of the mixture: `"same"` (all sources must have the same ones), `"common"` (those that all have), `"all"`
            (missing ones are null), or a list of names.
        source_column: Name of the column that holds the source of each row, or `None` for no such column. Files that are read have
            it already.

    Raises:
        Error: Settings that do not go together, or do not fit the sources.
        TypeError: A source is none of the above.

    >>> rows = [{"prompt": str(i), "chosen": "yes", "rejected": "no"} for i in range(8)]
    >>> mix = Mixture({"off": Table.from_rows(rows), "on": Table.from_rows(rows)}, {"off": 3, "on": 1}, total=8, seed=1)
    >>> [mix.at(i).source for i in range(4)]
    ['off', 'off', 'on', 'off']
    >>> mix.promise.prefix <= 1
    True
    """

    def __init__(
        self,
        sources: Mapping[str, object],
        weights: Mapping[str, Weight] | None = None,
        *,
        total: int | None = None,
        seed: int,
        batch: int | None = None,
        shares: str = "exact",
        order: str = "interleaved",
        rows: str = "shuffled",
        exhaustion: str = "refuse",
        epochs: int | None = None,
        schedule: Mapping[str, Any] | None = None,
        routing: Mapping[str, Any] | None = None,
        task_column: str = "task",
        tokens: Mapping[str, int] | None = None,
        total_tokens: int | None = None,
        columns: str | Sequence[str] = "same",
        source_column: str | None = "source",
    ) -> None:
        if not isinstance(sources, Mapping):
            raise TypeError(f"`sources` is a {type(sources).__name__}, expected a dict of names and sources")
        names = [str(name) for name in sources]
        for key, given in (("weights", weights), ("tokens", tokens)):
            _check_names(key, given, names)
        if weights is not None:
            for name in names:
                if name not in weights:
                    raise _native.Error(f"weight of source `{name}` is not set, expected a weight for every source, or for none")
        if epochs is not None and exhaustion != "refuse":
            raise _native.Error(f"`epochs` is {epochs} beside exhaustion=`{exhaustion}`, expected only one of the two")
        if shares not in _SHARES:
            raise _native.Error(f"`shares` is `{shares}`, expected {', '.join(_SHARES)}")
        reading: dict[str, Any] = {}
        taken = _sources.take_all(dict(zip(names, sources.values(), strict=True)), reading)
        config: dict[str, Any] = {
            "sources": [
                {
                    "name": name,
                    "rows": source.count,
                    "weight": "1" if weights is None else _weight(name, weights[name]),
                    **({} if tokens is None or name not in tokens else {"tokens": _whole("tokens", tokens[name])}),
                }
                for name, source in zip(names, taken, strict=True)
            ],
            "shares": _SHARES[shares],
            "size": None if total is None else _whole("total", total),
            "size_tokens": None if total_tokens is None else _whole("total_tokens", total_tokens),
            "batch": None if batch is None else _whole("batch", batch),
            "order": order,
            "schedule": None if schedule is None else _schedule(schedule, names),
            "exhaustion": exhaustion if epochs is None else {"repeat": {"epochs": _whole("epochs", epochs)}},
            "rows": rows,
            "seed": _whole("seed", seed),
        }
        self._build(names, taken, config, columns, source_column, None if routing is None else _plain(routing), task_column)

    def _build(
        self,
        names: list[str],
        taken: list[_sources.Source],
        config: dict[str, Any],
        columns: str | Sequence[str],
        source_column: str | None,
        routing: Any,
        task_column: str,
    ) -> None:
        rule: object = columns if isinstance(columns, str) else {"named": list(columns)}
        # Files that are read name their source in a column of the canonical schema.
        given = None if source_column == "source" and any(source.path is not None for source in taken) else source_column
        if given is None and source_column is not None and any(source.path is None for source in taken):
            raise _native.Error(
                "sources are files and tables; files have a column `source` when they are read, and tables have not: read the files "
                "with simplemix.read_pairs(path, source=NAME), give the tables such a column, and set source_column=None"
            )
        self._native = _native.Mixture(
            json.dumps(config),
            [source.table for source in taken],
            [source.rows for source in taken],
            json.dumps(rule),
            given,
            None if routing is None else json.dumps(routing),
            task_column,
        )
        self._names, self._taken, self._config = names, taken, config
        self._settings = (columns, source_column, routing, task_column)

    @property
    def names(self) -> list[str]:
        """Names of the sources, in order."""
        return list(self._names)

    @property
    def seed(self) -> int:
        """The random seed."""
        seed: int = self._config["seed"]
        return seed

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of its rows."""
        return [name for name, _ in self._native.columns]

    def __len__(self) -> int:
        return len(self._native)

    def plan(self) -> Plan:
        """Rows that each source gives, and the promise; nothing is gathered."""
        sources, promise = json.loads(self._native.plan())
        planned = [
            PlannedSource(one["name"], one["available"], one["rows"], one["repeats"], one["epochs"]) for one in sources
        ]
        return Plan(planned, Promise(promise["prefix"], promise["batches"]), len(self))

    @property
    def promise(self) -> Promise:
        """Bounds on how far it strays from its shares."""
        return self.plan().promise

    def at(self, position: int) -> At:
        """Source, row and epoch at a position. Positions past the end continue in the same shares.

        The time that it takes does not depend on the position.
        """
        source, row, epoch = self._native.at(_whole("position", position))
        return At(self._names[source], row, epoch)

    def draws(self, start: int = 0, stop: int | None = None, step: int = 1) -> Table:
        """Source and row at each of `range(start, stop, step)`: a table of `source` (its number), `row`, `epoch`."""
        end = len(self) if stop is None else _whole("stop", stop)
        if _whole("step", step) == 0:
            raise _native.Error("`step` is 0, expected at least 1")
        return Table(self._native.draws(_whole("start", start), end, step))

    def counts(self, end: int | None = None) -> dict[str, int]:
        """Rows of each source among the first `end` positions; of all by default."""
        counts = self._native.counts(len(self) if end is None else _whole("end", end))
        return {name: count for name, (count, _) in zip(self._names, counts, strict=True)}

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Table:
        """A row as a dict, or a slice as an Arrow table. Steps below 1 are refused."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 1:
                raise _native.Error(f"the slice has a step of {step}, expected at least 1")
            return Table(self._native.take(start, max(start, stop), step))
        place = index.__index__()
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(f"position {index} of a mixture of {len(self)} pairs")
        return self._native.take(place, place + 1, 1).rows(0, 1)[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """The rows at several positions, which a `DataLoader` asks for together."""
        table = self._native.take_positions([int(position) for position in positions])
        return table.rows(0, len(table))

    def take(self, positions: Sequence[int]) -> Table:
        """The rows at these positions, in this order, as an Arrow table."""
        return Table(self._native.take_positions([_whole("position", position) for position in positions]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.iter_from(0)

    def iter_from(self, position: int) -> Iterator[dict[str, Any]]:
        """The rows from `position` on, as dicts."""
        for start in range(position, len(self), 1000):
            yield from self._native.take(start, min(start + 1000, len(self)), 1).rows(0, 1000)

    def to_table(self) -> Table:
        """All rows, in memory."""
        return Table(self._native.take(0, len(self), 1))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        return self.to_table().__arrow_c_stream__(requested_schema)

    def to_dataset(
        self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False, split: NamedSplit | None = None
    ) -> Dataset:
        """A `datasets.Dataset` of the mixture, in its order, with the features of the sources.

        For `DPOTrainer`, set `train_sampling_strategy="sequential"` in `DPOConfig`: by default it shuffles, and then batches hold the
        shares on average only.

        Args:
            path: Arrow file to write and map, so that memory holds only what is being used. In memory by default.
            overwrite: Whether to write the file anew if it exists.
            split: Name of the split.
        """
        from ._dataset import in_file, in_memory

        if path is None:
            return in_memory(self, split)
        return in_file(self, os.fspath(path), overwrite, split)

    def to_iterable(self, rank: int = 0, world_size: int = 1, *, batch_size: int | None = None) -> MixtureDataset:
        """A `torch.utils.data.IterableDataset` of the rows of one rank, with `state_dict` and `load_state_dict`.

        Args:
            rank: Rank of this process. With accelerate or `Trainer`, which deal rows out themselves, leave rank and world size.
            world_size: Number of ranks; rank r has the positions r, r + world_size, ...
            batch_size: Rows that `DataLoader(batch_size=...)` puts into one batch. Workers need it, to keep the order.
        """
        from .torch import MixtureDataset

        return MixtureDataset(self, rank, world_size, batch_size=batch_size)

    def receipt(self, ranks: int = 1) -> dict[str, Any]:
        """Enough to make the mixture again and to check that it is the same: settings, blake3 of the rows of every source and of the
        mixture, plan, promise, and the shares that were achieved. JSON holds it.

        Args:
            ranks: Number of ranks to which positions are dealt in turn, for the counts by rank.
        """
        sources, promise = json.loads(self._native.plan())
        columns, source_column, routing, task_column = self._settings
        origins = []
        for name, source in zip(self._names, self._taken, strict=True):
            rows = None if source.rows is None else source.rows.blake3()
            origin = {"name": name, "rows": source.count, "blake3": source.table.blake3(), "selection_blake3": rows}
            origins.append({**origin, "path": source.path})
        return {
            "version": 1,
            "tool": f"simplemix {_native.__version__} (Python)",
            "mixture": json.loads(json.dumps(self._config)),
            "columns": columns if isinstance(columns, str) else list(columns),
            "source_column": source_column,
            "routing": routing,
            "task_column": task_column,
            "origins": origins,
            "plan": sources,
            "promise": promise,
            "achieved": json.loads(self._native.achieved(_whole("ranks", ranks))),
            "blake3": self._native.blake3(),
        }

    def verify(self, data: object) -> int:
        """Checks that `data` is this mixture, row for row: a `datasets.Dataset`, an Arrow table, or a file. Columns beside those of the
        mixture are ignored. Returns the number of rows.

        Raises:
            Error: The first row that differs, with its column and both values.
        """
        found = self._native.difference(_sources.whole(data))
        if found is None:
            return len(self)
        position, column, expected, value = found
        if column == "rows":
            raise _native.Error(f"{value} rows were found, expected the {expected} of the mixture")
        raise _native.Error(f"position {position}, column `{column}`: found {value}, expected {expected}")

    def __reduce__(self) -> tuple[Any, ...]:
        pickled = [(source.pickled, source.path) for source in self._taken]
        return (_restore, (self._names, pickled, self._config, self._settings))

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        return f"simplemix.Mixture({len(self)} pairs: {rows}; seed {self.seed})"


def _restore(names: list[str], pickled: list[tuple[object, str | None]], config: dict[str, Any], settings: Any) -> Mixture:
    taken = []
    for name, (value, path) in zip(names, pickled, strict=True):
        source = _sources.take(name, value)
        source.path = path
        taken.append(source)
    columns, source_column, routing, task_column = settings
    mixture = Mixture.__new__(Mixture)
    mixture._build(names, taken, config, columns, source_column, routing, task_column)
    return mixture


def mix_files(
    sources: Mapping[str, str | os.PathLike[str]],
    output: str | os.PathLike[str],
    weights: Mapping[str, Weight] | None = None,
    *,
    seed: int,
    total: int | None = None,
    total_tokens: int | None = None,
    batch: int | None = None,
    shares: str = "exact",
    order: str = "interleaved",
    rows: str = "shuffled",
    exhaustion: str = "refuse",
    epochs: int | None = None,
    schedule: Mapping[str, Any] | None = None,
    routing: Mapping[str, Any] | None = None,
    prompts: str = "any",
    messages: bool = False,
    max_length_difference: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    memory: int = 256,
    ranks: int = 1,
    report: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Mixes files into one file, as `simplemix mix` does, in bounded memory. Returns the plan, the promise and what was achieved.

    Args:
        sources: Name -> file, folder of shards or pattern, of any schema that `read_pairs` knows.
        output: File to write: .parquet, .arrow or .jsonl. It appears whole or not at all.
        weights: As for `Mixture`, like `seed` to `routing`; tokens are counted here.
        prompts: Treatment of prompts that several sources have: `any`, `disjoint`, `adjacent`, `apart` or `crossed`.
        messages: Whether bare text becomes messages.
        max_length_difference: Largest difference between the lengths of a pair's responses; others are left out and counted.
        tokenizer: Model folder whose tokenizer counts lengths; without one they are in bytes.
        memory: Megabytes of rows held in memory; rows beyond go to a temporary file beside the output.
        ranks: Number of processes that will train on it, for the report.
        report: Receipt to write, which `verify` checks.
        overwrite: Whether to write output and receipt anew if they exist.

    Raises:
        Error: Settings that do not go together, or files that cannot be used.
    """
    if shares not in _SHARES:
        raise _native.Error(f"`shares` is `{shares}`, expected {', '.join(_SHARES)}")
    if epochs is not None and exhaustion != "refuse":
        raise _native.Error(f"`epochs` is {epochs} beside exhaustion=`{exhaustion}`, expected only one of the two")
    for path in (output, report):
        if path is not None and os.path.exists(path) and not overwrite:
            raise _native.Error(f"{os.fspath(path)} exists; give overwrite=True to write it anew")
    names = [str(name) for name in sources]
    _check_names("weights", weights, names)
    of_sources = []
    for name, value in zip(names, sources.values(), strict=True):
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"source `{name}` is a {type(value).__name__}, expected a path; Mixture takes tables")
        weight = None if weights is None or name not in weights else _weight(name, weights[name])
        of_sources.append({"name": name, "path": os.fspath(value), **({} if weight is None else {"weight": weight})})
    settings = {
        "source": of_sources,
        "output": os.fspath(output),
        "seed": _whole("seed", seed),
        "size": None if total is None else _whole("total", total),
        "size_tokens": None if total_tokens is None else _whole("total_tokens", total_tokens),
        "batch": None if batch is None else _whole("batch", batch),
        "shares": _SHARES[shares],
        "order": order,
        "rows": rows,
        "exhaustion": exhaustion if epochs is None else {"repeat": {"epochs": _whole("epochs", epochs)}},
        "schedule": None if schedule is None else _schedule(schedule, names),
        "routing": None if routing is None else _plain(routing),
        "prompts": prompts,
        "messages": messages,
        "max_length_difference": None if max_length_difference is None else _whole("max_length_difference", max_length_difference),
        "tokenizer": None if tokenizer is None else os.fspath(tokenizer),
        "memory": _whole("memory", memory),
        "ranks": _whole("ranks", ranks),
        "report": None if report is None else os.fspath(report),
    }
    done, notices = json.loads(_native.mix_files(json.dumps(settings)))
    for notice in notices:
        warnings.warn(notice, UserWarning, stacklevel=2)
    report_of: dict[str, Any] = done
    return report_of


def verify(receipt: Mapping[str, Any] | str | os.PathLike[str], data: object = None) -> int:
    """Checks a receipt: that `data` holds the rows of one of `Mixture.receipt`, or that the files of one of `mix_files` or `simplemix mix`
    are what they were and give the same bytes. Returns the number of pairs.

    Args:
        receipt: The receipt, or the path of a JSON file of it.
        data: A `datasets.Dataset`, an Arrow table, or a file, with the columns of the mixture in their order; none for a receipt of files.

    Raises:
        Error: The rows or files are others.
    """
    if isinstance(receipt, (str, os.PathLike)):
        path = os.fspath(receipt)
        with open(path, encoding="utf-8") as file:
            receipt = json.load(file)
        if isinstance(receipt, Mapping) and "output_blake3" in receipt:
            if data is not None:
                raise _native.Error(f"{path} is a receipt of files, expected no `data` beside it")
            pairs: int = json.loads(_native.verify_files(path))["pairs"]
            return pairs
    if data is None:
        raise _native.Error("the receipt is one of rows, expected `data` to compare with it")
    if not isinstance(receipt, Mapping) or not isinstance(expected := receipt.get("blake3"), str):
        raise _native.Error("the receipt has no `blake3`, expected one of Mixture.receipt()")
    table = _sources.whole(data)
    found, planned = table.blake3(), receipt["achieved"]["pairs"]
    if len(table) != planned:
        raise _native.Error(f"{len(table)} rows were found, expected the {planned} of the receipt")
    if found != expected:
        raise _native.Error(f"the rows have the blake3 {found}, expected {expected}: a value, a column or the order is another")
    return len(table)


def draws_of(rows: list[int], weights: Sequence[float], seed: int, exhaustion: str) -> _native.Table:
    """Rows of concatenated sources in the order of their exact mixture, in file order, as one column `index`."""
    names = [str(number) for number in range(len(rows))]
    config = {
        "sources": [
            {"name": name, "rows": count, "weight": _weight(name, weight)}
            for name, count, weight in zip(names, rows, weights, strict=True)
        ],
        "rows": "file",
        "exhaustion": exhaustion,
        "seed": _whole("seed", seed),
    }
    return _native.exact_index(json.dumps(config))


def _check_names(key: str, given: Mapping[str, Any] | None, names: list[str]) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"`{key}` is a {type(given).__name__}, expected a dict with a value for each source")
    for name in given:
        if name not in names:
            raise _native.Error(f"`{key}` names `{name}`, expected one of the sources {', '.join(names)}")


def _whole(key: str, value: Any) -> int:
    """A whole number from 0 to 2^64 - 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"`{key}` is {value!r}, expected a whole number")
    number: int = value.__index__()
    if not 0 <= number < 1 << 64:
        raise _native.Error(f"`{key}` is {number}, expected a whole number from 0 to 2^64 - 1")
    return number


def _weight(name: str, value: Weight) -> str:
    """A weight as text, exactly: floats by their shortest decimal form."""
    if isinstance(value, bool):
        raise TypeError(f"weight of source `{name}` is {value}, expected a number >= 0 such as 0.5, 3, \"1/3\" or \"50%\"")
    if isinstance(value, str):
        text = value
    elif isinstance(value, numbers.Rational):
        text = f"{value.numerator}/{value.denominator}" if value.denominator != 1 else str(value.numerator)
    elif isinstance(value, numbers.Real) or hasattr(value, "__float__"):
        text = repr(float(value))
    else:
        raise TypeError(f"weight of source `{name}` is {value!r}, expected a number >= 0 such as 0.5, 3, \"1/3\" or \"50%\"")
    above, below = _native.weight(name, text)
    return str(above) if below == 1 else f"{above}/{below}"


def _plain(value: Any) -> Any:
    """Settings as JSON holds them, with weights as exact texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, int)):
        return _weight("routing", value)  # type: ignore[arg-type]
    return value


def _schedule(schedule: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    points = []
    for point in schedule.get("points", []):
        weights = point.get("weights") if isinstance(point, Mapping) else None
        if isinstance(weights, Mapping):
            _check_names("schedule", weights, names)
            weights = [weights.get(name, 0) for name in names]
        if not isinstance(weights, (list, tuple)) or "at" not in point:
            raise _native.Error(f"a point of `schedule` is {point!r}, expected {{\"at\": fraction, \"weights\": weights}}")
        others = {key: value for key, value in point.items() if key not in ("at", "weights")}
        exact = [_weight(name, weight) for name, weight in zip(names, weights)] + [str(extra) for extra in weights[len(names) :]]
        points.append({"at": _weight("at", point["at"]), "weights": exact, **others})
    return {**schedule, "points": points}
