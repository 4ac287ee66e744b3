"""Mixtures of tables: what is refused, then draws, slices, plans, receipts, pickles and forks."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from fractions import Fraction

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import simplemix as sm


def rows(name: str, count: int) -> list[dict[str, object]]:
    return [{"prompt": f"{name} {i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(count)]


def table(name: str, count: int) -> pa.Table:
    return pa.Table.from_pylist(rows(name, count))


def two(**settings: object) -> sm.Mixture:
    given = {"weights": {"off": "1/2", "on": "1/2"}, "total": 100, "seed": 7, **settings}
    return sm.Mixture({"off": table("off", 300), "on": table("on", 80)}, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"total": 200}, "source `on` has 80 rows, but the mixture needs 100; make it smaller, or allow 2 epochs"),
        ({"weights": {"off": -1, "on": 1}}, "weight of source `off` is `-1`, expected a number >= 0 such as"),
        ({"weights": {"off": float("nan"), "on": 1}}, "weight of source `off` is `nan`, expected a number >= 0"),
        ({"weights": {"off": 1}}, "weight of source `on` is not set, expected a weight for every source"),
        ({"weights": {"of": 1, "on": 1}}, "`weights` names `of`, expected one of the sources off, on"),
        ({"weights": {"off": 0, "on": 0}}, "all weights are 0, expected one above 0"),
        ({"batch": 0}, "`batch` is 0, expected at least 1"),
        ({"total": -1}, "`total` is -1, expected a whole number from 0"),
        ({"shares": "exakt"}, "`shares` is `exakt`, expected exact, bernoulli"),
        ({"order": "shuffle"}, "mixture: unknown variant `shuffle`, expected one of `interleaved`, `batch-shuffled`"),
        ({"exhaustion": "first-exhausted", "epochs": 2}, "`epochs` is 2 beside exhaustion=`first-exhausted`"),
        ({"columns": ["prompt", "score"]}, "source `off` has no column `score`, which `columns` names"),
        ({"columns": "most"}, "columns: unknown variant `most`"),
        ({"source_column": "prompt"}, "the sources have a column `prompt` of their own"),
        ({"routing": {"default": {"off": 1}}}, "source `off` has no column `task`, which routing by task needs"),
        ({"routing": {"defaults": {}}, "task_column": "prompt"}, "routing: unknown field `defaults`"),
        ({"schedule": {"points": [{"at": 0}], "curve": "linear"}}, "a point of `schedule` is {'at': 0}"),
        ({"schedule": {"points": [], "curve": "sine"}}, "mixture: unknown variant `sine`"),
        ({"tokens": {"on": 3}, "shares": "tokens"}, "source `off` has no token count"),
        ({"seed": 1 << 64}, "`seed` is 18446744073709551616"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(settings: dict[str, object], text: str) -> None:
    with pytest.raises(sm.Error) as error:
        two(**settings)
    assert text in str(error.value)
    assert isinstance(error.value, ValueError)


def test_sources_that_are_no_tables_are_refused() -> None:
    for value, text in [
        (3, "source `a`: int was given, expected a table with Arrow's PyCapsule interface"),
        ([1], "source `a`: list was given"),
        (None, "source `a`: NoneType was given"),
    ]:
        with pytest.raises(TypeError, match=text.replace("(", r"\(")):
            sm.Mixture({"a": value}, seed=1)
    with pytest.raises(TypeError, match="`sources` is a list"):
        sm.Mixture([1], seed=1)  # type: ignore[arg-type]
    with pytest.raises(sm.Error, match="a mixture needs at least one source|no column in common"):
        sm.Mixture({}, seed=1)
    with pytest.raises(sm.Error, match="expected one of structs"):
        sm.Mixture({"a": pa.array([1, 2])}, seed=1)
    with pytest.raises(TypeError):
        two(seed="7")
    with pytest.raises(TypeError):
        two(weights={"off": True, "on": 1})


def test_columns_must_be_alike_or_a_rule_says_what_to_do() -> None:
    off = table("off", 4).append_column("score", pa.array([0.5] * 4))
    sources = {"off": off, "on": table("on", 4)}
    with pytest.raises(sm.Error, match="source `on` has no column `score`, which source `off` has"):
        sm.Mixture(sources, seed=1)
    assert sm.Mixture(sources, seed=1, columns="common").column_names == ["prompt", "chosen", "rejected", "source"]
    mix = sm.Mixture(sources, seed=1, columns="all")
    scores = {row["source"]: row["score"] for row in mix}
    assert scores == {"off": 0.5, "on": None}
    assert sm.Mixture(sources, seed=1, columns=["chosen"], source_column=None).column_names == ["chosen"]
    odd = table("on", 4).set_column(0, "prompt", pa.array([1, 2, 3, 4]))
    with pytest.raises(sm.Error, match="column `prompt` is Utf8 in source `off` and Int64 in source `on`, expected one type"):
        sm.Mixture({"off": table("off", 4), "on": odd}, seed=1)


def test_draws_slices_and_rows_are_one() -> None:
    mix = two(batch=10)
    assert len(mix) == 100 and mix.counts() == {"off": 50, "on": 50}
    whole = pa.table(mix[:])
    assert whole.column_names == ["prompt", "chosen", "rejected", "source"]
    sources = {"off": rows("off", 300), "on": rows("on", 80)}
    for position, row in enumerate(whole.to_pylist()):
        at = mix.at(position)
        assert row == {**sources[at.source][at.row], "source": at.source}
        assert at.epoch == 0
    assert list(mix) == whole.to_pylist()
    assert mix[-1] == whole.to_pylist()[-1]
    assert pa.table(mix[10:90:7]).to_pylist() == whole.to_pylist()[10:90:7]
    assert pa.table(mix.take([5, 5, 0])).to_pylist() == [whole.to_pylist()[i] for i in (5, 5, 0)]
    assert len(mix[60:40]) == 0 and pa.table(mix[60:40]).column_names == whole.column_names
    draws = pa.table(mix.draws(step=3)).to_pylist()
    expected = [mix.at(position) for position in range(0, 100, 3)]
    assert [(mix.names[draw["source"]], draw["row"], draw["epoch"]) for draw in draws] == expected
    for batch in range(10):
        part = whole.column("source").to_pylist()[batch * 10 : batch * 10 + 10]
        assert part.count("on") == 5
    with pytest.raises(IndexError):
        mix[100]
    with pytest.raises(sm.Error, match="a step of -1"):
        mix[::-1]
    with pytest.raises(sm.Error, match="position 100 is beyond the 100"):
        mix.take([100])


def test_many_rows_go_through_threads_in_order() -> None:
    big = sm.Mixture({"a": table("a", 30_000), "b": table("b", 20_000)}, seed=3, total=40_000)
    whole = pa.table(big.to_table())
    assert whole.num_rows == 40_000
    assert whole.slice(31_111, 1).to_pylist()[0] == big[31_111]
    draws = pa.table(big.draws())
    assert draws.num_rows == 40_000 and draws.slice(39_999, 1).to_pylist()[0]["row"] == big.at(39_999).row


def test_plan_and_promise_come_before_any_row() -> None:
    mix = two(batch=10)
    plan = mix.plan()
    assert [(one.name, one.available, one.rows, one.repeats) for one in plan.sources] == [("off", 300, 50, 0), ("on", 80, 50, 0)]
    assert mix.promise == sm.Promise(prefix=0.5, batches=True)
    assert "every batch holds the shares" in str(plan)
    drawn = two(shares="bernoulli", total=60)
    assert drawn.promise.prefix is None and "hold on average" in str(drawn.plan())


def test_weights_are_exact() -> None:
    same = [
        {"off": 0.3, "on": 0.7},
        {"off": "3/10", "on": Fraction(7, 10)},
        {"off": 3, "on": 7},
        {"off": "30%", "on": "70%"},
    ]
    orders = [[mix.at(i) for i in range(80)] for mix in (two(weights=weights, total=80) for weights in same)]
    assert all(order == orders[0] for order in orders)
    assert two(weights=same[0], total=80).counts() == {"off": 24, "on": 56}
    numpy = pytest.importorskip("numpy")
    assert two(weights={"off": numpy.float64(0.3), "on": numpy.int64(1)}, total=13).counts() == {"off": 3, "on": 10}


def test_schedules_routing_repeats_and_tokens() -> None:
    mix = two(schedule=sm.hand_over("1/2", "1/2") | {"curve": "step"}, total=100)
    assert (mix.counts(50), mix.counts(100)) == ({"off": 50, "on": 0}, {"off": 50, "on": 50})
    named = {"curve": "step", "points": [{"at": 0, "weights": {"off": 1}}, {"at": 0.5, "weights": {"on": 1}}]}
    assert [two(schedule=named).at(i) for i in range(100)] == [mix.at(i) for i in range(100)]
    tasks = pa.array(["math", "poetry"] * 50)
    sources = {name: table(name, 100).append_column("task", tasks) for name in ("off", "on")}
    routing = {"tasks": {"math": {"off": 0.2, "on": 0.8}}, "default": {"off": 0.75, "on": 0.25}}
    routed = sm.Mixture(sources, total=80, seed=1, routing=routing)
    counts: dict[tuple[str, str], int] = {}
    for row in routed:
        counts[row["task"], row["source"]] = counts.get((row["task"], row["source"]), 0) + 1
    assert counts == {("math", "off"): 8, ("math", "on"): 32, ("poetry", "off"): 30, ("poetry", "on"): 10}
    assert all(routed[i]["prompt"].startswith(routed.at(i).source) for i in range(80))
    repeated = two(total=320, epochs=2)
    assert repeated.counts() == {"off": 160, "on": 160} and repeated.plan().sources[1].repeats == 80
    # Rows of `on` are twice as long, so half of the tokens is a third of the rows.
    tokens = two(shares="tokens", tokens={"off": 300, "on": 160}, total=90)
    assert tokens.counts() == {"off": 60, "on": 30}


def test_tables_of_all_libraries_give_the_same_rows() -> None:
    plain = list(two())
    on = pl.DataFrame(rows("on", 80))
    mix = sm.Mixture({"off": pd.DataFrame(rows("off", 300)), "on": on}, total=100, seed=7)
    assert list(mix) == plain
    chunks = pa.concat_tables([table("off", 300).slice(0, 7), table("off", 300).slice(7)])
    large = pa.schema([(name, pa.large_string()) for name in ("prompt", "chosen", "rejected")])
    mix = sm.Mixture({"off": chunks.to_reader(), "on": table("on", 80).cast(large)}, total=100, seed=7)
    assert list(mix) == plain
    batch = pa.RecordBatch.from_pylist(rows("on", 80))
    assert list(sm.Mixture({"off": sm.Table.from_rows(rows("off", 300)), "on": batch}, total=100, seed=7)) == plain
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        relation = connection.from_arrow(table("on", 80))
        assert list(sm.Mixture({"off": table("off", 300), "on": relation}, total=100, seed=7)) == plain
    assert pl.DataFrame(mix[:5]).rows(named=True) == plain[:5]
    assert pd.DataFrame.from_arrow(mix[:5]).to_dict("records") == plain[:5]


def test_messages_and_nested_values_stay_as_they_are() -> None:
    def talk(text: str) -> list[dict[str, object]]:
        return [{"role": "user", "content": text, "tool_calls": None}, {"role": "assistant", "content": None, "tool_calls": ["f"]}]

    given = [{"chosen": talk(f"{i}"), "score": i / 2, "flags": [True, None], "n": i, "raw": b"x"} for i in range(20)]
    arrow = pa.Table.from_pylist(given)
    mix = sm.Mixture({"a": arrow, "b": pl.DataFrame(arrow)}, seed=5, source_column=None)
    assert sorted((row["n"] for row in mix)) == sorted(list(range(20)) * 2)
    assert all(row == given[row["n"]] for row in mix)


def test_a_receipt_makes_and_proves_the_mixture() -> None:
    mix = two(batch=10)
    receipt = json.loads(json.dumps(mix.receipt(ranks=2)))
    assert receipt["achieved"]["sources"][1]["share"] == 0.5 and receipt["achieved"]["prefix_discrepancy"] <= 0.5
    assert receipt["achieved"]["batch_discrepancy"] == 0.0
    assert sum(receipt["achieved"]["sources"][0]["ranks"]) == 50
    assert receipt == two(batch=10).receipt(ranks=2)
    data = pa.table(mix[:])
    assert sm.verify(receipt, data) == 100 == mix.verify(data)
    assert sm.verify(receipt, pl.DataFrame(data)) == 100 == mix.verify(data.append_column("extra", pa.array(range(100))))
    other = data.to_pylist()
    other[57]["chosen"] = "maybe"
    changed = pa.Table.from_pylist(other)
    with pytest.raises(sm.Error, match="position 57, column `chosen`: found maybe, expected yes"):
        mix.verify(changed)
    with pytest.raises(sm.Error, match="the rows have the blake3"):
        sm.verify(receipt, changed)
    with pytest.raises(sm.Error, match="99 rows were found, expected the 100"):
        mix.verify(data.slice(1))
    with pytest.raises(sm.Error, match="99 rows were found, expected the 100"):
        sm.verify(receipt, data.slice(0, 99))
    with pytest.raises(sm.Error, match="no `blake3`"):
        sm.verify({"plan": []}, data)
    assert two(seed=8).receipt()["blake3"] != receipt["blake3"]


def test_pickles_and_processes_see_the_same_rows() -> None:
    mix = two(batch=10)
    again = pickle.loads(pickle.dumps(mix))
    assert list(again) == list(mix) and again.receipt() == mix.receipt()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(mix.__getitem__, [3, 50]) == [mix[3], mix[50]]


def test_a_fork_after_long_work_does_not_wait_for_lost_threads() -> None:
    big = sm.Mixture({"a": table("a", 30_000)}, seed=3)
    expected = big.to_table().blake3()
    child = os.fork()
    if child == 0:
        same = big.to_table().blake3() == expected
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
