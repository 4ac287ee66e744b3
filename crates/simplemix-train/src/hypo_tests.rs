//! The gradient against exact enumeration: a model of four tokens, of which the last one ends a response, and responses
//! of at most two tokens. There are thirteen of them.

use std::path::Path;

use simplemix_model::{ModelConfig, RopeScaling, tiny};
use tch::{Device, Kind, Tensor};

use super::*;

const PROMPT: [u32; 3] = [0, 2, 1];
const END: u32 = 3;

const SETTINGS: HypoSettings = HypoSettings { lambda: 1.0, samples: 2, prompts: 0, max_new_tokens: 2, clip: None };

const OPTIONS: ForwardOptions = ForwardOptions {
    micro_batch_tokens: 64,
    logits_bytes: 1 << 20,
    activation_checkpointing: false,
    token_metrics: true,
    token_metrics_every: 1,
    wpo: None,
    ld_alpha: None,
};

fn model(seed: u64) -> CausalLm {
    let mut json = tiny::config().to_json();
    for (key, value) in [("vocab_size", 4), ("hidden_size", 8), ("intermediate_size", 12), ("head_dim", 2)] {
        json[key] = value.into();
    }
    let config = ModelConfig::from_json(&json.to_string(), Path::new("four/config.json")).unwrap();
    let model = CausalLm::random(config, seed, Device::Cpu).unwrap();
    // Random weights of 0.02 make every token as likely as any other.
    for (name, tensor) in model.named_parameters() {
        if !name.ends_with("norm.weight") {
            let _ = tch::no_grad(|| tensor.shallow_clone().g_mul_scalar_(25.0));
        }
    }
    model
}

fn hypo() -> (CausalLm, Hypo) {
    let policy = model(1);
    policy.set_trainable(true);
    (policy, Hypo::new(SETTINGS, model(2), vec![END], 7).unwrap())
}

/// All thirteen responses.
fn responses() -> Vec<Vec<u32>> {
    let longer = (0..END).flat_map(|first| (0..=END).map(move |second| vec![first, second]));
    std::iter::once(vec![END]).chain(longer).collect()
}

/// Log-probability of a response the plain way: all logits, no packing, no shared prompt.
fn logp(model: &CausalLm, prompt: &[u32], response: &[u32]) -> Tensor {
    let mut packed = Packed::new();
    packed.push(&[prompt, response].concat()).unwrap();
    let logits = model.logits(&model.hidden_states(&packed).unwrap()).unwrap().to_kind(Kind::Double);
    let rows = logits.log_softmax(-1, None).narrow(0, prompt.len() as i64 - 1, response.len() as i64);
    let tokens = Tensor::from_slice(&response.iter().map(|&token| i64::from(token)).collect::<Vec<_>>());
    rows.gather(1, &tokens.unsqueeze(1), false).sum(Kind::Double)
}

fn log_ratio(policy: &CausalLm, hypo: &Hypo, prompt: &[u32], response: &[u32]) -> f64 {
    tch::no_grad(|| logp(policy, prompt, response) - logp(&hypo.reference, prompt, response)).double_value(&[])
}

/// Takes the gathered gradient, all parameters in a row.
fn take_gradient(policy: &CausalLm) -> Tensor {
    let _guard = tch::no_grad_guard();
    let parts: Vec<Tensor> = policy
        .named_parameters()
        .iter()
        .map(|(_, tensor)| {
            let mut gradient = tensor.grad();
            let part = gradient.flatten(0, -1).to_kind(Kind::Double).copy();
            let _ = gradient.zero_();
            part
        })
        .collect();
    Tensor::cat(&parts, 0)
}

fn norm(t: &Tensor) -> f64 {
    t.norm().double_value(&[])
}

