//! Rotary settings, from transformers 4's keys or transformers 5's one.

use serde::Serialize;
use serde_json::{Map, Value};

use super::ModelConfig;
use super::keys::Keys;
use crate::error::Result;

/// Rotary position embedding: base, width and scaling rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RopeConfig {
    /// Base of the geometric row of frequencies.
    pub theta: f64,
    /// Leading entries of a head that are rotated; even. The others stay as they are.
    pub width: i64,
    /// Entries that are rotated together.
    pub pairs: RopePairs,
    /// How frequencies are stretched for contexts longer than in pre-training.
    pub scaling: RopeScaling,
    /// Growth of rotated queries with their position, if there is any.
    pub query_growth: Option<QueryGrowth>,
}

/// Factor `1 + beta * ln(1 + floor(position / context))` of rotated queries, as Llama 4 and Ministral 3 have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QueryGrowth {
    /// Strength.
    pub beta: f64,
    /// Tokens over which the factor stays the same.
    pub context: i64,
}

/// Entries of a head that are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RopePairs {
    /// One of the first half and one of the second.
    Halves,
    /// Two side by side.
    Neighbours,
}

/// Stretching rule of rotary frequencies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Frequencies as they are.
    Default,
    /// Every frequency divided by one factor.
    Linear {
        /// The factor, above zero.
        factor: f64,
    },
    /// Llama 3.1's rule: low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
    /// YaRN (arXiv:2309.00071): frequencies of few turns within the context of the pre-training divided, those of many kept,
    /// a linear ramp between.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Turns from which on frequencies are kept.
        beta_fast: f64,
        /// Turns up to which frequencies are divided.
        beta_slow: f64,
        /// Whether the ends of the ramp are rounded outwards to whole frequencies.
        truncate: bool,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
    /// Dynamic NTK: the base grows with the length of a sequence that is longer than the model was made for.
    Dynamic {
        /// Growth of the base, above zero.
        factor: f64,
        /// Longest sequence whose frequencies are as they are, in tokens.
        max_position_embeddings: i64,
    },
    /// Frequencies of whole heads, of which the lowest are none: the entries that they would rotate stay as they are.
    Proportional {
        /// Pairs of entries that are rotated.
        rotated: i64,
        /// Every frequency divided by this one.
        factor: f64,
    },
    /// LongRoPE (arXiv:2402.13753): a divisor of each frequency, of two sets by the length of the sequence.
    LongRope {
        /// Divisors for sequences within the context of the pre-training, `[width / 2]`.
        short_factor: Vec<f64>,
        /// Divisors for longer sequences, `[width / 2]`.
        long_factor: Vec<f64>,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: i64,
        /// Whether generation reads a sequence again that grows out of that context, as transformers does for Phi 3. Without,
        /// its earlier keys stay as they are.
        reads_again: bool,
    },
}

/// Keys beside the rule of a model that rotates a part of each head.
#[derive(Clone, Copy)]
pub(crate) struct PartialKeys {
    /// Base of the frequencies.
    pub(crate) theta: &'static str,
    /// Share of a head that is rotated.
    pub(crate) share: &'static str,
}

impl PartialKeys {
    /// The usual ones.
    pub(crate) const USUAL: Self = Self { theta: "rope_theta", share: PARTIAL };
}

/// The rule's key of the share of a head that is rotated.
const PARTIAL: &str = "partial_rotary_factor";

/// Reader of a rule's keys.
pub(crate) type Rule = fn(&Keys<'_>, &Frame) -> Result<RopeScaling>;

/// Rules by the names that transformers has for them.
const RULES: &[(&str, Rule)] = &[
    ("default", as_it_is),
    ("dynamic", dynamic),
    ("linear", linear),
    ("llama3", llama3),
    ("longrope", long_rope),
    ("yarn", yarn),
];

/// Facts outside of a rule that it needs.
pub(crate) struct Frame {
    /// Entries of a head that are rotated.
    pub(crate) width: i64,
    /// Longest sequence the model was made for.
    pub(crate) max_position_embeddings: i64,
    /// Context of the pre-training where it stands beside the rule; it takes precedence over the rule's own.
    pub(crate) original: Option<i64>,
    /// YaRN's `truncate`, where it is another object than the rule that holds it.
    pub(crate) truncate: Option<bool>,
    /// Whether generation reads a sequence again that grows out of LongRoPE's first context.
    pub(crate) reads_again: bool,
    /// Rules that the family knows, by name.
    pub(crate) rules: &'static [(&'static str, Rule)],
}

