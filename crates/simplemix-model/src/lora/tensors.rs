//! Matrices of an adapter: added to a layer's output or to an embedding, merged into a weight, and dropped inputs in training.
//!
//! Letters: r rank, T tokens, I inputs and O outputs of a linear layer, V vocabulary, H width.

use simplemix_torch::keyed_dropout;
use tch::{Kind, Tensor};

use super::dora::Dora;
use crate::error::{Doing, Result};

/// The matrices that change one linear layer.
#[derive(Debug)]
pub(crate) struct Lora {
    pub(super) pair: Pair,
    pub(super) dropout: Option<Dropout>,
    pub(super) dora: Option<Dora>,
}

/// The matrices that change the embedding.
#[derive(Debug)]
pub(crate) struct EmbeddingLora {
    /// A `[r, V]` and B `[H, r]`.
    pub(super) pair: Pair,
    pub(super) dora: Option<Dora>,
}

/// Two matrices and the factor of their product.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) a: Tensor, // [r, I]
    pub(super) b: Tensor, // [O, r]
    pub(super) scale: f64,
}

/// Inputs of a linear layer that are dropped: a function of seed, module, token and feature, so that neither packing nor a
/// second computation of a layer changes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    pub(super) share: f64,
    pub(super) seed: u32,
}

/// Change of a weight of the model.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Linear(Lora),
    Embedding(EmbeddingLora),
}

impl Clone for Pair {
    fn clone(&self) -> Self {
        Self { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale }
    }
}

impl Clone for Lora {
    fn clone(&self) -> Self {
        Self { pair: self.pair.clone(), dropout: self.dropout, dora: self.dora.clone() }
    }
}

impl Clone for EmbeddingLora {
    fn clone(&self) -> Self {
        Self { pair: self.pair.clone(), dora: self.dora.clone() }
    }
}

impl Pair {
    /// `B A * scale` in f32, `[O, I]`.
    fn product(&self) -> std::result::Result<Tensor, tch::TchError> {
        self.b.f_to_kind(Kind::Float)?.f_matmul(&self.a.f_to_kind(Kind::Float)?)?.f_mul_scalar_(self.scale)
    }
}

impl Lora {
    /// Output of the layer with the adapter's part, where `y` is its own with `bias`, `x` has the adapter's kind and `keys` `[T]` are
    /// the tokens' for dropout: `y + dropout(x) A^T B^T * scale`. Adapters of half-precision weights are f32, as in peft.
    pub(crate) fn add_to(
        &self,
        y: &Tensor,
        x: &Tensor,
        bias: Option<&Tensor>,
        keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Pair { a, b, scale } = &self.pair;
        let dropped = match (self.dropout, keys) {
            (Some(Dropout { share, seed }), Some(keys)) => Some(keyed_dropout(x, keys, seed, share)?),
            _ => None,
        };
        // Scaled where it is narrow.
        let low = || Ok::<_, tch::TchError>(dropped.as_ref().unwrap_or(x).f_linear(a, None::<&Tensor>)? * *scale); // [T, r]
        if let Some(dora) = &self.dora {
            let low = low().doing("an adapter")?;
            return dora.scaled(&self.pair, y, bias, &low, dropped.as_ref());
        }
        let added = || {
            let low = low()?;
            if low.kind() == y.kind() {
                // Added by the product itself: nothing as wide as `y` is written in between.
                return y.f_addmm(&low, &b.tr());
            }
            y.f_add(&low.f_linear(b, None::<&Tensor>)?.f_to_kind(y.kind())?)
        };
        added().doing("an adapter")
    }

    /// Kind of the adapter's matrices.
    pub(crate) fn kind(&self) -> Kind {
        self.pair.a.kind()
    }

    /// `weight + B A * scale`, `[O, I]`, on the weight's device and in its kind. The sum is in f32, and the only tensor of this
    /// size that is made, but for its rounding to half precision.
    fn merged_into(&self, weight: &Tensor) -> Result<Tensor> {
        let merged = || {
            let mut sum = self.pair.product()?.f_add_(weight)?;
            if let Some(dora) = &self.dora {
                sum *= dora.factor_over(weight, &self.pair)?.unsqueeze(1);
            }
            sum.f_to_kind(weight.kind())
        };
        merged().doing("merging an adapter")
    }

    /// The changed weight, through which gradients reach the matrices.
    pub(crate) fn composed(&self, weight: &Tensor) -> Result<Tensor> {
        let Pair { a, b, scale } = &self.pair;
        let composed = || {
            let sum = b.f_matmul(a)?.f_mul_scalar(*scale)?.f_add(weight)?;
            let sum = match &self.dora {
                Some(dora) => sum.f_mul(&dora.factor(&self.pair)?.unsqueeze(1))?,
                None => sum,
            };
            sum.f_to_kind(weight.kind())
        };
        composed().doing("an adapter of the output head")
    }
}

impl EmbeddingLora {
    /// `x + A^T[tokens] B^T * scale`, where `x` `[T, H]` are the embeddings of `tokens` `[T]`. The row `padding` of `A^T` gets no
    /// gradient, as in peft; -1 for none.
    pub(crate) fn add_to(&self, x: &Tensor, tokens: &Tensor, padding: i64) -> Result<Tensor> {
        let Pair { a, b, scale } = &self.pair;
        let added = || {
            let low = Tensor::f_embedding(&a.tr(), tokens, padding, false, false)? * *scale; // [T, r]
            let added = low.f_linear(b, None::<&Tensor>)?;
            let wide = x.f_to_kind(added.kind())?;
            let sum = wide.f_add(&added)?;
            let sum = match &self.dora {
                Some(dora) => sum.f_mul(&dora.factor(&self.pair)?)?,
                None => sum,
            };
            sum.f_to_kind(x.kind())
        };
        added().doing("an adapter of the embedding")
    }

    /// `weight + (B A)^T * scale`, `[V, H]`.
    fn merged_into(&self, weight: &Tensor) -> Result<Tensor> {
        let merged = || {
            let mut sum = self.pair.product()?.f_tr()?.f_contiguous()?.f_add_(weight)?;
            if let Some(dora) = &self.dora {
                sum *= dora.factor_over(weight, &self.pair)?;
            }
            sum.f_to_kind(weight.kind())
        };
        merged().doing("merging an adapter")
    }
}

impl Change {
    /// The changed weight, without gradients.
    pub(crate) fn merged_into(&self, weight: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        match self {
            Self::Linear(lora) => lora.merged_into(weight),
            Self::Embedding(lora) => lora.merged_into(weight),
        }
    }
}
