"""AlpacaEval 2.0 of many models: `simplemix eval alpaca` beside the official package's procedure, on one core, in turn.

Python 3.11, scikit-learn 1.5.2, numpy 1.26.4, pandas 2.2.3, pyarrow 17. Usage, from the repository's root:

    python benches/eval_peers.py ANNOTATIONS.parquet DF_GAMED.csv [OUT.json]

ANNOTATIONS has the columns model, row, preference, len_1 and len_2, the baseline among the models. The Python side
does what alpaca_eval's metrics/glm_winrate.py does (commit cd543a1): LogisticRegressionCV with liblinear, for each
model, with the features built by NumPy rather than patsy. Times are of whole processes, medians of TURNS; what imports
take is told apart. Set SIMPLEMIX to a built binary to save the build.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 5

OFFICIAL = """
import json, sys, time
start = time.perf_counter()
import numpy as np, pandas as pd, sklearn
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold
imported = time.perf_counter() - start
sklearn.set_config(enable_metadata_routing=True)

def logloss(y, p, sample_weight):
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return -np.mean(sample_weight * (y * np.log(p) + (1 - y) * np.log(1 - p)))

def score(y_true, y_pred, true_prob, true_sample_weight):
    return logloss(np.where(y_true == 1, true_prob, 1 - true_prob), y_pred, true_sample_weight)

data = pq.read_table(sys.argv[1]).to_pandas()
gamed = pd.read_csv(sys.argv[2])
difficulty = gamed.drop_duplicates("index")["instruction_difficulty"].to_numpy()
gamed = gamed[gamed.preference.notna()]
rows = []
for model, df in data.groupby("model", sort=False):
    y = df.preference.replace({0.0: 1.5}) - 1
    row = {"model": model, "win_rate": y.mean() * 100, "standard_error": y.sem() * 100}
    if model == sys.argv[3]:
        rows.append(row | {"length_controlled_winrate": 50.0})
        continue
    delta = df.len_1 - df.len_2
    d = difficulty[df.row]
    x = np.concatenate([np.stack([np.tanh(gamed.std_delta_len), gamed.instruction_difficulty, np.zeros(len(gamed))], 1),
                        np.stack([np.tanh(delta / delta.std()), d, np.ones(len(df))], 1)])
    t = np.concatenate([gamed.preference, y])
    w = np.concatenate([np.full(len(gamed), 0.1), np.ones(len(df))])
    t2, w2 = np.concatenate([t, 1 - t]), np.concatenate([w, w])
    scorer = make_scorer(score, response_method="predict_proba", greater_is_better=False)
    fit = LogisticRegressionCV(cv=GroupKFold(5), scoring=scorer.set_score_request(true_sample_weight=True, true_prob=True),
                               random_state=123, dual=False, penalty="l1", solver="liblinear", fit_intercept=False)
    fit.set_fit_request(sample_weight=True)
    fit.fit(np.concatenate([x, x]), np.concatenate([np.ones(len(t)), np.zeros(len(t))]), sample_weight=t2 * w2,
            groups=np.tile(np.arange(len(t)), 2), true_sample_weight=w2, true_prob=t2)
    own = np.stack([np.zeros(len(df)), d, np.ones(len(df))], 1)
    rows.append(row | {"length_controlled_winrate": fit.predict_proba(own)[:, 1].mean() * 100})
json.dump({"imported": imported, "rows": rows}, sys.stdout)
"""


def run(command):
    start = time.perf_counter()
    done = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True,
                          env={**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{command[:3]}: {done.stderr[-2000:]}")
    return time.perf_counter() - start, json.loads(done.stdout)


def main():
    annotations, gamed, *rest = sys.argv[1:]
    simplemix = os.environ.get("SIMPLEMIX")
    if not simplemix:
        subprocess.run(["cargo", "build", "--release", "-p", "simplemix-cli"], check=True)
        simplemix = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "simplemix")
    baseline = "gpt4_1106_preview"
    ours = [simplemix, "eval", "alpaca", "--annotations", annotations, "--gamed", gamed, "--json"]
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(OFFICIAL)
        script.flush()
        ways = {
            "simplemix": ours,
            "simplemix, 1000 bootstrap draws and all pairs": [*ours, "--bootstrap", "1000", "--pairwise"],
            "official procedure (scikit-learn)": [sys.executable, script.name, annotations, gamed, baseline],
        }
        found = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, command in ways.items():
                found[name].append(run(command))
    seconds = {name: statistics.median(s for s, _ in runs) for name, runs in found.items()}
    official = found["official procedure (scikit-learn)"][-1][1]
    rates = {row["model"]: row["length_controlled_winrate"] for row in official["rows"]}
    own = {row["model"]: row["length_controlled_winrate"] for row in found["simplemix"][-1][1]}
    apart = {model: abs(own[model] - rate) for model, rate in rates.items()}
    imports = official["imported"]
    result = {"date": time.strftime("%Y-%m-%d"), "machine": f"1 of {os.cpu_count()} cores", "models": len(rates),
              "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
              "command": "python benches/eval_peers.py", "seconds": seconds, "of_which_imports": imports,
              "largest_difference_points": max(apart.values()), "median_difference_points": statistics.median(apart.values())}
    for name, value in seconds.items():
        print(f"{name:<50}{value:>8.3f} s")
    print(f"{'  of which imports':<50}{imports:>8.3f} s")
    print(f"length-controlled win rates differ by at most {max(apart.values()):.4f} points")
    if rest:
        with open(rest[0], "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
