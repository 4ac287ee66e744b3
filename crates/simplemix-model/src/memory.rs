//! Memory of a training pass below the output head, from a configuration alone: what each operation of a layer keeps for
//! its backward pass, by name.
//!
//! Letters: T tokens, H width, Q and K widths of all query and key heads, N query heads, F feed-forward width; C width of queries, keys
//! and values of the gated delta rule, V its value heads.

use std::collections::HashMap;

use simplemix_torch::has_loops;
use tch::{Device, Kind};

use crate::attention::AttentionRoute;
use crate::config::{
    Activation, DeltaRule, EXPERT, Experts, FeedForward, LAYER_GATE, LAYER_OUTPUT, LAYER_PROJECTION, LAYER_TABLE,
    LayerKind, ModelConfig, NormKind, Norms, QkNorm, Qkv, XIELU, expert_weight,
};
use crate::delta_rule::CHUNK;
use crate::error::Result;
use crate::experts::ExpertsRoute;
use crate::lora::{LoraConfig, Parameter, Place, parameter_name};

/// A causal run of a pass: tokens of its own, and tokens of a prompt before them that belong to another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTokens {
    /// Tokens of the run.
    pub own: usize,
    /// Tokens that only their keys are needed of.
    pub before: usize,
}

/// Memory of a pass and its backward pass, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassMemory {
    /// Kept from the forward pass until the backward pass.
    pub kept: u64,
    /// Gradients of one layer while its backward pass runs; and activations that are computed again: the layer's, or those of the gated
    /// delta rule.
    pub in_layer: u64,
}

/// Bytes that passes of a model keep, for any number of tokens.
#[derive(Debug)]
pub struct PassCosts<'a> {
    config: &'a ModelConfig,
    element: f64,
    route: AttentionRoute,
    is_checkpointed: bool,
    /// Bytes a token of each layer, attention's keys left out; 0 below the first trained weight.
    layers: Vec<f64>,
    /// Bytes a token of the layers' own embeddings, and of what they are made of if that is trained.
    own: [f64; 2],
    /// Bytes of the largest weight gradient of a layer before it is added up.
    gradient: f64,
}

/// Parts of a model that are trained, on which device.
#[derive(Clone, Copy)]
pub struct Trained<'a> {
    /// Element type of the model's weights.
    pub kind: Kind,
    /// Device of the pass.
    pub device: Device,
    /// Adapter that is trained.
    pub adapter: Option<&'a LoraConfig>,
    /// Whether a tensor of the model, by its name, is trained: beside an adapter, whether it is trained whole.
    pub tensor: &'a dyn Fn(&str) -> bool,
    /// Whether layers are computed again in the backward pass.
    pub is_checkpointed: bool,
}

impl ModelConfig {
    /// Bytes of keys and values that generation keeps for a token of a row, of numbers of `element` bytes.
    pub fn cache_bytes(&self, element: usize) -> u64 {
        let has_keys = |layer: &usize| {
            let of = self.layer(*layer);
            of.kind == LayerKind::Attention && of.keys_of.is_none()
        };
        let widths = (0..self.num_hidden_layers).filter(has_keys).map(|layer| self.key_width(layer) as u64);
        2 * widths.sum::<u64>() * element as u64
    }

    /// Bytes that generation keeps for a row whatever its length: states of the gated delta rule, and newest inputs of convolutions, of
    /// `element` bytes a number.
    pub fn state_bytes(&self, element: usize) -> u64 {
        let of_layer = |layer: usize| {
            let rule = self.delta_rule_of(layer)?;
            Some(4 * rule.state() as u64 + (rule.width() * rule.before()) as u64 * element as u64)
        };
        let of_window =
            |layer: usize| Some((self.convolution_of(layer)?.before() * self.hidden_size) as u64 * element as u64);
        (0..self.num_hidden_layers).filter_map(|layer| of_layer(layer).or_else(|| of_window(layer))).sum()
    }
}

