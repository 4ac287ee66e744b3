//! The output head, and the gradients of its parts. Letters: n rows of a chunk, H width, V vocabulary.

use tch::{Kind, Tensor};

use crate::error::{Doing, Error, Result};
use crate::gemm::{logits, pull_back, subtract_outer};
use crate::inputs::TokenStats;
use crate::rows::{Rows, normalise};

/// An output head: `logits = soft_cap * tanh((scale * hidden weight^T + scale * bias) / soft_cap)`.
///
/// A plain `&Tensor` is a head with neither bias, cap nor scale.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[V, H]`. Where it requires a gradient, the backward pass adds to its `.grad()`.
    pub weight: &'a Tensor,
    /// `[V]`, likewise.
    pub bias: Option<&'a Tensor>,
    /// Bound of the logits' size, above 0 (Gemma 2: 30).
    pub soft_cap: Option<f64>,
    /// Factor of the logits before the cap (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`); 1 for none.
    pub scale: f64,
}

impl<'a> From<&'a Tensor> for Head<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self { weight, bias: None, soft_cap: None, scale: 1.0 }
    }
}

impl Head<'_> {
    /// Whether a part of it requires a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.weight.requires_grad() || self.bias.is_some_and(Tensor::requires_grad)
    }

    /// Fills `buffer` `[n, V]` with the softmax of the states' logits.
    pub(crate) fn softmax_of(
        &self,
        buffer: &Tensor,
        states: &Tensor,
        targets: &Tensor,
        stats: TokenStats,
    ) -> Result<Rows> {
        let scaled = (self.scale != 1.0).then(|| states * self.scale);
        logits(buffer, scaled.as_ref().unwrap_or(states), self.weight)?;
        if let Some(bias) = self.bias {
            let mut buffer = buffer.shallow_clone();
            let _ = buffer.f_add_(&(bias.detach() * self.scale).to_kind(buffer.kind())).doing("adding the bias")?;
        }
        normalise(buffer, targets, self.soft_cap, stats)
    }

    /// Gradient `[n, H]` of each token's log-probability with respect to its hidden state.
    pub(crate) fn token_gradients(&self, probs: &Tensor, targets: &Tensor, slope: Option<&Tensor>) -> Result<Tensor> {
        let mut pull = self.weight.detach().index_select(0, targets).to_kind(probs.kind());
        if let Some(slope) = slope {
            pull *= slope.unsqueeze(1);
        }
        pull -= pull_back(probs, &self.weight.detach())?;
        Ok(if self.scale == 1.0 { pull } else { pull * self.scale })
    }
}

/// Gradients of the head's parts, summed over chunks in f32 at least.
pub(crate) struct GradientSums {
    /// The weight's `.grad()` itself, or a sum in f32 beside a half-precision one.
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl GradientSums {
    pub(crate) fn of(head: &Head<'_>, kind: Kind) -> Result<Self> {
        let sum_of = |part: &Tensor| -> Result<Option<Tensor>> {
            if !part.requires_grad() {
                Ok(None)
            } else if part.kind() == kind {
                defined_gradient(part).map(Some)
            } else {
                Ok(Some(Tensor::f_zeros(part.size(), (kind, part.device())).doing("allocating")?))
            }
        };
        Ok(Self { weight: sum_of(head.weight)?, bias: head.bias.map(sum_of).transpose()?.flatten() })
    }

    pub(crate) fn add(
        &mut self,
        head: &Head<'_>,
        probs: &Tensor,
        states: &Tensor,
        targets: &Tensor,
        scale: &Tensor,
        slope: Option<&Tensor>,
    ) -> Result<()> {
        let doing = "accumulating the head's gradient";
        let at_target = slope.map_or_else(|| scale.shallow_clone(), |slope| scale * slope.unsqueeze(1)) * head.scale;
        if let Some(into) = &mut self.weight {
            let wide = states.to_kind(into.kind());
            subtract_outer(into, probs, &(&wide * scale * head.scale).to_kind(states.kind()))?;
            let _ = into.f_index_add_(0, targets, &(wide * &at_target)).doing(doing)?;
        }
        if let Some(into) = &mut self.bias {
            let _ = into.f_sub_(&(scale * head.scale).tr().f_mm(probs).doing(doing)?.squeeze_dim(0)).doing(doing)?;
            let _ = into.f_index_add_(0, targets, &at_target.squeeze_dim(1)).doing(doing)?;
        }
        Ok(())
    }

    /// Adds the sums that lie beside a half-precision `.grad()` to it.
    pub(crate) fn finish(self, head: &Head<'_>) -> Result<()> {
        for (part, sum) in [(Some(head.weight), self.weight), (head.bias, self.bias)] {
            if let (Some(part), Some(sum)) = (part, sum)
                && part.kind() != sum.kind()
            {
                let mut gradient = defined_gradient(part)?;
                gradient += sum.to_kind(part.kind());
            }
        }
        Ok(())
    }
}

/// `tensor.grad()`, zeros if there was none.
fn defined_gradient(tensor: &Tensor) -> Result<Tensor> {
    let gradient = tensor.grad();
    if gradient.defined() {
        return Ok(gradient);
    }
    // tch cannot set a gradient; one of zeros comes from the backward pass of a product with zero.
    tch::with_grad(|| (tensor.narrow(0, 0, 1) * 0.0).sum(tensor.kind()).f_backward()).doing("making a gradient")?;
    let gradient = tensor.grad();
    if gradient.defined() {
        return Ok(gradient);
    }
    let (found, expected) =
        ("a result of other tensors".to_owned(), "a leaf of the graph, which has a gradient".to_owned());
    Err(Error::Shape { name: "head", found, expected })
}
