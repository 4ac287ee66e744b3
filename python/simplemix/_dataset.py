"""A mixture as a `datasets.Dataset`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from . import _native

if TYPE_CHECKING:
    from ._mixture import Mixture

#: Rows that are gathered and written together.
ROWS = 1 << 16


def features(mixture: Mixture, schema: Any) -> datasets.Features:
    """Features of the sources where all of them that are data sets agree, such as `ClassLabel`; else those of the Arrow types."""
    found = datasets.Features.from_arrow_schema(schema.remove_metadata())
    known = [source.features for source in mixture._taken if source.features is not None]
    for name in found:
        of_sources = [one[name] for one in known if name in one]
        if not of_sources or len(known) < len(mixture._taken) or any(one != of_sources[0] for one in of_sources):
            continue
        kind = datasets.Features({name: of_sources[0]}).arrow_schema.field(name).type
        if kind == schema.field(name).type:
            found[name] = of_sources[0]
    return found


def in_memory(mixture: Mixture, split: Any) -> datasets.Dataset:
    rows = mixture.to_table()
    table = pa.table(rows)
    info = datasets.DatasetInfo(features=features(mixture, table.schema))
    # Without one, `datasets` makes a fingerprint of a pickle of all rows, in five times their memory.
    fingerprint = hashlib.sha256(f"{rows.blake3()} {info.features!r}".encode()).hexdigest()[:16]
    return datasets.Dataset(InMemoryTable(table), info=info, split=split, fingerprint=fingerprint)


def in_file(mixture: Mixture, path: str, overwrite: bool, split: Any) -> datasets.Dataset:
    if os.path.exists(path) and not overwrite:
        raise _native.Error(f"{path} exists; give overwrite=True to write it anew")
    folder = os.path.dirname(os.path.abspath(path))
    handle, sibling = tempfile.mkstemp(prefix=os.path.basename(path) + ".", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            first = pa.table(mixture[:1])
            of_mixture = features(mixture, first.schema)
            schema = of_mixture.arrow_schema
            with pa.ipc.new_stream(file, schema) as writer:
                for start in range(0, len(mixture), ROWS):
                    writer.write_table(pa.table(mixture[start : start + ROWS]).cast(schema))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(sibling, 0o666 & ~_umask())
        os.replace(sibling, path)
    except BaseException:
        os.unlink(sibling)
        raise
    return datasets.Dataset.from_file(path, info=datasets.DatasetInfo(features=of_mixture), split=split)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
