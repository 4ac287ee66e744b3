//! Settings of a run, in sections, as they are written in TOML.
//!
//! Defaults are TRL 1.16's where it has the setting, except one epoch in place of three: SIMPLEMIX trains one.

mod data;
mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_loss::{LossKind, LossSettings, Need};
use simplemix_mix::Weight;
use simplemix_model::hub::CAN_PUSH;
use simplemix_model::{DeviceChoice, Dtype, LoraSettings, QuantizationSettings};
use simplemix_settings::{Setting, Settings, choice, place, section};

pub use self::data::{DataSet, DataSettings, Shares};
pub use self::sections::{
    BatchSettings, CheckpointSettings, EvalFiles, EvalSettings, LogSettings, MemorySettings, NonFinitePolicy,
    ParallelSettings, PushSettings, Shard, Shuffle, TemplateRefusal, TokenSettings, TokenizerReading,
};
use crate::adamw::OptimizerSettings;
use crate::budget::CPU_TOKENS;
use crate::error::{Error, Result};
use crate::hypo::HypoSettings;
use crate::loop_settings::{BestRule, LoopSettings, OnNonFinite};
use crate::order::Order;
use crate::reference::{ReferenceSettings, ReferenceSource};
use crate::schedule::Schedule;

section! {
    /// Model, data and length of the run.
    pub struct TrainConfig("") {
        /// Training objective: prefer the chosen responses, imitate them, or train a reward model to score them higher.
        objective: Objective = Objective::Preference;
        /// Model folder, or its id on the hub: the policy to train and, unless another is named, the frozen reference.
        model: Option<PathBuf> = None;
        /// Pairs to train on: a file (Parquet, Arrow IPC, JSON lines, JSON), a folder of shards, a pattern or a URL; a data set of the hub
        /// as `hf://datasets/OWNER/NAME@REVISION?config=CONFIG&split=SPLIT`.
        train: Option<PathBuf> = None;
        /// Sources to draw pairs from instead of one file; every batch holds their shares.
        mix: Vec<MixSource> = Vec::new();
        /// Run folder to create.
        output: Option<PathBuf> = None;
        /// Passes over the training pairs.
        epochs: f64 = 1.0, in above(0.0), unit "epochs";
        /// Number of updates; overrides the number of epochs.
        max_steps: Option<u64> = None, in at_least(1.0), unit "updates";
        /// Random seed.
        seed: u64 = 42, from "TRL";
        /// Element type of the weights; `auto` is bfloat16 with float32 copies on a GPU, and float32 on a CPU.
        dtype: Dtype = Dtype::Auto;
        /// Device to train on; `auto` is the first GPU, else the CPU. A GPU that libtorch cannot use is refused unless this is `cpu`.
        device: DeviceChoice = DeviceChoice::Auto;
    }
    sections {
        /// Joined sets.
        data: DataSettings;
        /// Preference loss.
        loss: LossSettings;
        /// Frozen reference.
        reference: ReferenceSettings;
        /// Low-rank adapter.
        lora: LoraSettings;
        /// Quantised weights.
        quantization: QuantizationSettings;
        /// HyPO.
        hypo: HypoSettings;
        /// Optimiser and learning rate.
        optimizer: OptimizerSettings;
        /// Batches.
        batch: BatchSettings;
        /// Tokenisation.
        tokens: TokenSettings;
        /// Memory and speed.
        memory: MemorySettings;
        /// Several processes.
        parallel: ParallelSettings;
        /// Evaluation.
        eval: EvalSettings;
        /// Checkpoints.
        checkpoint: CheckpointSettings;
        /// Metrics.
        log: LogSettings;
        /// The hub.
        push: PushSettings;
    }
}

choice! {
    /// Training objective.
    pub enum Objective {
        /// Prefer the chosen responses, by the loss of `[loss]`.
        Preference = "preference";
        /// Imitate the chosen responses.
        Sft = "sft";
        /// Score the chosen responses higher: a reward model.
        Reward = "reward";
    }
}