impl<'a> PassCosts<'a> {
    /// Costs of a model of which `trained` is trained.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for an adapter that does not fit the model.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{PassCosts, RunTokens, Trained, tiny};
    /// use tch::{Device, Kind};
    ///
    /// let config = tiny::config();
    /// let all = Trained {
    ///     kind: Kind::Float,
    ///     device: Device::Cpu,
    ///     adapter: None,
    ///     tensor: &|_| true,
    ///     is_checkpointed: false,
    /// };
    /// let memory = |trained: Trained<'_>| {
    ///     let costs = PassCosts::new(&config, trained)?;
    ///     Ok::<_, simplemix_model::Error>(costs.of(&[RunTokens { own: 100, before: 0 }]))
    /// };
    /// let again = Trained { is_checkpointed: true, ..all };
    /// assert!(memory(again)?.kept < memory(all)?.kept);
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn new(config: &'a ModelConfig, trained: Trained<'_>) -> Result<Self> {
        let adapted = match trained.adapter {
            Some(adapter) => adapter.parts(config)?.targets,
            None => Vec::new(),
        };
        let adapts_embedding = adapted.iter().any(|target| target.place == Place::Embedding);
        let adapted = adapted.into_iter().map(|target| (target.full, target.rank)).collect();
        let route = AttentionRoute::of(config, trained.kind, trained.device);
        let element = trained.kind.elt_size_in_bytes() as f64;
        let layer = LayerCosts { config, trained, adapted: &adapted, element, route };
        let mut flows = adapts_embedding || (trained.tensor)(&config.embedding_name());
        let own = layer.own_embeddings(flows);
        flows |= own[1] > 0.0;
        let of_layer = |index: usize| {
            flows |= layer.is_trained(index);
            if flows { layer.token_bytes(index) } else { 0.0 }
        };
        let layers = (0..config.num_hidden_layers).map(of_layer).collect();
        let matrices = (0..config.num_hidden_layers).flat_map(|layer| config.projections(layer));
        let largest = matrices.map(|(_, shape, _)| shape[0] * shape[1]).max().unwrap_or(0);
        let of_experts = |layer| {
            let experts = config.experts_of(layer)?;
            let route = ExpertsRoute::of(experts, config.hidden_size, trained.kind, trained.device);
            let together = if route == ExpertsRoute::Grouped { experts.count } else { 1 };
            Some(together * experts.width * config.hidden_size)
        };
        let largest = (0..config.num_hidden_layers).filter_map(of_experts).max().unwrap_or(0).max(largest) as f64;
        // In half precision the product's result is cast before it is added.
        let wide = if trained.kind == Kind::Float { 0.0 } else { 4.0 };
        let is_trained = (0..config.num_hidden_layers).any(|index| layer.trains_matrix(index));
        let gradient = if is_trained { largest * (element + wide) } else { 0.0 };
        Ok(Self { config, element, route, is_checkpointed: trained.is_checkpointed, layers, own, gradient })
    }

    /// Memory of a pass over `runs`.
    pub fn of(&self, runs: &[RunTokens]) -> PassMemory {
        let tokens = runs.iter().map(|run| run.own).sum::<usize>() as f64;
        let config = self.config;
        let attention: Vec<f64> = self.by_layer(runs);
        let of_layer = |index: usize| match self.layers[index] {
            0.0 => 0.0,
            bytes => bytes * tokens + attention[index],
        };
        let layers = self.layers.len();
        let widest =
            (0..layers).map(|layer| config.feed_forward_width(layer)).max().unwrap_or(config.intermediate_size);
        let (h, f) = (config.hidden_size as f64, widest as f64);
        // The last norm's input and output, or the inputs of all layers and of that norm.
        let top = 2.0 * h * self.element * tokens;
        let largest = (0..layers).map(of_layer).fold(0.0, f64::max);
        let (kept, again) = match self.is_checkpointed {
            true => ((layers as f64 + 2.0) * h * self.element * tokens + self.beside() * tokens, largest),
            false => ((0..layers).map(of_layer).sum::<f64>() + top + self.own[1] * tokens, 0.0),
        };
        // Gradients of the residual stream, and of gate, up and their product; or of an activation and its input.
        let wide = if config.feed_forward == FeedForward::Plain { 2.0 } else { 3.0 };
        let of_experts = config.experts.map_or(0.0, |experts| {
            // Rows of experts and their results beside those of the residual stream.
            experts.per_token as f64 * (2.0 * h + 3.0 * experts.width as f64) + 3.0 * experts.shared_width as f64
        });
        let is_dense = config.layers.iter().any(|layer| !layer.is_sparse);
        let fed = of_experts.max(if is_dense { wide * f } else { 0.0 });
        let passing = (2.0 * h + fed) * self.element * tokens + self.gradient;
        // Within the backward pass of a layer with the gated delta rule.
        let is_rule = |layer: usize| config.delta_rule_of(layer).filter(|_| self.layers[layer] > 0.0);
        let inside = (0..layers).find_map(is_rule).map_or(0.0, |rule| recomputed(rule, runs, self.element));
        let passing = passing.max(inside + h * self.element * tokens);
        PassMemory { kept: kept as u64, in_layer: (again + passing) as u64 }
    }

