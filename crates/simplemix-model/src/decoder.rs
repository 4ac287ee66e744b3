//! One decoder layer: attention, or what stands in its place, and feed-forward, normalised as the family defines and added to the
//! residual stream.
//!
//! The caller lets tokens learn of each other: packed training, prompt reading and stepwise generation differ in nothing else.
//! Letters: T tokens, H width, N query heads, K key/value heads, D head width, F feed-forward width; V value heads of the gated delta
//! rule, E width of their values.

use std::collections::HashMap;

use simplemix_torch::{Gate, rms_norm};
use tch::{Kind, Tensor};

use crate::activation::Active;
use crate::attention::{Heads, Mixing};
use crate::config::{
    Activation, CONVOLUTION, CORRECTION, DECAY_LOG, DeltaRule, EXPERT, FeedForward, GATED_NORM, LAYER_GATE,
    LAYER_OUTPUT, LAYER_OUTPUT_NORM, LAYER_SCALAR, ModelConfig, NameMap, NormKind, Norms, QkNorm, Qkv, ROUTER,
    SHORT_BIAS, SHORT_WEIGHT, STEP_BIAS, XIELU,
};
use crate::convolution::Window;
use crate::delta_rule::Delta;
use crate::error::{Doing, Result};
use crate::experts::{Loads, Made, Mixture};
use crate::linear::{Product, Weights};
use crate::lora::{Lora, Parameter, parameter_name};
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

/// A norm of rows.
#[derive(Debug)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    kind: NormKind,
    eps: f64,
    /// Whether the factor is one plus the weight.
    offset: bool,
}

#[derive(Debug)]
pub(crate) struct Layer {
    before_attention: Option<Norm>,
    mixer: Mixer,
    /// Output of attention, or of what stands in its place.
    output: Linear,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    pub(crate) fed: Fed,
    after_mlp: Option<Norm>,
    norms: Norms,
    residual_scale: f64,
    own_embedding: Option<OwnEmbedding>,
    /// Factor of the output, `[1]`.
    scalar: Option<Tensor>,
}

/// Feed-forward part of a layer.
#[derive(Debug)]
pub(crate) enum Fed {
    Dense(Box<Dense>),
    Experts(Box<Mixture>),
}

/// One feed-forward layer for all tokens.
#[derive(Debug)]
pub(crate) struct Dense {
    /// Gate and up, or up alone.
    gate_up: Projections,
    active: Active,
    down_proj: Linear,
}

/// Part of a layer that reads the layer's own embedding.
#[derive(Debug)]
struct OwnEmbedding {
    gate: Linear,
    active: Active,
    output: Linear,
    norm: Norm,
}

/// Part of a layer in which tokens learn of each other.
#[derive(Debug)]
enum Mixer {
    Attention(Box<Attention>),
    DeltaRule(Box<GatedDelta>),
    Convolution(Box<ShortConv>),
}

#[derive(Debug)]
struct Attention {
    qkv: Projections,
    q_norm: Option<Norm>,
    /// None where keys are another layer's too.
    k_norm: Option<Norm>,
    v_norm: Option<Norm>,
    qk_norm: QkNorm,
    head_dim: i64,
    query_scale: f64,
    /// Whether each query has a gate beside it.
    is_gated: bool,
}

#[derive(Debug)]
struct ShortConv {
    /// Numbers that are mixed, with the gates before and after.
    input: Projections,
    weight: Tensor, // [H, 1, kernel]
    bias: Option<Tensor>,
}

#[derive(Debug)]
struct GatedDelta {
    /// Queries, keys and values; the gate of what is read; strengths; time steps.
    inputs: Projections,
    convolution: Tensor, // [C, 1, kernel]
    decay_log: Tensor,   // [V]
    step_bias: Tensor,   // [V]
    norm: Norm,
    rule: DeltaRule,
}

/// Linear layers with the same input: a matrix for each, or one for all.
#[derive(Debug)]
enum Projections {
    Each(Vec<Linear>),
    /// One after the other, of so many outputs.
    Fused(Box<Linear>, Vec<i64>),
    /// Three, head by head, of heads of this width.
    ByHead(Box<Linear>, i64),
}

/// Inputs of a forward pass in a layer beside the residual stream.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// Rotation, if there is one.
    pub(crate) turn: Option<&'a Turn>,
    pub(crate) products: Products<'a>,
    /// Keys and values `[T, K, D]` of an earlier layer, where they are read.
    pub(crate) keys: Option<&'a [Tensor; 2]>,
    /// The layer's own embedding `[T, P]`, if it has one.
    pub(crate) own: Option<&'a Tensor>,
    /// Loads of experts, where they are counted.
    pub(crate) loads: Option<&'a Loads>,
}

