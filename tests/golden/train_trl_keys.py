"""Names of the keys that TRL's command line takes for `trl dpo`, `sft` and `reward`, to train/trl_keys.json.

python tests/golden/train_trl_keys.py
"""

import dataclasses
import json
from pathlib import Path

import transformers
import trl
from trl import DatasetMixtureConfig, DPOConfig, ModelConfig, RewardConfig, ScriptArguments, SFTConfig

shared = [ScriptArguments, ModelConfig, DatasetMixtureConfig]
keys = {
    name: sorted({field.name for config in [*shared, own] for field in dataclasses.fields(config) if field.init})
    for name, own in [("dpo", DPOConfig), ("sft", SFTConfig), ("reward", RewardConfig)]
}
golden = {"trl": trl.__version__, "transformers": transformers.__version__, "keys": keys}
out = Path(__file__).parent / "train" / "trl_keys.json"
out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
