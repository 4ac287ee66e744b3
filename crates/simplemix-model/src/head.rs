//! The output head as losses take it: one matrix, also where an adapter changes it.

use tch::Tensor;

use crate::error::Result;

/// Output head of a pass.
///
/// Losses want a matrix that is a leaf of the graph. Where an adapter changes the head, the matrix is made for the pass, and
/// [`HeadWeight::backward`] carries its gradient on.
#[derive(Debug)]
pub struct HeadWeight {
    weight: Tensor, // [V, H]
    /// That matrix in the graph of the adapter's.
    composed: Option<Tensor>,
}

impl HeadWeight {
    /// A head that is a parameter of the model.
    pub(crate) fn plain(weight: &Tensor) -> Self {
        Self { weight: weight.shallow_clone(), composed: None }
    }

    /// A head that is made of parameters.
    pub(crate) fn composed(composed: Tensor) -> Self {
        if !composed.requires_grad() {
            return Self { weight: composed, composed: None };
        }
        Self { weight: composed.detach().set_requires_grad(true), composed: Some(composed) }
    }

    /// The matrix, `[V, H]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Carries the gradient of [`HeadWeight::weight`] on into the parameters that it is made of. Run the loss' backward pass first.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] where memory does not suffice.
    pub fn backward(self) -> Result<()> {
        let gradient = self.weight.grad();
        match &self.composed {
            Some(composed) if gradient.defined() => Ok(simplemix_torch::backward(&[composed], &[&gradient])?),
            _ => Ok(()),
        }
    }
}
