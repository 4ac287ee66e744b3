//! The fused head compared with full logits and with the bare matrix products, on the CPU in f32.
//!
//! cargo bench -p simplemix-loss
//!
//! benches/head_peers.py compares larger sizes, and memory, with PyTorch and TRL.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use simplemix_loss::{FusedInputs, PairLogps, Positions, PreferenceLoss, fused_preference_loss, score_only};
use tch::{Device, Kind, Tensor};

const VOCAB: i64 = 49_152; // SmolLM2
const WIDTH: i64 = 576;
const BUDGET: usize = 64 << 20;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn positions(rows: i64, responses: i64) -> Positions {
    let targets = Vec::<i64>::try_from(Tensor::randint(VOCAB, [rows], (Kind::Int64, Device::Cpu))).unwrap();
    let owners: Vec<i64> = (0..rows).map(|row| row / (rows / responses)).collect();
    Positions::new(&targets, &owners, responses as usize, Device::Cpu).unwrap()
}

fn head(c: &mut Criterion) {
    tch::manual_seed(0);
    let mut group = c.benchmark_group("head, V=49152 H=576 f32");
    group.sample_size(10);
    let dpo = PreferenceLoss::new("sigmoid".parse().unwrap(), 0.1, 0.0).unwrap();
    for rows in [256, 1024] {
        group.throughput(Throughput::Elements(rows as u64));
        let frozen = Tensor::randn([VOCAB, WIDTH], CPU) * 0.02;
        let trained = frozen.copy().set_requires_grad(true);
        let hidden = Tensor::randn([rows, WIDTH], CPU).set_requires_grad(true);
        let positions = positions(rows, 4);
        let reference = PairLogps { chosen: Tensor::zeros([2], CPU), rejected: Tensor::zeros([2], CPU) };
        let fused = |head: &Tensor| {
            let inputs = FusedInputs {
                reference: Some(&reference),
                options: BUDGET.into(),
                ..FusedInputs::new(head, &hidden, &positions)
            };
            fused_preference_loss(&dpo, &inputs).unwrap().surrogate.backward();
        };
        group.bench_function(BenchmarkId::new("bare matrix products (2)", rows), |b| {
            let _guard = tch::no_grad_guard();
            b.iter(|| hidden.mm(&frozen.tr()).mm(&frozen));
        });
        group.bench_function(BenchmarkId::new("forward only", rows), |b| {
            b.iter(|| score_only(&frozen, &hidden, &positions, BUDGET).unwrap());
        });
        group.bench_function(BenchmarkId::new("fused, head frozen", rows), |b| b.iter(|| fused(&frozen)));
        group.bench_function(BenchmarkId::new("fused, head trained", rows), |b| b.iter(|| fused(&trained)));
        group.bench_function(BenchmarkId::new("full logits, head trained", rows), |b| {
            b.iter(|| {
                let logps = hidden.linear(&trained, None::<&Tensor>).log_softmax(-1, Kind::Float);
                let token_logps = logps.gather(1, &positions.targets().unsqueeze(1), false).squeeze_dim(1);
                let logps = Tensor::zeros([4], CPU).index_add(0, positions.owners(), &token_logps);
                let policy = PairLogps::from_alternating(&logps).unwrap();
                dpo.evaluate(&policy, &reference, None).unwrap().loss.sum(Kind::Float).backward();
            });
        });
    }
    group.finish();
}

fn losses(c: &mut Criterion) {
    let mut group = c.benchmark_group("loss and gradient of 64 pairs");
    for name in ["sigmoid", "ipo", "robust", "nca_pair", "aot", "simpo"] {
        let loss = PreferenceLoss::new(name.parse().unwrap(), 0.1, 0.0).unwrap();
        let side = || Tensor::randn([64], CPU) * 10.0 - 100.0;
        let lengths = simplemix_loss::PairLengths {
            chosen: Tensor::full([64], 50.0, CPU),
            rejected: Tensor::full([64], 60.0, CPU),
        };
        let reference = PairLogps { chosen: side(), rejected: side() };
        let policy = PairLogps { chosen: side().set_requires_grad(true), rejected: side().set_requires_grad(true) };
        group.bench_function(name, |b| {
            b.iter(|| loss.evaluate(&policy, &reference, &lengths).unwrap().loss.sum(Kind::Float).backward());
        });
    }
    group.finish();
}

criterion_group!(benches, head, losses);
criterion_main!(benches);
