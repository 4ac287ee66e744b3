//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), as transformers computes it: in f32, halves rotated.
//!
//! Letters: T tokens, N heads, D head width, R rotated entries of it.

use simplemix_torch::rotated;
use tch::{Device, Kind, Tensor};

use crate::config::{RopeConfig, RopePairs, RopeScaling, limits};
use crate::error::{Doing, Result};

/// Inverse frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rope {
    inv_freq: Tensor, // [R / 2]
    factor: f64,
    longest: Option<i64>,
    pairs: RopePairs,
}

/// Cosines and sines of some positions, each `[T, 1, R / 2]`.
#[derive(Debug)]
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
    pairs: RopePairs,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, device: Device) -> Self {
        let (factor, longest) = match config.scaling {
            RopeScaling::LongRope { attention_factor, original_max_position_embeddings, .. } => {
                (attention_factor, Some(original_max_position_embeddings))
            }
            RopeScaling::Yarn { attention_factor, .. } => (attention_factor, None),
            _ => (1.0, None),
        };
        let inv_freq = Tensor::from_slice(&inverse_frequencies(config)).to_device(device);
        Self { inv_freq, factor, longest, pairs: config.pairs }
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
        Ok(Turn { cos: of(angles.cos()).to_kind(kind), sin: of(angles.sin()).to_kind(kind), pairs: self.pairs })
    }
}

impl Turn {
    /// Rotates the first R entries of `x` `[T, N, D]`. Of pairs side by side, all first entries come first in the result: in
    /// products of queries and keys, which are both put so, the order of entries does not matter.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self.pairs {
            RopePairs::Halves => Ok(rotated(x, &self.cos, &self.sin)?),
            RopePairs::Neighbours => Ok(rotated(&self.in_halves(x)?, &self.cos, &self.sin)?),
        }
    }

    /// Puts the first entries of all pairs before the second ones.
    fn in_halves(&self, x: &Tensor) -> Result<Tensor> {
        let width = 2 * self.cos.size()[2];
        let ordered = || {
            let turned = x.f_narrow(2, 0, width)?.f_unflatten(2, [-1, 2])?.f_transpose(2, 3)?.f_flatten(2, 3)?;
            match x.size()[2] - width {
                0 => Ok(turned),
                rest => Tensor::f_cat(&[turned, x.f_narrow(2, width, rest)?], 2),
            }
        };
        ordered().doing("ordering pairs of entries")
    }
}

/// Inverse frequencies `[R / 2]`; transformers takes powers and quotients in f32.
fn inverse_frequencies(config: &RopeConfig) -> Vec<f32> {
    let count = config.width / 2;
    let bases = (0..count).map(|i| (config.theta as f32).powf((2 * i) as f32 / config.width as f32));
    match config.scaling {
        RopeScaling::Default => bases.map(|base| 1.0 / base).collect(),
        RopeScaling::Linear { factor } => bases.map(|base| 1.0 / base / factor as f32).collect(),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: context,
        } => {
            let [factor, low, high] = [factor, low_freq_factor, high_freq_factor].map(|x| x as f32);
            bases.map(|base| llama3(1.0 / base, factor, [low, high], context as f32)).collect()
        }
        RopeScaling::Yarn { factor, .. } => {
            let of = |(base, divided): (f32, f32)| divided / (factor as f32 * base) + (1.0 - divided) / base;
            bases.zip(yarn_ramp(config)).map(of).collect()
        }
        RopeScaling::LongRope { ref short_factor, .. } => {
            bases.zip(short_factor).map(|(base, divisor)| 1.0 / (*divisor as f32 * base)).collect()
        }
    }
}

/// transformers' `_compute_llama3_parameters`.
fn llama3(freq: f32, factor: f32, [low, high]: [f32; 2], context: f32) -> f32 {
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

/// Share of each frequency that is divided, as transformers' `_compute_yarn_parameters` finds it.
fn yarn_ramp(RopeConfig { theta, width, scaling, .. }: &RopeConfig) -> Vec<f32> {
    let &RopeScaling::Yarn { beta_fast, beta_slow, truncate, original_max_position_embeddings: context, .. } = scaling
    else {
        return vec![0.0; *width as usize / 2];
    };
    // The number, not a whole one, of the frequency that turns so often within the context.
    let place = |turns: f64| *width as f64 * (context / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
    let (low, high) = (place(beta_fast), place(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(*width as f64 - 1.0));
    let span = if low == high { 0.001 } else { high - low };
    (0..width / 2).map(|i| ((i as f32 - low as f32) / span as f32).clamp(0.0, 1.0)).collect()
}
