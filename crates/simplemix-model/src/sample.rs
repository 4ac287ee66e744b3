//! Drawing the next token from a row of logits.

use crate::error::{Error, Result};
use crate::random::uniform;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from the fewest likeliest tokens that hold this share of the probability; 1 keeps all.
    pub top_p: f64,
    /// Draws from so many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Everything drawn is a function of this, the sample's stream and the position.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token at every step.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };

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
        Ok(())
    }
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) token: u32,
    /// Log-probability under the model itself: temperature 1, nothing cut.
    pub(crate) logp: f32,
}

/// Draws from `logits` `[V]` with the number of `position` in `stream`.
pub(crate) fn draw(logits: &[f32], sampling: &Sampling, stream: u64, position: u64) -> Drawn {
    let (best, max) = likeliest(logits);
    let token = if sampling.temperature == 0.0 {
        best
    } else {
        let mut kept = kept(logits, max, sampling);
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform(sampling.seed, stream, position) * total;
        let last = kept.pop().map_or(best, |(token, _)| token);
        kept.into_iter()
            .find(|(_, weight)| {
                left -= weight;
                left < 0.0
            })
            .map_or(last, |(token, _)| token)
    };
    let log_total = logits.iter().map(|&z| f64::from(z - max).exp()).sum::<f64>().ln();
    Drawn { token: token as u32, logp: (f64::from(logits[token] - max) - log_total) as f32 }
}

/// Index and value of the largest logit, the first on ties.
fn likeliest(logits: &[f32]) -> (usize, f32) {
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &z)| if z > best.1 { (i, z) } else { best })
}

/// Tokens that may be drawn, with weights relative to the likeliest.
fn kept(logits: &[f32], max: f32, sampling: &Sampling) -> Vec<(usize, f64)> {
    let weight = |z: f32| (f64::from(z - max) / sampling.temperature).exp();
    let mut all: Vec<(usize, f64)> = logits.iter().map(|&z| weight(z)).enumerate().collect();
    if sampling.top_p >= 1.0 && (sampling.top_k == 0 || sampling.top_k >= all.len()) {
        return all;
    }
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
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 3 };

    /// Probabilities 0.5, 0.3, 0.15, 0.05 as logits.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln() + 2.0).collect()
    }

    fn counts(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for stream in 0..20_000 {
            counts[draw(&logits(), sampling, stream, 0).token as usize] += 1.0;
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
    fn greedy_takes_the_first_of_equals_and_knows_its_probability() {
        let drawn = draw(&[0.0, 1.0, 1.0], &Sampling::GREEDY, 0, 0);
        assert_eq!(drawn.token, 1);
        let e = std::f64::consts::E;
        assert!((f64::from(drawn.logp) - (e / (1.0 + 2.0 * e)).ln()).abs() < 1e-6);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = Sampling { top_p: 0.0, ..SAMPLING };
        assert_eq!(bad.check().unwrap_err().to_string(), "top_p is 0, expected above 0 and at most 1");
    }
}
