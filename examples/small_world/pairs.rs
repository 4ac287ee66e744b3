//! Pairs of a seed: on-policy ones from its base, off-policy ones from two writers, to the same prompts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simplemix::data::{Pair, PairTokenizer, Policy};
use simplemix::mix::{Curve, Exhaustion, Point, Routing, Schedule, Weight};
use simplemix::model::CausalLm;
use simplemix::pipeline::{MixSettings, MixSource, Mixing};
use simplemix::rollout::{
    Candidate, Generator, Group, LocalGenerator, Prompt, SamplingConfig, SelectSettings, score_all, select_pairs,
};

use crate::language::{MAX_NEW_TOKENS, OPEN, REASONING, TASKS, Use, World, prompts, text};
use crate::models::{Model, Size, load, tokenizer};
use crate::results::{Outcome, Spec};

/// Answers sampled together.
pub(crate) const BATCH_ROWS: usize = 256;
/// Answers to each prompt: of the policy, and of both writers together.
const CANDIDATES: usize = 4;
pub(crate) const BATCH: usize = 32;

/// Sampling as all pairs here are sampled.
pub(crate) fn sampling(samples: usize, seed: u64) -> SamplingConfig {
    SamplingConfig {
        samples,
        temperature: 1.0,
        top_p: 1.0,
        max_new_tokens: MAX_NEW_TOKENS,
        seed,
        ..SamplingConfig::simplemix()
    }
}

/// Both pairs of a prompt.
pub(crate) struct Both {
    on: Pair,
    off: Pair,
}

/// Prompts of a task with both pairs, and more prompts for a second round.
#[derive(Default)]
pub(crate) struct TaskPairs {
    both: Vec<Both>,
    spare: Vec<Prompt>,
    /// Prompts sampled, and of these those with an on-policy pair and those with an off-policy pair.
    pub(crate) asked: usize,
    pub(crate) with_on: usize,
    pub(crate) with_off: usize,
}

/// All pairs of a seed.
pub(crate) struct Pool {
    pub(crate) tasks: BTreeMap<&'static str, TaskPairs>,
    seed: u64,
}

/// The pair of each prompt, best against worst answer; none for prompts whose answers are alike in reward or text.
/// Answers that did not end take no part.
pub(crate) fn best_worst(
    prompts: &[Prompt],
    mut candidates: Vec<Vec<Candidate>>,
    policy: Policy,
    generator: &str,
) -> Result<BTreeMap<String, Pair>> {
    for candidate in candidates.iter_mut().flatten() {
        if !candidate.finish.as_ref().is_some_and(simplemix::rollout::Finish::is_end) {
            candidate.text = None;
        }
    }
    let group = |(prompt, candidates): (&Prompt, &Vec<Candidate>)| Group {
        prompt: prompt.clone(),
        responses: candidates.iter().map(|candidate| candidate.text.clone().unwrap_or_default()).collect(),
    };
    let groups: Vec<Group> = prompts.iter().zip(&candidates).map(group).collect();
    let scores = score_all(&mut World, &groups)?;
    let source = if policy == Policy::On { "on" } else { "off" };
    let selection = select_pairs(prompts, &candidates, &scores, &SelectSettings::default(), source, generator)?;
    let named = selection.pairs.into_iter().map(|mut pair| {
        pair.policy = policy;
        (text(&pair.prompt).to_owned(), pair)
    });
    Ok(named.collect())
}

/// On-policy pairs of a model, by prompt.
pub(crate) fn on_policy(policy: &mut dyn Generator, prompts: &[Prompt], seed: u64) -> Result<BTreeMap<String, Pair>> {
    let candidates = policy.generate(prompts, &sampling(CANDIDATES, seed), &mut |_, _| {})?;
    best_worst(prompts, candidates, Policy::On, "policy")
}

struct Writers {
    models: [CausalLm; 2],
    tokenizer: PairTokenizer,
}

impl Writers {
    fn load(spec: &Spec, size: &Size, work: &Path) -> Result<Self> {
        let [strong, other] = spec.writers().map(|model| model.folder(size, work));
        Ok(Self { models: [load(&strong)?, load(&other)?], tokenizer: tokenizer(&strong)? })
    }

