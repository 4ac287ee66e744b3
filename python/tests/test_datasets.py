"""Against `datasets` itself: the rows of its interleaving, and data sets in and out."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

import simplemix as sm


def numbers(start: int, count: int) -> Dataset:
    return Dataset.from_dict({"x": list(range(start, start + count))})


SIZES = [[3, 4, 5], [1], [7, 1], [40, 900, 300], [5, 5]]


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"])
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_are_those_of_datasets(sizes: list[int], stopping: str) -> None:
    sources = [numbers(1000 * i, size) for i, size in enumerate(sizes)]
    even = [1 / len(sizes)] * len(sizes)
    skewed = [(i + 1) / sum(range(1, len(sizes) + 1)) for i in range(len(sizes))]
    for probabilities in (None, even, skewed):
        for seed in (0, 42, 1 << 40):
            ours = sm.interleave_datasets(sources, probabilities, seed, stopping_strategy=stopping)
            theirs = datasets.interleave_datasets(sources, probabilities, seed, stopping_strategy=stopping)  # type: ignore[arg-type]
            assert ours["x"][:] == theirs["x"][:], (probabilities, seed)
            assert ours.features == theirs.features


def test_what_datasets_refuses_or_never_ends_is_refused() -> None:
    a, b, none = numbers(0, 3), numbers(10, 3), numbers(0, 0)
    for arguments, text in [
        (([a, b], [0.5, 0.6]), "`probabilities` is a list with sum 1.1"),
        (([a, b], [1.0]), "`probabilities` is a list of 1, expected one for each source"),
        (([a, none], [0.5, 0.5], 1), "`probabilities` is above 0 for a source without rows"),
        (([a, b], [1.0, 0.0], 1, None, None, "all_exhausted"), "`probabilities` is 0 for a source that must end"),
        (([a, b], None, 1, None, None, "oversampling"), "`stopping_strategy` is `oversampling`"),
        (([],), "`datasets` is empty"),
    ]:
        with pytest.raises(sm.Error) as error:
            sm.interleave_datasets(*arguments)  # type: ignore[arg-type]
        assert text in str(error.value)
    with pytest.raises(TypeError, match="data set 1 is a IterableDataset"):
        sm.interleave_datasets([a, b.to_iterable_dataset()])  # type: ignore[list-item]
    with pytest.raises(sm.Error, match="since exact shares never change"):
        sm.interleave_datasets([a, b], stopping_strategy="all_exhausted_without_replacement", exact=True)


def test_exact_interleaving_has_the_shares_in_every_prefix() -> None:
    sources = [numbers(0, 4000), numbers(10_000, 4000)]
    rows = sm.interleave_datasets(sources, [0.3, 0.7], seed=1, exact=True)["x"][:]
    for end in range(1, len(rows), 37):
        second = sum(row >= 10_000 for row in rows[:end])
        assert abs(second - 0.7 * end) <= 1
    assert [row for row in rows if row >= 10_000] == list(range(10_000, 10_000 + sum(row >= 10_000 for row in rows)))
    drawn = sm.interleave_datasets(sources, [0.3, 0.7], seed=1)["x"][:]
    assert max(abs(sum(row >= 10_000 for row in drawn[:end]) - 0.7 * end) for end in range(1, 4000, 37)) > 5
    ended = sm.interleave_datasets([numbers(0, 3), numbers(10, 9)], exact=True, stopping_strategy="all_exhausted")["x"][:]
    assert set(ended) == {0, 1, 2, *range(10, 19)}


def pairs(name: str, count: int) -> Dataset:
    features = Features(
        {"prompt": Value("string"), "chosen": Value("string"), "rejected": Value("string"), "label": ClassLabel(names=["a", "b"])}
    )
    rows = {
        "prompt": [f"{name} {i}" for i in range(count)],
        "chosen": ["y"] * count,
        "rejected": ["n"] * count,
        "label": [i % 2 for i in range(count)],
    }
    return Dataset.from_dict(rows, features=features)


def test_selected_and_shuffled_data_sets_are_taken_as_they_stand() -> None:
    whole = pairs("a", 50)
    for taken in (whole, whole.select([9, 3, 3, 41]), whole.shuffle(seed=1), whole.filter(lambda row: row["label"] == 1)):
        mix = sm.Mixture({"a": taken}, seed=1, rows="file")
        assert [row["prompt"] for row in mix] == taken["prompt"][:]
    with pytest.raises(TypeError, match="is a datasets.IterableDataset, expected a datasets.Dataset"):
        sm.Mixture({"a": whole.to_iterable_dataset()}, seed=1)
    with pytest.raises(TypeError, match="is a datasets.DatasetDict, expected a datasets.Dataset: pick one"):
        sm.Mixture({"a": datasets.DatasetDict({"train": whole})}, seed=1)


def test_a_mixture_is_a_dataset_with_the_features_of_its_sources(tmp_path: Path) -> None:
    off, on = pairs("off", 60), pairs("on", 40).select(range(30))
    mix = sm.Mixture({"off": off, "on": on}, total=50, seed=2, batch=10)
    data = mix.to_dataset()
    assert data.features == Features({**off.features, "source": Value("string")})
    assert data.to_list() == list(mix)
    path = tmp_path / "mix.arrow"
    mapped = mix.to_dataset(path)
    assert mapped.features == data.features and mapped.to_list() == data.to_list()
    assert mapped.cache_files[0]["filename"] == str(path)
    with pytest.raises(sm.Error, match="exists; give overwrite=True"):
        mix.to_dataset(path)
    assert mix.to_dataset(path, overwrite=True).to_list() == data.to_list()
    assert [entry.name for entry in tmp_path.iterdir()] == ["mix.arrow"]
    assert mix.verify(mapped) == 50 == mix.verify(data) == sm.verify(mix.receipt(), mapped)
    with pytest.raises(sm.Error, match="position 0, column"):
        mix.verify(data.select(range(49, -1, -1)))
    # A trainer maps it next.
    assert data.map(lambda row: {"n": len(row["prompt"])})[3]["n"] == len(mix[3]["prompt"])


def test_conversations_come_out_as_they_went_in() -> None:
    def talk(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": text + "!"}]

    source = Dataset.from_list([{"chosen": talk(f"{i}"), "rejected": talk(f"-{i}")} for i in range(9)])
    data = sm.Mixture({"a": source}, seed=1, rows="file").to_dataset()
    assert data.remove_columns("source").to_list() == source.to_list()
    assert {name: data.features[name] for name in source.features} == dict(source.features)
    large = pa.table({"x": pa.array(["a"], pa.large_string())})
    assert sm.Mixture({"a": large}, seed=1).to_dataset().features["x"] == Value("large_string")
