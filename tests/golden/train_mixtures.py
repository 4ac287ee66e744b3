"""Rows that TRL's `get_dataset` and the alignment handbook's take, to train/mixtures.json.

The handbook is no package: its four lines on `datasets` are repeated here (src/alignment/data.py of commit 925acdf).
python tests/golden/train_mixtures.py
"""

import json
from pathlib import Path
from unittest import mock

import datasets
import trl
from datasets import Dataset, concatenate_datasets
from trl.scripts.utils import DatasetConfig, DatasetMixtureConfig, get_dataset


def sets(sizes):
    return [Dataset.from_dict({"row": [f"{name}:{row}" for row in range(size)]}) for name, size in enumerate(sizes)]


def of_trl(sizes, fractions):
    loaded = sets(sizes)
    configs = [DatasetConfig(path=str(at), fraction=fraction) for at, fraction in enumerate(fractions)]
    with mock.patch.object(datasets, "load_dataset", lambda path, **_: loaded[int(path)]):
        return get_dataset(DatasetMixtureConfig(datasets=configs))


def of_the_handbook(sizes, weights, seed, test_size):
    taken = [ds.shuffle(seed=seed).select(range(int(len(ds) * weight))) for ds, weight in zip(sets(sizes), weights)]
    joined = concatenate_datasets(taken).shuffle(seed=seed)
    return {"train": joined} if test_size is None else joined.train_test_split(test_size=test_size, seed=seed)


def case(sizes, shares, settings, found):
    test = list(found["test"]["row"]) if "test" in found else []
    return {"sizes": sizes, "shares": shares, "settings": settings, "train": list(found["train"]["row"]), "test": test}


cases = []
for sizes, fractions in [([10, 10], [0.5, 0.5]), ([10, 4], [1, 3]), ([7, 5, 9], [0.2, 0.3, 0.5]), ([6, 5], [1.0, 0.0])]:
    cases.append(case(sizes, fractions, "shares = 'of-the-whole'", of_trl(sizes, fractions)))
for sizes, weights, seed, size in [
    ([12, 8], [1.0, 1.0], 0, 4),
    ([12, 8], [0.5, 0.25], 0, None),
    ([9, 7], [0.3, 1.0], 42, 0.2),
    ([20], [0.001], 7, None),
]:
    held_out = "" if size is None else f"held_out = {size}\n"
    settings = f"shuffle = true\nseed = {seed}\n{held_out}"
    cases.append(case(sizes, weights, settings, of_the_handbook(sizes, weights, seed, size)))

golden = {"trl": trl.__version__, "datasets": datasets.__version__, "cases": cases}
out = Path(__file__).parent / "train" / "mixtures.json"
out.write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('{"sizes"', '\n{"sizes"') + "\n")
