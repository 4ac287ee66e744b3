//! The output head and the gradients of its weight and bias. Letters: n rows of a chunk, H width, V vocabulary.

use tch::{Kind, Tensor};

use crate::error::{Doing, Error, Result};
use crate::gemm::{Spread, logits};
use crate::inputs::TokenStats;
use crate::rows::{Rows, normalise};

/// An output head: `logits = soft_cap * tanh((scale * hidden weight^T + scale * bias) / soft_cap)`.
///
/// A plain `&Tensor` converts to a head without bias, cap or scale.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Weight, `[V, H]`. If it requires a gradient, the backward pass adds to its `.grad()`.
    pub weight: &'a Tensor,
    /// Bias, `[V]`. If it requires a gradient, the backward pass adds to its `.grad()`.
    pub bias: Option<&'a Tensor>,
    /// Bound on the logits' magnitude, above 0 (Gemma 2: 30).
    pub soft_cap: Option<f64>,
    /// Factor of the logits before the cap (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`), usually 1.
    pub scale: f64,
}

impl<'a> From<&'a Tensor> for Head<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self { weight, bias: None, soft_cap: None, scale: 1.0 }
    }
}

impl Head<'_> {
    /// Whether weight or bias requires a gradient.
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

    /// Gradient `[n, H]` of each token's log-probability with respect to its hidden state. `mean` is the softmax times the
    /// head's weight.
    pub(crate) fn token_gradients(&self, mean: &Tensor, targets: &Tensor, slope: Option<&Tensor>) -> Tensor {
        let mut pull = self.weight.detach().index_select(0, targets).to_kind(mean.kind());
        if let Some(slope) = slope {
            pull *= slope.unsqueeze(1);
        }
        pull -= mean;
        if self.scale == 1.0 { pull } else { pull * self.scale }
    }

    /// Entropy `[n]` of each row's softmax `p`, without the logits `z`: `lse - sum p z`, and `sum p z` is the hidden state
    /// times `mean`, the softmax times the head's weight. Not for capped logits.
    pub(crate) fn entropies(
        &self,
        spread: &Spread<'_>,
        mean: &Tensor,
        states: &Tensor,
        lse: &Tensor,
    ) -> Result<Tensor> {
        let doing = "computing entropies";
        let kind = mean.kind();
        let dots = states.f_to_kind(kind).and_then(|states| states.f_mul(mean)).doing(doing)?;
        let mut sums = dots.f_sum_dim_intlist([1i64].as_slice(), false, kind).doing(doing)?;
        if let Some(bias) = self.bias {
            sums += spread.against(&bias.detach().to_kind(kind).unsqueeze(1))?.squeeze_dim(1);
        }
        // Both terms are of the same rounded softmax, so that the error is one of the entropy, not of the logits.
        let lse = spread.masses()?.map_or_else(|| lse.shallow_clone(), |masses| masses * lse);
        Ok(lse - sums * self.scale)
    }
}

/// Rows of a chunk in the backward pass.
#[derive(Clone, Copy)]
pub(crate) struct Chunk<'a> {
    /// Softmax (times the soft cap's slope), `[n, V]`.
    pub(crate) spread: &'a Spread<'a>,
    /// Hidden states, `[n, H]`.
    pub(crate) states: &'a Tensor,
    /// Target tokens, `[n]`.
    pub(crate) targets: &'a Tensor,
    /// Slope of the soft cap at the targets, `[n]`, if there is a cap.
    pub(crate) slope: Option<&'a Tensor>,
}

/// Gradients of the head's weight and bias, summed over chunks in f32 or f64.
pub(crate) struct GradientSums {
    /// The weight's `.grad()` itself, or an f32 sum to be added to one in half precision.
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl GradientSums {
    pub(crate) fn of(head: &Head<'_>, kind: Kind) -> Result<Self> {
        let sum_of = |part: &Tensor| -> Result<Option<Tensor>> {
            if !part.requires_grad() {
                Ok(None)
            } else if gradient_kind(part)? == kind {
                defined_gradient(part).map(Some)
            } else {
                Ok(Some(Tensor::f_zeros(part.size(), (kind, part.device())).doing("allocating")?))
            }
        };
        Ok(Self { weight: sum_of(head.weight)?, bias: head.bias.map(sum_of).transpose()?.flatten() })
    }

    /// Adds the chunk's gradient, whose rows are multiplied by `scale` `[n, 1]`.
    pub(crate) fn add(&mut self, head: &Head<'_>, chunk: Chunk<'_>, scale: &Tensor) -> Result<()> {
        let Chunk { spread, states, targets, slope } = chunk;
        let doing = "accumulating the head's gradient";
        let at_target = slope.map_or_else(|| scale.shallow_clone(), |slope| scale * slope.unsqueeze(1)) * head.scale;
        if let Some(into) = &mut self.weight {
            let wide = states.to_kind(into.kind());
            spread.subtract_outer(into, &(&wide * scale * head.scale).to_kind(states.kind()))?;
            let _ = into.f_index_add_(0, targets, &(wide * &at_target)).doing(doing)?;
        }
        if let Some(into) = &mut self.bias {
            let _ = into.f_sub_(&spread.weighed(&(scale * head.scale))?).doing(doing)?;
            let _ = into.f_index_add_(0, targets, &at_target.squeeze_dim(1)).doing(doing)?;
        }
        Ok(())
    }

    /// Adds f32 sums to the half-precision `.grad()` that they belong to.
    pub(crate) fn finish(self, head: &Head<'_>) -> Result<()> {
        for (part, sum) in [(Some(head.weight), self.weight), (head.bias, self.bias)] {
            if let (Some(part), Some(sum)) = (part, sum)
                && gradient_kind(part)? != sum.kind()
            {
                let mut gradient = defined_gradient(part)?;
                gradient += sum.to_kind(gradient.kind());
            }
        }
        Ok(())
    }
}

/// Kind of `tensor.grad()`, or of the gradient that it would have.
fn gradient_kind(tensor: &Tensor) -> Result<Kind> {
    let gradient = tensor.grad();
    if gradient.defined() {
        return Ok(gradient.kind());
    }
    if !tensor.is_leaf() {
        let found = "computed from other tensors".to_owned();
        let expected = "a leaf of the graph, which has a gradient".to_owned();
        return Err(Error::Shape { name: "head", found, expected });
    }
    Ok(simplemix_torch::gradient_kind(tensor)?)
}

/// `tensor.grad()`, set to zeros first if it is undefined.
fn defined_gradient(tensor: &Tensor) -> Result<Tensor> {
    let gradient = tensor.grad();
    if gradient.defined() {
        return Ok(gradient);
    }
    let kind = gradient_kind(tensor)?;
    let zeros = Tensor::f_zeros(tensor.size(), (kind, tensor.device())).doing("making a gradient")?;
    simplemix_torch::set_gradient(tensor, Some(&zeros))?;
    Ok(zeros)
}
