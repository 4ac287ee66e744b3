//! Summary of pairs: counts by source, policy, task and generator, and how lengths and scores are spread.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::pair::Pair;

/// Summary of pairs, such as those of a file. [`Summarizer`] makes it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Pairs of each source.
    pub sources: BTreeMap<String, u64>,
    /// Pairs of each policy, `on` and `off`.
    pub policies: BTreeMap<String, u64>,
    /// Pairs of each task, of those that have one.
    pub tasks: BTreeMap<String, u64>,
    /// Pairs of each model that wrote responses, of those that name one.
    pub generators: BTreeMap<String, u64>,
    /// Lengths of `prompt`, `chosen` and `rejected`, in characters.
    pub chars: BTreeMap<&'static str, Spread>,
    /// Scores of chosen responses; `None` if no pair has one.
    pub score_chosen: Option<Spread>,
    /// Scores of rejected responses; `None` if no pair has one.
    pub score_rejected: Option<Spread>,
    /// Score of the chosen response minus that of the rejected one; `None` if no pair has both.
    pub score_margin: Option<Spread>,
}

/// Minimum, quartiles and maximum of some values, and a histogram of ten equal bins between.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Spread {
    /// Least value.
    pub min: f64,
    /// Value that a quarter of the values do not exceed.
    pub q25: f64,
    /// Value in the middle.
    pub median: f64,
    /// Value that three quarters of the values do not exceed.
    pub q75: f64,
    /// Greatest value.
    pub max: f64,
    /// Number of values in each tenth of the range; the last bin includes the maximum.
    pub histogram: [u64; 10],
}

impl Spread {
    /// The spread of values, in any order; `None` if there is none.
    ///
    /// # Examples
    /// ```
    /// use simplemix_data::Spread;
    /// let spread = Spread::of(vec![4.0, 0.0, 2.0, 1.0, 3.0]).unwrap();
    /// assert_eq!((spread.min, spread.q25, spread.median, spread.max), (0.0, 1.0, 2.0, 4.0));
    /// ```
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |place: u64| values.get(place as usize).copied().unwrap_or_default();
        Self::new(values.len() as u64, at, values.iter().map(|value| (*value, 1)))
    }

    /// The spread of lengths, of which the number of each is given; `None` if there is none.
    pub fn of_counts(counts: &BTreeMap<usize, u64>) -> Option<Self> {
        let at = |place: u64| {
            let mut before = 0;
            let reached = |count: &u64| {
                before += count;
                before > place
            };
            let length = counts.keys().zip(counts.values().map(reached)).find(|(_, reached)| *reached);
            length.map_or(0.0, |(length, _)| *length as f64)
        };
        Self::new(counts.values().sum(), at, counts.iter().map(|(length, count)| (*length as f64, *count)))
    }

    /// The spread of `total` sorted values, of which `at` gives the one at a place.
    fn new(total: u64, mut at: impl FnMut(u64) -> f64, counted: impl Iterator<Item = (f64, u64)>) -> Option<Self> {
        let last = total.checked_sub(1)?;
        let [min, q25, median, q75, max] =
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share: f64| at((share * last as f64).round() as u64));
        let mut histogram = [0; 10];
        for (value, count) in counted {
            let place = if max > min { (value - min) / (max - min) * 10.0 } else { 0.0 };
            if let Some(bin) = histogram.get_mut((place as usize).min(9)) {
                *bin += count;
            }
        }
        Some(Self { min, q25, median, q75, max, histogram })
    }
}

/// Sums up pairs, one after the other. Memory is that of the different lengths and names, and 24 bytes for each pair with scores.
///
/// # Examples
/// ```
/// use simplemix_data::{Pair, Policy, Summarizer};
/// let mut summarizer = Summarizer::default();
/// summarizer.see(&Pair::new("2 + 2?".into(), "4".into(), "five".into(), "sums", Policy::Off));
/// let summary = summarizer.finish();
/// assert_eq!((summary.sources["sums"], summary.chars["rejected"].max), (1, 4.0));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Summarizer {
    sources: BTreeMap<String, u64>,
    policies: BTreeMap<String, u64>,
    tasks: BTreeMap<String, u64>,
    generators: BTreeMap<String, u64>,
    lengths: BTreeMap<&'static str, BTreeMap<usize, u64>>,
    scores: BTreeMap<&'static str, Vec<f64>>,
}

