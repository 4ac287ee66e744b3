//! The mixture: which row of which source stands at each position.

use std::sync::Arc;

use crate::config::{MixtureConfig, RowOrder, Shares};
use crate::error::{Error, Result};
use crate::order::{BernoulliCursor, SourceOrder};
use crate::permutation::{Permutation, mix};
use crate::plan::{Plan, Planned, Promise};

/// A row of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Index of the source.
    pub source: usize,
    /// Row of the source.
    pub row: u64,
    /// Pass over the source, from zero.
    pub epoch: u64,
}

/// A mixture whose settings are checked.
///
/// The row at a position is a pure function of settings and position. So resuming needs one integer, rank `r` of `w`
/// takes positions `r, r + w, ...`, and the number of threads changes nothing.
///
/// # Examples
/// ```
/// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
///
/// let source = |name: &str, rows| SourceConfig::new(name, rows, "0.5".parse().unwrap());
/// let mixture = Mixture::new(MixtureConfig {
///     size: Some(100),
///     ..MixtureConfig::new(vec![source("off", 300), source("on", 80)], 7)
/// })?;
/// assert_eq!(mixture.plan()[0].rows, 50);
/// let batch: Vec<usize> = (40..44).map(|position| mixture.at(position).source).collect();
/// assert_eq!(batch, [0, 1, 0, 1]);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    config: MixtureConfig,
    plan: Plan,
    /// Rows of a source in the order they are taken, unless these are simply all of its rows.
    kept: Vec<Option<Arc<[u64]>>>,
    /// Keys of the sources' permutations.
    seeds: Vec<u64>,
}

impl Mixture {
    /// Checks the settings and plans the mixture.
    ///
    /// # Errors
    /// [`Error`] that names the source or the setting at fault.
    ///
    /// # Examples
    /// ```
    /// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
    ///
    /// let source = |name: &str, rows| SourceConfig::new(name, rows, "1".parse().unwrap());
    /// let sources = vec![source("off", 300), source("on", 80)];
    /// let error = Mixture::new(MixtureConfig { size: Some(200), ..MixtureConfig::new(sources, 7) }).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "source `on` has 80 rows, but the mixture needs 100; make it smaller, or allow 2 epochs"
    /// );
    /// ```
    pub fn new(config: MixtureConfig) -> Result<Self> {
        config.check()?;
        let plan = Plan::new(&config)?;
        // One stream of permutations a source, so that sources of equal size are not shuffled alike.
        let seeds = (0..config.sources.len()).map(|source| mix(config.seed ^ mix(source as u64))).collect();
        let kept = vec![None; config.sources.len()];
        Ok(Self { config, plan, kept, seeds })
    }

    /// Sets the rows of `source`: those that a filter has left, or all of them in another order, which
    /// [`RowOrder::File`] then follows.
    ///
    /// # Errors
    /// [`Error::Rows`] unless their number is that of the settings; [`Error::Setting`] if there is no such source.
    ///
    /// # Examples
    /// ```
    /// use simplemix_mix::{Mixture, MixtureConfig, RowOrder, SourceConfig};
    ///
    /// let source = SourceConfig::new("on", 3, "1".parse()?);
    /// let config = MixtureConfig { rows: RowOrder::File, ..MixtureConfig::new(vec![source], 7) };
    /// // A curriculum: the rows from easy to hard.
    /// let mixture = Mixture::new(config)?.with_rows(0, vec![7, 5, 6])?;
    /// assert_eq!(mixture.iter().map(|draw| draw.row).collect::<Vec<_>>(), [7, 5, 6]);
    /// # Ok::<(), simplemix_mix::Error>(())
    /// ```
    pub fn with_rows(mut self, source: usize, rows: impl Into<Arc<[u64]>>) -> Result<Self> {
        let rows = rows.into();
        let Some(known) = self.config.sources.get(source) else {
            return Err(Error::setting("source", source.to_string(), "the index of a source"));
        };
        if rows.len() as u64 != known.rows {
            let name = known.name.clone();
            return Err(Error::Rows { name, found: rows.len() as u64, expected: known.rows });
        }
        self.kept[source] = Some(rows);
        Ok(self)
    }