/// How linear layers compute.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    pub(crate) product: Product,
    /// Keys of the tokens `[T]`, where adapters drop inputs.
    pub(crate) keys: Option<&'a Tensor>,
}

impl Linear {
    pub(crate) fn take(parts: &Parts<'_>, name: &str) -> Self {
        Self {
            weight: parts.tensors[&format!("{name}.weight")].shallow_clone(),
            bias: parts.tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
            lora: parts.loras.get(&parts.names.module(name)).cloned(),
        }
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn weights(&self) -> Weights<'_> {
        Weights { weight: &self.weight, bias: self.bias.as_ref() }
    }

    pub(crate) fn forward(&self, x: &Tensor, products: Products<'_>) -> Result<Tensor> {
        Ok(forward(&[self], x, products)?.remove(0))
    }
}

impl Products<'_> {
    /// `x W^T` without adapters.
    pub(crate) fn plain(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Ok((self.product)(x, &[Weights { weight, bias: None }])?.remove(0))
    }
}

/// Outputs of layers with the same input, which is cast for all their adapters once.
pub(crate) fn forward(layers: &[&Linear], x: &Tensor, Products { product, keys }: Products<'_>) -> Result<Vec<Tensor>> {
    let weights: Vec<Weights<'_>> = layers.iter().map(|layer| layer.weights()).collect();
    let plain = product(x, &weights)?;
    let Some(kind) = layers.iter().find_map(|layer| layer.lora.as_ref()).map(Lora::kind) else { return Ok(plain) };
    let x = x.f_to_kind(kind).doing("an adapter")?;
    let adapted = |(y, layer): (Tensor, &&Linear)| match &layer.lora {
        Some(lora) => lora.add_to(&y, &x, layer.bias.as_ref(), keys),
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
            Self::ByHead(layer, width) => {
                let all = layer.forward(x, products)?; // [T, N * 3 * D]
                let of = |part: i64| all.f_unflatten(-1, [-1, 3, *width])?.f_select(2, part)?.f_flatten(1, 2);
                (0..3).map(of).collect::<std::result::Result<_, _>>().doing("splitting a fused projection")
            }
        }
    }
}

impl Norm {
    pub(crate) fn take(tensors: &HashMap<String, Tensor>, name: &str, config: &ModelConfig) -> Self {
        Self {
            weight: tensors[&format!("{name}.weight")].shallow_clone(),
            bias: tensors.get(&format!("{name}.bias")).map(Tensor::shallow_clone),
            kind: config.norm_kind,
            eps: config.rms_norm_eps,
            offset: config.norm_offset,
        }
    }

    /// A norm of heads by their root mean square, with no weight; `like` `[D]` is of the weights' kind and device.
    fn plain(like: &Tensor, config: &ModelConfig) -> Self {
        Self { weight: like.ones_like(), bias: None, kind: NormKind::Rms, eps: config.rms_norm_eps, offset: false }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.kind {
            NormKind::Rms => self.by_root(x),
            NormKind::Layer | NormKind::LayerBias => self.by_variance(x),
        }
    }

    fn by_variance(&self, x: &Tensor) -> Result<Tensor> {
        let width = *self.weight.size().last().expect("a norm's weight has a width");
        let normed = || {
            if self.weight.dim() == 1 {
                return x.f_layer_norm([width], Some(&self.weight), self.bias.as_ref(), self.eps, true);
            }
            // Each head has a weight of its own, where libtorch's function takes one for all rows.
            let wide = x.f_to_kind(Kind::Float)?.f_layer_norm([width], None::<&Tensor>, None, self.eps, true)?;
            wide.f_mul(&self.weight.f_to_kind(Kind::Float)?)?.f_to_kind(x.kind())
        };
        normed().doing("a norm")
    }

