//! Distributions of both samplers over all responses of two models with four tokens; shares, streams, remarks.

use std::path::Path;

use simplemix_data::{Message, Text, TokenizeOptions};
use simplemix_model::{LoraConfig, ModelConfig, Packed, Sampling, tiny};
use tch::{Device, Kind};

use super::*;
use crate::generator::{Candidate, Prompt};

const PROMPT: [u32; 3] = [0, 2, 1];
const END: u32 = 3;

/// A model with four tokens, of which the last ends a response.
fn four_tokens(seed: u64) -> CausalLm {
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

/// Every response of at most two tokens.
fn every_response() -> Vec<Vec<u32>> {
    let longer = (0..END).flat_map(|first| (0..=END).map(move |second| vec![first, second]));
    std::iter::once(vec![END]).chain(longer).collect()
}

/// Logits of the next token.
fn logits(model: &CausalLm, tokens: &[u32]) -> Tensor {
    let mut packed = Packed::new();
    packed.push(tokens).unwrap();
    let last = model.hidden_states(&packed).unwrap().narrow(0, tokens.len() as i64 - 1, 1);
    model.logits(&last).unwrap().to_kind(Kind::Double).squeeze_dim(0)
}

/// Probability of a response by whole forward passes: at each token the softmax of `(a l_policy + b l_ref) / T`.
fn probability(models: [&CausalLm; 2], weights: [f64; 2], temperature: f64, response: &[u32]) -> f64 {
    let mut tokens = PROMPT.to_vec();
    let mut logp = 0.0;
    for &token in response {
        let mixed = logits(models[0], &tokens) * weights[0] + logits(models[1], &tokens) * weights[1];
        logp += (mixed / temperature).log_softmax(-1, None).double_value(&[i64::from(token)]);
        tokens.push(token);
    }
    logp.exp()
}

fn options(samples: usize) -> GenerateOptions {
    GenerateOptions {
        samples,
        max_new_tokens: 2,
        stop_tokens: vec![END],
        sampling: Sampling { temperature: 0.7, seed: 11, ..Sampling::default() },
        batch_rows: 500,
        ..GenerateOptions::default()
    }
}

fn request(stream: u64, is_plain: bool) -> MixedRequest {
    MixedRequest { request: Request { prompt: PROMPT.to_vec(), stream }, is_plain }
}

/// Chi-squared of thirteen responses, twelve degrees of freedom: 99.9 % of draws stay below 32.9.
fn chi_squared(models: [&CausalLm; 2], weights: [f64; 2], drawn: &[&Generated]) -> f64 {
    let cells = every_response().into_iter().map(|response| {
        let expected = drawn.len() as f64 * probability(models, weights, 0.7, &response);
        let found = drawn.iter().filter(|drawn| drawn.tokens == response).count() as f64;
        (found - expected).powi(2) / expected
    });
    cells.sum()
}

#[test]
fn each_half_has_the_distribution_of_its_sampler() {
    let (policy, reference) = (four_tokens(1), four_tokens(2));
    let models = [&policy, &reference];
    let prompts: Vec<MixedRequest> = (0..200).map(|stream| request(stream, stream % 4 == 0)).collect();
    let responses = draw(models, &prompts, &options(40), &mut |_, _| {}).unwrap();
    let half = |plain: bool, half: usize| -> Vec<&Generated> {
        let of = prompts.iter().zip(&responses).filter(|(prompt, _)| prompt.is_plain == plain);
        of.flat_map(|(_, made)| &made[20 * half..20 * (half + 1)]).collect()
    };
    for (sampler, weights) in SAMPLERS.into_iter().enumerate() {
        let found = half(false, sampler);
        assert_eq!(found.len(), 3000);
        assert!(chi_squared(models, weights, &found) < 32.9, "{weights:?}: {}", chi_squared(models, weights, &found));
        // Neither has the distribution of the other, nor of the policy.
        assert!(chi_squared(models, SAMPLERS[1 - sampler], &found) > 100.0);
        assert!(chi_squared(models, [1.0, 0.0], &found) > 50.0);
        let plain = half(true, sampler);
        assert!(chi_squared(models, [1.0, 0.0], &plain) < 32.9);
    }
    // The two responses of a pair are independent: if both samplers are the policy, they agree as often as by chance.
    let same = draw([&policy, &policy], &prompts, &options(2), &mut |_, _| {}).unwrap();
    let mixed = prompts.iter().zip(&same).filter(|(prompt, _)| !prompt.is_plain).map(|(_, made)| made);
    let alike = mixed.filter(|made| made[0].tokens == made[1].tokens).count() as f64 / 150.0;
    let chance: f64 =
        every_response().iter().map(|response| probability(models, [1.0, 0.0], 0.7, response).powi(2)).sum();
    assert!((alike - chance).abs() < 4.0 * (chance * (1.0 - chance) / 150.0).sqrt(), "{alike} {chance}");
}

#[test]
fn shares_of_plain_prompts_follow_from_their_ids() {
    let plain = |seed: u64| (0..10_000).map(|i| is_plain(0.3, seed, stream(&format!("p{i}")))).collect::<Vec<_>>();
    let (first, again, other) = (plain(1), plain(1), plain(2));
    let share = first.iter().filter(|&&plain| plain).count() as f64 / 10_000.0;
    // Four standard deviations.
    assert!((share - 0.3).abs() < 4.0 * (0.3f64 * 0.7 / 10_000.0).sqrt(), "{share}");
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(!is_plain(0.0, 1, 5) && is_plain(1.0, 1, 5));
}

#[test]
fn a_policy_that_is_the_reference_is_remarked_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tiny");
    tiny::write_folder(&folder, 3).unwrap();
    let load = || CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
    let (mut policy, reference, other) = (load(), load(), CausalLm::random(tiny::config(), 4, Device::Cpu).unwrap());
    let remark =
        |policy: &CausalLm| MixPGenerator::new(policy, &reference, &tokenizer, "tiny", 0.0, 8).unwrap().remark();
    let same = Some(SAME_WEIGHTS.to_owned());
    assert_eq!(remark(&policy), same);
    assert_eq!(remark(&other), None);
    // Before training an adapter changes nothing.
    policy.add_adapter("a", LoraConfig::default(), 1).unwrap();
    let adapted = policy.with_adapter(Some("a")).unwrap();
    assert_eq!(remark(&adapted), same);
    for (_, tensor) in adapted.trainable_parameters() {
        let _ = tensor.shallow_clone().g_add_scalar_(0.1);
    }
    assert_eq!(remark(&adapted), None);
    let small = four_tokens(1);
    assert!(MixPGenerator::new(&small, &reference, &tokenizer, "tiny", 0.0, 8).is_err());
}

