//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), as transformers computes it: in f32, halves rotated.
//!
//! Letters: T tokens, N heads, D head width, R rotated entries of it.

use simplemix_torch::rotated;
use tch::{Device, Kind, Tensor};

use crate::config::{RopeConfig, RopeScaling, limits};
use crate::error::{Doing, Result};

/// Inverse frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rope {
    inv_freq: Tensor, // [R / 2]
    factor: f64,
    longest: Option<i64>,
}

/// Cosines and sines of some positions, each `[T, 1, R / 2]`.
#[derive(Debug)]
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, device: Device) -> Self {
        let inv_freq: Vec<f32> = (0..config.width / 2)
            .map(|i| {
                // transformers takes power and quotient in f32.
                let exponent = (2 * i) as f32 / config.width as f32;
                let base = (config.theta as f32).powf(exponent);
                match &config.scaling {
                    RopeScaling::LongRope { short_factor, .. } => 1.0 / (short_factor[i as usize] as f32 * base),
                    scaling => scaled(1.0 / base, scaling),
                }
            })
            .collect();
        let (factor, longest) = match config.scaling {
            RopeScaling::LongRope { attention_factor, original_max_position_embeddings, .. } => {
                (attention_factor, Some(original_max_position_embeddings))
            }
            _ => (1.0, None),
        };
        Self { inv_freq: Tensor::from_slice(&inv_freq).to_device(device), factor, longest }
    }

    /// Divisors of positions, for tests.
    #[cfg(test)]
    pub(crate) fn inverse_frequencies(&self) -> Vec<f64> {
        Vec::try_from(self.inv_freq.to_kind(Kind::Double)).expect("a vector of numbers")
    }

    /// Factor of cosines and sines, for tests.
    #[cfg(test)]
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// Angles of `positions` `[T]`, Int64, of which the largest is `last`.
    pub(crate) fn turn(&self, positions: &Tensor, last: i64, kind: Kind) -> Result<Turn> {
        if let Some(longest) = self.longest
            && last >= longest
        {
            return Err(limits::too_long((last + 1).to_string(), longest));
        }
        let angles = positions
            .f_to_kind(Kind::Float)
            .and_then(|p| p.f_outer(&self.inv_freq))
            .and_then(|a| a.f_unsqueeze(1))
            .doing("computing rotary angles")?;
        let of = |wave: Tensor| if self.factor == 1.0 { wave } else { wave * self.factor };
        Ok(Turn { cos: of(angles.cos()).to_kind(kind), sin: of(angles.sin()).to_kind(kind) })
    }
}

impl Turn {
    /// Rotates the first R entries of `x` `[T, N, D]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rotated(x, &self.cos, &self.sin)?)
    }
}

/// transformers' `_compute_linear_scaling_rope_parameters` and `_compute_llama3_parameters`.
fn scaled(freq: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::Default | RopeScaling::LongRope { .. } => freq,
        RopeScaling::Linear { factor } => freq / factor as f32,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: context,
        } => {
            let (factor, low, high) = (factor as f32, low_freq_factor as f32, high_freq_factor as f32);
            let context = context as f32;
            let wavelength = std::f32::consts::TAU / freq;
            if wavelength > context / low {
                freq / factor
            } else if wavelength < context / high {
                freq
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                (1.0 - smooth) * freq / factor + smooth * freq
            }
        }
    }
}
