"""Trajectories of the tabular bandit of DPO-Mix-R and DPO-Mix-P, by autograd, as golden values for simplemix-rollout.

Run with: torch==2.11.0 (CPU)

    python rollout_bandit.py > ../../crates/simplemix-rollout/src/bandit.json

Settings, rewards' seed, samplers and loss are those of bandit/examples/tabular.py of srzer/Samplers-in-Online-DPO (exact
gradients: 20 actions, beta 3, learning rate 10, 100 updates), computed in f64. `error` is its "Param Diff" before each
update, `gap` its "Value Diff".
"""

import json

import torch
from torch.nn.functional import logsigmoid

assert torch.__version__.startswith("2.11.0")
ACTIONS, BETA, RATE, UPDATES = 20, 3.0, 10.0, 100

torch.manual_seed(1234567)
rewards = torch.randn(1, ACTIONS)[0].double()
labels = rewards[:, None] - rewards[None, :]
best = torch.softmax(rewards / BETA, 0)
best_value = ((rewards - BETA * best.log()) * best).sum()


def run(sampler):
    logits = torch.zeros(ACTIONS, dtype=torch.float64, requires_grad=True)
    errors, gaps = [], []
    for _ in range(UPDATES):
        logps = torch.log_softmax(logits, 0)
        margins = BETA * (logps[:, None] - logps[None, :])
        left = (rewards - BETA * logps).detach()
        errors.append((left[:, None] - left[None, :]).abs().mean().item())
        gaps.append((best_value - (left * logps.detach().exp()).sum()).item())
        d = {"uniform": torch.zeros_like(labels), "mix-r": labels}.get(sampler, margins.detach())
        weights = 1 / (torch.sigmoid(d) * torch.sigmoid(-d))
        if sampler == "mix-p-capped":
            reach = rewards.max() - rewards.min()
            weights = weights.clamp(max=2 + torch.exp(reach) + torch.exp(-reach))
        p = torch.sigmoid(labels)
        losses = -p * logsigmoid(margins) - (1 - p) * logsigmoid(-margins)
        (gradient,) = torch.autograd.grad((losses * weights / weights.sum()).sum(), logits)
        logits = (logits - RATE * gradient).detach().requires_grad_()
    shown = [0, 1, 2, 3, 5, 10, 20, 50, 99]
    return {"updates": shown, "error": [errors[t] for t in shown], "gap": [gaps[t] for t in shown]}


print(json.dumps({
    "rewards": rewards.tolist(),
    "runs": {sampler: run(sampler) for sampler in ["uniform", "mix-r", "mix-p", "mix-p-capped"]},
}, indent=1))
