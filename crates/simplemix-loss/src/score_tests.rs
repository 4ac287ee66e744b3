//! Against the naive twin: full logits and autograd, in f64.

use super::*;
use crate::error::Error;
use crate::noise::noise;
use tch::{Device, Kind};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
const VOCAB: i64 = 11;

/// Budgets for one row, three rows and all rows.
const BUDGETS: [usize; 3] = [1, 3 * VOCAB as usize * 8, 1 << 20];

struct Case {
    weight: Tensor,
    bias: Tensor,
    hidden: Tensor,
    positions: Positions,
    gradient: Tensor,
}

fn positions(targets: &[i64], owners: &[i64], responses: usize) -> Positions {
    Positions::new(targets, owners, responses, Device::Cpu).unwrap()
}

fn case() -> Case {
    Case {
        weight: noise(1, &[VOCAB, 5]),
        bias: noise(2, &[VOCAB]),
        hidden: noise(3, &[7, 5]),
        positions: positions(&[0, 10, 3, 3, 7, 1, 5], &[0, 0, 1, 1, 1, 2, 2], 3),
        gradient: Tensor::from_slice(&[0.7f64, -1.3, 0.2]),
    }
}

fn naive_logits(head: Head<'_>, hidden: &Tensor) -> Tensor {
    let mut logits = hidden.matmul(&head.weight.tr());
    if let Some(bias) = head.bias {
        logits += bias;
    }
    logits *= head.scale;
    head.soft_cap.map_or_else(|| logits.shallow_clone(), |cap| (&logits / cap).tanh() * cap)
}

fn naive(head: Head<'_>, hidden: &Tensor, positions: &Positions, weights: &Tensor) -> Tensor {
    let token = naive_logits(head, hidden).log_softmax(-1, None);
    let token = token.gather(1, &positions.targets().unsqueeze(1), false).squeeze_dim(1) * weights;
    Tensor::zeros([positions.responses()], F64).index_add(0, positions.owners(), &token)
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    f64::try_from((a - b).abs().max()).unwrap()
}

/// Plain, with bias, capped, scaled, all of them; trained and frozen; tokens weighted or not; every budget.
#[test]
fn numbers_and_gradients_are_those_of_the_naive_path() {
    let Case { weight, bias, hidden, positions, gradient } = case();
    let weights = Tensor::from_slice(&[1.0, 0.5, 1.0, 1.0, 0.0, 1.0, 2.0]);
    for (with_bias, soft_cap, scale, weighted) in [
        (false, None, 1.0, false),
        (true, None, 1.0, true),
        (false, Some(2.0), 1.0, false),
        (true, Some(2.0), 0.6, true),
    ] {
        let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
        let (w, b, h) = (leaf(&weight), leaf(&bias), leaf(&hidden));
        let ones = Tensor::ones([7], F64);
        let token_weights = if weighted { &weights } else { &ones };
        let plain =
            naive(Head { weight: &w, bias: with_bias.then_some(&b), soft_cap, scale }, &h, &positions, token_weights);
        (&plain * &gradient).sum(Kind::Double).backward();
        for budget in BUDGETS {
            for trained in [true, false] {
                let of = |t: &Tensor| t.copy().set_requires_grad(trained);
                let (our_w, our_b) = (of(&weight), of(&bias));
                let head = Head { weight: &our_w, bias: with_bias.then_some(&our_b), soft_cap, scale };
                let options = ScoreOptions {
                    budget: Some(budget),
                    token_weights: weighted.then_some(&weights),
                    ..ScoreOptions::default()
                };
                let at = format!("{with_bias} {soft_cap:?} {scale} {weighted} {budget} {trained}");
                let scores = score(head, &hidden, &positions, options).unwrap();
                assert!(off(&scores.logps, &plain) < 1e-12, "{at}");
                assert!(off(&score_only(head, &hidden, &positions, options).unwrap(), &plain) < 1e-12, "{at}");
                let got = scores.backward(head, &hidden, &positions, &gradient).unwrap();
                assert!(off(&got, &h.grad()) < 1e-12, "{at}");
                if !trained {
                    assert!(!our_w.grad().defined());
                    continue;
                }
                assert!(off(&our_w.grad(), &w.grad()) < 1e-12, "{at}");
                if with_bias {
                    assert!(off(&our_b.grad(), &b.grad()) < 1e-12, "{at}");
                }
            }
        }
    }
}

