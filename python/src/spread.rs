//! Minimum, quartiles and maximum of lengths and scores, for `inspect`.

use serde::Serialize;

/// Minimum, quartiles and maximum of some values.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    min: f64,
    q25: f64,
    median: f64,
    q75: f64,
    max: f64,
}

impl Spread {
    /// The spread of values; `None` if there is none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let [min, q25, median, q75, max] =
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share: f64| values[(share * last as f64).round() as usize]);
        Some(Self { min, q25, median, q75, max })
    }
}
