//! `config.json` of a Hugging Face folder, checked.
//!
//! A family differs from Llama in named settings, which [`crate::family`] reads from the family's own
//! keys. A setting that would change the numbers and that this crate does not compute is refused by name; keys that
//! transformers does not read for the family are ignored, as it does. Dropout is off, as in TRL.

mod convolution;
mod defaults;
mod delta;
mod experts;
mod keys;
pub(crate) mod limits;
mod names;
mod per_layer;
mod rope;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use convolution::ShortConvolution;
pub(crate) use convolution::{SHORT_BIAS, SHORT_WEIGHT};
pub(crate) use defaults::{Defaults, Heads, SizeKeys};
pub use delta::DeltaRule;
pub(crate) use delta::{CONVOLUTION, DECAY_LOG, GATED_NORM, STEP_BIAS};
pub(crate) use experts::{CORRECTION, EXPERT, ROUTER, expert_weight};
pub use experts::{Experts, Routing};
pub(crate) use keys::Keys;
pub(crate) use names::NameMap;
pub use per_layer::PerLayerEmbedding;
pub(crate) use per_layer::{
    LAYER_GATE, LAYER_OUTPUT, LAYER_OUTPUT_NORM, LAYER_PROJECTION, LAYER_PROJECTION_NORM, LAYER_SCALAR, LAYER_TABLE,
};
pub(crate) use rope::{
    Bases, Frame, LengthRule, PartialKeys, Rule, as_it_is, by_kind_of_layer, long_rope, proportional,
};
pub use rope::{QueryGrowth, RopeConfig, RopePairs, RopeScaling};

use crate::error::Result;
use crate::family::{self, Multimodal};
use crate::quantized::Method;
use crate::residence::Stage;
use crate::reward::SCORE;

/// The output head's name inside of the crate.
pub(crate) const HEAD: &str = "lm_head.weight";
/// The embedding's name inside of the crate.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// Vectors of the positions.
pub(crate) const POSITIONS: &str = "model.embed_positions.weight";
/// Slopes of xIELU above and below zero, in a layer.
pub(crate) const XIELU: [&str; 2] = ["mlp.act_fn.alpha_p", "mlp.act_fn.alpha_n"];
/// Slope of xIELU at zero, and where its exponential part ends, in a layer; transformers has them in files.
pub(crate) const XIELU_CONSTANTS: [(&str, f64); 2] = [("mlp.act_fn.beta", 0.5), ("mlp.act_fn.eps", -1e-6)];

