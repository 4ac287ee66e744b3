//! Metrics of an update under TRL's names, also for each source and task: `rewards/margins`, `rewards/margins@on`,
//! `rewards/margins@task:math`.
//!
//! Definitions are TRL 1.16's. Rewards are `beta` times the log-ratio; accuracy counts pairs with a strictly larger chosen
//! reward; `logps` are sums over a response and `lengths` its tokens. `logits`, `entropy` and `mean_token_accuracy` are
//! means over response tokens. All others are means over the pairs of the update. Our own `age/mean` and `age/max` are those of its
//! on-policy pairs, in rounds, where the mixture tells them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::sides::Sides;
use crate::stats::{PairStats, TokenSums};
use crate::table::{PairEntry, PairTable};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Number of the update, counted from one; of an evaluation, the updates done before it.
    pub step: u64,
    /// Names and values, in the order they are written.
    pub values: Vec<(String, f64)>,
}

impl Record {
    /// Value called `name`.
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

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Line)
    }
}

/// Reader of a line, which keeps the order of its values.
struct Line;

impl<'de> Visitor<'de> for Line {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `step` and numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut record = Record::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "step" {
                record.step = map.next_value()?;
            } else {
                // JSON has null in place of NaN and infinity.
                record.push(name, map.next_value::<Option<f64>>()?.unwrap_or(f64::NAN));
            }
        }
        Ok(record)
    }
}

/// Names of the metrics that a learner reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricSet {
    /// Metrics of TRL's `DPOTrainer`.
    #[default]
    Preference,
    /// Metrics of TRL's `SFTTrainer`; the chosen response is learnt.
    Sft,
    /// Metrics of TRL's `RewardTrainer`.
    Reward,
}

impl MetricSet {
    /// Tokens that TRL's trainer feeds for a pair.
    pub(crate) fn tokens(self, pair: &PairEntry) -> usize {
        let Sides { chosen, rejected } = pair.responses;
        match self {
            Self::Preference | Self::Reward => 2 * pair.prompt + chosen + rejected,
            Self::Sft => pair.prompt + chosen,
        }
    }
}

/// Metrics of `pairs` from their `stats`, each name behind `prefix`; also per source and per task if there are several.
/// `weight` is the factor of each pair's loss.
pub(crate) fn metrics(
    set: MetricSet,
    prefix: &str,
    table: &PairTable,
    pairs: &[usize],
    stats: &[PairStats],
    weight: f64,
) -> Vec<(String, f64)> {
    let all: Vec<&PairStats> = stats.iter().collect();
    let mut values = group_metrics(set, prefix, "", &all, weight);
    let total = stats.len() as f64;
    let responses = pairs.iter().map(|&pair| &table.pairs[pair].responses);
    let (chosen, rejected) = responses.fold((0, 0), |sums, tokens| (sums.0 + tokens.chosen, sums.1 + tokens.rejected));
    for (name, tokens) in [("chosen", chosen), ("rejected", rejected)] {
        values.push((format!("{prefix}lengths/{name}"), tokens as f64 / total));
    }
    values.extend(age_metrics(prefix, table, pairs));
    let mut groups = |names: &[String], mark: &str, group_of: &dyn Fn(usize) -> Option<usize>| {
        for (number, name) in names.iter().enumerate() {
            let in_group = pairs.iter().zip(stats).filter(|(pair, _)| group_of(**pair) == Some(number));
            let group: Vec<&PairStats> = in_group.map(|(_, stats)| stats).collect();
            if !group.is_empty() && mark.is_empty() {
                values.push((format!("{prefix}share@{name}"), group.len() as f64 / total));
            }
            // Makes the loss of a group its own mean, not its part of the whole.
            let weight = weight * total / group.len().max(1) as f64;
            values.extend(group_metrics(set, prefix, &format!("@{mark}{name}"), &group, weight));
        }
    };
    if table.sources.len() > 1 {
        groups(&table.sources, "", &|pair| Some(table.pairs[pair].source));
    }
    if table.tasks.len() > 1 {
        groups(&table.tasks, "task:", &|pair| table.pairs[pair].task);
    }
    values
}

