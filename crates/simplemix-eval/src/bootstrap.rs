//! Intervals of means by resampling (Efron's percentile bootstrap).

use crate::alpaca::Bootstrap;
use crate::stats::quantile;

/// Computes the 95 % interval of the mean of `values` by drawing them anew with replacement, `replicates` times; NaN without
/// values.
///
/// # Examples
/// ```
/// // Of one half zeros and one half ones, the standard error is 0.5 / sqrt(400): 1.96 of it on either side.
/// let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
/// let [low, high] = simplemix_eval::bootstrap_mean(&values, 2000, 7);
/// assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006);
/// ```
pub fn bootstrap_mean(values: &[f64], replicates: u32, seed: u64) -> [f64; 2] {
    let bootstrap = Bootstrap { replicates, seed };
    let replicate = |replicate: u32| {
        let counts = bootstrap.counts(replicate, values.len());
        values.iter().zip(counts).map(|(value, count)| value * f64::from(count)).sum::<f64>() / values.len() as f64
    };
    let mut means: Vec<f64> = (0..replicates).map(replicate).collect();
    means.sort_by(f64::total_cmp);
    [quantile(&means, 0.025), quantile(&means, 0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_no_width_and_no_values_no_interval() {
        assert_eq!(bootstrap_mean(&[2.0; 5], 100, 1), [2.0, 2.0]);
        assert!(bootstrap_mean(&[], 100, 1).iter().all(|bound| bound.is_nan()));
        assert_eq!(bootstrap_mean(&[1.0, 2.0, 5.0], 50, 3), bootstrap_mean(&[1.0, 2.0, 5.0], 50, 3));
    }
}
