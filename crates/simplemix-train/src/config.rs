//! Settings of a run as they are written in TOML, and as the loop takes them once checked.
//!
//! Defaults are TRL 1.16's where it has the setting, except one epoch in place of three: SIMPLEMIX trains one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_loss::{Divergence, Wpo};

use crate::adamw::AdamWOptions;
use crate::error::{Error, Result};
use crate::order::Order;
use crate::schedule::Schedule;
use crate::trainer::LoopSettings;

/// A run as it is written in `run.toml`; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Model folder: the policy before training, and the frozen reference.
    pub model: Option<PathBuf>,
    /// Pairs to train on: parquet, Arrow IPC, JSONL or JSON.
    pub train: Option<PathBuf>,
    /// Held-back pairs that are scored during and after training; before it all their margins are 0.
    pub eval: Option<PathBuf>,
    /// Run folder to make.
    pub output: Option<PathBuf>,

    /// Name of the loss, as in TRL: `sigmoid` is DPO.
    pub loss: String,
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// Probability that a label is flipped, in [0, 0.5), for the losses that know it.
    pub label_smoothing: f64,
    /// Further constants of the loss, by name: `simpo_gamma`, `len_penalty`, ...
    pub loss_constants: BTreeMap<String, f64>,
    /// f-divergence to the reference, for losses of differences: `reverse_kl`, `forward_kl`, `js_divergence`, or
    /// `{ alpha_divergence = 0.5 }`.
    pub f_divergence_type: Divergence,
    /// Weights of pairs by how likely the policy is to write them: `capped` or `uncapped`; none without.
    pub wpo: Option<Wpo>,

    /// Peak learning rate.
    pub learning_rate: f64,
    /// Shape of the learning rate after warm-up: `linear`, `cosine` or `constant`.
    pub schedule: Schedule,
    /// Share of the updates over which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// Pairs of an update.
    pub batch_size: usize,
    /// Passes over the training pairs.
    pub epochs: f64,
    /// Updates; overrides `epochs`.
    pub max_steps: Option<u64>,
    /// Global gradient norm above which gradients are scaled down; 0 for none.
    pub max_grad_norm: f64,
    /// Constants of the optimiser.
    pub adamw: AdamWOptions,

    /// Tokens of prompt and response together; longer pairs are cut at their end.
    pub max_length: usize,
    /// Tokens of a forward pass, a pair's prompt counted once. Memory grows with it, results do not change.
    pub micro_batch_tokens: usize,
    /// Bytes of logits held at a time. Results do not change.
    pub logits_bytes: usize,
    /// Whether activations are computed again in the backward pass: a fraction of the memory, a third more time, the
    /// same results.
    pub activation_checkpointing: bool,

    /// Order of the pairs: `none` takes them as they stand, `seed` shuffles each epoch.
    pub shuffle: Shuffle,
    /// Everything random follows from it.
    pub seed: u64,

    /// Updates between evaluations; 0 for after training only.
    pub eval_every_steps: u64,
    /// Updates between checkpoints; 0 for none.
    pub save_every_steps: u64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
}

/// How pairs are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// As they stand in the file: a mixture was written in its order, which holds the shares in every batch.
    #[default]
    None,
    /// Anew each epoch, under `seed`.
    Seed,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            model: None,
            train: None,
            eval: None,
            output: None,
            loss: "sigmoid".to_owned(),
            beta: 0.1,
            label_smoothing: 0.0,
            loss_constants: BTreeMap::new(),
            f_divergence_type: Divergence::default(),
            wpo: None,
            learning_rate: 1e-6,
            schedule: Schedule::Linear,
            warmup_ratio: 0.0,
            batch_size: 8,
            epochs: 1.0,
            max_steps: None,
            max_grad_norm: 1.0,
            adamw: AdamWOptions::default(),
            max_length: 1024,
            micro_batch_tokens: 1024,
            logits_bytes: 256 << 20,
            activation_checkpointing: false,
            shuffle: Shuffle::None,
            seed: 42,
            eval_every_steps: 0,
            save_every_steps: 0,
            keep_checkpoints: 2,
        }
    }
}

