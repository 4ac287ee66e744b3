//! Everything that can be shown on a CPU, against plain formulas.

use std::io::Cursor;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::*;

const CPU: Device = Device::Cpu;

fn random(size: &[i64], kind: Kind, seed: i64) -> Tensor {
    // libtorch's generator is the process' own, so values come from a formula.
    let count: i64 = size.iter().product();
    let at = Tensor::arange(count, (Kind::Double, CPU));
    ((at * 12.9898 + seed as f64 * 78.233).sin() * 43.5453).sin().view(size).to_kind(kind)
}

#[track_caller]
fn near(a: &Tensor, b: &Tensor, most: f64) {
    let difference = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[]);
    assert!(difference <= most, "differ by {difference:e}, at most {most:e} is allowed");
}

/// Checks that `work` gives the same bits by one thread of libtorch's and by several.
pub(crate) fn assert_same_on_any_threads<T: PartialEq + std::fmt::Debug>(work: impl Fn() -> T) {
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let alone = work();
    tch::set_num_threads(threads.max(3));
    let together = work();
    tch::set_num_threads(threads);
    assert_eq!(alone, together);
}

#[test]
fn backward_runs_from_several_roots_and_refuses_other_shapes() {
    let x = Tensor::from_slice(&[1.0, 2.0]).set_requires_grad(true);
    let (a, b) = (&x * 2.0, x.square().sum(Kind::Double));
    backward(&[&a, &b], &[&Tensor::from_slice(&[1.0, 10.0]), &Tensor::from(3.0)]).unwrap();
    assert_eq!(Vec::<f64>::try_from(x.grad()).unwrap(), [2.0 + 6.0, 20.0 + 12.0]);
    let error = backward(&[&a], &[&Tensor::from(1.0)]).unwrap_err();
    assert_eq!(error.to_string(), "`gradients` is [], expected [2]");
    let error = backward(&[&x.detach()], &[&x.detach()]).unwrap_err();
    assert!(error.to_string().starts_with("libtorch failed while running backward: "), "{error}");
    assert!(!error.to_string().contains("frame #"), "{error}");
}

#[test]
fn gradients_of_half_precision_add_up_in_f32() {
    let w = random(&[8, 16], Kind::BFloat16, 1).set_requires_grad(true);
    assert_eq!(gradient_kind(&w).unwrap(), Kind::BFloat16);
    set_gradient_kind(&w, Kind::Float).unwrap();
    assert_eq!(gradient_kind(&w).unwrap(), Kind::Float);
    let mut sum = Tensor::zeros([8, 16], (Kind::Float, CPU));
    for part in 0..8 {
        let x = random(&[4, 8], Kind::BFloat16, 2 + part);
        let alone = w.detach().copy().set_requires_grad(true);
        x.matmul(&alone).square().sum(Kind::BFloat16).backward();
        sum += alone.grad().to_kind(Kind::Float);
        x.matmul(&w).square().sum(Kind::BFloat16).backward();
    }
    assert_eq!(w.grad().kind(), Kind::Float);
    assert_eq!(w.grad(), sum);
    set_gradient(&w, None).unwrap();
    assert!(!w.grad().defined());
    set_gradient(&w, Some(&sum)).unwrap();
    assert_eq!(w.grad(), sum);
    assert!(set_gradient(&w, Some(&Tensor::from(1f32))).is_err());
    assert!(set_gradient_kind(&w, Kind::Int).is_err());
}

#[test]
fn many_tensors_at_once() {
    let all = [random(&[3, 4], Kind::BFloat16, 1), random(&[7], Kind::BFloat16, 2), random(&[1, 1], Kind::BFloat16, 3)];
    let refs: Vec<&Tensor> = all.iter().collect();
    let expected =
        all.iter().map(|t| t.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[])).sum::<f64>();
    assert!((norm(&refs).unwrap().double_value(&[]) - expected.sqrt()).abs() < 1e-5);
    assert_eq!(norm(&[]).unwrap().double_value(&[]), 0.0);
    let wide: Vec<Tensor> = all.iter().map(|t| Tensor::zeros(t.size(), (Kind::Float, CPU))).collect();
    let wide_refs: Vec<&Tensor> = wide.iter().collect();
    copy_all(&wide_refs, &refs).unwrap();
    for (wide, narrow) in wide.iter().zip(&all) {
        assert_eq!(*wide, narrow.to_kind(Kind::Float));
    }
    assert_eq!(copy_all(&wide_refs, &refs[..2]).unwrap_err().to_string(), "`from` is 2 tensors, expected 3");
    copy_all(&[], &[]).unwrap();
    zero_all(&[]).unwrap();
    zero_all(&refs).unwrap();
    assert_eq!(norm(&refs).unwrap().double_value(&[]), 0.0);
}

