//! A whole run from settings: read, tokenise, score the reference, train, save.

use std::path::Path;

use simplemix_data::{Pair, PairTokenizer, ReadOptions, ReadReport, TokenizeOptions, read_pairs_with_report};
use simplemix_loss::{LossKind, Need, PreferenceLoss};
use simplemix_model::CausalLm;
use tch::{Device, Kind};

use crate::config::TrainConfig;
use crate::dpo::{DpoLearner, DpoOptions};
use crate::error::{Error, Result};
use crate::memory::{MemoryEstimate, PROGRAM_BYTES};
use crate::metrics::Record;
use crate::pairs::PairSet;
use crate::run_folder::{MetricsFile, RunFolder};
use crate::trainer::{LoopSettings, Observer, Outcome, Progress, train};

/// Sees a run from outside; every method may be left as it is.
pub trait Watcher {
    /// A long stage begins or goes on: `done` of `total`.
    fn stage(&mut self, _stage: Stage, _done: usize, _total: usize) {}

    /// An update is done.
    fn step(&mut self, _record: &Record, _steps: u64) {}

    /// The held-back set was scored.
    fn evaluated(&mut self, _record: &Record) {}

    /// Whether to save a checkpoint and stop before the next update.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Sees nothing, stops nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {}

/// Parts of a run that take a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Log-probabilities of all pairs under the reference.
    Reference,
    /// Log-probabilities of the held-back pairs under the policy.
    Evaluation,
}

/// A run whose input is read and checked, ready to start.
#[derive(Debug)]
pub struct Run {
    config: TrainConfig,
    loss: PreferenceLoss,
    settings: LoopSettings,
    model: CausalLm,
    /// Training pairs.
    pub train: PairSet,
    /// Held-back pairs; may be empty.
    pub eval: PairSet,
}

impl Run {
    /// Reads and checks everything that the settings name. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value missing or out of range, [`Error::Empty`] where no pair is left, and whatever
    /// reading data and model reports.
    pub fn prepare(config: TrainConfig) -> Result<Self> {
        config.check()?;
        preference_loss(&config)?;
        let model = required("model", config.model.as_deref())?;
        let path = required("train", config.train.as_deref())?;
        required("output", config.output.as_deref())?;
        let (pairs, report) = read_pairs_with_report(path, &ReadOptions::default())?;
        if pairs.is_empty() {
            return Err(Error::Empty { path: path.to_owned(), reason: refusals(&report) });
        }
        let held_back = match &config.eval {
            Some(path) => read_pairs_with_report(path, &ReadOptions::default())?.0,
            None => Vec::new(),
        };
        let model = model.to_owned();
        Self::with_pairs(config, &model, &pairs, &held_back)
    }

    /// The same with pairs that are in memory already; `train` and `eval` of the settings are not read.
    ///
    /// # Errors
    /// As [`Run::prepare`].
    pub fn with_pairs(config: TrainConfig, model: &Path, pairs: &[Pair], held_back: &[Pair]) -> Result<Self> {
        config.check()?;
        let loss = preference_loss(&config)?;
        let options = TokenizeOptions { max_length: config.max_length, ..TokenizeOptions::default() };
        let tokenizer = PairTokenizer::from_dir(model, options)?;
        let train = PairSet::tokenize(pairs, &tokenizer)?;
        let eval = PairSet::tokenize(held_back, &tokenizer)?;
        if train.is_empty() {
            let path = config.train.clone().unwrap_or_default();
            return Err(Error::Empty { path, reason: train.summary() });
        }
        let settings = config.loop_settings(train.len())?;
        let device = Device::cuda_if_available();
        let model = CausalLm::load(model, Kind::Float, device)?;
        Ok(Self { loss, settings, model, train, eval, config })
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// What the loop will do.
    pub fn settings(&self) -> &LoopSettings {
        &self.settings
    }

    /// Weights that are trained.
    pub fn parameters(&self) -> i64 {
        self.model.config().parameters()
    }

    /// The memory that the run is expected to need at its peak.
    ///
    /// # Errors
    /// [`Error::Setting`] if micro-batches cannot be made.
    pub fn memory_estimate(&self) -> Result<MemoryEstimate> {
        let (settings, model) = (&self.settings, self.model.config());
        let (pairs, mut largest) = (self.train.len() as u64, (0, 0));
        // An epoch shows every pair; others differ in their order only.
        let steps = settings.steps.min(pairs.div_ceil(settings.batch_size as u64));
        for step in 0..steps {
            let batch = settings.order.batch(step, settings.batch_size, pairs);
            for part in self.train.table.micro_batches(&batch, settings.micro_batch_tokens)? {
                let tokens: usize = part.iter().map(|&pair| self.train.table.pairs[pair].tokens).sum();
                let scored =
                    |&pair: &usize| self.train.tokens[pair].chosen.len() + self.train.tokens[pair].rejected.len();
                largest = largest.max((tokens, part.iter().map(scored).sum()));
            }
        }
        let (tokens, scored) = largest;
        let weights = model.parameters() as u64 * 4;
        let logits = (self.config.logits_bytes as u64).min((scored as i64 * model.vocab_size) as u64 * 4);
        Ok(MemoryEstimate {
            program: PROGRAM_BYTES,
            weights,
            gradients: weights,
            optimizer: 2 * weights,
            activations: model.activation_bytes(tokens, 4, self.config.activation_checkpointing),
            logits,
            micro_batch_tokens: tokens,
        })
    }

    /// Trains, and writes the run folder: settings, metrics, checkpoints and the resulting model.
    ///
    /// With `resume`, a run that was stopped goes on from its newest checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be made, [`Error::NonFinite`], and whatever training reports.
    pub fn start(self, resume: bool, watcher: &mut dyn Watcher) -> Result<Finished> {
        let Self { config, loss, settings, model, train: train_set, eval: eval_set } = self;
        let output = required("output", config.output.as_deref())?;
        let folder = if resume { RunFolder::open(output)? } else { RunFolder::create(output)? };
        folder.write("config.toml", &config.to_toml()?)?;
        let options = DpoOptions {
            loss,
            adamw: config.adamw,
            micro_batch_tokens: config.micro_batch_tokens,
            logits_bytes: config.logits_bytes,
            activation_checkpointing: config.activation_checkpointing,
        };
        let mut learner = DpoLearner::new(model, &train_set, &eval_set, options, &mut |done, total| {
            watcher.stage(Stage::Reference, done, total);
        })?;
        let progress = if resume { folder.restore(&mut learner)?.unwrap_or_default() } else { Progress::default() };
        let metrics = folder.metrics(progress.step)?;
        let mut recorder = Recorder {
            folder: &folder,
            metrics,
            watcher,
            steps: settings.steps,
            keep: config.keep_checkpoints,
            records: Vec::new(),
        };
        let outcome = train(&settings, &train_set.table, &eval_set.table, &mut learner, progress, &mut recorder)?;
        let records = recorder.records;
        if outcome == Outcome::Finished {
            learner.model().save(&folder.model(), config.model.as_deref())?;
        }
        Ok(Finished { outcome, records, model: learner.into_model(), folder })
    }
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// Whether all updates were done.
    pub outcome: Outcome,
    /// Every line of `metrics.jsonl` that this process wrote.
    pub records: Vec<Record>,
    /// The policy as trained.
    pub model: CausalLm,
    /// Where everything was written.
    pub folder: RunFolder,
}

/// Writes what happens into the run folder and passes it on.
struct Recorder<'a> {
    folder: &'a RunFolder,
    metrics: MetricsFile,
    watcher: &'a mut dyn Watcher,
    steps: u64,
    keep: usize,
    records: Vec<Record>,
}

