//! Sections of the loop and of what surrounds it. Other sections are declared with what they configure: the loss in
//! simplemix-loss, the adapter in simplemix-model, the optimiser, HyPO and the reference in this crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{OnTemplateRefusal, TokenizerAs};
use simplemix_settings::{OrAuto, Setting, choice, section};

use crate::team::Team;

section! {
    /// Batches of pairs and their order.
    pub struct BatchSettings("batch") {
        /// Pairs per update.
        batch_size: usize = 8, in at_least(1.0), unit "pairs", from "TRL", was "batch_size";
        /// Tokens per forward pass, each prompt counted once; affects memory, not results. `auto` is 1024 on a CPU; on a GPU the most
        /// up to 16384 whose activations fit half of what weights, gradients and optimiser leave of its memory.
        micro_batch_tokens: OrAuto<usize> = OrAuto::Auto, in at_least(1.0), unit "tokens", was "micro_batch_tokens";
        /// Order of the training pairs: as in the file, shuffled anew in every epoch, or as TRL shuffles with the same seed.
        shuffle: Shuffle = Shuffle::None, was "shuffle";
        /// Reaction to a batch whose loss or gradient is NaN or infinite: stop the run, or skip the batch.
        on_nonfinite: NonFinitePolicy = NonFinitePolicy::Stop, was "on_nonfinite";
        /// Number of batches that may be skipped before the run stops.
        max_skipped: u64 = 10, unit "batches", was "max_skipped";
    }
}

section! {
    /// Result on the Hugging Face hub, in a build with the feature `push`. The token is `HF_TOKEN`, or that of `hf auth login`; it is
    /// tried, and the repository made, before training begins.
    pub struct PushSettings("push") {
        /// Repository to push the trained model to, `OWNER/NAME` or a name of the user's own; nothing is pushed if not set.
        to: Option<String> = None;
        /// Branch, made if it is not there.
        revision: String = "main".to_owned();
        /// Make the repository a private one, if it has to be made.
        private: bool = false;
        /// Push the trained adapter in place of the model that it is merged into.
        adapter: bool = false;
    }
}

section! {
    /// Tokenisation of the pairs.
    pub struct TokenSettings("tokens") {
        /// Treat plain text as messages, through the model's chat template; without it, text is trained as it stands.
        messages: bool = false;
        /// Date that the chat template sees, such as 2026-01-31; if not set, that of the run's first day.
        template_date: Option<String> = None;
        /// Chat template in place of the model's: Jinja text, or the path of a file that ends in .jinja. It becomes the result's.
        chat_template: Option<String> = None;
        /// End-of-sequence token in place of the tokenizer's, one of its tokens. It becomes the result's.
        eos_token: Option<String> = None;
        /// Maximum length of prompt and response together; longer pairs are cut at the end.
        max_length: usize = 1024, in at_least(2.0), unit "tokens", from "TRL", was "max_length";
        /// Reading of a tokenizer that transformers 5 builds anew by its class: as tokenizer.json has it, or as transformers does.
        tokenizer_as: TokenizerReading = TokenizerReading::File;
        /// Reaction to a pair that the chat template refuses, such as one with a system turn: stop, or leave the pair out and
        /// count it.
        on_refused: TemplateRefusal = TemplateRefusal::Fail;
        /// Keep token ids on disk, so that another run on the same pairs starts at once.
        cache: bool = true, was "cache_tokens";
        /// Folder of the kept token ids; a folder in simplemix's cache if not set.
        cache_folder: Option<PathBuf> = None, was "token_cache";
    }
}

choice! {
    /// Parts of the run's memory that are divided among the processes.
    pub enum Shard {
        /// Nothing: each has all.
        None = "none";
        /// Moments and f32 copies of the weights (ZeRO stage 1, arXiv:1910.02054).
        Optimizer = "optimizer";
        /// Weights and gradients too, each layer gathered while it runs (ZeRO stage 3; FSDP); turns activation checkpointing on.
        All = "all";
    }
}

impl Shard {
    /// Whether the processes of `team` divide weights and gradients.
    pub(crate) fn divides_weights(self, team: &Team) -> bool {
        self == Self::All && team.size() > 1
    }
}

section! {
    /// Several processes, one a device.
    pub struct ParallelSettings("parallel") {
        /// Processes on this machine that share the run. Under torchrun or Slurm their number is what these have started.
        processes: usize = 1, in between(1.0, 1024.0), unit "processes";
        /// Parts of the run's memory that are divided among the processes: nothing; the optimiser's moments and f32 copies; or
        /// weights and gradients too, each layer gathered while it runs, with activation checkpointing.
        shard: Shard = Shard::None;
        /// Gradients, in megabytes of 2^20 bytes, that are sent in one call, while the backward pass still computes the next ones.
        bucket_mb: f64 = 25.0, in above(0.0), unit "MiB", from "PyTorch";
        /// Time after which a process that the others wait for, and that does nothing new, is an error; if not set, 120 s on CPUs and
        /// 600 s on GPUs.
        time_limit: Option<f64> = None, in above(0.0), unit "seconds";
    }
}

impl ParallelSettings {
    /// Bytes of gradients in a bucket.
    pub(crate) fn bucket_bytes(&self) -> usize {
        (self.bucket_mb * f64::from(1 << 20)) as usize
    }
}

