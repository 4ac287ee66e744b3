//! Arms: which pairs they train on, and how.

use std::path::Path;

use anyhow::{Context, Result};
use simplemix::data::Pair;
use simplemix::model::CausalLm;
use simplemix::rollout::{Generator, LocalGenerator, MixPGenerator};
use simplemix::train::{ReferenceSource, Resume, Run, Trained};
use tempfile::TempDir;

use crate::models::{Size, load, settings, tokenizer};
use crate::pairs::{BATCH, BATCH_ROWS, Order, Pool};
use crate::results::Spec;
use crate::silent::Silent;

/// Ways to use the pairs of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The base without training.
    Start,
    /// A mixture with a share of off-policy pairs in percent.
    Mixed(usize),
    /// The off-policy half first, or the on-policy half.
    OffThenOn,
    OnThenOff,
    /// Half and half in two rounds; the on-policy pairs of the second are those of the first one's model.
    Iterative,
    /// Off-policy pairs, and the divergence of samples.
    Hypo,
    /// On-policy pairs in two rounds, the second from both sides of the policy, with soft labels.
    MixP,
}

/// Arms of the paper's claims.
pub(crate) const MAIN: [&str; 5] = ["off", "on", "half", "off-then-on", "on-then-off"];
pub(crate) const SCHEDULES: [&str; 2] = ["off-then-on", "on-then-off"];
pub(crate) const OTHERS: [&str; 7] = ["on-10", "on-30", "on-70", "on-90", "iterative", "hypo", "dpo-mix-p"];
/// Mixtures by their share of on-policy pairs in percent.
pub(crate) const SHARES: [(&str, usize); 7] =
    [("off", 0), ("on-10", 10), ("on-30", 30), ("half", 50), ("on-70", 70), ("on-90", 90), ("on", 100)];

/// Weight of HyPO's divergence.
const LAMBDA: f64 = 1e-2;
/// Scale of DPO-Mix-P's soft labels, for rewards from 0 to 1; the authors' for Safe-RLHF.
const MARGIN_SCALE: f64 = 4.0;

impl Arm {
    pub(crate) fn named(name: &str) -> Result<Self> {
        if let Some((_, on)) = SHARES.iter().find(|(known, _)| *known == name) {
            return Ok(Self::Mixed(100 - on));
        }
        Ok(match name {
            "start" => Self::Start,
            "off-then-on" => Self::OffThenOn,
            "on-then-off" => Self::OnThenOff,
            "iterative" => Self::Iterative,
            "hypo" => Self::Hypo,
            "dpo-mix-p" => Self::MixP,
            other => anyhow::bail!("no such arm: `{other}`"),
        })
    }
}

/// A model after training, with the folder that holds it.
pub(crate) struct Policy {
    pub(crate) model: CausalLm,
    folder: Option<TempDir>,
    pub(crate) updates: u64,
    pub(crate) pairs: usize,
}

/// How one round is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Plain,
    Hypo,
    Soft,
}

/// Trains an arm on the pool of its seed.
pub(crate) fn train(spec: &Spec, pool: &Pool, size: &Size, work: &Path) -> Result<Policy> {
    let base = spec.base_model().folder(size, work);
    let round = |start: &Path, pairs: &[Pair], loss| dpo(spec, start, &base, pairs, loss);
    let all = [0, 100];
    match Arm::named(&spec.arm)? {
        Arm::Start => Ok(Policy { model: load(&base)?, folder: None, updates: 0, pairs: 0 }),
        Arm::Mixed(off) => round(&base, &pool.mixed(off, Order::Even, all)?, Loss::Plain),
        Arm::OffThenOn => round(&base, &pool.mixed(50, Order::OffThenOn, all)?, Loss::Plain),
        Arm::OnThenOff => round(&base, &pool.mixed(50, Order::OnThenOff, all)?, Loss::Plain),
        Arm::Hypo => round(&base, &pool.mixed(100, Order::Even, all)?, Loss::Hypo),
        Arm::Iterative => {
            let first = round(&base, &pool.mixed(50, Order::Even, [0, 50])?, Loss::Plain)?;
            let tokenizer = tokenizer(&base)?;
            let mut policy = LocalGenerator::new(&first.model, &tokenizer, "policy", BATCH_ROWS);
            second(&first, pool.second_round(50, &mut policy)?, Loss::Plain, &round)
        }
        Arm::MixP => {
            let first = round(&base, &pool.mixed(0, Order::Even, [0, 50])?, Loss::Plain)?;
            let (reference, tokenizer) = (load(&base)?, tokenizer(&base)?);
            let mut sides = MixPGenerator::new(&first.model, &reference, &tokenizer, "policy", 0.0, BATCH_ROWS)?;
            let generator: &mut dyn Generator = &mut sides;
            second(&first, pool.second_round(0, generator)?, Loss::Soft, &round)
        }
    }
}

/// Training from the model of a folder on pairs.
type Round<'a> = &'a dyn Fn(&Path, &[Pair], Loss) -> Result<Policy>;

fn second(first: &Policy, pairs: Vec<Pair>, loss: Loss, round: Round<'_>) -> Result<Policy> {
    let folder = first.folder.as_ref().context("the first round has no folder")?;
    let last = round(&folder.path().join("run/model"), &pairs, loss)?;
    Ok(Policy { updates: first.updates + last.updates, pairs: first.pairs + last.pairs, ..last })
}

fn dpo(spec: &Spec, start: &Path, base: &Path, pairs: &[Pair], loss: Loss) -> Result<Policy> {
    let folder = tempfile::tempdir()?;
    let mut config = settings();
    config.model = Some(start.to_owned());
    config.output = Some(folder.path().join("run"));
    config.seed = spec.seed;
    config.epochs = spec.setting.epochs as f64;
    config.batch.batch_size = BATCH;
    config.optimizer.learning_rate = spec.setting.rate;
    config.optimizer.warmup_ratio = 0.1;
    config.loss.beta = spec.setting.beta;
    config.reference.source = ReferenceSource::Computed;
    if start != base {
        config.reference.model = Some(base.to_owned());
    }
    match loss {
        Loss::Plain => {}
        Loss::Hypo => {
            config.hypo.lambda = LAMBDA;
            config.hypo.max_new_tokens = crate::language::MAX_NEW_TOKENS;
        }
        Loss::Soft => {
            config.loss.name = "soft_label".into();
            config.loss.reward_margin_scale = MARGIN_SCALE;
        }
    }
    let run = Run::with_pairs(config, start, pairs, &[])?;
    let updates = run.settings().steps;
    let finished = run.start(Resume::No, &mut Silent)?;
    let Some(Trained::Policy(model)) = finished.model else { anyhow::bail!("training gave no policy") };
    Ok(Policy { model: *model, folder: Some(folder), updates, pairs: pairs.len() })
}