#[test]
fn fused_adamw_follows_its_formula() {
    let values = AdamWValues { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, epsilon: 1e-8 };
    let all = |seed| [random(&[3, 5], Kind::Float, seed), random(&[6], Kind::Float, seed + 1)];
    let (weights, means, squares) = (all(1), all(1).map(|t| t.zeros_like()), all(1).map(|t| t.zeros_like()));
    let mut expected = weights.each_ref().map(|t| t.to_kind(Kind::Double));
    let mut mean = expected.each_ref().map(Tensor::zeros_like);
    let mut square = expected.each_ref().map(Tensor::zeros_like);
    for update in 1..=3 {
        let gradients = all(10 * update);
        let divisor = 1.5;
        for i in 0..2 {
            let g = gradients[i].to_kind(Kind::Double) / divisor;
            mean[i] = &mean[i] * 0.9 + &g * 0.1;
            square[i] = &square[i] * 0.99 + g.square() * 0.01;
            let (a, b) = (1.0 - 0.9f64.powi(update as i32), 1.0 - 0.99f64.powi(update as i32));
            let step = (&mean[i] / a) / ((&square[i] / b).sqrt() + 1e-8) * 0.01;
            expected[i] = &expected[i] * (1.0 - 0.01 * 0.1) - step;
        }
        let tensors = AdamWTensors {
            weights: &weights.each_ref(),
            gradients: &gradients.each_ref(),
            means: &means.each_ref(),
            squares: &squares.each_ref(),
            step: &Tensor::from(update as f32),
            divisor: Some(&Tensor::from(divisor as f32)),
        };
        adamw(&tensors, values).unwrap();
        assert!(adamw(&AdamWTensors { step: &Tensor::from(1i64), ..tensors }, values).is_err());
        assert!(adamw(&AdamWTensors { means: &[], ..tensors }, values).is_err());
    }
    near(&weights[0], &expected[0], 1e-6);
    near(&weights[1], &expected[1], 1e-6);
}

/// Attention with every product in memory.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, queries: &[i64], keys: &[i64], how: Varlen) -> Tensor {
    let group = q.size()[1] / k.size()[1];
    let (mut from_q, mut from_k, mut all) = (0, 0, Vec::new());
    for (&count, &seen) in queries.iter().zip(keys) {
        let wide = |t: &Tensor| t.narrow(0, from_k, seen).repeat_interleave_self_int(group, 1, None).transpose(0, 1);
        let products = q.narrow(0, from_q, count).transpose(0, 1).matmul(&wide(k).transpose(1, 2)) * how.scale;
        let (i, j) =
            (Tensor::arange(count, (Kind::Int64, CPU)) + (seen - count), Tensor::arange(seen, (Kind::Int64, CPU)));
        let ahead = j.unsqueeze(0) - i.unsqueeze(1);
        let mut hidden = ahead.gt(0);
        if let Some(window) = how.window {
            hidden = hidden.logical_or(&ahead.le(-window));
        }
        let weights = products.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Double);
        all.push(weights.matmul(&wide(v)).transpose(0, 1));
        from_q += count;
        from_k += seen;
    }
    Tensor::cat(&all, 0)
}

#[test]
fn attention_over_sequences_of_any_lengths_and_its_gradients() {
    for (heads, key_heads, window) in [(4, 4, None), (4, 2, None), (6, 2, Some(3)), (2, 1, Some(100)), (2, 2, Some(1))]
    {
        let (queries, keys) = ([5, 2, 0, 1, 4], [5, 6, 3, 9, 4]);
        let sequences = Sequences::new(&queries, &keys, CPU).unwrap();
        let how = Varlen { scale: 0.4, window };
        let leaves = || {
            let sizes = [[12, heads, 8], [27, key_heads, 8], [27, key_heads, 8]];
            sizes.map(|size| random(&size, Kind::Double, size[1]).set_requires_grad(true))
        };
        let (ours, theirs) = (leaves(), leaves());
        let mixed = varlen_attention(&ours[0], &ours[1], &ours[2], &sequences, how).unwrap();
        let expected = plain(&theirs[0], &theirs[1], &theirs[2], &queries, &keys, how);
        near(&mixed, &expected, 1e-12);
        let gradient = random(&mixed.size(), Kind::Double, 9);
        backward(&[&mixed], &[&gradient]).unwrap();
        backward(&[&expected], &[&gradient]).unwrap();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            near(&ours.grad(), &theirs.grad(), 1e-12);
        }
    }
}