    fn pairs(&self, prompts: &[Prompt], seed: u64) -> Result<BTreeMap<String, Pair>> {
        let mut all: Vec<Vec<Candidate>> = vec![Vec::new(); prompts.len()];
        for (number, model) in self.models.iter().enumerate() {
            let mut writer = LocalGenerator::new(model, &self.tokenizer, "writer", BATCH_ROWS);
            let sampling = sampling(CANDIDATES / 2, seed + 1 + number as u64);
            for (all, own) in all.iter_mut().zip(writer.generate(prompts, &sampling, &mut |_, _| {})?) {
                all.extend(own);
            }
        }
        best_worst(prompts, all, Policy::Off, "writers")
    }
}

impl Pool {
    /// Samples until each task has half of the pairs that the run trains on.
    pub(crate) fn collect(spec: &Spec, part: Use, size: &Size, work: &Path) -> Result<Self> {
        let folder = spec.base_model().folder(size, work);
        let (base, tokenizer) = (load(&folder)?, tokenizer(&folder)?);
        let mut policy = LocalGenerator::new(&base, &tokenizer, "policy", BATCH_ROWS);
        let writers = Writers::load(spec, size, work)?;
        let mut rng = ChaCha8Rng::seed_from_u64(0xda7a ^ spec.seed);
        let (mut before, mut tasks, wanted) = (BTreeSet::new(), BTreeMap::new(), spec.pairs / 2);
        let seed = spec.seed * 100;
        for task in TASKS {
            let mut own = TaskPairs::default();
            for _ in 0..size.chunks {
                let prompts = prompts(task, part, size.chunk, &mut before, &mut rng);
                let mut on = on_policy(&mut policy, &prompts, seed)?;
                let mut off = writers.pairs(&prompts, seed)?;
                (own.asked, own.with_on, own.with_off) =
                    (own.asked + prompts.len(), own.with_on + on.len(), own.with_off + off.len());
                // The order of the prompts, which is random, not that of their texts.
                let both = |prompt: &Prompt| {
                    let text = text(&prompt.prompt);
                    Some(Both { on: on.remove(text)?, off: off.remove(text)? })
                };
                own.both.extend(prompts.iter().filter_map(both));
                if own.both.len() >= wanted {
                    break;
                }
            }
            own.both.truncate(wanted);
            if own.both.len() < wanted && size.is_strict {
                bail!(
                    "seed {}, task {task}: {} of {} prompts have both pairs ({} an on-policy one, {} an off-policy one), \
                     expected {wanted}: pre-train the base longer",
                    spec.seed,
                    own.both.len(),
                    own.asked,
                    own.with_on,
                    own.with_off
                );
            }
            own.spare = prompts(task, part, wanted, &mut before, &mut rng);
            tasks.insert(task, own);
        }
        Ok(Self { tasks, seed: spec.seed })
    }

    /// Adds the shares of prompts that gave pairs.
    pub(crate) fn kept(&self, outcome: Outcome) -> Outcome {
        let share = |task: &str, of: fn(&TaskPairs) -> usize| {
            self.tasks.get(task).map_or(0.0, |own| 100.0 * of(own) as f64 / own.asked.max(1) as f64)
        };
        Outcome {
            kept_on_reasoning: share(REASONING, |own| own.with_on),
            kept_on_open: share(OPEN, |own| own.with_on),
            kept_off_reasoning: share(REASONING, |own| own.with_off),
            kept_off_open: share(OPEN, |own| own.with_off),
            ..outcome
        }
    }

    /// Pairs mixed with a share of off-policy pairs, in percent, alike in each task and batch. No prompt comes twice. `range` is
    /// a part of the prompts in percent.
    pub(crate) fn mixed(&self, off: usize, order: Order, range: [usize; 2]) -> Result<Vec<Pair>> {
        let (mut sources, mut shares) = ([Vec::new(), Vec::new()], BTreeMap::new());
        for (task, own) in &self.tasks {
            let [from, to] = range.map(|percent| own.both.len() * percent / 100);
            let both = own.both.get(from..to).unwrap_or_default();
            let count = (both.len() * off).div_ceil(100);
            sources[0].extend(both.iter().take(count).map(|both| both.off.clone()));
            sources[1].extend(both.iter().skip(count).map(|both| both.on.clone()));
            if !both.is_empty() {
                shares.insert((*task).to_owned(), Weight::whole(both.len() as u64));
            }
        }
        mix(&sources, shares, order, self.seed)
    }

