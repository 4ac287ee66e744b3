//! HyPO's KL term against the true gradient, by exact enumeration of every sequence of a small policy.

#![allow(clippy::unwrap_used, reason = "a test")]

use simplemix_loss::kl_from_samples;
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
const TOKENS: i64 = 3;

/// Token log-probabilities `[9, 2]` of all two-token sequences: the second token's depend on the first.
fn token_logps(logits: &Tensor) -> Tensor {
    let first = logits.get(0).log_softmax(-1, None); // [3]
    let second = logits.narrow(0, 1, TOKENS).log_softmax(-1, None); // [3, 3]
    let first = first.unsqueeze(1).expand([TOKENS, TOKENS], false).reshape([-1]);
    Tensor::stack(&[first, second.reshape([-1])], 1)
}

fn sum(t: &Tensor) -> Tensor {
    t.sum_dim_intlist([1i64].as_slice(), false, None)
}

struct Case {
    logits: Tensor,
    reference: Tensor,
}

impl Case {
    fn new() -> Self {
        let numbers = |factor: f64| (Tensor::arange((TOKENS + 1) * TOKENS, F64) * factor).sin().view([-1, TOKENS]) * 2;
        Self { logits: numbers(1.7).set_requires_grad(true), reference: token_logps(&numbers(2.9)) }
    }

    /// Gradient of a scalar made from the policy's token log-probabilities and the sequences' probabilities.
    fn gradient(&self, of: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
        self.logits.shallow_clone().zero_grad();
        let policy = token_logps(&self.logits);
        let probs = sum(&policy).exp();
        of(&policy, &probs).sum(Kind::Double).backward();
        self.logits.grad().copy()
    }

    fn true_gradient(&self) -> Tensor {
        self.gradient(|policy, probs| probs * (sum(policy) - sum(&self.reference)))
    }
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    f64::try_from((a - b).abs().max()).unwrap()
}

/// One sample, no baseline: every sequence, weighted by its probability.
#[test]
fn the_plain_term_has_the_gradient_of_the_divergence() {
    let case = Case::new();
    let ours = case.gradient(|policy, probs| {
        let (policy, reference) = (sum(policy), sum(&case.reference));
        let terms: Vec<Tensor> = (0..TOKENS * TOKENS)
            .map(|i| {
                let at = |t: &Tensor| t.narrow(0, i, 1).view([1, 1]);
                kl_from_samples(&at(&policy), &at(&reference), None).unwrap().surrogate * probs.detach().get(i)
            })
            .collect();
        Tensor::stack(&terms, 0)
    });
    assert!(off(&ours, &case.true_gradient()) < 1e-15);
}

/// Two samples with the leave-one-out baseline: every ordered pair of sequences, and the estimate's mean.
#[test]
fn the_leave_one_out_term_has_it_too() {
    let case = Case::new();
    let mut mean = 0.0;
    let estimates = std::cell::RefCell::new(&mut mean);
    let ours = case.gradient(|policy, probs| {
        let (policy, reference, probs) = (sum(policy), sum(&case.reference), probs.detach());
        let mut terms = Vec::new();
        for i in 0..TOKENS * TOKENS {
            for j in 0..TOKENS * TOKENS {
                let both = |t: &Tensor| Tensor::stack(&[t.get(i), t.get(j)], 0).view([1, 2]);
                let weight = probs.double_value(&[i]) * probs.double_value(&[j]);
                let term = kl_from_samples(&both(&policy), &both(&reference), None).unwrap();
                **estimates.borrow_mut() += weight * term.estimate;
                terms.push(term.surrogate * weight);
            }
        }
        Tensor::stack(&terms, 0)
    });
    assert!(off(&ours, &case.true_gradient()) < 1e-15);
    let policy = token_logps(&case.logits.detach());
    let kl = (sum(&policy).exp() * (sum(&policy) - sum(&case.reference))).sum(Kind::Double).double_value(&[]);
    assert!((mean - kl).abs() < 1e-14, "{mean} {kl}");
}

/// Each token's log-ratio times the same token's log-probability, summed, is another gradient.
#[test]
fn the_per_token_product_is_not_the_gradient() {
    let case = Case::new();
    let per_token = case.gradient(|policy, probs| {
        let ratios = (policy - &case.reference).detach();
        sum(&(ratios * policy)) * probs.detach()
    });
    let truth = case.true_gradient();
    assert!(off(&per_token, &truth) > 0.01 * f64::try_from(truth.abs().max()).unwrap());
}

#[test]
fn clipping_bounds_the_advantage_and_bad_input_is_named() {
    let matrix = |values: &[f64]| Tensor::from_slice(values).view([1, -1]);
    let policy = matrix(&[-1.0, -100.0]).set_requires_grad(true);
    let term = kl_from_samples(&policy, &matrix(&[-51.0, -100.0]), Some(10.0)).unwrap();
    assert_eq!(term.estimate, 25.0);
    term.surrogate.backward();
    assert_eq!(policy.grad().double_value(&[0, 0]), 5.0);
    let text =
        |policy: &Tensor, reference: &Tensor, clip| kl_from_samples(policy, reference, clip).unwrap_err().to_string();
    assert!(text(&matrix(&[1.0]), &matrix(&[1.0, 2.0]), None).contains("like the policy"));
    assert!(text(&Tensor::from_slice(&[1.0]), &matrix(&[1.0]), None).contains("a float matrix [P, k]"));
    assert!(text(&matrix(&[f64::NAN]), &matrix(&[1.0]), None).contains("finite"));
    assert!(text(&matrix(&[1.0]), &matrix(&[1.0]), Some(0.0)).contains("clip"));
}