#[test]
fn attention_refuses_shapes_that_do_not_fit() {
    let sequences = Sequences::new(&[2], &[3], CPU).unwrap();
    let of = |rows, heads| random(&[rows, heads, 4], Kind::Float, 1);
    let how = Varlen { scale: 1.0, window: None };
    let text =
        |q: &Tensor, k: &Tensor, v: &Tensor, how| varlen_attention(q, k, v, &sequences, how).unwrap_err().to_string();
    assert_eq!(text(&of(3, 2), &of(3, 2), &of(3, 2), how), "`q` is [3, 2, 4], expected [2, N, D]");
    assert_eq!(text(&of(2, 3), &of(3, 2), &of(3, 2), how), "`k` is [3, 2, 4], expected [3, K, 4], K a divisor of 3");
    assert_eq!(text(&of(2, 2), &of(3, 2), &of(3, 1), how), "`v` is [3, 1, 4], expected [3, 2, 4]");
    let narrow = Varlen { window: Some(0), ..how };
    assert_eq!(text(&of(2, 2), &of(3, 2), &of(3, 2), narrow), "`window` is 0, expected at least 1");
    assert!(Sequences::new(&[4], &[3], CPU).is_err());
    assert!(Sequences::new(&[1, 1], &[3], CPU).is_err());
}

#[test]
fn a_function_has_the_gradient_that_it_says() {
    let (x, y) = (Tensor::from_slice(&[1.0, 2.0]), Tensor::from_slice(&[3.0, 5.0]));
    let (x, y) = (x.set_requires_grad(true), y.set_requires_grad(true));
    let held = Arc::new(());
    let kept = (x.detach(), y.detach(), Arc::clone(&held));
    let outputs = tch::no_grad(|| vec![&x * &y, &x + &y]);
    let back = move |gradients: &[Tensor]| {
        assert!(!gradients[1].defined(), "nothing depends on the sum");
        let _held = &kept.2;
        Ok(vec![Some(&gradients[0] * &kept.1), Some(&gradients[0] * &kept.0)])
    };
    let outputs = function("Product", &[&x, &y], outputs, back).unwrap();
    assert!(outputs[0].requires_grad());
    outputs[0].sum(Kind::Double).backward();
    assert_eq!(Vec::<f64>::try_from(x.grad()).unwrap(), [3.0, 5.0]);
    assert_eq!(Vec::<f64>::try_from(y.grad()).unwrap(), [1.0, 2.0]);
    assert_eq!(Arc::strong_count(&held), 1, "what the function held is freed with its backward pass");
    let text = outputs[0].sum(Kind::Double).f_backward().unwrap_err().to_string();
    assert!(text.contains("run backward before"), "{text}");
}

#[test]
fn errors_and_panics_of_a_function_end_the_backward_pass() {
    let x = Tensor::from_slice(&[1.0]).set_requires_grad(true);
    let run = |back: fn() -> Vec<Option<Tensor>>, error: Option<&'static str>| {
        let output = tch::no_grad(|| &x * 2.0);
        let back = move |_: &[Tensor]| error.map_or_else(|| Ok(back()), |error| Err(error.into()));
        let y = function("Failing", &[&x], vec![output], back).unwrap().remove(0);
        backward(&[&y], &[&Tensor::from_slice(&[1.0])]).unwrap_err().to_string()
    };
    assert!(run(Vec::new, Some("no luck")).contains("Failing: no luck"));
    assert!(run(Vec::new, None).contains("Failing: it made 0 gradients for 1 inputs"));
    assert!(run(|| panic!("for this test"), None).contains("Failing: for this test"));
    assert!(!x.grad().defined());
    let error = function("InGraph", &[&x], vec![&x * 1.0], |_| Ok(vec![None])).unwrap_err().to_string();
    assert_eq!(error, "`outputs` is [1] of a graph, expected a new tensor without a graph");
}