    fn by_root(&self, x: &Tensor) -> Result<Tensor> {
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
fn normed(norm: Option<&Norm>, x: Tensor) -> Result<Tensor> {
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
        let norm = |name: &str| Some(Norm::take(parts.tensors, &format!("{at}.{name}"), config));
        let (mixer, output) = match (config.delta_rule_of(index), config.convolution_of(index)) {
            (Some(rule), _) => {
                (Mixer::DeltaRule(Box::new(GatedDelta::take(parts, &at, rule, config))), "linear_attn.out_proj")
            }
            (None, Some(_)) => (Mixer::Convolution(Box::new(ShortConv::take(parts, &at, config))), "conv.out_proj"),
            (None, None) => (Mixer::Attention(Box::new(Attention::take(parts, index, config))), "self_attn.o_proj"),
        };
        let fed = match config.experts_of(index) {
            Some(experts) => {
                let trio = |of: &str| EXPERT.map(|part| linear(&format!("mlp.{of}.{part}")));
                let tensor = |name: &str| parts.tensors.get(&format!("{at}.{name}")).map(Tensor::shallow_clone);
                let made = Made {
                    router: parts.tensors[&format!("{at}.{ROUTER}")].shallow_clone(),
                    correction: tensor(CORRECTION),
                    experts: (0..experts.count).map(|expert| trio(&format!("experts.{expert}"))).collect(),
                    shared: (experts.shared_width > 0).then(|| trio("shared_experts")),
                    loras: [Parameter::Router, Parameter::GateUp, Parameter::Down]
                        .map(|parameter| parts.loras.get(&parameter_name(config, index, parameter)).cloned()),
                };
                Fed::Experts(Box::new(Mixture::new(experts, config, made)))
            }
            None => Fed::Dense(Box::new(Dense::take(parts, index, config))),
        };
        let [before_attention, after_attention, before_mlp, after_mlp] = match config.norms {
            Norms::Before | Norms::Parallel => [norm("input_layernorm"), None, norm("post_attention_layernorm"), None],
            Norms::ParallelShared => [norm("input_layernorm"), None, None, None],
            Norms::After => [None, norm("post_attention_layernorm"), None, norm("post_feedforward_layernorm")],
            Norms::Both => [
                norm("input_layernorm"),
                norm("post_attention_layernorm"),
                norm("pre_feedforward_layernorm"),
                norm("post_feedforward_layernorm"),
            ],
        };
        let own_embedding = config.per_layer_embedding.map(|_| OwnEmbedding {
            gate: linear(LAYER_GATE),
            active: Active::Fixed(config.activation),
            output: linear(LAYER_OUTPUT),
            norm: Norm::take(parts.tensors, &format!("{at}.{LAYER_OUTPUT_NORM}"), config),
        });
        Self {
            before_attention,
            mixer,
            output: linear(output),
            after_attention,
            before_mlp,
            fed,
            after_mlp,
            norms: config.norms,
            residual_scale: config.residual_scale,
            own_embedding,
            scalar: parts.tensors.get(&format!("{at}.{LAYER_SCALAR}")).map(Tensor::shallow_clone),
        }
    }

    /// Computes the layer for `x` `[T, H]`; `mix` maps heads to their mixed values `[T, N * D]`, and what the gated delta rule takes to
    /// what is read, `[T, V * E]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        work: Work<'_>,
        mix: impl FnOnce(Mixing<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let before = normed(self.before_attention.as_ref(), x.shallow_clone())?;
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&before, work, mix)?,
            Mixer::DeltaRule(delta) => delta.forward(&before, work.products, mix)?,
            Mixer::Convolution(convolution) => convolution.forward(&before, work.products, mix)?,
        };
        let attended = self.output.forward(&mixed, work.products)?;
        let attended = x + self.scaled(normed(self.after_attention.as_ref(), attended)?);
        let before = match self.norms {
            Norms::ParallelShared => before,
            Norms::Parallel => normed(self.before_mlp.as_ref(), x.shallow_clone())?,
            _ => normed(self.before_mlp.as_ref(), attended.shallow_clone())?,
        };
        let fed = match &self.fed {
            Fed::Dense(dense) => dense.forward(&before, work.products)?,
            Fed::Experts(mixture) => mixture.forward(&before, work.products, work.loads)?,
        };
        let fed = attended + self.scaled(normed(self.after_mlp.as_ref(), fed)?);
        let with_own = match (&self.own_embedding, work.own) {
            (Some(part), Some(own)) => &fed + part.forward(&fed, own, work.products)?,
            _ => fed,
        };
        match &self.scalar {
            Some(scalar) => with_own.f_mul(scalar).doing("scaling a layer's output"),
            None => Ok(with_own),
        }
    }

    /// An addition to the residual stream.
    fn scaled(&self, x: Tensor) -> Tensor {
        if self.residual_scale == 1.0 { x } else { x * self.residual_scale }
    }
}

