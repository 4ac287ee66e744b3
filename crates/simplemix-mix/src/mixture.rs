//! A mixture: named sources, shares, a budget, and which row comes at each step.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::order::{
    Batched, Bernoulli, BernoulliCursor, Interleaved, PERIOD_LIMIT, Scheduled, SourceOrder, Tree, Two, integers,
    nearest,
};
use crate::permutation::{Permutation, mix};
use crate::schedule::Schedule;
use crate::weight::Weight;

/// Sources a mixture can have.
pub const MOST_SOURCES: usize = 64;

/// A source as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name; becomes the `source` of its rows.
    pub name: String,
    /// Rows it has.
    pub rows: u64,
    /// Its share of the mixture's rows (or tokens), relative to the others' weights; under quotas, its rows.
    pub weight: Weight,
    /// Response tokens of all its rows, where shares or the budget are in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

/// What a weight is a share of, and how strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shares {
    /// Of pairs, in every prefix and batch.
    #[default]
    Exact,
    /// Of pairs, on average: each row's source is drawn by itself, as the paper describes it.
    Bernoulli {
        /// Whether the row is drawn by itself too, and may come again before all others came once.
        #[serde(default)]
        replace: bool,
    },
    /// None: the weight is a number of pairs.
    Quota,
    /// Of response tokens; rows are expected to be as long as their source's mean.
    Tokens,
}

/// How the rows of a batch stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchOrder {
    /// In the order that keeps every prefix near its shares.
    #[default]
    Interleaved,
    /// Permuted by key, so that a place in the batch says nothing about the source; every number of ranks that divides
    /// the batch gets even micro-batches.
    BatchShuffled,
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
    FirstExhausted,
    /// The mixture ends when every row of every source has come; those of scarce sources come again.
    AllExhausted,
}

/// Order of the rows inside a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOrder {
    /// A keyed permutation, new in each epoch.
    #[default]
    Shuffled,
    /// As they stand in the source, or as given to [`Mixture::with_rows`]: sorted by difficulty, for example.
    File,
}

/// A mixture as it is written; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureConfig {
    /// The sources.
    pub sources: Vec<SourceConfig>,
    /// What a weight is a share of.
    #[serde(default)]
    pub shares: Shares,
    /// Rows of the mixture. Equal totals make runs comparable; without one, as many as no source has to repeat.
    #[serde(default)]
    pub total: Option<u64>,
    /// Response tokens of the mixture, in place of `total`; needs the sources' `tokens`.
    #[serde(default)]
    pub total_tokens: Option<u64>,
    /// Rows of a batch, over all ranks, each of which shall hold floor or ceil of every share.
    #[serde(default)]
    pub batch: Option<u64>,
    /// How the rows of a batch stand.
    #[serde(default)]
    pub order: BatchOrder,
    /// Shares that change over the run; they take the place of the sources' weights.
    #[serde(default)]
    pub schedule: Option<Schedule>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Place, in the order of its last pass, of the last row it gives; none if it gives none.
    pub last: Option<u64>,
}

/// How near to the shares a mixture stays at all times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Most rows that any prefix strays from a share; none where chance decides.
    pub prefix: Option<f64>,
    /// Whether every batch, and every total at a batch's end, holds floor or ceil of each share.
    pub batches: bool,
}

/// A checked mixture. Which row comes at a step is a pure function of the configuration and the step: resuming needs one
/// integer, rank `r` of `w` takes steps `r, r + w, ...`, and threads change nothing.
///
/// # Examples
/// ```
/// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
///
/// let source = |name: &str, rows| SourceConfig::new(name, rows, "0.5".parse().unwrap());
/// let mixture = Mixture::new(MixtureConfig {
///     total: Some(100),
///     ..MixtureConfig::new(vec![source("off", 300), source("on", 80)], 7)
/// })?;
/// assert_eq!(mixture.plan()[0].rows, 50);
/// let batch: Vec<usize> = (40..44).map(|step| mixture.at(step).source).collect();
/// assert_eq!(batch, [0, 1, 0, 1]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    config: MixtureConfig,
    order: SourceOrder,
    total: u64,
    /// Shares of rows, whole numbers of one unit.
    shares: Vec<u64>,
    /// Rows of a source in the order they are to be taken, where they are not simply all of them.
    kept: Vec<Option<Arc<[u64]>>>,
    /// Keys of the sources' permutations.
    seeds: Vec<u64>,
}