    /// The settings.
    pub fn config(&self) -> &MixtureConfig {
        &self.config
    }

    /// Number of positions.
    pub fn len(&self) -> u64 {
        self.plan.len
    }

    /// Whether there is no position; never true, since such a mixture is refused.
    pub fn is_empty(&self) -> bool {
        self.plan.len == 0
    }

    /// The row at `position`. Positions past [`Mixture::len`] continue in the same shares.
    #[inline]
    pub fn at(&self, position: u64) -> Draw {
        let (source, nth) = self.plan.order.at(position);
        self.draw(position, source, nth)
    }

    /// All rows in order.
    ///
    /// # Examples
    /// ```
    /// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
    ///
    /// let source = |name: &str| SourceConfig::new(name, 4, "1".parse().unwrap());
    /// let mixture = Mixture::new(MixtureConfig::new(vec![source("off"), source("on")], 7))?;
    /// let mut from_on: Vec<u64> = mixture.iter().filter(|draw| draw.source == 1).map(|draw| draw.row).collect();
    /// from_on.sort();
    /// assert_eq!(from_on, [0, 1, 2, 3]);
    /// # Ok::<(), simplemix_mix::Error>(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Draw> + Clone + '_ {
        self.iter_from(0)
    }

    /// The rows from `position` on.
    pub fn iter_from(&self, position: u64) -> impl ExactSizeIterator<Item = Draw> + Clone + '_ {
        Draws { mixture: self, position, cursor: BernoulliCursor::default() }
    }

    /// Source of the row at `position`, without its row.
    #[inline]
    pub fn source_at(&self, position: u64) -> usize {
        self.plan.order.at(position).0
    }

    /// Rows of `source` among the first `end` positions.
    pub fn count(&self, source: usize, end: u64) -> u64 {
        self.plan.order.count(source, end)
    }

    /// Rows of `source` that its share of the first `end` positions comes to.
    pub fn due(&self, source: usize, end: u64) -> f64 {
        self.plan.due(source, end)
    }

    /// Bounds on how far the mixture strays from its shares.
    ///
    /// # Examples
    /// ```
    /// use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
    ///
    /// let source = |name: &str, weight: &str| SourceConfig::new(name, 100, weight.parse().unwrap());
    /// let mixture = Mixture::new(MixtureConfig::new(vec![source("off", "0.3"), source("on", "0.7")], 7))?;
    /// assert_eq!(mixture.promise().prefix, Some(0.5));
    /// # Ok::<(), simplemix_mix::Error>(())
    /// ```
    pub fn promise(&self) -> Promise {
        self.plan.promise(&self.config)
    }

    /// Number of rows that each source gives.
    pub fn plan(&self) -> Vec<Planned> {
        self.plan.sources(&self.config)
    }

    /// The row that `source` gives at `position`, after `nth` rows before it.
    #[inline]
    fn draw(&self, position: u64, source: usize, nth: u64) -> Draw {
        let rows = self.config.sources[source].rows.max(1);
        let (epoch, index) = if nth < rows { (0, nth) } else { (nth / rows, nth % rows) };
        let index = match (self.config.shares, self.config.rows) {
            (Shares::Bernoulli { replace: true }, _) => {
                let bits = mix(self.seeds[source] ^ mix(position));
                ((u128::from(bits) * u128::from(rows)) >> 64) as u64
            }
            (_, RowOrder::File) => index,
            (_, RowOrder::Shuffled) => Permutation::new(rows, self.seeds[source], epoch).at(index),
        };
        let row = self.kept[source].as_ref().map_or(index, |kept| kept[index as usize]);
        Draw { source, row, epoch }
    }
}

/// Rows of a mixture in order.
#[derive(Clone)]
struct Draws<'a> {
    mixture: &'a Mixture,
    position: u64,
    cursor: BernoulliCursor,
}

