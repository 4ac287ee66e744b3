"""Learning rates of transformers' schedulers, to train/schedules.json: python tests/golden/train_schedules.py"""

import json
from pathlib import Path

import torch
import transformers
from transformers import get_scheduler

CASES = [
    ("linear", 3, 12, {}),
    ("cosine", 3, 12, {}),
    ("constant_with_warmup", 3, 12, {}),
    ("inverse_sqrt", 0, 12, {}),
    ("inverse_sqrt", 4, 12, {}),
    ("cosine_with_min_lr", 0, 10, {"min_lr_rate": 0.1}),
    ("cosine_with_min_lr", 4, 15, {"min_lr_rate": 0.1}),
    ("warmup_stable_decay", 2, 12, {"num_decay_steps": 5}),
    ("warmup_stable_decay", 2, 12, {"num_decay_steps": 5, "min_lr_ratio": 0.2, "decay_type": "linear"}),
    ("warmup_stable_decay", 3, 13, {"num_decay_steps": 4, "min_lr_ratio": 0.1, "decay_type": "1-sqrt"}),
    ("warmup_stable_decay", 0, 6, {"num_decay_steps": 6}),
    ("warmup_stable_decay", 4, 8, {"num_decay_steps": 6}),
]


def rates(name, warmup, steps, kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=dict(kwargs))
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


cases = [
    {"name": name, "warmup": warmup, "steps": steps, "kwargs": kwargs, "rates": rates(name, warmup, steps, kwargs)}
    for name, warmup, steps, kwargs in CASES
]
golden = {"transformers": transformers.__version__, "cases": cases}
out = Path(__file__).parent / "train" / "schedules.json"
out.write_text(json.dumps(golden, indent=1) + "\n")
