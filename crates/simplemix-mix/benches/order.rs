//! Draws a second on one thread, and the cost of far positions and of plans.
//!
//! cargo bench -p simplemix-mix
//!
//! benches/mix_peers.py sets whole mixtures beside `datasets` and Grain.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use simplemix_mix::{BatchOrder, Curve, Mixture, MixtureConfig, Permutation, Schedule, Shares, SourceConfig, Weight};

const DRAWS: u64 = 1 << 16;

fn config(weights: &[u64], rows: u64) -> MixtureConfig {
    let source = |(i, &w): (usize, &u64)| SourceConfig::new(i.to_string(), rows, Weight::whole(w));
    MixtureConfig { size: Some(rows), ..MixtureConfig::new(weights.iter().enumerate().map(source).collect(), 1) }
}

fn orders(c: &mut Criterion) {
    let mut group = c.benchmark_group("source and row of 65536 positions");
    group.throughput(Throughput::Elements(DRAWS));
    let ten: Vec<u64> = (1..=10).collect();
    let two = config(&[3, 7], 1 << 40);
    let schedule = Some(Schedule::between(
        vec![Weight::whole(1), Weight::whole(0)],
        vec![Weight::whole(0), Weight::whole(1)],
        Curve::Linear,
    ));
    for (name, config) in [
        ("2 sources", two.clone()),
        ("10 sources", config(&ten, 1 << 40)),
        ("10 sources, batches of 64", MixtureConfig { batch: Some(64), ..config(&ten, 1 << 40) }),
        (
            "10 sources, batches of 64 shuffled",
            MixtureConfig { batch: Some(64), order: BatchOrder::BatchShuffled, ..config(&ten, 1 << 40) },
        ),
        ("2 sources, linear schedule", MixtureConfig { schedule, ..two.clone() }),
        (
            "2 sources, independent draws",
            MixtureConfig { shares: Shares::Bernoulli { replace: false }, size: Some(1 << 24), ..two },
        ),
    ] {
        let mixture = Mixture::new(config).unwrap();
        group.bench_function(format!("{name}: source"), |b| {
            if name.contains("independent") {
                b.iter(|| mixture.iter().take(DRAWS as usize).map(|draw| draw.source).sum::<usize>());
            } else {
                b.iter(|| (0..DRAWS).map(|position| mixture.source_at(position)).sum::<usize>());
            }
        });
        group.bench_function(format!("{name}: source and shuffled row"), |b| {
            b.iter(|| mixture.iter().take(DRAWS as usize).fold(0u64, |sum, draw| sum ^ draw.row));
        });
    }
    group.finish();
}

fn far(c: &mut Criterion) {
    let mut group = c.benchmark_group("one position");
    let mixture = Mixture::new(MixtureConfig { size: None, ..config(&[3, 7], 1 << 61) }).unwrap();
    for position in [0, 1 << 32, 1 << 60, 1 << 62] {
        group.bench_function(format!("at {position}"), |b| b.iter(|| mixture.at(black_box(position))));
    }
    let schedule = Some(Schedule::between(
        vec![Weight::whole(1); 3],
        vec![Weight::whole(1), Weight::whole(2), Weight::whole(3)],
        Curve::Cosine,
    ));
    let mixture = Mixture::new(MixtureConfig { schedule, ..config(&[1, 1, 1], 1 << 32) }).unwrap();
    group.bench_function("of a cosine over 3 sources", |b| b.iter(|| mixture.at(black_box(1 << 31))));
    let mixture =
        Mixture::new(MixtureConfig { shares: Shares::Bernoulli { replace: false }, ..config(&[1, 1], 1 << 32) })
            .unwrap();
    group.bench_function("of independent draws", |b| b.iter(|| mixture.at(black_box(1 << 31))));
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("permutation");
    group.throughput(Throughput::Elements(DRAWS));
    for len in [60_000u64, 1_000_000, 1_000_000_000, 1_000_000_000_000] {
        let order = Permutation::new(len, 1, 0);
        group
            .bench_function(format!("of {len} rows"), |b| b.iter(|| (0..DRAWS).fold(0u64, |sum, i| sum ^ order.at(i))));
    }
    group.finish();
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    let ten: Vec<u64> = (1..=10).collect();
    group.bench_function("new and plan, 10 sources of a million rows", |b| {
        b.iter(|| Mixture::new(config(black_box(&ten), 1_000_000)).unwrap().plan());
    });
    group.finish();
}

criterion_group!(benches, orders, far, rows, planning);
criterion_main!(benches);
