//! A mixture: named sources, shares, a total, and which row comes at each step.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::order::SourceOrder;
use crate::permutation::{Permutation, mix};
use crate::weight::Weight;

/// A source as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name; becomes the `source` of its rows.
    pub name: String,
    /// Rows it has.
    pub rows: u64,
    /// Its share of the mixture's rows, relative to the others' weights.
    pub weight: Weight,
}

/// What happens when more rows are asked of a source than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhaustion {
    /// The mixture is refused.
    #[default]
    Refuse,
    /// Rows come again, in a new order, in up to so many passes over the source.
    Repeat {
        /// Passes, at least 1.
        epochs: u64,
    },
    /// The mixture ends before the first source would run out.
    Stop,
}

/// Order of the rows inside a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOrder {
    /// A keyed permutation, new in each epoch.
    #[default]
    Shuffled,
    /// As they stand in the source.
    File,
}

/// A mixture as it is written; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureConfig {
    /// The sources.
    pub sources: Vec<SourceConfig>,
    /// Rows of the mixture. Equal totals make runs comparable; without one, as many as no source has to repeat.
    #[serde(default)]
    pub total: Option<u64>,
    /// What happens when a source runs out.
    #[serde(default)]
    pub exhaustion: Exhaustion,
    /// Order inside a source.
    #[serde(default)]
    pub rows: RowOrder,
    /// Everything random follows from it.
    pub seed: u64,
}

/// A row of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Index of the source.
    pub source: usize,
    /// Row in it.
    pub row: u64,
    /// Which pass over the source, from zero.
    pub epoch: u64,
}

/// What a source will give over the whole mixture, known before a row is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The source.
    pub name: String,
    /// Rows it has.
    pub available: u64,
    /// Rows it gives.
    pub rows: u64,
    /// Rows that come more than once.
    pub repeats: u64,
    /// Passes over it that are begun.
    pub epochs: u64,
}

/// A checked mixture. Which row comes at a step is a pure function of the configuration and the step: resuming needs one
/// integer, rank `r` of `w` takes steps `r, r + w, ...`, and threads change nothing.
///
/// # Examples
/// ```
/// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
///
/// let source = |name: &str, rows| SourceConfig { name: name.into(), rows, weight: "0.5".parse().unwrap() };
/// let mixture = Mixture::new(MixtureConfig {
///     sources: vec![source("off", 300), source("on", 80)],
///     total: Some(100),
///     exhaustion: Default::default(),
///     rows: Default::default(),
///     seed: 7,
/// })?;
/// assert_eq!(mixture.plan()[0].rows, 50);
/// let batch: Vec<usize> = (40..44).map(|step| mixture.at(step).source).collect();
/// assert_eq!(batch, [0, 1, 0, 1]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    config: MixtureConfig,
    order: SourceOrder,
    total: u64,
}

impl Mixture {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`Error`] naming the source or setting at fault.
    pub fn new(config: MixtureConfig) -> Result<Self> {
        check_sources(&config.sources)?;
        let weights: Vec<Weight> = config.sources.iter().map(|s| s.weight).collect();
        let order = SourceOrder::new(&weights)?;
        let total = total(&config, &order)?;
        let mixture = Self { config, order, total };
        mixture.check_supply()?;
        Ok(mixture)
    }

    /// The configuration.
    pub fn config(&self) -> &MixtureConfig {
        &self.config
    }

    /// Rows in all.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Never true: a mixture without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The row at `step`. Steps past [`Mixture::len`] go on in the same shares.
    pub fn at(&self, step: u64) -> Draw {
        let (source, rank) = self.order.at(step);
        let rows = self.config.sources[source].rows.max(1);
        let (epoch, place) = (rank / rows, rank % rows);
        let row = match self.config.rows {
            RowOrder::File => place,
            RowOrder::Shuffled => Permutation::new(rows, self.source_seed(source), epoch).at(place),
        };
        Draw { source, row, epoch }
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Draw> + '_ {
        (0..self.total).map(|step| self.at(step))
    }

    /// Rows of `source` among the first `steps`.
    pub fn count(&self, source: usize, steps: u64) -> u64 {
        self.order.count(source, steps)
    }

    /// What each source will give.
    pub fn plan(&self) -> Vec<Planned> {
        self.config
            .sources
            .iter()
            .enumerate()
            .map(|(i, source)| {
                let rows = self.count(i, self.total);
                Planned {
                    name: source.name.clone(),
                    available: source.rows,
                    rows,
                    repeats: rows.saturating_sub(source.rows),
                    epochs: rows.div_ceil(source.rows.max(1)),
                }
            })
            .collect()
    }

    /// One stream of permutations a source, so that sources of equal size are not shuffled alike.
    fn source_seed(&self, source: usize) -> u64 {
        mix(self.config.seed ^ mix(source as u64))
    }

    fn check_supply(&self) -> Result<()> {
        let allowed = match self.config.exhaustion {
            Exhaustion::Refuse => 1,
            Exhaustion::Repeat { epochs } => epochs,
            Exhaustion::Stop => return Ok(()),
        };
        for planned in self.plan() {
            if planned.epochs > allowed {
                return Err(Error::Exhausted {
                    name: planned.name,
                    rows: planned.available,
                    needed: planned.rows,
                    epochs: planned.epochs,
                });
            }
        }
        Ok(())
    }
}

fn check_sources(sources: &[SourceConfig]) -> Result<()> {
    if sources.is_empty() {
        return Err(Error::NoSource);
    }
    let mut names = HashSet::new();
    for source in sources {
        if !names.insert(&source.name) {
            return Err(Error::Twice { name: source.name.clone() });
        }
        if source.rows == 0 && !source.weight.is_zero() {
            return Err(Error::Empty { name: source.name.clone(), weight: source.weight.to_string() });
        }
    }
    Ok(())
}