impl Frame {
    /// That of a family with whole heads rotated.
    pub(crate) fn of(keys: &Keys<'_>, model: &ModelConfig) -> Result<Self> {
        Ok(Self {
            width: model.head_dim,
            max_position_embeddings: model.max_position_embeddings,
            original: keys.count("original_max_position_embeddings")?,
            truncate: None,
            reads_again: false,
            rules: RULES,
        })
    }

    /// Context of the pre-training, as transformers' `standardize_rope_params` finds it.
    pub(crate) fn original(&self, rule: &Keys<'_>) -> Result<i64> {
        match self.original {
            Some(original) => Ok(original),
            None => Ok(rule.count("original_max_position_embeddings")?.unwrap_or(self.max_position_embeddings)),
        }
    }

    /// Factor by which the context grew.
    fn growth(&self, rule: &Keys<'_>) -> Result<f64> {
        Ok(self.max_position_embeddings as f64 / self.original(rule)? as f64)
    }
}

impl RopeConfig {
    /// The rule, and the base, which older files have beside it, of a model that rotates whole heads.
    pub(crate) fn read(keys: &Keys<'_>, model: &ModelConfig) -> Result<Self> {
        Self::read_or(keys, model, 10_000.0)
    }

    /// As [`RopeConfig::read`], with the base of a file that has none.
    pub(crate) fn read_or(keys: &Keys<'_>, model: &ModelConfig, theta: f64) -> Result<Self> {
        Self::read_rule(keys, Self::rule(keys)?.as_ref(), model, theta)
    }

    /// As [`RopeConfig::read_or`], by this `rule`.
    pub(crate) fn read_rule(keys: &Keys<'_>, rule: Option<&Keys<'_>>, model: &ModelConfig, theta: f64) -> Result<Self> {
        let theta = keys.positive("rope_theta")?.unwrap_or(theta);
        let rope = Self::of_rule(keys, rule, theta, &Frame::of(keys, model)?)?;
        if rope.scaling != RopeScaling::Default {
            // transformers reads the share for these rules, and cannot rotate by it in such a model.
            let key = "partial_rotary_factor";
            let holder = rule.filter(|rule| rule.get(key).is_some()).unwrap_or(keys);
            if holder.positive(key)?.is_some_and(|share| (share * model.head_dim as f64) as i64 != model.head_dim) {
                return Err(holder.refuse(key, "1: models of this family rotate whole heads"));
            }
        }
        Ok(rope)
    }

    /// As [`RopeConfig::read`], of a model that rotates `share` of each head if the file does not say how much.
    pub(crate) fn read_partial(keys: &Keys<'_>, model: &ModelConfig, words: PartialKeys, share: f64) -> Result<Self> {
        let rule = Self::rule(keys)?;
        let (holder, key) = match &rule {
            Some(rule) if rule.has(PARTIAL) => (rule, PARTIAL),
            _ => (keys, words.share),
        };
        // Null beside the rule is no share at all to transformers, which then rotates whole heads; elsewhere it stumbles over it.
        let is_whole = rule.as_ref().is_none_or(|rule| !rule.has(PARTIAL)) && key == PARTIAL && keys.has(key);
        let share = if is_whole { holder.positive(key)?.unwrap_or(1.0) } else { holder.positive_or(key, share)? };
        let width = (model.head_dim as f64 * share) as i64;
        if share > 1.0 || width < 2 || width % 2 != 0 {
            return Err(holder.refuse(key, &format!("at most 1, and a share of {} that is even", model.head_dim)));
        }
        let theta = keys.positive(words.theta)?.unwrap_or(10_000.0);
        Self::of_rule(keys, rule.as_ref(), theta, &Frame { width, ..Frame::of(keys, model)? })
    }

