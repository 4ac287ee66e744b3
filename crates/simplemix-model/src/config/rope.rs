//! Rotary settings, from transformers 4's keys or transformers 5's one.

use serde::Serialize;

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
    /// How frequencies are stretched for contexts longer than in pre-training.
    pub scaling: RopeScaling,
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
    /// LongRoPE (arXiv:2402.13753), as Phi-3 has it, for sequences within the context of the pre-training. Longer ones
    /// would need every earlier key again, so they are refused.
    LongRope {
        /// Divisor of each frequency, `[width / 2]`.
        short_factor: Vec<f64>,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Longest sequence, in tokens.
        original_max_position_embeddings: i64,
    },
}

/// Facts outside of a rule that it needs.
pub(crate) struct Frame {
    /// Entries of a head that are rotated.
    pub(crate) width: i64,
    /// Longest sequence the model was made for.
    pub(crate) max_position_embeddings: i64,
    /// Context of the pre-training where it stands beside the rule; it takes precedence over the rule's own.
    pub(crate) original: Option<i64>,
    /// Names of LongRoPE.
    pub(crate) long_names: &'static [&'static str],
}

impl Frame {
    /// That of a family with whole heads rotated.
    pub(crate) fn of(keys: &Keys<'_>, model: &ModelConfig) -> Result<Self> {
        Ok(Self {
            width: model.head_dim,
            max_position_embeddings: model.max_position_embeddings,
            original: keys.count("original_max_position_embeddings")?,
            long_names: &["longrope"],
        })
    }

    /// Context of the pre-training, as transformers' `standardize_rope_params` finds it.
    fn original(&self, rule: &Keys<'_>) -> Result<i64> {
        match self.original {
            Some(original) => Ok(original),
            None => Ok(rule.count("original_max_position_embeddings")?.unwrap_or(self.max_position_embeddings)),
        }
    }
}

impl RopeConfig {
    /// The rule, and the base, which older files have beside it.
    pub(crate) fn read(keys: &Keys<'_>, model: &ModelConfig) -> Result<Self> {
        let theta = keys.positive("rope_theta")?.unwrap_or(10_000.0);
        Self::of_rule(keys, Self::rule(keys)?.as_ref(), theta, &Frame::of(keys, model)?)
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
        Ok(Self { theta, width: frame.width, scaling })
    }
}

/// A kind of layer that the rule has an own rule for.
fn by_layer(rule: &Keys<'_>) -> Option<&'static str> {
    ["full_attention", "sliding_attention"].into_iter().find(|kind| rule.has(kind))
}

impl RopeScaling {
    fn read(rule: &Keys<'_>, frame: &Frame) -> Result<Self> {
        // Older files say `type` where newer ones say `rope_type`.
        let key = if rule.get("rope_type").is_some() { "rope_type" } else { "type" };
        Ok(match rule.text(key)? {
            None | Some("default") => Self::Default,
            Some("linear") => Self::Linear { factor: rule.needed_positive("factor")? },
            Some("llama3") => Self::Llama3 {
                factor: rule.needed_positive("factor")?,
                low_freq_factor: rule.needed_positive("low_freq_factor")?,
                high_freq_factor: rule.needed_positive("high_freq_factor")?,
                original_max_position_embeddings: frame.original(rule)? as f64,
            },
            Some(name) if frame.long_names.contains(&name) => long_rope(rule, frame)?,
            Some(_) => return Err(rule.refuse(key, "`default`, `linear`, `llama3` or `longrope`")),
        })
    }
}

/// transformers' `_compute_longrope_parameters`.
fn long_rope(rule: &Keys<'_>, frame: &Frame) -> Result<RopeScaling> {
    let original = frame.original(rule)?;
    let factor = match rule.positive("factor")? {
        Some(factor) => factor,
        None => frame.max_position_embeddings as f64 / original as f64,
    };
    let attention_factor = match rule.positive("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short_factor: rule.positives("short_factor", (frame.width / 2) as usize)?,
        attention_factor,
        original_max_position_embeddings: original,
    })
}