impl Dense {
    fn take(parts: &Parts<'_>, index: usize, config: &ModelConfig) -> Self {
        let at = format!("model.layers.{index}");
        let linear = |name: &str| Linear::take(parts, &format!("{at}.{name}"));
        let f = config.feed_forward_width(index);
        let gate_up = match config.feed_forward {
            FeedForward::Gated => Projections::Each(["mlp.gate_proj", "mlp.up_proj"].map(linear).into()),
            FeedForward::GatedFused => Projections::Fused(Box::new(linear("mlp.gate_up_proj")), vec![f, f]),
            FeedForward::Plain => Projections::Each(vec![linear("mlp.up_proj")]),
        };
        let active = match config.activation {
            Activation::Xielu => {
                Active::Xielu(XIELU.map(|name| parts.tensors[&format!("{at}.{name}")].shallow_clone()))
            }
            fixed => Active::Fixed(fixed),
        };
        Self { gate_up, active, down_proj: linear("mlp.down_proj") }
    }

    fn forward(&self, x: &Tensor, products: Products<'_>) -> Result<Tensor> {
        let active = match &self.gate_up.forward(x, products)?[..] {
            [gate, up] => self.active.gated(gate, up)?,
            up => self.active.apply(&up[0])?,
        };
        self.down_proj.forward(&active, products)
    }
}

impl OwnEmbedding {
    /// Addition `[T, H]` to the residual stream `x` `[T, H]` by the layer's embedding `[T, P]`.
    fn forward(&self, x: &Tensor, own: &Tensor, products: Products<'_>) -> Result<Tensor> {
        let active = self.active.gated(&self.gate.forward(x, products)?, own)?;
        self.norm.forward(&self.output.forward(&active, products)?)
    }
}

impl Attention {
    fn take(parts: &Parts<'_>, index: usize, config: &ModelConfig) -> Self {
        let name = |name: &str| format!("model.layers.{index}.self_attn.{name}");
        let linear = |part: &str| Linear::take(parts, &name(part));
        let norm =
            |part: &str| (config.qk_norm != QkNorm::None).then(|| Norm::take(parts.tensors, &name(part), config));
        let (q, kv) = (config.query_width(index), config.key_width(index));
        let (head_dim, layer) = (config.head_width(index), config.layer(index));
        let qkv_proj = || Box::new(linear("qkv_proj"));
        let apart: &[&str] = match (layer.keys_of, layer.values_are_keys) {
            (Some(_), _) => &["q_proj"],
            (None, true) => &["q_proj", "k_proj"],
            (None, false) => &["q_proj", "k_proj", "v_proj"],
        };
        let k_norm = if layer.keys_of.is_none() { norm("k_norm") } else { None };
        Self {
            qkv: match config.qkv {
                Qkv::Apart => Projections::Each(apart.iter().map(|part| linear(part)).collect()),
                Qkv::Fused => Projections::Fused(qkv_proj(), vec![q, kv, kv]),
                Qkv::FusedByHead => Projections::ByHead(qkv_proj(), head_dim),
            },
            q_norm: norm("q_norm"),
            v_norm: k_norm.as_ref().filter(|_| config.value_norm).map(|of| Norm::plain(&of.weight, config)),
            k_norm,
            qk_norm: config.qk_norm,
            head_dim,
            query_scale: layer.query_scale,
            is_gated: config.gated_attention,
        }
    }

    /// Mixed values `[T, N * D]` of `x` `[T, H]`.
    fn forward(&self, x: &Tensor, work: Work<'_>, mix: impl FnOnce(Mixing<'_>) -> Result<Tensor>) -> Result<Tensor> {
        let mut parts = self.qkv.forward(x, work.products)?;
        let q = parts.remove(0);
        let [k, v] = self.keys(parts, work)?;
        if !self.is_gated {
            return mix(Mixing::Heads(Heads { q: self.queries(q, work.turn)?, k, v }));
        }
        // Each head's query and its gate, one after the other.
        let halves = || q.f_unflatten(-1, [-1, 2, self.head_dim])?.f_unbind(2);
        let halves = halves().doing("splitting queries and gates")?;
        let [q, gate] = [&halves[0], &halves[1]].map(|half| half.f_flatten(1, 2).doing("splitting queries and gates"));
        let mixed = mix(Mixing::Heads(Heads { q: self.queries(q?, work.turn)?, k, v }))?;
        mixed.f_mul(&gate?.f_sigmoid().doing("a gate")?).doing("a gate")
    }

    /// Queries `[T, N, D]`.
    fn queries(&self, q: Tensor, turn: Option<&Turn>) -> Result<Tensor> {
        let q = self.turned(q, self.q_norm.as_ref(), turn)?;
        let q = match turn {
            Some(turn) => turn.grown(q)?,
            None => q,
        };
        Ok(if self.query_scale == 1.0 { q } else { q * self.query_scale })
    }

    /// Keys and values `[T, K, D]` of what the projections give: keys and values, keys for both, or nothing where those of another
    /// layer are read.
    fn keys(&self, mut parts: Vec<Tensor>, work: Work<'_>) -> Result<[Tensor; 2]> {
        let Some(k) = (!parts.is_empty()).then(|| parts.remove(0)) else {
            let [k, v] = work.keys.expect("a layer whose keys are read comes before those that read them");
            return Ok([k.shallow_clone(), v.shallow_clone()]);
        };
        let v = self.split(parts.pop().unwrap_or_else(|| k.shallow_clone()))?;
        Ok([self.turned(k, self.k_norm.as_ref(), work.turn)?, normed(self.v_norm.as_ref(), v)?])
    }

    fn split(&self, t: Tensor) -> Result<Tensor> {
        t.f_unflatten(-1, [-1, self.head_dim]).doing("splitting heads") // [T, N, D]
    }

    fn turned(&self, t: Tensor, norm: Option<&Norm>, turn: Option<&Turn>) -> Result<Tensor> {
        let heads = match self.qk_norm {
            QkNorm::Width => self.split(normed(norm, t)?)?,
            QkNorm::Head | QkNorm::EachHead | QkNorm::None => normed(norm, self.split(t)?)?,
        };
        match turn {
            Some(turn) => turn.apply(&heads),
            None => Ok(heads),
        }
    }
}

