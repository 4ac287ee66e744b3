//! Filters on pairs, applied before mixing so that shares hold for the pairs that are trained on.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pair::Pair;

/// Rules for the pairs to keep; a rule that is not set keeps all. Unknown keys are refused.
///
/// Rules on scores drop pairs without scores. A fraction refers to the pairs that all other rules keep.
///
/// # Examples
/// ```
/// use simplemix_data::{Facts, Filter, Pair, Policy};
/// let mut pair = Pair::new("2 + 2?".into(), "4".into(), "5".into(), "sums", Policy::Off);
/// (pair.score_chosen, pair.score_rejected) = (Some(0.9), Some(0.8));
/// let filter = Filter { margin_min: Some(0.5), ..Filter::default() };
/// let selection = filter.select(&[Facts::of(&pair)])?;
/// assert!(selection.rows.is_empty());
/// # Ok::<(), simplemix_data::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Smallest allowed score of the chosen response.
    pub chosen_score_min: Option<f64>,
    /// Smallest allowed margin: score of chosen minus score of rejected.
    pub margin_min: Option<f64>,
    /// Largest allowed margin.
    pub margin_max: Option<f64>,
    /// Fraction of the pairs to keep, those with the largest margins, in (0, 1].
    pub margin_top: Option<f64>,
    /// Fraction of the pairs to keep, those with the largest sums of both scores, in (0, 1].
    pub score_sum_top: Option<f64>,
    /// Largest allowed ratio of the longer response to the shorter one, in characters; at least 1.
    pub length_ratio_max: Option<f64>,
    /// Whether to keep only the first of pairs with equal texts.
    pub distinct: bool,
    /// Tasks to keep.
    pub tasks: Option<Vec<String>>,
    /// Tasks to leave out.
    pub not_tasks: Vec<String>,
    /// Generators to keep.
    pub generators: Option<Vec<String>>,
}

/// Reason for leaving a pair out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Left {
    /// The pair has no scores, and a rule needs them.
    Unscored,
    /// The score of the chosen response is too low.
    ChosenScore,
    /// The margin is too small or too large.
    Margin,
    /// The margin is not among the largest.
    MarginTop,
    /// The sum of the scores is not among the largest.
    ScoreSumTop,
    /// One response is too much longer than the other.
    LengthRatio,
    /// A pair with the same texts came before.
    Duplicate,
    /// The task is not wanted.
    Task,
    /// The generator is not wanted.
    Generator,
}

/// Properties of a pair that a filter looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    id: u128,
    scores: Option<(f64, f64)>,
    chars: (u64, u64),
    task: Option<String>,
    generator: Option<String>,
}

/// Pairs that a filter keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Rows of the kept pairs, in order.
    pub rows: Vec<u64>,
    /// Number of pairs left out, by reason; a pair counts under the first reason that applies.
    pub left: BTreeMap<Left, u64>,
}

impl Facts {
    /// Properties of `pair`.
    pub fn of(pair: &Pair) -> Self {
        Self {
            id: u128::from_str_radix(&pair.id, 16).unwrap_or_default(),
            scores: pair.score_chosen.zip(pair.score_rejected),
            chars: (pair.chosen.chars() as u64, pair.rejected.chars() as u64),
            task: pair.task.clone(),
            generator: pair.generator.clone(),
        }
    }
}

impl Filter {
    /// Whether the filter keeps everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Selects the pairs that pass all rules.
    ///
    /// # Errors
    /// [`Error::Setting`] naming a rule that is out of range.
    pub fn select(&self, facts: &[Facts]) -> Result<Selection> {
        let mut selector = self.selector()?;
        facts.iter().for_each(|facts| selector.see(facts));
        Ok(selector.finish())
    }

    /// Begins a selection among pairs that come one by one.
    ///
    /// # Errors
    /// [`Error::Setting`] naming a rule that is out of range.
    pub fn selector(&self) -> Result<Selector> {
        self.check()?;
        Ok(Selector { filter: self.clone(), ..Selector::default() })
    }

