//! Settings of a run as they are written in TOML, and as the loop takes them once checked.
//!
//! Defaults are TRL 1.16's where it has the setting, except one epoch in place of three: SIMPLEMIX trains one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_loss::{Divergence, Wpo};
use simplemix_mix::Weight;

use crate::adamw::{AdamWOptions, ParameterGroup};
use crate::error::{Error, Result};
use crate::hypo::HypoSettings;
use crate::loop_settings::{BestRule, LoopSettings, OnNonFinite};
use crate::nearest::nearest;
use crate::order::Order;
use crate::schedule::Schedule;

/// A run as it is written in `run.toml`; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// What is learnt: `preference`, `sft` (the chosen responses) or `reward` (a reward model).
    pub objective: Objective,
    /// Model folder: the policy before training, and the frozen reference.
    pub model: Option<PathBuf>,
    /// Pairs to train on: parquet, Arrow IPC, JSONL or JSON.
    pub train: Option<PathBuf>,
    /// Sources to draw pairs from in place of `train`, every batch in their shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<MixSource>,
    /// Held-back pairs that are scored during and after training: a file, or several by name. Before training all their
    /// margins are 0.
    pub eval: Option<EvalFiles>,
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
    /// Factor of a pair's score difference in the label of `soft_label`: the chosen response is the better one with
    /// probability `sigmoid(reward_margin_scale * (score_chosen - score_rejected))`.
    pub reward_margin_scale: f64,
    /// Weights of pairs by how likely the policy is to write them: `capped` or `uncapped`; none without.
    pub wpo: Option<Wpo>,

    /// LD-DPO's weight, in [0, 1], of what a response has more of than the other one (arXiv:2409.06411).
    pub ld_alpha: Option<f64>,
    /// Pull of a reward model's scores towards zero; TRL's `center_rewards_coefficient`.
    pub center_rewards: f64,

    /// Where the reference's log-probabilities come from: `cached` on disk, `computed` at the start, or `on_the_fly` for
    /// every batch, which takes a second model in memory unless an adapter is trained.
    pub reference: ReferenceSource,
    /// A reference other than the model before training.
    pub reference_model: Option<PathBuf>,
    /// Folder of the cached log-probabilities; simplemix's cache folder without.
    pub reference_cache: Option<PathBuf>,
    /// Updates after which the reference moves towards the policy (TR-DPO, arXiv:2404.09656); 0 for never.
    pub sync_reference_every: u64,
    /// The policy's share in it.
    pub sync_reference_mixup: f64,

    /// HyPO: weight of the KL divergence to the reference, estimated from answers that the policy writes in every update
    /// (arXiv:2406.01462); 0 for none. 1e-4 to 1e-2 are usual.
    pub hypo_lambda: f64,
    /// Answers to each prompt.
    pub hypo_samples: usize,
    /// Prompts that are answered in an update, those of its first pairs; 0 for those of all.
    pub hypo_prompts: usize,
    /// Tokens after which an answer is cut.
    pub hypo_max_new_tokens: usize,
    /// Bound of an answer's log-ratio in the gradient, nats; none in the paper.
    pub hypo_clip: Option<f64>,

    /// Rank of a LoRA adapter that is trained in place of all weights; 0 for none.
    pub lora_rank: i64,
    /// Its scale is this over the rank.
    pub lora_alpha: f64,
    /// Share of its inputs dropped in training.
    pub lora_dropout: f64,
    /// Names of the linear layers it changes, as `q_proj`; none for all of them.
    pub lora_targets: Vec<String>,
    /// Whether its scale is `lora_alpha` over the root of the rank (arXiv:2312.03732).
    pub lora_rslora: bool,
    /// Folder of a peft adapter to go on training. With it the model is the reference.
    pub adapter: Option<PathBuf>,
    /// Patterns of parameters that stay as they are: `model.embed_tokens.*`, `model.layers.[0-9].*`.
    pub freeze: Vec<String>,
    /// Element type of the weights: `auto` is bf16 with f32 copies on a GPU, f32 on a CPU.
    pub dtype: Dtype,

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
    /// Parameters with a weight decay or learning rate of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameter_groups: Vec<ParameterGroup>,
    /// What becomes of a batch whose loss or gradient is not a number: `stop`, or `skip` it.
    pub on_nonfinite: NonFinitePolicy,
    /// Batches that may be skipped.
    pub max_skipped: u64,

    /// Tokens of prompt and response together; longer pairs are cut at their end.
    pub max_length: usize,
    /// Whether token ids are kept on disk, so that another run on the same pairs starts at once.
    pub cache_tokens: bool,
    /// Folder of the kept token ids; simplemix's cache folder without.
    pub token_cache: Option<PathBuf>,
    /// Tokens of a forward pass, a pair's prompt counted once. Memory grows with it, results do not change.
    pub micro_batch_tokens: usize,
    /// Bytes of logits held at a time. Results do not change.
    pub logits_bytes: usize,
    /// Whether activations are computed again in the backward pass: a fraction of the memory, a third more time, the
    /// same results.
    pub activation_checkpointing: bool,

    /// Whether the prompt of a pair goes through the network once for both responses. Results do not change.
    pub share_prompts: bool,
    /// Whether entropy, accuracy and mean logit of the tokens are measured.
    pub token_metrics: bool,

    /// Order of the pairs: `none` takes them as they stand, `seed` shuffles each epoch, `trl` as TRL does under `seed`.
    pub shuffle: Shuffle,
    /// Everything random follows from it.
    pub seed: u64,

    /// Updates between evaluations; 0 for after training only.
    pub eval_every_steps: u64,
    /// Updates between checkpoints; 0 for none.
    pub save_every_steps: u64,
    /// Checkpoints kept, beside the best one.
    pub keep_checkpoints: usize,
    /// Metric of the evaluations by which the best checkpoint is kept and becomes the result: `eval_loss`,
    /// `eval_rewards/accuracies`. Losses are better when lower, others when higher.
    pub best_metric: Option<String>,
    /// Evaluations without a better one after which the run stops.
    pub early_stopping_patience: Option<u64>,
    /// Whether metrics are written for TensorBoard too.
    pub tensorboard: bool,
}

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// To prefer the chosen responses, by the loss that `loss` names.
    #[default]
    Preference,
    /// To write the chosen responses.
    Sft,
    /// To score the chosen responses higher: a reward model.
    Reward,
}