impl TrainConfig {
    /// Reads TOML; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Config`] naming line and key.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text)
            .map_err(|e| Error::Config { path: path.to_owned(), message: e.to_string().trim_end().to_owned() })
    }

    /// The settings as TOML, every key written out.
    ///
    /// # Errors
    /// [`Error::Config`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config { path: PathBuf::from("config.toml"), message: e.to_string() })
    }

    /// What the loop needs, for a training set of `pairs` pairs.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn loop_settings(&self, pairs: usize) -> Result<LoopSettings> {
        self.check()?;
        let whole = (self.epochs * pairs as f64 / self.batch_size as f64).floor().max(1.0) as u64;
        let steps = self.max_steps.unwrap_or(whole);
        Ok(LoopSettings {
            steps,
            batch_size: self.batch_size,
            micro_batch_tokens: self.micro_batch_tokens,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: (self.warmup_ratio * steps as f64).ceil() as u64,
            max_grad_norm: if self.max_grad_norm == 0.0 { f64::INFINITY } else { self.max_grad_norm },
            eval_every_steps: self.eval_every_steps,
            save_every_steps: self.save_every_steps,
            order: match self.shuffle {
                Shuffle::None => Order::File,
                Shuffle::Seed => Order::Shuffled(self.seed),
            },
        })
    }

    /// Checks every number that no data is needed for.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn check(&self) -> Result<()> {
        const POSITIVE: &str = "a number above 0";
        const SHARE: &str = "a number from 0 to 1";
        let share = |x: f64| (0.0..=1.0).contains(&x);
        for (key, value, fits, expected) in [
            ("beta", self.beta, self.beta > 0.0, POSITIVE),
            (
                "label_smoothing",
                self.label_smoothing,
                (0.0..0.5).contains(&self.label_smoothing),
                "from 0 to below 0.5",
            ),
            ("learning_rate", self.learning_rate, self.learning_rate > 0.0, POSITIVE),
            ("warmup_ratio", self.warmup_ratio, share(self.warmup_ratio), SHARE),
            ("epochs", self.epochs, self.epochs > 0.0, POSITIVE),
            ("max_grad_norm", self.max_grad_norm, self.max_grad_norm >= 0.0, "a number from 0, where 0 is no limit"),
        ] {
            if !(fits && value.is_finite()) {
                return Err(Error::Setting { key, found: value.to_string(), expected });
            }
        }
        for (key, value) in [
            ("batch_size", self.batch_size as u64),
            ("max_steps", self.max_steps.unwrap_or(1)),
            ("micro_batch_tokens", self.micro_batch_tokens as u64),
            ("logits_bytes", self.logits_bytes as u64),
            ("keep_checkpoints", self.keep_checkpoints as u64),
        ] {
            if value == 0 {
                return Err(Error::Setting { key, found: "0".to_owned(), expected: "at least 1" });
            }
        }
        if self.max_length < 2 {
            let found = self.max_length.to_string();
            return Err(Error::Setting { key: "max_length", found, expected: "at least 2" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrainConfig> {
        TrainConfig::from_toml(text, Path::new("run.toml"))
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = read("beta = 0.2\nlearning_rat = 1e-6\n").unwrap_err().to_string();
        assert!(text.starts_with("run.toml: ") && text.contains("learning_rat"), "{text}");
    }

    #[test]
    fn what_is_written_out_reads_back() {
        let config = read("beta = 0.05\nschedule = \"cosine\"\n[adamw]\nweight_decay = 0.1\n").unwrap();
        assert_eq!(config.schedule, Schedule::Cosine);
        assert_eq!(read(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let config = TrainConfig { beta: -1.0, ..TrainConfig::default() };
        let error = config.loop_settings(10).unwrap_err();
        assert_eq!(error.to_string(), "`beta` is -1, expected a number above 0");
        let config = TrainConfig { batch_size: 0, ..TrainConfig::default() };
        assert_eq!(config.check().unwrap_err().to_string(), "`batch_size` is 0, expected at least 1");
    }

    #[test]
    fn updates_follow_from_epochs_unless_given() {
        let config = TrainConfig { epochs: 2.0, batch_size: 8, warmup_ratio: 0.1, ..TrainConfig::default() };
        let settings = config.loop_settings(100).unwrap();
        assert_eq!((settings.steps, settings.warmup_steps), (25, 3));
        assert_eq!(TrainConfig { max_steps: Some(7), ..config }.loop_settings(100).unwrap().steps, 7);
    }
}