impl Observer<DpoLearner<'_>> for Recorder<'_> {
    fn step(&mut self, record: &Record) -> Result<()> {
        self.metrics.append(record)?;
        self.records.push(record.clone());
        self.watcher.step(record, self.steps);
        Ok(())
    }

    fn evaluated(&mut self, record: &Record) -> Result<()> {
        self.metrics.append(record)?;
        self.records.push(record.clone());
        self.watcher.evaluated(record);
        Ok(())
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        self.watcher.stage(Stage::Evaluation, done, total);
    }

    fn checkpoint(&mut self, learner: &DpoLearner<'_>, progress: &Progress) -> Result<()> {
        self.folder.save_checkpoint(learner, progress, self.keep).map(drop)
    }

    fn interrupted(&self) -> bool {
        self.watcher.interrupted()
    }
}

fn preference_loss(config: &TrainConfig) -> Result<PreferenceLoss> {
    let kind: LossKind = config.loss.parse()?;
    // Refused here rather than at the first step: files of pairs do not say how likely their labels are.
    if kind.formula().needs.contains(&Need::LabelProbs) {
        let expected = "a loss that needs no label probabilities";
        return Err(Error::Setting { key: "loss", found: config.loss.clone(), expected });
    }
    let mut constants = config.loss_constants.clone();
    if config.label_smoothing != 0.0 {
        constants.insert("label_smoothing".to_owned(), config.label_smoothing);
    }
    let loss =
        PreferenceLoss::with_constants(kind, config.beta, &constants)?.with_divergence(config.f_divergence_type)?;
    Ok(config.wpo.map_or(Ok(loss), |wpo| loss.with_wpo(wpo))?)
}

fn required<'a>(key: &'static str, path: Option<&'a Path>) -> Result<&'a Path> {
    path.ok_or(Error::Setting { key, found: "not set".to_owned(), expected: "a path" })
}

fn refusals(report: &ReadReport) -> String {
    let reasons: Vec<String> =
        report.refused.iter().map(|(problem, rows)| format!("{} {}", rows.count, problem.name())).collect();
    format!(
        "{} rows read; {}",
        report.rows,
        if reasons.is_empty() { "none refused".to_owned() } else { reasons.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_files_cannot_feed_is_refused_before_anything_is_read() {
        let config = |loss: &str| TrainConfig { loss: loss.to_owned(), ..TrainConfig::default() };
        assert!(preference_loss(&config("sigmoid")).is_ok());
        let error = preference_loss(&config("soft_label")).unwrap_err().to_string();
        assert_eq!(error, "`loss` is soft_label, expected a loss that needs no label probabilities");
    }

    #[test]
    fn constants_of_a_loss_come_by_name() {
        let text = "loss = \"simpo\"\nbeta = 2.0\n[loss_constants]\nsimpo_gamma = 1.2\n";
        let mut config = TrainConfig::from_toml(text, Path::new("run.toml")).unwrap();
        assert_eq!(preference_loss(&config).unwrap().constant("simpo_gamma"), Some(1.2));
        config.loss_constants.insert("tau".to_owned(), 1.0);
        let error = preference_loss(&config).unwrap_err().to_string();
        assert_eq!(error, "`tau` is 1, expected nothing: `simpo` knows simpo_gamma, label_smoothing");
        let text = "loss = \"ipo_sum\"\nf_divergence_type = { alpha_divergence = 0.5 }\nwpo = \"capped\"\n";
        let config = TrainConfig::from_toml(text, Path::new("run.toml")).unwrap();
        assert!(simplemix_loss::Objective::wpo(&preference_loss(&config).unwrap()).is_some());
        assert_eq!(TrainConfig::from_toml(&config.to_toml().unwrap(), Path::new("run.toml")).unwrap(), config);
    }
}