    /// The object that holds the rule: `rope_scaling`, if it holds anything, takes precedence over `rope_parameters`, as in
    /// transformers 5.
    pub(crate) fn rule<'a>(keys: &Keys<'a>) -> Result<Option<Keys<'a>>> {
        let older = keys.object("rope_scaling", "rope_scaling.")?.filter(|rule| !rule.entries().is_empty());
        match older {
            Some(rule) => Ok(Some(rule)),
            None => keys.object("rope_parameters", "rope_parameters."),
        }
    }

    /// As `rule` says, where there is one; it may hold the base too.
    pub(crate) fn of_rule(keys: &Keys<'_>, rule: Option<&Keys<'_>>, default_theta: f64, frame: &Frame) -> Result<Self> {
        if let Some((rule, key)) = rule.and_then(|rule| Some((rule, by_layer(rule)?))) {
            return Err(rule.refuse(key, "one rule for all layers in a model of this family"));
        }
        let holder = rule.filter(|rule| rule.get("rope_theta").is_some()).unwrap_or(keys);
        let theta = rule.map_or(Ok(None), |rule| rule.positive("rope_theta"))?.unwrap_or(default_theta);
        if theta <= 1.0 {
            return Err(holder.refuse("rope_theta", "a number above 1"));
        }
        let scaling = match rule {
            Some(rule) => RopeScaling::read(rule, frame)?,
            None => RopeScaling::Default,
        };
        Ok(Self { theta, width: frame.width, pairs: RopePairs::Halves, scaling, query_growth: None })
    }
}

/// Bases of files that have none: of layers that see everything, and of layers with a window.
pub(crate) struct Bases {
    pub(crate) full: f64,
    pub(crate) sliding: f64,
}

/// Rules for layers that see everything, and for layers with a window, of a family that has one for each. transformers 5 has
/// them as two objects; entries of transformers 4's one rule, which is for the former, take precedence.
pub(crate) fn by_kind_of_layer(keys: &Keys<'_>, model: &ModelConfig, bases: &Bases) -> Result<[RopeConfig; 2]> {
    let rules = keys.object("rope_parameters", "rope_parameters.")?;
    let rule = |kind: &str, within: &'static str| match &rules {
        Some(rules) => rules.object(kind, within),
        None => Ok(None),
    };
    let full = rule("full_attention", "rope_parameters.full_attention.")?;
    let older = keys.object("rope_scaling", "rope_scaling.")?;
    let merged: Map<String, Value>;
    let full = match older {
        Some(older) => {
            // Where the older rule says `type` alone, that of the newer one stays.
            let default = Map::from_iter([("rope_type".to_owned(), Value::from("default"))]);
            let both = full.as_ref().map_or(&default, Keys::entries).iter().chain(older.entries());
            merged = both.map(|(key, value)| (key.clone(), value.clone())).collect();
            Some(keys.of(&merged, "rope_scaling."))
        }
        None => full,
    };
    let sliding = rule("sliding_attention", "rope_parameters.sliding_attention.")?;
    let truncate = Some(rules.as_ref().map_or(Ok(true), truncates)?);
    let frame = Frame { original: None, truncate, ..Frame::of(keys, model)? };
    let of = |rule: Option<&Keys<'_>>, theta: f64| RopeConfig::of_rule(keys, rule, theta, &frame);
    Ok([of(full.as_ref(), bases.full)?, of(sliding.as_ref(), bases.sliding)?])
}

/// A kind of layer that the rule has an own rule for.
fn by_layer(rule: &Keys<'_>) -> Option<&'static str> {
    ["full_attention", "sliding_attention"].into_iter().find(|kind| rule.has(kind))
}

/// Lengths of sequences that have the same rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LengthRule {
    /// All up to this one; above, each has its own.
    EachAbove(i64),
    /// All up to this one, and all above.
    TwoSides(i64),
}

impl LengthRule {
    /// The length that stands for all with the frequencies of `length`.
    pub(crate) fn class(self, length: i64) -> i64 {
        match self {
            Self::EachAbove(most) => length.max(most),
            Self::TwoSides(most) => length.clamp(most, most + 1),
        }
    }
}

impl RopeScaling {
    /// Whether the rule has a context of the pre-training.
    pub(crate) fn knows_context(&self) -> bool {
        matches!(self, Self::Llama3 { .. } | Self::Yarn { .. } | Self::LongRope { .. })
    }

    /// How frequencies follow from the length of a sequence; none: they are the same for all.
    pub(crate) fn length_rule(&self) -> Option<LengthRule> {
        match *self {
            Self::Dynamic { max_position_embeddings, .. } => Some(LengthRule::EachAbove(max_position_embeddings)),
            Self::LongRope { original_max_position_embeddings, .. } => {
                Some(LengthRule::TwoSides(original_max_position_embeddings))
            }
            _ => None,
        }
    }