/// Mean and largest age of the pairs whose source has one.
fn age_metrics(prefix: &str, table: &PairTable, pairs: &[usize]) -> Vec<(String, f64)> {
    let age_of = |pair: &usize| table.ages.get(&table.pairs[*pair].source).copied();
    let ages: Vec<f64> = pairs.iter().filter_map(age_of).map(f64::from).collect();
    if ages.is_empty() {
        return Vec::new();
    }
    let mean = ages.iter().sum::<f64>() / ages.len() as f64;
    vec![(format!("{prefix}age/mean"), mean), (format!("{prefix}age/max"), ages.into_iter().fold(0.0, f64::max))]
}

/// Metrics of one group; none for no pairs, so that an absent source does not look like a zero.
fn group_metrics(set: MetricSet, prefix: &str, suffix: &str, stats: &[&PairStats], weight: f64) -> Vec<(String, f64)> {
    if stats.is_empty() {
        return Vec::new();
    }
    let mut values = vec![("loss", stats.iter().map(|pair| pair.loss).sum::<f64>() * weight)];
    values.extend(match set {
        MetricSet::Preference => preference_metrics(stats),
        MetricSet::Sft => Vec::new(),
        MetricSet::Reward => reward_metrics(stats),
    });
    values.extend(token_metrics(set, stats));
    values.into_iter().map(|(name, value)| (format!("{prefix}{name}{suffix}"), value)).collect()
}