/// A source to draw pairs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSource {
    /// Name in the metrics.
    pub name: String,
    /// File of pairs, folder of shards, pattern or URL.
    pub path: PathBuf,
    /// Share of every batch, relative to the weights of the other sources.
    pub weight: Weight,
}

impl Setting for MixSource {
    fn kind() -> String {
        "a table with `name`, `path` and `weight`".to_owned()
    }

    fn kinds() -> String {
        "tables with `name`, `path` and `weight`".to_owned()
    }
}

impl TrainConfig {
    /// Reads TOML; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Config`] for a text that is not TOML, [`Error::SettingIn`] for a setting that cannot be used.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let table = text.parse().map_err(|error: toml::de::Error| {
            let message = error.to_string().trim_end().to_owned();
            Error::Config { path: path.to_owned(), message }
        })?;
        Self::from_table(table)
            .map_err(|error| Error::SettingIn { place: place(path, text, &error), source: error.into() })
    }

    /// The settings as TOML, every key written out that has a value.
    ///
    /// # Errors
    /// [`Error::Config`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config { path: PathBuf::from("config.toml"), message: e.to_string() })
    }

    /// HyPO's settings, if it is on.
    pub(crate) fn hypo(&self) -> Option<HypoSettings> {
        (self.hypo.lambda != 0.0).then_some(self.hypo)
    }

    /// Settings of the loop for a training set of `pairs` pairs; `mixture` is the order of several sources. Tokens of a pass that
    /// are left to the device are a CPU's.
    pub(crate) fn loop_settings(&self, pairs: usize, mixture: Option<Order>) -> LoopSettings {
        let order = mixture.unwrap_or(match self.batch.shuffle {
            Shuffle::None => Order::File,
            Shuffle::Seed => Order::Shuffled(self.seed),
            Shuffle::Trl => Order::Trl(self.seed),
        });
        let steps = self.max_steps.unwrap_or_else(|| self.updates(&order, pairs as u64));
        let (optimizer, batch) = (&self.optimizer, &self.batch);
        LoopSettings {
            steps,
            batch_size: batch.batch_size,
            micro_batch_tokens: batch.micro_batch_tokens.or(CPU_TOKENS),
            learning_rate: optimizer.learning_rate,
            schedule: optimizer.schedule,
            warmup_steps: optimizer.warmup_steps.unwrap_or(share_of(steps, optimizer.warmup_ratio)),
            min_rate_ratio: optimizer.min_rate_ratio,
            decay_steps: optimizer.decay_steps.unwrap_or(share_of(steps, optimizer.decay_ratio)),
            decay: optimizer.decay,
            max_grad_norm: if optimizer.max_grad_norm == 0.0 { f64::INFINITY } else { optimizer.max_grad_norm },
            eval_every_steps: self.eval.eval_every_steps.max(share_of(steps, self.eval.eval_every_ratio)),
            eval_every_epoch: self.eval.eval_every_epoch,
            eval_at_end: self.eval.eval_at_end,
            save_every_steps: self.checkpoint.save_every_steps.max(share_of(steps, self.checkpoint.save_every_ratio)),
            save_every_epoch: self.checkpoint.save_every_epoch,
            order,
            on_nonfinite: match batch.on_nonfinite {
                NonFinitePolicy::Stop => OnNonFinite::Stop,
                NonFinitePolicy::Skip => OnNonFinite::Skip { most: batch.max_skipped },
            },
            best: self.eval.best_metric.clone().map(|metric| BestRule {
                higher: !metric.ends_with("loss"),
                metric,
                patience: self.eval.early_stopping_patience,
            }),
        }
    }

    /// Updates in all epochs, counted as transformers does: the last batch of an epoch is one too.
    fn updates(&self, order: &Order, pairs: u64) -> u64 {
        (self.epochs * order.updates(self.batch.batch_size, pairs) as f64).ceil() as u64
    }

    /// Checks all settings, alone and together, as far as that takes no data.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range or in conflict with another one.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        let (reference, hypo, eval, log) = (&self.reference, &self.hypo, &self.eval, &self.log);
        self.quantization.check()?;
        let adapts = self.lora.is_on();
        let moves = reference.sync_every > 0;
        let optimizer = &self.optimizer;
        let decays = optimizer.decay_steps.is_some() || optimizer.decay_ratio > 0.0;
        let decay_key = if optimizer.decay_ratio > 0.0 { "optimizer.decay_ratio" } else { "optimizer.decay_steps" };
        let ends_in_decay = optimizer.schedule == Schedule::WarmupStableDecay;
        let conflicts = [
            (
                optimizer.warmup_steps.is_some() && optimizer.warmup_ratio > 0.0,
                ("optimizer.warmup_steps", "set together with `optimizer.warmup_ratio`", "one of the two"),
            ),
            (
                optimizer.decay_steps.is_some() && optimizer.decay_ratio > 0.0,
                ("optimizer.decay_steps", "set together with `optimizer.decay_ratio`", "one of the two"),
            ),
            (
                ends_in_decay && !decays,
                (
                    "optimizer.schedule",
                    "warmup-stable-decay",
                    "`optimizer.decay_ratio` or `optimizer.decay_steps` with it",
                ),
            ),
            (decays && !ends_in_decay, (decay_key, "set", "`optimizer.schedule = \"warmup-stable-decay\"`")),
            (
                optimizer.min_rate_ratio > 0.0
                    && matches!(optimizer.schedule, Schedule::Constant | Schedule::InverseSqrt),
                ("optimizer.min_rate_ratio", "set", "a schedule that ends: linear, cosine or warmup-stable-decay"),
            ),
            (
                eval.eval_every_steps > 0 && eval.eval_every_ratio > 0.0,
                ("eval.eval_every_ratio", "set together with `eval.eval_every_steps`", "one of the two"),
            ),
            (
                self.checkpoint.save_every_steps > 0 && self.checkpoint.save_every_ratio > 0.0,
                ("checkpoint.save_every_ratio", "set together with `checkpoint.save_every_steps`", "one of the two"),
            ),
            (
                self.lora.rank > 0 && self.lora.adapter.is_some(),
                ("lora.rank", "set together with `lora.adapter`", "one of the two: an adapter has a rank"),
            ),
            (
                self.quantization.is_on() && !adapts,
                (
                    "quantization.load_in",
                    "set without `lora.rank`",
                    "an adapter to train: quantised weights are frozen",
                ),
            ),
            (
                self.quantization.is_on() && self.parallel.shard == Shard::All,
                (
                    "parallel.shard",
                    "`all` together with `quantization.load_in`",
                    "`none` or `optimizer`: each process has the quantised weights",
                ),
            ),
            (
                self.lora.target_pattern.is_some() && !self.lora.targets.is_empty(),
                ("lora.target_pattern", "set together with `lora.targets`", "one of the two"),
            ),
            (
                !self.lora.layers.is_empty() && self.lora.targets.is_empty(),
                ("lora.layers", "set without `lora.targets`", "names of the layers to adapt with it, as in peft"),
            ),
            (
                moves && (reference.source != ReferenceSource::OnTheFly || adapts),
                ("reference.sync_every", "set", "`reference.source = \"on-the-fly\"` and no adapter"),
            ),
            (self.push.to.is_some() && !CAN_PUSH, ("push.to", "set", "a build that can push: `--features push`")),
            (
                self.push.adapter && self.push.to.is_none(),
                ("push.adapter", "set without `push.to`", "a repository to push it to"),
            ),
            (self.push.adapter && !adapts, ("push.adapter", "set without `lora.rank`", "an adapter to train with it")),
            (
                moves && self.learns_from_reference_rewards(),
                ("reference.sync_every", "set", "a reference that stays: `ref_rewards` are those of its samples"),
            ),
            (
                eval.early_stopping_patience.is_some() && eval.best_metric.is_none(),
                ("eval.early_stopping_patience", "set", "`eval.best_metric` to be set too"),
            ),
            (
                !self.mix.is_empty() && (self.train.is_some() || self.batch.shuffle != Shuffle::None),
                ("mix", "set together with `train` or `batch.shuffle`", "sources alone: they have an order"),
            ),
            (
                !self.data.sets.is_empty() && (self.train.is_some() || !self.mix.is_empty()),
                ("data.sets", "set together with `train` or `mix`", "one of the three"),
            ),
            (
                hypo.lambda != 0.0 && self.objective != Objective::Preference,
                ("hypo.lambda", "set", "`objective = \"preference\"`"),
            ),
            (
                log.token_metrics_every > 1 && !log.token_metrics,
                ("log.token_metrics_every", "above 1", "`log.token_metrics = true`"),
            ),
            (
                log.token_metrics_every > 1 && self.objective == Objective::Reward,
                ("log.token_metrics_every", "above 1", "an objective that predicts tokens: `preference` or `sft`"),
            ),
        ];
        if let Some(key) = self.lora.unused() {
            let (found, expected) = match self.lora.adapter {
                Some(_) => ("set together with `lora.adapter`", "no such key: the adapter's folder has its own"),
                None => ("set without `lora.rank`", "a rank above 0 with it"),
            };
            return Err(Error::setting(key, found, expected));
        }
        if let Some((_, (key, found, expected))) = conflicts.into_iter().find(|(conflict, _)| *conflict) {
            return Err(Error::setting(key, found, expected));
        }
        if let Some((key, found, expected)) = self.data.problem() {
            return Err(Error::setting(key, found, expected));
        }
        if hypo.lambda != 0.0 && hypo.prompts > self.batch.batch_size {
            let expected = format!("at most `batch.batch_size`, {}", self.batch.batch_size);
            return Err(Error::setting("hypo.prompts", hypo.prompts, expected));
        }
        Ok(())
    }

    /// Whether the pairs need the column `ref_rewards`, the scores of the reference's samples, as with the loss `qrpo`.
    pub fn learns_from_reference_rewards(&self) -> bool {
        let needs =
            |name: &String| name.parse::<LossKind>().is_ok_and(|kind| kind.formula().needs.contains(&Need::Quantiles));
        self.objective == Objective::Preference && self.loss.name.as_slice().iter().any(needs)
    }
}

