//! Losses and gradients against TRL 1.16's own code (tests/golden/loss_trl.py made tests/golden/trl.json), and QRPO's against its
//! formulas in PyTorch (tests/golden/loss_qrpo.py made tests/golden/qrpo.json).

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use serde::Deserialize;
use simplemix_loss::losses::quantile::quantile_reward;
use simplemix_loss::{
    Divergence, LossNames, LossSettings, LossSum, PairLengths, PairLogps, PairLoss, PairQuantiles, Pairs, Positions,
    Wpo, ld_token_weights, wpo_weights,
};
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

#[derive(Deserialize)]
struct Golden {
    chosen_lengths: Vec<usize>,
    rejected_lengths: Vec<usize>,
    token_logps: Vec<Vec<f64>>,
    log_sum_sq_probs: Vec<Vec<f64>>,
    reference_chosen: Vec<f64>,
    reference_rejected: Vec<f64>,
    dpo: Vec<Dpo>,
    reference_free: Vec<Free>,
}

#[derive(Deserialize)]
struct Dpo {
    losses: Vec<String>,
    weights: Vec<f64>,
    beta: f64,
    constants: BTreeMap<String, f64>,
    divergence: Option<String>,
    wpo: bool,
    ld_alpha: Option<f64>,
    f32: bool,
    loss: f64,
    margin: f64,
    token_gradients: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Free {
    loss_name: String,
    beta: f64,
    constants: BTreeMap<String, f64>,
    loss: f64,
    gradients: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/trl.json")).unwrap()
}

impl Golden {
    /// Rows of responses, which TRL has as [all chosen, all rejected], as chosen and rejected in turn.
    fn flat(&self, rows: &[Vec<f64>]) -> Vec<f64> {
        let pairs = self.chosen_lengths.len();
        let of = |row: usize, len: usize| rows[row][..len].iter().copied();
        (0..pairs).flat_map(|i| of(i, self.chosen_lengths[i]).chain(of(pairs + i, self.rejected_lengths[i]))).collect()
    }

    fn positions(&self) -> Positions {
        let lengths = self.chosen_lengths.iter().zip(&self.rejected_lengths).flat_map(|(c, r)| [*c, *r]);
        let owners: Vec<i64> = lengths.enumerate().flat_map(|(i, len)| vec![i as i64; len]).collect();
        Positions::new(&vec![0; owners.len()], &owners, 2 * self.chosen_lengths.len(), Device::Cpu).unwrap()
    }

