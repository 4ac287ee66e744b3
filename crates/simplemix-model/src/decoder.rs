//! One decoder layer: attention and feed-forward, normalised as the family defines and added to the residual stream.
//!
//! The caller computes attention: packed training, prompt reading and stepwise generation differ in nothing else.
//! Letters: T tokens, H width, N query heads, K key/value heads, D head width, F feed-forward width.

use std::collections::HashMap;

use simplemix_torch::{Gate, rms_norm};
use tch::{Kind, Tensor};

use crate::attention::Heads;
use crate::config::{Activation, ModelConfig, NameMap, Norms, QkNorm};
use crate::error::{Doing, Result};
use crate::linear::{Product, Weights};
use crate::lora::Lora;
use crate::rope::Turn;

/// Tensors of a model by the decoder's names, and matrices of the active adapter by transformers' name of the module that they
/// change.
pub(crate) struct Parts<'a> {
    pub(crate) tensors: &'a HashMap<String, Tensor>,
    pub(crate) loras: &'a HashMap<String, Lora>,
    pub(crate) names: &'a NameMap,
}

/// A linear layer with the active adapter, if it changes this layer.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    lora: Option<Lora>,
}

/// Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467).
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
    /// Whether the factor is one plus the weight.
    offset: bool,
}

#[derive(Debug)]
pub(crate) struct Layer {
    before_attention: Option<RmsNorm>,
    qkv: Projections,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    o_proj: Linear,
    after_attention: Option<RmsNorm>,
    before_mlp: Option<RmsNorm>,
    gate_up: Projections,
    down_proj: Linear,
    after_mlp: Option<RmsNorm>,
    activation: Activation,
    qk_norm: QkNorm,
    head_dim: i64,
}

/// Linear layers with the same input: a matrix for each, or one for all.
#[derive(Debug)]
enum Projections {
    Each(Vec<Linear>),
    Fused(Box<Linear>, Vec<i64>),
}

/// Rotation and product that a forward pass uses in every layer.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// None: queries and keys are not rotated.
    pub(crate) turn: Option<&'a Turn>,
    pub(crate) products: Products<'a>,
}

/// How linear layers compute.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    pub(crate) product: Product,
    /// Keys of the tokens `[T]`, where adapters drop inputs.
    pub(crate) keys: Option<&'a Tensor>,
}

impl Linear {
    fn take(parts: &Parts<'_>, name: &str) -> Self {
        Self {
            weight: parts.tensors[&format!("{name}.weight")].shallow_clone(),
            bias: parts.tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
            lora: parts.loras.get(&parts.names.module(name)).cloned(),
        }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { weight: &self.weight, bias: self.bias.as_ref() }
    }

    fn forward(&self, x: &Tensor, products: Products<'_>) -> Result<Tensor> {
        Ok(forward(&[self], x, products)?.remove(0))
    }
}

/// Outputs of layers with the same input, which is cast for all their adapters once.
fn forward(layers: &[&Linear], x: &Tensor, Products { product, keys }: Products<'_>) -> Result<Vec<Tensor>> {
    let weights: Vec<Weights<'_>> = layers.iter().map(|layer| layer.weights()).collect();
    let plain = product(x, &weights)?;
    let Some(kind) = layers.iter().find_map(|layer| layer.lora.as_ref()).map(Lora::kind) else { return Ok(plain) };
    let x = x.f_to_kind(kind).doing("an adapter")?;
    let adapted = |(y, layer): (Tensor, &&Linear)| match &layer.lora {
        Some(lora) => lora.add_to(&y, &x, keys),
        None => Ok(y),
    };
    plain.into_iter().zip(layers).map(adapted).collect()
}

impl Projections {
    fn forward(&self, x: &Tensor, products: Products<'_>) -> Result<Vec<Tensor>> {
        match self {
            Self::Each(layers) => forward(&layers.iter().collect::<Vec<_>>(), x, products),
            Self::Fused(layer, widths) => {
                layer.forward(x, products)?.f_split_with_sizes(widths, -1).doing("splitting a fused projection")
            }
        }
    }
}

impl RmsNorm {
    pub(crate) fn take(tensors: &HashMap<String, Tensor>, name: &str, config: &ModelConfig) -> Self {
        let weight = tensors[&format!("{name}.weight")].shallow_clone();
        Self { weight, eps: config.rms_norm_eps, offset: config.norm_offset }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !self.offset {
            return Ok(rms_norm(x, &self.weight, self.eps)?);
        }
        // Gemma multiplies in f32 and rounds once.
        let factor = self.weight.to_kind(Kind::Float) + 1.0;
        let wide = x.f_to_kind(Kind::Float).doing("a norm")?;
        rms_norm(&wide, &factor, self.eps)?.f_to_kind(x.kind()).doing("a norm")
    }
}