/// Updates that a share of all is, rounded up.
fn share_of(steps: u64, ratio: f64) -> u64 {
    (steps as f64 * ratio).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrainConfig> {
        TrainConfig::from_toml(text, Path::new("run.toml"))
    }

    fn refused(text: &str) -> String {
        read(text).and_then(|config| config.check()).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named() {
        let expected =
            "run.toml:2: unknown key `optimizer.learning_rat`; did you mean `optimizer.learning_rate`?".to_owned();
        assert_eq!(refused("[optimizer]\nlearning_rat = 1e-6\n"), expected);
        let text = refused("loss.beta = 0.2\nloss.beta = 0.1\n");
        assert!(text.starts_with("run.toml: TOML parse error at line 2"), "{text}");
    }

    #[test]
    fn what_is_written_out_reads_back() {
        let text = "loss.beta = 0.05\n[optimizer]\nschedule = \"cosine\"\nweight_decay = 0.1\n";
        let config = read(text).unwrap();
        assert_eq!(config.optimizer.schedule, Schedule::Cosine);
        assert_eq!(read(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn old_spellings_are_read_and_old_keys_are_named() {
        let config = read("[reference]\nsource = \"on_the_fly\"\n").unwrap();
        assert_eq!(config.reference.source, ReferenceSource::OnTheFly);
        assert!(config.to_toml().unwrap().contains("source = \"on-the-fly\""));
        assert_eq!(refused("lora_rank = 4"), "run.toml: `lora_rank` is now `lora.rank`");
        let flat = "loss = \"ipo\"\nbeta = 1\nreference = \"computed\"\neval = \"held.jsonl\"\n[adamw]\nbeta1 = 0.8\n";
        let expected = "run.toml: `adamw.beta1` is now `optimizer.beta1`, `beta` is now `loss.beta`, `eval` is now \
                        `eval.files`, `loss` is now `loss.name`, `reference` is now `reference.source`";
        assert_eq!(refused(flat), expected);
    }

    /// Every key of the flat form of version 0.1 has a place.
    #[test]
    fn every_flat_key_has_a_place() {
        let keys = "label_smoothing loss_constants f_divergence_type reward_margin_scale wpo ld_alpha center_rewards \
                    reference_model reference_cache sync_reference_every sync_reference_mixup hypo_lambda hypo_samples \
                    hypo_prompts hypo_max_new_tokens hypo_clip lora_alpha lora_dropout lora_targets lora_rslora adapter \
                    freeze learning_rate schedule warmup_ratio batch_size max_grad_norm parameter_groups on_nonfinite \
                    max_skipped max_length cache_tokens token_cache micro_batch_tokens logits_bytes \
                    activation_checkpointing share_prompts token_metrics shuffle eval_every_steps save_every_steps \
                    keep_checkpoints best_metric early_stopping_patience tensorboard";
        for key in keys.split_whitespace() {
            assert!(refused(&format!("{key} = 1")).contains(&format!("`{key}` is now `")), "{key}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (text, expected) in [
            ("loss.beta = -1", "run.toml:1: `loss.beta` is -1, expected a number above 0"),
            ("batch.batch_size = 0", "run.toml:1: `batch.batch_size` is 0, expected a whole number >= 1"),
            ("tokens.max_length = 1", "run.toml:1: `tokens.max_length` is 1, expected a whole number >= 2"),
            ("hypo = { lambda = 1, prompts = 9 }", "`hypo.prompts` is 9, expected at most `batch.batch_size`, 8"),
            ("epochs = 0", "run.toml:1: `epochs` is 0, expected a number above 0"),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn settings_in_conflict_are_named() {
        for (text, expected) in [
            (
                "lora = { rank = 4, adapter = \"a\" }",
                "`lora.rank` is set together with `lora.adapter`, expected one of",
            ),
            (
                "lora = { rank = 4, targets = ['a'], target_pattern = 'b' }",
                "`lora.target_pattern` is set together with",
            ),
            ("lora = { rank = 4, layers = [1] }", "`lora.layers` is set without `lora.targets`, expected names"),
            ("lora.dora = true", "`lora.dora` is set without `lora.rank`, expected a rank above 0 with it"),
            (
                "lora = { adapter = 'a', bias = 'all' }",
                "`lora.bias` is set together with `lora.adapter`, expected no such",
            ),
            ("reference.sync_every = 1", "`reference.sync_every` is set, expected `reference.source = \"on-the-fly\"`"),
            (
                "loss.name = 'qrpo'\nreference = { sync_every = 1, source = 'on-the-fly' }",
                "`reference.sync_every` is set, expected a reference that stays",
            ),
            ("eval.early_stopping_patience = 1", "`eval.early_stopping_patience` is set, expected `eval.best_metric`"),
            ("train = \"a\"\n[[mix]]\nname = \"a\"\npath = \"a\"\nweight = 1", "`mix` is set together with `train` or"),
            ("objective = \"sft\"\nhypo.lambda = 1", "`hypo.lambda` is set, expected `objective = \"preference\"`"),
            (
                "[log]\ntoken_metrics = false\ntoken_metrics_every = 2",
                "`log.token_metrics_every` is above 1, expected `log.token_metrics = true`",
            ),
            (
                "objective = \"reward\"\nlog.token_metrics_every = 2",
                "`log.token_metrics_every` is above 1, expected an objective that predicts tokens",
            ),
        ] {
            assert!(refused(text).starts_with(expected), "{}", refused(text));
        }
    }

    #[test]
    fn updates_follow_from_epochs_unless_given() {
        let mut config = read("epochs = 2\n[optimizer]\nwarmup_ratio = 0.1\n").unwrap();
        let settings = config.loop_settings(100, None);
        assert_eq!((settings.steps, settings.warmup_steps), (26, 3));
        config.max_steps = Some(7);
        assert_eq!(config.loop_settings(100, None).steps, 7);
    }
}