/// Where the reference's log-probabilities come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceSource {
    /// A file of the cache, made where there is none.
    #[default]
    Cached,
    /// They are computed at the start.
    Computed,
    /// They are computed for every batch.
    OnTheFly,
}

/// Element type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// bf16 on a GPU, f32 on a CPU.
    #[default]
    Auto,
    /// f32.
    Float32,
    /// bf16; the optimiser keeps copies in f32.
    Bfloat16,
}

/// What becomes of a batch whose loss or gradient is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinitePolicy {
    /// The run stops before the optimiser moves.
    #[default]
    Stop,
    /// It is left out.
    Skip,
}

/// Held-back files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EvalFiles {
    /// One, whose metrics begin with `eval_`.
    One(PathBuf),
    /// Several; metrics begin with `eval_NAME_`.
    Named(BTreeMap<String, PathBuf>),
}

impl EvalFiles {
    /// Names, the empty one for a single file, and files.
    pub fn all(&self) -> Vec<(String, &Path)> {
        match self {
            Self::One(path) => vec![(String::new(), path)],
            Self::Named(files) => files.iter().map(|(name, path)| (name.clone(), path.as_path())).collect(),
        }
    }
}

/// A source to draw pairs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSource {
    /// Its name in the metrics.
    pub name: String,
    /// Its pairs.
    pub path: PathBuf,
    /// Its share of every batch, relative to the others' weights.
    pub weight: Weight,
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
    /// As TRL's trainer does under `seed`, the short batch at an epoch's end included.
    Trl,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            objective: Objective::Preference,
            model: None,
            train: None,
            mix: Vec::new(),
            eval: None,
            output: None,
            loss: "sigmoid".to_owned(),
            beta: 0.1,
            label_smoothing: 0.0,
            loss_constants: BTreeMap::new(),
            f_divergence_type: Divergence::default(),
            reward_margin_scale: 1.0,
            wpo: None,
            ld_alpha: None,
            center_rewards: 0.0,
            reference: ReferenceSource::Cached,
            reference_model: None,
            reference_cache: None,
            sync_reference_every: 0,
            sync_reference_mixup: 0.6,
            hypo_lambda: 0.0,
            hypo_samples: 2,
            hypo_prompts: 0,
            hypo_max_new_tokens: 128,
            hypo_clip: None,
            lora_rank: 0,
            lora_alpha: 32.0,
            lora_dropout: 0.0,
            lora_targets: Vec::new(),
            lora_rslora: false,
            adapter: None,
            freeze: Vec::new(),
            dtype: Dtype::Auto,
            learning_rate: 1e-6,
            schedule: Schedule::Linear,
            warmup_ratio: 0.0,
            batch_size: 8,
            epochs: 1.0,
            max_steps: None,
            max_grad_norm: 1.0,
            adamw: AdamWOptions::default(),
            parameter_groups: Vec::new(),
            on_nonfinite: NonFinitePolicy::Stop,
            max_skipped: 10,
            max_length: 1024,
            cache_tokens: true,
            token_cache: None,
            micro_batch_tokens: 1024,
            logits_bytes: 256 << 20,
            activation_checkpointing: false,
            share_prompts: true,
            token_metrics: true,
            shuffle: Shuffle::None,
            seed: 42,
            eval_every_steps: 0,
            save_every_steps: 0,
            keep_checkpoints: 2,
            best_metric: None,
            early_stopping_patience: None,
            tensorboard: true,
        }
    }
}

