//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), as transformers computes it: in f32, halves rotated.
//!
//! Some rules take the frequencies of a sequence from its length, as transformers finds them for that sequence alone.
//! Letters: T tokens, N heads, D head width, R rotated entries of it.

use simplemix_torch::rotated;
use tch::{Device, Kind, Tensor};

use crate::config::{QueryGrowth, RopeConfig, RopePairs, RopeScaling};
use crate::error::{Doing, Result};
use crate::packed::Packed;

/// Inverse frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rope {
    config: RopeConfig,
    /// Frequencies of every sequence, `[R / 2]`; none where they follow from a sequence's length.
    inv_freq: Option<Tensor>,
    factor: f64,
}

/// Inverse frequencies of the sequences of a pass.
#[derive(Debug)]
pub(crate) struct ByLength {
    inv_freq: Tensor, // [C, R / 2], C lengths
    /// Row of each token, `[T]`; none where one row is that of all.
    rows: Option<Tensor>,
}

/// Cosines and sines of some positions, each `[T, 1, R / 2]`.
#[derive(Debug)]
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
    pairs: RopePairs,
    /// Factor of each query, `[T, 1, 1]`, if there is one.
    query_factor: Option<Tensor>,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, device: Device) -> Self {
        let factor = match config.scaling {
            RopeScaling::LongRope { attention_factor, .. } | RopeScaling::Yarn { attention_factor, .. } => {
                attention_factor
            }
            _ => 1.0,
        };
        let inv_freq = match config.scaling.length_rule() {
            None => Some(Tensor::from_slice(&inverse_frequencies(config, 0)).to_device(device)),
            Some(_) => None,
        };
        Self { config: config.clone(), inv_freq, factor }
    }

    /// Divisors of positions in a sequence of `length` tokens, for tests.
    #[cfg(test)]
    pub(crate) fn inverse_frequencies(&self, length: i64) -> Vec<f64> {
        inverse_frequencies(&self.config, length).into_iter().map(f64::from).collect()
    }

    /// Factor of cosines and sines, for tests.
    #[cfg(test)]
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// Frequencies of the sequences of `packed`, which are still to be moved to the model's device; none where they are those
    /// of every sequence.
    pub(crate) fn by_length(&self, packed: &Packed) -> Result<Option<ByLength>> {
        let Some(rule) = self.config.scaling.length_rule() else { return Ok(None) };
        let (mut classes, mut rows) = (Vec::new(), Vec::with_capacity(packed.len()));
        for (segment, length) in packed.lengths(rule)? {
            let class = rule.class(length);
            let row = classes.iter().position(|known| *known == class).unwrap_or_else(|| {
                classes.push(class);
                classes.len() - 1
            });
            rows.extend(std::iter::repeat_n(row as i64, segment.len));
        }
        let all: Vec<f32> = classes.iter().flat_map(|class| inverse_frequencies(&self.config, *class)).collect();
        let inv_freq = Tensor::f_from_slice(&all).and_then(|all| all.f_view([classes.len() as i64, -1]));
        let rows = (classes.len() > 1).then(|| Tensor::from_slice(&rows));
        Ok(Some(ByLength { inv_freq: inv_freq.doing("laying out rotary frequencies")?, rows }))
    }

    /// Angles of `positions` `[T]`, Int64, with the frequencies of the pass where it has its own.
    pub(crate) fn turn(&self, positions: &Tensor, by_length: Option<&ByLength>, kind: Kind) -> Result<Turn> {
        let of_pass = by_length.map(ByLength::of_tokens).transpose()?;
        let inv_freq =
            of_pass.as_ref().or(self.inv_freq.as_ref()).expect("a pass has frequencies where a model has none");
        let angles = positions
            .f_to_kind(Kind::Float)
            .and_then(|p| p.f_unsqueeze(1)?.f_mul(inv_freq)?.f_unsqueeze(1))
            .doing("computing rotary angles")?;
        let of = |wave: Tensor| if self.factor == 1.0 { wave } else { wave * self.factor };
        let query_factor = self.config.query_growth.map(|growth| factor(growth, positions).map(|f| f.to_kind(kind)));
        Ok(Turn {
            cos: of(angles.cos()).to_kind(kind),
            sin: of(angles.sin()).to_kind(kind),
            pairs: self.config.pairs,
            query_factor: query_factor.transpose()?,
        })
    }
}

impl ByLength {
    /// Tensors that are on the host still.
    pub(crate) fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        std::iter::once(&mut self.inv_freq).chain(&mut self.rows)
    }

    /// `[T, R / 2]`, or `[1, R / 2]`.
    fn of_tokens(&self) -> Result<Tensor> {
        match &self.rows {
            Some(rows) => self.inv_freq.f_index_select(0, rows).doing("choosing rotary frequencies"),
            None => Ok(self.inv_freq.shallow_clone()),
        }
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

    /// Rotated queries `[T, N, D]` times the factor of their positions.
    pub(crate) fn grown(&self, queries: Tensor) -> Result<Tensor> {
        match &self.query_factor {
            Some(factor) => queries.f_mul(factor).doing("scaling queries"),
            None => Ok(queries),
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

/// Factors `[T, 1, 1]` of queries at `positions` `[T]`: transformers' `get_llama_4_attn_scale`.
fn factor(QueryGrowth { beta, context }: QueryGrowth, positions: &Tensor) -> Result<Tensor> {
    let contexts = || positions.f_to_kind(Kind::Float)?.f_div_scalar(context)?.f_floor()?.f_log1p();
    let grown = || (contexts()? * beta + 1.0).f_view([-1, 1, 1]);
    grown().doing("computing the growth of queries")
}

/// Inverse frequencies `[R / 2]` of a sequence of `length` tokens; transformers takes powers and quotients in f32.
fn inverse_frequencies(config: &RopeConfig, length: i64) -> Vec<f32> {
    let theta = config.theta as f32 * growth(config, length);
    let bases = (0..config.width / 2).map(|i| theta.powf((2 * i) as f32 / config.width as f32));
    match config.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => bases.map(|base| 1.0 / base).collect(),
        RopeScaling::Linear { factor } => bases.map(|base| 1.0 / base / factor as f32).collect(),
        RopeScaling::Proportional { rotated, factor } => {
            let of = |(pair, base): (i64, f32)| if pair < rotated { 1.0 / base / factor as f32 } else { 0.0 };
            (0..).zip(bases).map(of).collect()
        }
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
        RopeScaling::LongRope {
            ref short_factor, ref long_factor, original_max_position_embeddings: original, ..
        } => {
            let divisors = if length > original { long_factor } else { short_factor };
            bases.zip(divisors).map(|(base, divisor)| 1.0 / (*divisor as f32 * base)).collect()
        }
    }
}

/// Growth of the base for a sequence of `length` tokens: transformers' `_compute_dynamic_ntk_parameters`.
fn growth(config: &RopeConfig, length: i64) -> f32 {
    match config.scaling {
        RopeScaling::Dynamic { factor, max_position_embeddings: most } if length > most => {
            let stretch = factor as f32 * length as f32 / most as f32 - (factor - 1.0) as f32;
            stretch.powf((config.width as f64 / (config.width as f64 - 2.0)) as f32)
        }
        _ => 1.0,
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
