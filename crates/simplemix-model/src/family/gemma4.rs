//! Gemma 4, text only and dense: Gemma 3 with norms of values, embeddings that every layer reads, keys and values that the last layers
//! read of earlier ones, and wider heads, of which a quarter is rotated, in layers that see everything.
//!
//! The mixture of experts of 26B-A4B (`enable_moe_block`) is not computed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{
    Activation, Defaults, Frame, Heads, Keys, LayerConfig, ModelConfig, Norms, PerLayerEmbedding, QkNorm, RopeConfig,
    Rule, as_it_is, proportional,
};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "gemma4_text",
    models: "Gemma 4 (dense), text only",
    differs: "as Gemma 3; norms of values too; embeddings that every layer reads; keys and values of earlier layers in the last ones, \
              keys that are values too, heads of other widths and partial rotation in layers without a window, where the model has these",
    pad: Some(0),
    has_rewards: false,
    read,
};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 262_144,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 30,
    num_attention_heads: 8,
    num_key_value_heads: Heads::Count(4),
    head_dim: Some(256),
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-6,
    tied: true,
};

/// Layers of six of which the last sees everything, where `layer_types` is absent.
const PERIOD: usize = 6;

const RULES: &[(&str, Rule)] = &[("default", as_it_is), ("proportional", proportional)];

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    const MIXTURE: &str = "enable_moe_block";
    if keys.flag(MIXTURE, false)? {
        return Err(keys.refuse(MIXTURE, "`false`: Gemma 4's mixture of experts is not computed"));
    }
    let attends = keys.text("use_bidirectional_attention")?;
    if !matches!(attends, None | Some("vision")) {
        let expected = "null or `vision`, which is for images alone: tokens that see later ones are not computed";
        return Err(keys.refuse("use_bidirectional_attention", expected));
    }
    let base = ModelConfig::base(keys, &DEFAULTS)?;
    let layers = layers(keys, &base)?;
    Ok(ModelConfig {
        activation: super::activation(keys, "hidden_activation", Activation::GeluTanh)?,
        biases: super::attention_biases(keys)?,
        norms: Norms::Both,
        qk_norm: QkNorm::Head,
        value_norm: true,
        embedding_scale: (base.hidden_size as f64).sqrt(),
        rounds_embedding_scale: true,
        attention_scale: 1.0,
        logit_soft_cap: keys.positive("final_logit_softcapping")?,
        per_layer_embedding: per_layer_embedding(keys, base.vocab_size)?,
        layer_scalars: true,
        ropes: ropes(keys, &base, &layers)?,
        layers,
        ..base
    })
}

/// Embeddings that layers read; none where their width is 0.
fn per_layer_embedding(keys: &Keys<'_>, vocabulary: i64) -> Result<Option<PerLayerEmbedding>> {
    const WIDTH: &str = "hidden_size_per_layer_input";
    const ENTRIES: &str = "vocab_size_per_layer_input";
    if keys.get(WIDTH).and_then(Value::as_i64) == Some(0) {
        return Ok(None);
    }
    let (width, vocab_size) = (keys.count_or(WIDTH, 256)?, keys.count_or(ENTRIES, 262_144)?);
    if vocab_size < vocabulary {
        return Err(keys.refuse(ENTRIES, &format!("at least {vocabulary}, the entries of the vocabulary")));
    }
    Ok(Some(PerLayerEmbedding { vocab_size, width }))
}

fn layers(keys: &Keys<'_>, base: &ModelConfig) -> Result<Vec<LayerConfig>> {
    const SHARING: &str = "num_kv_shared_layers";
    let count = base.num_hidden_layers;
    let mut slides = super::named_layers(keys, count, |layer| !(layer + 1).is_multiple_of(PERIOD))?;
    // As transformers, which says so in a warning.
    slides.last_mut().into_iter().for_each(|last| *last = false);
    let window = keys.count_or("sliding_window", 512)?;
    let expected = || format!("a number from 0 to {}", count.saturating_sub(1));
    let shared = match keys.get(SHARING) {
        None => 0,
        Some(value) => {
            value.as_u64().filter(|&shared| shared < count as u64).ok_or_else(|| keys.refuse(SHARING, &expected()))?
                as usize
        }
    };
    let first_shared = count - shared;
    let is_doubled = keys.flag("use_double_wide_mlp", false)?;
    let values_are_keys = keys.flag("attention_k_eq_v", false)?;
    let sizes = Sizes::read(keys, &slides, values_are_keys)?;
    let layer = |(index, &slides_here): (usize, &bool)| {
        let is_shared = index >= first_shared;
        let keys_of = slides[..first_shared].iter().rposition(|slides| *slides == slides_here).filter(|_| is_shared);
        if is_shared && keys_of.is_none() {
            let kind = if slides_here { "sliding_attention" } else { "full_attention" };
            return Err(keys.refuse(SHARING, &format!("one that leaves a layer of `{kind}` with keys of its own")));
        }
        let [head_dim, key_heads] = sizes.of(index);
        Ok(LayerConfig {
            window: slides_here.then_some(window),
            rope: Some(usize::from(slides_here)),
            head_dim,
            key_heads,
            intermediate_size: (is_shared && is_doubled).then_some(2 * base.intermediate_size),
            values_are_keys: values_are_keys && !slides_here,
            keys_of,
            ..LayerConfig::PLAIN
        })
    };
    let layers = slides.iter().enumerate().map(layer).collect::<Result<Vec<_>>>()?;
    sizes.check(&slides, base)?;
    Ok(layers)
}