impl TrainConfig {
    /// Reads TOML; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Config`] naming line and key.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let mut message = error.to_string().trim_end().to_owned();
            if let Some(name) = meant(error.message()) {
                message.push_str(&format!("\nDid you mean `{name}`?"));
            }
            Error::Config { path: path.to_owned(), message }
        })
    }

    /// The settings as TOML, every key written out.
    ///
    /// # Errors
    /// [`Error::Config`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config { path: PathBuf::from("config.toml"), message: e.to_string() })
    }

    /// HyPO's settings, if it is on.
    pub fn hypo(&self) -> Option<HypoSettings> {
        (self.hypo_lambda != 0.0).then_some(HypoSettings {
            lambda: self.hypo_lambda,
            samples: self.hypo_samples,
            prompts: self.hypo_prompts,
            max_new_tokens: self.hypo_max_new_tokens,
            clip: self.hypo_clip,
        })
    }

    /// What the loop needs, for a training set of `pairs` pairs; `mixture` is the order of several sources.
    pub(crate) fn loop_settings(&self, pairs: usize, mixture: Option<Order>) -> LoopSettings {
        let order = mixture.unwrap_or(match self.shuffle {
            Shuffle::None => Order::File,
            Shuffle::Seed => Order::Shuffled(self.seed),
            Shuffle::Trl => Order::Trl(self.seed),
        });
        let pairs = order.pairs(pairs as u64);
        let updates = match order {
            // transformers counts the short batch of each epoch.
            Order::Trl(_) => (self.epochs * order.updates(self.batch_size, pairs) as f64).ceil(),
            _ => (self.epochs * pairs as f64 / self.batch_size as f64).floor(),
        };
        let steps = self.max_steps.unwrap_or(updates.max(1.0) as u64);
        LoopSettings {
            steps,
            batch_size: self.batch_size,
            micro_batch_tokens: self.micro_batch_tokens,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: (self.warmup_ratio * steps as f64).ceil() as u64,
            max_grad_norm: if self.max_grad_norm == 0.0 { f64::INFINITY } else { self.max_grad_norm },
            eval_every_steps: self.eval_every_steps,
            save_every_steps: self.save_every_steps,
            order,
            on_nonfinite: match self.on_nonfinite {
                NonFinitePolicy::Stop => OnNonFinite::Stop,
                NonFinitePolicy::Skip => OnNonFinite::Skip { most: self.max_skipped },
            },
            best: self.best_metric.clone().map(|metric| BestRule {
                higher: !metric.ends_with("loss"),
                metric,
                patience: self.early_stopping_patience,
            }),
        }
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
            ("reward_margin_scale", self.reward_margin_scale, self.reward_margin_scale > 0.0, POSITIVE),
            ("learning_rate", self.learning_rate, self.learning_rate > 0.0, POSITIVE),
            ("warmup_ratio", self.warmup_ratio, share(self.warmup_ratio), SHARE),
            ("epochs", self.epochs, self.epochs > 0.0, POSITIVE),
            ("ld_alpha", self.ld_alpha.unwrap_or(1.0), share(self.ld_alpha.unwrap_or(1.0)), SHARE),
            ("center_rewards", self.center_rewards, self.center_rewards >= 0.0, "a number from 0"),
            ("sync_reference_mixup", self.sync_reference_mixup, share(self.sync_reference_mixup), SHARE),
            ("lora_alpha", self.lora_alpha, true, "a number"),
            ("lora_dropout", self.lora_dropout, (0.0..1.0).contains(&self.lora_dropout), "from 0 to below 1"),
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
        if self.lora_rank < 0 {
            return Err(Error::Setting { key: "lora_rank", found: self.lora_rank.to_string(), expected: "0 or above" });
        }
        if let Some(hypo) = self.hypo() {
            hypo.check()?;
            if hypo.prompts > self.batch_size {
                let found = hypo.prompts.to_string();
                return Err(Error::Setting { key: "hypo_prompts", found, expected: "at most `batch_size`" });
            }
        }
        let together = |key, found: &str, expected| Err(Error::Setting { key, found: found.to_owned(), expected });
        let adapts = self.lora_rank > 0 || self.adapter.is_some();
        if self.lora_rank > 0 && self.adapter.is_some() {
            return together("lora_rank", "set, with `adapter`", "one of them: an adapter has a rank");
        }
        if self.objective == Objective::Reward && adapts {
            return together("objective", "reward, with an adapter", "all weights trained");
        }
        if self.sync_reference_every > 0 && (self.reference != ReferenceSource::OnTheFly || adapts) {
            let expected = "`reference = \"on_the_fly\"` and no adapter";
            return together("sync_reference_every", "set", expected);
        }
        if self.early_stopping_patience.is_some() && self.best_metric.is_none() {
            return together("early_stopping_patience", "set", "`best_metric` with it");
        }
        if !self.mix.is_empty() && (self.train.is_some() || self.shuffle != Shuffle::None) {
            return together("mix", "set, with `train` or `shuffle`", "sources alone: they have an order");
        }
        if self.hypo_lambda != 0.0 && self.objective != Objective::Preference {
            return together("hypo_lambda", "set", "`objective = \"preference\"`");
        }
        if self.max_length < 2 {
            let found = self.max_length.to_string();
            return Err(Error::Setting { key: "max_length", found, expected: "at least 2" });
        }
        Ok(())
    }
}

