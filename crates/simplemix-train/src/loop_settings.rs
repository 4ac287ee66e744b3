//! Checked settings of the training loop.

use crate::order::Order;
use crate::schedule::{Decay, RateCurve, Schedule};

/// Settings of the training loop, checked.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// Updates of the whole run.
    pub steps: u64,
    /// Pairs of an update.
    pub batch_size: usize,
    /// Tokens of a forward pass, as [`crate::PairEntry::tokens`] counts them.
    pub micro_batch_tokens: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Shape of the learning rate after warm-up.
    pub schedule: Schedule,
    /// Updates over which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// Share of the peak at which the decay ends.
    pub min_rate_ratio: f64,
    /// Updates of the decay of a warm-up-stable-decay schedule.
    pub decay_steps: u64,
    /// Shape of that decay.
    pub decay: Decay,
    /// Global gradient norm above which gradients are scaled down; infinite for no limit.
    pub max_grad_norm: f64,
    /// Updates between evaluations, or 0.
    pub eval_every_steps: u64,
    /// Whether to evaluate after every epoch.
    pub eval_every_epoch: bool,
    /// Whether to evaluate after the last update.
    pub eval_at_end: bool,
    /// Updates between checkpoints, or 0. An interruption saves one in any case.
    pub save_every_steps: u64,
    /// Whether to save a checkpoint after every epoch.
    pub save_every_epoch: bool,
    /// Order in which pairs are taken.
    pub order: Order,
    /// Treatment of a batch whose loss or gradient is NaN or infinite.
    pub on_nonfinite: OnNonFinite,
    /// Choice of the best evaluation, and early stopping.
    pub best: Option<BestRule>,
}

impl LoopSettings {
    /// Learning rate of update `step`, counted from zero.
    pub(crate) fn rate(&self, step: u64) -> f64 {
        let curve = RateCurve {
            schedule: self.schedule,
            steps: self.steps,
            warmup: self.warmup_steps,
            min_ratio: self.min_rate_ratio,
            decay_steps: self.decay_steps,
            decay: self.decay,
        };
        self.learning_rate * curve.factor(step)
    }
}

/// Treatment of a batch whose loss or gradient is NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNonFinite {
    /// Stop the run before the optimiser moves.
    Stop,
    /// Skip the batch.
    Skip {
        /// Abort when more batches than this would be skipped.
        most: u64,
    },
}

/// Choice of the best evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestRule {
    /// Name of the metric in `metrics.jsonl`, such as `eval_rewards/accuracies`.
    pub metric: String,
    /// Whether larger values are better.
    pub higher: bool,
    /// Evaluations without a better one after which the run stops.
    pub patience: Option<u64>,
}
