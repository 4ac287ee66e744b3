//! A micro-batch as a device sees it, and gradients of half precision.

use simplemix_data::TokenizedPair;
use simplemix_loss::PreferenceLoss;
use simplemix_model::{AttentionRoute, RewardModel, RopeScaling, tiny};
use simplemix_torch::trace;
use tch::Device;

use super::*;
use crate::adamw::OptimizerSettings;
use crate::forward::score_pairs;
use crate::pairs::Feed;
use crate::reward::RewardLearner;
use crate::table::PairEntry;

/// Pairs of one length each, so that whatever depends on lengths is made once.
fn set(pairs: usize) -> PairSet {
    let ids =
        |pair: usize, at: usize, count: usize| (0..count).map(|i| ((7 * pair + 3 * i + at) % 90 + 3) as u32).collect();
    let pair = |i| TokenizedPair {
        prompt: ids(i, 0, 6),
        chosen: ids(i, 1, 5),
        rejected: ids(i, 2, 4),
        cut: false,
        shifted: false,
    };
    let entry = |row| PairEntry {
        row,
        tokens: 15,
        prompt: 6,
        responses: Sides { chosen: 5, rejected: 4 },
        ..PairEntry::default()
    };
    let mut set = PairSet { tokens: (0..pairs).map(pair).collect(), ..PairSet::default() };
    set.table.sources.push("off".to_owned());
    set.table.pairs = (0..pairs).map(entry).collect();
    set
}

fn forward_options() -> ForwardOptions {
    ForwardOptions {
        micro_batch_tokens: 1 << 20,
        logits_bytes: 1 << 30,
        activation_checkpointing: false,
        token_metrics: true,
        token_metrics_every: 1,
        wpo: None,
        ld_alpha: None,
    }
}

fn learner(model: CausalLm, set: &PairSet) -> PreferenceLearner<'_> {
    let loss = PreferenceLoss::new("sigmoid".parse().unwrap(), 0.1, 0.0).unwrap();
    let forward = forward_options();
    let options = PreferenceOptions {
        loss: loss.into(),
        forward,
        reward_margin_scale: 1.0,
        seed: 0,
        starts_at_reference: false,
        router_coef: None,
    };
    // Nobody trains in f64, but the gradients of f64 are what others are compared with.
    let trained = if model.kind() == Kind::Double { Vec::new() } else { model.trainable_parameters() };
    let trainee = Trainee::new(trained, &OptimizerSettings::default()).unwrap();
    model.set_trainable(true);
    let reference = Reference::Known(vec![Sides { chosen: -22.0, rejected: -18.0 }; set.len()], Vec::new());
    PreferenceLearner::new(model, trainee, options, set, &[], reference).unwrap()
}

/// The tiny model in `kind`, its weights rounded to bf16 in any.
fn model(kind: Kind) -> CausalLm {
    let dir = tempfile::tempdir().unwrap();
    let (exact, rounded) = (dir.path().join("exact"), dir.path().join("rounded"));
    tiny::write_folder(&exact, 1).unwrap();
    CausalLm::load(&exact, Kind::BFloat16, Device::Cpu).unwrap().save(&rounded, None).unwrap();
    CausalLm::load(&rounded, kind, Device::Cpu).unwrap()
}

#[test]
fn a_micro_batch_waits_once_and_launches_as_much_for_any_number_of_pairs() {
    let calls = |pairs: usize| {
        let mut model = model(Kind::Float);
        model.set_attention_route(AttentionRoute::Varlen);
        let set = set(pairs);
        let mut learner = learner(model, &set);
        let all: Vec<usize> = (0..pairs).collect();
        trace(|| learner.accumulate(&all, 1.0).unwrap()).1
    };
    let (few, many) = (calls(2), calls(16));
    assert_eq!((few.waits(), many.waits()), (1, 1));
    assert_eq!((few.copies(), many.copies()), (1, 1));
    let whole = ["simplemix::varlen_attention"];
    let (few, many) = (few.launches(&whole), many.launches(&whole));
    assert_eq!(few, many, "for 2 and 16 pairs");
}

#[test]
fn scoring_takes_one_copy_and_one_wait_a_pass_on_every_route() {
    let set = set(6);
    let options = learner(model(Kind::Float), &set).options.forward;
    let all: Vec<usize> = (0..6).collect();
    for route in [AttentionRoute::Masked, AttentionRoute::Runs, AttentionRoute::Varlen] {
        let mut model = model(Kind::Float);
        model.set_attention_route(route);
        let options = ForwardOptions { ld_alpha: Some(0.5), micro_batch_tokens: usize::MAX, ..options };
        let calls = trace(|| score_pairs(&model, &set, &all, &options, &mut |_| {}).unwrap()).1;
        assert_eq!((calls.copies(), calls.waits()), (1, 1), "{route:?}");
    }
}