/// The known key that an unknown one is nearest to, out of serde's message about it.
fn meant(message: &str) -> Option<String> {
    let (found, known) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    nearest(found, &names).map(str::to_owned)
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
        assert!(text.starts_with("run.toml: ") && text.contains("unknown field `learning_rat`"), "{text}");
        assert!(text.ends_with("Did you mean `learning_rate`?"), "{text}");
        let text = read("[adamw]\nweight_decai = 0.1\n").unwrap_err().to_string();
        assert!(text.ends_with("Did you mean `weight_decay`?"), "{text}");
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
        assert_eq!(config.check().unwrap_err().to_string(), "`beta` is -1, expected a number above 0");
        let config = TrainConfig { batch_size: 0, ..TrainConfig::default() };
        assert_eq!(config.check().unwrap_err().to_string(), "`batch_size` is 0, expected at least 1");
    }

    #[test]
    fn updates_follow_from_epochs_unless_given() {
        let config = TrainConfig { epochs: 2.0, batch_size: 8, warmup_ratio: 0.1, ..TrainConfig::default() };
        let settings = config.loop_settings(100, None);
        assert_eq!((settings.steps, settings.warmup_steps), (25, 3));
        assert_eq!(TrainConfig { max_steps: Some(7), ..config }.loop_settings(100, None).steps, 7);
    }
}
