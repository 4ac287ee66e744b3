//! Metrics of an update under TRL's names, also for each source and task: `rewards/margins`, `rewards/margins@on`,
//! `rewards/margins@task:math`.
//!
//! Definitions are TRL 1.16's: rewards are `beta` times the log-ratio, accuracy counts a strictly larger chosen reward,
//! `logps` are sums over a response, `lengths` its tokens, `logits`, `entropy` and `mean_token_accuracy` are means over response tokens. All
//! others are means over the pairs of the update.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::learner::PairStats;
use crate::table::{PairEntry, PairTable};

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

/// What a learner's numbers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricSet {
    /// TRL's `DPOTrainer`.
    #[default]
    Preference,
    /// TRL's `SFTTrainer`; the chosen response is what is learnt.
    Sft,
    /// TRL's `RewardTrainer`.
    Reward,
}

impl MetricSet {
    /// Tokens that TRL's trainer feeds for a pair.
    pub fn tokens(self, pair: &PairEntry) -> usize {
        let [chosen, rejected] = pair.responses;
        match self {
            Self::Preference | Self::Reward => 2 * pair.prompt + chosen + rejected,
            Self::Sft => pair.prompt + chosen,
        }
    }
}

/// Numbers of `pairs` and their `stats`, each name behind `prefix`; per source and per task where there are several.
/// `weight` multiplies each pair's loss in their sum.
pub fn metrics(
    set: MetricSet,
    prefix: &str,
    table: &PairTable,
    pairs: &[usize],
    stats: &[PairStats],
    weight: f64,
) -> Vec<(String, f64)> {
    let all: Vec<&PairStats> = stats.iter().collect();
    let mut values = of_group(set, prefix, "", &all, weight);
    let total = stats.len() as f64;
    for (side, name) in ["chosen", "rejected"].into_iter().enumerate() {
        let tokens: usize = pairs.iter().map(|&pair| table.pairs[pair].responses[side]).sum();
        values.push((format!("{prefix}lengths/{name}"), tokens as f64 / total));
    }
    let mut groups = |names: &[String], mark: &str, of: &dyn Fn(usize) -> Option<usize>| {
        for (number, name) in names.iter().enumerate() {
            let in_group = pairs.iter().zip(stats).filter(|(pair, _)| of(**pair) == Some(number));
            let group: Vec<&PairStats> = in_group.map(|(_, stats)| stats).collect();
            if !group.is_empty() && mark.is_empty() {
                values.push((format!("{prefix}share@{name}"), group.len() as f64 / total));
            }
            // The share of the whole that a group's losses make up, as a mean of its own.
            let weight = weight * total / group.len().max(1) as f64;
            values.extend(of_group(set, prefix, &format!("@{mark}{name}"), &group, weight));
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

/// Numbers of one group; nothing for no pairs, so that an absent source is not taken for a zero.
fn of_group(set: MetricSet, prefix: &str, suffix: &str, stats: &[&PairStats], weight: f64) -> Vec<(String, f64)> {
    if stats.is_empty() {
        return Vec::new();
    }
    let sum = |value: fn(&PairStats) -> f64| stats.iter().map(|pair| value(pair)).sum::<f64>();
    let mean = |value: fn(&PairStats) -> f64| sum(value) / stats.len() as f64;
    let accuracy = mean(|p| f64::from(p.chosen_reward > p.rejected_reward));
    let mut values = vec![("loss", sum(|p| p.loss) * weight)];
    match set {
        MetricSet::Preference => values.extend([
            ("rewards/chosen", mean(|p| p.chosen_reward)),
            ("rewards/rejected", mean(|p| p.rejected_reward)),
            ("rewards/accuracies", accuracy),
            ("rewards/margins", mean(PairStats::margin)),
            ("logps/chosen", mean(|p| p.chosen_logp)),
            ("logps/rejected", mean(|p| p.rejected_logp)),
        ]),
        MetricSet::Sft => {}
        MetricSet::Reward => {
            let both = || stats.iter().flat_map(|p| [p.chosen_reward, p.rejected_reward]);
            values.extend([
                ("accuracy", accuracy),
                ("margin", mean(PairStats::margin)),
                ("min_reward", both().fold(f64::INFINITY, f64::min)),
                ("mean_reward", mean(|p| (p.chosen_reward + p.rejected_reward) / 2.0)),
                ("max_reward", both().fold(f64::NEG_INFINITY, f64::max)),
            ]);
        }
    }
    let (chosen, rejected) = (sum(|p| p.chosen.count), sum(|p| p.rejected.count));
    if chosen > 0.0 && set == MetricSet::Preference && rejected > 0.0 {
        values.extend([
            ("logits/chosen", sum(|p| p.chosen.logits) / chosen),
            ("logits/rejected", sum(|p| p.rejected.logits) / rejected),
        ]);
    }
    if chosen > 0.0 && set != MetricSet::Reward {
        values.extend([
            ("entropy", sum(|p| p.chosen.entropy + p.rejected.entropy) / (chosen + rejected)),
            ("mean_token_accuracy", sum(|p| p.chosen.top1) / chosen),
        ]);
    }
    values.into_iter().map(|(name, value)| (format!("{prefix}{name}{suffix}"), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::TokenSums;

    fn pair(chosen_reward: f64, rejected_reward: f64) -> PairStats {
        PairStats { chosen_reward, rejected_reward, ..PairStats::default() }
    }

    fn record(set: MetricSet, stats: &[PairStats]) -> Record {
        let entry = |source, task| PairEntry { source, task, ..PairEntry::default() };
        let table = PairTable {
            sources: vec!["off".into(), "on".into()],
            tasks: vec!["math".into(), "code".into()],
            pairs: vec![entry(0, Some(0)), entry(1, None), entry(0, Some(0))],
        };
        Record { step: 1, values: metrics(set, "", &table, &[0, 1, 2], stats, 1.0 / 3.0) }
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
    fn a_groups_loss_is_its_own_mean() {
        let loss = |loss| PairStats { loss, ..PairStats::default() };
        let record = record(MetricSet::Preference, &[loss(1.0), loss(5.0), loss(3.0)]);
        assert_eq!(
            (record.get("loss"), record.get("loss@off"), record.get("loss@on")),
            (Some(3.0), Some(2.0), Some(5.0))
        );
    }

    #[test]
    fn tokens_weigh_alike_whatever_their_pair() {
        let tokens = |count, entropy| TokenSums { count, entropy, logits: 2.0 * count, top1: 1.0 };
        let stats = [(1.0, 4.0), (3.0, 0.0), (2.0, 2.0)].map(|(count, entropy)| PairStats {
            chosen: tokens(count, entropy),
            rejected: tokens(count, entropy),
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
