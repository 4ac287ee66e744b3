//! Order and length of a mixture, worked out from its settings before a row is read.

use serde::{Deserialize, Serialize};

use crate::config::{BatchOrder, Exhaustion, MixtureConfig, Shares, SourceConfig};
use crate::error::{Error, Result};
use crate::order::{
    Batched, Bernoulli, Interleaved, PERIOD_LIMIT, Scheduled, SourceOrder, Tree, Two, integers, nearest,
};

/// Longest mixture that is searched for the end of a source.
const SEARCHED: u64 = 1 << 40;

/// Number of rows that one source gives over the whole mixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Name of the source.
    pub name: String,
    /// Rows that the source has.
    pub available: u64,
    /// Rows that the source gives, repeats included.
    pub rows: u64,
    /// Rows that come more than once.
    pub repeats: u64,
    /// Passes over the source that are begun.
    pub epochs: u64,
    /// Index, in the order of its last pass, of the last row that the source gives; `None` if it gives none.
    pub last: Option<u64>,
}

/// Bounds on how far a mixture strays from its shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Most pairs by which any prefix strays from a share; `None` if sources are drawn at random.
    pub prefix: Option<f64>,
    /// Whether every batch, and every prefix that ends with a batch, holds each share rounded up or down.
    pub batches: bool,
}

/// Order of the sources, and where the mixture ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) order: SourceOrder,
    /// Number of positions.
    pub(crate) len: u64,
    /// Shares of pairs, in whole numbers.
    shares: Vec<u64>,
}

impl Plan {
    /// Works out the plan of checked settings.
    pub(crate) fn new(config: &MixtureConfig) -> Result<Self> {
        let shares = pair_shares(config)?;
        let size = size(config, &shares)?;
        let order = order(config, &shares, size)?;
        let len = len(config, &order, size)?;
        let plan = Self { order, len, shares };
        plan.check_supply(config)?;
        Ok(plan)
    }

    /// Pairs of `source` that its share of the first `end` positions comes to.
    pub(crate) fn due(&self, source: usize, end: u64) -> f64 {
        match &self.order {
            SourceOrder::Scheduled(order) => order.due(source, end),
            _ => self.shares[source] as f64 / self.shares.iter().sum::<u64>() as f64 * end as f64,
        }
    }

    pub(crate) fn promise(&self, config: &MixtureConfig) -> Promise {
        let batches = match &self.order {
            SourceOrder::One | SourceOrder::Two(_) | SourceOrder::Batched(_) => true,
            SourceOrder::Interleaved(_) => config.batch.is_some(),
            SourceOrder::Tree(_) | SourceOrder::Bernoulli(_) | SourceOrder::Scheduled(_) => false,
        };
        Promise { prefix: self.order.prefix_bound(), batches }
    }

    pub(crate) fn sources(&self, config: &MixtureConfig) -> Vec<Planned> {
        config.sources.iter().enumerate().map(|(i, source)| planned(source, self.order.count(i, self.len))).collect()
    }

    /// Refuses a mixture that needs more passes over a source than its rule of exhaustion allows.
    fn check_supply(&self, config: &MixtureConfig) -> Result<()> {
        let allowed = match config.exhaustion {
            _ if matches!(config.shares, Shares::Bernoulli { replace: true }) => return Ok(()),
            Exhaustion::Refuse => 1,
            Exhaustion::Repeat { epochs } => epochs,
            Exhaustion::FirstExhausted | Exhaustion::AllExhausted => return Ok(()),
        };
        match self.sources(config).into_iter().find(|planned| planned.epochs > allowed) {
            None => Ok(()),
            Some(Planned { name, available, rows, epochs, .. }) => {
                Err(Error::Exhausted { name, rows: available, needed: rows, epochs })
            }
        }
    }
}

fn planned(source: &SourceConfig, rows: u64) -> Planned {
    let available = source.rows.max(1);
    Planned {
        name: source.name.clone(),
        available: source.rows,
        rows,
        repeats: rows.saturating_sub(source.rows),
        epochs: rows.div_ceil(available),
        last: rows.checked_sub(1).map(|last| last % available),
    }
}

/// Shares of pairs in whole numbers.
fn pair_shares(config: &MixtureConfig) -> Result<Vec<u64>> {
    match config.shares {
        Shares::Exact | Shares::Bernoulli { .. } => integers(&config.weights()),
        Shares::Quota => quotas(config),
        Shares::Tokens => pairs_for_tokens(config),
    }
}

