//! Activation checkpointing: a forward pass that keeps the input of each layer and nothing else.
//!
//! Memory for activations falls from every intermediate of every layer to one `[T, H]` a layer and the intermediates of
//! a single one, for a second forward pass (Chen et al. 2016, arXiv:1604.06174). The numbers are the same.

use tch::Tensor;

use crate::attention::Plans;
use crate::causal_lm::CausalLm;
use crate::error::Result;
use crate::network::{Input, Network};
use crate::packed::Packed;

/// A forward pass whose backward pass computes every layer again.
pub struct Checkpointed<'a> {
    network: &'a Network,
    input: Input,
    plans: Plans,
    /// Input of each layer, and of the last norm: `[T, H]`.
    inputs: Vec<Tensor>,
    hidden: Tensor,
}

impl CausalLm {
    /// As [`CausalLm::hidden_states`], but keeps little: see [`Checkpointed`].
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{CausalLm, Packed, tiny};
    /// use tch::{Device, Kind};
    ///
    /// let model = CausalLm::random(tiny::config(), 1, Device::Cpu)?;
    /// model.set_trainable(true);
    /// let mut packed = Packed::new();
    /// packed.push(&[1, 2, 3])?;
    /// let pass = model.checkpointed(&packed)?;
    /// pass.hidden().square().sum(Kind::Float).backward();
    /// pass.backward()?;
    /// assert!(model.named_parameters()[0].1.grad().defined());
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn checkpointed(&self, packed: &Packed) -> Result<Checkpointed<'_>> {
        self.checkpointed_with(packed, &mut [])
    }

    /// [`CausalLm::checkpointed`]; the tensors of the host in `along` move to the model's device in the same copy as the tokens.
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    pub fn checkpointed_with(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<Checkpointed<'_>> {
        let network = &self.network;
        let (input, plans) = network.prepare(packed, along)?;
        let _guard = tch::no_grad_guard();
        let mut inputs = vec![network.embed(&input)?];
        for layer in 0..network.layers.len() {
            let next = network.layer(layer, &inputs[layer], &input, |heads| plans.attend(layer, &heads))?;
            inputs.push(next);
        }
        let hidden = network.last_norm(&inputs[network.layers.len()])?.set_requires_grad(true);
        Ok(Checkpointed { network, input, plans, inputs, hidden })
    }
}

impl Checkpointed<'_> {
    /// Hidden states `[T, H]`: a leaf that requires a gradient. Make a loss of it and run its backward pass first.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }

    /// Carries the gradient of [`Checkpointed::hidden`] on into the model, layer by layer from the last.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] where memory does not suffice.
    pub fn backward(mut self) -> Result<()> {
        let gradient = self.hidden.grad();
        if !gradient.defined() {
            return Ok(());
        }
        self.carry_on(gradient)
    }

    fn carry_on(&mut self, mut gradient: Tensor) -> Result<()> {
        let count = self.network.layers.len();
        for stage in (0..=count).rev() {
            let x = self.inputs.pop().expect("one input for each layer and the last norm");
            let x = x.detach().set_requires_grad(true);
            let y = if stage == count {
                self.network.last_norm(&x)?
            } else {
                let attend = |heads| self.plans.attend(stage, &heads);
                self.network.layer(stage, &x, &self.input, attend)?
            };
            simplemix_torch::backward(&[&y], &[&gradient])?;
            gradient = x.grad();
        }
        let embedded = self.network.embed(&self.input)?;
        if embedded.requires_grad() {
            simplemix_torch::backward(&[&embedded], &[&gradient])?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Checkpointed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointed").field("hidden", &self.hidden).finish_non_exhaustive()
    }
}
