//! A smaller mixture is the beginning of a larger one, so that runs of several sizes differ in nothing but their size.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use simplemix_mix::{
    BatchOrder, Draw, Exhaustion, Mixture, MixtureConfig, Routing, RowOrder, Schedule, Shares, SourceConfig, Weight,
};

fn config(rows: &[u64], weights: &[u64]) -> MixtureConfig {
    let source = |(i, (&rows, &weight)): (usize, (&u64, &u64))| SourceConfig {
        tokens: Some(rows * (10 + 7 * i as u64)),
        ..SourceConfig::new(format!("s{i}"), rows, Weight::whole(weight))
    };
    MixtureConfig::new(rows.iter().zip(weights).enumerate().map(source).collect(), 11)
}

fn drawn(config: &MixtureConfig, size: u64) -> Vec<Draw> {
    Mixture::new(MixtureConfig { size: Some(size), ..config.clone() }).unwrap().iter().collect()
}

/// Settings that draw rows of two and of three sources in every way but those that depend on the size.
fn all() -> Vec<MixtureConfig> {
    let sources = [config(&[900, 900], &[1, 1]), config(&[900, 900], &[3, 7]), config(&[900, 900, 900], &[5, 2, 3])];
    let with = |base: &MixtureConfig| {
        vec![
            base.clone(),
            MixtureConfig { batch: Some(8), ..base.clone() },
            MixtureConfig { batch: Some(8), order: BatchOrder::BatchShuffled, ..base.clone() },
            MixtureConfig { rows: RowOrder::File, ..base.clone() },
            MixtureConfig { shares: Shares::Tokens, ..base.clone() },
            MixtureConfig { shares: Shares::Bernoulli { replace: false }, ..base.clone() },
            MixtureConfig { shares: Shares::Bernoulli { replace: true }, ..base.clone() },
        ]
    };
    sources.iter().flat_map(with).collect()
}

#[test]
fn a_mixture_of_n_is_the_first_n_rows_of_one_of_2n() {
    for config in all() {
        let whole = drawn(&config, 600);
        for size in [1, 2, 7, 8, 100, 300] {
            assert_eq!(drawn(&config, size), whole[..size as usize], "{size} of {config:?}");
        }
    }
}

#[test]
fn rows_that_come_again_come_in_the_same_places() {
    let base = config(&[20, 90], &[1, 1]);
    let config = MixtureConfig { exhaustion: Exhaustion::Repeat { epochs: 5 }, ..base.clone() };
    let whole = drawn(&config, 160);
    assert!(whole.iter().any(|draw| draw.epoch > 2));
    assert_eq!(drawn(&config, 80), whole[..80]);
    // As long as no source repeats, the rule of repeating changes nothing.
    assert_eq!(drawn(&base, 40), whole[..40]);
}

#[test]
fn shares_by_task_are_prefixes_too() {
    let routing: Routing = serde_json::from_str(r#"{"tasks": {"math": {"s0": 1, "s1": 3}}}"#).unwrap();
    let tasks: Vec<&str> = (0..900).map(|row| if row % 3 == 0 { "math" } else { "" }).collect();
    let of = |size: u64| {
        let config = MixtureConfig { size: Some(size), ..config(&[900, 900], &[1, 1]) };
        let routed = routing.route(&config, &[tasks.clone(), tasks.clone()]).unwrap();
        let rows: Vec<_> = routed.mixture.iter().map(|draw| (routed.cells[draw.source].clone(), draw.row)).collect();
        rows
    };
    assert_eq!(of(250), of(500)[..250]);
}

/// Exceptions that docs/mixing.md names: their rows depend on the size.
#[test]
fn a_schedule_is_stretched_over_the_size() {
    let half = "1/2".parse().unwrap();
    let schedule = Schedule::hand_over(Weight::whole(0), half);
    let config = MixtureConfig { schedule: Some(schedule), ..config(&[900, 900], &[1, 1]) };
    assert_ne!(drawn(&config, 300), drawn(&config, 600)[..300]);
}

proptest! {
    #[test]
    fn any_size_is_the_beginning_of_any_larger_one(
        weights in prop::collection::vec(1u64..9, 1..5), batch in 1u64..9, size in 1u64..200, more in 0u64..200, seed: u64,
    ) {
        let rows = vec![400; weights.len()];
        let config = MixtureConfig { seed, batch: Some(batch), order: BatchOrder::BatchShuffled, ..config(&rows, &weights) };
        let whole = drawn(&config, size + more);
        prop_assert_eq!(&drawn(&config, size), &whole[..size as usize]);
        // The larger one holds the shares as well as the smaller one.
        let mut counts = BTreeMap::new();
        whole.iter().for_each(|draw| *counts.entry(draw.source).or_insert(0u64) += 1);
        let sum: u64 = weights.iter().sum();
        for (i, weight) in weights.iter().enumerate() {
            let due = (*weight * (size + more)) as f64 / sum as f64;
            prop_assert!((counts.get(&i).copied().unwrap_or(0) as f64 - due).abs() < 1.0 + batch as f64);
        }
    }
}