fn quotas(config: &MixtureConfig) -> Result<Vec<u64>> {
    let quotas: Vec<u64> = config.weights().iter().map(|weight| weight.parts().0).collect();
    match quotas.iter().copied().try_fold(0u64, u64::checked_add) {
        Some(0) => Err(Error::ZeroSum),
        Some(1..=0x3fff_ffff_ffff_ffff) => Ok(quotas),
        _ => Err(Error::setting("weight", "2^62 pairs or more in all", "fewer")),
    }
}

/// Shares of pairs that make up the shares of tokens: `weight / mean length`.
fn pairs_for_tokens(config: &MixtureConfig) -> Result<Vec<u64>> {
    const PARTS: f64 = (1u64 << 30) as f64;
    let pairs: Vec<f64> = config.sources.iter().map(pairs_per_token).collect();
    let sum: f64 = pairs.iter().sum();
    if sum <= 0.0 {
        return Err(Error::ZeroSum);
    }
    Ok(pairs.iter().map(|pairs| (pairs / sum * PARTS).round() as u64).collect())
}

fn pairs_per_token(source: &SourceConfig) -> f64 {
    let (above, below) = source.weight.parts();
    match source.tokens {
        Some(tokens) if above > 0 => above as f64 / below as f64 * source.rows as f64 / tokens as f64,
        _ => 0.0,
    }
}

/// Number of pairs that is asked for: as given, as the quotas sum to, or as many as fit the tokens.
fn size(config: &MixtureConfig, shares: &[u64]) -> Result<Option<u64>> {
    let sum: u64 = shares.iter().sum();
    if config.shares == Shares::Quota {
        return match config.size {
            Some(size) if size != sum => {
                Err(Error::setting("size", format!("{size}, where quotas sum to {sum}"), "none, or that sum"))
            }
            _ => Ok(Some(sum)),
        };
    }
    let Some(budget) = config.size_tokens else { return Ok(config.size) };
    let mean: f64 = config
        .sources
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0)
        .map(|(source, &share)| share as f64 / sum as f64 * mean_tokens(source))
        .sum();
    match (budget as f64 / mean) as u64 {
        0 => Err(Error::setting("size_tokens", budget.to_string(), "at least the mean length of a pair")),
        size => Ok(Some(size)),
    }
}

fn mean_tokens(source: &SourceConfig) -> f64 {
    // A source that gives rows has a token count: `MixtureConfig::check`.
    source.tokens.unwrap_or(0) as f64 / source.rows.max(1) as f64
}

/// The rule that fits the settings.
fn order(config: &MixtureConfig, shares: &[u64], size: Option<u64>) -> Result<SourceOrder> {
    if let Some(schedule) = &config.schedule {
        let size = size.unwrap_or(0);
        let pieces = schedule.pieces(shares.len(), size)?;
        return Ok(match shares.len() {
            1 => SourceOrder::One,
            sources => SourceOrder::Scheduled(Scheduled::new(pieces, sources, size)),
        });
    }
    match (shares, config.shares, config.order, config.batch) {
        ([_], ..) => Ok(SourceOrder::One),
        (_, Shares::Bernoulli { .. }, ..) => Ok(SourceOrder::Bernoulli(Bernoulli::new(shares, config.seed))),
        (_, _, BatchOrder::BatchShuffled, batch) => {
            let batched = Batched::new(shares, batch.unwrap_or(1), config.seed);
            Ok(SourceOrder::Batched(batched.map_err(|error| advised(error, config))?))
        }
        ([first, second], ..) => Ok(SourceOrder::Two(Two::new(*first, *second))),
        (_, Shares::Exact, ..) => interleaved(config, shares),
        (_, Shares::Quota, ..) if shares.iter().sum::<u64>() <= PERIOD_LIMIT => {
            let found = Interleaved::new(shares, None)?;
            Ok(found.map_or_else(|| SourceOrder::Tree(Tree::new(shares)), SourceOrder::Interleaved))
        }
        _ => Ok(SourceOrder::Tree(Tree::new(shares))),
    }
}

fn interleaved(config: &MixtureConfig, shares: &[u64]) -> Result<SourceOrder> {
    let found = Interleaved::new(shares, config.batch).map_err(|error| advised(error, config))?;
    found.map(SourceOrder::Interleaved).ok_or_else(|| {
        let batch = config.batch.unwrap_or(0).to_string();
        let expected = "another batch size or the order batch-shuffled, since no interleaved order was found";
        Error::setting("batch", batch, expected)
    })
}

/// Adds weights that would do to the error about a period.
fn advised(error: Error, config: &MixtureConfig) -> Error {
    match error {
        Error::Period { found, limit, .. } => Error::Period { found, limit, nearest: nearest(&config.weights()) },
        other => other,
    }
}