    /// Pairs for the second of two rounds: half of the pool's number, a share of off-policy ones in percent, the others from
    /// `generator`.
    pub(crate) fn second_round(&self, off: usize, generator: &mut dyn Generator) -> Result<Vec<Pair>> {
        let (mut sources, mut shares) = ([Vec::new(), Vec::new()], BTreeMap::new());
        for (task, own) in &self.tasks {
            let later = own.both.get(own.both.len() / 2..).unwrap_or_default();
            let count = (later.len() * off).div_ceil(100);
            let wanted = later.len() - count;
            sources[0].extend(later.iter().take(count).map(|both| both.off.clone()));
            let first = later.iter().skip(count).map(|both| {
                let prompt = text(&both.on.prompt);
                Prompt::new(prompt, prompt).with_task(*task)
            });
            let prompts: Vec<Prompt> = first.chain(own.spare.iter().cloned()).collect();
            let mut found = 0;
            for prompts in prompts.chunks(wanted.max(1)) {
                let mut pairs = on_policy(generator, prompts, self.seed * 100 + 50)?;
                let taken: Vec<Pair> = prompts
                    .iter()
                    .filter_map(|prompt| pairs.remove(text(&prompt.prompt)))
                    .take(wanted - found)
                    .collect();
                found += taken.len();
                sources[1].extend(taken);
                if found >= wanted {
                    break;
                }
            }
            if count + found > 0 {
                shares.insert((*task).to_owned(), Weight::whole((count + found) as u64));
            }
        }
        mix(&sources, shares, Order::Even, self.seed + 1)
    }
}

/// Order of the two sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The shares in every batch.
    Even,
    OffThenOn,
    OnThenOff,
}

/// All rows of off-policy and on-policy pairs, once each, through the library's mixture.
fn mix(sources: &[Vec<Pair>; 2], shares: BTreeMap<String, Weight>, order: Order, seed: u64) -> Result<Vec<Pair>> {
    let present: Vec<(&str, &Vec<Pair>)> =
        ["off", "on"].into_iter().zip(sources).filter(|(_, pairs)| !pairs.is_empty()).collect();
    let total: usize = present.iter().map(|(_, pairs)| pairs.len()).sum();
    if total == 0 {
        bail!("no pair was found to train on");
    }
    let weight = |pairs: &Vec<Pair>| Weight::whole(pairs.len() as u64);
    let schedule = (order != Order::Even && present.len() == 2).then(|| schedule(sources, order));
    let settings = MixSettings {
        sources: present.iter().map(|(name, pairs)| MixSource::new(*name, "", weight(pairs))).collect(),
        size: Some(total as u64),
        exhaustion: Exhaustion::FirstExhausted,
        batch: schedule.is_none().then_some(BATCH as u64),
        routing: Some(Routing { tasks: BTreeMap::new(), default: BTreeMap::new(), shares }),
        schedule,
        seed,
        ..MixSettings::default()
    };
    let slices: Vec<&[Pair]> = present.iter().map(|(_, pairs)| pairs.as_slice()).collect();
    Ok(Mixing::of_pairs(&settings, &slices)?.pairs()?)
}

/// One source, then the other, from the place where the first ends.
fn schedule(sources: &[Vec<Pair>; 2], order: Order) -> Schedule {
    let [off, on] = sources.each_ref().map(|pairs| pairs.len() as u64);
    let (first, weights) = match order {
        Order::OnThenOff => (on, [[0, 1], [1, 0]]),
        _ => (off, [[1, 0], [0, 1]]),
    };
    let share = first as f64 / (off + on) as f64;
    let at = format!("{share}").parse().unwrap_or(Weight::whole(0));
    let point = |at, weights: [u64; 2]| Point { at, weights: weights.map(Weight::whole).to_vec() };
    Schedule { curve: Curve::Step, points: vec![point(Weight::whole(0), weights[0]), point(at, weights[1])] }
}

/// Models that a run needs before it starts.
pub(crate) fn needed(spec: &Spec) -> Vec<Model> {
    let [strong, other] = spec.writers();
    vec![spec.base_model(), strong, other]
}