impl SourceConfig {
    /// A source without a token count.
    pub fn new(name: impl Into<String>, rows: u64, weight: Weight) -> Self {
        Self { name: name.into(), rows, weight, tokens: None }
    }
}

impl MixtureConfig {
    /// Exact shares of pairs, for as long as no source has to repeat.
    pub fn new(sources: Vec<SourceConfig>, seed: u64) -> Self {
        Self {
            sources,
            shares: Shares::default(),
            total: None,
            total_tokens: None,
            batch: None,
            order: BatchOrder::default(),
            schedule: None,
            exhaustion: Exhaustion::default(),
            rows: RowOrder::default(),
            seed,
        }
    }
}

impl Mixture {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`Error`] naming the source or setting at fault.
    pub fn new(config: MixtureConfig) -> Result<Self> {
        check_settings(&config)?;
        check_sources(&config)?;
        let shares = row_shares(&config)?;
        let asked = asked(&config, &shares)?;
        let order = order(&config, &shares, asked)?;
        let total = total(&config, &order, asked)?;
        // One stream of permutations a source, so that sources of equal size are not shuffled alike.
        let seeds = (0..config.sources.len()).map(|source| mix(config.seed ^ mix(source as u64))).collect();
        let kept = vec![None; config.sources.len()];
        let mixture = Self { config, order, total, shares, kept, seeds };
        mixture.check_supply()?;
        Ok(mixture)
    }

    /// The same mixture with the rows of `source` given: those that a filter left, or all of them in an order of the
    /// caller's, which [`RowOrder::File`] then takes.
    ///
    /// # Errors
    /// [`Error::Rows`] unless there are as many as the configuration says.
    pub fn with_rows(mut self, source: usize, rows: impl Into<Arc<[u64]>>) -> Result<Self> {
        let rows = rows.into();
        let Some(known) = self.config.sources.get(source) else {
            return Err(Error::Rows { name: format!("number {source}"), found: rows.len() as u64, expected: 0 });
        };
        if rows.len() as u64 != known.rows {
            let name = known.name.clone();
            return Err(Error::Rows { name, found: rows.len() as u64, expected: known.rows });
        }
        self.kept[source] = Some(rows);
        Ok(self)
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
    #[inline]
    pub fn at(&self, step: u64) -> Draw {
        let (source, rank) = self.order.at(step);
        self.draw(step, source, rank)
    }

    /// All rows in order.
    pub fn iter(&self) -> Draws<'_> {
        self.iter_from(0)
    }

    /// The rows from `step` on.
    pub fn iter_from(&self, step: u64) -> Draws<'_> {
        Draws { mixture: self, step, cursor: BernoulliCursor::default() }
    }

    /// The rows of rank `rank` of `ranks`.
    pub fn iter_rank(&self, rank: u64, ranks: u64) -> impl Iterator<Item = Draw> + '_ {
        (rank..self.total).step_by(ranks.max(1) as usize).map(|step| self.at(step))
    }

    /// Source of the row at `step`, without its row; for orders that are looked at only.
    #[inline]
    pub fn source_at(&self, step: u64) -> usize {
        self.order.at(step).0
    }

    /// Rows of `source` among the first `steps`.
    pub fn count(&self, source: usize, steps: u64) -> u64 {
        self.order.count(source, steps)
    }

    /// Rows of `source` that its share of the first `steps` comes to.
    pub fn due(&self, source: usize, steps: u64) -> f64 {
        match &self.order {
            SourceOrder::Scheduled(order) => order.due(source, steps),
            _ => self.shares[source] as f64 / self.shares.iter().sum::<u64>() as f64 * steps as f64,
        }
    }

    /// How near to the shares it stays.
    pub fn promise(&self) -> Promise {
        let batches = match &self.order {
            SourceOrder::One | SourceOrder::Two(_) | SourceOrder::Batched(_) => true,
            SourceOrder::Interleaved(_) => self.config.batch.is_some(),
            SourceOrder::Tree(_) | SourceOrder::Bernoulli(_) | SourceOrder::Scheduled(_) => false,
        };
        Promise { prefix: self.order.prefix_bound(), batches }
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
                    last: rows.checked_sub(1).map(|rank| rank % source.rows.max(1)),
                }
            })
            .collect()
    }

    #[inline]
    fn draw(&self, step: u64, source: usize, rank: u64) -> Draw {
        let rows = self.config.sources[source].rows.max(1);
        let (epoch, place) = if rank < rows { (0, rank) } else { (rank / rows, rank % rows) };
        let place = match (self.config.shares, self.config.rows) {
            (Shares::Bernoulli { replace: true }, _) => {
                let bits = mix(self.seeds[source] ^ mix(step));
                ((u128::from(bits) * u128::from(rows)) >> 64) as u64
            }
            (_, RowOrder::File) => place,
            (_, RowOrder::Shuffled) => Permutation::new(rows, self.seeds[source], epoch).at(place),
        };
        let row = self.kept[source].as_ref().map_or(place, |kept| kept[place as usize]);
        Draw { source, row, epoch }
    }

    fn check_supply(&self) -> Result<()> {
        let allowed = match self.config.exhaustion {
            _ if matches!(self.config.shares, Shares::Bernoulli { replace: true }) => return Ok(()),
            Exhaustion::Refuse => 1,
            Exhaustion::Repeat { epochs } => epochs,
            Exhaustion::FirstExhausted | Exhaustion::AllExhausted => return Ok(()),
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

/// The rows of a mixture in order.
#[derive(Debug, Clone)]
pub struct Draws<'a> {
    mixture: &'a Mixture,
    step: u64,
    cursor: BernoulliCursor,
}

impl Iterator for Draws<'_> {
    type Item = Draw;

    fn next(&mut self) -> Option<Draw> {
        if self.step >= self.mixture.total {
            return None;
        }
        let step = self.step;
        self.step += 1;
        let (source, rank) = match &self.mixture.order {
            SourceOrder::Bernoulli(order) => self.cursor.at(order, step),
            order => order.at(step),
        };
        Some(self.mixture.draw(step, source, rank))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.mixture.total - self.step.min(self.mixture.total)) as usize;
        (left, Some(left))
    }
}

