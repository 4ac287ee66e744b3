//! Drawing the next token from rows of logits.
//!
//! Temperature, top-k, top-p and min-p are applied in this order and mean what they mean in transformers.
//! Letters: B rows, V vocabulary.

use tch::{Kind, Tensor};

use crate::error::{Doing, Error, Result};
use crate::random::uniform;
use crate::stand_by::for_all;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from so many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Draws from the fewest likeliest tokens that hold this share of the probability; 1 keeps all.
    pub top_p: f64,
    /// Draws from tokens at least this share as likely as the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Everything drawn is a function of this, the sample's stream and the position.
    pub seed: u64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

impl Sampling {
    /// The likeliest token at every step.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 };

    /// # Errors
    /// [`Error::Input`] naming the value out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what, found: f64, expected: &str| {
            Err(Error::Input { what, found: found.to_string(), expected: expected.to_owned() })
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature, "a number from 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "from 0 to 1");
        }
        Ok(())
    }

    /// Whether some tokens cannot be drawn.
    fn cuts(&self, vocab: usize) -> bool {
        self.top_p < 1.0 || self.min_p > 0.0 || (self.top_k > 0 && self.top_k < vocab)
    }
}

/// A row to draw the next token of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw<'a> {
    pub(crate) stream: u64,
    pub(crate) prompt: &'a [u32],
    /// Tokens drawn so far; their number is the position in the stream.
    pub(crate) answer: &'a [u32],
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) token: u32,
    /// Log-probability under the model itself: temperature 1, nothing cut.
    pub(crate) logp: f32,
    /// Log-probability under what it was drawn from.
    pub(crate) sampling_logp: f32,
}

