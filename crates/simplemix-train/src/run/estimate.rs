//! Estimate of the memory that a run needs.

use simplemix_loss::{Need, PairLoss};
use tch::Kind;

use super::Run;
use crate::config::Objective;
use crate::error::Result;
use crate::memory::{MemoryEstimate, PROGRAM_BYTES};
use crate::reference::ReferenceSource;

impl Run {
    /// Estimates the peak memory of the run.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the pairs cannot be split into micro-batches.
    pub fn memory_estimate(&self) -> Result<MemoryEstimate> {
        let (settings, model) = (&self.settings, self.start.model_config());
        let (pairs, mut largest) = (self.train.len() as u64, (0, 0));
        // One epoch is enough: the others have the same pairs in another order.
        let steps = settings.steps.min(pairs.div_ceil(settings.batch_size as u64));
        let mut batches = settings.order.batches(settings.batch_size, pairs);
        for step in 0..steps {
            let batch = batches.at(step);
            for part in self.train.table.micro_batches(&batch, settings.micro_batch_tokens)? {
                let entries = || part.iter().map(|&pair| &self.train.table.pairs[pair]);
                let tokens: usize = entries().map(|pair| pair.tokens).sum();
                let scored = entries().map(|pair| pair.responses.chosen + pair.responses.rejected).sum();
                largest = largest.max((tokens, scored));
            }
        }
        let bytes = if self.start.kind() == Kind::Float { 4 } else { 2 };
        let mut cache = 0;
        if let Some(hypo) = self.config.hypo() {
            let longest = self.train.table.pairs.iter().map(|pair| pair.prompt).max().unwrap_or(0);
            largest = largest.max(hypo.pass_tokens(longest, settings.micro_batch_tokens, settings.batch_size));
            let row = (longest + hypo.max_new_tokens) as u64 * model.cache_bytes(bytes as usize);
            cache = hypo.rows(settings.batch_size) as u64 * row;
        }
        let (tokens, scored) = largest;
        let (weights, trained) = (model.parameters() as u64 * bytes, self.trained as u64);
        let head = if self.config.objective == Objective::Reward { 0 } else { model.vocab_size };
        let logits = (self.logits_bytes() as u64).min((scored as i64 * head) as u64 * 4);
        // The weights of a second model, and f32 copies of parameters that are trained in half precision.
        let second = if self.holds_second_model() { weights } else { 0 };
        let copies = if bytes == 2 { 4 * trained } else { 0 };
        Ok(MemoryEstimate {
            program: PROGRAM_BYTES,
            weights: weights + second,
            // In f32 whatever the weights' kind.
            gradients: 4 * trained,
            optimizer: 2 * 4 * trained + copies,
            // Sampling is over before activations are kept, so the larger of the two counts.
            activations: model
                .activation_bytes(tokens, bytes as usize, self.config.memory.activation_checkpointing)
                .max(cache),
            logits,
            micro_batch_tokens: tokens,
        })
    }

    fn holds_second_model(&self) -> bool {
        let on_the_fly = self.config.reference.source == ReferenceSource::OnTheFly;
        let has_reference = self.config.objective == Objective::Preference && self.loss.needs(Need::Reference);
        let held = (has_reference && on_the_fly) || self.config.hypo().is_some();
        held && (self.config.reference.model.is_some() || !self.config.lora.is_on())
    }
}
