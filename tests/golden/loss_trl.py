"""Golden values of simplemix-loss from TRL's own code, loss and gradients. Prints JSON.

Python 3.11, torch 2.11.0, transformers 5.23.0, trl 1.16.0. OMP_NUM_THREADS=1 python tests/golden/loss_trl.py \
    > crates/simplemix-loss/tests/golden/trl.json

DPOTrainer._compute_loss runs as shipped, on a trainer that was never set up and a model that returns fixed per-token
log-probabilities. CPO, SimPO, AlphaPO and ORPO come from the loss functions of TRL's experimental trainers.
"""
import json
from types import SimpleNamespace

import torch
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

torch.manual_seed(11)
CHOSEN, REJECTED = [5, 3, 7, 1], [8, 3, 2, 4]
PAIRS, WIDTH = 4, 9  # prompt of one token, then at most eight of the response
LENGTHS = CHOSEN + REJECTED
MASK = torch.tensor([[0] + [1] * n + [0] * (WIDTH - 1 - n) for n in LENGTHS])
TOKENS = -3 * torch.rand(2 * PAIRS, WIDTH - 1, dtype=torch.float64) * MASK[:, 1:]
SQUARES = -1.5 * torch.rand(2 * PAIRS, WIDTH - 1, dtype=torch.float64) * MASK[:, 1:]
REFERENCE = (TOKENS.sum(1) + 4 * torch.randn(2 * PAIRS, dtype=torch.float64)).chunk(2)


class Accelerator:
    device = torch.device("cpu")

    def gather_for_metrics(self, x):
        return x

    gather = gather_for_metrics


class Metrics(dict):
    def __missing__(self, key):
        self[key] = []
        return self[key]


def dpo(dtype=torch.float64, **settings):
    args = DPOConfig(output_dir="unused", bf16=False, use_cpu=True, report_to=[], **settings)
    trainer = DPOTrainer.__new__(DPOTrainer)
    tokens = TOKENS.clone().to(dtype).requires_grad_(True)
    shape = tokens.detach()
    outputs = SimpleNamespace(
        log_probs=tokens, log_sum_sq_probs=SQUARES.to(dtype), entropy=shape, mean_logits=shape, is_top1=shape > 0
    )
    for name, value in dict(
        accelerator=Accelerator(), args=args, model=torch.nn.Module(), aux_loss_enabled=False, ld_alpha=args.ld_alpha, precompute_ref_logps=True,
        f_divergence_type=args.f_divergence_type, f_alpha_divergence_coef=args.f_alpha_divergence_coef,
        loss_types=args.loss_type, loss_weights=args.loss_weights or [1.0] * len(args.loss_type), beta=args.beta,
        label_smoothing=args.label_smoothing, use_weighting=args.use_weighting,
        _metrics={"train": Metrics(), "eval": Metrics()}, _total_train_tokens=0, _tp_size=1,
    ).items():
        setattr(trainer, name, value)
    model = lambda **_: outputs  # noqa: E731
    wrapped = torch.nn.Module()
    wrapped.forward = model
    inputs = dict(
        input_ids=MASK.clone(), attention_mask=torch.ones_like(MASK), completion_mask=MASK,
        ref_chosen_logps=REFERENCE[0].to(dtype), ref_rejected_logps=REFERENCE[1].to(dtype),
    )
    loss = trainer._compute_loss(wrapped, inputs, False)
    loss.backward()
    rewards = trainer._metrics["train"]["rewards/margins"]
    return dict(loss=loss.item(), margin=rewards[0], token_gradients=(tokens.grad * MASK[:, 1:]).tolist())


def free(kind, beta, mean, **settings):
    """A loss of CPOTrainer or ORPOTrainer, on sums or means over tokens, without its NLL term."""
    trainer = (ORPOTrainer if kind == "orpo" else CPOTrainer).__new__(ORPOTrainer if kind == "orpo" else CPOTrainer)
    fixed = dict(accelerator=Accelerator(), beta=beta, label_smoothing=0.0, alpha=0.0, simpo_gamma=0.5, loss_type="sigmoid")
    for name, value in (fixed | settings).items():
        setattr(trainer, name, value)
    dtype = torch.float32 if kind == "orpo" else torch.float64  # ORPOTrainer computes in f32
    sums = TOKENS.sum(1).to(dtype).requires_grad_(True)  # a new leaf
    logps = sums / torch.tensor(LENGTHS) if mean else sums
    function = trainer.odds_ratio_loss if kind == "orpo" else trainer.cpo_loss
    losses = function(*logps.chunk(2))[0] * (-1 if kind == "orpo" else 1)
    losses.mean().backward()
    return dict(loss=losses.mean().item(), gradients=sums.grad.tolist())


def rounded(value):
    """To 12 digits, which is far below what the test compares."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


cases = []


def case(loss, constants=None, weights=None, dtype=torch.float64, divergence=None, wpo=False, ld_alpha=None, **settings):
    names = [loss] if isinstance(loss, str) else loss
    cases.append(dict(
        losses=names, weights=weights or [1.0] * len(names), beta=settings["beta"], constants=constants or {},
        divergence=divergence, wpo=wpo, ld_alpha=ld_alpha, f32=dtype == torch.float32,
        **dpo(dtype, loss_type=names, loss_weights=weights, use_weighting=wpo, ld_alpha=ld_alpha, **settings),
    ))


SMOOTHED = {"robust": 0.1, "exo_pair": 1e-3, "aot": 0.2, "aot_unpaired": 0.2}
ALL = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
       "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]
for beta in (0.1, 0.5):
    for name in ALL:
        e = SMOOTHED.get(name, 0.0)
        case(name, {"label_smoothing": e} if e else {}, beta=beta, label_smoothing=e)
for name in ("sigmoid", "ipo", "hinge", "sigmoid_norm"):
    if name != "hinge":  # TRL multiplies in place, which the backward pass of relu refuses
        case(name, wpo=True, beta=0.3)
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        coef = {"f_alpha_divergence_coef": 0.5} if divergence == "alpha_divergence" else {}
        dtype = torch.float32 if coef else torch.float64  # TRL's clamp knows no f64
        case(name, divergence=divergence, dtype=dtype, beta=0.3, f_divergence_type=divergence, **coef)
case("discopop", {"discopop_tau": 0.4}, beta=0.1, discopop_tau=0.4)
for alpha in (0.0, 0.3, 1.0):
    case("sigmoid", ld_alpha=alpha, beta=0.2)
case(["sigmoid", "bco_pair", "sft"], weights=[0.8, 0.2, 1.0], beta=0.1)

frees = []
for name, beta, mean, constants, settings in [
    ("cpo", 0.1, False, {"cpo_alpha": 0.0}, {}),
    ("cpo", 0.3, False, {"cpo_alpha": 0.0, "label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    ("simpo", 2.0, True, {"simpo_gamma": 1.0}, {"loss_type": "simpo", "simpo_gamma": 1.0}),
    ("alphapo", 2.5, True, {"simpo_gamma": 0.5, "alpha": 0.25}, {"loss_type": "simpo", "alpha": 0.25}),
    ("orpo", 0.1, True, {}, {}),
]:
    frees.append(dict(loss_name=name, beta=beta, constants=constants, **free(name, beta, mean, **settings)))

print(json.dumps(rounded(dict(
    chosen_lengths=CHOSEN, rejected_lengths=REJECTED, token_logps=TOKENS.tolist(), log_sum_sq_probs=SQUARES.tolist(),
    reference_chosen=REFERENCE[0].tolist(), reference_rejected=REFERENCE[1].tolist(), dpo=cases, reference_free=frees,
))))
