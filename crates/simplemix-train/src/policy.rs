//! A causal language model in training: two handles of the same weights.

use simplemix_model::CausalLm;

use crate::error::Result;

/// Seed of dropout in update `step`: every update has a random stream of its own, so that a resumed run drops the same inputs.
pub(crate) fn update_seed(seed: u64, step: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step)
}

/// A policy in training.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The policy with dropout off, for evaluation, sampling and saving.
    pub(crate) model: CausalLm,
    /// Another handle of these weights, with the dropout of the current update on.
    pub(crate) in_training: CausalLm,
    seed: u64,
}

impl Policy {
    pub(crate) fn new(model: CausalLm, seed: u64) -> Result<Self> {
        Ok(Self { in_training: model.with_adapter(model.active_adapter())?, model, seed })
    }

    /// Draws the dropout of update `step`.
    pub(crate) fn begin(&mut self, step: u64) {
        if self.model.active_adapter().is_some() {
            self.in_training = self.model.in_training(update_seed(self.seed, step));
        }
    }

    /// Whether inputs are dropped in training.
    pub(crate) fn drops_inputs(&self) -> bool {
        self.in_training.active_adapter().is_some() && self.model.adapter_dropout() > 0.0
    }

    pub(crate) fn into_model(self) -> CausalLm {
        self.model.set_trainable(false);
        self.model
    }
}