impl ShortConv {
    fn take(parts: &Parts<'_>, at: &str, config: &ModelConfig) -> Self {
        let h = config.hidden_size;
        let input = Box::new(Linear::take(parts, &format!("{at}.conv.in_proj")));
        Self {
            input: Projections::Fused(input, vec![h, h, h]),
            weight: parts.tensors[&format!("{at}.{SHORT_WEIGHT}")].shallow_clone(),
            bias: parts.tensors.get(&format!("{at}.{SHORT_BIAS}")).map(Tensor::shallow_clone),
        }
    }

    /// Mixed and gated numbers `[T, H]` of `x` `[T, H]`.
    fn forward(
        &self,
        x: &Tensor,
        products: Products<'_>,
        mix: impl FnOnce(Mixing<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [before, after, x]: [Tensor; 3] =
            self.input.forward(x, products)?.try_into().expect("the gates and what they are for are three");
        let x = before.f_mul(&x).doing("a gate")?;
        let mixed = mix(Mixing::Window(Window { x, weight: &self.weight, bias: self.bias.as_ref() }))?;
        after.f_mul(&mixed).doing("a gate")
    }
}

impl GatedDelta {
    fn take(parts: &Parts<'_>, at: &str, rule: DeltaRule, config: &ModelConfig) -> Self {
        let linear = |name: &str| Linear::take(parts, &format!("{at}.linear_attn.{name}"));
        let tensor = |name: &str| parts.tensors[&format!("{at}.{name}")].shallow_clone();
        Self {
            inputs: Projections::Each(["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"].map(linear).into()),
            convolution: tensor(CONVOLUTION),
            decay_log: tensor(DECAY_LOG),
            step_bias: tensor(STEP_BIAS),
            norm: Norm {
                weight: tensor(GATED_NORM),
                bias: None,
                kind: NormKind::Rms,
                eps: config.rms_norm_eps,
                offset: false,
            },
            rule,
        }
    }

    /// Values read, normed and gated, `[T, V * E]`, of `x` `[T, H]`.
    fn forward(
        &self,
        x: &Tensor,
        products: Products<'_>,
        mix: impl FnOnce(Mixing<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let parts: [Tensor; 4] = self.inputs.forward(x, products)?.try_into().expect("the projections are four");
        let [qkv, z, b, a] = parts;
        let decay = || {
            let steps = a.f_to_kind(Kind::Float)?.f_add(&self.step_bias)?.f_softplus()?;
            self.decay_log.f_to_kind(Kind::Float)?.f_exp()?.f_neg()?.f_mul(&steps)
        };
        let (decay, beta) = (decay().doing("decays")?, b.f_sigmoid().doing("a gate")?);
        let convolution = &self.convolution;
        let read = mix(Mixing::Delta(Delta { qkv, decay, beta, convolution, rule: self.rule }))?;
        let heads = read.f_unflatten(-1, [-1, self.rule.value_dim]).doing("splitting heads")?; // [T, V, E]
        let normed = self.norm.forward(&heads)?.f_flatten(1, 2).doing("joining heads")?;
        let [z, normed] = [&z, &normed].map(|t| t.f_to_kind(Kind::Float).doing("a gate"));
        simplemix_torch::gated(&z?, &normed?, Gate::Silu)?.f_to_kind(read.kind()).doing("a gate")
    }
}