/// Shape and constants of a decoder, in Hugging Face's names; made from a `config.json` alone.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The family, by transformers' name: one of [`crate::MODEL_TYPES`].
    pub model_type: String,
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: i64,
    /// Width of a head; even, if heads are rotated.
    pub head_dim: i64,
    /// Added to a norm's mean square, or variance, before its root is taken.
    pub rms_norm_eps: f64,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: i64,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Projections that have a bias.
    pub biases: Biases,
    /// Form of the feed-forward layer.
    pub feed_forward: FeedForward,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Norms of a layer.
    pub norms: Norms,
    /// Kind of the norms.
    pub norm_kind: NormKind,
    /// Whether a norm multiplies by one plus its weight.
    pub norm_offset: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Multiplies embeddings.
    pub embedding_scale: f64,
    /// Whether that factor is rounded to the weights' element type first.
    pub rounds_embedding_scale: bool,
    /// Multiplies what attention and feed-forward add to the residual stream.
    pub residual_scale: f64,
    /// Multiplies products of queries and keys.
    pub attention_scale: f64,
    /// `c` of `c * tanh(x / c)` over scaled products of queries and keys.
    pub attention_soft_cap: Option<f64>,
    /// Multiplies logits, before they are capped.
    pub logit_scale: f64,
    /// `c` of `c * tanh(x / c)` over logits.
    pub logit_soft_cap: Option<f64>,
    /// Matrices of queries, keys and values.
    pub qkv: Qkv,
    /// Whether attention's result is multiplied by the sigmoid of a gate, which the matrix of queries has beside each of them.
    pub gated_attention: bool,
    /// Whether values are divided by the root mean square of each head's.
    pub value_norm: bool,
    /// Embeddings that each layer reads beside the residual stream, if there are such.
    pub per_layer_embedding: Option<PerLayerEmbedding>,
    /// Whether a layer's output is multiplied by a number of the checkpoint, which is not trained.
    pub layer_scalars: bool,
    /// Sizes of layers that have the gated delta rule in place of attention, if there are such.
    pub delta_rule: Option<DeltaRule>,
    /// Layers that have a short convolution in place of attention, if there are such.
    pub short_convolution: Option<ShortConvolution>,
    /// Layers whose feed-forward part is a mixture of experts, if there are such.
    pub experts: Option<Experts>,
    /// Whether each position has a vector that is added to the embedding; there are
    /// [`ModelConfig::max_position_embeddings`] of them.
    pub learned_positions: bool,
    /// Rotary embeddings; layers name theirs by number.
    pub ropes: Vec<RopeConfig>,
    /// Settings that differ from layer to layer.
    pub layers: Vec<LayerConfig>,
    /// Token that fills up rows, which a reward model passes over at the end of a text.
    pub(crate) pad_token_id: Option<i64>,
    /// Whether the embedding of that token is trained; nearly all of transformers' classes keep it as it is (`padding_idx`).
    pub(crate) trains_padding: bool,
    /// Names of transformers' class.
    pub(crate) names: NameMap,
    /// Whether files hold the weights of a layer's linear layers as `[in, out]`.
    pub(crate) turned_linear: bool,
    /// The class whose text part this is, if it is one.
    pub(crate) multimodal: Option<&'static Multimodal>,
    /// The file.
    pub(crate) json: Value,
}

/// Settings that differ from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerConfig {
    /// How tokens learn of each other.
    pub kind: LayerKind,
    /// Tokens that a token sees, itself the last of them; none: all before it.
    pub window: Option<i64>,
    /// Number of its entry in [`ModelConfig::ropes`]; none: queries and keys are not rotated.
    pub rope: Option<usize>,
    /// Multiplies queries, beside [`ModelConfig::attention_scale`].
    pub query_scale: f64,
    /// Width of a head; none: [`ModelConfig::head_dim`].
    pub head_dim: Option<i64>,
    /// Key and value heads; none: [`ModelConfig::num_key_value_heads`].
    pub key_heads: Option<i64>,
    /// Width of the feed-forward layer; none: [`ModelConfig::intermediate_size`].
    pub intermediate_size: Option<i64>,
    /// Whether values are the keys, before these are normed and rotated.
    pub values_are_keys: bool,
    /// Earlier layer whose keys and values are read; none: the layer's own.
    pub keys_of: Option<usize>,
    /// Whether the feed-forward part is a mixture of experts: [`ModelConfig::experts`].
    pub is_sparse: bool,
}

impl LayerConfig {
    /// A layer that sees everything, with the first rotary embedding.
    pub(crate) const PLAIN: Self = Self {
        kind: LayerKind::Attention,
        window: None,
        rope: Some(0),
        query_scale: 1.0,
        head_dim: None,
        key_heads: None,
        intermediate_size: None,
        values_are_keys: false,
        keys_of: None,
        is_sparse: false,
    };
}

/// How the tokens of a layer learn of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerKind {
    /// By attention.
    Attention,
    /// By a state that each token changes: [`ModelConfig::delta_rule`].
    DeltaRule,
    /// By a convolution over a few tokens: [`ModelConfig::short_convolution`].
    Convolution,
}

/// Projections that have a bias.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The attention's output.
    pub output: bool,
    /// Feed-forward.
    pub mlp: bool,
}

/// Form of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// `down(act(gate(x)) * up(x))`.
    Gated,
    /// As [`FeedForward::Gated`], with gate and up in one matrix.
    GatedFused,
    /// `down(act(up(x)))`.
    Plain,
}

