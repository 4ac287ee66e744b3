//! Means, standard errors, paired tests.

/// Computes the mean; NaN without values.
///
/// # Examples
/// ```
/// assert_eq!(simplemix_eval::mean(&[1.0, 2.0, 6.0]), 3.0);
/// ```
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Computes the standard deviation with `n - 1`; NaN with fewer than two values.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let centre = mean(values);
    (values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// Computes the standard error of the mean, as pandas' `sem`; NaN with fewer than two values.
///
/// # Examples
/// ```
/// // The standard deviation of 1, 2, 3 is 1.
/// assert!((simplemix_eval::standard_error(&[1.0, 2.0, 3.0]) - 1.0 / 3f64.sqrt()).abs() < 1e-12);
/// ```
pub fn standard_error(values: &[f64]) -> f64 {
    deviation(values) / (values.len() as f64).sqrt()
}

/// Computes the `q`-quantile of sorted values by linear interpolation, as NumPy's `quantile`; NaN without values.
///
/// # Examples
/// ```
/// // numpy: quantile([1, 2, 4, 8], 0.8) = 5.6
/// assert!((simplemix_eval::quantile(&[1.0, 2.0, 4.0, 8.0], 0.8) - 5.6).abs() < 1e-12);
/// ```
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q * last as f64;
    let (below, share) = (place.floor() as usize, place.fract());
    sorted[below] + share * (sorted[(below + 1).min(last)] - sorted[below])
}

/// Computes the two-sided p-value of Student's t-test that paired `differences` have the mean 0; 1 if all of them are
/// 0.
///
/// # Examples
/// ```
/// // scipy: ttest_rel([1, 2, 3, 4.5], [0.5, 2.5, 1, 3]).pvalue = 0.21257296
/// let p = simplemix_eval::paired_t_test(&[0.5, -0.5, 2.0, 1.5]);
/// assert!((p - 0.21257296).abs() < 1e-7);
/// ```
pub fn paired_t_test(differences: &[f64]) -> f64 {
    let n = differences.len() as f64;
    if differences.len() < 2 || differences.iter().all(|d| *d == 0.0) {
        return 1.0;
    }
    let error = standard_error(differences);
    if error == 0.0 {
        return 0.0;
    }
    two_sided(mean(differences) / error, n - 1.0)
}

/// Computes half the width of the two-sided 95 % interval of the mean, by Student's t; NaN with fewer than two values.
///
/// # Examples
/// ```
/// // scipy: t.ppf(0.975, 2) * sem([1, 2, 4]) = 3.794583
/// assert!((simplemix_eval::half_width_95(&[1.0, 2.0, 4.0]) - 3.794583).abs() < 1e-5);
/// ```
pub fn half_width_95(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    t_95((values.len() - 1) as f64) * standard_error(values)
}

/// The `t` that 5 % of Student's distribution lie beyond, on both sides together.
fn t_95(freedom: f64) -> f64 {
    // The p-value decreases in t, so bisection finds the t where it is 0.05.
    let (mut low, mut high) = (0.0, 13.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if two_sided(middle, freedom) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// Computes half the width of the two-sided 95 % interval of the difference of two means of independent values with variances of their
/// own (Welch 1947); NaN if one has fewer than two values.
///
/// # Examples
/// ```
/// // scipy 1.17: ttest_ind([1, 2, 4], [3, 5, 6, 9], equal_var=False).confidence_interval(0.95): -7.371800 to 0.538467
/// let half = simplemix_eval::welch_half_width_95(&[1.0, 2.0, 4.0], &[3.0, 5.0, 6.0, 9.0]);
/// assert!((half - 3.955133).abs() < 1e-5, "{half}");
/// ```
pub fn welch_half_width_95(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let (variance_a, variance_b) = (standard_error(a).powi(2), standard_error(b).powi(2));
    let variance = variance_a + variance_b;
    if variance == 0.0 {
        return 0.0;
    }
    let spread = variance_a.powi(2) / (a.len() - 1) as f64 + variance_b.powi(2) / (b.len() - 1) as f64;
    t_95(variance.powi(2) / spread) * variance.sqrt()
}

/// Probability, under Student's distribution, of a value at least as far from 0 as `t`.
fn two_sided(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// Applies Holm's correction to the p-values of several tests (Holm 1979); the order stays.
///
/// # Examples
/// ```
/// assert_eq!(simplemix_eval::holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let (mut corrected, mut largest) = (vec![0.0; p_values.len()], 0.0f64);
    for (rank, test) in order.into_iter().enumerate() {
        largest = largest.max(((p_values.len() - rank) as f64 * p_values[test]).min(1.0));
        corrected[test] = largest;
    }
    corrected
}

/// Computes the regularised incomplete beta function `I_x(a, b)` by its continued fraction (DLMF 8.17.22) and Lentz's
/// method.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let log_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    let away = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    log_front.exp() * fraction / a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `scipy.stats.t.sf(t, df) * 2`.
    #[test]
    fn students_distribution_matches_scipy() {
        for (t, freedom, expected) in [
            (1.0, 1.0, 0.5),
            (2.0, 804.0, 0.04583623),
            (-0.3, 5.0, 0.77624904),
            (8.0, 804.0, 4.33336e-15),
            (12.7062, 1.0, 0.0500000),
        ] {
            let p = two_sided(t, freedom);
            assert!((p / expected - 1.0).abs() < 1e-5, "{t}: {p}");
        }
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.025), 5.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn few_values_have_no_error() {
        assert!(standard_error(&[1.0]).is_nan());
        assert_eq!(paired_t_test(&[0.0, 0.0, 0.0]), 1.0);
        assert_eq!(paired_t_test(&[0.25, 0.25]), 0.0);
    }
}