fn check_sources(config: &MixtureConfig) -> Result<()> {
    let sources = &config.sources;
    if sources.is_empty() {
        return Err(Error::NoSource);
    }
    if sources.len() > MOST_SOURCES {
        let found = sources.len().to_string();
        return Err(Error::Setting { key: "sources", found, expected: "at most 64" });
    }
    let mut names = HashSet::new();
    for source in sources {
        if !names.insert(&source.name) {
            return Err(Error::Twice { name: source.name.clone() });
        }
        if source.rows == 0 && !source.weight.is_zero() {
            return Err(Error::Empty { name: source.name.clone(), weight: source.weight.to_string() });
        }
        let in_tokens = config.shares == Shares::Tokens || config.total_tokens.is_some();
        if in_tokens && !source.weight.is_zero() && source.tokens.is_none_or(|tokens| tokens == 0) {
            return Err(Error::Tokens { name: source.name.clone() });
        }
        if config.shares == Shares::Quota && source.weight.parts().1 != 1 {
            let found = format!("{} for `{}`", source.weight, source.name);
            return Err(Error::Setting { key: "quota", found, expected: "a whole number of pairs" });
        }
    }
    Ok(())
}

/// Settings that do not go together.
fn check_settings(config: &MixtureConfig) -> Result<()> {
    let refuse = |key, found: &str, expected| Err(Error::Setting { key, found: found.to_owned(), expected });
    if config.batch == Some(0) {
        return refuse("batch", "0", "at least 1");
    }
    if matches!(config.exhaustion, Exhaustion::Repeat { epochs: 0 }) {
        return refuse("epochs", "0", "at least 1");
    }
    if config.total.is_some() && config.total_tokens.is_some() {
        return refuse("total_tokens", "given beside `total`", "one of the two");
    }
    if config.order == BatchOrder::BatchShuffled && config.batch.is_none() {
        return refuse("batch", "absent", "a number of rows, as the order is batch_shuffled");
    }
    if config.order == BatchOrder::BatchShuffled && config.shares != Shares::Exact {
        return refuse("order", "batch_shuffled", "interleaved where shares are not exact");
    }
    if config.schedule.is_some() {
        if config.total.is_none() && config.total_tokens.is_none() {
            return refuse("total", "absent", "a number of rows, over which the schedule runs");
        }
        if config.shares != Shares::Exact || config.order != BatchOrder::Interleaved {
            return refuse("schedule", "given", "none unless shares are exact and the order interleaved");
        }
    }
    Ok(())
}

