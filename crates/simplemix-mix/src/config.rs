//! Settings of a mixture, as they are written in a file, and what they must satisfy.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schedule::Schedule;
use crate::weight::Weight;

/// Most sources of a mixture.
const MOST_SOURCES: usize = 64;

/// Settings of a mixture. Unknown keys are refused.
///
/// # Examples
/// ```
/// use simplemix_mix::{Mixture, MixtureConfig, Shares, SourceConfig};
///
/// let source = |name: &str| SourceConfig::new(name, 1000, "1".parse().unwrap());
/// let config = MixtureConfig {
///     size: Some(64),
///     batch: Some(16),
///     ..MixtureConfig::new(vec![source("off"), source("on")], 42)
/// };
/// assert_eq!(Mixture::new(config)?.len(), 64);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureConfig {
    /// Sources to draw from, at most 64.
    pub sources: Vec<SourceConfig>,
    /// Meaning of the weights.
    #[serde(default)]
    pub shares: Shares,
    /// Number of pairs in the mixture. Equal sizes make runs comparable. By default, as many pairs as no source has to
    /// repeat.
    #[serde(default, alias = "total")]
    pub size: Option<u64>,
    /// Number of response tokens in the mixture, in place of `size`. Every source then needs `tokens`.
    #[serde(default, alias = "total_tokens")]
    pub size_tokens: Option<u64>,
    /// Batch size, over all ranks. Every batch then holds each source's share, rounded up or down.
    #[serde(default)]
    pub batch: Option<u64>,
    /// Order of the pairs within a batch.
    #[serde(default)]
    pub order: BatchOrder,
    /// Shares that change over the run, in place of the sources' weights.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// Rule for a source that has fewer rows than the mixture needs.
    #[serde(default)]
    pub exhaustion: Exhaustion,
    /// Order of the rows within a source.
    #[serde(default)]
    pub rows: RowOrder,
    /// Random seed.
    pub seed: u64,
}

/// Settings of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Name of the source, which its rows carry in the column `source`.
    pub name: String,
    /// Number of rows in the source.
    pub rows: u64,
    /// Share of the mixture's pairs (or response tokens), relative to the weights of the other sources; under
    /// [`Shares::Quota`], a number of pairs.
    pub weight: Weight,
    /// Response tokens of all rows together, needed where shares or the size are in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

/// Meaning of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shares {
    /// Shares of pairs that hold in every prefix and every batch.
    #[default]
    Exact,
    /// Shares of pairs that hold on average: the source of each pair is drawn independently, as the paper describes it.
    Bernoulli {
        /// Draw the row with replacement too, so that a row may repeat before all others have come once.
        #[serde(default)]
        replace: bool,
    },
    /// Numbers of pairs.
    Quota,
    /// Shares of response tokens, on the assumption that each row has its source's mean length.
    Tokens,
}

/// Order of the pairs within a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchOrder {
    /// The order that keeps every prefix close to its shares.
    #[default]
    Interleaved,
    /// A keyed shuffle of each batch, so that a position within the batch says nothing about the source. For every
    /// number of ranks that divides the batch size, each rank's micro-batch holds the shares too.
    #[serde(alias = "batch_shuffled")]
    BatchShuffled,
}

/// Rule for a source that has fewer rows than the mixture needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exhaustion {
    /// Refuse the mixture.
    #[default]
    Refuse,
    /// Repeat the rows, in a new order for each pass over the source.
    Repeat {
        /// Most passes over a source, at least 1.
        epochs: u64,
    },
    /// End the mixture before the first source would have to repeat rows.
    #[serde(alias = "first_exhausted")]
    FirstExhausted,
    /// End the mixture when every row of every source has come at least once; smaller sources repeat their rows.
    #[serde(alias = "all_exhausted")]
    AllExhausted,
}

/// Order of the rows within a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowOrder {
    /// A keyed permutation, new in each epoch.
    #[default]
    Shuffled,
    /// The order of the file, or the one given to [`Mixture::with_rows`](crate::Mixture::with_rows), such as a
    /// curriculum by difficulty.
    File,
}

impl SourceConfig {
    /// A source without a token count.
    pub fn new(name: impl Into<String>, rows: u64, weight: Weight) -> Self {
        Self { name: name.into(), rows, weight, tokens: None }
    }
}

impl MixtureConfig {
    /// Exact shares of pairs, for as long as no source has to repeat a row.
    pub fn new(sources: Vec<SourceConfig>, seed: u64) -> Self {
        Self {
            sources,
            shares: Shares::default(),
            size: None,
            size_tokens: None,
            batch: None,
            order: BatchOrder::default(),
            schedule: None,
            exhaustion: Exhaustion::default(),
            rows: RowOrder::default(),
            seed,
        }
    }

