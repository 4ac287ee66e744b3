//! Values from the papers' formulas, finite differences, huge margins, refusals.

use super::*;
use crate::losses::absolute::bco_pair;
use crate::losses::margin::sigmoid;
use crate::pair::PairQuantiles;
use crate::unpaired::{KtoConstants, kto};
use tch::Kind;

fn vector(x: f64) -> Tensor {
    Tensor::from_slice(&[x])
}

fn logps(chosen: f64, rejected: f64) -> PairLogps {
    PairLogps { chosen: vector(chosen), rejected: vector(rejected) }
}

fn loss(name: &str, beta: f64, constants: &[(&str, f64)]) -> PreferenceLoss {
    let constants = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    PreferenceLoss::with_constants(name.parse().unwrap(), beta, &constants).unwrap()
}

/// Every loss, with constants where it has no default.
fn every(beta: f64) -> Vec<PreferenceLoss> {
    let constants = |kind: LossKind| match kind.name() {
        "exo_pair" => vec![("label_smoothing", 1e-3)],
        "length_margin" => vec![("len_penalty", 0.05)],
        _ if kind.has_constant("label_smoothing") => vec![("label_smoothing", 0.1)],
        _ => vec![],
    };
    LossKind::all().map(|kind| loss(kind.name(), beta, &constants(kind))).collect()
}

fn output(loss: &PreferenceLoss, policy: &PairLogps, reference: &PairLogps) -> LossOutput {
    let lengths = PairLengths { chosen: vector(5.0), rejected: vector(8.0) };
    let label_probs = vector(0.8);
    let quantiles = PairQuantiles { chosen: vector(0.75), rejected: vector(0.25) };
    let pairs = Pairs {
        reference: loss.needs(Need::Reference).then_some(reference),
        lengths: Some(&lengths),
        label_probs: Some(&label_probs),
        quantiles: Some(&quantiles),
        ..Pairs::new(policy)
    };
    loss.evaluate_pairs(&pairs).unwrap()
}

fn value(loss: &PreferenceLoss, policy: &PairLogps) -> f64 {
    output(loss, policy, &logps(-11.0, -11.5)).loss.double_value(&[0])
}

/// Worked in f64 from the formulas of the papers, at log-ratios 1 and -0.5, 5 and 8 tokens.
#[test]
fn golden_values() {
    let smoothed = |e: f64| ("label_smoothing", e);
    let alpha = |name: &str, divergence| loss(name, 0.1, &[]).with_divergence(divergence).unwrap();
    for (loss, want) in [
        (loss("sigmoid", 0.1, &[]), 0.620957048),
        (loss("cdpo", 0.1, &[smoothed(0.1)]), 0.635957048),
        (loss("robust", 0.1, &[smoothed(0.1)]), 0.602207048),
        (loss("hinge", 0.1, &[]), 0.85),
        (loss("ipo", 0.1, &[]), 22.443906250),
        (loss("ipo_sum", 0.1, &[]), 12.25),
        (loss("exo_pair", 0.1, &[smoothed(1e-3)]), 2.505516555),
        (loss("nca_pair", 0.1, &[]), 1.350824814),
        (loss("bco_pair", 0.1, &[]), 1.312856308),
        (loss("sppo_hard", 0.1, &[]), 36.25),
        (loss("apo_zero", 0.1, &[]), 0.962523416),
        (loss("apo_down", 0.1, &[]), 0.987549342),
        (loss("qrpo", 0.1, &[]), 0.117494870),
        (loss("discopop", 0.1, &[]), 0.849337579),
        (loss("sigmoid_norm", 5.0, &[]), 0.238344508),
        (loss("simpo", 2.0, &[("simpo_gamma", 1.0)]), 2.126928011),
        (loss("orpo", 0.1, &[]), 2.104205781),
        (loss("cpo", 0.1, &[]), 2.598138869),
        (loss("cpo", 0.1, &[("cpo_alpha", 0.0)]), 0.598138869),
        (alpha("sigmoid", Divergence::ForwardKl), 0.631154384),
        (alpha("sigmoid", Divergence::JsDivergence), 0.660652163),
        (alpha("sigmoid", Divergence::AlphaDivergence(0.5)), 0.627690947),
    ] {
        let got = value(&loss, &logps(-10.0, -12.0));
        assert!((got - want).abs() < 5e-9, "{loss:?}: {got} {want}");
    }
}