/// Activation of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU.
    Gelu,
    /// GELU by its tanh formula.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    ReluSquared,
    /// xIELU, whose two slopes are weights (arXiv:2411.13010).
    Xielu,
}

/// Matrices of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qkv {
    /// One for each.
    Apart,
    /// One for all: first all queries, then all keys, then all values.
    Fused,
    /// One for all: head by head, queries, keys and values of each.
    FusedByHead,
}

/// Norms of a layer, around attention and around feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before: `x + f(norm(x))`.
    Before,
    /// After: `x + norm(f(x))`.
    After,
    /// Both: `x + norm(f(norm(x)))`.
    Both,
    /// Before, and both parts read the layer's input: `x + attention(norm(x)) + feed_forward(other_norm(x))`.
    Parallel,
    /// As [`Norms::Parallel`], with one norm for both.
    ParallelShared,
}

/// Kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By the root mean square (Zhang and Sennrich 2019, arXiv:1910.07467).
    Rms,
    /// By mean and variance (Ba et al. 2016, arXiv:1607.06450), without bias.
    Layer,
    /// As [`NormKind::Layer`], with a bias; norms of queries and keys have none.
    LayerBias,
}

/// Norms of queries and keys, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// One norm for each head, all with the same weight.
    Head,
    /// One norm for each head, each with a weight of its own.
    EachHead,
    /// One norm over all heads together.
    Width,
}

/// Most weights of a model, a thousand times those of the largest.
const MOST_WEIGHTS: f64 = 1e15;

impl ModelConfig {
    /// Settings that every family has, and Llama's choice of everything else.
    pub(crate) fn base(keys: &Keys<'_>, default: &Defaults) -> Result<Self> {
        Self::base_of(keys, default, &SizeKeys::LLAMA)
    }

    /// As [`ModelConfig::base`], for a family that has other keys for sizes.
    pub(crate) fn base_of(keys: &Keys<'_>, default: &Defaults, sizes: &SizeKeys) -> Result<Self> {
        let heads = keys.count_or(sizes.num_attention_heads, default.num_attention_heads)?;
        let hidden_size = keys.count_or(sizes.hidden_size, default.hidden_size)?;
        let head_dim = match sizes.head_dim.map_or(Ok(None), |key| keys.count(key))?.or(default.head_dim) {
            Some(width) => width,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => return Err(keys.refuse(sizes.hidden_size, &format!("a multiple of {heads} heads"))),
        };
        let num_hidden_layers = keys.count_or(sizes.num_hidden_layers, default.num_hidden_layers)? as usize;
        if num_hidden_layers > 1 << 12 {
            return Err(keys.refuse(sizes.num_hidden_layers, "at most 4096"));
        }
        let intermediate_size = match sizes.intermediate_size {
            Some(key) => keys.count_or(key, default.intermediate_size)?,
            None => 4 * hidden_size,
        };
        refuse_what_is_not_computed(keys)?;
        Ok(Self {
            model_type: keys.text("model_type")?.ok_or_else(|| keys.refuse("model_type", "a text"))?.to_owned(),
            vocab_size: keys.count_or("vocab_size", default.vocab_size)?,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: default.key_heads(keys, sizes.num_key_value_heads, heads)?,
            head_dim,
            rms_norm_eps: keys.positive_or(sizes.norm_eps, default.rms_norm_eps)?,
            max_position_embeddings: keys.count_or(sizes.max_position_embeddings, default.max_position_embeddings)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", default.tied)?,
            biases: Biases::default(),
            feed_forward: FeedForward::Gated,
            activation: Activation::Silu,
            norms: Norms::Before,
            norm_kind: NormKind::Rms,
            norm_offset: false,
            qk_norm: QkNorm::None,
            embedding_scale: 1.0,
            rounds_embedding_scale: false,
            residual_scale: 1.0,
            attention_scale: (head_dim as f64).powf(-0.5),
            attention_soft_cap: None,
            logit_scale: 1.0,
            logit_soft_cap: None,
            qkv: Qkv::Apart,
            gated_attention: false,
            value_norm: false,
            per_layer_embedding: None,
            layer_scalars: false,
            delta_rule: None,
            short_convolution: None,
            experts: None,
            learned_positions: false,
            ropes: Vec::new(),
            layers: vec![LayerConfig::PLAIN; num_hidden_layers],
            pad_token_id: None,
            trains_padding: false,
            names: NameMap::PLAIN,
            turned_linear: false,
            multimodal: None,
            json: Value::Null,
        })
    }