#[test]
fn responses_to_a_prompt_do_not_depend_on_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tiny");
    tiny::write_folder(&folder, 3).unwrap();
    let policy = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
    let reference = CausalLm::random(tiny::config(), 4, Device::Cpu).unwrap();
    let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
    let mut generator = MixPGenerator::new(&policy, &reference, &tokenizer, "tiny", 0.3, 8).unwrap();
    let prompt = |i: usize| Prompt::new(format!("p{i}"), Text::Messages(vec![Message::user("x".repeat(i + 1))]));
    let prompts: Vec<Prompt> = (0..6).map(prompt).collect();
    let sampling = SamplingConfig {
        samples: 2,
        temperature: 0.7,
        top_p: 1.0,
        max_new_tokens: 5,
        seed: 9,
        ..SamplingConfig::simplemix()
    };
    let mut last = (0, 0);
    let all = generator.generate(&prompts, &sampling, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (12, 12));
    let alone = generator.generate(&prompts[4..5], &sampling, &mut |_, _| {}).unwrap();
    let texts =
        |candidates: &[Candidate]| candidates.iter().map(|candidate| candidate.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&all[4]), texts(&alone[0]));
    // A generator loaded from folders samples the same.
    let second = dir.path().join("second");
    reference.save(&second, Some(&folder)).unwrap();
    let policy = LocalSettings { batch_rows: 8, ..LocalSettings::new(&folder) };
    let settings = |plain_share| MixPSettings { policy: policy.clone(), reference: second.clone(), plain_share };
    let mut model = MixPGenerator::load(&settings(0.3)).unwrap();
    let again = model.generate(&prompts, &sampling, &mut |_, _| {}).unwrap();
    assert!(again.iter().zip(&all).all(|(a, b)| texts(a) == texts(b)));
    assert_eq!((model.name(), model.remark()), ("tiny", None));
    assert_ne!(model.fingerprint(), MixPGenerator::load(&settings(0.2)).unwrap().fingerprint());
    let error = MixPGenerator::load(&settings(-0.1)).err().unwrap().to_string();
    assert_eq!(error, "`plain_share` is -0.1, expected a number from 0 to 1");
    let odd = SamplingConfig { samples: 3, ..sampling };
    let error = generator.generate(&prompts, &odd, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "`samples` is 3, expected an even number, half from each sampler");
}