/// `alignment/dpo_iteration/dpo.py` of srzer/Samplers-in-Online-DPO, `loss_type="rev_kl"`, in torch 2.11 and f64:
///
/// ```python
/// p = F.sigmoid(margin); -p * F.logsigmoid(0.1 * d) - (1 - p) * F.logsigmoid(-0.1 * d)
/// ```
#[test]
fn soft_labels_are_those_of_dpo_mix_p() {
    let soft_label = loss("soft_label", 0.1, &[]);
    for (d, margin, want) in [
        (1.5, 2.0, 0.6388374860928497),
        (1.5, -0.5, 0.7143259474698103),
        (-3.0, 1.0, 0.7736728180575286),
        (40.0, 4.0, 0.09009476776617593),
        (0.0, 0.3, std::f64::consts::LN_2),
    ] {
        let (policy, reference, probs) = (logps(d, 0.0), logps(0.0, 0.0), vector(margin).sigmoid());
        let pairs = Pairs { reference: Some(&reference), label_probs: Some(&probs), ..Pairs::new(&policy) };
        let got = soft_label.evaluate_pairs(&pairs).unwrap().loss.double_value(&[0]);
        assert!((got - want).abs() < 1e-14, "{d} {margin}: {got} {want}");
    }
}

/// BCO shifted by the batch's mean reward, 0.1 (1 - 0.5) / 2, and KTO with a baseline of 0.3.
#[test]
fn golden_values_of_what_is_no_plain_pair() {
    let got = bco_pair(&vector(1.0), &vector(-0.5), 0.1, 0.025).double_value(&[0]);
    assert!((got - 1.312700282).abs() < 5e-9, "{got}");
    let constants = KtoConstants { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 };
    let logratios = Tensor::from_slice(&[1.0, -0.5]);
    let got = kto(&logratios, &Tensor::from_slice(&[true, false]), 0.3, constants).unwrap();
    assert!((got.double_value(&[0]) - 0.482507142).abs() < 5e-9);
    assert!((got.double_value(&[1]) - 0.480010660).abs() < 5e-9);
}

/// In f32 too, with gradients; AlphaPO's and the mean losses' log-probabilities stay below 0.
#[test]
fn every_loss_is_finite_at_huge_margins() {
    for loss in every(1.0) {
        for (chosen, rejected) in [(-1.0, -1e4), (-1e4, -1.0), (-1e4, -1e4), (-1e-9, -1e-9)] {
            for kind in [Kind::Double, Kind::Float] {
                let leaf = |x: f64| vector(x).to_kind(kind).set_requires_grad(true);
                let policy = PairLogps { chosen: leaf(chosen), rejected: leaf(rejected) };
                let reference = PairLogps { chosen: leaf(-11.0).detach(), rejected: leaf(-11.5).detach() };
                let loss_of = output(&loss, &policy, &reference).loss;
                loss_of.sum(kind).backward();
                assert!(loss_of.double_value(&[0]).is_finite(), "{loss:?} {chosen} {rejected} {kind:?}");
                for gradient in [policy.chosen.grad(), policy.rejected.grad()] {
                    assert!(!gradient.defined() || gradient.double_value(&[0]).is_finite(), "{loss:?} {chosen}");
                }
            }
        }
    }
}

#[test]
fn losses_at_the_reference_are_known() {
    let mut known = 0;
    for loss in every(0.3) {
        let Some(want) = loss.at_reference() else { continue };
        let got = value(&loss, &logps(-11.0, -11.5));
        assert!((got - want).abs() < 1e-12, "{loss:?}: {got} {want}");
        known += 1;
    }
    assert!(known >= 16);
}

/// Gradients by autograd against central differences in f64, for every loss and divergence.
#[test]
fn gradients_are_those_of_finite_differences() {
    let mut losses = every(0.2);
    for divergence in [Divergence::ForwardKl, Divergence::JsDivergence, Divergence::AlphaDivergence(0.5)] {
        losses.extend(every(0.2).into_iter().filter_map(|loss| loss.with_divergence(divergence).ok()));
    }
    for loss in losses {
        let policy = logps(-10.0, -12.0);
        let _ = policy.chosen.set_requires_grad(true);
        let _ = policy.rejected.set_requires_grad(true);
        output(&loss, &policy, &logps(-11.0, -11.5)).loss.sum(Kind::Double).backward();
        let h = 1e-6;
        let slope = |a: f64, b: f64| {
            let at = |t: f64| value(&loss, &logps(-10.0 + a * t, -12.0 + b * t));
            (at(h) - at(-h)) / (2.0 * h)
        };
        for (got, want) in [(policy.chosen.grad(), slope(1.0, 0.0)), (policy.rejected.grad(), slope(0.0, 1.0))] {
            let got = if got.defined() { got.double_value(&[0]) } else { 0.0 };
            assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{loss:?}: {got} {want}");
        }
    }
}