/// Shares of rows in whole numbers.
fn row_shares(config: &MixtureConfig) -> Result<Vec<u64>> {
    const PARTS: f64 = (1u64 << 30) as f64;
    let weights: Vec<Weight> = config.sources.iter().map(|s| s.weight).collect();
    match config.shares {
        Shares::Exact | Shares::Bernoulli { .. } => integers(&weights),
        Shares::Quota => match weights.iter().map(|w| w.parts().0).try_fold(0u64, u64::checked_add) {
            Some(1..=0x3fff_ffff_ffff_ffff) => Ok(weights.iter().map(|w| w.parts().0).collect()),
            Some(0) => Err(Error::ZeroSum),
            _ => Err(Error::Setting { key: "quota", found: "2^62 pairs or more".to_owned(), expected: "fewer" }),
        },
        Shares::Tokens => {
            // As many tokens as asked for take `weight / mean length` rows.
            let rows: Vec<f64> = config.sources.iter().map(rows_per_token).collect();
            let sum: f64 = rows.iter().sum();
            if sum <= 0.0 {
                return Err(Error::ZeroSum);
            }
            Ok(rows.iter().map(|r| (r / sum * PARTS).round() as u64).collect())
        }
    }
}

/// Rows that a source's weight in tokens comes to.
fn rows_per_token(source: &SourceConfig) -> f64 {
    let (above, below) = source.weight.parts();
    match source.tokens {
        Some(tokens) if above > 0 => above as f64 / below as f64 * source.rows as f64 / tokens as f64,
        _ => 0.0,
    }
}

/// Rows asked for: as given, as the quotas sum to, or as many as the tokens will buy.
fn asked(config: &MixtureConfig, shares: &[u64]) -> Result<Option<u64>> {
    let sum: u64 = shares.iter().sum();
    if config.shares == Shares::Quota {
        return match config.total {
            Some(total) if total != sum => {
                let found = format!("{total}, where quotas sum to {sum}");
                Err(Error::Setting { key: "total", found, expected: "none, or that sum" })
            }
            _ => Ok(Some(sum)),
        };
    }
    let Some(budget) = config.total_tokens else { return Ok(config.total) };
    let mean: f64 = config
        .sources
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0)
        .map(|(s, &share)| share as f64 / sum as f64 * s.tokens.unwrap_or(0) as f64 / s.rows.max(1) as f64)
        .sum();
    Ok(Some((budget as f64 / mean) as u64))
}

fn order(config: &MixtureConfig, shares: &[u64], asked: Option<u64>) -> Result<SourceOrder> {
    if let Some(schedule) = &config.schedule {
        let total = asked.unwrap_or(0);
        let pieces = schedule.pieces(shares.len(), total)?;
        return Ok(match shares.len() {
            1 => SourceOrder::One,
            k => SourceOrder::Scheduled(Scheduled::new(pieces, k, total)),
        });
    }
    let two = |shares: &[u64]| SourceOrder::Two(Two::new(shares[0], shares[1]));
    let sum: u64 = shares.iter().sum();
    Ok(match (shares.len(), config.shares, config.order) {
        (1, ..) => SourceOrder::One,
        (_, Shares::Bernoulli { .. }, _) => SourceOrder::Bernoulli(Bernoulli::new(shares, config.seed)),
        (_, _, BatchOrder::BatchShuffled) => {
            let size = config.batch.unwrap_or(1);
            SourceOrder::Batched(Batched::new(shares, size, config.seed).map_err(|e| advised(e, config))?)
        }
        (2, ..) => two(shares),
        (_, Shares::Exact, _) => match Interleaved::new(shares, config.batch).map_err(|e| advised(e, config))? {
            Some(order) => SourceOrder::Interleaved(order),
            None => {
                let found = config.batch.unwrap_or(0).to_string();
                let expected = "another size, or the order batch_shuffled: no order was found that keeps these shares";
                return Err(Error::Setting { key: "batch", found, expected });
            }
        },
        (_, Shares::Quota, _) if sum <= PERIOD_LIMIT => {
            Interleaved::new(shares, None)?.map_or(SourceOrder::Tree(Tree::new(shares)), SourceOrder::Interleaved)
        }
        _ => SourceOrder::Tree(Tree::new(shares)),
    })
}

