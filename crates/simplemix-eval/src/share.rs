//! Shares of successes, with intervals.

use serde::Serialize;

/// Number of successes among trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Share {
    /// Successes.
    pub hits: u64,
    /// Trials.
    pub total: u64,
}

impl Share {
    /// Counts the outcomes that are true.
    ///
    /// # Examples
    /// ```
    /// let share = simplemix_eval::Share::of([true, false, true, true]);
    /// assert_eq!((share.hits, share.value()), (3, 0.75));
    /// ```
    pub fn of(outcomes: impl IntoIterator<Item = bool>) -> Self {
        outcomes
            .into_iter()
            .fold(Self::default(), |share, hit| Self { hits: share.hits + u64::from(hit), total: share.total + 1 })
    }

    /// Share of successes; 0 without trials.
    pub fn value(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.hits as f64 / self.total as f64 }
    }

    /// Computes Wilson's interval at `z` standard deviations (1.96 for 95 %), without continuity correction (Wilson
    /// 1927).
    ///
    /// # Examples
    /// ```
    /// use simplemix_eval::Share;
    /// // statsmodels: proportion_confint(7, 20, method="wilson") = (0.18119, 0.56711)
    /// let (low, high) = Share { hits: 7, total: 20 }.interval(1.959964);
    /// assert!((low - 0.18119).abs() < 1e-5 && (high - 0.56711).abs() < 1e-4);
    /// ```
    pub fn interval(self, z: f64) -> (f64, f64) {
        if self.total == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.total as f64, self.value());
        let denominator = 1.0 + z * z / n;
        let centre = (p + z * z / (2.0 * n)) / denominator;
        let half = z / denominator * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        ((centre - half).max(0.0), (centre + half).min(1.0))
    }
}

/// Computes the p-value of McNemar's exact test of paired outcomes: the probability of a split at least as uneven as
/// `gained` against `lost` if both were equally likely (two-sided).
///
/// # Examples
/// ```
/// // scipy: binomtest(2, 10, 0.5).pvalue = 0.109375
/// assert!((simplemix_eval::mcnemar(2, 8) - 0.109375).abs() < 1e-12);
/// assert_eq!(simplemix_eval::mcnemar(0, 0), 1.0);
/// ```
pub fn mcnemar(gained: u64, lost: u64) -> f64 {
    let (n, fewer) = (gained + lost, gained.min(lost));
    // Logarithms of binomial coefficients over 2^n, each computed from the one before.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for k in 1..=fewer {
        log_term += ((n - k + 1) as f64 / k as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count() {
        let share = Share::of([true, false, true, true]);
        assert_eq!((share.hits, share.total, share.value()), (3, 4, 0.75));
        assert_eq!(Share::default().interval(1.96), (0.0, 1.0));
        assert_eq!(Share { hits: 5, total: 5 }.interval(1.96).1, 1.0);
    }
}
