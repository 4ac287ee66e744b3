//! How much memory training will take, from a configuration alone.

use crate::config::{ModelConfig, Norms};

/// Memory of a layer over that of the tensors that its backward pass reads, measured on a CPU: the allocator's slack and
/// gradients in flight. 1.20 for SmolLM2-135M in f32, packed plainly or with shared prompts (docs/decisions.md).
const SLACK: f64 = 1.2;

impl ModelConfig {
    /// Bytes of activations that a forward pass over `tokens` keeps for its backward pass, below the output head, with
    /// `element` bytes a number. Linear in tokens: attention never holds a row of products, except where they are
    /// capped.
    pub fn activation_bytes(&self, tokens: usize, element: usize, checkpointed: bool) -> u64 {
        let [h, q, f] = [self.hidden_size, self.query_width(), self.intermediate_size].map(|width| width as f64);
        // Inputs of norms with and without their factor, and what they give.
        let norms = match self.norms {
            Norms::Before | Norms::After => 6.0 * h,
            Norms::Both => 12.0 * h,
        };
        // Queries, a key and a value for each of them, what attention gives, and that in the segments' order.
        let attention = 5.0 * q;
        // Gate, its activation, up, and their product.
        let layer = (norms + attention + 4.0 * f) * SLACK;
        let layers = self.num_hidden_layers as f64;
        let floats = if checkpointed { layer + (layers + 1.0) * h } else { layers * layer };
        (floats * tokens as f64) as u64 * element as u64
    }

    /// Bytes of keys and values that generation keeps for a token of a row, of numbers of `element` bytes.
    pub fn cache_bytes(&self, element: usize) -> u64 {
        2 * self.num_hidden_layers as u64 * self.key_width() as u64 * element as u64
    }
}