/// Adds to a period's error what weights would do.
fn advised(error: Error, config: &MixtureConfig) -> Error {
    match error {
        Error::Period { found, limit, .. } => {
            let weights: Vec<Weight> = config.sources.iter().map(|s| s.weight).collect();
            Error::Period { found, limit, nearest: nearest(&weights) }
        }
        other => other,
    }
}

/// Rows of the mixture: as asked for, but no further than the rule of exhaustion says.
fn total(config: &MixtureConfig, order: &SourceOrder, asked: Option<u64>) -> Result<u64> {
    let limit = match (config.exhaustion, asked) {
        (Exhaustion::FirstExhausted, _) | (Exhaustion::Refuse, None) => supply(config, order, 1),
        (Exhaustion::Repeat { epochs }, None) => supply(config, order, epochs),
        (Exhaustion::AllExhausted, None) => all_seen(config, order)?,
        _ => u64::MAX,
    };
    match asked.unwrap_or(limit).min(limit) {
        0 => Err(Error::EmptyTotal),
        total => Ok(total),
    }
}

/// Most rows for which no source gives more than `epochs` passes: the last step at which all counts still hold.
fn supply(config: &MixtureConfig, order: &SourceOrder, epochs: u64) -> u64 {
    let most: u64 = config.sources.iter().fold(0u64, |sum, s| sum.saturating_add(s.rows.saturating_mul(epochs)));
    last_step(most.min(1 << 40), |steps| {
        let within = |(i, s): (usize, &SourceConfig)| order.count(i, steps) <= s.rows.saturating_mul(epochs);
        config.sources.iter().enumerate().all(within)
    })
}

/// Fewest rows with which every source has been gone through.
fn all_seen(config: &MixtureConfig, order: &SourceOrder) -> Result<u64> {
    let most = 1 << 40;
    let missing = |steps: u64| {
        let unseen = |(i, s): (usize, &SourceConfig)| !s.weight.is_zero() && order.count(i, steps) < s.rows;
        config.sources.iter().enumerate().any(unseen)
    };
    if missing(most) {
        let expected = "weights with which all sources end within 2^40 rows";
        return Err(Error::Setting { key: "exhaustion", found: "all_exhausted".to_owned(), expected });
    }
    Ok(last_step(most, missing) + 1)
}