/// The divergence, its gradient, and the variance of a response's log-ratio: sums over all responses.
fn exact(policy: &CausalLm, hypo: &Hypo) -> (f64, Tensor, f64) {
    let logps: Vec<Tensor> = responses().iter().map(|response| logp(policy, &PROMPT, response)).collect();
    let logps = Tensor::stack(&logps, 0);
    let theirs: Vec<Tensor> =
        responses().iter().map(|response| tch::no_grad(|| logp(&hypo.reference, &PROMPT, response))).collect();
    let (probs, ratios) = (logps.exp(), &logps - Tensor::stack(&theirs, 0));
    assert!((probs.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-6);
    let kl = (&probs * &ratios).sum(Kind::Double);
    let second = (&probs * ratios.square()).sum(Kind::Double).double_value(&[]);
    kl.backward();
    let value = kl.double_value(&[]);
    (value, take_gradient(policy), second - value * value)
}

/// The expected gradient and its squared norm's mean: every ordered pair of responses, weighted by its probability.
fn expected(policy: &CausalLm, hypo: &Hypo) -> (Tensor, f64) {
    let responses = responses();
    let probs: Vec<f64> = responses
        .iter()
        .map(|response| tch::no_grad(|| logp(policy, &PROMPT, response)).exp().double_value(&[]))
        .collect();
    let (mut mean, mut squares) = (None, 0.0);
    for (i, first) in responses.iter().enumerate() {
        for (j, second) in responses.iter().enumerate() {
            let drawn = Sampled { prompt: &PROMPT, responses: vec![first.clone(), second.clone()], ended: 0 };
            hypo.accumulate(policy, &[drawn], 1.0, &OPTIONS, &Team::default()).unwrap();
            let gradient = take_gradient(policy);
            let weight = probs[i] * probs[j];
            squares += weight * norm(&gradient).powi(2);
            mean = Some(mean.map_or_else(|| &gradient * weight, |sum: Tensor| sum + &gradient * weight));
        }
    }
    (mean.unwrap(), squares)
}

/// Prompts with their places in an update.
fn placed<'a>(prompts: &[&'a [u32]]) -> Vec<(usize, &'a [u32])> {
    prompts.iter().copied().enumerate().collect()
}

#[test]
fn the_expected_gradient_is_that_of_the_divergence() {
    let (policy, hypo) = hypo();
    let (kl, truth, _) = exact(&policy, &hypo);
    let (mean, _) = expected(&policy, &hypo);
    assert!(kl > 0.1 && norm(&truth) > 0.1, "{kl} {}", norm(&truth));
    assert!(norm(&(&mean - &truth)) < 1e-5 * norm(&truth), "{} {}", norm(&(&mean - &truth)), norm(&truth));
}

/// Sampled responses: both means are within the error that their number explains.
#[test]
fn sampled_responses_give_the_divergence_and_its_gradient() {
    let (policy, hypo) = hypo();
    let (kl, truth, variance) = exact(&policy, &hypo);
    let (_, squares) = expected(&policy, &hypo);
    let (updates, prompts) = (4, 64);
    let count = f64::from(updates * prompts);
    let at_once = ForwardOptions { micro_batch_tokens: 4096, ..OPTIONS };
    let mut estimates = Vec::new();
    for step in 0..updates as u64 {
        let sampled =
            hypo.sample(&policy, &placed(&vec![&PROMPT[..]; prompts as usize]), step, &mut |_, _| {}).unwrap();
        let sums = hypo.accumulate(&policy, &sampled, 1.0 / count, &at_once, &Team::default()).unwrap();
        estimates.push(sums.metrics()[0].1);
    }
    let estimate = estimates.iter().sum::<f64>() / f64::from(updates);
    let error = (estimate - kl) / (variance / (2.0 * count)).sqrt();
    assert!(error.abs() < 4.0, "{estimates:?} {kl} {variance}");
    // The squared error's mean is the gradient's variance over the number of samples.
    let mean_error = (squares - norm(&truth).powi(2)) / count;
    let error = norm(&(take_gradient(&policy) - &truth)).powi(2);
    assert!(error < 4.0 * mean_error && mean_error < 0.2 * norm(&truth).powi(2), "{error} {mean_error}");
}