#[test]
fn constants_out_of_range_are_named() {
    let text = |name: &str, beta, e| PreferenceLoss::new(name.parse().unwrap(), beta, e).unwrap_err().to_string();
    assert_eq!(text("sigmoid", -1.0, 0.0), "`beta` is -1, expected a number above 0");
    assert_eq!(text("sigmoid", f64::NAN, 0.0), "`beta` is NaN, expected a number above 0");
    assert_eq!(text("robust", 0.1, 0.5), "`label_smoothing` is 0.5, expected from 0 to below 0.5 for `robust`");
    assert!(text("exo_pair", 0.1, 0.0).contains("above 0 and below 0.5"));
    assert!(text("sigmoid", 0.1, 0.1).contains("expected no constant: `sigmoid` has beta alone"));
    assert!("dpo2".parse::<LossKind>().unwrap_err().to_string().contains("one of sigmoid, cdpo"));
    let length_margin = PreferenceLoss::new("length_margin".parse().unwrap(), 0.1, 0.0).unwrap_err();
    assert!(length_margin.to_string().starts_with("`len_penalty` is absent"));
    assert!(loss("aot", 0.1, &[]).with_wpo(Wpo::Capped).is_err());
    assert!(loss("aot", 0.1, &[]).with_divergence(Divergence::ForwardKl).is_err());
    assert!(loss("ipo", 0.1, &[]).with_divergence(Divergence::AlphaDivergence(f64::NAN)).is_err());
}

#[test]
fn what_does_not_fit_is_named() {
    let dpo = loss("sigmoid", 0.1, &[]);
    let two = PairLogps { chosen: Tensor::from_slice(&[0.0, 1.0]), rejected: Tensor::from_slice(&[0.0, 1.0]) };
    let fails = |policy: &PairLogps, reference: &PairLogps| dpo.evaluate(policy, reference, None).unwrap_err();
    let text = fails(&two, &logps(0.0, 0.0)).to_string();
    assert_eq!(text, "`reference.chosen` is Double [1], expected a float vector of [2]");
    let text = fails(&logps(0.0, f64::NAN), &logps(0.0, 0.0)).to_string();
    assert_eq!(text, "`policy.rejected` holds NaN at index 0, expected finite numbers");
    assert!(matches!(fails(&logps(0.0, 0.0), &logps(f64::NEG_INFINITY, 0.0)), Error::NonFinite { .. }));
    let empty = PairLengths { chosen: vector(0.0), rejected: vector(3.0) };
    let error = loss("ipo", 0.1, &[]).evaluate(&logps(0.0, 0.0), &logps(0.0, 0.0), &empty).unwrap_err();
    assert!(error.to_string().contains("at least one token"), "{error}");
    assert!(matches!(
        loss("ipo", 0.1, &[]).evaluate(&logps(0.0, 0.0), &logps(0.0, 0.0), None),
        Err(Error::Missing { need: "the responses' lengths", .. })
    ));
    assert!(matches!(
        loss("soft_label", 0.1, &[]).evaluate(&logps(0.0, 0.0), &logps(0.0, 0.0), None),
        Err(Error::Missing { need: "label probabilities", .. })
    ));
    let qrpo = loss("qrpo", 0.1, &[]);
    let error = qrpo.evaluate(&logps(0.0, 0.0), &logps(0.0, 0.0), None).unwrap_err();
    assert_eq!(error.to_string(), "the loss `qrpo` needs the responses' quantile rewards");
    let quantiles = PairQuantiles { chosen: vector(1.5), rejected: vector(0.0) };
    let (policy, reference) = (logps(0.0, 0.0), logps(0.0, 0.0));
    let pairs = Pairs { reference: Some(&reference), quantiles: Some(&quantiles), ..Pairs::new(&policy) };
    let error = qrpo.evaluate_pairs(&pairs).unwrap_err().to_string();
    assert_eq!(error, "`quantiles.chosen` is 1.5 to 1.5, expected from 0 to 1");
}

/// A formula of another crate goes through the same entry, as docs/losses.md shows.
#[test]
fn a_formula_from_elsewhere_works() {
    static HALVED: Formula = Formula {
        name: "halved",
        aliases: &[],
        constants: &[],
        needs: &[Need::Reference],
        divergences: true,
        coupling: Coupling::Independent,
        rewards: Rewards::Sum,
        value: |t| sigmoid(&t.delta(), t.beta) * 0.5,
        at_reference: None,
    };
    let halved = PreferenceLoss::new(LossKind::new(&HALVED), 0.1, 0.0).unwrap();
    assert!((value(&halved, &logps(-10.0, -12.0)) - 0.620957048 / 2.0).abs() < 5e-9);
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> =
        LossKind::all().flat_map(|kind| kind.formula().aliases.iter().copied().chain([kind.name()])).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!("dpo".parse::<LossKind>().unwrap().name(), "sigmoid");
}