/// The last step up to `most` at which `holds`; once it does not, it never does again.
fn last_step(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
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
        let source =
            |(name, rows, weight): &(&str, u64, &str)| SourceConfig::new(*name, *rows, weight.parse().unwrap());
        MixtureConfig { total, ..MixtureConfig::new(sources.iter().map(source).collect(), 3) }
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
    fn settings_that_do_not_go_together_are_named() {
        let base = config(&[("a", 40, "1"), ("b", 40, "1"), ("c", 40, "1")], Some(30));
        let text = |config: MixtureConfig| error(config);
        let shuffled = MixtureConfig { order: BatchOrder::BatchShuffled, ..base.clone() };
        assert_eq!(text(shuffled), "`batch` is absent, expected a number of rows, as the order is batch_shuffled");
        let both = MixtureConfig { total_tokens: Some(5), ..base.clone() };
        assert_eq!(text(both), "`total_tokens` is given beside `total`, expected one of the two");
        let tokens = MixtureConfig { shares: Shares::Tokens, ..base.clone() };
        assert_eq!(text(tokens), "source `a` has no token count, which shares and budgets in tokens need");
        let quota = MixtureConfig { shares: Shares::Quota, ..config(&[("a", 9, "0.5"), ("b", 9, "1")], None) };
        assert_eq!(text(quota), "`quota` is 1/2 for `a`, expected a whole number of pairs");
        let quota = MixtureConfig { shares: Shares::Quota, ..config(&[("a", 9, "12"), ("b", 9, "1")], None) };
        assert!(text(quota).starts_with("source `a` has 9 rows, but 12 are asked of it"));
        let long = config(&[("a", 9, "0.1234567891"), ("b", 9, "0.5"), ("c", 9, "0.3765432109")], None);
        assert!(text(long).ends_with("such as 0.123457, 0.5, 0.376543"));
        let schedule = Some(Schedule::hand_over("0".parse().unwrap(), "1".parse().unwrap()));
        let timeless = MixtureConfig { schedule, ..config(&[("a", 9, "1"), ("b", 9, "1")], None) };
        assert_eq!(text(timeless), "`total` is absent, expected a number of rows, over which the schedule runs");
    }

    #[test]
    fn quotas_are_kept_to_the_row() {
        let quota = |shares| MixtureConfig { shares: Shares::Quota, ..config(shares, None) };
        for sources in [
            &[("a", 100, "70"), ("b", 100, "20"), ("c", 100, "9")][..],
            &[("a", 9_000_000, "8000001"), ("b", 100, "20"), ("c", 100, "9")],
        ] {
            let mixture = Mixture::new(quota(sources)).unwrap();
            for (planned, (_, _, asked)) in mixture.plan().iter().zip(sources) {
                assert_eq!(planned.rows.to_string(), *asked);
            }
        }
    }

    #[test]
    fn token_shares_take_more_rows_of_the_shorter_source() {
        let mut config = config(&[("long", 1000, "1"), ("short", 1000, "1")], None);
        (config.sources[0].tokens, config.sources[1].tokens) = (Some(300_000), Some(100_000));
        config.shares = Shares::Tokens;
        config.total_tokens = Some(120_000);
        let plan = Mixture::new(config).unwrap().plan();
        // 200 rows of 300 tokens and 600 of 100.
        assert_eq!((plan[0].rows, plan[1].rows), (200, 600));
    }

    #[test]
    fn rules_of_exhaustion_give_their_totals() {
        let of = |exhaustion| {
            let config = MixtureConfig { exhaustion, ..config(&[("a", 10, "1"), ("b", 90, "1")], None) };
            Mixture::new(config).unwrap().len()
        };
        assert_eq!(of(Exhaustion::Refuse), 20);
        assert_eq!(of(Exhaustion::FirstExhausted), 20);
        assert_eq!(of(Exhaustion::AllExhausted), 180);
        assert_eq!(of(Exhaustion::Repeat { epochs: 2 }), 40);
    }

    #[test]
    fn an_order_of_rows_can_be_given() {
        let config = MixtureConfig { rows: RowOrder::File, ..config(&[("a", 3, "1")], None) };
        let mixture = Mixture::new(config).unwrap().with_rows(0, vec![7, 5, 6]).unwrap();
        assert_eq!(mixture.iter().map(|draw| draw.row).collect::<Vec<_>>(), [7, 5, 6]);
        let error = mixture.with_rows(0, vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "1 rows are given for source `a`, expected 3");
    }

    #[test]
    fn independent_draws_go_through_each_source_once() {
        let config = MixtureConfig {
            shares: Shares::Bernoulli { replace: false },
            ..config(&[("a", 2000, "1"), ("b", 2000, "1")], Some(2000))
        };
        let mixture = Mixture::new(config.clone()).unwrap();
        let draws: Vec<Draw> = mixture.iter().collect();
        assert_eq!(draws.iter().collect::<HashSet<_>>().len(), 2000);
        assert!((0..2000).step_by(97).all(|step| mixture.at(step) == draws[step as usize]));
        let replaced = Mixture::new(MixtureConfig { shares: Shares::Bernoulli { replace: true }, ..config }).unwrap();
        assert!(replaced.iter().collect::<HashSet<_>>().len() < 2000);
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
            let sources = rows.iter().zip(&weights).enumerate().map(|(i, (&rows, &weight))| SourceConfig::new(i.to_string(), rows, Weight::whole(weight))).collect();
            let mixture = Mixture::new(MixtureConfig {
                total: Some(90), exhaustion: Exhaustion::Repeat { epochs: 90 }, ..MixtureConfig::new(sources, seed)
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
