//! Activation checkpointing: a forward pass that keeps the input of each layer and nothing else.
//!
//! Memory for activations falls from every intermediate of every layer to one `[T, H]` a layer and the intermediates of
//! a single one, for a second forward pass (Chen et al. 2016, arXiv:1604.06174). The numbers are the same.

use tch::Tensor;

use crate::attention::Plans;
use crate::causal_lm::CausalLm;
use crate::error::{Doing, Result};
use crate::experts::Loads;
use crate::network::{Beside, Input, Network};
use crate::packed::Packed;
use crate::residence::{Resident, Stage};

/// A forward pass whose backward pass computes every layer again.
pub struct Checkpointed<'a> {
    network: &'a Network,
    input: Input,
    plans: Plans,
    /// Input of each layer, and of the last norm: `[T, H]`.
    inputs: Vec<Tensor>,
    /// Tensors beside them that layers read.
    beside: Beside,
    hidden: Tensor,
    router: Option<Router>,
    /// The last layer, which is computed again first.
    last: Option<Resident>,
    _root: Option<Resident>,
}

/// Loss of the routers of a pass.
struct Router {
    /// Mean choices and shares; the shares are a leaf.
    sums: [Tensor; 2],
    loss: Tensor,
    /// Factor of a layer's sum of shares in their mean.
    factor: f64,
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
        self.network.checkpointed(packed, along, None)
    }

    /// [`CausalLm::checkpointed_with`], with the loss of [`CausalLm::routed_states`]: [`Checkpointed::router_loss`].
    ///
    /// # Errors
    /// As [`CausalLm::hidden_states`].
    pub fn routed_checkpointed(&self, packed: &Packed, along: &mut [&mut Tensor]) -> Result<Checkpointed<'_>> {
        self.network.checkpointed(packed, along, self.network.loads(packed))
    }
}

impl Network {
    pub(crate) fn checkpointed(
        &self,
        packed: &Packed,
        along: &mut [&mut Tensor],
        loads: Option<Loads>,
    ) -> Result<Checkpointed<'_>> {
        let (input, plans) = self.prepare(packed, along, loads)?;
        let router = |layers: usize| input.loads.as_ref().map(|loads| Router::of(loads, layers));
        let _guard = tch::no_grad_guard();
        let root = self.begin_pass()?;
        let (embedded, mut beside) = self.embed(&input)?;
        let mut inputs = vec![embedded];
        let last = self.through_layers(|layer| {
            let next = self.layer(layer, &inputs[layer], &input, &mut beside, |mixing| plans.mix(layer, &mixing))?;
            inputs.push(next);
            Ok(())
        })?;
        let hidden = self.last_norm(&inputs[self.layers.len()])?.set_requires_grad(true);
        let sparse = (0..self.layers.len()).filter(|&layer| self.config.experts_of(layer).is_some()).count();
        let router = router(sparse).transpose()?.flatten();
        self.begin_backward(Stage::Root)?;
        Ok(Checkpointed { network: self, input, plans, inputs, beside, hidden, router, last, _root: root })
    }
}

impl Router {
    fn of(loads: &Loads, layers: usize) -> Result<Option<Self>> {
        let Some([choices, shares]) = loads.take_sums()? else { return Ok(None) };
        let sums = [choices, shares.set_requires_grad(true)];
        let loss = tch::with_grad(|| Loads::loss(&sums))?;
        Ok(Some(Self { sums, loss, factor: loads.factor(layers) }))
    }

    /// Gradient of a layer's sum of shares, once the loss has been carried back.
    fn gradient(&self) -> Option<Tensor> {
        let gradient = self.sums[1].grad();
        gradient.defined().then(|| gradient * self.factor)
    }
}

impl Checkpointed<'_> {
    /// Loss that keeps the loads of experts even, a scalar to be added to the loss of the hidden states before its backward pass; none
    /// where it was not asked for, or the model has none.
    pub fn router_loss(&self) -> Option<&Tensor> {
        self.router.as_ref().map(|router| &router.loss)
    }

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
        let (mut inputs, beside) = (std::mem::take(&mut self.inputs), &self.beside);
        let mut next = || inputs.pop().expect("one input for each layer and the last norm");
        let shares = self.router.as_ref().and_then(Router::gradient);
        let x = leaf(&next());
        simplemix_torch::backward(&[&network.last_norm(&x)?], &[&gradient])?;
        let (mut gradient, mut gradients) = (x.grad(), Beside::default());
        network.back_through_layers(self.last.take(), |layer| {
            let x = leaf(&next());
            let mut read = network.read_by(layer, beside);
            let out = network.layer(layer, &x, input, &mut read, |mixing| plans.mix(layer, &mixing))?;
            // Later layers have left the gradients of keys and values that they have read.
            let lent = read.keys.get(&layer).zip(gradients.keys.remove(&layer));
            let (mut outputs, mut given) = (vec![&out], vec![&gradient]);
            if let Some((keys, of_keys)) = &lent {
                outputs.extend(keys.iter());
                given.extend(of_keys);
            }
            // So has the loss of the routers of its part.
            let routed = input.loads.as_ref().zip(shares.as_ref());
            let routed = routed.and_then(|(loads, of_shares)| Some((loads.take_shares()?, of_shares)));
            if let Some((own, of_shares)) = &routed {
                outputs.push(own);
                given.push(of_shares);
            }
            simplemix_torch::backward(&outputs, &given)?;
            gradients.add(layer, &read)?;
            gradient = x.grad();
            Ok(())
        })?;
        let (embedded, own) = network.embed(input)?;
        let outputs = [(&embedded, &gradient)].into_iter().chain(own.own.values().zip(gradients.own.values()));
        let (outputs, given): (Vec<_>, Vec<_>) = outputs.filter(|(output, _)| output.requires_grad()).unzip();
        if !outputs.is_empty() {
            simplemix_torch::backward(&outputs, &given)?;
        }
        network.end_backward(Stage::Root)
    }
}

impl Network {
    /// The tensors of `beside` that a layer reads, as leaves that get gradients.
    fn read_by(&self, layer: usize, beside: &Beside) -> Beside {
        let keys =
            self.config.layers[layer].keys_of.and_then(|of| Some((of, beside.keys.get(&of)?.each_ref().map(leaf))));
        let own = beside.own.get(&layer).map(|own| (layer, leaf(own)));
        Beside { own: own.into_iter().collect(), keys: keys.into_iter().collect() }
    }
}

impl Beside {
    /// Adds the gradients of what `layer` has read.
    fn add(&mut self, layer: usize, read: &Self) -> Result<()> {
        self.own.extend(read.own.iter().map(|(&layer, own)| (layer, own.grad())));
        for (&of, keys) in read.keys.iter().filter(|(of, _)| **of != layer) {
            let new = keys.each_ref().map(Tensor::grad);
            match self.keys.get_mut(&of) {
                None => drop(self.keys.insert(of, new)),
                Some(sums) => {
                    for (sum, new) in sums.iter_mut().zip(&new) {
                        *sum = sum.f_add(new).doing("adding up gradients of keys")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The tensor as a leaf that gets a gradient.
fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().set_requires_grad(true)
}

impl std::fmt::Debug for Checkpointed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointed").field("hidden", &self.hidden).finish_non_exhaustive()
    }
}