    fn check(&self) -> Result<()> {
        let part = |x: f64| x > 0.0 && x <= 1.0;
        for (key, value, holds, expected) in [
            ("margin_top", self.margin_top, part as fn(f64) -> bool, "above 0 and at most 1"),
            ("score_sum_top", self.score_sum_top, part, "above 0 and at most 1"),
            ("length_ratio_max", self.length_ratio_max, |x| x >= 1.0, "at least 1"),
            ("margin_min", self.margin_min, |x| !x.is_nan(), "a number"),
            ("margin_max", self.margin_max, |x| !x.is_nan(), "a number"),
            ("chosen_score_min", self.chosen_score_min, |x| !x.is_nan(), "a number"),
        ] {
            if let Some(value) = value.filter(|value| !holds(*value)) {
                return Err(Error::Setting { key, found: value.to_string(), expected });
            }
        }
        Ok(())
    }

    fn refuses(&self, facts: &Facts, seen: &mut HashSet<u128>) -> Option<Left> {
        let named = |wanted: &Option<Vec<String>>, name: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| name.as_ref().is_some_and(|name| wanted.contains(name)))
        };
        if !named(&self.tasks, &facts.task) || facts.task.as_ref().is_some_and(|task| self.not_tasks.contains(task)) {
            return Some(Left::Task);
        }
        if !named(&self.generators, &facts.generator) {
            return Some(Left::Generator);
        }
        let (long, short) = (facts.chars.0.max(facts.chars.1), facts.chars.0.min(facts.chars.1));
        if self.length_ratio_max.is_some_and(|most| long as f64 > most * short as f64) {
            return Some(Left::LengthRatio);
        }
        let rules = [self.margin_min, self.margin_max, self.margin_top, self.score_sum_top, self.chosen_score_min];
        if rules.iter().any(Option::is_some) {
            let Some((chosen, rejected)) = facts.scores else { return Some(Left::Unscored) };
            let margin = chosen - rejected;
            if self.chosen_score_min.is_some_and(|least| chosen < least) {
                return Some(Left::ChosenScore);
            }
            if self.margin_min.is_some_and(|least| margin < least) || self.margin_max.is_some_and(|most| margin > most)
            {
                return Some(Left::Margin);
            }
        }
        (self.distinct && !seen.insert(facts.id)).then_some(Left::Duplicate)
    }
}

/// Selection in the making, of pairs that come one by one. It holds 8 bytes for each pair that passes, 16 more if fractions are
/// to be kept, and the id of each if pairs are to be distinct.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    filter: Filter,
    /// Ids of the pairs so far.
    seen: HashSet<u128>,
    /// Number of pairs so far.
    pairs: u64,
    selection: Selection,
    /// Scores of the pairs in the selection, if fractions of them are to be kept.
    scores: Vec<(f64, f64)>,
}

impl Selector {
    /// Looks at the next pair.
    pub fn see(&mut self, facts: &Facts) {
        match self.filter.refuses(facts, &mut self.seen) {
            Some(reason) => *self.selection.left.entry(reason).or_default() += 1,
            None => {
                self.selection.rows.push(self.pairs);
                if self.filter.margin_top.is_some() || self.filter.score_sum_top.is_some() {
                    self.scores.extend(facts.scores);
                }
            }
        }
        self.pairs += 1;
    }

    /// Returns the selection, after fractions were taken of the pairs that pass the other rules.
    pub fn finish(mut self) -> Selection {
        let (margin_top, score_sum_top) = (self.filter.margin_top, self.filter.score_sum_top);
        self.keep_top(margin_top, Left::MarginTop, |(chosen, rejected)| chosen - rejected);
        self.keep_top(score_sum_top, Left::ScoreSumTop, |(chosen, rejected)| chosen + rejected);
        self.selection
    }