/// Rows of the mixture: as given, but no further than the first source lasts where that is the rule.
fn total(config: &MixtureConfig, order: &SourceOrder) -> Result<u64> {
    let limit = match (config.exhaustion, config.total) {
        (Exhaustion::Stop, _) | (Exhaustion::Refuse, None) => supply(config, order, 1),
        (Exhaustion::Repeat { epochs }, None) => supply(config, order, epochs),
        _ => u64::MAX,
    };
    match config.total.unwrap_or(limit).min(limit) {
        0 => Err(Error::EmptyTotal),
        total => Ok(total),
    }
}

/// Most rows for which no source gives more than `epochs` passes: the last step at which all counts still hold.
fn supply(config: &MixtureConfig, order: &SourceOrder, epochs: u64) -> u64 {
    let holds = |steps: u64| {
        let within = |(i, s): (usize, &SourceConfig)| order.count(i, steps) <= s.rows.saturating_mul(epochs);
        config.sources.iter().enumerate().all(within)
    };
    // Counts never fall, so the last step at which they hold is found by halving.
    let most: u64 = config.sources.iter().fold(0u64, |sum, s| sum.saturating_add(s.rows.saturating_mul(epochs)));
    let (mut low, mut high) = (0, most.min(1 << 62));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(sources: &[(&str, u64, &str)], total: Option<u64>) -> MixtureConfig {
        let source = |(name, rows, weight): &(&str, u64, &str)| SourceConfig {
            name: (*name).into(),
            rows: *rows,
            weight: weight.parse().unwrap(),
        };
        MixtureConfig {
            sources: sources.iter().map(source).collect(),
            total,
            exhaustion: Exhaustion::Refuse,
            rows: RowOrder::Shuffled,
            seed: 3,
        }
    }

    fn error(config: MixtureConfig) -> String {
        Mixture::new(config).unwrap_err().to_string()
    }

    #[test]
    fn wrong_settings_are_named() {
        assert_eq!(error(config(&[], None)), "a mixture needs at least one source, found none");
        assert_eq!(error(config(&[("a", 1, "1"), ("a", 1, "1")], None)), "source `a` is named twice");
        assert_eq!(error(config(&[("a", 0, "1/2"), ("b", 1, "1")], None)), "source `a` has no rows, but weight 1/2");
        assert_eq!(error(config(&[("a", 4, "0"), ("b", 1, "0")], None)), "all weights are zero");
        assert_eq!(error(config(&[("a", 4, "1"), ("b", 4, "1")], Some(0))), "the mixture is empty: total is 0");
        assert_eq!(
            error(config(&[("a", 4, "1"), ("b", 9, "1")], Some(10))),
            "source `a` has 4 rows, but 5 are asked of it; ask for fewer, or allow 2 epochs"
        );
        assert!(serde_json::from_str::<MixtureConfig>(r#"{"sources":[],"seed":1,"totl":3}"#).is_err());
    }

    #[test]
    fn without_a_total_it_lasts_as_long_as_the_scarcest_source() {
        let mixture = Mixture::new(config(&[("a", 4, "1"), ("b", 900, "3")], None)).unwrap();
        assert_eq!(mixture.plan().iter().map(|p| p.rows).collect::<Vec<_>>(), [4, 13]);
        assert_eq!(mixture.plan()[0].repeats, 0);
    }

    #[test]
    fn repeats_are_planned() {
        let repeat = MixtureConfig {
            exhaustion: Exhaustion::Repeat { epochs: 3 },
            ..config(&[("a", 4, "1"), ("b", 20, "1")], Some(20))
        };
        let mixture = Mixture::new(repeat).unwrap();
        let plan = &mixture.plan()[0];
        assert_eq!((plan.rows, plan.repeats, plan.epochs), (10, 6, 3));
        let epochs: Vec<u64> = mixture.iter().filter(|d| d.source == 0).map(|d| d.epoch).collect();
        assert_eq!(epochs, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn a_source_of_weight_zero_gives_nothing() {
        let mixture = Mixture::new(config(&[("a", 8, "0"), ("b", 8, "1")], Some(8))).unwrap();
        assert!(mixture.iter().all(|draw| draw.source == 1));
    }

    proptest! {
        /// No row comes twice in an epoch, counts are as planned, and ranks together are the whole.
        #[test]
        fn draws_keep_their_promises(rows in prop::collection::vec(1u64..40, 1..5), weights in prop::collection::vec(1u64..9, 5), ranks in 1u64..5, seed: u64) {
            let sources = rows.iter().zip(&weights).enumerate().map(|(i, (&rows, &weight))| SourceConfig {
                name: i.to_string(), rows, weight: Weight::whole(weight),
            }).collect();
            let mixture = Mixture::new(MixtureConfig {
                sources, total: Some(90), exhaustion: Exhaustion::Repeat { epochs: 90 }, rows: RowOrder::Shuffled, seed,
            }).unwrap();
            let whole: Vec<Draw> = mixture.iter().collect();
            prop_assert_eq!(whole.iter().collect::<HashSet<_>>().len(), whole.len());
            for (i, planned) in mixture.plan().iter().enumerate() {
                prop_assert_eq!(whole.iter().filter(|d| d.source == i).count() as u64, planned.rows);
                prop_assert!(whole.iter().filter(|d| d.source == i).all(|d| d.row < planned.available));
            }
            let mut dealt = vec![None; whole.len()];
            for rank in 0..ranks {
                for step in (rank..90).step_by(ranks as usize) {
                    dealt[step as usize] = Some(mixture.at(step));
                }
            }
            prop_assert_eq!(dealt.into_iter().flatten().collect::<Vec<_>>(), whole);
        }
    }
}