#[test]
fn a_micro_batch_of_a_reward_model_takes_one_copy_and_one_wait() {
    let set = set(4);
    let options = learner(model(Kind::Float), &set).options.forward;
    let model = RewardModel::on_top_of(model(Kind::Float)).unwrap();
    let trained =
        model.named_parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let trainee = Trainee::new(trained, &OptimizerSettings::default()).unwrap();
    let head = model.score_head().shallow_clone();
    let mut learner = RewardLearner::new(model, 1, trainee, options, 0.0, &set, &[]).unwrap();
    let calls = trace(|| learner.accumulate(&[0, 1, 2, 3], 1.0).unwrap()).1;
    assert_eq!((calls.copies(), calls.waits()), (1, 1));
    // A score that is no number is a loss that is none, which the run's settings may skip.
    let _ = head.detach().fill_(f64::NAN);
    assert!(learner.accumulate(&[0], 1.0).unwrap()[0].loss.is_nan());
}

#[test]
fn an_update_that_measures_no_tokens_computes_none_of_their_metrics() {
    let set = set(2);
    let calls = |every: u64, token_metrics: bool| {
        let mut learner = learner(model(Kind::Float), &set);
        (learner.options.forward.token_metrics, learner.options.forward.token_metrics_every) = (token_metrics, every);
        learner.begin(0).unwrap();
        let calls = trace(|| learner.accumulate(&[0, 1], 1.0).unwrap()).1;
        calls.kernels(&[]).map(str::to_owned).collect::<Vec<_>>()
    };
    let never = calls(1, false);
    assert!(calls(2, true) == never);
    assert!(calls(1, true).len() > never.len());
}

/// Gradients of some pairs, each a micro-batch of its own, under their parameters' names.
fn gradients(kind: Kind, set: &PairSet, pairs: &[usize]) -> Vec<(String, Tensor)> {
    let mut learner = learner(model(kind), set);
    for &pair in pairs {
        learner.accumulate(&[pair], 1.0).unwrap();
    }
    let parameters = learner.policy.model.trainable_parameters();
    parameters.into_iter().map(|(name, tensor)| (name, tensor.grad().copy())).collect()
}

fn norm(gradients: &[(String, Tensor)]) -> f64 {
    gradients
        .iter()
        .map(|(_, t)| t.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]))
        .sum::<f64>()
        .sqrt()
}

fn difference(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> f64 {
    let parts: Vec<(String, Tensor)> = a
        .iter()
        .zip(b)
        .map(|((name, a), (_, b))| (name.clone(), a.to_kind(Kind::Double) - b.to_kind(Kind::Double)))
        .collect();
    norm(&parts) / norm(b)
}

#[test]
fn gradients_of_half_precision_add_up_without_loss() {
    let set = set(8);
    let all: Vec<usize> = (0..8).collect();
    let together = gradients(Kind::BFloat16, &set, &all);
    assert!(together.iter().all(|(_, gradient)| gradient.kind() == Kind::Float));
    let mut sum = gradients(Kind::BFloat16, &set, &[0]);
    for pair in 1..8 {
        for ((_, sum), (_, alone)) in sum.iter_mut().zip(gradients(Kind::BFloat16, &set, &[pair])) {
            *sum += alone;
        }
    }
    assert!(difference(&together, &sum) < 1e-6, "{}", difference(&together, &sum));
    let error =
        |pairs: &[usize]| difference(&gradients(Kind::BFloat16, &set, pairs), &gradients(Kind::Double, &set, pairs));
    let (one, eight) = (error(&[0]), error(&all));
    assert!(eight < 1.2 * one, "{eight} for eight micro-batches, {one} for one");
}

/// Frequencies by the length of a sequence: neither the other response nor the other pairs of a pass change a number.
#[test]
fn sequences_of_different_frequencies_do_not_share_a_prompt() {
    let mut config = tiny::config();
    let rules = [
        RopeScaling::Dynamic { factor: 4.0, max_position_embeddings: 4 },
        RopeScaling::LongRope {
            short_factor: vec![1.0; 8],
            long_factor: vec![3.0; 8],
            attention_factor: 1.0,
            original_max_position_embeddings: 10,
            reads_again: true,
        },
    ];
    let mut logps = Vec::new();
    for rule in rules {
        config.ropes[0].scaling = rule;
        let model = CausalLm::random(config.clone(), 5, Device::Cpu).unwrap();
        // Products of queries and keys that the softmax tells apart.
        let of_heads = |name: &str| name.contains("q_proj") || name.contains("k_proj");
        for (_, weight) in model.named_parameters().iter().filter(|(name, _)| of_heads(name)) {
            let _ = weight.shallow_clone().g_mul_scalar_(20.0);
        }
        let scored = |feed: Feed, micro_batch_tokens: usize| {
            let mut set = set(3);
            set.set_feed(feed, &[model.config()]);
            // The prompt counts for each response, however prompts are fed.
            assert!(set.table.pairs.iter().all(|pair| pair.is_split && pair.tokens == 2 * 6 + 5 + 4));
            let options = ForwardOptions { micro_batch_tokens, ..forward_options() };
            score_pairs(&model, &set, &[0, 1, 2], &options, &mut |_| ()).unwrap().logps
        };
        let shared = scored(Feed::Shared, 1 << 20);
        for other in [scored(Feed::Apart, 1 << 20), scored(Feed::Shared, 1)] {
            assert!(shared.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()));
        }
        logps.push(shared);
    }
    assert!(logps[0].iter().zip(&logps[1]).any(|(a, b)| (a - b).abs() > 0.1), "the rules differ: {logps:?}");
}