#[test]
fn a_function_of_inputs_without_gradient_is_not_kept() {
    let held = Arc::new(());
    let kept = Arc::clone(&held);
    let x = Tensor::from_slice(&[1.0]);
    let outputs = function("Unused", &[&x], vec![&x * 2.0], move |_| {
        let _kept = &kept;
        Ok(vec![None])
    });
    assert!(!outputs.unwrap()[0].requires_grad());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_trace_counts_kernels_and_waits() {
    let x = random(&[4, 4], Kind::Float, 1).set_requires_grad(true);
    let ((), calls) = trace(|| {
        let y = named("mine", || x.matmul(&x).relu());
        y.narrow(0, 0, 2).sum(Kind::Float).backward();
        let _ = device::read_all(&[&y, &x.grad()]).unwrap();
        let _ = x.double_value(&[0, 0]);
    });
    assert_eq!(calls.waits(), 2, "one for both reads, one for a single number: {calls:?}");
    let kernels: Vec<&str> = calls.kernels(&["mine"]).collect();
    assert_eq!(kernels[..2], ["mine", "aten::sum"], "{kernels:?}");
    // Backward of a product of x with itself is two products and their sum.
    assert_eq!(kernels.iter().filter(|name| **name == "aten::mm").count(), 2, "{kernels:?}");
    assert_eq!(calls.launches(&["mine"]) + 1, calls.launches(&[]), "`mine` is a product and a relu");
    assert!(calls.launches(&[]) < 16, "{kernels:?}");
    assert!(calls.0.iter().any(|call| call.name == "MmBackward0"));
    let (_, calls) = trace(|| ());
    assert_eq!(calls, Calls::default());
}

#[test]
fn reads_come_back_in_order() {
    let (a, b) = (random(&[2, 3], Kind::BFloat16, 1), Tensor::from(7i64));
    let values = device::read_all(&[&a, &b]).unwrap();
    assert_eq!(values[0], Vec::<f64>::try_from(a.flatten(0, -1).to_kind(Kind::Double)).unwrap());
    assert_eq!(values[1], [7.0]);
    assert!(device::read_all(&[]).unwrap().is_empty());
}

#[test]
fn a_generator_goes_on_from_its_state() {
    // The generator is the process' own: other tests draw nothing from it.
    let state = generator_state(CPU).unwrap();
    let first = Tensor::rand([5], (Kind::Float, CPU));
    set_generator_state(CPU, &state).unwrap();
    assert_eq!(first, Tensor::rand([5], (Kind::Float, CPU)));
    assert!(set_generator_state(CPU, &Tensor::from_slice(&[1u8, 2])).is_err());
    assert!(generator_state(Device::Mps).is_err());
}

#[test]
fn files_pass_through_the_buffer_in_parts() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Uint8, Kind::Double] {
        let tensor = (random(&[7, 13], Kind::Double, 3) * 100.0 + 100.0).to_kind(kind);
        let mut staging = Staging::new(100, CPU).unwrap();
        let mut bytes = Vec::new();
        staging.write(&tensor, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 7 * 13 * kind.elt_size_in_bytes());
        if kind == Kind::Float {
            assert_eq!(bytes[4..8], tensor.double_value(&[0, 1]).to_string().parse::<f32>().unwrap().to_ne_bytes());
        }
        let read = tensor.zeros_like();
        staging.read(&mut Cursor::new(&bytes), &read).unwrap();
        assert_eq!(read, tensor);
        let short = staging.read(&mut Cursor::new(&bytes[..bytes.len() - 1]), &read);
        assert!(matches!(short, Err(Error::Io(_))));
        assert!(staging.read(&mut Cursor::new(&bytes), &read.tr()).is_err());
    }
    let empty = Tensor::zeros([0, 3], (Kind::Float, CPU));
    Staging::new(0, CPU).unwrap().read(&mut Cursor::new(b""), &empty).unwrap();
}

#[test]
fn switches_are_set() {
    let before = AttentionKernels::get();
    let changed = AttentionKernels { cudnn: !before.cudnn, ..before };
    changed.set();
    assert_eq!(AttentionKernels::get(), changed);
    before.set();
    assert_eq!(AttentionKernels::get(), before);
    set_matmul_precision(MatmulPrecision::Highest).unwrap();
    set_half_sums(false).unwrap();
}

