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
use crate::residence::{Resident, Stage};

/// A forward pass whose backward pass computes every layer again.
pub struct Checkpointed<'a> {
    network: &'a Network,
    input: Input,
    plans: Plans,
    /// Input of each layer, and of the last norm: `[T, H]`.
    inputs: Vec<Tensor>,
    hidden: Tensor,
    /// The last layer, which is computed again first.
    last: Option<Resident>,
    _root: Option<Resident>,
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
        self.network.checkpointed(packed, along)
    }
}

impl Network {
    pub(crate) fn checkpointed(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<Checkpointed<'_>> {
        let (input, plans) = self.prepare(packed, along)?;
        let _guard = tch::no_grad_guard();
        let root = self.begin_pass()?;
        let mut inputs = vec![self.embed(&input)?];
        let last = self.through_layers(|layer| {
            let next = self.layer(layer, &inputs[layer], &input, |mixing| plans.mix(layer, &mixing))?;
            inputs.push(next);
            Ok(())
        })?;
        let hidden = self.last_norm(&inputs[self.layers.len()])?.set_requires_grad(true);
        self.begin_backward(Stage::Root)?;
        Ok(Checkpointed { network: self, input, plans, inputs, hidden, last, _root: root })
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
            return self.idle_backward();
        }
        self.carry_on(gradient)
    }

    /// Takes part in the backward passes of other processes, without gradients of this one's own.
    ///
    /// # Errors
    /// As [`crate::Residence::enter`].
    pub fn idle_backward(mut self) -> Result<()> {
        self.network.back_through_layers(self.last.take(), |_| Ok(()))?;
        self.network.end_backward(Stage::Root)
    }

    fn carry_on(&mut self, gradient: Tensor) -> Result<()> {
        let (network, input, plans) = (self.network, &self.input, &self.plans);
        let mut inputs = std::mem::take(&mut self.inputs);
        let mut next = || inputs.pop().expect("one input for each layer and the last norm");
        let mut gradient = back(&next(), &gradient, |x| network.last_norm(x))?;
        network.back_through_layers(self.last.take(), |layer| {
            let forward = |x: &Tensor| network.layer(layer, x, input, |mixing| plans.mix(layer, &mixing));
            gradient = back(&next(), &gradient, forward)?;
            Ok(())
        })?;
        let embedded = network.embed(input)?;
        if embedded.requires_grad() {
            simplemix_torch::backward(&[&embedded], &[&gradient])?;
        }
        network.end_backward(Stage::Root)
    }
}

/// Gradient of the input `x`, from that of the output of `forward`, which is computed again.
fn back(x: &Tensor, gradient: &Tensor, forward: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = x.detach().set_requires_grad(true);
    simplemix_torch::backward(&[&forward(&x)?], &[gradient])?;
    Ok(x.grad())
}

impl std::fmt::Debug for Checkpointed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointed").field("hidden", &self.hidden).finish_non_exhaustive()
    }
}