    /// Makes the layers of which `is_sparse` is true mixtures of `experts`, the number of which `count` names.
    pub(crate) fn with_experts(
        mut self,
        keys: &Keys<'_>,
        count: &str,
        experts: Experts,
        is_sparse: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        self.experts = Some(experts.checked(keys, count)?);
        self.layers.iter_mut().enumerate().for_each(|(layer, of)| of.is_sparse = is_sparse(layer));
        Ok(self)
    }

    /// Refuses sizes that libtorch cannot compute with.
    pub(crate) fn check(&self, keys: &Keys<'_>) -> Result<()> {
        let heads = self.num_attention_heads;
        if heads % self.num_key_value_heads != 0 {
            return Err(keys.refuse("num_key_value_heads", &format!("a divisor of {heads} query heads")));
        }
        let is_odd = self.head_dim % 2 != 0 && !self.ropes.is_empty();
        if self.head_dim < 2 || is_odd || self.head_dim > 1 << 16 || heads > 1 << 16 {
            return Err(keys.refuse("head_dim", "an even number from 2 to 65536, of at most 65536 heads"));
        }
        let tensors = self.own_tensors();
        let weights: f64 = tensors.iter().map(|(_, shape)| shape.iter().map(|&n| n as f64).product::<f64>()).sum();
        if weights > MOST_WEIGHTS {
            return Err(keys.refuse("hidden_size", &format!("one that gives at most 10^15 weights, not {weights:.0e}")));
        }
        Ok(())
    }

    /// Gives the output head weights of its own, in what is written too.
    pub(crate) fn untie(&mut self) {
        self.tie_word_embeddings = false;
        self.json["tie_word_embeddings"] = false.into();
        if let Some(part) = self.json.get_mut("text_config").filter(|part| part.is_object()) {
            part["tie_word_embeddings"] = false.into();
        }
    }

    /// Gives embedding and output head `entries` rows, in what is written too.
    pub(crate) fn resize_vocabulary(&mut self, entries: i64) {
        self.vocab_size = entries;
        set_vocabulary(&mut self.json, entries);
    }

    /// `config.json`, as it was read.
    pub fn to_json(&self) -> Value {
        self.json.clone()
    }

