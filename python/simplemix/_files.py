"""Files of preference pairs: reading any of 21 schemas, summaries, conversion."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import _native
from ._table import Table

#: A path, folder or pattern, or several of them.
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def _listed(paths: Paths) -> list[str | os.PathLike[str]]:
    if isinstance(paths, (str, os.PathLike)):
        return [os.fspath(paths)]
    return [os.fspath(path) for path in paths]


def _reading(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def read(paths: Paths, options: dict[str, Any], *, warn: bool) -> _native.Table:
    table, told = _native.read_pairs(_listed(paths), json.dumps(options))
    reports, left_out = json.loads(told)
    if warn:
        _warn(reports, left_out)
    return table


def _warn(reports: list[dict[str, Any]], left_out: list[str]) -> None:
    for report in reports:
        parts = []
        if report["refused"]:
            counts = ", ".join(f"{why} {rows['count']}" for why, rows in report["refused"].items())
            parts.append(f"refused: {counts}")
        for key, what in (
            ("respelt_roles", "roles in other spellings"),
            ("other_roles", "other roles, kept as they stand"),
            ("unread_fields", "fields of turns left out"),
        ):
            if report.get(key):
                parts.append(f"{what}: " + ", ".join(f"{name} {count}" for name, count in report[key].items()))
        if report["unread_scores"]:
            parts.append(f"scores that are no numbers: {report['unread_scores']}")
        if parts:
            text = f"{report['path']}: {report['rows']} rows, {report['pairs']} pairs; " + "; ".join(parts)
            warnings.warn(text, UserWarning, stacklevel=4)
    if left_out:
        text = "columns that not all files have, or with other types, are left out: " + ", ".join(left_out)
        warnings.warn(text, UserWarning, stacklevel=4)


def read_pairs(
    paths: Paths,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    source: str | None = None,
    policy: str | None = None,
    our_models: Sequence[str] | None = None,
    ranked: str | None = None,
    messages: bool = False,
) -> Table:
    """Reads pairs of any known schema into the canonical one, which TRL takes: `prompt`, `chosen`, `rejected` and more.

    Rows that give no pair are counted by reason in a warning. `docs/data.md` of the repository has the schemas.

    Args:
        paths: Files (Parquet, Arrow, JSON, JSON lines, compressed or not), folders of shards, patterns, or several.
        format: Name of the format, such as `explicit-text` or `nectar`. By default it is detected.
        columns: Columns with other names than in the format: name in the format -> name in the file.
        source: Source of all pairs. By default the column `source`, or else the file's name.
        policy: `on` or `off` for all pairs. By default the column `policy`, or else `off`.
        our_models: Models whose responses are on-policy, as the files name them; in place of `policy`.
        ranked: Pairs to make of ranked responses: `best-worst` (default), `best-other`, `all`, or `all:GAP`.
        messages: Whether bare text becomes messages.

    Raises:
        Error: A path, an option or a file cannot be used.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "sums.jsonl")
    >>> with open(path, "w") as file:
    ...     _ = file.write('{"question": "2 + 2?", "chosen": "4", "rejected": "5"}')
    >>> pairs = read_pairs(path, columns={"prompt": "question"})
    >>> pairs[0]["prompt"], pairs[0]["source"], pairs[0]["policy"]
    ('2 + 2?', 'sums', 'off')
    """
    options = _reading(
        format=format,
        columns=None if columns is None else dict(columns),
        source=source,
        policy=policy,
        our_models=None if our_models is None else list(our_models),
        ranked=ranked,
        messages=messages,
    )
    return Table(read(paths, options, warn=True))


class Summary(NamedTuple):
    """Summary of one file, as `simplemix inspect --json` has it."""

    #: Path of the file.
    path: str
    #: Container, such as `parquet`.
    container: str
    #: Format of the rows, such as `explicit-text`.
    format: str
    #: Rows that were read.
    rows: int
    #: Pairs that they gave.
    pairs: int
    #: Rows that gave no pair, by reason: `{"count": ..., "first_rows": [...]}`.
    refused: dict[str, dict[str, Any]]
    #: Pairs with something odd, by what, in the same form.
    findings: dict[str, dict[str, Any]]
    #: Everything, under the names of `simplemix inspect --json`.
    details: dict[str, Any]

    def __str__(self) -> str:
        lines = [str(self.details["text"])]
        for name, rows in self.findings.items():
            lines.append(f"  found: {name} {rows['count']}, first in rows {rows['first_rows']}")
        return "\n".join(lines)


def inspect(paths: Paths, *, similar: bool = False, format: str | None = None, columns: Mapping[str, str] | None = None) -> list[Summary]:
    """Summarises files of pairs: format, rows, sources, tasks, lengths, scores, problems.

    Args:
        paths: As for `read_pairs`.
        similar: Whether to find nearly equal prompts in different files, for 0.7 kB of memory a prompt.
        format: As for `read_pairs`.
        columns: As for `read_pairs`.

    Raises:
        Error: A file cannot be read.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "sums.jsonl")
    >>> with open(path, "w") as file:
    ...     _ = file.write('{"prompt": "2 + 2?", "chosen": "4", "rejected": "4"}')
    >>> [summary] = inspect(path)
    >>> summary.format, summary.pairs, summary.refused["identical-sides"]["count"]
    ('explicit-text', 0, 1)
    """
    options = _reading(format=format, columns=None if columns is None else dict(columns))
    summaries = []
    for found in json.loads(_native.inspect(_listed(paths), json.dumps(options), similar)):
        summaries.append(
            Summary(
                path=found["path"],
                container=found["container"],
                format=found["format"],
                rows=found["rows"],
                pairs=found["pairs"],
                refused=found["refused"],
                findings=found["findings"],
                details=found,
            )
        )
    return summaries


class Conversion(NamedTuple):
    """Account of a conversion."""

    #: Pairs that were written.
    pairs: int
    #: Pairs that the filter left out, by reason.
    left_out: dict[str, int]
    #: Reports of the files that were read.
    reports: list[dict[str, Any]]


def convert(
    paths: Paths,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    filter: Mapping[str, Any] | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    source: str | None = None,
    policy: str | None = None,
    our_models: Sequence[str] | None = None,
    ranked: str | None = None,
    messages: bool = False,
) -> Conversion:
    """Writes pairs of any known schema to one canonical file, which TRL and `datasets` read.

    Args:
        paths: As for `read_pairs`.
        output: File to write: .parquet, .arrow, .jsonl, .jsonl.gz or .jsonl.zst. It appears whole or not at all.
        overwrite: Whether to write it anew if it exists.
        filter: Rules for the pairs to keep, such as `{"margin_min": 0.5, "distinct": True}`.
        format: As for `read_pairs`, like all that follow.

    Raises:
        Error: A path, an option or a file cannot be used, or no pair is left.
    """
    options = _reading(
        format=format,
        columns=None if columns is None else dict(columns),
        source=source,
        policy=policy,
        our_models=None if our_models is None else list(our_models),
        ranked=ranked,
        messages=messages,
    )
    rules = json.dumps({} if filter is None else dict(filter))
    done = json.loads(_native.convert(_listed(paths), os.fspath(output), overwrite, rules, json.dumps(options)))
    _warn(done["reports"], done["columns_left_out"])
    return Conversion(done["pairs"], done["left_out"], done["reports"])
