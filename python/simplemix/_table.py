"""Tables in memory, which any library with Arrow's PyCapsule interface takes without a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import _native


class Table:
    """Rows and their columns, as Arrow.

    `pyarrow.table(t)`, `polars.DataFrame(t)` and `datasets.Dataset(pyarrow.table(t))` take one without copying.

    >>> t = Table.from_rows([{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}])
    >>> len(t), t.column_names, t[0]["chosen"]
    (1, ['prompt', 'chosen', 'rejected'], '4')
    """

    __slots__ = ("_native",)

    def __init__(self, data: object) -> None:
        """Takes `data`: anything with `__arrow_c_stream__` or `__arrow_c_array__`."""
        self._native: _native.Table
        if isinstance(data, Table):
            self._native = data._native
        else:
            self._native = data if isinstance(data, _native.Table) else _native.Table.from_arrow(data)

    @staticmethod
    def from_rows(rows: Iterable[Mapping[str, Any]]) -> Table:
        """A table of dicts of texts, numbers, lists and dicts; types come from the rows.

        Raises `Error` if a column holds values of two types.
        """
        return Table(_native.Table.from_json("\n".join(json.dumps(row) for row in rows)))

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return self._native.column_names

    @property
    def column_types(self) -> list[str]:
        """Arrow types of the columns, in order."""
        return self._native.column_types

    @property
    def nbytes(self) -> int:
        """Bytes in memory of what the columns refer to."""
        return self._native.nbytes

    def blake3(self) -> str:
        """blake3 of names, types and values, in hex. It does not depend on batches, nor on which of Arrow's texts and lists a library
        uses.

        >>> len(Table.from_rows([{"a": 1}]).blake3())
        64
        """
        return self._native.blake3()

    def __len__(self) -> int:
        return len(self._native)

    def __getitem__(self, row: int) -> dict[str, Any]:
        place = row + len(self) if row < 0 else row
        if not 0 <= place < len(self):
            raise IndexError(f"row {row} of a table of {len(self)} rows")
        return self._native.rows(place, place + 1)[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), 1000):
            yield from self._native.rows(start, start + 1000)

    def to_rows(self) -> list[dict[str, Any]]:
        """All rows, as dicts."""
        return self._native.rows(0, len(self))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        return self._native.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self._native.__arrow_c_schema__()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (self._native.to_ipc(),))

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {kind}" for name, kind in zip(self.column_names, self.column_types, strict=True))
        return f"simplemix.Table({len(self)} rows; {columns})"


def _unpickled(bytes: bytes) -> Table:
    return Table(_native.Table.from_ipc(bytes))
