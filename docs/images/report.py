"""Made-up runs for docs/images/report.png: four arms of five seeds, in the current folder.

    python report.py && simplemix report off-policy-* on-policy-* half-* off-then-on-* -o report
    NODE_PATH=node_modules node tests/report_browser.cjs report/report.html shot    # the picture is the head of shot-desktop.png
"""
import json, math, os, random
random.seed(4)
for arm, slope in (("off-policy", 1.0), ("on-policy", 1.25), ("half", 1.5), ("off-then-on", 1.3)):
    for seed in range(1, 6):
        run = f"{arm}-{seed}"
        os.makedirs(run, exist_ok=True)
        open(f"{run}/config.toml", "w").write(f'seed = {seed}\ntrain = "data/{arm}.parquet"\noutput = "{run}"\n')
        base = random.gauss(0, 0.05)
        with open(f"{run}/metrics.jsonl", "w") as out:
            for step in range(1, 301):
                m = (slope + base) * (1 - math.exp(-step / 120))
                line = {"step": step, "loss": -math.log(1 / (1 + math.exp(-m))) + random.gauss(0, 0.02),
                        "rewards/margins": m + random.gauss(0, 0.08), "rewards/accuracies": 1 / (1 + math.exp(-1.6 * m)) + random.gauss(0, 0.02)}
                out.write(json.dumps(line) + "\n")
            out.write(json.dumps({"step": 300, "eval_loss": -math.log(1 / (1 + math.exp(-m * 0.8))), "eval_rewards/accuracies": 1 / (1 + math.exp(-1.2 * m)), "eval_rewards/margins": m * 0.8}) + "\n")
