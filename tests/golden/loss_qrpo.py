"""Golden values of the losses `qrpo` and `qrpo_norm`: quantile rewards, losses, and gradients by autograd. Prints JSON.

Python 3.11, torch 2.11.0. OMP_NUM_THREADS=1 python tests/golden/loss_qrpo.py > crates/simplemix-loss/tests/golden/qrpo.json

Written from Matrenok et al. 2025 (arXiv:2507.08068), algorithm 1 with the identity transform, and from what the authors' code does where
the paper leaves it open: ties count as reached (`ref_rewards <= reward`), and a pair's loss is the mean of its two responses'
(CLAIRE-Labo/quantile-reward-policy-optimization, src/qrpo/trainers/qrpo.py). A beta that the length divides, at most 0.1, is Apertus'
(swiss-ai/posttraining, src/post_training/trainers/preference.py).
"""
import json

import torch

torch.manual_seed(17)
PAIRS = 6
LENGTHS = {"chosen": [5, 3, 70, 1, 240, 12], "rejected": [8, 30, 2, 4, 11, 100]}
REFERENCE = [[round(x, 1) for x in torch.randn(n).tolist()] for n in (1, 3, 10, 50, 6, 30)]
# Rewards below and above all of the reference's, between them, and the same as one of them.
REWARDS = {
    "chosen": [9.0, REFERENCE[1][0], 0.05, REFERENCE[3][7], 0.3, -9.0],
    "rejected": [-9.0, 0.0, REFERENCE[2][4], 0.45, REFERENCE[4][2], 9.0],
}
SIDES = ("chosen", "rejected")


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


def quantile(side, pair):
    reference = vector(REFERENCE[pair])
    return (reference <= REWARDS[side][pair]).double().mean()


def log_partition(beta):
    """ln of beta (e^(1/beta) - 1), the mean of e^(q/beta) over q uniform on [0, 1]."""
    return torch.log(beta * torch.expm1(1 / beta))


def case(name, beta):
    policy = {side: (-3 * torch.rand(PAIRS, dtype=torch.float64) * vector(LENGTHS[side])) for side in SIDES}
    reference = {side: policy[side] + 4 * torch.randn(PAIRS, dtype=torch.float64) for side in SIDES}
    losses = []
    for side in SIDES:
        policy[side].requires_grad_(True)
        quantiles = torch.stack([quantile(side, pair) for pair in range(PAIRS)])
        each = torch.full((PAIRS,), beta, dtype=torch.float64)
        if name == "qrpo_norm":
            each = (each / vector(LENGTHS[side])).clamp(max=0.1)
        # e^(1/beta) has to be a number of double precision; below that the closed form is its limit.
        exact = 1 / each < 700
        log_z = torch.where(exact, log_partition(each.clamp(min=1 / 700)), each.log() + 1 / each)
        losses.append((quantiles - each * log_z - each * (policy[side] - reference[side])) ** 2)
    loss = (losses[0] + losses[1]) / 2
    loss.sum().backward()
    return {
        "loss_name": name,
        "beta": beta,
        "policy": {side: policy[side].tolist() for side in SIDES},
        "reference": {side: reference[side].tolist() for side in SIDES},
        "loss": loss.tolist(),
        "gradients": {side: policy[side].grad.tolist() for side in SIDES},
    }


print(json.dumps({
    "lengths": LENGTHS,
    "reference_rewards": REFERENCE,
    "rewards": REWARDS,
    "quantiles": {side: [quantile(side, pair).item() for pair in range(PAIRS)] for side in SIDES},
    "cases": [case("qrpo", beta) for beta in (3e-4, 3e-3, 0.03, 0.1, 1.0)] + [case("qrpo_norm", beta) for beta in (0.05, 5.0)],
}))
