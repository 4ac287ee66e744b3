//! The rule against its definition, token by token in f64.

use super::*;
use tch::Device;

const RULE: DeltaRule = DeltaRule { key_heads: 2, value_heads: 4, key_dim: 3, value_dim: 5, kernel: 4 };

fn numbers(shape: &[i64], seed: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.73 + seed).sin() * 1.3).view(shape)
}

/// Inputs of `tokens` tokens: queries, keys and values; logs of decays; strengths; the convolution's weights.
fn inputs(tokens: i64) -> [Tensor; 4] {
    [
        numbers(&[tokens, RULE.width()], 0.1),
        (numbers(&[tokens, RULE.value_heads], 0.2) - 1.4) * 0.3,
        numbers(&[tokens, RULE.value_heads], 0.3).sigmoid(),
        numbers(&[RULE.width(), 1, RULE.kernel], 0.4),
    ]
}

fn delta(inputs: &[Tensor; 4]) -> Delta<'_> {
    let [qkv, decay, beta, convolution] = inputs;
    let (qkv, decay, beta) = (qkv.shallow_clone(), decay.shallow_clone(), beta.shallow_clone());
    Delta { qkv, decay, beta, convolution, rule: RULE }
}

/// Values that the tokens `rows`, a sequence, read one after another, `[T, V * E]`.
fn one_by_one([qkv, decay, beta, convolution]: &[Tensor; 4], rows: &[i64]) -> Tensor {
    let rows = Tensor::from_slice(rows);
    let [qkv, decay, beta] = [qkv, decay, beta].map(|t| t.index_select(0, &rows));
    let padded = qkv.tr().constant_pad_nd([RULE.before(), 0]);
    let weights = convolution.squeeze_dim(1);
    let mut state = Tensor::zeros([RULE.value_heads, RULE.key_dim, RULE.value_dim], (Kind::Double, Device::Cpu));
    let heads = |t: Tensor, width: i64| {
        let t = t.view([-1, width]);
        let of_head = |head: i64| t.select(0, head * t.size()[0] / RULE.value_heads);
        Tensor::stack(&(0..RULE.value_heads).map(of_head).collect::<Vec<_>>(), 0)
    };
    let unit = |t: Tensor| &t / (t.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double) + 1e-6).sqrt();
    let mut read = Vec::new();
    for token in 0..rows.size()[0] {
        let mixed =
            (padded.narrow(1, token, RULE.kernel) * &weights).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let parts = mixed.silu().split_with_sizes([RULE.key_width(), RULE.key_width(), RULE.value_width()], 0);
        let [q, k] = [&parts[0], &parts[1]].map(|t| unit(heads(t.shallow_clone(), RULE.key_dim)));
        let v = heads(parts[2].shallow_clone(), RULE.value_dim);
        let decayed = &state * decay.select(0, token).exp().view([-1, 1, 1]);
        let known = (&decayed * k.unsqueeze(2)).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let change = (v - known) * beta.select(0, token).unsqueeze(1);
        state = decayed + k.unsqueeze(2) * change.unsqueeze(1);
        let seen = (&state * q.unsqueeze(2)).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        read.push(seen.flatten(0, -1) / (RULE.key_dim as f64).sqrt());
    }
    Tensor::stack(&read, 0)
}

/// Result and gradients by `mix`.
fn with_gradients(inputs: &[Tensor; 4], mix: impl Fn(&[Tensor; 4]) -> Tensor) -> Vec<Tensor> {
    let leaves = inputs.each_ref().map(|t| t.detach().copy().set_requires_grad(true));
    let read = mix(&leaves);
    let weights = numbers(&read.size(), 0.7).to_kind(read.kind());
    (&read * weights).sum(read.kind()).backward();
    std::iter::once(read.detach()).chain(leaves.map(|leaf| leaf.grad())).collect()
}

#[track_caller]
fn assert_close(found: &[Tensor], expected: &[Tensor], what: &str) {
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        let error = (found - expected).abs().max().double_value(&[]) / scale;
        assert!(error < 2e-5, "{what}, tensor {number}: {error}");
    }
}

/// A prompt with its responses.
type Family<'a> = (usize, &'a [usize]);

