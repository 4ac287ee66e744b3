"""Expected numbers of crates/simplemix-eval's logistic regression, folds and plain win rates, in eval_alpaca.json.

Python 3.11, scikit-learn 1.5.2, numpy 1.26.4, pandas 2.2.3, scipy 1.17.1. From the repository's root:

    python tests/golden/eval_alpaca.py

All data are drawn here; the regression is the one of alpaca_eval (soft targets as two rows, groups as folds), solved
by liblinear to a tight tolerance. NumPy's vector sort is switched off, see crates/simplemix-eval/src/alpaca/folds.rs.
"""
import os

os.environ["NPY_DISABLE_CPU_FEATURES"] = "AVX2 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"

import hashlib
import json

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold


def folds(rows):
    found = np.empty(rows, dtype=np.uint8)
    groups = np.tile(np.arange(rows), 2)
    for k, (_, test) in enumerate(GroupKFold(5).split(np.zeros((2 * rows, 1)), groups=groups)):
        found[groups[test]] = k
    return found


def fit(x, y, w, c, state):
    model = LogisticRegression(C=c, penalty="l1", solver="liblinear", fit_intercept=False, tol=1e-12, max_iter=1_000_000,
                               random_state=state)
    double = np.concatenate([x, x])
    labels = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    return model.fit(double, labels, sample_weight=np.concatenate([w * y, w * (1 - y)])).coef_[0]


def regression(seed, rows, slope):
    rng = np.random.default_rng(seed)
    x = np.stack([np.tanh(rng.normal(0, 1, rows)), rng.normal(0, 1.5, rows), np.ones(rows)], axis=1).round(6)
    w = np.where(np.arange(rows) < rows // 3, 0.1, 1.0)
    x[w < 1, 2] = 0
    y = (1 / (1 + np.exp(-(x @ slope + rng.normal(0, 1, rows))))).round(6)
    cs = np.logspace(-4, 4, 10)
    fold = folds(rows)
    scores = []
    for c in cs:
        losses = []
        for k in range(5):
            beta = fit(x[fold != k], y[fold != k], w[fold != k], c, 0)
            z = x[fold == k] @ beta
            p = np.clip(1 / (1 + np.exp(-z)), 1e-15, 1 - 1e-15)
            t = y[fold == k]
            losses.append(-np.mean(w[fold == k] * (t * np.log(p) + (1 - t) * np.log(1 - p))))
        scores.append(float(np.mean(losses)))
    coefficients = [fit(x, y, w, c, 0) for c in cs]
    again = [fit(x, y, w, c, 7) for c in cs]
    assert np.abs(np.array(coefficients) - again).max() < 2e-6, np.abs(np.array(coefficients) - again).max()
    return {"features": x.tolist(), "targets": y.tolist(), "weights": w.tolist(), "cs": cs.tolist(),
            "coefficients": [list(map(float, b)) for b in coefficients], "losses": scores,
            "best": int(np.argmin(scores))}


def win_rate(preferences):
    """What alpaca_eval's metrics/helpers.py does, commit cd543a1."""
    p = pd.Series(preferences, dtype=float).replace({0.0: 1.5})
    draws = int((p == 1.5).sum())
    kept = p[(p >= 1) & (p <= 2)] - 1
    d = pd.Series(preferences, dtype=float).replace({1.5: 0}).round().replace({0.0: 1.5})
    d = d[(d >= 1) & (d <= 2)] - 1
    return {"preferences": [None if np.isnan(x) else x for x in preferences], "win_rate": kept.mean() * 100,
            "standard_error": kept.sem() * 100, "n_wins": int((kept > 0.5).sum()), "n_wins_base": int((kept < 0.5).sum()),
            "n_draws": draws, "n_total": len(kept), "discrete_win_rate": d.mean() * 100}


rng = np.random.default_rng(5)
mixed = [float(x) for x in rng.uniform(1, 2, 30).round(6)]
golden = {
    "folds": {n: hashlib.sha256(folds(n).tobytes()).hexdigest() for n in (5, 16, 17, 18, 40, 333, 805, 2412, 2413, 2415)},
    "regressions": [regression(1, 45, np.array([-1.5, 0.8, -1.0])), regression(2, 60, np.array([-0.6, 1.2, 0.4])),
                    regression(3, 50, np.array([0.0, 0.1, -4.0]))],
    "win_rates": [win_rate(mixed), win_rate([1.0, 2.0, 1.5, 0.0, 1.5000001]), win_rate([*mixed, float("nan"), -1.0, 2.4, 0.6])],
}
with open("crates/simplemix-eval/src/alpaca/eval_alpaca.json", "w") as out:
    json.dump(golden, out)
    out.write("\n")