impl Summarizer {
    /// Takes a pair in.
    pub fn see(&mut self, pair: &Pair) {
        for (name, text) in [("prompt", &pair.prompt), ("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
            *self.lengths.entry(name).or_default().entry(text.chars()).or_default() += 1;
        }
        let scores = [("chosen", pair.score_chosen), ("rejected", pair.score_rejected), ("margin", pair.margin())];
        for (name, score) in scores {
            self.scores.entry(name).or_default().extend(score);
        }
        count(&mut self.sources, Some(pair.source.as_str()));
        count(&mut self.policies, Some(pair.policy.to_string().as_str()));
        count(&mut self.tasks, pair.task.as_deref());
        count(&mut self.generators, pair.generator.as_deref());
    }

    /// The summary of all pairs seen.
    pub fn finish(mut self) -> Summary {
        let mut scores = |name| self.scores.remove(name).and_then(Spread::of);
        let (score_chosen, score_rejected, score_margin) = (scores("chosen"), scores("rejected"), scores("margin"));
        let chars = self.lengths.iter().filter_map(|(name, counts)| Some((*name, Spread::of_counts(counts)?)));
        Summary {
            chars: chars.collect(),
            sources: self.sources,
            policies: self.policies,
            tasks: self.tasks,
            generators: self.generators,
            score_chosen,
            score_rejected,
            score_margin,
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: Option<&str>) {
    let Some(name) = name else { return };
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Policy;

    #[test]
    fn spreads_have_quartiles_and_bins() {
        let counts = (0..=100).map(|length| (length, 1)).collect();
        for s in [Spread::of((0..=100).rev().map(f64::from).collect()), Spread::of_counts(&counts)] {
            let s = s.unwrap();
            assert_eq!([s.min, s.q25, s.median, s.q75, s.max], [0.0, 25.0, 50.0, 75.0, 100.0]);
            assert_eq!(s.histogram, [10, 10, 10, 10, 10, 10, 10, 10, 10, 11]);
        }
        let s = Spread::of_counts(&[(2, 3), (7, 1)].into()).unwrap();
        assert_eq!([s.min, s.q25, s.median, s.q75, s.max], [2.0, 2.0, 2.0, 2.0, 7.0]);
        assert_eq!((s.histogram[0], s.histogram[9]), (3, 1));
        assert!(Spread::of(Vec::new()).is_none() && Spread::of_counts(&BTreeMap::new()).is_none());
        assert_eq!(Spread::of(vec![3.0, 3.0]).unwrap().histogram[0], 2);
        // Scores that are no numbers are sorted last and do not stop a summary.
        assert_eq!(Spread::of(vec![f64::NAN, 1.0]).unwrap().histogram.iter().sum::<u64>(), 2);
    }

    #[test]
    fn pairs_without_scores_or_tasks_count_where_they_can() {
        let mut plain = Pair::new("2 + 2?".into(), "4".into(), "5".into(), "sums", Policy::Off);
        let mut summarizer = Summarizer::default();
        summarizer.see(&plain);
        plain.task = Some("math".to_owned());
        plain.score_chosen = Some(2.0);
        summarizer.see(&plain);
        plain.policy = Policy::On;
        plain.score_rejected = Some(0.5);
        summarizer.see(&plain);
        let summary = summarizer.finish();
        assert_eq!(summary.policies, [("off".to_owned(), 2), ("on".to_owned(), 1)].into());
        assert_eq!(summary.tasks, [("math".to_owned(), 2)].into());
        assert!(summary.generators.is_empty());
        assert_eq!(summary.score_chosen.unwrap().histogram.iter().sum::<u64>(), 2);
        assert_eq!(summary.score_margin.unwrap().median, 1.5);
        assert_eq!(summary.chars["prompt"].median, 6.0);
    }
}
