//! Plain figures of AlpacaEval: win rate, standard error, counts.

use serde::Serialize;

use crate::alpaca::annotation::Annotations;
use crate::stats::{mean, standard_error};

/// Plain figures under the leaderboard's names, with rates in percent; NaN where a figure does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WinRate {
    /// Mean of the outcomes.
    pub win_rate: f64,
    /// Standard error of the win rate.
    pub standard_error: f64,
    /// Number of verdicts for the model.
    pub n_wins: usize,
    /// Number of verdicts for the baseline.
    pub n_wins_base: usize,
    /// Number of draws.
    pub n_draws: usize,
    /// Number of verdicts.
    pub n_total: usize,
    /// Share of wins after rounding each verdict, with draws counted half.
    pub discrete_win_rate: f64,
    /// Mean length of the model's responses in characters, rounded down; `None` if no length is known.
    pub avg_length: Option<u64>,
}

impl WinRate {
    /// Computes the figures of a model.
    ///
    /// Rows without a verdict, or with one outside 1 to 2, are left out, as alpaca_eval does. For `discrete_win_rate`
    /// verdicts are rounded before that, so that 2.4 counts as a win.
    ///
    /// # Examples
    /// ```
    /// use simplemix_eval::alpaca::{Annotation, Annotations, WinRate};
    ///
    /// let row = |preference| Annotation {
    ///     row: 0,
    ///     instruction: None,
    ///     preference,
    ///     lengths: None,
    ///     category: None,
    /// };
    /// let rows = vec![row(Some(2.0)), row(Some(1.5)), row(None)];
    /// let found = WinRate::of(&Annotations { model: "mine".into(), annotator: None, baseline: None, rows, refused: 0 });
    /// assert_eq!((found.win_rate, found.n_total), (75.0, 2));
    /// ```
    pub fn of(annotations: &Annotations) -> Self {
        let rows = &annotations.rows;
        let outcomes: Vec<f64> = rows.iter().filter_map(|row| row.outcome()).collect();
        let discrete: Vec<f64> = rows.iter().filter_map(|row| rounded(row.preference?)).collect();
        let lengths: Vec<u64> = rows.iter().filter_map(|row| Some(row.lengths?[1])).collect();
        let count = |fits: fn(f64) -> bool| outcomes.iter().filter(|y| fits(**y)).count();
        Self {
            win_rate: 100.0 * mean(&outcomes),
            standard_error: 100.0 * standard_error(&outcomes),
            n_wins: count(|y| y > 0.5),
            n_wins_base: count(|y| y < 0.5),
            n_draws: count(|y| y == 0.5),
            n_total: outcomes.len(),
            discrete_win_rate: 100.0 * mean(&discrete),
            avg_length: lengths.iter().sum::<u64>().checked_div(lengths.len() as u64),
        }
    }
}

/// Rounds a verdict: 0.5 for a draw, else the nearest of loss (0) and win (1); `None` if it rounds to neither.
fn rounded(preference: f64) -> Option<f64> {
    let is_draw = preference == 1.5;
    match if is_draw { 0.0 } else { preference.round_ties_even() } {
        0.0 => Some(0.5),
        1.0 => Some(0.0),
        2.0 => Some(1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alpaca::Annotation;

    fn annotations(preferences: &[Option<f64>]) -> Annotations {
        let row = |(row, preference): (usize, &Option<f64>)| Annotation {
            row,
            instruction: None,
            preference: *preference,
            lengths: Some([10, row as u64]),
            category: None,
        };
        Annotations {
            model: "m".into(),
            annotator: None,
            baseline: None,
            rows: preferences.iter().enumerate().map(row).collect(),
            refused: 0,
        }
    }

    /// Values of pandas, by the rules of alpaca_eval: tests/golden/eval_alpaca.py.
    #[test]
    fn plain_figures_match_pandas() {
        let golden = include_str!("eval_alpaca.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let cases = golden["win_rates"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let preferences: Vec<Option<f64>> = serde_json::from_value(case["preferences"].clone()).unwrap();
            let found = serde_json::to_value(WinRate::of(&annotations(&preferences))).unwrap();
            for (name, expected) in case.as_object().unwrap().iter().filter(|(name, _)| *name != "preferences") {
                let (found, expected) = (found[name].as_f64().unwrap(), expected.as_f64().unwrap());
                assert!((found - expected).abs() < 1e-11, "{name}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn no_verdict_gives_nan() {
        let none = WinRate::of(&annotations(&[None, Some(7.0)]));
        assert!(none.win_rate.is_nan() && none.standard_error.is_nan());
        assert_eq!((none.n_total, none.avg_length), (0, Some(0)));
    }
}
