//! One decoder layer: attention and feed-forward, each behind a norm and added to the residual stream.
//!
//! How queries meet keys is the caller's: packed training, prompt reading and stepwise generation differ in nothing
//! else. Letters: T tokens, H width, N query heads, K key/value heads, D head width.

use std::collections::HashMap;

use tch::Tensor;

use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::rope::Turn;

/// `x W^T + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467).
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

#[derive(Debug)]
pub(crate) struct Layer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    head_dim: i64,
}

/// Queries `[T, N, D]`, keys and values `[T, K, D]`; queries and keys are rotated.
pub(crate) struct Heads {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl Linear {
    fn take(tensors: &HashMap<String, Tensor>, name: &str) -> Self {
        Self {
            weight: tensors[&format!("{name}.weight")].shallow_clone(),
            bias: tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_linear(&self.weight, self.bias.as_ref()).doing("a linear layer")
    }
}

impl RmsNorm {
    pub(crate) fn take(tensors: &HashMap<String, Tensor>, name: &str, eps: f64) -> Self {
        Self { weight: tensors[&format!("{name}.weight")].shallow_clone(), eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_rms_norm(self.weight.size(), Some(&self.weight), self.eps).doing("a norm")
    }
}

impl Layer {
    /// Layer `index` out of checked tensors.
    pub(crate) fn take(tensors: &HashMap<String, Tensor>, index: usize, config: &ModelConfig) -> Self {
        let at = format!("model.layers.{index}");
        let linear = |name: &str| Linear::take(tensors, &format!("{at}.{name}"));
        let norm = |name: &str| RmsNorm::take(tensors, &format!("{at}.{name}"), config.rms_norm_eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            q_proj: linear("self_attn.q_proj"),
            k_proj: linear("self_attn.k_proj"),
            v_proj: linear("self_attn.v_proj"),
            o_proj: linear("self_attn.o_proj"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            gate_proj: linear("mlp.gate_proj"),
            up_proj: linear("mlp.up_proj"),
            down_proj: linear("mlp.down_proj"),
            head_dim: config.head_dim,
        }
    }

    /// `x` `[T, H]` through the layer; `attend` turns heads into their mixed values `[T, N * D]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        turn: &Turn,
        attend: impl FnOnce(Heads) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let attended = attend(self.heads(&self.input_layernorm.forward(x)?, turn)?)?;
        let x = x + self.o_proj.forward(&attended)?;
        let y = self.post_attention_layernorm.forward(&x)?;
        let gated = self.gate_proj.forward(&y)?.silu() * self.up_proj.forward(&y)?;
        Ok(x + self.down_proj.forward(&gated)?)
    }

    fn heads(&self, x: &Tensor, turn: &Turn) -> Result<Heads> {
        let split = |t: Tensor| t.f_unflatten(-1, [-1, self.head_dim]).doing("splitting heads"); // [T, N, D]
        Ok(Heads {
            q: turn.apply(&split(self.q_proj.forward(x)?)?)?,
            k: turn.apply(&split(self.k_proj.forward(x)?)?)?,
            v: split(self.v_proj.forward(x)?)?,
        })
    }
}