/// Weights that move into buckets leave holes between blocks that stay.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn freed_memory_goes_back_to_the_system() {
    const MEGABYTE: i64 = 1 << 20;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
    };
    let zeros = |bytes: i64| Tensor::ones([bytes], (Kind::Uint8, CPU));
    // After this, blocks of up to as much come from the heap.
    drop(zeros(30 * MEGABYTE));
    let all: Vec<(Tensor, Tensor)> = (0..200).map(|_| (zeros(MEGABYTE), zeros(100))).collect();
    let before = resident();
    let (large, small): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    drop(large);
    device::empty_cache().unwrap();
    let given = before - resident();
    assert!(given > 150 * MEGABYTE, "{given}");
    drop(small);
}

#[test]
fn the_cpu_needs_no_device() {
    assert_eq!(device::memory(CPU).unwrap(), None);
    device::select(CPU).unwrap();
    device::synchronize(CPU).unwrap();
    device::reset_peak(CPU).unwrap();
    device::empty_cache().unwrap();
    let (start, end) = (device::Event::record(CPU).unwrap(), device::Event::record(CPU).unwrap());
    end.wait().unwrap();
    assert_eq!(start.milliseconds_to(&end).unwrap(), None);
    let host = Tensor::from_slice(&[1f32]);
    assert_eq!(device::to_device(&host, CPU).unwrap(), host);
}

#[test]
fn dropout_is_the_same_by_the_loop_and_by_operators() {
    let keys = Tensor::from_slice(&[5i32, -7, i32::MAX, 0, i32::MIN]);
    for kind in [Kind::Float, Kind::Double] {
        let x = random(&[5, 333], kind, 1);
        for (seed, share) in [(0, 0.1), (u32::MAX, 0.5), (12345, 0.9)] {
            let numbers = (seed, (share * 2f64.powi(32)) as u32, 1.0 / (1.0 - share));
            let [loops, operators] = [false, true].map(|by| native::dropout(&x, &keys, numbers, by).unwrap());
            near(&loops, &operators, 1e-6);
            let kept = 1.0 - loops.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            assert!((kept - (1.0 - share)).abs() < 0.05, "{kept} kept of a share {share}");
        }
    }
}

#[test]
fn dropout_has_the_gradient_of_its_mask() {
    let keys = Tensor::from_slice(&[1i32, 2, 3]);
    let x = random(&[3, 64], Kind::Float, 4).set_requires_grad(true);
    let dropped = keyed_dropout(&x, &keys, 9, 0.3).unwrap();
    let gradient = random(&[3, 64], Kind::Float, 5);
    backward(&[&dropped], &[&gradient]).unwrap();
    let mask = keyed_dropout(&Tensor::ones([3, 64], (Kind::Float, CPU)), &keys, 9, 0.3).unwrap();
    near(&dropped, &(&x * &mask), 1e-6);
    near(&x.grad(), &(&gradient * &mask), 1e-6);
    let other = keyed_dropout(&Tensor::ones([3, 64], (Kind::Float, CPU)), &keys, 10, 0.3).unwrap();
    assert_ne!(mask, other, "another seed drops others");
    assert!(keyed_dropout(&x, &keys.narrow(0, 0, 2), 9, 0.3).is_err());
    assert!(keyed_dropout(&x, &keys.to_kind(Kind::Int64), 9, 0.3).is_err());
    assert!(keyed_dropout(&x, &keys, 9, 1.0).is_err());
}

#[test]
fn tensors_of_any_kind_go_through_one_buffer() {
    let tensors = || {
        [
            Tensor::from_slice(&[1i64, -2, 3]),
            Tensor::from_slice(&[4i32]),
            random(&[3, 5], Kind::Float, 1).transpose(0, 1),
            Tensor::from(2.5f64),
            Tensor::zeros([0, 4], (Kind::Int64, CPU)),
            random(&[7], Kind::BFloat16, 2),
        ]
    };
    let (expected, mut moved) = (tensors(), tensors());
    let mut all: Vec<&mut Tensor> = moved.iter_mut().collect();
    let buffer = device::joined(&all).unwrap();
    assert_eq!(buffer.size(), [32 + 16 + 64 + 16 + 16]);
    device::split(&buffer, &mut all).unwrap();
    for (moved, expected) in moved.iter().zip(&expected) {
        assert_eq!((moved.kind(), moved.size()), (expected.kind(), expected.size()));
        assert_eq!(moved, expected);
    }
    let calls = trace(|| device::move_together(&mut moved.iter_mut().collect::<Vec<_>>(), CPU).unwrap()).1;
    assert_eq!((calls.copies(), calls.waits()), (1, 0));
    assert_eq!(trace(|| device::move_together(&mut [], CPU).unwrap()).1.copies(), 0);
}
