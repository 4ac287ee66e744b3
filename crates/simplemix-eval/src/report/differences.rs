//! Differences of arms from one of them.

use std::fmt;

use crate::html::number;
use crate::report::arms::Arm;
use crate::report::figures::Figure;
use crate::report::run_data::RunData;
use crate::stats::{half_width_95, mean, welch_half_width_95};

/// Differences of all arms from the baseline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Differences {
    /// Name of the baseline.
    pub(crate) baseline: String,
    /// Names of the other arms.
    pub(crate) arms: Vec<String>,
    /// Heading of each figure, with the difference of each of the other arms.
    pub(crate) rows: Vec<(String, Vec<Option<Difference>>)>,
}

/// Difference of a figure between two arms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    /// Mean of the arm minus mean of the baseline.
    pub(crate) mean: f64,
    /// Half the width of the 95 % interval; NaN where there are too few runs.
    pub(crate) half_width: f64,
}

impl Difference {
    /// Whether the interval does not hold 0.
    pub(crate) fn is_beyond_chance(&self) -> bool {
        self.mean.abs() > self.half_width
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mean >= 0.0 { "+" } else { "" };
        write!(f, "{sign}{}", number(self.mean))?;
        if self.half_width.is_finite() { write!(f, " ± {}", number(self.half_width)) } else { Ok(()) }
    }
}

impl Differences {
    pub(crate) fn title(&self) -> String {
        format!("Difference from {}", self.baseline)
    }
}

/// Differences of all arms from that number `baseline`; none for a single arm. Runs of equal seeds are paired, if there are at least two
/// of them in both arms; other runs are taken as independent.
pub(crate) fn differences(runs: &[RunData], arms: &[Arm], baseline: usize, figures: &[Figure]) -> Option<Differences> {
    let base = arms.get(baseline)?;
    let others: Vec<&Arm> = arms.iter().enumerate().filter(|(at, _)| *at != baseline).map(|(_, arm)| arm).collect();
    let of = |figure: &Figure| others.iter().map(|arm| difference(runs, base, arm, figure)).collect::<Vec<_>>();
    let rows: Vec<(String, Vec<Option<Difference>>)> = figures
        .iter()
        .map(|figure| (figure.title.clone(), of(figure)))
        .filter(|(_, values)| values.iter().any(Option::is_some))
        .collect();
    let arms = others.iter().map(|arm| arm.name.clone()).collect();
    (!rows.is_empty()).then(|| Differences { baseline: base.name.clone(), arms, rows })
}

fn difference(runs: &[RunData], base: &Arm, arm: &Arm, figure: &Figure) -> Option<Difference> {
    let values = |arm: &Arm| arm.runs.iter().filter_map(|run| figure.of_runs[*run]).collect::<Vec<f64>>();
    let of_seed = |seed: &str| {
        let run = base.runs.iter().find(|run| runs[**run].seed() == Some(seed))?;
        figure.of_runs[*run]
    };
    let paired: Vec<f64> =
        arm.runs.iter().filter_map(|run| Some(figure.of_runs[*run]? - of_seed(runs[*run].seed()?)?)).collect();
    let (own, of_base) = (values(arm), values(base));
    if own.is_empty() || of_base.is_empty() {
        return None;
    }
    // Pairing may not leave runs out.
    if paired.len() > 1 && paired.len() == own.len() && paired.len() == of_base.len() {
        return Some(Difference { mean: mean(&paired), half_width: half_width_95(&paired) });
    }
    Some(Difference { mean: mean(&own) - mean(&of_base), half_width: welch_half_width_95(&own, &of_base) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: &str) -> RunData {
        RunData { settings: [("seed".to_owned(), seed.to_owned())].into(), ..RunData::default() }
    }

    fn figure(of_runs: &[f64]) -> Figure {
        let of_runs = of_runs.iter().copied().map(Some).collect();
        Figure { name: "f".into(), title: "f".into(), of_runs, of_arms: Vec::new(), is_benchmark: false }
    }

    #[test]
    fn runs_of_equal_seeds_are_paired() {
        let arms = [Arm { name: "a".into(), runs: vec![0, 1] }, Arm { name: "b".into(), runs: vec![2, 3] }];
        let figures = [figure(&[1.0, 5.0, 6.25, 1.75])];
        let of = |seeds: [&str; 4]| {
            let found = differences(&seeds.map(run), &arms, 0, &figures).unwrap();
            (found.title(), found.rows[0].1[0].unwrap())
        };
        let (title, paired) = of(["1", "2", "2", "1"]);
        assert_eq!((title.as_str(), paired.mean), ("Difference from a", 1.0));
        // scipy: t.ppf(0.975, 1) * sem([1.25, 0.75])
        assert!((paired.half_width - 3.176_551).abs() < 1e-4 && !paired.is_beyond_chance());
        let (_, apart) = of(["1", "2", "3", "4"]);
        assert!(apart.mean == 1.0 && apart.half_width > 10.0, "{apart:?}");
        assert_eq!(differences(&["1", "2"].map(run), &arms[..1], 0, &figures), None);
    }

    #[test]
    fn single_runs_have_a_difference_without_interval() {
        let arms = [Arm { name: "a".into(), runs: vec![0] }, Arm { name: "b".into(), runs: vec![1] }];
        let found = differences(&["1", "1"].map(run), &arms, 1, &[figure(&[0.5, 0.75])]).unwrap();
        let difference = found.rows[0].1[0].unwrap();
        assert_eq!((difference.to_string().as_str(), difference.is_beyond_chance()), ("-0.2500", false));
    }
}