/// Draws a token for each row, from `other` logits, which are mixed or processed, or else the model's own, `[B, V]`, f32 on
/// the CPU.
pub(crate) fn draw_rows(
    own: &Tensor,
    other: Option<&Tensor>,
    sampling: &Sampling,
    rows: &[Draw<'_>],
) -> Result<Vec<Drawn>> {
    let logits = other.unwrap_or(own);
    let (tokens, sampling_logps): (Vec<i64>, Vec<f32>) = if sampling.temperature == 0.0 {
        let best = logits.f_argmax(-1, false).and_then(Vec::try_from).doing("taking the likeliest token")?;
        (best, vec![0.0; rows.len()])
    } else {
        let weights = (logits / sampling.temperature).f_softmax(-1, Kind::Float).doing("the sampling distribution")?;
        let vocab = weights.size()[1] as usize;
        let mut values = vec![0f32; weights.numel()];
        weights.contiguous().f_copy_data(&mut values, weights.numel()).doing("reading probabilities")?;
        let mut picked = vec![(0, 0.0); rows.len()];
        let tasks = rows.iter().zip(values.chunks_exact(vocab)).zip(&mut picked).collect();
        for_all(tasks, |((row, weights), picked): ((&Draw<'_>, &[f32]), &mut (i64, f32))| {
            let uniform = uniform(sampling.seed, row.stream, row.answer.len() as u64);
            *picked = draw(weights, sampling, uniform);
        });
        picked.into_iter().unzip()
    };
    let picked = Tensor::from_slice(&tokens).unsqueeze(1);
    let logps = own.f_gather(1, &picked, false).and_then(|z| z.f_squeeze_dim(1)?.f_sub(&own.f_logsumexp([-1], false)?));
    let logps: Vec<f32> = logps.and_then(Vec::try_from).doing("log-probabilities of drawn tokens")?;
    let all = tokens.into_iter().zip(logps).zip(sampling_logps);
    Ok(all.map(|((token, logp), sampling_logp)| Drawn { token: token as u32, logp, sampling_logp }).collect())
}

/// A token and the logarithm of its share, from probabilities `[V]` and a uniform number.
fn draw(weights: &[f32], sampling: &Sampling, uniform: f64) -> (i64, f32) {
    if !sampling.cuts(weights.len()) {
        let all = weights.iter().enumerate().map(|(token, &weight)| (token, f64::from(weight)));
        return pick(all, uniform);
    }
    pick(kept(weights, sampling).into_iter(), uniform)
}

fn pick(kept: impl Iterator<Item = (usize, f64)> + Clone, uniform: f64) -> (i64, f32) {
    let total: f64 = kept.clone().map(|(_, weight)| weight).sum();
    let mut left = uniform * total;
    let mut last = (0, total);
    for (token, weight) in kept.filter(|(_, weight)| *weight > 0.0) {
        last = (token, weight);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    (last.0 as i64, (last.1 / total).ln() as f32)
}

/// Tokens that may be drawn, with their weights, the likeliest first.
fn kept(weights: &[f32], sampling: &Sampling) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = weights.iter().map(|&w| f64::from(w)).enumerate().collect();
    let by_weight = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if sampling.top_k > 0 && sampling.top_k < all.len() {
        all.select_nth_unstable_by(sampling.top_k, by_weight);
        all.truncate(sampling.top_k);
    }
    let total: f64 = all.iter().map(|(_, w)| w).sum();
    // Tokens below this bound hold less than 1 - top_p together, so the nucleus is among the others.
    let bound = total * (1.0 - sampling.top_p) / all.len() as f64;
    all.retain(|(_, w)| *w >= bound);
    all.sort_unstable_by(by_weight);
    let mut held = 0.0;
    let nucleus = all
        .iter()
        .position(|(_, w)| {
            held += w;
            held >= sampling.top_p * total
        })
        .map_or(all.len(), |last| last + 1);
    all.truncate(nucleus);
    let least = all.first().map_or(0.0, |(_, most)| most * sampling.min_p);
    all.retain(|(_, w)| *w >= least);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLING: Sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::GREEDY };

    /// Probabilities 0.5, 0.3, 0.15, 0.05 as logits.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln() + 2.0).collect()
    }

    fn counts(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        let rows: Vec<Draw<'_>> = (0..20_000).map(|stream| Draw { stream, prompt: &[], answer: &[] }).collect();
        let logits = Tensor::from_slice(&logits()).unsqueeze(0).expand([20_000, 4], false);
        for drawn in draw_rows(&logits, None, sampling, &rows).unwrap() {
            counts[drawn.token as usize] += 1.0;
        }
        counts
    }

    /// Chi-square of counts against shares; 3 degrees of freedom stay below 16.3 in 99.9 % of samples.
    fn chi_square(counts: [f64; 4], shares: [f64; 4]) -> f64 {
        let total: f64 = counts.iter().sum();
        (0..4).filter(|&i| shares[i] > 0.0).map(|i| (counts[i] - total * shares[i]).powi(2) / (total * shares[i])).sum()
    }

    #[test]
    fn draws_follow_softmax() {
        let chi = chi_square(counts(&SAMPLING), [0.5, 0.3, 0.15, 0.05]);
        assert!(chi < 16.3, "{chi}");
    }

    #[test]
    fn temperature_sharpens_by_the_power_rule() {
        let sharp = counts(&Sampling { temperature: 0.5, ..SAMPLING });
        // p^2 over its sum: 0.25, 0.09, 0.0225, 0.0025 over 0.365.
        let chi = chi_square(sharp, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]);
        assert!(chi < 16.3, "{chi}");
    }

    #[test]
    fn nucleus_and_top_k_keep_the_likeliest() {
        // 0.5 alone is short of 0.7, with 0.3 it is enough.
        assert_eq!(counts(&Sampling { top_p: 0.7, ..SAMPLING })[2..], [0.0, 0.0]);
        assert_eq!(counts(&Sampling { top_k: 1, ..SAMPLING })[1..], [0.0, 0.0, 0.0]);
    }

    #[test]
    fn min_p_keeps_what_is_likely_enough() {
        // 0.15 is less than a third of 0.5, 0.3 is more.
        let chi = chi_square(counts(&Sampling { min_p: 0.34, ..SAMPLING }), [0.5 / 0.8, 0.3 / 0.8, 0.0, 0.0]);
        assert!(chi < 16.3, "{chi}");
        assert_eq!(counts(&Sampling { min_p: 0.34, ..SAMPLING })[2..], [0.0, 0.0]);
    }

    fn one(logits: &[f32], mixed: Option<&[f32]>, sampling: &Sampling) -> Drawn {
        let row = |z: &[f32]| Tensor::from_slice(z).unsqueeze(0);
        let mixed = mixed.map(row);
        let rows = [Draw { stream: 0, prompt: &[1], answer: &[] }];
        draw_rows(&row(logits), mixed.as_ref(), sampling, &rows).unwrap()[0]
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_knows_its_probability() {
        let drawn = one(&[0.0, 1.0, 1.0], None, &Sampling::GREEDY);
        assert_eq!((drawn.token, drawn.sampling_logp), (1, 0.0));
        let e = std::f64::consts::E;
        assert!((f64::from(drawn.logp) - (e / (1.0 + 2.0 * e)).ln()).abs() < 1e-6);
    }

    #[test]
    fn log_probs_of_both_distributions_are_told_apart() {
        let cut = Sampling { top_k: 2, temperature: 0.5, ..SAMPLING };
        let drawn = one(&logits(), None, &cut);
        let share = [0.25f64 / 0.34, 0.09 / 0.34][drawn.token as usize];
        assert!((f64::from(drawn.sampling_logp) - share.ln()).abs() < 1e-5);
        assert!((f64::from(drawn.logp) - [0.5f64, 0.3][drawn.token as usize].ln()).abs() < 1e-5);
        // Drawn from a mixture, its own log-probability is still the model's.
        let drawn = one(&[0.0, 1.0], Some(&[5.0, 0.0]), &Sampling::GREEDY);
        assert_eq!(drawn.token, 0);
        assert!((f64::from(drawn.logp) + (1.0 + std::f64::consts::E).ln()).abs() < 1e-6);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = Sampling { top_p: 0.0, ..SAMPLING };
        assert_eq!(bad.check().unwrap_err().to_string(), "top_p is 0, expected above 0 and at most 1");
    }
}