/// Number of positions: as asked for, but no further than the rule of exhaustion allows.
fn len(config: &MixtureConfig, order: &SourceOrder, size: Option<u64>) -> Result<u64> {
    let limit = match (config.exhaustion, size) {
        (Exhaustion::FirstExhausted, _) | (Exhaustion::Refuse, None) => supply(config, order, 1),
        (Exhaustion::Repeat { epochs }, None) => supply(config, order, epochs),
        (Exhaustion::AllExhausted, None) => all_seen(config, order)?,
        _ => u64::MAX,
    };
    Ok(size.unwrap_or(limit).min(limit))
}

/// Longest mixture for which no source gives more than `epochs` passes.
fn supply(config: &MixtureConfig, order: &SourceOrder, epochs: u64) -> u64 {
    let most = |source: &SourceConfig| source.rows.saturating_mul(epochs);
    let all = config.sources.iter().map(most).fold(0u64, u64::saturating_add);
    last_end(all.min(SEARCHED), |end| {
        config.sources.iter().enumerate().all(|(i, source)| order.count(i, end) <= most(source))
    })
}

/// Shortest mixture that holds every row of every source.
fn all_seen(config: &MixtureConfig, order: &SourceOrder) -> Result<u64> {
    let missing = |end: u64| {
        let unseen = |(i, s): (usize, &SourceConfig)| !s.weight.is_zero() && order.count(i, end) < s.rows;
        config.sources.iter().enumerate().any(unseen)
    };
    if missing(SEARCHED) {
        let expected = "weights with which every source ends within 2^40 pairs";
        return Err(Error::setting("exhaustion", "all-exhausted", expected));
    }
    Ok(last_end(SEARCHED, missing) + 1)
}

/// The last end up to `most` at which `holds` is true; once false, it stays false.
fn last_end(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
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
    use crate::mixture::Mixture;
    use crate::mixture::testing::{config, refusal};

    #[test]
    fn without_a_size_it_lasts_as_long_as_the_scarcest_source() {
        let mixture = Mixture::new(config(&[("a", 4, "1"), ("b", 900, "3")], None)).unwrap();
        assert_eq!(mixture.plan().iter().map(|p| p.rows).collect::<Vec<_>>(), [4, 13]);
        assert_eq!(mixture.plan()[0].repeats, 0);
    }

    #[test]
    fn a_source_that_is_too_small_is_named() {
        assert_eq!(
            refusal(config(&[("a", 4, "1"), ("b", 9, "1")], Some(10))),
            "source `a` has 4 rows, but the mixture needs 5; make it smaller, or allow 2 epochs"
        );
        let quota = MixtureConfig { shares: Shares::Quota, ..config(&[("a", 9, "12"), ("b", 9, "1")], None) };
        assert!(refusal(quota).starts_with("source `a` has 9 rows, but the mixture needs 12"));
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
    fn weights_that_repeat_too_late_are_rounded_in_the_message() {
        let long = config(&[("a", 9, "0.1234567891"), ("b", 9, "0.5"), ("c", 9, "0.3765432109")], None);
        assert!(refusal(long).ends_with("such as 0.123457, 0.5, 0.376543"));
    }

    #[test]
    fn quotas_are_kept_to_the_pair() {
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
    fn token_shares_take_more_pairs_of_the_shorter_source() {
        let mut config = config(&[("long", 1000, "1"), ("short", 1000, "1")], None);
        (config.sources[0].tokens, config.sources[1].tokens) = (Some(300_000), Some(100_000));
        config.shares = Shares::Tokens;
        config.size_tokens = Some(120_000);
        let plan = Mixture::new(config.clone()).unwrap().plan();
        // 200 pairs of 300 tokens and 600 of 100.
        assert_eq!((plan[0].rows, plan[1].rows), (200, 600));
        config.size_tokens = Some(100);
        assert_eq!(refusal(config), "`size_tokens` is 100, expected at least the mean length of a pair");
    }

    #[test]
    fn rules_of_exhaustion_give_their_lengths() {
        let len = |exhaustion| {
            let config = MixtureConfig { exhaustion, ..config(&[("a", 10, "1"), ("b", 90, "1")], None) };
            Mixture::new(config).unwrap().len()
        };
        assert_eq!(len(Exhaustion::Refuse), 20);
        assert_eq!(len(Exhaustion::FirstExhausted), 20);
        assert_eq!(len(Exhaustion::AllExhausted), 180);
        assert_eq!(len(Exhaustion::Repeat { epochs: 2 }), 40);
    }
}