    /// Bytes a token beside the inputs of layers that are computed again: their own embeddings, keys and values that several read, and
    /// the gradients of both.
    fn beside(&self) -> f64 {
        let lends = |layer: &usize| self.config.lends_keys(*layer);
        let lent: i64 = (0..self.layers.len()).filter(lends).map(|layer| 2 * self.config.key_width(layer)).sum();
        2.0 * (self.own[0] + lent as f64 * self.element)
    }

    /// Bytes that attention keeps of keys and products in each layer; masks are shared, and counted in the first layer that
    /// has them.
    fn by_layer(&self, runs: &[RunTokens]) -> Vec<f64> {
        let mut known: Vec<(Option<i64>, AttentionRoute, Calls)> = Vec::new();
        let mut of_layer = |layer: usize| {
            let of = self.config.layer(layer);
            if of.kind != LayerKind::Attention {
                return 0.0;
            }
            let (window, route) = (of.window, self.route.for_heads(self.config.head_width(layer)));
            if let Some((.., calls)) = known.iter().find(|known| (known.0, known.1) == (window, route)) {
                return self.attention(layer, calls, route);
            }
            let calls = Calls::of(runs, window, route);
            let bytes = self.attention(layer, &calls, route) + calls.masks * self.element;
            known.push((window, route, calls));
            bytes
        };
        (0..self.config.num_hidden_layers).map(&mut of_layer).collect()
    }

    fn attention(&self, layer: usize, calls: &Calls, route: AttentionRoute) -> f64 {
        let (q, kv) = (self.config.query_width(layer) as f64, self.config.key_width(layer) as f64);
        let heads = self.config.num_attention_heads as f64;
        match self.config.attention_soft_cap {
            // Keys that are read where another layer has them.
            None if route == AttentionRoute::Fused && self.config.layer(layer).keys_of.is_some() => 0.0,
            None => {
                // Queries that a causal run repeats, with what attention gives for them.
                let repeated = calls.repeated * (2.0 * q * self.element + 4.0 * heads);
                2.0 * kv * calls.keys * self.element + repeated
            }
            // Products of their own: keys and values for each query head, tanh, and the softmax in f32 and as operand.
            Some(_) => {
                let operand = if self.element == 4.0 { 0.0 } else { self.element };
                2.0 * q * calls.keys * self.element + heads * calls.products * (self.element + 4.0 + operand)
            }
        }
    }
}

/// Bytes of what the gated delta rule computes again within its backward pass, of numbers of `element` bytes.
fn recomputed(rule: DeltaRule, runs: &[RunTokens], element: f64) -> f64 {
    // A prompt and its first response end in a chunk each.
    let chunks: usize = runs.iter().map(|run| run.own.div_ceil(CHUNK) + usize::from(run.before == 0)).sum();
    let [v, d, e] = [rule.value_heads, rule.key_dim, rule.value_dim].map(|n| n as f64);
    // Inputs of the convolution, what it gives before and after its activation, and the chunks of that.
    let convolved = 4.0 * rule.width() as f64 * element;
    // Queries and keys before and after they are normed; of each value head queries, keys, solved keys and those of the two ends of a
    // chunk; values, solved and corrected ones, and what is read; products of queries and keys with and without decays.
    let numbers = 6.0 * rule.key_width() as f64 + v * (6.0 * d + 7.0 * e + 6.0 * CHUNK as f64);
    // The state before each chunk and its part of the next one.
    let states = 2.0 * 4.0 * rule.state() as f64;
    chunks as f64 * (CHUNK as f64 * (convolved + 4.0 * numbers) + states)
}