/// Hidden-state and weight gradients against central differences.
#[test]
fn gradients_are_those_of_finite_differences() {
    let Case { weight, hidden, positions, gradient, .. } = case();
    let trained = weight.copy().set_requires_grad(true);
    fn head(weight: &Tensor) -> Head<'_> {
        Head { soft_cap: Some(3.0), ..Head::from(weight) }
    }
    let scores = score(head(&trained), &hidden, &positions, 100).unwrap();
    let by_hand = scores.backward(head(&trained), &hidden, &positions, &gradient).unwrap();
    let value = |weight: &Tensor, hidden: &Tensor| {
        let logps = score_only(head(weight), hidden, &positions, 100).unwrap();
        (logps * &gradient).sum(Kind::Double).double_value(&[])
    };
    let h = 1e-6;
    for (row, column) in [(0, 0), (3, 2), (6, 4)] {
        let moved = |tensor: &Tensor, by: f64| {
            let moved = tensor.copy();
            let _ = moved.get(row).get(column).g_add_scalar_(by);
            moved
        };
        let slope = (value(&weight, &moved(&hidden, h)) - value(&weight, &moved(&hidden, -h))) / (2.0 * h);
        assert!((slope - by_hand.double_value(&[row, column])).abs() < 1e-7);
        let slope = (value(&moved(&weight, h), &hidden) - value(&moved(&weight, -h), &hidden)) / (2.0 * h);
        assert!((slope - trained.grad().double_value(&[row, column])).abs() < 1e-7);
    }
}

#[test]
fn statistics_are_those_of_full_logits() {
    let Case { weight, bias, hidden, positions, .. } = case();
    for soft_cap in [None, Some(1.5)] {
        let head = Head { bias: Some(&bias), soft_cap, ..Head::from(&weight) };
        let stats = TokenStats { mean_logit: true, entropy: true, top1: true, log_sum_sq_probs: true };
        let options = ScoreOptions { budget: Some(200), stats, ..ScoreOptions::default() };
        let scores = score(head, &hidden, &positions, options).unwrap();
        let logits = naive_logits(head, &hidden);
        let logp = logits.log_softmax(-1, None);
        let over_vocab = |t: Tensor| t.sum_dim_intlist([1i64].as_slice(), false, None);
        assert!(off(&scores.lse, &logits.logsumexp([1i64].as_slice(), false)) < 1e-12);
        assert!(off(&scores.mean_logit.unwrap(), &(over_vocab(logits.copy()) / VOCAB)) < 1e-12);
        assert!(off(&scores.entropy.unwrap(), &-over_vocab(logp.exp() * &logp)) < 1e-12);
        assert!(off(&scores.log_sum_sq_probs.unwrap(), &over_vocab((&logp * 2.0).exp()).log()) < 1e-12);
        let hits = logits.argmax(-1, false).eq_tensor(positions.targets());
        assert_eq!(Vec::<bool>::try_from(scores.top1.unwrap()).unwrap(), Vec::<bool>::try_from(hits).unwrap());
    }
}

/// The backward pass gives entropies by its own product: trained and frozen, in one chunk and in several, with bias, scale
/// and cap, and where some tokens are almost certain.
#[test]
fn entropies_of_a_backward_pass_are_those_of_full_logits() {
    let Case { weight, bias, hidden, positions, gradient } = case();
    let stats = TokenStats { entropy: true, ..TokenStats::default() };
    for (with_bias, soft_cap, scale) in [(false, None, 1.0), (true, None, 9.0), (true, Some(1.5), 0.6)] {
        let head = Head { bias: with_bias.then_some(&bias), soft_cap, scale, ..Head::from(&weight) };
        let logp = naive_logits(head, &hidden).log_softmax(-1, None);
        let entropy = -(logp.exp() * &logp).sum_dim_intlist([1i64].as_slice(), false, None);
        for (budget, trained) in BUDGETS.into_iter().flat_map(|budget| [(budget, true), (budget, false)]) {
            let weight = weight.copy().set_requires_grad(trained);
            let options = ScoreOptions { stats, ..ScoreOptions::from(budget) };
            let loss = |logps: &Tensor| Ok((logps * &gradient).sum(Kind::Double));
            let leaf = hidden.copy().set_requires_grad(true);
            let head = Head { weight: &weight, ..head };
            let (scores, _) = crate::fused::fused_logps(head, &leaf, &positions, options, loss).unwrap();
            let off = off(&scores.entropy.unwrap(), &entropy);
            assert!(off < 1e-12, "{with_bias} {soft_cap:?} {budget} {trained}: {off}");
        }
    }
}