    fn read(rule: &Keys<'_>, frame: &Frame) -> Result<Self> {
        // Older files say `type` where newer ones say `rope_type`.
        let key = if rule.get("rope_type").is_some() { "rope_type" } else { "type" };
        let name = rule.text(key)?.unwrap_or("default");
        match frame.rules.iter().find(|(known, _)| *known == name) {
            Some((_, read)) => read(rule, frame),
            None => Err(rule.refuse(key, &named(frame.rules))),
        }
    }
}

/// Names of rules, in words.
fn named(rules: &[(&str, Rule)]) -> String {
    let names: Vec<String> = rules.iter().map(|(name, _)| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Frequencies as they are.
pub(crate) fn as_it_is(_: &Keys<'_>, _: &Frame) -> Result<RopeScaling> {
    Ok(RopeScaling::Default)
}

/// transformers' `_compute_dynamic_ntk_parameters`.
fn dynamic(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    if frame.width < 4 {
        let kind = if rule.get("rope_type").is_some() { "rope_type" } else { "type" };
        return Err(rule.refuse(kind, "another rule: this one needs heads with at least 4 rotated entries"));
    }
    let factor = rule.needed_positive("factor")?;
    Ok(RopeScaling::Dynamic { factor, max_position_embeddings: frame.max_position_embeddings })
}

fn linear(rule: &Keys<'_>, _: &Frame) -> Result<RopeScaling> {
    Ok(RopeScaling::Linear { factor: rule.needed_positive("factor")? })
}

/// transformers' `_compute_proportional_rope_parameters`.
pub(crate) fn proportional(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    let share = rule.positive_or(PARTIAL, 1.0)?;
    if share > 1.0 {
        return Err(rule.refuse(PARTIAL, "at most 1"));
    }
    let rotated = (share * frame.width as f64 / 2.0).floor() as i64;
    Ok(RopeScaling::Proportional { rotated, factor: rule.positive_or("factor", 1.0)? })
}

fn llama3(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    Ok(RopeScaling::Llama3 {
        factor: rule.needed_positive("factor")?,
        low_freq_factor: rule.needed_positive("low_freq_factor")?,
        high_freq_factor: rule.needed_positive("high_freq_factor")?,
        original_max_position_embeddings: frame.original(rule)? as f64,
    })
}

/// transformers' `_compute_yarn_parameters`.
fn yarn(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    // transformers wants the key, and takes the growth of the context where it is null.
    let factor = match rule.has("factor") {
        true => rule.positive("factor")?.map_or_else(|| frame.growth(rule), Ok)?,
        false => rule.needed_positive("factor")?,
    };
    let scale = |share: f64| if factor <= 1.0 { 1.0 } else { 0.1 * share * factor.ln() + 1.0 };
    let attention_factor = match rule.positive("attention_factor")? {
        Some(given) => given,
        None => match (unless_zero(rule, "mscale")?, unless_zero(rule, "mscale_all_dim")?) {
            (Some(mscale), Some(all)) => scale(mscale) / scale(all),
            _ => scale(1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        attention_factor,
        beta_fast: unless_zero(rule, "beta_fast")?.unwrap_or(32.0),
        beta_slow: unless_zero(rule, "beta_slow")?.unwrap_or(1.0),
        truncate: frame.truncate.map_or_else(|| truncates(rule), Ok)?,
        original_max_position_embeddings: frame.original(rule)? as f64,
    })
}

/// YaRN's `truncate` in `holder`: true where it is absent, false where it is null.
pub(crate) fn truncates(holder: &Keys<'_>) -> Result<bool> {
    holder.flag("truncate", !holder.has("truncate"))
}

/// A number above zero; none where the key is absent, null or zero, which is one to transformers.
fn unless_zero(rule: &Keys<'_>, key: &str) -> Result<Option<f64>> {
    match rule.get(key).and_then(Value::as_f64) {
        Some(0.0) => Ok(None),
        _ => rule.positive(key),
    }
}

/// transformers' `_compute_longrope_parameters`.
pub(crate) fn long_rope(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    let original = frame.original(rule)?;
    let factor = rule.positive("factor")?.map_or_else(|| frame.growth(rule), Ok)?;
    let attention_factor = match rule.positive("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short_factor: rule.positives("short_factor", (frame.width / 2) as usize)?,
        long_factor: rule.positives("long_factor", (frame.width / 2) as usize)?,
        attention_factor,
        original_max_position_embeddings: original,
        reads_again: frame.reads_again,
    })
}