    /// transformers' name of the model of images or sound and text whose text part this is, if it is one.
    pub fn part_of(&self) -> Option<&'static str> {
        self.multimodal.map(|class| class.model_type)
    }

    /// Number of weights, an output head tied to the embedding counted once.
    pub fn parameters(&self) -> i64 {
        self.own_tensors().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }

    /// Every tensor of the checkpoint under transformers' name, with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        self.named(self.own_tensors())
    }

    /// Every tensor under the name that the decoder has for it.
    pub(crate) fn own_tensors(&self) -> Vec<(String, Vec<i64>)> {
        let mut all = self.decoder_tensors();
        all.extend(self.head_tensor());
        all
    }

    /// Tensors under transformers' names.
    pub(crate) fn named(&self, tensors: Vec<(String, Vec<i64>)>) -> Vec<(String, Vec<i64>)> {
        tensors.into_iter().map(|(name, shape)| (self.names.tensor(&name), shape)).collect()
    }

    /// Whether files hold the weight of this name, transformers' own, turned.
    pub(crate) fn is_turned(&self, name: &str) -> bool {
        let ends = |(module, ..): &(&str, _, _)| {
            let module = self.names.module(&format!("model.layers.0.{module}"));
            let inner = module.split_once(".0.").map_or("", |(_, inner)| inner);
            name.strip_suffix(".weight")
                .and_then(|name| name.strip_suffix(inner))
                .is_some_and(|before| before.ends_with('.'))
        };
        self.turned_linear && self.projections(0).iter().any(ends)
    }

    /// Numbers that transformers' files hold beside the weights, under its names, and that are the same in all of them.
    pub(crate) fn constants(&self) -> Vec<(String, f64)> {
        if self.activation != Activation::Xielu {
            return Vec::new();
        }
        let of_layer = |layer| XIELU_CONSTANTS.map(|(name, value)| (format!("model.layers.{layer}.{name}"), value));
        let all = (0..self.num_hidden_layers).flat_map(of_layer);
        all.map(|(name, value)| (self.names.tensor(&name), value)).collect()
    }

    /// transformers' name of the embedding.
    pub fn embedding_name(&self) -> String {
        self.names.tensor(EMBEDDING)
    }

    /// Tables with a row for each token, under transformers' names, with their shapes.
    pub fn embeddings(&self) -> Vec<(String, [i64; 2])> {
        let of_layers = self.per_layer_embedding.map(|of| {
            let width = self.num_hidden_layers as i64 * of.width;
            (self.names.tensor(LAYER_TABLE), [of.vocab_size, width])
        });
        let own = (self.embedding_name(), [self.vocab_size, self.hidden_size]);
        std::iter::once(own).chain(of_layers).collect()
    }

    /// transformers' name of the output head, which is the embedding's where the two are tied.
    pub fn head_name(&self) -> String {
        self.names.tensor(if self.tie_word_embeddings { EMBEDDING } else { HEAD })
    }

    /// Refuses a model that transformers has no class of reward models for.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn check_rewards(&self) -> Result<()> {
        family::check_score(self)
    }

    /// transformers' name of the embedding's module.
    pub(crate) fn embedding_module(&self) -> String {
        self.names.module(EMBEDDING.strip_suffix(".weight").unwrap_or(EMBEDDING))
    }

    /// Name of the output head's module in transformers' classes, whether it has weights of its own or not. A class may write its
    /// weights under another name: [`ModelConfig::own_head_name`].
    pub(crate) fn head_module(&self) -> String {
        HEAD.strip_suffix(".weight").unwrap_or(HEAD).to_owned()
    }

    /// transformers' name of the output head in its files, if it has weights of its own.
    pub(crate) fn own_head_name(&self) -> String {
        self.names.tensor(HEAD)
    }

    /// Every linear layer that an adapter may change, but the output head, under transformers' names, with their shapes `[out, in]`.
    pub(crate) fn linear_modules(&self) -> Vec<(String, [i64; 2])> {
        let of_layer = |layer: usize| {
            let all = self.adaptable(layer).into_iter();
            all.map(move |(name, shape, _)| (self.names.module(&format!("model.layers.{layer}.{name}")), shape))
        };
        let root = self.per_layer_embedding.map(|of| {
            let [outputs, inputs] = [self.num_hidden_layers as i64 * of.width, self.hidden_size];
            (self.names.module(LAYER_PROJECTION), [outputs, inputs])
        });
        root.into_iter().chain((0..self.num_hidden_layers).flat_map(of_layer)).collect()
    }

    /// Whether a tensor of the checkpoint, by transformers' name, is a number that is read and saved, but never trained.
    pub fn is_buffer(&self, name: &str) -> bool {
        name.ends_with(CORRECTION) || (self.layer_scalars && name.rsplit('.').next() == Some(LAYER_SCALAR))
    }

    /// Every tensor of a reward model of this shape, with its shape: a score in place of the output head.
    pub fn reward_tensors(&self) -> Vec<(String, Vec<i64>)> {
        let mut all = self.decoder_tensors();
        all.push((SCORE.to_owned(), vec![1, self.hidden_size]));
        self.named(all)
    }

    /// The output head under the decoder's name, unless it is the embedding.
    pub(crate) fn head_tensor(&self) -> Option<(String, Vec<i64>)> {
        (!self.tie_word_embeddings).then(|| (HEAD.to_owned(), vec![self.vocab_size, self.hidden_size]))
    }

    /// Every tensor below the output head, under the decoder's names.
    pub(crate) fn decoder_tensors(&self) -> Vec<(String, Vec<i64>)> {
        let h = self.hidden_size;
        let mut all = vec![(EMBEDDING.to_owned(), vec![self.vocab_size, h])];
        if self.learned_positions {
            all.push((POSITIONS.to_owned(), vec![self.max_position_embeddings, h]));
        }
        if let Some(of) = self.per_layer_embedding {
            all.extend(of.tensors(self.num_hidden_layers, h));
            self.push_norm(&mut all, LAYER_PROJECTION_NORM, vec![of.width]);
        }
        for layer in 0..self.num_hidden_layers {
            for (name, shape, bias) in self.projections(layer) {
                let name = format!("model.layers.{layer}.{name}");
                if bias {
                    all.push((format!("{name}.bias"), vec![shape[0]]));
                }
                all.push((format!("{name}.weight"), shape.to_vec()));
            }
        }
        for layer in 0..self.num_hidden_layers {
            for (name, shape) in self.layer_norms(layer) {
                self.push_norm(&mut all, &format!("model.layers.{layer}.{name}"), shape);
            }
            if self.layer_scalars {
                all.push((format!("model.layers.{layer}.{LAYER_SCALAR}"), vec![1]));
            }
            if let Some(rule) = self.delta_rule_of(layer) {
                all.extend(rule.tensors().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
            }
            if let Some(convolution) = self.convolution_of(layer) {
                let tensors = convolution.tensors(h).into_iter();
                all.extend(tensors.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
            }
            if let Some(experts) = self.experts_of(layer) {
                let tensors = experts.tensors(h).into_iter();
                all.extend(tensors.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
            }
            if self.activation == Activation::Xielu {
                all.extend(XIELU.map(|name| (format!("model.layers.{layer}.{name}"), vec![1])));
            }
        }
        self.push_norm(&mut all, "model.norm", vec![h]);
        all
    }

    /// Part of the model whose weights are whole together with each tensor of a layer, by the checkpoint's names; all other tensors
    /// are of the root.
    pub fn stages(&self) -> BTreeMap<String, Stage> {
        let stage = |(name, _): (String, Vec<i64>)| {
            let layer = name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()?;
            Some((self.names.tensor(&name), Stage::Layer(layer)))
        };
        self.decoder_tensors().into_iter().filter_map(stage).collect()
    }

    fn push_norm(&self, all: &mut Vec<(String, Vec<i64>)>, name: &str, shape: Vec<i64>) {
        let is_of_heads = name.ends_with("q_norm") || name.ends_with("k_norm");
        if self.norm_kind == NormKind::LayerBias && !is_of_heads {
            all.push((format!("{name}.bias"), shape.clone()));
        }
        all.push((format!("{name}.weight"), shape));
    }

    /// Linear layers of decoder layer `layer`: name, shape `[out, in]`, whether there is a bias.
    pub(crate) fn projections(&self, layer: usize) -> Vec<(&'static str, [i64; 2], bool)> {
        let (h, f, mlp) = (self.hidden_size, self.feed_forward_width(layer), self.biases.mlp);
        let mut all = match (self.delta_rule_of(layer), self.convolution_of(layer)) {
            (Some(rule), _) => rule.projections(h),
            (None, Some(convolution)) => convolution.projections(h),
            (None, None) => self.attention_projections(layer),
        };
        if let Some(experts) = self.experts_of(layer) {
            all.extend(experts.projections(h));
            return all;
        }
        match self.feed_forward {
            FeedForward::Gated => all.extend([("mlp.gate_proj", [f, h], mlp), ("mlp.up_proj", [f, h], mlp)]),
            FeedForward::GatedFused => all.push(("mlp.gate_up_proj", [2 * f, h], mlp)),
            FeedForward::Plain => all.push(("mlp.up_proj", [f, h], mlp)),
        }
        all.push(("mlp.down_proj", [h, f], mlp));
        all.extend(self.per_layer_embedding.iter().flat_map(|of| of.projections(h)));
        all
    }

    fn attention_projections(&self, layer: usize) -> Vec<(&'static str, [i64; 2], bool)> {
        let (h, q, kv) = (self.hidden_size, self.query_width(layer), self.key_width(layer));
        let LayerConfig { values_are_keys, keys_of, .. } = self.layer(layer);
        let Biases { qkv, output, .. } = self.biases;
        let of_queries = if self.gated_attention { 2 * q } else { q };
        let mut all = match self.qkv {
            Qkv::Fused | Qkv::FusedByHead => vec![("self_attn.qkv_proj", [q + 2 * kv, h], qkv)],
            Qkv::Apart => vec![
                ("self_attn.q_proj", [of_queries, h], qkv),
                ("self_attn.k_proj", [kv, h], qkv),
                ("self_attn.v_proj", [kv, h], qkv),
            ],
        };
        // Keys and values of another layer, or keys alone.
        match (keys_of, values_are_keys) {
            (Some(_), _) => all.truncate(1),
            (None, true) => all.truncate(2),
            (None, false) => {}
        }
        all.push(("self_attn.o_proj", [h, q], output));
        all
    }

    /// The gated delta rule, if decoder layer `layer` has it in place of attention.
    pub(crate) fn delta_rule_of(&self, layer: usize) -> Option<DeltaRule> {
        self.delta_rule.filter(|_| self.layers.get(layer).is_some_and(|of| of.kind == LayerKind::DeltaRule))
    }

    /// The short convolution, if decoder layer `layer` has it in place of attention.
    pub(crate) fn convolution_of(&self, layer: usize) -> Option<ShortConvolution> {
        self.short_convolution.filter(|_| self.layers.get(layer).is_some_and(|of| of.kind == LayerKind::Convolution))
    }

    /// Row of the embedding that has no gradient where its token is read; -1 if there is none.
    pub(crate) fn padding_row(&self) -> i64 {
        // Negative ones count from the end, as in torch.
        let from_start = |token: i64| if token < 0 { token.saturating_add(self.vocab_size) } else { token };
        let row = self.pad_token_id.filter(|_| !self.trains_padding).map(from_start);
        row.filter(|row| (0..self.vocab_size).contains(row)).unwrap_or(-1)
    }

    /// Settings of decoder layer `layer`.
    pub(crate) fn layer(&self, layer: usize) -> LayerConfig {
        self.layers.get(layer).copied().unwrap_or(LayerConfig::PLAIN)
    }

    /// Whether a later layer reads the keys and values of decoder layer `layer`.
    pub(crate) fn lends_keys(&self, layer: usize) -> bool {
        self.layers.iter().any(|other| other.keys_of == Some(layer))
    }

    /// The mixture of experts, if decoder layer `layer` has it in place of a feed-forward layer.
    pub(crate) fn experts_of(&self, layer: usize) -> Option<Experts> {
        self.experts.filter(|_| self.layers.get(layer).is_some_and(|of| of.is_sparse))
    }

    /// Linear layers of decoder layer `layer` that an adapter may change. Beside experts, peft takes the names of all layers of
    /// feed-forward parts for those of experts.
    fn adaptable(&self, layer: usize) -> Vec<(&'static str, [i64; 2], bool)> {
        let mut all = self.projections(layer);
        all.retain(|(name, ..)| self.experts.is_none() || !name.starts_with("mlp."));
        all
    }

    /// Last parts of transformers' names of the linear layers that an adapter may change, each once.
    pub(crate) fn projection_names(&self) -> Vec<String> {
        let last = |name: &str| self.names.module(name).rsplit('.').next().unwrap_or_default().to_owned();
        let mut all: Vec<String> = self.per_layer_embedding.iter().map(|_| last(LAYER_PROJECTION)).collect();
        for layer in 0..self.num_hidden_layers {
            for (name, ..) in self.adaptable(layer) {
                let name = last(&format!("model.layers.{layer}.{name}"));
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        all
    }

    /// Norms of decoder layer `layer` that are of the model's kind, with the shapes of their weights.
    fn layer_norms(&self, layer: usize) -> Vec<(&'static str, Vec<i64>)> {
        let of_layer: &[&str] = match self.norms {
            Norms::Before | Norms::Parallel => &["input_layernorm", "post_attention_layernorm"],
            Norms::After => &["post_attention_layernorm", "post_feedforward_layernorm"],
            Norms::Both => &[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ],
            Norms::ParallelShared => &["input_layernorm"],
        };
        let mut all: Vec<_> = of_layer.iter().map(|&name| (name, vec![self.hidden_size])).collect();
        if self.per_layer_embedding.is_some() {
            all.push((LAYER_OUTPUT_NORM, vec![self.hidden_size]));
        }
        if self.layers.get(layer).is_some_and(|of| of.kind != LayerKind::Attention) {
            return all;
        }
        let width = self.head_width(layer);
        let (q, k) = match self.qk_norm {
            QkNorm::None => return all,
            QkNorm::Head => (vec![width], vec![width]),
            QkNorm::EachHead => (vec![self.num_attention_heads, width], vec![self.key_heads(layer), width]),
            QkNorm::Width => (vec![self.query_width(layer)], vec![self.key_width(layer)]),
        };
        all.push(("self_attn.q_norm", q));
        if self.layer(layer).keys_of.is_none() {
            all.push(("self_attn.k_norm", k));
        }
        all
    }

    /// Width of a head of decoder layer `layer`.
    pub(crate) fn head_width(&self, layer: usize) -> i64 {
        self.layer(layer).head_dim.unwrap_or(self.head_dim)
    }

    /// Key and value heads of decoder layer `layer`.
    pub(crate) fn key_heads(&self, layer: usize) -> i64 {
        self.layer(layer).key_heads.unwrap_or(self.num_key_value_heads)
    }

    /// Width of all query heads of decoder layer `layer`.
    pub(crate) fn query_width(&self, layer: usize) -> i64 {
        self.num_attention_heads * self.head_width(layer)
    }

    /// Width of all key heads of decoder layer `layer`.
    pub(crate) fn key_width(&self, layer: usize) -> i64 {
        self.key_heads(layer) * self.head_width(layer)
    }

    /// Width of the feed-forward part of decoder layer `layer`.
    pub(crate) fn feed_forward_width(&self, layer: usize) -> i64 {
        self.layer(layer).intermediate_size.unwrap_or(self.intermediate_size)
    }
}

/// Refuses keys of every family that change the numbers.
pub(crate) fn refuse_what_is_not_computed(keys: &Keys<'_>) -> Result<()> {
    // transformers masks nothing where the key is there and not true, null included.
    if keys.has("is_causal") && keys.get("is_causal") != Some(&Value::Bool(true)) {
        return Err(keys.refuse("is_causal", "`true`: tokens that see later ones are not computed"));
    }
    let Some(own) = keys.get("quantization_config") else { return Ok(()) };
    let Err(found) = Method::of(&json!({ "quantization_config": own })) else { return Ok(()) };
    match keys.object("quantization_config", "quantization_config.")? {
        Some(own) => Err(own.refuse(found.key, found.expected)),
        None => Ok(()),
    }
}

/// Sets the entries of the vocabulary in a `config.json`.
pub(crate) fn set_vocabulary(json: &mut Value, entries: i64) {
    match json.get_mut("text_config") {
        Some(text) if text.is_object() => text["vocab_size"] = entries.into(),
        _ => json["vocab_size"] = entries.into(),
    }
}

/// The `config.json` of a Llama, as transformers 4 and 5 read it.
pub(crate) fn llama_json(shape: &Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "rope_parameters": { "rope_theta": shape["rope_theta"], "rope_type": "default" },
        "rope_scaling": null,
        "dtype": "float32",
    });
    for (key, value) in shape.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}