    /// Keeps the fraction `top` of the rows, those with the largest values; of equal values the first.
    fn keep_top(&mut self, top: Option<f64>, reason: Left, value: fn((f64, f64)) -> f64) {
        let Some(top) = top else { return };
        let of = |place: usize| value(self.scores[place]);
        let keep = (top * self.scores.len() as f64).ceil() as usize;
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| of(b).total_cmp(&of(a)).then(a.cmp(&b)));
        let left = order.split_off(keep.min(order.len()));
        if !left.is_empty() {
            *self.selection.left.entry(reason).or_default() += left.len() as u64;
        }
        order.sort_unstable();
        self.selection.rows = order.iter().map(|&place| self.selection.rows[place]).collect();
        self.scores = order.iter().map(|&place| self.scores[place]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Policy;

    fn facts(i: u64, scores: Option<(f64, f64)>, task: &str) -> Facts {
        let chosen = "x".repeat(10 * i as usize + 10);
        let mut pair =
            Pair::new(format!("p{i}").as_str().into(), chosen.as_str().into(), "yyyyyyyyyy".into(), "s", Policy::Off);
        (pair.score_chosen, pair.score_rejected) = scores.unzip();
        pair.task = Some(task.to_owned());
        Facts::of(&pair)
    }

    fn all() -> Vec<Facts> {
        vec![
            facts(0, Some((5.0, 1.0)), "math"),
            facts(1, Some((3.0, 2.0)), "math"),
            facts(2, None, "poetry"),
            facts(3, Some((9.0, 8.5)), "poetry"),
            facts(0, Some((5.0, 1.0)), "math"),
        ]
    }

    fn rows(filter: Filter) -> (Vec<u64>, Vec<(Left, u64)>) {
        let selection = filter.select(&all()).unwrap();
        (selection.rows, selection.left.into_iter().collect())
    }

    #[test]
    fn each_rule_leaves_out_what_it_says() {
        let filter = Filter::default;
        assert_eq!(rows(filter()).0, [0, 1, 2, 3, 4]);
        assert_eq!(rows(Filter { distinct: true, ..filter() }), (vec![0, 1, 2, 3], vec![(Left::Duplicate, 1)]));
        assert_eq!(
            rows(Filter { margin_min: Some(1.0), ..filter() }),
            (vec![0, 1, 4], vec![(Left::Unscored, 1), (Left::Margin, 1)])
        );
        assert_eq!(rows(Filter { margin_max: Some(1.0), ..filter() }).0, [1, 3]);
        assert_eq!(rows(Filter { chosen_score_min: Some(5.0), ..filter() }).0, [0, 3, 4]);
        assert_eq!(rows(Filter { length_ratio_max: Some(2.0), ..filter() }).0, [0, 1, 4]);
        assert_eq!(rows(Filter { not_tasks: vec!["math".into()], ..filter() }).0, [2, 3]);
        assert_eq!(rows(Filter { tasks: Some(vec!["math".into()]), ..filter() }).0, [0, 1, 4]);
        assert_eq!(rows(Filter { generators: Some(vec!["m".into()]), ..filter() }).1, [(Left::Generator, 5)]);
    }

    #[test]
    fn fractions_are_of_what_the_other_rules_keep() {
        // Scored and distinct: rows 0, 1 and 3; row 3 has the largest sum, row 0 the largest margin.
        let filter = Filter { distinct: true, score_sum_top: Some(0.3), ..Filter::default() };
        assert_eq!(rows(filter), (vec![3], vec![(Left::Unscored, 1), (Left::ScoreSumTop, 2), (Left::Duplicate, 1)]));
        assert_eq!(rows(Filter { margin_top: Some(0.5), ..Filter::default() }).0, [0, 4]);
    }

    #[test]
    fn rules_out_of_range_are_named() {
        let error = Filter { margin_top: Some(0.0), ..Filter::default() }.select(&all()).unwrap_err();
        assert_eq!(error.to_string(), "`margin_top` is 0, expected above 0 and at most 1");
        assert!(serde_json::from_str::<Filter>(r#"{"margin": 3}"#).is_err());
    }
}
