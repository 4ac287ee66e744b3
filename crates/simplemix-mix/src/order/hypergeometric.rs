//! Draws from binomial and hypergeometric distributions as functions of a key.
//!
//! The method is the ratio of uniforms (Stadlober 1990, algorithm HRUA, as in NumPy). Logarithms are computed in
//! software by `libm`, so that the numbers are the same on every platform.

use crate::permutation::mix;

/// A stream of uniform numbers under one key.
pub(crate) struct Stream {
    key: u64,
    drawn: u64,
}

impl Stream {
    pub(crate) fn new(key: u64) -> Self {
        Self { key, drawn: 0 }
    }

    /// Uniform on (0, 1), with 52 bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        let bits = mix(self.key ^ mix(self.drawn)) >> 12;
        (bits as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Uniform on `0..below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        let bits = mix(self.key ^ mix(self.drawn));
        ((u128::from(bits) * u128::from(below)) >> 64) as u64
    }
}

/// Number of good items among `sample` items drawn from `good + bad` without replacement.
pub(crate) fn hypergeometric(stream: &mut Stream, good: u64, bad: u64, sample: u64) -> u64 {
    let (least, most) = (sample.saturating_sub(bad), good.min(sample));
    if least == most {
        return least;
    }
    let (g, b, n) = (good as f64, bad as f64, sample as f64);
    let mode = ((n + 1.0) * (g + 1.0) / (g + b + 2.0)).floor().clamp(least as f64, most as f64);
    let log = |k: f64| -(ln_factorial(k) + ln_factorial(g - k) + ln_factorial(n - k) + ln_factorial(b - n + k));
    let variance = n * (g / (g + b)) * (b / (g + b)) * (g + b - n) / (g + b - 1.0);
    ratio_of_uniforms(stream, n * g / (g + b), variance, (least, most), mode, log)
}

/// Number of successes in `trials` independent trials with probability `chance`.
pub(crate) fn binomial(stream: &mut Stream, trials: u64, chance: f64) -> u64 {
    if chance <= 0.0 || trials == 0 {
        return 0;
    }
    if chance >= 1.0 {
        return trials;
    }
    let n = trials as f64;
    let (p, q) = (libm::log(chance), libm::log1p(-chance));
    let log = |k: f64| k * p + (n - k) * q - ln_factorial(k) - ln_factorial(n - k);
    let mode = ((n + 1.0) * chance).floor().min(n);
    ratio_of_uniforms(stream, n * chance, n * chance * (1.0 - chance), (0, trials), mode, log)
}

/// Draws a whole number with log-weights `log` by the ratio of uniforms, which is exact for log-concave distributions.
fn ratio_of_uniforms(
    stream: &mut Stream,
    mean: f64,
    variance: f64,
    (least, most): (u64, u64),
    mode: f64,
    log: impl Fn(f64) -> f64,
) -> u64 {
    // Stadlober's table mountain hat covers the distribution for every variance.
    let (d1, d2) = (1.715_527_769_921_413_5, 0.898_916_162_058_898_7);
    let centre = mean + 0.5;
    let width = d1 * (variance + 0.5).sqrt() + d2;
    let top = log(mode);
    loop {
        let (u, v) = (stream.uniform(), stream.uniform());
        let k = (centre + width * (v - 0.5) / u).floor();
        if !(k >= least as f64 && k <= most as f64) {
            continue;
        }
        if 2.0 * libm::log(u) <= log(k) - top {
            return k as u64;
        }
    }
}

/// Computes `ln k!`.
fn ln_factorial(k: f64) -> f64 {
    libm::lgamma(k + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square of draws against the distribution; cells with fewer than 5 expected draws are merged.
    fn chi_square(draws: impl Iterator<Item = u64>, chances: &[f64]) -> (f64, usize) {
        let mut counts = vec![0f64; chances.len()];
        let mut n = 0.0;
        for draw in draws {
            counts[draw as usize] += 1.0;
            n += 1.0;
        }
        let (mut chi, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
        for (count, chance) in counts.iter().zip(chances) {
            rest = (rest.0 + count, rest.1 + chance * n);
            if rest.1 >= 5.0 {
                chi += (rest.0 - rest.1).powi(2) / rest.1;
                cells += 1;
                rest = (0.0, 0.0);
            }
        }
        (chi, cells)
    }

    fn choose(n: u64, k: u64) -> f64 {
        (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64)
    }

    #[test]
    fn draws_follow_their_distributions() {
        for (good, bad, sample) in [(3u64, 5u64, 4u64), (40, 60, 50), (1, 99, 50), (300, 500, 400)] {
            let all = choose(good + bad, sample);
            let chances: Vec<f64> = (0..=good.min(sample))
                .map(|k| if sample - k > bad { 0.0 } else { choose(good, k) * choose(bad, sample - k) / all })
                .collect();
            let draws = (0..20_000).map(|i| hypergeometric(&mut Stream::new(i), good, bad, sample));
            let (chi, cells) = chi_square(draws, &chances);
            // Mean cells - 1, deviation sqrt(2 cells): five deviations above.
            assert!(chi < cells as f64 + 5.0 * (2.0 * cells as f64).sqrt(), "{good} {bad} {sample}: {chi} of {cells}");
        }
        for (trials, chance) in [(4u64, 0.3f64), (64, 0.5), (1000, 0.01)] {
            let chances: Vec<f64> = (0..=trials)
                .map(|k| choose(trials, k) * chance.powi(k as i32) * (1.0 - chance).powi((trials - k) as i32))
                .map(|p| if p.is_finite() { p } else { 0.0 })
                .collect();
            let draws = (0..20_000).map(|i| binomial(&mut Stream::new(i), trials, chance));
            let (chi, cells) = chi_square(draws, &chances);
            assert!(chi < cells as f64 + 5.0 * (2.0 * cells as f64).sqrt(), "{trials} {chance}: {chi} of {cells}");
        }
    }

    #[test]
    fn the_ends_are_exact() {
        let mut stream = Stream::new(1);
        assert_eq!(hypergeometric(&mut stream, 0, 8, 4), 0);
        assert_eq!(hypergeometric(&mut stream, 8, 0, 4), 4);
        assert_eq!(hypergeometric(&mut stream, 6, 2, 8), 6);
        assert_eq!(binomial(&mut stream, 9, 0.0), 0);
        assert_eq!(binomial(&mut stream, 9, 1.0), 9);
        assert!((0..100).all(|_| stream.below(7) < 7));
    }
}
