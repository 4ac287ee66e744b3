"""Whatever crosses the border comes back as a value or as an exception with our words: nothing panics."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simplemix as sm

cells = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)


def tables(min_rows: int = 0) -> st.SearchStrategy[pa.Table]:
    def of(rows: list[dict[str, Any]]) -> pa.Table | None:
        try:
            return pa.Table.from_pylist(rows)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return None

    row = st.fixed_dictionaries({"x": cells}, optional={"y": cells})
    return st.lists(row, min_size=min_rows, max_size=12).map(of).filter(lambda table: table is not None)  # type: ignore[return-value]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isnan(a) and math.isnan(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


weights = st.integers(0, 10**6) | st.floats(0, 1e6) | st.text(max_size=6) | st.fractions(0, 100)


@settings(max_examples=150, deadline=None)
@given(
    first=tables(1),
    second=tables(),
    of=st.tuples(weights, weights),
    total=st.none() | st.integers(0, 40),
    batch=st.none() | st.integers(0, 9),
    seed=st.integers(0, 2**64 - 1),
    columns=st.sampled_from(["same", "common", "all"]),
    shares=st.sampled_from(["exact", "bernoulli", "bernoulli-replace", "quota", "tokens"]),
    exhaustion=st.sampled_from(["refuse", "first-exhausted", "all-exhausted"]),
    order=st.sampled_from(["interleaved", "batch-shuffled"]),
)
def test_any_tables_and_settings_mix_or_are_refused(
    first: pa.Table, second: pa.Table, of: tuple[Any, Any], total: Any, batch: Any, seed: int, columns: str, shares: str, exhaustion: str, order: str
) -> None:
    try:
        mix = sm.Mixture(
            {"a": first, "b": second},
            {"a": of[0], "b": of[1]},
            total=total,
            batch=batch,
            seed=seed,
            columns=columns,
            shares=shares,
            exhaustion=exhaustion,
            order=order,
        )
    except sm.Error as error:
        assert str(error) and "panicked" not in str(error)
        return
    if len(mix) > 2000:
        return
    data = pa.table(mix[:])
    assert data.num_rows == len(mix) == mix.verify(data)
    sources = {"a": first.to_pylist(), "b": second.to_pylist()}
    for position, row in enumerate(data.to_pylist()):
        at = mix.at(position)
        source = sources[at.source][at.row]
        assert row.pop("source") == at.source
        for name, value in row.items():
            assert same(value, source.get(name))


def test_text_that_is_no_utf8_is_refused_by_its_column() -> None:
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"), pa.py_buffer(b"a\xff\xfe"))
    nested = pa.ListArray.from_arrays([0, 1, 2], bad)
    for table in [pa.table({"id": [1, 2], "text": bad}), pa.table({"id": [1, 2], "text": nested})]:
        for given_table in [table, table.to_batches()[0]]:
            with pytest.raises(sm.Error, match="column `text` cannot be read.*"):
                sm.Table(given_table)
        with pytest.raises(sm.Error, match="column `text`"):
            sm.Mixture({"a": table}, seed=1)
    # Rows before the bad one are fine; of a list the whole child comes along.
    assert len(sm.Table(pa.table({"text": bad}).slice(0, 1))) == 1


@settings(max_examples=150, deadline=None)
@given(tables(1))
def test_rows_are_those_of_pyarrow(table: pa.Table) -> None:
    try:
        ours = sm.Table(table)
    except sm.Error as error:
        # pyarrow takes bytes beside texts for text, whatever they are.
        assert "cannot be read" in str(error)
        return
    assert len(ours) == table.num_rows
    try:
        rows = ours.to_rows()
    except sm.Error as error:
        assert "has no plain Python values" in str(error)
        return
    assert all(same(a, b) for a, b in zip(rows, table.to_pylist(), strict=True))
    assert ours.blake3() == sm.Table(pa.concat_tables([table.slice(0, 1), table.slice(1)])).blake3()


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.integers(), max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["total", "batch", "seed", "shares", "order", "rows", "exhaustion", "epochs", "schedule", "routing", "tokens", "columns"]), values))
def test_any_value_of_a_setting_is_taken_or_refused(given_settings: dict[str, Any]) -> None:
    table = pa.table({"x": ["a", "b", "c"], "task": ["m", "m", "p"]})
    try:
        mix = sm.Mixture({"a": table, "b": table}, **{"seed": 1, **given_settings})
        assert len(mix) > 0
    except (sm.Error, TypeError, AttributeError) as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["jsonl", "json", "parquet", "arrow", "jsonl.gz"]))
def test_any_file_is_read_or_refused(tmp_path_factory: Any, content: bytes, ending: str) -> None:
    path = tmp_path_factory.mktemp("any") / f"x.{ending}"
    path.write_bytes(content)
    for call in (sm.read_pairs, sm.inspect):
        try:
            call(path)
        except sm.Error as error:
            assert "x." in str(error)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"instruction": st.text(max_size=5)}, optional={"preference": values, "generator_2": values, "output_2": values}), max_size=4))
def test_any_annotations_are_read_or_refused(rows: list[dict[str, Any]]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sm.alpaca.win_rates(rows)
    except (sm.Error, ValueError) as error:
        assert str(error)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_broken_pickles_are_refused(content: bytes) -> None:
    from simplemix import _native

    try:
        _native.Table.from_ipc(content)
    except (sm.Error, RuntimeError) as error:
        assert str(error)