/// `norm(x)`, or `x` without a norm.
fn normed(norm: Option<&RmsNorm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}

impl Layer {
    /// Takes layer `index` from checked tensors.
    pub(crate) fn take(parts: &Parts<'_>, index: usize, config: &ModelConfig) -> Self {
        let at = format!("model.layers.{index}");
        let linear = |name: &str| Linear::take(parts, &format!("{at}.{name}"));
        let norm = |name: &str| Some(RmsNorm::take(parts.tensors, &format!("{at}.{name}"), config));
        let (q, kv) = (config.query_width(), config.key_width());
        let (qkv, gate_up) = if config.fused_projections {
            let f = config.intermediate_size;
            (
                Projections::Fused(Box::new(linear("self_attn.qkv_proj")), vec![q, kv, kv]),
                Projections::Fused(Box::new(linear("mlp.gate_up_proj")), vec![f, f]),
            )
        } else {
            (
                Projections::Each(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(linear).into()),
                Projections::Each(["mlp.gate_proj", "mlp.up_proj"].map(linear).into()),
            )
        };
        let [before_attention, after_attention, before_mlp, after_mlp] = match config.norms {
            Norms::Before => [norm("input_layernorm"), None, norm("post_attention_layernorm"), None],
            Norms::After => [None, norm("post_attention_layernorm"), None, norm("post_feedforward_layernorm")],
            Norms::Both => [
                norm("input_layernorm"),
                norm("post_attention_layernorm"),
                norm("pre_feedforward_layernorm"),
                norm("post_feedforward_layernorm"),
            ],
        };
        let has_qk_norm = config.qk_norm != QkNorm::None;
        Self {
            before_attention,
            qkv,
            q_norm: if has_qk_norm { norm("self_attn.q_norm") } else { None },
            k_norm: if has_qk_norm { norm("self_attn.k_norm") } else { None },
            o_proj: linear("self_attn.o_proj"),
            after_attention,
            before_mlp,
            gate_up,
            down_proj: linear("mlp.down_proj"),
            after_mlp,
            activation: config.activation,
            qk_norm: config.qk_norm,
            head_dim: config.head_dim,
        }
    }

    /// Computes the layer for `x` `[T, H]`; `attend` maps heads to their mixed values `[T, N * D]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        work: Work<'_>,
        attend: impl FnOnce(Heads) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let before = normed(self.before_attention.as_ref(), x.shallow_clone())?;
        let attended = self.o_proj.forward(&attend(self.heads(&before, work)?)?, work.products)?;
        let x = x + normed(self.after_attention.as_ref(), attended)?;
        let before = normed(self.before_mlp.as_ref(), x.shallow_clone())?;
        Ok(&x + normed(self.after_mlp.as_ref(), self.feed_forward(&before, work.products)?)?)
    }

    fn feed_forward(&self, x: &Tensor, products: Products<'_>) -> Result<Tensor> {
        let gate_up = self.gate_up.forward(x, products)?;
        let gate = match self.activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
        };
        let gated = simplemix_torch::gated(&gate_up[0], &gate_up[1], gate)?;
        self.down_proj.forward(&gated, products)
    }

    fn heads(&self, x: &Tensor, Work { turn, products }: Work<'_>) -> Result<Heads> {
        let split = |t: Tensor| t.f_unflatten(-1, [-1, self.head_dim]).doing("splitting heads"); // [T, N, D]
        let parts: [Tensor; 3] = self.qkv.forward(x, products)?.try_into().expect("queries, keys and values are three");
        let [q, k, v] = parts;
        let turned = |t: Tensor, norm: Option<&RmsNorm>| {
            let heads = match self.qk_norm {
                QkNorm::Width => split(normed(norm, t)?)?,
                QkNorm::Head | QkNorm::None => normed(norm, split(t)?)?,
            };
            match turn {
                Some(turn) => turn.apply(&heads),
                None => Ok(heads),
            }
        };
        Ok(Heads { q: turned(q, self.q_norm.as_ref())?, k: turned(k, self.k_norm.as_ref())?, v: split(v)? })
    }
}