/// Rows of all calls of attention in a layer.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    /// Rows of keys.
    keys: f64,
    /// Queries by keys.
    products: f64,
    /// Entries of masks, those of one shape counted once.
    masks: f64,
    /// Rows of queries that belong to another run.
    repeated: f64,
}

impl Calls {
    fn of(runs: &[RunTokens], window: Option<i64>, route: AttentionRoute) -> Self {
        let mut calls = Self::default();
        let mut masks: Vec<(usize, usize, usize)> = Vec::new();
        let longest = runs.iter().map(|run| run.own + run.before).max().unwrap_or(0);
        let window = window.map(|window| window as usize).filter(|window| *window < longest);
        for &RunTokens { own, before } in runs {
            let mut call = |rows: usize, keys: usize, is_masked: bool| {
                calls.keys += keys as f64;
                calls.products += rows as f64 * keys as f64;
                let shape = (before, rows, keys);
                if is_masked && !masks.contains(&shape) {
                    masks.push(shape);
                }
            };
            match window {
                // Keys of a prompt are read where they lie.
                _ if route == AttentionRoute::Fused => call(own, own, false),
                _ if route == AttentionRoute::Varlen => call(own, before + own, false),
                None if before > 0 && route == AttentionRoute::Runs => {
                    call(before + own, before + own, false);
                    calls.repeated += before as f64;
                }
                Some(window) if before == 0 && own > window => {
                    for first in (0..own).step_by(window) {
                        let (rows, from) = (window.min(own - first), (first + 1).saturating_sub(window));
                        call(rows, first - from + rows, first > 0);
                    }
                }
                window => {
                    let seen = window.map_or(before, |window| before.min(window - 1));
                    call(own, seen + own, before > 0);
                }
            }
        }
        calls.masks = masks.iter().map(|&(_, rows, keys)| rows as f64 * keys as f64).sum();
        calls
    }
}

/// Costs of one layer, a token.
struct LayerCosts<'a> {
    config: &'a ModelConfig,
    trained: Trained<'a>,
    /// Ranks of the modules that the adapter changes.
    adapted: &'a HashMap<String, i64>,
    element: f64,
    route: AttentionRoute,
}

