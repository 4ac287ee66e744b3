//! An advice as `advice.json` has it.

use std::fmt;

use serde::{Deserialize, Serialize};
use simplemix_eval::html::number;

/// Measurements of a model, prompts and off-policy pairs, with what the literature says of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Advice {
    /// Program that wrote it.
    pub tool: String,
    /// Name of the model.
    pub model: String,
    /// Number of prompts.
    pub prompts: u64,
    /// Responses that were sampled to each prompt.
    pub samples: u64,
    /// Off-policy pairs whose likelihood was measured.
    pub off_policy_pairs: u64,
    /// Prompts to which there is an off-policy pair.
    pub matched_prompts: u64,
    /// Readings.
    pub readings: Vec<Reading>,
    /// Facts about the files that the user should read.
    pub notices: Vec<String>,
}

/// A measurement, and what its source says of such a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reading {
    /// Subject.
    pub name: String,
    /// Numbers.
    pub figures: Vec<Figure>,
    /// Words of the source, or that it names no value.
    pub says: String,
    /// Papers.
    pub source: String,
}

/// A number of a reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Figure {
    /// Name.
    pub name: String,
    /// Value; none where there was nothing to measure.
    pub value: Option<f64>,
    /// Half the width of its 95 % interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width_95: Option<f64>,
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value: value.is_finite().then_some(value), half_width_95: None }
    }

    /// The mean of values, with its interval.
    pub(super) fn mean(name: impl Into<String>, values: &[f64]) -> Self {
        let half = 1.96 * simplemix_eval::standard_error(values);
        let half_width_95 = half.is_finite().then_some(half);
        Self { half_width_95, ..Self::new(name, simplemix_eval::mean(values)) }
    }
}

impl fmt::Display for Figure {
    /// The value with half the width of its interval, such as `0.5000 ± 0.0620`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.half_width_95) {
            (Some(value), Some(half)) => write!(f, "{} ± {}", number(value), number(half)),
            // Counts are whole.
            (Some(value), None) if value.fract() == 0.0 => write!(f, "{value:.0}"),
            (Some(value), None) => f.write_str(&number(value)),
            (None, _) => f.write_str("nothing to measure"),
        }
    }
}
