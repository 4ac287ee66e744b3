//! A layer's attention forward and backward on a CPU: `run_attention`, and libtorch's kernel with a call for each run and a
//! mask for the second response of a prompt. Heads of SmolLM2-135M, f32, about 1,100 tokens in 1, 4 and 16 pairs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use simplemix_torch::{Run, Varlen, backward, causal_mask, run_attention};
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const HEADS: [i64; 3] = [9, 3, 3];
const WIDTH: i64 = 64;

/// Prompt, chosen and rejected tokens of each pair, and the number of pairs.
const PAIRS: [([i64; 3], i64); 3] = [([240, 440, 420], 1), ([60, 110, 105], 4), ([15, 28, 26], 16)];

fn leaves(rows: i64) -> [Tensor; 3] {
    HEADS.map(|heads| Tensor::randn([rows, heads, WIDTH], F32).set_requires_grad(true))
}

fn how() -> Varlen {
    Varlen { scale: 1.0 / (WIDTH as f64).sqrt(), window: None }
}

fn ours(leaves: &[Tensor; 3], [prompt, chosen, rejected]: [i64; 3], pairs: i64) -> Tensor {
    let runs: Vec<Run> = (0..pairs)
        .flat_map(|pair| {
            let start = pair * (prompt + chosen + rejected);
            let first = Run { start, length: prompt + chosen, parent: 0, parent_length: 0 };
            [first, Run { start: start + prompt + chosen, length: rejected, parent: start, parent_length: prompt }]
        })
        .collect();
    let [q, k, v] = leaves;
    run_attention(q, k, v, &runs, how()).expect("runs that fit")
}

fn theirs(leaves: &[Tensor; 3], [prompt, chosen, rejected]: [i64; 3], mask: &Tensor, pairs: i64) -> Tensor {
    let sizes: Vec<i64> = (0..pairs).flat_map(|_| [prompt, chosen, rejected]).collect();
    let [q, k, v] = leaves.each_ref().map(|t| t.split_with_sizes(&sizes, 0));
    let call = |q: &[&Tensor], k: &[&Tensor], v: &[&Tensor], mask: Option<&Tensor>| {
        let [q, k, v] = [q, k, v].map(|parts| Tensor::cat(parts, 0).transpose(0, 1).unsqueeze(0));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, mask.is_none(), how().scale, true);
        mixed.squeeze_dim(0).transpose(0, 1)
    };
    let mixed: Vec<Tensor> = (0..pairs as usize)
        .flat_map(|pair| {
            let [p, c, r] = [3 * pair, 3 * pair + 1, 3 * pair + 2];
            [
                call(&[&q[p], &q[c]], &[&k[p], &k[c]], &[&v[p], &v[c]], None),
                call(&[&q[r]], &[&k[p], &k[r]], &[&v[p], &v[r]], Some(mask)),
            ]
        })
        .collect();
    Tensor::cat(&mixed, 0)
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20);
    for (lengths, pairs) in PAIRS {
        let rows = lengths.iter().sum::<i64>() * pairs;
        let (leaves, gradient) = (leaves(rows), Tensor::randn([rows, HEADS[0], WIDTH], F32));
        let back = |mixed: Tensor| backward(&[&mixed], &[&gradient]).expect("a graph");
        let [prompt, _, rejected] = lengths;
        let mask = causal_mask((prompt, rejected), (0, prompt + rejected), None, F32);
        group.bench_function(format!("libtorch, {pairs} pairs"), |b| {
            b.iter(|| back(black_box(theirs(&leaves, lengths, &mask, pairs))));
        });
        group.bench_function(format!("runs, {pairs} pairs"), |b| {
            b.iter(|| back(black_box(ours(&leaves, lengths, pairs))));
        });
    }
    group.finish();
}

criterion_group!(benches, attention);
criterion_main!(benches);