/// Widths and key heads of layers that differ from the model's.
struct Sizes<'a> {
    keys: Keys<'a>,
    of_layers: BTreeMap<usize, [Option<i64>; 2]>,
}

const PER_LAYER: &str = "per_layer_config";
const OWN: [&str; 2] = ["head_dim", "num_key_value_heads"];

impl<'a> Sizes<'a> {
    /// Sizes of `per_layer_config`, as transformers writes them, or else of layers that see everything.
    fn read(keys: &Keys<'a>, slides: &[bool], values_are_keys: bool) -> Result<Self> {
        let mut of_layers = BTreeMap::new();
        if !keys.has(PER_LAYER) {
            let head_dim = keys.count_or("global_head_dim", 512)?;
            let key_heads = if values_are_keys { keys.count("num_global_key_value_heads")? } else { None };
            let full = slides.iter().enumerate().filter(|(_, slides)| !**slides);
            of_layers.extend(full.map(|(index, _)| (index, [Some(head_dim), key_heads])));
        }
        if let Some(given) = keys.object(PER_LAYER, "per_layer_config.")? {
            for (index, settings) in given.entries() {
                let layer = index.parse::<usize>().ok().filter(|layer| *layer < slides.len());
                let expected = || given.refuse(index, "settings of a layer, by its number");
                let (Some(layer), Value::Object(settings)) = (layer, settings) else { return Err(expected()) };
                let own = given.of(settings, "per_layer_config.*.");
                if let Some(other) = settings.keys().find(|key| !OWN.contains(&key.as_str())) {
                    return Err(
                        own.refuse(other, "absent: layers differ in `head_dim` and `num_key_value_heads` alone")
                    );
                }
                of_layers.insert(layer, [own.count(OWN[0])?, own.count(OWN[1])?]);
            }
        }
        Ok(Self { keys: *keys, of_layers })
    }

    fn of(&self, layer: usize) -> [Option<i64>; 2] {
        self.of_layers.get(&layer).copied().unwrap_or_default()
    }

    /// Refuses sizes that cannot be computed with, and those that differ among layers of a kind, which have one rotary rule and may share
    /// keys.
    fn check(&self, slides: &[bool], base: &ModelConfig) -> Result<()> {
        let key = if self.keys.has(PER_LAYER) { PER_LAYER } else { "global_head_dim" };
        let of = |index: usize| {
            let [width, heads] = self.of(index);
            (width.unwrap_or(base.head_dim), heads.unwrap_or(base.num_key_value_heads))
        };
        for (index, kind) in slides.iter().enumerate() {
            let (width, heads) = of(index);
            if width % 2 != 0 || width > 1 << 16 || base.num_attention_heads % heads != 0 {
                let all = base.num_attention_heads;
                let expected = format!("even widths of heads up to 65536, and a divisor of {all} query heads");
                return Err(self.keys.refuse(key, &expected));
            }
            let first = slides.iter().position(|other| other == kind).unwrap_or(index);
            if of(first) != of(index) {
                return Err(self.keys.refuse(key, "the same sizes in all layers of a kind"));
            }
        }
        Ok(())
    }
}

/// Rules of layers that see everything, and of layers with a window.
fn ropes(keys: &Keys<'_>, base: &ModelConfig, layers: &[LayerConfig]) -> Result<Vec<RopeConfig>> {
    const RULES_KEY: &str = "rope_parameters";
    if keys.get("rope_scaling").is_some() {
        return Err(keys.refuse("rope_scaling", &format!("absent: a rule for each kind of layer is in `{RULES_KEY}`")));
    }
    let given = keys.object(RULES_KEY, "rope_parameters.")?;
    let of = |place: usize, kind: &str, within: &'static str, theta: f64| {
        let here = layers.iter().find(|layer| layer.rope == Some(place));
        let width = here.and_then(|layer| layer.head_dim).unwrap_or(base.head_dim);
        let frame = Frame { width, rules: RULES, ..Frame::of(keys, base)? };
        let Some(given) = &given else {
            let rope = RopeConfig::of_rule(keys, None, theta, &frame)?;
            // A quarter of each head where everything is seen.
            let scaling = if place == 0 {
                crate::config::RopeScaling::Proportional { rotated: width / 8, factor: 1.0 }
            } else {
                rope.scaling.clone()
            };
            return Ok(RopeConfig { scaling, ..rope });
        };
        match given.object(kind, within)? {
            Some(rule) => RopeConfig::of_rule(keys, Some(&rule), rule.needed_positive("rope_theta")?, &frame),
            None if here.is_none() => RopeConfig::of_rule(keys, None, theta, &frame),
            None => Err(given.refuse(kind, "the rule of such layers")),
        }
    };
    let full = of(0, "full_attention", "rope_parameters.full_attention.", 1e6)?;
    Ok(vec![full, of(1, "sliding_attention", "rope_parameters.sliding_attention.", 1e4)?])
}
