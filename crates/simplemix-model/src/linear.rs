//! Linear layers as a decoder asks for them, and their product by libtorch. Letters: T tokens, I inputs, O outputs.

use tch::Tensor;

use crate::error::Result;

/// Weight `[O, I]` and bias `[O]` of a linear layer.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: Option<&'a Tensor>,
}

/// Computes `x W^T + b` of each layer for `x` `[T, I]`: [`linear`], or [`crate::few_rows::linear`] in a step of decoding.
pub(crate) type Product = fn(&Tensor, &[Weights<'_>]) -> Result<Vec<Tensor>>;

/// A [`Product`] of any number of rows, with gradients if they are recorded.
pub(crate) fn linear(x: &Tensor, layers: &[Weights<'_>]) -> Result<Vec<Tensor>> {
    layers.iter().map(|layer| Ok(simplemix_torch::linear(x, layer.weight, layer.bias)?)).collect()
}