/// Chunks as computed, and sequences token by token.
#[track_caller]
fn check(families: &[Family<'_>]) {
    let mut packed = Packed::new();
    for (prompt, responses) in families {
        let parent = packed.push(&vec![1; *prompt]).unwrap();
        for response in *responses {
            packed.push_after(parent, &vec![2; *response]).unwrap();
        }
    }
    let inputs = inputs(packed.len() as i64);
    let plan = DeltaPlan::new(&packed, RULE);
    let single = inputs.each_ref().map(|t| t.to_kind(Kind::Float));
    let found = with_gradients(&single, |inputs| plan.mix(&delta(inputs)).unwrap());
    let expected = with_gradients(&inputs, |inputs| {
        let rows = |segment: &Segment| (segment.start as i64..(segment.start + segment.len) as i64).collect::<Vec<_>>();
        let read = packed.segments().iter().filter(|segment| segment.len > 0).map(|segment| {
            let before = segment.parent.map(|parent| rows(&packed.segments()[parent])).unwrap_or_default();
            one_by_one(inputs, &[&before[..], &rows(segment)].concat()).narrow(
                0,
                before.len() as i64,
                segment.len as i64,
            )
        });
        Tensor::cat(&read.collect::<Vec<_>>(), 0)
    });
    assert_close(&found, &expected, &format!("{families:?}"));
}

#[test]
fn sequences_that_end_around_the_edges_of_chunks() {
    for length in [1, 2, 3, 63, 64, 65, 130] {
        check(&[(length, &[])]);
    }
    // Together, where each starts from zeros.
    check(&[(65, &[]), (1, &[]), (130, &[]), (64, &[]), (2, &[])]);
}

#[test]
fn responses_go_on_from_their_prompt_with_gradients() {
    check(&[(5, &[4, 3])]);
    // Prompts shorter than the convolution, responses of one token, and of none.
    check(&[(1, &[1, 2]), (2, &[0, 70]), (3, &[1, 0])]);
    check(&[(64, &[64, 1, 65]), (130, &[]), (63, &[130, 63]), (1, &[])]);
}

#[test]
fn the_order_of_the_segments_changes_nothing() {
    let families: [Family<'_>; 3] = [(70, &[3, 65]), (4, &[130]), (129, &[1, 1])];
    let lengths: usize = families.iter().map(|(prompt, responses)| prompt + responses.iter().sum::<usize>()).sum();
    let inputs = inputs(lengths as i64).map(|t| t.to_kind(Kind::Float));
    let run = |families: &[Family<'_>]| {
        let mut packed = Packed::new();
        for (prompt, responses) in families {
            let parent = packed.push(&vec![1; *prompt]).unwrap();
            for response in *responses {
                packed.push_after(parent, &vec![2; *response]).unwrap();
            }
        }
        packed
    };
    // The middle family alone reads what it reads among others, bit for bit.
    let whole = DeltaPlan::new(&run(&families), RULE).mix(&delta(&inputs)).unwrap();
    let of = |t: &Tensor| t.narrow(0, 138, 134);
    let part = [of(&inputs[0]), of(&inputs[1]), of(&inputs[2]), inputs[3].shallow_clone()];
    let alone = DeltaPlan::new(&run(&families[1..2]), RULE).mix(&delta(&part)).unwrap();
    let error = (of(&whole) - alone).abs().max().double_value(&[]);
    assert!(error < 1e-6, "{error}");
}

#[test]
fn frozen_inputs_get_no_gradient() {
    let mut packed = Packed::new();
    packed.push(&[1; 70]).unwrap();
    let inputs = inputs(70).map(|t| t.to_kind(Kind::Float));
    let plan = DeltaPlan::new(&packed, RULE);
    let all = with_gradients(&inputs, |inputs| plan.mix(&delta(inputs)).unwrap());
    let qkv = inputs[0].detach().set_requires_grad(true);
    let mixed = [qkv.shallow_clone(), inputs[1].detach(), inputs[2].detach(), inputs[3].detach()];
    let read = plan.mix(&delta(&mixed)).unwrap();
    (&read * numbers(&read.size(), 0.7).to_kind(Kind::Float)).sum(Kind::Float).backward();
    assert_eq!(qkv.grad(), all[1]);
    assert!(mixed[1..].iter().all(|frozen| !frozen.grad().defined()));
}

#[test]
fn steps_go_on_from_the_state_after_a_prompt() {
    let (prompts, steps) = ([1usize, 2, 64, 70], 5usize);
    let mut packed = Packed::new();
    for prompt in prompts {
        packed.push(&vec![1; prompt]).unwrap();
    }
    // Each prompt's own tokens first, then the steps of all of them.
    let tokens = packed.len();
    let inputs = inputs((tokens + steps * prompts.len()) as i64);
    let single = inputs.each_ref().map(|t| t.to_kind(Kind::Float));
    let of = |first: usize, count: usize| {
        let at = |t: &Tensor| t.narrow(0, first as i64, count as i64);
        [at(&single[0]), at(&single[1]), at(&single[2]), single[3].shallow_clone()]
    };
    let (_, states) = DeltaPlan::new(&packed, RULE).mix_with_states(&delta(&of(0, tokens))).unwrap();
    let stack = |part: &dyn Fn(&State) -> Tensor| Tensor::stack(&states.iter().map(part).collect::<Vec<_>>(), 0);
    let mut state = State { recent: stack(&|s| s.recent.copy()), heads: stack(&|s| s.heads.copy()) };
    let mut read = Vec::new();
    for step in 0..steps {
        read.push(state.step(&delta(&of(tokens + step * prompts.len(), prompts.len()))).unwrap());
    }
    for (number, segment) in packed.segments().iter().enumerate() {
        let own = segment.start as i64..(segment.start + segment.len) as i64;
        let new = (0..steps).map(|step| (tokens + step * prompts.len() + number) as i64);
        let expected = one_by_one(&inputs, &own.chain(new).collect::<Vec<_>>());
        for (step, read) in read.iter().enumerate() {
            let (found, expected) = (read.select(0, number as i64), expected.select(0, (segment.len + step) as i64));
            assert_close(&[found], &[expected], &format!("prompt {number}, step {step}"));
        }
    }
}
