"""Orders of datasets.interleave_datasets and TRL's mixture, as golden values for simplemix-mix.

Run with: datasets==5.2.0, numpy==2.4.6, trl==1.16.0.

    python mix_interleave.py > ../../crates/simplemix-mix/tests/golden/interleave.json
"""

import json

import numpy
from datasets import Dataset, interleave_datasets

CASES = [
    ([3, 4, 5], None, 0),
    ([30, 20], [0.3, 0.7], 42),
    ([30, 20, 9], [0.5, 0.25, 0.25], 7),
    ([1500, 900], [0.5, 0.5], 0),
    ([40, 25], [0.1, 0.9], 2**40 + 17),
]
STRATEGIES = ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]


def order(rows, probabilities, seed, strategy):
    sets = [Dataset.from_dict({"s": [i] * n, "r": list(range(n))}) for i, n in enumerate(rows)]
    mixed = interleave_datasets(sets, probabilities=probabilities, seed=seed, stopping_strategy=strategy)
    return [list(pair) for pair in zip(mixed["s"], mixed["r"])]


def trl_rows(rows, fractions):
    # trl/scripts/utils.py, get_dataset
    weights = [fraction / sum(fractions) for fraction in fractions]
    total = min(n / weight for n, weight in zip(rows, weights) if weight > 0)
    return [len(range(round(weight * total))) for weight in weights]


print(json.dumps({
    "uniform": {str(seed): numpy.random.default_rng(seed).random(4).tolist() for seed in (0, 42, 2**40 + 17)},
    "interleave": [
        {"rows": rows, "probabilities": p, "seed": seed, "strategy": s, "order": order(rows, p, seed, s)}
        for rows, p, seed in CASES for s in STRATEGIES
    ],
    "trl": [
        {"rows": rows, "fractions": f, "kept": trl_rows(rows, f)}
        for rows, f in [([100, 50], [0.5, 0.5]), ([61135, 10000, 333], [0.6, 0.3, 0.1]), ([7, 9], [0.25, 0.75]),
                        ([5, 5], [0.0, 2.0]), ([10, 15], [0.4, 0.6])]
    ],
}))
