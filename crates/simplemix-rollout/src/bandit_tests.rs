//! Trajectories of the authors' script, rates of convergence, drawn pairs.

use std::collections::BTreeMap;

use super::*;

#[derive(Deserialize)]
struct Golden {
    rewards: Vec<f64>,
    runs: BTreeMap<PairSampler, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    updates: Vec<usize>,
    error: Vec<f64>,
    gap: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("bandit.json")).unwrap()
}

fn exact(sampler: PairSampler, updates: usize, step: StepSize) -> BanditRun {
    BanditRun { sampler, updates, step, draws: None, seed: 0 }
}

/// Golden values from tests/golden/rollout_bandit.py: autograd, with the authors' rewards and settings.
#[test]
fn trajectories_are_those_of_the_authors_script() {
    let golden = golden();
    let bandit = Bandit::new(golden.rewards, 3.0).unwrap();
    for (sampler, expected) in golden.runs {
        let points = bandit.run(&exact(sampler, 99, StepSize::Fixed(10.0)));
        for ((&update, error), gap) in expected.updates.iter().zip(expected.error).zip(expected.gap) {
            let BanditPoint { error: ours, gap: our_gap } = points[update];
            assert!((ours - error).abs() < 1e-9 * error + 1e-13, "{sampler:?} {update}: {ours} {error}");
            assert!((our_gap - gap).abs() < 1e-9 * gap + 1e-13, "{sampler:?} {update}: {our_gap} {gap}");
        }
    }
}

/// Rewards in [0, 1], as in the theorems.
fn unit_rewards(seed: u64) -> Bandit {
    Bandit::new((0..20).map(|i| unit(mix(mix(seed) ^ i))).collect(), 3.0).unwrap()
}

/// Errors of an exact run, down to the level of rounding.
fn errors(bandit: &Bandit, sampler: PairSampler, step: StepSize) -> Vec<f64> {
    let points = bandit.run(&exact(sampler, 12, step));
    points.iter().map(|point| point.error).take_while(|&error| error > 1e-13).collect()
}

/// Order of convergence: the fall of the logarithm of the error in the last update over that in the one before. It is 1 if
/// an update multiplies the error by a factor, 2 if it squares the error.
fn order(errors: &[f64]) -> f64 {
    let logs: Vec<f64> = errors[errors.len() - 3..].iter().map(|error| error.ln()).collect();
    (logs[2] - logs[1]) / (logs[1] - logs[0])
}

/// Rates of the paper's theorems for exact gradients: 0.588^T, 0.5^(2^T - 1), 0.611^(2^T - 1).
#[test]
fn uniform_pairs_converge_linearly_and_mixed_ones_quadratically() {
    for seed in 0..5 {
        let bandit = unit_rewards(seed);
        let of = |sampler| errors(&bandit, sampler, StepSize::Newton);
        let uniform = of(PairSampler::Uniform);
        assert!(uniform.len() > 9, "{uniform:?}");
        assert!((order(&uniform) - 1.0).abs() < 0.01, "{seed}: {}", order(&uniform));
        let rates: Vec<f64> = uniform.windows(2).skip(4).map(|pair| pair[1] / pair[0]).collect();
        assert!(rates.iter().all(|rate| (rate / rates[0] - 1.0).abs() < 0.05), "{rates:?}");
        for (sampler, rate) in [(PairSampler::MixR, 0.5f64), (PairSampler::MixP, 0.611)] {
            let mixed = of(sampler);
            // The logarithm of the error doubles until nothing is left after a handful of updates.
            assert!(mixed.len() <= 6, "{mixed:?}");
            assert!((order(&mixed) - 2.0).abs() < 0.1, "{seed} {sampler:?}: {} {mixed:?}", order(&mixed));
            for (t, error) in mixed.iter().enumerate() {
                assert!(*error <= rate.powf(2f64.powi(t as i32) - 1.0), "{sampler:?} {t}: {error}");
            }
        }
        assert!(uniform.iter().enumerate().all(|(t, error)| *error <= 0.588f64.powi(t as i32)));
    }
}

/// At a fixed step every sampler converges linearly in the end, at the rate of the linear part that the step leaves. The
/// script's step of 10 is near the one that leaves nothing, for its rewards.
#[test]
fn at_a_fixed_step_mixed_pairs_are_linear_too() {
    let bandit = Bandit::new(golden().rewards, 3.0).unwrap();
    let points = bandit.run(&exact(PairSampler::MixP, 40, StepSize::Fixed(5.0)));
    let rate = points[15].error / points[14].error;
    let newton = bandit.weights(PairSampler::MixR, &[0.0; 20]).iter().sum::<f64>() / (2.0 * 9.0 * 20.0);
    assert!((rate - (1.0 - 5.0 / newton)).abs() < 1e-3 && (newton - 9.93).abs() < 0.01, "{rate} {newton}");
}

#[test]
fn drawn_gradients_have_the_exact_one_as_their_mean() {
    let bandit = Bandit::new(golden().rewards, 3.0).unwrap();
    let logits: Vec<f64> = (0..20).map(|i| 0.3 * f64::from(i).sin()).collect();
    for sampler in PairSampler::ALL {
        let weights = bandit.weights(sampler, &logits);
        let exact = bandit.gradient(&weights, &logits);
        let (runs, draws) = (40, 500);
        let drawn: Vec<Vec<f64>> =
            (0..runs).map(|run| bandit.drawn_gradient(&weights, &logits, draws, mix(run))).collect();
        for (i, exact) in exact.iter().enumerate() {
            let mean = drawn.iter().map(|gradient| gradient[i]).sum::<f64>() / runs as f64;
            let variance = drawn.iter().map(|gradient| (gradient[i] - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
            let error = (mean - exact) / (variance / runs as f64).sqrt();
            assert!(error.abs() < 4.5, "{sampler:?} {i}: {mean} {exact}");
        }
    }
}

/// With drawn labels, convergence ends at a floor of noise.
#[test]
fn drawn_pairs_end_at_a_floor() {
    let bandit = Bandit::new(golden().rewards, 3.0).unwrap();
    let step = StepSize::Fixed(0.5);
    let run = BanditRun { draws: Some(1024), seed: 4, ..exact(PairSampler::MixP, 300, step) };
    let points = bandit.run(&run);
    assert_eq!(points, bandit.run(&run));
    let late: Vec<f64> = points[200..].iter().map(|point| point.error).collect();
    let mean = late.iter().sum::<f64>() / late.len() as f64;
    assert!(mean < 0.2 * points[0].error && late.iter().all(|&error| error > 0.2 * mean), "{mean} {late:?}");
    assert!(bandit.run(&exact(PairSampler::MixP, 300, step))[300].error < 1e-3 * mean);
}

#[test]
fn invalid_tables_are_refused() {
    let text = |rewards: &[f64], beta| Bandit::new(rewards.to_vec(), beta).unwrap_err().to_string();
    assert_eq!(text(&[1.0], 1.0), "`rewards` is a list of 1, expected at least 2 rewards");
    assert_eq!(text(&[1.0, f64::NAN], 1.0), "`rewards` is NaN, expected finite numbers");
    assert_eq!(text(&[1.0, 2.0], 0.0), "`beta` is 0, expected a number > 0");
}