impl LayerCosts<'_> {
    fn name(&self, index: usize, module: &str) -> String {
        self.config.names.module(&format!("model.layers.{index}.{module}"))
    }

    fn trains(&self, index: usize, module: &str) -> bool {
        (self.trained.tensor)(&format!("{}.weight", self.name(index, module)))
    }

    /// Rank of the adapter's matrices beside a module's, if it has some.
    fn rank(&self, index: usize, module: &str) -> Option<i64> {
        self.adapted.get(&self.name(index, module)).copied()
    }

    /// Rank of the adapter's matrices beside a tensor of experts.
    fn rank_of_experts(&self, index: usize, parameter: Parameter) -> Option<f64> {
        self.adapted.get(&parameter_name(self.config, index, parameter)).map(|&rank| rank as f64)
    }

    fn trains_matrix(&self, index: usize) -> bool {
        self.config.projections(index).iter().any(|(module, ..)| self.trains(index, module))
            || (self.config.experts_of(index).is_some()
                && (self.trains_expert(index, 0) || self.trains(index, "mlp.gate")))
    }

    /// Whether part `part` of the first expert is trained, as those of all others are.
    fn trains_expert(&self, index: usize, part: usize) -> bool {
        let weight = format!("model.layers.{index}.{}", expert_weight(0, EXPERT[part]));
        (self.trained.tensor)(&self.config.names.tensor(&weight))
    }

    /// Whether the layer has a trained matrix or norm.
    fn is_trained(&self, index: usize) -> bool {
        let matrices = self.config.projections(index);
        let norms = ["input_layernorm", "post_attention_layernorm"];
        let parameters = [Parameter::Router, Parameter::GateUp, Parameter::Down];
        matrices.iter().any(|(module, ..)| self.rank(index, module).is_some())
            || parameters.iter().any(|parameter| self.rank_of_experts(index, *parameter).is_some())
            || self.trains_matrix(index)
            || norms.iter().any(|norm| self.trains(index, norm))
    }

    /// Bytes a token, without keys, values and products of attention.
    fn token_bytes(&self, index: usize) -> f64 {
        let config = self.config;
        let [h, f] = [config.hidden_size, config.feed_forward_width(index)].map(|n| n as f64);
        // Inputs of norms, and norms: two may have one input.
        let (of_layer, norms) = match config.norms {
            Norms::ParallelShared => (1.0, 1.0),
            Norms::Parallel => (1.0, 2.0),
            Norms::Before | Norms::After => (2.0, 2.0),
            Norms::Both => (4.0, 4.0),
        };
        let (rule, convolution) = (config.delta_rule_of(index), config.convolution_of(index));
        let mixer: &[&str] = match (rule, config.qkv) {
            _ if convolution.is_some() => &["conv.in_proj"],
            (Some(_), _) => {
                &["linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.in_proj_b", "linear_attn.in_proj_a"]
            }
            (None, Qkv::Apart) => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            (None, Qkv::Fused | Qkv::FusedByHead) => &["self_attn.qkv_proj"],
        };
        let experts = config.experts_of(index);
        let gate_up: &[&str] = match config.feed_forward {
            _ if experts.is_some_and(|experts| experts.shared_width == 0) => &[],
            _ if experts.is_some() => &["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"],
            FeedForward::Gated => &["mlp.gate_proj", "mlp.up_proj"],
            FeedForward::GatedFused => &["mlp.gate_up_proj"],
            FeedForward::Plain => &["mlp.up_proj"],
        };
        let of_both = match config.norms {
            // One input of two products.
            Norms::ParallelShared => self.input(index, h, &[mixer, gate_up].concat()),
            _ => self.input(index, h, mixer) + self.input(index, h, gate_up),
        };
        let (f, down) = match experts {
            Some(experts) => (experts.shared_width as f64, "mlp.shared_experts.down_proj"),
            None => (f, "mlp.down_proj"),
        };
        let inputs = of_both + self.input(index, f, &[down]);
        let mixed = match (rule, convolution) {
            (Some(rule), _) => self.delta_rule(index, rule),
            // The gates and what they are for, which are one tensor; the convolution's input and what it gives.
            (None, Some(_)) => 5.0 * h * self.element + self.input(index, h, &["conv.out_proj"]),
            (None, None) => self.attention(index),
        };
        let of_experts = experts.map_or(0.0, |experts| self.experts(index, experts));
        let own = config.per_layer_embedding.map_or(0.0, |of| {
            let p = of.width as f64;
            let inputs = self.input(index, h, &[LAYER_GATE]) + self.input(index, p, &[LAYER_OUTPUT]);
            inputs + self.active(index) * p * self.element + self.norm(index, h, 1.0)
        });
        self.norm(index, of_layer * h, norms)
            + inputs
            + mixed
            + own
            + of_experts
            + self.active(index) * f * self.element
    }

    /// Bytes a token of the layers' own embeddings, and of what they keep where the embedding is trained (`flows`) or what they are
    /// made of.
    fn own_embeddings(&self, flows: bool) -> [f64; 2] {
        let Some(of) = self.config.per_layer_embedding else { return [0.0; 2] };
        let layers = self.config.num_hidden_layers as f64;
        let all = layers * of.width as f64;
        let names = &self.config.names;
        let projection = names.module(LAYER_PROJECTION);
        let is_trained =
            [names.tensor(LAYER_TABLE), format!("{projection}.weight")].iter().any(|name| (self.trained.tensor)(name));
        let made =
            if flows || is_trained || self.adapted.contains_key(&projection) { self.norm(0, all, layers) } else { 0.0 };
        [all * self.element, made]
    }

    /// Bytes that a mixture of experts keeps but for the expert that every token has.
    fn experts(&self, index: usize, experts: Experts) -> f64 {
        let [h, k, e, f] = [self.config.hidden_size, experts.per_token, experts.count, experts.width].map(|n| n as f64);
        let kept = |is_kept: bool, width: f64| if is_kept { width * self.element } else { 0.0 };
        let [router, gate_up, down] = [Parameter::Router, Parameter::GateUp, Parameter::Down]
            .map(|parameter| self.rank_of_experts(index, parameter));
        // The router's input, which all layers that every token has would share; shares of all experts, and of the chosen ones before
        // and after they are normed, in f32. An adapter's is in f32, with what its first matrix gives.
        let of_adapter = router.map_or(0.0, |rank| if self.element < 4.0 { 4.0 * h } else { 0.0 } + 4.0 * rank);
        let input = kept(self.trains(index, "mlp.gate") || (router.is_some() && self.element == 4.0), h);
        let router = input + of_adapter + 4.0 * (e + 3.0 * k);
        let rows = kept(self.trains_expert(index, 0) || gate_up.is_some(), k * h)
            + kept(self.trains_expert(index, 2) || down.is_some(), k * f)
            + (gate_up.unwrap_or_default() + down.unwrap_or_default()) * k * self.element;
        let results = (k * h + self.active(index) * k * f) * self.element;
        // Order of the rows, and the way back.
        router + rows + results + 3.0 * 8.0 * k
    }

    /// Bytes that attention keeps but for the input of its projections, and for keys, values and products.
    fn attention(&self, index: usize) -> f64 {
        let config = self.config;
        let layer = config.layer(index);
        let q = config.query_width(index) as f64;
        // Keys of another layer are normed there. Values have a norm of their own, with the input of the keys' if they are these.
        let (kv, key_heads) = match (layer.keys_of, config.value_norm && !layer.values_are_keys) {
            (Some(_), _) => (0.0, 0),
            (None, true) => (2.0 * config.key_width(index) as f64, 2 * config.key_heads(index)),
            (None, false) => (config.key_width(index) as f64, config.key_heads(index)),
        };
        let all_heads = (config.num_attention_heads + key_heads) as f64;
        let norm_bytes = match config.qk_norm {
            QkNorm::None => 0.0,
            QkNorm::Width => self.norm(index, q + kv, 2.0),
            QkNorm::Head => self.norm(index, q + kv, all_heads),
            // In f32, with what the heads' own weights multiply.
            QkNorm::EachHead => 4.0 * (2.0 * (q + kv) + 2.0 * all_heads),
        };
        // The sigmoid of the gate; and the gate itself, which lies between the norm's inputs unless these were cast.
        let gates = match config.gated_attention {
            true => q * self.element + if self.element < 4.0 { 0.0 } else { q * self.element },
            false => 0.0,
        };
        let route = self.route.for_heads(config.head_width(index));
        let attended = match self.input(index, q, &["self_attn.o_proj"]) {
            // One call's result is the next product's input.
            bytes if matches!(route, AttentionRoute::Fused | AttentionRoute::Varlen) && gates == 0.0 => {
                (bytes - q * self.element).max(0.0)
            }
            bytes => bytes,
        };
        // Queries and what attention gives for them, with the log of each row's sum; capped products keep queries alone.
        let heads = config.num_attention_heads as f64;
        let mixed = match config.attention_soft_cap {
            None => 2.0 * q * self.element + 4.0 * heads,
            Some(_) => q * self.element,
        };
        norm_bytes + attended + mixed + gates
    }

    /// Bytes that the gated delta rule keeps but for the input of its projections: its own input, what is read, and its gate.
    fn delta_rule(&self, index: usize, rule: DeltaRule) -> f64 {
        let (c, v, e) = (rule.width() as f64, rule.value_heads as f64, rule.value_width() as f64);
        // Strengths; time steps before and after softplus, and decays.
        let heads = v * (self.element + 3.0 * 4.0);
        // The gate and what it multiplies, in f32; and the gate's activation where it is an operation of its own.
        let gated = if has_loops(Kind::Float, self.trained.device) { 2.0 } else { 3.0 };
        let output = self.input(index, e, &["linear_attn.out_proj"]);
        c * self.element + heads + self.norm_with(false, index, e, v) + 4.0 * gated * e + output
    }

    /// Tensors as wide as the feed-forward layer that its activation keeps.
    fn active(&self, index: usize) -> f64 {
        let Self { config, trained, .. } = self;
        // xIELU keeps its input, the exponential and a byte that tells above from below, and what trained slopes multiply.
        let slope = config.names.tensor(&format!("model.layers.{index}.{}", XIELU[0]));
        let is_trained = trained.adapter.is_none() && (trained.tensor)(&slope);
        let xielu = if is_trained { 4.25 } else { 2.25 };
        match (config.feed_forward, config.activation) {
            // The input or the result.
            (FeedForward::Plain, Activation::Xielu) => xielu,
            (FeedForward::Plain, _) => 1.0,
            (_, Activation::Xielu) => xielu + 2.0,
            // Gate and up, and the gate's activation where it is an operation of its own.
            (_, Activation::Silu | Activation::GeluTanh) if has_loops(trained.kind, trained.device) => 2.0,
            _ => 3.0,
        }
    }

    /// Norms of `width` numbers in `rows` rows in all: their inputs and a number a row, and the normed inputs where a norm is
    /// made of operators and its factor trained.
    fn norm(&self, index: usize, width: f64, rows: f64) -> f64 {
        self.norm_with(self.config.norm_offset, index, width, rows)
    }

    /// As [`LayerCosts::norm`]; with `offset` the norm multiplies by one plus its weight, in f32.
    fn norm_with(&self, offset: bool, index: usize, width: f64, rows: f64) -> f64 {
        let (is_half, on_host) = (self.element < 4.0, self.trained.device == Device::Cpu);
        if self.config.norm_kind != NormKind::Rms {
            // libtorch's own on every device: input, mean and root.
            return width * self.element + rows * 2.0 * 4.0;
        }
        let wide = is_half && (on_host || offset);
        let input = if wide { 4.0 } else { self.element };
        // libtorch has a norm in one kernel for devices alone, and our own takes f32 and f64, as Gemma's norms always are.
        let is_composed = on_host && is_half && !offset;
        let is_trained = ["input_layernorm", "post_attention_layernorm"].iter().any(|norm| self.trains(index, norm));
        width * (input + if is_composed && is_trained { self.element } else { 0.0 }) + rows * input
    }

    /// Input of `width` numbers that the `modules` share: kept where one of them is trained, and in f32 for adapters.
    fn input(&self, index: usize, width: f64, modules: &[&str]) -> f64 {
        let ranks: Vec<f64> =
            modules.iter().filter_map(|module| self.rank(index, module)).map(|rank| rank as f64).collect();
        let adapted = ranks.len() as f64;
        let is_trained = modules.iter().any(|module| self.trains(index, module));
        let Some(adapter) = self.trained.adapter.filter(|_| adapted > 0.0) else {
            return if is_trained { width * self.element } else { 0.0 };
        };
        // Dropped inputs are each module's own.
        let copies = if adapter.dropout > 0.0 { adapted } else { 1.0 };
        // The layer's output with the adapter's part, before its rows are scaled.
        let of_module = |(module, [outputs, _], _): &(&str, [i64; 2], bool)| {
            if modules.contains(module) && self.rank(index, module).is_some() { *outputs as f64 } else { 0.0 }
        };
        let scaled = if adapter.dora { self.config.projections(index).iter().map(of_module).sum() } else { 0.0 };
        let plain = if is_trained { width * self.element } else { 0.0 };
        plain + 4.0 * (copies * width + ranks.iter().sum::<f64>() + scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    #[test]
    fn rows_of_attention_are_counted_as_they_are_called() {
        let runs = [RunTokens { own: 10, before: 0 }, RunTokens { own: 4, before: 6 }];
        let calls = |keys: f64, products: f64, masks: f64, repeated: f64| Calls { keys, products, masks, repeated };
        assert_eq!(Calls::of(&runs, None, AttentionRoute::Masked), calls(20.0, 140.0, 40.0, 0.0));
        assert_eq!(Calls::of(&runs, None, AttentionRoute::Runs), calls(20.0, 200.0, 0.0, 6.0));
        assert_eq!(Calls::of(&runs, Some(4), AttentionRoute::Varlen), calls(20.0, 140.0, 0.0, 0.0));
        assert_eq!(Calls::of(&runs, Some(4), AttentionRoute::Fused), calls(14.0, 116.0, 0.0, 0.0));
        // Blocks of 4, 4 and 2 rows see 4, 7 and 5 keys; the continuation sees 3 keys before its own.
        let windowed = calls(4.0 + 7.0 + 5.0 + 7.0, 16.0 + 28.0 + 10.0 + 28.0, 28.0 + 10.0 + 28.0, 0.0);
        assert_eq!(Calls::of(&runs, Some(4), AttentionRoute::Masked), windowed);
        assert_eq!(Calls::of(&runs, Some(10), AttentionRoute::Masked), calls(20.0, 140.0, 40.0, 0.0));
    }

    /// The tensors of a layer of the tiny model, counted by hand: two norms of two tensors of 64 and a number each, queries and
    /// attention's result, gate, up and their product of 160, a log-sum for each of four heads, and keys and values of 32.
    #[test]
    fn a_layer_keeps_what_its_operations_need() {
        let config = tiny::config();
        let trained =
            |tensor| Trained { kind: Kind::Float, device: Device::Cpu, adapter: None, tensor, is_checkpointed: false };
        let runs = [RunTokens { own: 10, before: 0 }];
        let all = PassCosts::new(&config, trained(&|_| true)).unwrap().of(&runs).kept;
        let layer = 4 * 64 + 2 + 2 * 64 + 3 * 160 + 4 + 2 * 32;
        assert_eq!(all, 4 * 10 * (2 * layer + 2 * 64));
        // Below the first trained weight nothing is kept.
        let upper = PassCosts::new(&config, trained(&|name| name.starts_with("model.layers.1."))).unwrap();
        assert_eq!(upper.of(&runs).kept, 4 * 10 * (layer + 2 * 64));
    }

    /// Counted by hand, numbers of a token: norms and what they keep of a row, inputs of linear layers, queries with attention's
    /// result and log-sums, keys and values, and the activation.
    #[test]
    fn layers_of_other_forms_keep_what_their_operations_need() {
        let counted = |model_type: &str, more: &str| {
            let text = format!(
                r#"{{"model_type":"{model_type}","vocab_size":9,"hidden_size":64,"intermediate_size":160,"num_hidden_layers":1,
                    "num_attention_heads":4,"num_key_value_heads":4{more}}}"#
            );
            let config = ModelConfig::from_json(&text, std::path::Path::new("config.json")).unwrap();
            let kind = Kind::Float;
            let trained =
                Trained { kind, device: Device::Cpu, adapter: None, tensor: &|_| true, is_checkpointed: false };
            let kept = PassCosts::new(&config, trained).unwrap().of(&[RunTokens { own: 10, before: 0 }]).kept;
            kept as f64 / 40.0 - 2.0 * 64.0
        };
        let attention = 2.0 * 64.0 + 4.0 + 2.0 * 64.0;
        // Two norms of one input, mean and root of each row.
        let parallel = 64.0 + 4.0 + 2.0 * 64.0 + attention + 160.0 + 160.0;
        assert_eq!(counted("gpt_neox", ""), parallel);
        assert_eq!(counted("gpt_neox", r#","use_parallel_residual":false"#), parallel + 64.0);
        // One norm, whose result is the input of both; norms of heads with what their weights multiply.
        let shared = 64.0 + 2.0 + 64.0 + attention + 160.0 + 2.0 * 160.0;
        assert_eq!(counted("cohere", ""), shared);
        assert_eq!(counted("cohere", r#","use_qk_norm":true"#), shared + 2.0 * (128.0 + 8.0));
        // Two of eight experts: inputs of attention and router, shares of all experts and three numbers of the chosen ones, the experts'
        // rows, results, gates and what these multiply, and three places of 8 bytes for each.
        let (norms, router) = (2.0 * 64.0 + 2.0 + 128.0 + 2.0, 64.0 + 8.0 + 3.0 * 2.0);
        let experts = 2.0 * (2.0 * 64.0 + 3.0 * 160.0 + 3.0 * 2.0);
        let routed = norms + 64.0 + attention + router + experts;
        assert_eq!(counted("olmoe", r#","num_experts":8,"num_experts_per_tok":2"#), routed);
        let ungated = 2.0 * 64.0 + 2.0 + 128.0 + 8.0 + 2.0 * 64.0 + attention + 160.0;
        assert_eq!(counted("apertus", ""), ungated + 4.25 * 160.0);
        assert_eq!(counted("apertus", r#","hidden_act":"relu2""#), ungated + 160.0);
    }
}