impl Iterator for Draws<'_> {
    type Item = Draw;

    fn next(&mut self) -> Option<Draw> {
        let position = self.position;
        if position >= self.mixture.len() {
            return None;
        }
        self.position += 1;
        let (source, nth) = match &self.mixture.plan.order {
            SourceOrder::Bernoulli(order) => self.cursor.at(order, position),
            order => order.at(position),
        };
        Some(self.mixture.draw(position, source, nth))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.mixture.len().saturating_sub(self.position) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Draws<'_> {}

#[cfg(test)]
pub(crate) mod testing {
    use super::Mixture;
    use crate::config::{MixtureConfig, SourceConfig};

    /// Sources by name, rows and weight.
    pub(crate) fn config(sources: &[(&str, u64, &str)], size: Option<u64>) -> MixtureConfig {
        let source =
            |(name, rows, weight): &(&str, u64, &str)| SourceConfig::new(*name, *rows, weight.parse().unwrap());
        MixtureConfig { size, ..MixtureConfig::new(sources.iter().map(source).collect(), 3) }
    }

    /// The text with which a configuration is refused.
    pub(crate) fn refusal(config: MixtureConfig) -> String {
        Mixture::new(config).unwrap_err().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::testing::config;
    use super::*;
    use crate::{Exhaustion, SourceConfig, Weight};

    #[test]
    fn an_order_of_rows_can_be_given() {
        let config = MixtureConfig { rows: RowOrder::File, ..config(&[("a", 3, "1")], None) };
        let mixture = Mixture::new(config).unwrap().with_rows(0, vec![7, 5, 6]).unwrap();
        assert_eq!(mixture.iter().map(|draw| draw.row).collect::<Vec<_>>(), [7, 5, 6]);
        let error = mixture.clone().with_rows(0, vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "1 rows are given for source `a`, expected 3");
        let error = mixture.with_rows(1, vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "`source` is 1, expected the index of a source");
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
        assert!((0..2000).step_by(97).all(|position| mixture.at(position) == draws[position as usize]));
        let replaced = Mixture::new(MixtureConfig { shares: Shares::Bernoulli { replace: true }, ..config }).unwrap();
        assert!(replaced.iter().collect::<HashSet<_>>().len() < 2000);
    }

    #[test]
    fn a_source_of_weight_zero_gives_nothing() {
        let mixture = Mixture::new(config(&[("a", 8, "0"), ("b", 8, "1")], Some(8))).unwrap();
        assert!(mixture.iter().all(|draw| draw.source == 1));
    }

    #[test]
    fn an_iterator_knows_what_is_left() {
        let mixture = Mixture::new(config(&[("a", 8, "1"), ("b", 8, "1")], Some(8))).unwrap();
        assert_eq!((mixture.iter_from(3).len(), mixture.iter_from(9).len()), (5, 0));
        assert!(mixture.iter_from(3).eq((3..8).map(|position| mixture.at(position))));
    }

    proptest! {
        /// No row comes twice in an epoch, counts are as planned, and ranks together are the whole.
        #[test]
        fn draws_keep_their_promises(rows in prop::collection::vec(1u64..40, 1..5), weights in prop::collection::vec(1u64..9, 5), ranks in 1u64..5, seed: u64) {
            let sources = rows.iter().zip(&weights).enumerate().map(|(i, (&rows, &weight))| SourceConfig::new(i.to_string(), rows, Weight::whole(weight))).collect();
            let mixture = Mixture::new(MixtureConfig {
                size: Some(90), exhaustion: Exhaustion::Repeat { epochs: 90 }, ..MixtureConfig::new(sources, seed)
            }).unwrap();
            let whole: Vec<Draw> = mixture.iter().collect();
            prop_assert_eq!(whole.iter().collect::<HashSet<_>>().len(), whole.len());
            for (i, planned) in mixture.plan().iter().enumerate() {
                prop_assert_eq!(whole.iter().filter(|d| d.source == i).count() as u64, planned.rows);
                prop_assert!(whole.iter().filter(|d| d.source == i).all(|d| d.row < planned.available));
            }
            let mut dealt = vec![None; whole.len()];
            for rank in 0..ranks {
                for position in (rank..90).step_by(ranks as usize) {
                    dealt[position as usize] = Some(mixture.at(position));
                }
            }
            prop_assert_eq!(dealt.into_iter().flatten().collect::<Vec<_>>(), whole);
        }
    }
}
