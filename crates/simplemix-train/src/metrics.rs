//! Metrics of an update under TRL's names, also for each source: `rewards/margins` and `rewards/margins@on`.
//!
//! Definitions are TRL 1.16's: rewards are `beta` times the log-ratio, accuracy counts a strictly larger chosen reward,
//! `logps` are sums over a response. All are means over the pairs of the update.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::learner::PairStats;
use crate::table::PairTable;

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// The update it belongs to, counted from one; for an evaluation, the updates done before it.
    pub step: u64,
    /// Names and values, in the order they are written.
    pub values: Vec<(String, f64)>,
}

impl Record {
    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Adds a value.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.values.push((name.into(), value));
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 1))?;
        map.serialize_entry("step", &self.step)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Means over `pairs` and their `stats`, each name behind `prefix`; per source where there are several.
pub fn preference_metrics(prefix: &str, table: &PairTable, pairs: &[usize], stats: &[PairStats]) -> Vec<(String, f64)> {
    let mut values = means(prefix, "", stats.iter());
    if table.sources.len() > 1 {
        for (number, source) in table.sources.iter().enumerate() {
            let of_source = pairs.iter().zip(stats).filter(|(pair, _)| table.pairs[**pair].source == number);
            values.extend(means(prefix, &format!("@{source}"), of_source.map(|(_, stats)| stats)));
        }
    }
    values
}

/// A name, and what a pair counts for it.
type Metric = (&'static str, fn(&PairStats) -> f64);

const METRICS: [Metric; 7] = [
    ("loss", |p| p.loss),
    ("rewards/chosen", |p| p.chosen_reward),
    ("rewards/rejected", |p| p.rejected_reward),
    ("rewards/accuracies", |p| f64::from(p.chosen_reward > p.rejected_reward)),
    ("rewards/margins", PairStats::margin),
    ("logps/chosen", |p| p.chosen_logp),
    ("logps/rejected", |p| p.rejected_logp),
];

/// Means of all metrics; nothing for no pairs, so that an absent source is not taken for a zero.
fn means<'a>(prefix: &str, suffix: &str, stats: impl Iterator<Item = &'a PairStats>) -> Vec<(String, f64)> {
    let (mut sums, mut count) = ([0.0; METRICS.len()], 0u32);
    for pair in stats {
        count += 1;
        for (sum, (_, value)) in sums.iter_mut().zip(METRICS) {
            *sum += value(pair);
        }
    }
    if count == 0 {
        return Vec::new();
    }
    let mean = |((name, _), sum): (&Metric, f64)| (format!("{prefix}{name}{suffix}"), sum / f64::from(count));
    METRICS.iter().zip(sums).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::PairEntry;

    fn pair(chosen_reward: f64, rejected_reward: f64) -> PairStats {
        PairStats { chosen_reward, rejected_reward, ..PairStats::default() }
    }

    #[test]
    fn sources_are_told_apart_and_ties_are_not_wins() {
        let entry = |source| PairEntry { row: 0, tokens: 1, source };
        let table = PairTable { sources: vec!["off".into(), "on".into()], pairs: vec![entry(0), entry(1), entry(0)] };
        let stats = [pair(1.0, 0.0), pair(2.0, 2.0), pair(0.0, 3.0)];
        let record = Record { step: 1, values: preference_metrics("", &table, &[0, 1, 2], &stats) };
        assert_eq!(record.get("rewards/margins"), Some((1.0 + 0.0 - 3.0) / 3.0));
        assert_eq!(record.get("rewards/margins@off"), Some(-1.0));
        assert_eq!(record.get("rewards/accuracies@on"), Some(0.0));
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.starts_with(r#"{"step":1,"loss":0.0,"rewards/chosen":1.0,"#), "{line}");
    }

    #[test]
    fn a_source_without_pairs_is_left_out() {
        let table = PairTable {
            sources: vec!["off".into(), "on".into()],
            pairs: vec![PairEntry { row: 0, tokens: 1, source: 0 }],
        };
        let values = preference_metrics("eval_", &table, &[0], &[pair(1.0, 0.0)]);
        assert!(values.iter().any(|(name, _)| name == "eval_rewards/margins@off"));
        assert!(!values.iter().any(|(name, _)| name.ends_with("@on")));
    }
}