    fn lengths(&self) -> PairLengths {
        let vector = |lengths: &[usize]| Tensor::from_slice(&lengths.iter().map(|&n| n as f64).collect::<Vec<_>>());
        PairLengths { chosen: vector(&self.chosen_lengths), rejected: vector(&self.rejected_lengths) }
    }
}

fn settings(name: LossNames, beta: f64, constants: &BTreeMap<String, f64>) -> LossSettings {
    LossSettings { name, beta, constants: constants.clone(), ..LossSettings::default() }
}

fn objective(case: &Dpo) -> LossSum {
    let settings = LossSettings {
        weights: case.weights.clone(),
        f_divergence_type: match case.divergence.as_deref() {
            None => Divergence::ReverseKl,
            Some("forward_kl") => Divergence::ForwardKl,
            Some("js_divergence") => Divergence::JsDivergence,
            Some(_) => Divergence::AlphaDivergence(0.5),
        },
        wpo: case.wpo.then_some(Wpo::Uncapped),
        ..settings(LossNames::Sum(case.losses.clone()), case.beta, &case.constants)
    };
    settings.build().unwrap()
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

#[test]
fn dpo_trainer_agrees_on_losses_margins_and_gradients() {
    let golden = golden();
    let positions = golden.positions();
    let squares = Tensor::from_slice(&golden.flat(&golden.log_sum_sq_probs));
    let (lengths, reference) = (
        golden.lengths(),
        PairLogps {
            chosen: Tensor::from_slice(&golden.reference_chosen),
            rejected: Tensor::from_slice(&golden.reference_rejected),
        },
    );
    for case in &golden.dpo {
        let name = format!("{:?} {:?} wpo {} ld {:?}", case.losses, case.divergence, case.wpo, case.ld_alpha);
        let tokens = Tensor::from_slice(&golden.flat(&golden.token_logps)).set_requires_grad(true);
        let token_weights = match case.ld_alpha {
            Some(alpha) => ld_token_weights(&positions, alpha).unwrap(),
            None => Tensor::ones_like(&tokens),
        };
        let logps =
            Tensor::zeros([positions.responses()], F64).index_add(0, positions.owners(), &(&tokens * token_weights));
        let policy = PairLogps::from_alternating(&logps).unwrap();
        let objective = objective(case);
        let weights = objective.wpo().map(|wpo| wpo_weights(wpo, &positions, &tokens.detach(), &squares).unwrap());
        let pairs = Pairs {
            reference: Some(&reference),
            lengths: Some(&lengths),
            weights: weights.as_ref(),
            ..Pairs::new(&policy)
        };
        let output = objective.evaluate_pairs(&pairs).unwrap();
        let loss = output.loss.mean(Kind::Double);
        loss.backward();
        // TRL holds exo_pair's label smoothing in f32.
        let tolerance = if case.f32 || case.losses[0] == "exo_pair" { 1e-6 } else { 1e-10 };
        assert!(
            close(loss.double_value(&[]), case.loss, tolerance),
            "{name}: {} {}",
            loss.double_value(&[]),
            case.loss
        );
        let margin = output.margins().mean(Kind::Double).double_value(&[]);
        assert!(close(margin, case.margin, tolerance), "{name}: margin {margin} {}", case.margin);
        let got = Vec::<f64>::try_from(tokens.grad()).unwrap();
        for (got, want) in got.iter().zip(golden.flat(&case.token_gradients)) {
            assert!(close(*got, want, tolerance), "{name}: gradient {got} {want}");
        }
    }
    assert!(golden.dpo.len() > 45);
    assert!(golden.dpo.iter().any(|case| case.losses.len() > 1), "MPO is among them");
}

#[test]
fn reference_free_trainers_agree() {
    let golden = golden();
    let pairs = golden.chosen_lengths.len();
    for case in &golden.reference_free {
        let sums: Vec<f64> = golden.token_logps.iter().map(|row| row.iter().sum()).collect();
        let sums = Tensor::from_slice(&sums).set_requires_grad(true);
        let side = |start: usize| sums.narrow(0, start as i64, pairs as i64);
        let policy = PairLogps { chosen: side(0), rejected: side(pairs) };
        let loss = settings(LossNames::One(case.loss_name.clone()), case.beta, &case.constants).build().unwrap();
        let lengths = golden.lengths();
        let pairs = Pairs { lengths: Some(&lengths), ..Pairs::new(&policy) };
        let mut value = loss.evaluate_pairs(&pairs).unwrap().loss.mean(Kind::Double);
        if case.loss_name == "orpo" {
            // TRL's function is the odds-ratio term alone.
            value -= simplemix_loss::losses::likelihood::sft(&policy.chosen, &lengths.chosen).mean(Kind::Double);
        }
        value.backward();
        let tolerance = if case.loss_name == "orpo" { 1e-6 } else { 1e-10 };
        assert!(close(value.double_value(&[]), case.loss, tolerance), "{}: {value:?}", case.loss_name);
        let got = Vec::<f64>::try_from(sums.grad()).unwrap();
        for (got, want) in got.iter().zip(&case.gradients) {
            assert!(close(*got, *want, tolerance), "{}: gradient {got} {want}", case.loss_name);
        }
    }
}

#[derive(Deserialize)]
struct Qrpo {
    lengths: Both<f64>,
    reference_rewards: Vec<Vec<f64>>,
    rewards: Both<f64>,
    quantiles: Both<f64>,
    cases: Vec<QrpoCase>,
}

#[derive(Deserialize)]
struct QrpoCase {
    loss_name: String,
    beta: f64,
    policy: Both<f64>,
    reference: Both<f64>,
    loss: Vec<f64>,
    gradients: Both<f64>,
}

#[derive(Deserialize)]
struct Both<T> {
    chosen: Vec<T>,
    rejected: Vec<T>,
}

impl Both<f64> {
    fn tensors(&self, kind: Kind) -> [Tensor; 2] {
        [&self.chosen, &self.rejected].map(|values| Tensor::from_slice(values).to_kind(kind))
    }

    fn logps(&self, kind: Kind) -> PairLogps {
        let [chosen, rejected] = self.tensors(kind);
        PairLogps { chosen, rejected }
    }
}

#[test]
fn qrpo_is_its_formula() {
    let golden: Qrpo = serde_json::from_str(include_str!("golden/qrpo.json")).unwrap();
    for (rewards, want) in
        [(&golden.rewards.chosen, &golden.quantiles.chosen), (&golden.rewards.rejected, &golden.quantiles.rejected)]
    {
        let quantiles = rewards.iter().zip(&golden.reference_rewards);
        let quantiles: Vec<f64> = quantiles.map(|(reward, all)| quantile_reward(*reward, all).unwrap()).collect();
        assert_eq!(&quantiles, want);
    }
    for case in &golden.cases {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 3e-5)] {
            let [chosen, rejected] = golden.quantiles.tensors(kind);
            let quantiles = PairQuantiles { chosen, rejected };
            let [chosen, rejected] = golden.lengths.tensors(kind);
            let lengths = PairLengths { chosen, rejected };
            let (policy, reference) = (case.policy.logps(kind), case.reference.logps(kind));
            let _ = (policy.chosen.set_requires_grad(true), policy.rejected.set_requires_grad(true));
            let pairs = Pairs {
                reference: Some(&reference),
                lengths: Some(&lengths),
                quantiles: Some(&quantiles),
                ..Pairs::new(&policy)
            };
            let loss = settings(LossNames::One(case.loss_name.clone()), case.beta, &BTreeMap::new()).build().unwrap();
            let output = loss.evaluate_pairs(&pairs).unwrap();
            assert_eq!(output.loss.kind(), kind);
            output.loss.sum(Kind::Double).backward();
            let got = [&output.loss, &policy.chosen.grad(), &policy.rejected.grad()];
            for (got, want) in got.into_iter().zip([&case.loss, &case.gradients.chosen, &case.gradients.rejected]) {
                for (got, want) in Vec::<f64>::try_from(got.to_kind(Kind::Double)).unwrap().iter().zip(want) {
                    let name = format!("{} {} {kind:?}", case.loss_name, case.beta);
                    assert!(close(*got, *want, tolerance), "{name}: {got} {want}");
                }
            }
        }
    }
    assert_eq!(golden.cases.len(), 7);
}