/// Entropies take no copy of the logits: with them, a pass over rows of many blocks makes a few calls more, none of them
/// over the vocabulary.
#[test]
fn entropies_of_a_backward_pass_copy_no_logits() {
    let (weight, hidden) = (noise(4, &[300, 8]), noise(5, &[40, 8]));
    let positions = positions(&[7; 40], &[0; 40], 1);
    let calls = |entropy: bool| {
        let trained = weight.copy().set_requires_grad(true);
        let leaf = hidden.copy().set_requires_grad(true);
        let stats = TokenStats { entropy, ..TokenStats::default() };
        let options = ScoreOptions { stats, ..ScoreOptions::from(1 << 20) };
        let loss = |logps: &Tensor| Ok(logps.sum(Kind::Double));
        let pass = || crate::fused::fused_logps(&trained, &leaf, &positions, options, loss).unwrap();
        simplemix_torch::trace(pass).1
    };
    let count = |calls: &simplemix_torch::Calls, name: &str| calls.kernels(&[]).filter(|&call| call == name).count();
    let (with, without) = (calls(true), calls(false));
    for name in ["aten::mm", "aten::bmm", "aten::copy_", "aten::clone", "aten::exp", "aten::log"] {
        assert_eq!(count(&with, name), count(&without, name), "{name}");
    }
    assert_eq!(with.launches(&[]), without.launches(&[]) + 5); // product, sum, scale, difference, joined
}

/// Half-precision products are exact and summed in f32; what is left is the rounding of the results.
#[test]
fn bfloat16_is_summed_in_f32() {
    let half = |seed: u64, size: [i64; 2]| (noise(seed, &size) * 0.3).to_kind(Kind::BFloat16);
    let (weight, hidden) = (half(4, [300, 64]), half(5, [40, 64]));
    let targets: Vec<i64> = (0..40).map(|at| at * 7).collect();
    let owners: Vec<i64> = (0..40).map(|at| at / 20).collect();
    let positions = positions(&targets, &owners, 2);
    let gradient = Tensor::from_slice(&[1.0f32, -1.0]);
    let wide = |t: &Tensor| t.to_kind(Kind::Double).set_requires_grad(true);
    let (wide_weight, wide_hidden) = (wide(&weight), wide(&hidden));
    let plain = naive(Head::from(&wide_weight), &wide_hidden, &positions, &Tensor::ones([40], F64));
    (&plain * &gradient).sum(Kind::Double).backward();
    for budget in [300 * 4 * 7, 1 << 20] {
        let trained = weight.copy().set_requires_grad(true);
        let scores = score(&trained, &hidden, &positions, budget).unwrap();
        assert_eq!(scores.logps.kind(), Kind::Float);
        assert!(off(&scores.logps, &plain) < 2e-5, "{}", off(&scores.logps, &plain));
        let got = scores.backward(&trained, &hidden, &positions, &gradient).unwrap();
        let relative = |a: &Tensor, b: &Tensor| off(a, b) / f64::try_from(b.abs().max()).unwrap();
        assert!(relative(&got, &wide_hidden.grad()) < 4e-3);
        assert!(relative(&trained.grad(), &wide_weight.grad()) < 4e-3);
    }
    let logp = naive_logits(Head::from(&wide_weight), &wide_hidden).log_softmax(-1, None).detach();
    let entropy = -(logp.exp() * &logp).sum_dim_intlist([1i64].as_slice(), false, None);
    let options = ScoreOptions { stats: TokenStats { entropy: true, ..TokenStats::default() }, ..300.into() };
    let loss = |logps: &Tensor| Ok((logps * &gradient).sum(Kind::Float));
    let leaf = hidden.copy().set_requires_grad(true);
    let (scores, _) = crate::fused::fused_logps(&weight, &leaf, &positions, options, loss).unwrap();
    assert!(off(&scores.entropy.unwrap(), &entropy) < 1e-5);
}

/// f32: neither budget nor the order of responses changes anything beyond 1e-6 of its size.
#[test]
fn budget_and_order_change_nothing() {
    let float = |seed: u64, size: [i64; 2]| noise(seed, &size).to_kind(Kind::Float);
    let (weight, hidden) = (float(6, [500, 32]) * 0.2, float(7, [60, 32]));
    let owners = Tensor::arange(60, (Kind::Int64, Device::Cpu)).divide_scalar_mode(15, "floor");
    let targets = ((noise(8, &[60]) + 2.0) * 125.0).to_kind(Kind::Int64);
    let order = noise(9, &[60]).argsort(0, false);
    let run = |budget: usize, order: Option<&Tensor>| {
        let pick = |t: &Tensor| order.map_or_else(|| t.shallow_clone(), |order| t.index_select(0, order));
        let host = |t: &Tensor| Vec::<i64>::try_from(pick(t)).unwrap();
        let positions = positions(&host(&targets), &host(&owners), 4);
        let trained = weight.copy().set_requires_grad(true);
        let scores = score(&trained, &pick(&hidden), &positions, budget).unwrap();
        let logps = scores.logps.shallow_clone();
        let gradient = Tensor::from_slice(&[0.1f32, -0.1, 0.2, -0.2]);
        let hidden = scores.backward(&trained, &pick(&hidden), &positions, &gradient).unwrap();
        let back =
            order.map_or_else(|| hidden.shallow_clone(), |order| hidden.zeros_like().index_copy(0, order, &hidden));
        (logps, back, trained.grad())
    };
    let whole = run(1 << 20, None);
    for other in [run(1, None), run(500 * 4 * 7, None), run(500 * 4 * 7, Some(&order))] {
        for (a, b) in [(&whole.0, &other.0), (&whole.1, &other.1), (&whole.2, &other.2)] {
            assert!(off(a, b) < 1e-6 * f64::try_from(a.abs().max()).unwrap(), "{}", off(a, b));
        }
    }
}