section! {
    /// Memory and speed; none of these settings changes results.
    pub struct MemorySettings("memory") {
        /// Bytes of logits in memory at a time. `auto` is 256 MiB on a CPU; on a GPU 2 GiB, or a sixteenth of its memory if that is
        /// less.
        logits_bytes: OrAuto<usize> = OrAuto::Auto, in at_least(1.0), unit "bytes", was "logits_bytes";
        /// Memory of a GPU that the run plans with, for tokens and logits at a time; if not set, what is free there. `--dry-run` takes it
        /// for a GPU that this machine does not have.
        device_gb: Option<f64> = None, in above(0.0), unit "GB";
        /// Speed of a GPU that this machine does not have, in matrix products of bf16, by which `simplemix run --dry-run` tells time:
        /// 312 is the data sheet's peak of an A100, 989 that of an H100.
        device_tflops: Option<f64> = None, in above(0.0), unit "TFLOP/s";
        /// Recompute activations in the backward pass: far less memory, a third more time.
        activation_checkpointing: bool = false, was "activation_checkpointing";
        /// Run the prompt of a pair through the model once for both responses.
        share_prompts: bool = true, was "share_prompts";
    }
}

section! {
    /// Evaluation on held-out pairs.
    pub struct EvalSettings("eval") {
        /// Held-out pairs, scored during and after training: a file, or several by name.
        files: Option<EvalFiles> = None, was "eval";
        /// Updates between evaluations; with 0, none depends on their number.
        eval_every_steps: u64 = 0, unit "updates", was "eval_every_steps";
        /// Share of the run's updates between evaluations, in place of `eval_every_steps`; the number of updates is rounded up.
        eval_every_ratio: f64 = 0.0, in between(0.0, 1.0);
        /// Evaluate after every epoch.
        eval_every_epoch: bool = false;
        /// Evaluate after the last update.
        eval_at_end: bool = true;
        /// Metric whose best checkpoint is kept and becomes the result, such as `eval_loss` or `eval_rewards/accuracies`.
        best_metric: Option<String> = None, was "best_metric";
        /// Evaluations without a better one after which the run stops.
        early_stopping_patience: Option<u64> = None, in at_least(1.0), unit "evaluations", was "early_stopping_patience";
    }
}

section! {
    /// Checkpoints, from which a stopped run resumes.
    pub struct CheckpointSettings("checkpoint") {
        /// Updates between checkpoints; 0 saves one only when the run is stopped.
        save_every_steps: u64 = 0, unit "updates", was "save_every_steps";
        /// Share of the run's updates between checkpoints, in place of `save_every_steps`; the number of updates is rounded up.
        save_every_ratio: f64 = 0.0, in between(0.0, 1.0);
        /// Save a checkpoint after every epoch.
        save_every_epoch: bool = false;
        /// Number of checkpoints to keep, in addition to the best one.
        keep: usize = 2, in at_least(1.0), unit "checkpoints", was "keep_checkpoints";
    }
}

section! {
    /// Metrics.
    pub struct LogSettings("log") {
        /// Measure entropy, accuracy and mean logit of the tokens.
        token_metrics: bool = true, was "token_metrics";
        /// Updates from one measurement of the tokens to the next: the others are faster, and their lines lack these metrics.
        /// Evaluations always measure.
        token_metrics_every: u64 = 1, in at_least(1.0), unit "updates";
        /// Write metrics for TensorBoard too.
        tensorboard: bool = true, was "tensorboard";
    }
}

choice! {
    /// Order of the training pairs.
    pub enum Shuffle {
        /// As in the file: a mixture was written in its order, which holds the shares in every batch.
        None = "none";
        /// Shuffled anew in every epoch.
        Seed = "seed";
        /// As TRL's trainer shuffles with the same seed, the short batch at the end of an epoch included.
        Trl = "trl";
    }
}

choice! {
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    pub enum TokenizerReading {
        /// As tokenizer.json has it, which is what the model was trained with.
        File = "file";
        /// As transformers 5.24 builds it.
        Transformers = "transformers";
    }
}

impl From<TokenizerReading> for TokenizerAs {
    fn from(reading: TokenizerReading) -> Self {
        match reading {
            TokenizerReading::File => Self::File,
            TokenizerReading::Transformers => Self::Transformers,
        }
    }
}

choice! {
    /// Reaction to a pair that the chat template refuses.
    pub enum TemplateRefusal {
        /// Stop before the run starts.
        Fail = "fail";
        /// Leave the pair out and count it.
        Skip = "skip";
    }
}

impl From<TemplateRefusal> for OnTemplateRefusal {
    fn from(refusal: TemplateRefusal) -> Self {
        match refusal {
            TemplateRefusal::Fail => Self::Fail,
            TemplateRefusal::Skip => Self::Skip,
        }
    }
}

choice! {
    /// Reaction to a batch whose loss or gradient is NaN or infinite.
    pub enum NonFinitePolicy {
        /// Stop before the optimiser moves.
        Stop = "stop";
        /// Skip the batch.
        Skip = "skip";
    }
}

/// Files of held-out pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EvalFiles {
    /// A single file, whose metrics begin with `eval_`.
    One(PathBuf),
    /// Files by name; metrics begin with `eval_NAME_`.
    Named(BTreeMap<String, PathBuf>),
}

impl EvalFiles {
    /// Files with their names; the name of a single file is empty.
    pub fn all(&self) -> Vec<(String, &Path)> {
        match self {
            Self::One(path) => vec![(String::new(), path)],
            Self::Named(files) => files.iter().map(|(name, path)| (name.clone(), path.as_path())).collect(),
        }
    }
}

impl Setting for EvalFiles {
    fn kind() -> String {
        "a path, or a table of paths".to_owned()
    }
}
