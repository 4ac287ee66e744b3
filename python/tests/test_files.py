"""Files of pairs: reading, summaries, conversion, and mixtures of paths."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

import simplemix as sm


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def plain(name: str, count: int) -> list[dict[str, object]]:
    return [{"prompt": f"{name} {i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(count)]


def talk(count: int) -> list[dict[str, object]]:
    def turns(i: int, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"talk {i}?"}, {"role": "assistant", "content": answer}]

    return [{"chosen": turns(i, "yes"), "rejected": turns(i, "no")} for i in range(count)]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(sm.Error, match="missing.jsonl"):
        sm.read_pairs(tmp_path / "missing.jsonl")
    odd = write(tmp_path / "odd.jsonl", [{"a": 1}])
    with pytest.raises(sm.Error, match="odd.jsonl"):
        sm.read_pairs(odd)
    good = write(tmp_path / "good.jsonl", plain("a", 3))
    for options, text in [
        ({"format": "yaml"}, "`format` is `yaml`"),
        ({"policy": "maybe"}, "`policy` is `maybe`, expected on or off"),
        ({"policy": "on", "our_models": ["m"]}, "`policy` and `our_models` are both given"),
        ({"ranked": "worst"}, "`ranked` is `worst`, expected best-worst"),
    ]:
        with pytest.raises(sm.Error) as error:
            sm.read_pairs(good, **options)  # type: ignore[arg-type]
        assert text in str(error.value)
    same = write(tmp_path / "same.jsonl", [{"prompt": "?", "chosen": "a", "rejected": "a"}])
    with pytest.raises(sm.Error, match="no usable pairs.*identical-sides"):
        sm.read_pairs(same)


def test_pairs_are_read_and_refusals_are_told(tmp_path: Path) -> None:
    rows = [*plain("a", 4), {"prompt": "?", "chosen": "same", "rejected": "same"}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.warns(UserWarning, match="5 rows, 4 pairs; refused: identical-sides 1"):
        pairs = sm.read_pairs(path, policy="on")
    assert len(pairs) == 4 and {row["policy"] for row in pairs} == {"on"} and pairs[2]["prompt"] == "a 2?"
    loaded = datasets.Dataset.from_list(pairs.to_rows())
    assert loaded["source"][0] == "a"
    [summary] = sm.inspect(path)
    assert (summary.rows, summary.pairs, summary.format) == (5, 4, "explicit-text")
    assert summary.details["chars"]["prompt"]["max"] == 4.0 and "refused" in str(summary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sm.read_pairs([write(tmp_path / "b.jsonl", plain("b", 2)), write(tmp_path / "c.jsonl", plain("c", 1))])) == 3


def test_conversion_writes_what_datasets_loads(tmp_path: Path) -> None:
    scored = [{**row, "score_chosen": float(i), "score_rejected": 0.0} for i, row in enumerate(plain("a", 6))]
    path = write(tmp_path / "a.jsonl", scored)
    done = sm.convert(path, tmp_path / "a.parquet", filter={"margin_min": 2.0})
    assert (done.pairs, done.left_out) == (4, {"margin": 2})
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"))
    assert loaded["prompt"][:] == ["a 2?", "a 3?", "a 4?", "a 5?"]
    with pytest.raises(sm.Error, match="exists; give overwrite=True"):
        sm.convert(path, tmp_path / "a.parquet")
    with pytest.raises(sm.Error, match="filter: unknown field `margins`"):
        sm.convert(path, tmp_path / "b.parquet", filter={"margins": 2})
    with pytest.raises(sm.Error, match="no pair passes the filter: margin 6"):
        sm.convert(path, tmp_path / "b.parquet", filter={"margin_min": 100.0})
    with pytest.raises(sm.Error, match="which is read, expected another file"):
        sm.convert(path, path, overwrite=True)
    assert not (tmp_path / "b.parquet").exists()


def test_paths_are_sources(tmp_path: Path) -> None:
    off, on = write(tmp_path / "off.jsonl", plain("off", 20)), write(tmp_path / "on.jsonl", plain("on", 20))
    mix = sm.Mixture({"off": off, "on": str(on)}, total=20, seed=1)
    assert [row["source"] for row in mix] == [mix.at(i).source for i in range(20)]
    assert all(row["prompt"].startswith(row["source"]) for row in mix)
    receipt = mix.receipt()
    assert receipt["origins"][0]["path"] == str(off)
    pq.write_table(__import__("pyarrow").table(mix[:]), tmp_path / "mix.parquet")
    assert mix.verify(datasets.Dataset.from_parquet(str(tmp_path / "mix.parquet"))) == 20
    talks = write(tmp_path / "talk.jsonl", talk(20))
    both = sm.Mixture({"off": off, "talk": talks}, total=20, seed=1)
    assert all(isinstance(row["chosen"], list) for row in both)
    tables = {"off": off, "on": sm.Table.from_rows(plain("on", 4))}
    with pytest.raises(sm.Error, match="sources are files and tables"):
        sm.Mixture(tables, seed=1)


def test_files_are_mixed_as_the_program_does(tmp_path: Path) -> None:
    off, on = write(tmp_path / "off.jsonl", plain("off", 40)), write(tmp_path / "on.jsonl", plain("on", 30))
    out, receipt = tmp_path / "mix.parquet", tmp_path / "mix.json"
    weights = {"off": "2/3", "on": "1/3"}
    done = sm.mix_files({"off": off, "on": on}, out, weights, total=45, seed=5, batch=9, report=receipt)
    assert [(source["name"], source["tally" if "tally" in source else "pairs"]) for source in done["achieved"]["sources"]] == [("off", 30), ("on", 15)]
    data = datasets.Dataset.from_parquet(str(out))
    # The mixture of the same files in memory has the same rows.
    mix = sm.Mixture({"off": off, "on": on}, weights, total=45, seed=5, batch=9)
    assert mix.verify(data) == 45 and data["prompt"][:] == [row["prompt"] for row in mix]
    assert sm.verify(receipt) == 45
    with pytest.raises(sm.Error, match="expected no `data` beside it"):
        sm.verify(receipt, data)
    with pytest.raises(sm.Error, match="expected `data` to compare with it"):
        sm.verify(mix.receipt())
    with pytest.raises(sm.Error, match="exists; give overwrite=True"):
        sm.mix_files({"off": off}, out, seed=1)
    with pytest.raises(sm.Error, match="source `on` has 30 rows, but the mixture needs 100"):
        sm.mix_files({"off": off, "on": on}, tmp_path / "b.parquet", {"off": 0, "on": 1}, total=100, seed=1)
    with pytest.raises(TypeError, match="expected a path; Mixture takes tables"):
        sm.mix_files({"off": sm.Table.from_rows([{"x": 1}])}, tmp_path / "b.parquet", seed=1)  # type: ignore[dict-item]
    write(on, plain("on", 31))
    with pytest.raises(sm.Error, match="source `on` has changed"):
        sm.verify(receipt)