    /// Refuses values out of range and settings that do not go together.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_sizes()?;
        self.check_combinations()?;
        self.check_sources()
    }

    pub(crate) fn weights(&self) -> Vec<Weight> {
        self.sources.iter().map(|source| source.weight).collect()
    }

    fn check_sizes(&self) -> Result<()> {
        if self.batch == Some(0) {
            return Err(Error::setting("batch", "0", "at least 1"));
        }
        if self.size == Some(0) {
            return Err(Error::setting("size", "0", "at least 1"));
        }
        if self.size.is_some() && self.size_tokens.is_some() {
            return Err(Error::setting("size_tokens", "given beside `size`", "only one of the two"));
        }
        if matches!(self.exhaustion, Exhaustion::Repeat { epochs: 0 }) {
            return Err(Error::setting("exhaustion", "a repeat of 0 epochs", "at least 1 epoch"));
        }
        Ok(())
    }

    fn check_combinations(&self) -> Result<()> {
        let is_exact = self.shares == Shares::Exact;
        if self.order == BatchOrder::BatchShuffled {
            if self.batch.is_none() {
                return Err(Error::setting("batch", "absent", "a batch size, since the order is batch-shuffled"));
            }
            if !is_exact {
                return Err(Error::setting("order", "batch-shuffled", "interleaved unless shares are exact"));
            }
        }
        if self.schedule.is_some() {
            if self.size.is_none() && self.size_tokens.is_none() {
                return Err(Error::setting("size", "absent", "a number of pairs, since a schedule needs one"));
            }
            if !is_exact || self.order != BatchOrder::Interleaved {
                return Err(Error::setting(
                    "schedule",
                    "given",
                    "none unless shares are exact and the order interleaved",
                ));
            }
        }
        Ok(())
    }

    fn check_sources(&self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(Error::NoSource);
        }
        if self.sources.len() > MOST_SOURCES {
            return Err(Error::setting("sources", format!("a list of {}", self.sources.len()), "at most 64"));
        }
        let mut names = HashSet::new();
        for source in &self.sources {
            if !names.insert(&source.name) {
                return Err(Error::Twice { name: source.name.clone() });
            }
            self.check_source(source)?;
        }
        Ok(())
    }

    fn check_source(&self, source: &SourceConfig) -> Result<()> {
        let name = || source.name.clone();
        let is_drawn = !source.weight.is_zero();
        if source.rows == 0 && is_drawn {
            return Err(Error::Empty { name: name(), weight: source.weight });
        }
        let in_tokens = self.shares == Shares::Tokens || self.size_tokens.is_some();
        if in_tokens && is_drawn && source.tokens.is_none_or(|tokens| tokens == 0) {
            return Err(Error::Tokens { name: name() });
        }
        if self.shares == Shares::Quota && source.weight.parts().1 != 1 {
            let (found, expected) = (source.weight.to_string(), "a whole number of pairs, since shares are quotas");
            return Err(Error::Weight { name: name(), found, expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::testing::{config, refusal};

    #[test]
    fn wrong_settings_are_named() {
        assert_eq!(refusal(config(&[], None)), "a mixture needs at least one source, found none");
        assert_eq!(refusal(config(&[("a", 1, "1"), ("a", 1, "1")], None)), "source `a` is named twice");
        let empty = config(&[("a", 0, "1/2"), ("b", 1, "1")], None);
        assert_eq!(refusal(empty), "source `a` has no rows, expected some, since its weight is 1/2");
        assert_eq!(refusal(config(&[("a", 4, "0"), ("b", 1, "0")], None)), "all weights are 0, expected one above 0");
        assert_eq!(refusal(config(&[("a", 4, "1"), ("b", 4, "1")], Some(0))), "`size` is 0, expected at least 1");
        assert!(serde_json::from_str::<MixtureConfig>(r#"{"sources":[],"seed":1,"sise":3}"#).is_err());
    }

    #[test]
    fn settings_that_do_not_go_together_are_named() {
        let base = config(&[("a", 40, "1"), ("b", 40, "1"), ("c", 40, "1")], Some(30));
        let shuffled = MixtureConfig { order: BatchOrder::BatchShuffled, ..base.clone() };
        let text = "`batch` is absent, expected a batch size, since the order is batch-shuffled";
        assert_eq!(refusal(shuffled), text);
        let both = MixtureConfig { size_tokens: Some(5), ..base.clone() };
        assert_eq!(refusal(both), "`size_tokens` is given beside `size`, expected only one of the two");
        let tokens = MixtureConfig { shares: Shares::Tokens, ..base };
        assert_eq!(refusal(tokens), "source `a` has no token count, which shares and sizes in tokens need");
        let quota = MixtureConfig { shares: Shares::Quota, ..config(&[("a", 9, "0.5"), ("b", 9, "1")], None) };
        assert_eq!(
            refusal(quota),
            "weight of source `a` is `1/2`, expected a whole number of pairs, since shares are quotas"
        );
        let schedule = Some(Schedule::hand_over("0".parse().unwrap(), "1".parse().unwrap()));
        let endless = MixtureConfig { schedule, ..config(&[("a", 9, "1"), ("b", 9, "1")], None) };
        assert_eq!(refusal(endless), "`size` is absent, expected a number of pairs, since a schedule needs one");
    }

    #[test]
    fn old_spellings_are_read() {
        let old = r#"{"sources":[],"seed":1,"total":3,"order":"batch_shuffled","exhaustion":"first_exhausted"}"#;
        let read: MixtureConfig = serde_json::from_str(old).unwrap();
        assert_eq!((read.size, read.order), (Some(3), BatchOrder::BatchShuffled));
        let text = serde_json::to_string(&read).unwrap();
        assert!(text.contains(r#""size":3"#) && text.contains("batch-shuffled") && text.contains("first-exhausted"));
    }
}