#[test]
fn log_probs_below_what_f32_exponentials_hold_are_exact() {
    let weight = Tensor::from_slice(&[500f32, 0.0]).view([2, 1]);
    let positions = positions(&[1], &[0], 1);
    let logps = score_only(&weight, &Tensor::ones([1, 1], (Kind::Float, Device::Cpu)), &positions, 1).unwrap();
    assert_eq!(logps.double_value(&[0]), -500.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let Case { weight, hidden, positions, gradient, .. } = case();
    let fails = |hidden: &Tensor, p: &Positions| score(&weight, hidden, p, 1).unwrap_err();
    let refused = |targets: &[i64], owners: &[i64], responses: usize| {
        Positions::new(targets, owners, responses, Device::Cpu).unwrap_err()
    };
    let seven = [0i64; 7];
    let text = fails(&hidden, &self::positions(&[1, 11, 0, 0, 0, 0, 0], &seven, 1)).to_string();
    assert_eq!(text, "`targets` holds 11, expected indices from 0 to 10");
    assert!(matches!(refused(&[-2], &[0], 1), Error::Index { name: "targets", found: -2, .. }));
    assert!(matches!(refused(&seven, &[0, 0, 0, 0, 0, 0, -1], 1), Error::Index { found: -1, .. }));
    assert!(matches!(refused(&seven, &[0, 0, 0, 0, 0, 0, 1], 1), Error::Index { found: 1, last: 0, .. }));
    let empty = refused(&seven, &[0, 0, 0, 2, 2, 2, 2], 3);
    assert_eq!(empty.to_string(), "response 1 of 3 is empty, expected at least one scored position");
    assert!(matches!(refused(&seven, &[0], 1), Error::Shape { name: "owners", .. }));
    assert!(matches!(refused(&[], &[], 0), Error::Shape { name: "owners", .. }));
    assert!(matches!(fails(&hidden, &self::positions(&[0], &[0], 1)), Error::Shape { name: "hidden", .. }));
    assert!(matches!(fails(&hidden.narrow(1, 0, 4), &positions), Error::Shape { name: "hidden", .. }));
    assert!(matches!(fails(&hidden.to_kind(Kind::Float), &positions), Error::Shape { name: "hidden", .. }));
    for bad in [f64::NAN, f64::INFINITY] {
        let broken = hidden.copy();
        let _ = broken.get(2).fill_(bad);
        assert!(matches!(fails(&broken, &positions), Error::NonFinite { index: 2, .. }));
    }
    // Checked later, NaN goes on.
    let broken = &hidden * f64::NAN;
    let later = ScoreOptions { checks: Checks::Later, ..ScoreOptions::from(1) };
    assert!(score(&weight, &broken, &positions, later).unwrap().logps.isnan().all().int64_value(&[]) == 1);
    let backward = |gradient: &Tensor| {
        let scores = score(&weight, &hidden, &positions, 1).unwrap();
        scores.backward(&weight, &hidden, &positions, gradient).unwrap_err()
    };
    assert!(matches!(backward(&gradient.narrow(0, 0, 2)), Error::Shape { name: "gradient", .. }));
    assert!(matches!(backward(&(&gradient * f64::NAN)), Error::NonFinite { name: "gradient", .. }));
    let capped = Head { soft_cap: Some(0.0), ..Head::from(&weight) };
    assert!(matches!(score(capped, &hidden, &positions, 1), Err(Error::Setting { .. })));
}

#[test]
fn a_head_that_is_no_leaf_is_refused() {
    let Case { weight, hidden, positions, gradient, .. } = case();
    let derived = weight.set_requires_grad(true) * 2.0;
    let scores = score(&derived, &hidden, &positions, 1).unwrap();
    let error = scores.backward(&derived, &hidden, &positions, &gradient).unwrap_err();
    assert!(error.to_string().contains("expected a leaf of the graph"), "{error}");
}

#[test]
fn chunks_are_even() {
    assert_eq!(even_chunks(10, 4), 4);
    assert_eq!(even_chunks(9, 8), 5);
    assert_eq!(even_chunks(5, 1), 1);
}
