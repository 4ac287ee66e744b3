//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), as transformers computes it: in f32, halves rotated.
//!
//! Letters: T tokens, N heads, D head width.

use tch::{Device, Kind, Tensor};

use crate::config::{RopeConfig, RopeScaling};
use crate::error::{Doing, Result};

/// Inverse frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rope {
    inv_freq: Tensor, // [D / 2]
}

/// Cosines and sines of some positions, each `[T, 1, D / 2]`.
#[derive(Debug)]
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, head_dim: i64, device: Device) -> Self {
        let inv_freq: Vec<f32> = (0..head_dim / 2)
            .map(|i| {
                // transformers takes power and quotient in f32.
                let exponent = (2 * i) as f32 / head_dim as f32;
                scaled(1.0 / (config.theta as f32).powf(exponent), config.scaling)
            })
            .collect();
        Self { inv_freq: Tensor::from_slice(&inv_freq).to_device(device) }
    }

    /// Angles of `positions` `[T]`, Int64.
    pub(crate) fn turn(&self, positions: &Tensor, kind: Kind) -> Result<Turn> {
        let angles = positions
            .f_to_kind(Kind::Float)
            .and_then(|p| p.f_outer(&self.inv_freq))
            .and_then(|a| a.f_unsqueeze(1))
            .doing("computing rotary angles")?;
        Ok(Turn { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) })
    }
}

impl Turn {
    /// Rotates `x` `[T, N, D]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let halves = x.f_chunk(2, -1).doing("splitting heads")?;
        let (a, b) = (&halves[0], &halves[1]);
        let turned = [a * &self.cos - b * &self.sin, b * &self.cos + a * &self.sin];
        Tensor::f_cat(&turned, -1).doing("rotating heads")
    }
}

/// transformers' `_compute_linear_scaling_rope_parameters` and `_compute_llama3_parameters`.
fn scaled(freq: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Default => freq,
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
