//! All ways to compute attention give the same, and one call of a layer does not grow with the number of pairs.

use simplemix_torch::{backward, trace};

use super::*;
use crate::tiny;

const CPU: Device = Device::Cpu;

/// Pairs with shared prompts, of which one has three responses; a sequence alone; an empty response.
fn packed() -> Packed {
    let mut packed = Packed::new();
    for (prompt, responses) in [(5, vec![4, 6]), (9, vec![]), (1, vec![2, 1, 3]), (7, vec![0, 2])] {
        let first = packed.push(&vec![1; prompt]).unwrap();
        for response in responses {
            packed.push_after(first, &vec![2; response]).unwrap();
        }
    }
    packed
}

fn leaves(config: &ModelConfig, rows: i64) -> [Tensor; 3] {
    let of = |heads: i64, seed: f64| {
        let count = rows * heads * config.head_dim;
        let values = (Tensor::arange(count, (Kind::Double, CPU)) * 12.9898 + seed).sin() * 3.0;
        values.view([rows, heads, config.head_dim]).set_requires_grad(true)
    };
    [of(config.num_attention_heads, 1.0), of(config.num_key_value_heads, 2.0), of(config.num_key_value_heads, 3.0)]
}

fn attend(plans: &Plans, [q, k, v]: &[Tensor; 3]) -> Tensor {
    let heads = Heads { q: q.shallow_clone(), k: k.shallow_clone(), v: v.shallow_clone() };
    plans.attend(0, &heads).unwrap()
}

#[test]
fn all_routes_agree_with_gradients() {
    let packed = packed();
    for window in [None, Some(1), Some(3), Some(8)] {
        let mut config = tiny::config();
        config.layers[0].window = window;
        let run = |route| {
            let plans = Plans::new(&config, &packed, (Kind::Double, CPU), route).unwrap();
            let leaves = leaves(&config, packed.len() as i64);
            let mixed = attend(&plans, &leaves);
            let gradient = (mixed.detach() * 7.0).cos();
            backward(&[&mixed], &[&gradient]).unwrap();
            [mixed.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()]
        };
        let masked = run(AttentionRoute::Masked);
        for route in [AttentionRoute::Fused, AttentionRoute::Runs, AttentionRoute::Varlen] {
            for (ours, theirs) in run(route).iter().zip(&masked) {
                let difference = (ours - theirs).abs().max().double_value(&[]);
                assert!(difference < 1e-12, "{route:?}, window {window:?}: {difference:e}");
            }
        }
    }
}

#[test]
fn one_call_of_a_layer_launches_as_much_for_any_number_of_pairs() {
    let config = tiny::config();
    let launches = |pairs: usize| {
        let mut packed = Packed::new();
        for _ in 0..pairs {
            let prompt = packed.push(&[1; 5]).unwrap();
            packed.push_after(prompt, &[2; 4]).unwrap();
            packed.push_after(prompt, &[2; 3]).unwrap();
        }
        let plans = Plans::new(&config, &packed, (Kind::Double, CPU), AttentionRoute::Varlen).unwrap();
        let leaves = leaves(&config, packed.len() as i64);
        let pass = || {
            let mixed = attend(&plans, &leaves);
            let gradient = mixed.zeros_like();
            backward(&[&mixed], &[&gradient]).unwrap();
        };
        let calls = trace(pass).1;
        assert_eq!(calls.0.iter().filter(|call| call.name == "simplemix::varlen_attention").count(), 2);
        calls.launches(&["simplemix::varlen_attention"])
    };
    assert_eq!(launches(1), launches(9));
}

#[test]
fn devices_take_the_routes_that_their_kernels_want() {
    let (plain, gpu) = (tiny::config(), Device::Cuda(0));
    let mut capped = tiny::config();
    capped.attention_soft_cap = Some(50.0);
    let mut wide = tiny::config();
    wide.head_dim = 512;
    assert_eq!(AttentionRoute::of(&plain, Kind::BFloat16, CPU), AttentionRoute::Masked);
    assert_eq!(AttentionRoute::of(&plain, Kind::Float, CPU), AttentionRoute::Fused);
    assert_eq!(AttentionRoute::of(&capped, Kind::Float, CPU), AttentionRoute::Masked);
    assert_eq!(AttentionRoute::of(&plain, Kind::BFloat16, gpu), AttentionRoute::Varlen);
    assert_eq!(AttentionRoute::of(&plain, Kind::Float, gpu), AttentionRoute::Runs);
    assert_eq!(AttentionRoute::of(&wide, Kind::BFloat16, gpu), AttentionRoute::Runs);
    assert_eq!(AttentionRoute::of(&capped, Kind::BFloat16, gpu), AttentionRoute::Masked);
}
