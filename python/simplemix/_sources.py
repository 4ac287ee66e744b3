"""Sources of a mixture: a path, a `datasets.Dataset`, or anything with Arrow's PyCapsule interface."""

from __future__ import annotations

import os
from typing import Any

from . import _files, _native
from ._table import Table


class Source:
    """One source, taken."""

    __slots__ = ("count", "features", "path", "pickled", "rows", "table")

    def __init__(self, table: _native.Table, rows: _native.Table | None, count: int, features: Any, path: str | None, pickled: object) -> None:
        self.table = table
        #: Rows of the table that are the source's, if not all are.
        self.rows = rows
        #: Rows of the source.
        self.count = count
        #: Features of a `datasets.Dataset`.
        self.features = features
        #: Path, for a source that was read.
        self.path = path
        #: The object that is pickled in place of the table.
        self.pickled = pickled


def take_all(sources: dict[str, object], reading: dict[str, Any]) -> list[Source]:
    """Takes the sources. Paths are read together, so that they have the same columns."""
    paths = {name: os.fspath(value) for name, value in sources.items() if isinstance(value, (str, os.PathLike))}
    read = _read(paths, reading)
    return [read[name] if name in read else take(name, value) for name, value in sources.items()]


def _read(paths: dict[str, str], reading: dict[str, Any]) -> dict[str, Source]:
    if not paths:
        return {}
    # A first look: one source with messages makes all of them messages.
    tables: dict[str, _native.Table] = {}
    for again in (False, True):
        for name, path in paths.items():
            options = {**reading, "source": name, "canonical": True}
            tables[name] = _files.read([path], options, warn=not again)
        columns = {tuple(zip(table.column_names, table.column_types, strict=True)) for table in tables.values()}
        if len(columns) == 1:
            break
        reading = {**reading, "messages": True}
    taken = {}
    for name, table in tables.items():
        taken[name] = Source(table, None, len(table), None, paths[name], Table(table))
    return taken


def take(name: str, value: object) -> Source:
    """Takes one source that is no path."""
    module = type(value).__module__.partition(".")[0]
    kind = type(value).__name__
    if module == "datasets":
        if kind != "Dataset":
            hint = "pick one of its splits" if kind.endswith("DatasetDict") else "a mixture needs to know its rows"
            raise TypeError(f"source `{name}` is a datasets.{kind}, expected a datasets.Dataset: {hint}")
        table = _native.Table.from_arrow(_arrow(value.data))  # type: ignore[attr-defined]
        indices = value._indices  # type: ignore[attr-defined]
        rows = None if indices is None else _native.Table.from_arrow(_arrow(indices))
        return Source(table, rows, len(value), value.features, None, value)  # type: ignore
    try:
        table = value._native if isinstance(value, Table) else _native.Table.from_arrow(value)
    except TypeError as error:
        raise TypeError(f"source `{name}`: {error}") from None
    except _native.Error as error:
        raise _native.Error(f"source `{name}`: {error}") from None
    return Source(table, None, len(table), None, None, Table(table))


def _arrow(table: Any) -> Any:
    # `datasets` wraps the tables of pyarrow.
    return getattr(table, "table", table)


def whole(value: object) -> _native.Table:
    """All rows of a path, a `datasets.Dataset` or a table, in order."""
    if isinstance(value, (str, os.PathLike)):
        return _files.read([value], {}, warn=True)
    source = take("data", value)
    if source.rows is None:
        return source.table
    return _native.Table.from_arrow(value.with_format("arrow")[:])  # type: ignore[attr-defined]