type Named = Vec<(&'static str, f64)>;

fn sum(stats: &[&PairStats], value: impl Fn(&PairStats) -> f64) -> f64 {
    stats.iter().map(|pair| value(pair)).sum()
}

fn mean(stats: &[&PairStats], value: impl Fn(&PairStats) -> f64) -> f64 {
    sum(stats, value) / stats.len() as f64
}

fn accuracy(stats: &[&PairStats]) -> f64 {
    mean(stats, |pair| f64::from(pair.rewards.chosen > pair.rewards.rejected))
}

fn preference_metrics(stats: &[&PairStats]) -> Named {
    vec![
        ("rewards/chosen", mean(stats, |pair| pair.rewards.chosen)),
        ("rewards/rejected", mean(stats, |pair| pair.rewards.rejected)),
        ("rewards/accuracies", accuracy(stats)),
        ("rewards/margins", mean(stats, PairStats::margin)),
        ("logps/chosen", mean(stats, |pair| pair.logps.chosen)),
        ("logps/rejected", mean(stats, |pair| pair.logps.rejected)),
    ]
}

fn reward_metrics(stats: &[&PairStats]) -> Named {
    let all = || stats.iter().flat_map(|pair| <[f64; 2]>::from(pair.rewards));
    vec![
        ("accuracy", accuracy(stats)),
        ("margin", mean(stats, PairStats::margin)),
        ("min_reward", all().fold(f64::INFINITY, f64::min)),
        ("mean_reward", mean(stats, |pair| (pair.rewards.chosen + pair.rewards.rejected) / 2.0)),
        ("max_reward", all().fold(f64::NEG_INFINITY, f64::max)),
    ]
}

/// Means over tokens, if token statistics were taken.
fn token_metrics(set: MetricSet, stats: &[&PairStats]) -> Named {
    let chosen = |value: fn(&TokenSums) -> f64| sum(stats, |pair| value(&pair.tokens.chosen));
    let rejected = |value: fn(&TokenSums) -> f64| sum(stats, |pair| value(&pair.tokens.rejected));
    let count = Sides { chosen: chosen(|t| t.count), rejected: rejected(|t| t.count) };
    let mut values = Vec::new();
    if count.chosen > 0.0 && set == MetricSet::Preference && count.rejected > 0.0 {
        values.extend([
            ("logits/chosen", chosen(|t| t.logits) / count.chosen),
            ("logits/rejected", rejected(|t| t.logits) / count.rejected),
        ]);
    }
    if count.chosen > 0.0 && set != MetricSet::Reward {
        let entropy = sum(stats, |pair| pair.tokens.chosen.entropy + pair.tokens.rejected.entropy);
        values.extend([
            ("entropy", entropy / (count.chosen + count.rejected)),
            ("mean_token_accuracy", chosen(|t| t.top1) / count.chosen),
        ]);
    }
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pair(chosen: f64, rejected: f64) -> PairStats {
        PairStats { rewards: Sides { chosen, rejected }, ..PairStats::default() }
    }

    fn record(set: MetricSet, stats: &[PairStats]) -> Record {
        let entry = |source, task| PairEntry { source, task, ..PairEntry::default() };
        let table = PairTable {
            sources: vec!["off".into(), "on".into()],
            tasks: vec!["math".into(), "code".into()],
            ages: BTreeMap::new(),
            pairs: vec![entry(0, Some(0)), entry(1, None), entry(0, Some(0))],
        };
        Record { step: 1, values: metrics(set, "", &table, &[0, 1, 2], stats, 1.0 / 3.0) }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let values = vec![("loss".to_owned(), 0.1), ("a".to_owned(), -1e-300), ("b".to_owned(), f64::NAN)];
        let line = serde_json::to_string(&Record { step: u64::MAX, values }).unwrap();
        let read: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (read.step, &read.values[..2]),
            (u64::MAX, &[("loss".to_owned(), 0.1), ("a".to_owned(), -1e-300)][..])
        );
        assert!(read.values[2].1.is_nan());
    }

    #[test]
    fn sources_are_told_apart_and_ties_are_not_wins() {
        let record = record(MetricSet::Preference, &[pair(1.0, 0.0), pair(2.0, 2.0), pair(0.0, 3.0)]);
        assert_eq!(record.get("rewards/margins"), Some((1.0 + 0.0 - 3.0) / 3.0));
        assert_eq!(record.get("rewards/margins@off"), Some(-1.0));
        assert_eq!(record.get("rewards/accuracies@on"), Some(0.0));
        assert_eq!(record.get("rewards/accuracies@task:math"), Some(0.5));
        assert_eq!(record.get("rewards/accuracies@task:code"), None);
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.starts_with(r#"{"step":1,"loss":0.0,"rewards/chosen":1.0,"#), "{line}");
    }

    #[test]
    fn the_age_is_that_of_the_pairs_whose_source_has_one() {
        let entry = |source| PairEntry { source, ..PairEntry::default() };
        let mut table = PairTable {
            sources: vec!["off".into(), "on".into(), "on-1".into()],
            pairs: [0, 1, 1, 2].map(entry).to_vec(),
            ..PairTable::default()
        };
        table.set_ages(&[("on".to_owned(), 1), ("on-1".to_owned(), 3), ("elsewhere".to_owned(), 9)].into());
        let ages = |pairs: &[usize]| {
            let values = metrics(MetricSet::Preference, "", &table, pairs, &vec![pair(1.0, 0.0); pairs.len()], 1.0);
            let record = Record { step: 1, values };
            record.get("age/mean").zip(record.get("age/max"))
        };
        // (1 + 1 + 3) / 3; the off-policy pair has no age.
        assert_eq!(ages(&[0, 1, 2, 3]), Some((5.0 / 3.0, 3.0)));
        assert_eq!((ages(&[0, 1]), ages(&[0])), (Some((1.0, 1.0)), None));
    }

    #[test]
    fn a_groups_loss_is_its_own_mean() {
        let loss = |loss| PairStats { loss, ..PairStats::default() };
        let record = record(MetricSet::Preference, &[loss(1.0), loss(5.0), loss(3.0)]);
        assert_eq!(
            (record.get("loss"), record.get("loss@off"), record.get("loss@on")),
            (Some(3.0), Some(2.0), Some(5.0))
        );
    }

    #[test]
    fn token_means_do_not_depend_on_the_pairs() {
        let tokens = |count, entropy| TokenSums { count, entropy, logits: 2.0 * count, top1: 1.0 };
        let stats = [(1.0, 4.0), (3.0, 0.0), (2.0, 2.0)].map(|(count, entropy)| PairStats {
            tokens: Sides { chosen: tokens(count, entropy), rejected: tokens(count, entropy) },
            ..PairStats::default()
        });
        let record = record(MetricSet::Preference, &stats);
        assert_eq!((record.get("entropy"), record.get("mean_token_accuracy")), (Some(1.0), Some(0.5)));
        assert_eq!(record.get("logits/rejected"), Some(2.0));
    }

    #[test]
    fn a_reward_model_has_trls_names() {
        let record = record(MetricSet::Reward, &[pair(1.0, 0.0), pair(2.0, 2.0), pair(0.0, 3.0)]);
        assert_eq!((record.get("min_reward"), record.get("max_reward")), (Some(0.0), Some(3.0)));
        assert_eq!((record.get("margin"), record.get("rewards/margins")), (Some(-2.0 / 3.0), None));
    }
}
