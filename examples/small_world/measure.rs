//! Figures of a policy on held-out prompts.

use std::collections::BTreeSet;

use anyhow::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simplemix::data::{Pair, PairTokenizer, Policy, Text};
use simplemix::eval::mean;
use simplemix::model::CausalLm;
use simplemix::rollout::{Candidate, Finish, Generator, LocalGenerator, Prompt, SamplingConfig};
use simplemix::train::{ForwardOptions, PairSet, reference_logps};

use crate::language::{OPEN, REASONING, Style, Use, is_foreign, is_sum, prompts, reward, text};
use crate::pairs::{BATCH_ROWS, sampling};
use crate::results::Outcome;

/// Samples a prompt whose divergence is measured.
const KL_SAMPLES: usize = 2;

/// Held-out prompts of a seed, alike for all its arms.
pub(crate) struct HeldOut {
    reasoning: Vec<Prompt>,
    open: Vec<Prompt>,
    samples: usize,
    seed: u64,
}

impl HeldOut {
    pub(crate) fn new(part: Use, count: usize, samples: usize, seed: u64) -> Self {
        let (mut rng, mut before) = (ChaCha8Rng::seed_from_u64(0xe7a1 ^ seed), BTreeSet::new());
        let mut of = |task| prompts(task, part, count, &mut before, &mut rng);
        Self { reasoning: of(REASONING), open: of(OPEN), samples, seed: seed * 100 + 77 }
    }
}

/// Answers with the prompts that they belong to.
type Answers<'a> = Vec<(&'a str, &'a Candidate)>;

fn is_ended(candidate: &Candidate) -> bool {
    candidate.finish.as_ref().is_some_and(Finish::is_end)
}

fn written(candidate: &Candidate) -> &str {
    candidate.text.as_deref().unwrap_or_default()
}

/// Reward of an answer; an answer must end.
fn earned((prompt, candidate): &(&str, &Candidate)) -> f64 {
    if is_ended(candidate) { reward(prompt, written(candidate)) } else { 0.0 }
}

fn percent(shares: impl Iterator<Item = f64>) -> f64 {
    100.0 * mean(&shares.collect::<Vec<_>>())
}

fn share(of: impl Iterator<Item = bool>) -> f64 {
    percent(of.map(|is| f64::from(u8::from(is))))
}

/// Samples answers of `policy` to the held-out prompts and measures them.
pub(crate) fn measure(
    policy: &CausalLm,
    base: &CausalLm,
    tokenizer: &PairTokenizer,
    held_out: &HeldOut,
) -> Result<Outcome> {
    let mut generator = LocalGenerator::new(policy, tokenizer, "policy", BATCH_ROWS);
    let mut sample =
        |prompts: &[Prompt], sampling: &SamplingConfig| generator.generate(prompts, sampling, &mut |_, _| {});
    let many = sampling(held_out.samples, held_out.seed);
    let greedy = SamplingConfig { samples: 1, temperature: 0.0, ..many.clone() };
    let reasoning = sample(&held_out.reasoning, &many)?;
    let open = sample(&held_out.open, &many)?;
    let greedy = sample(&held_out.reasoning, &greedy)?;
    let kl = |prompts: &[Prompt], answers: &[Vec<Candidate>]| divergence(base, tokenizer, prompts, answers);
    let (kl_reasoning, kl_open) = (kl(&held_out.reasoning, &reasoning)?, kl(&held_out.open, &open)?);
    let reasoning = flat(&held_out.reasoning, &reasoning);
    let open = flat(&held_out.open, &open);
    let of_kind = |sums: bool| percent(reasoning.iter().filter(|(prompt, _)| is_sum(prompt) == sums).map(earned));
    let style = |style: Style| share(reasoning.iter().map(|(_, answer)| Style::of(written(answer)) == Some(style)));
    let length = |answers: &Answers<'_>| {
        mean(&answers.iter().map(|(_, answer)| written(answer).len() as f64).collect::<Vec<_>>())
    };
    Ok(Outcome {
        right: percent(reasoning.iter().map(earned)),
        right_sums: of_kind(true),
        right_reversals: of_kind(false),
        right_greedy: percent(flat(&held_out.reasoning, &greedy).iter().map(earned)),
        open: percent(open.iter().map(earned)),
        kl_reasoning,
        kl_open,
        direct: style(Style::Direct),
        chain: style(Style::Chain),
        columns: style(Style::Columns),
        foreign: share(open.iter().flat_map(|(_, answer)| written(answer).chars().map(is_foreign))),
        length_reasoning: length(&reasoning),
        length_open: length(&open),
        cut: share(reasoning.iter().chain(&open).map(|(_, answer)| !is_ended(answer))),
        ..Outcome::default()
    })
}

fn flat<'a>(prompts: &'a [Prompt], answers: &'a [Vec<Candidate>]) -> Answers<'a> {
    prompts
        .iter()
        .zip(answers)
        .flat_map(|(prompt, answers)| answers.iter().map(|answer| (text(&prompt.prompt), answer)))
        .collect()
}

/// Mean over sampled answers of the policy's log-probability less the base's; an estimate of the divergence.
fn divergence(
    base: &CausalLm,
    tokenizer: &PairTokenizer,
    prompts: &[Prompt],
    answers: &[Vec<Candidate>],
) -> Result<f64> {
    let few: Vec<Vec<Candidate>> = answers
        .iter()
        .map(|answers| answers.iter().filter(|answer| is_ended(answer)).take(KL_SAMPLES).cloned().collect())
        .collect();
    let answers = flat(prompts, &few);
    // The rejected side is there because a pair has two.
    let pair = |(prompt, answer): &(&str, &Candidate)| {
        let plain = |text: &str| Text::Plain(text.to_owned());
        Pair::new(plain(prompt), plain(written(answer)), plain("?"), "on", Policy::On)
    };
    let set = PairSet::tokenize(&answers.iter().map(pair).collect::<Vec<_>>(), tokenizer)?;
    let options = ForwardOptions {
        micro_batch_tokens: 4096,
        logits_bytes: 1 << 26,
        activation_checkpointing: false,
        token_metrics: false,
        token_metrics_every: 1,
        wpo: None,
        ld_alpha: None,
    };
    let logps = reference_logps(base, &set, &options, &mut |_| {})?;
    let ratio = |(entry, base): (&simplemix::train::PairEntry, &simplemix::train::Sides<f64>)| {
        Some(answers.get(entry.row)?.1.logp? - base.chosen)
    };
    Ok(mean(&set.table.pairs.iter().zip(&logps).filter_map(ratio).collect::<Vec<_>>()))
}