/// One update's gradient, in parts and with checkpointing, against the formula on plain log-probabilities.
#[test]
fn an_updates_gradient_is_the_formulas() {
    let (policy, hypo) = hypo();
    let prompts: [&[u32]; 4] = [&PROMPT, &[1], &[2, 2, 0, 1, 2], &[0, 1]];
    let sampled = hypo.sample(&policy, &placed(&prompts), 5, &mut |_, _| {}).unwrap();
    let mut all = Vec::new();
    for Sampled { prompt, responses, .. } in &sampled {
        let [first, second] = [0, 1].map(|i| log_ratio(&policy, &hypo, prompt, &responses[i]));
        // Leave-one-out of two: half of (R_1 - R_2) (grad ln pi_1 - grad ln pi_2).
        let difference = logp(&policy, prompt, &responses[0]) - logp(&policy, prompt, &responses[1]);
        all.push(difference * ((first - second) / 2.0 * 0.25));
    }
    Tensor::stack(&all, 0).sum(Kind::Double).backward();
    let truth = take_gradient(&policy);
    for options in [
        OPTIONS,
        ForwardOptions { micro_batch_tokens: 1, ..OPTIONS },
        ForwardOptions { micro_batch_tokens: 12, activation_checkpointing: true, ..OPTIONS },
    ] {
        let sums = hypo.accumulate(&policy, &sampled, 0.25, &options, &Team::default()).unwrap();
        let gradient = take_gradient(&policy);
        assert!(norm(&(gradient - &truth)) < 1e-5 * norm(&truth));
        assert_eq!(sums.responses, 8.0);
        assert_eq!(sums.tokens, sampled.iter().flat_map(|s| &s.responses).map(Vec::len).sum::<usize>() as f64);
    }
}

#[test]
fn samples_follow_from_update_and_place() {
    let (policy, hypo) = hypo();
    let sample = |prompts: usize, step| -> Vec<Vec<Vec<u32>>> {
        let sampled = hypo.sample(&policy, &placed(&vec![&PROMPT[..]; prompts]), step, &mut |_, _| {}).unwrap();
        sampled.into_iter().map(|sampled| sampled.responses).collect()
    };
    let all = sample(3, 4);
    assert_eq!(sample(2, 4), all[..2]);
    assert_ne!(all[0], all[1]);
    assert_ne!(sample(3, 5), all);
    for response in all.iter().flatten() {
        assert!(response.len() <= 2 && response[..response.len() - 1].iter().all(|&token| token != END));
    }
}

#[test]
fn prompts_are_grouped_within_the_budget_and_settings_checked() {
    let sampled = |length: usize| Sampled { prompt: &PROMPT, responses: vec![vec![0; length], vec![0]], ended: 0 };
    let all = [sampled(1), sampled(2), sampled(90), sampled(1)];
    let mut config = tiny::config();
    let sizes = |model: &ModelConfig, budget: usize| {
        parts(model, &all, budget).iter().map(|part| part.len()).collect::<Vec<_>>()
    };
    let of = |budget: usize| sizes(&tiny::config(), budget);
    assert_eq!((of(11), of(1), of(1000)), (vec![2, 1, 1], vec![1; 4], vec![4]));
    // Where frequencies follow from a sequence's length, responses of two lengths have a prompt each.
    config.ropes[0].scaling = RopeScaling::Dynamic { factor: 2.0, max_position_embeddings: 4 };
    assert_eq!((sizes(&config, 13), sizes(&config, 14)), (vec![1; 4], vec![2, 1, 1]));
    assert_eq!(
        (SETTINGS.copies(&config, 3), SETTINGS.copies(&config, 2), SETTINGS.copies(&tiny::config(), 3)),
        (2, 1, 1)
    );
    let text = |settings: HypoSettings| settings.check_ranges().unwrap_err().to_string();
    assert_eq!(text(HypoSettings { lambda: -1.0, ..SETTINGS }), "`hypo.lambda` is -1, expected a number >= 0");
    assert_eq!(text(HypoSettings { clip: Some(0.0), ..SETTINGS }), "`hypo.clip` is 0, expected a number above 0");
    assert_eq!(text(HypoSettings { samples: 0, ..SETTINGS }), "`hypo.samples` is 0, expected a whole number >= 1");
    // A thousand tokens hold three prompts of 50 tokens with two responses of 128.
    let settings = HypoSettings { max_new_tokens: 128, ..SETTINGS };
    assert_eq!(settings.pass_prompts(50, 1, 1000, 8), 3);
    assert_eq!((settings.pass_prompts(50, 1, 10, 8), settings.rows(8)), (1, 16));
}
