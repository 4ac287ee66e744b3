//! Shares that follow the training: more of a source whose pairs are not learnt yet.
//!
//! What comes next depends on what was fed back, so this is no function of the step. Its state is small and is saved
//! with a checkpoint; with the same feedback it gives the same rows.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Constants of an adaptive sampler.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveConfig {
    /// Part of the mixture that is shared out evenly whatever is fed back, in (0, 1]: no source falls below its part.
    pub floor: f64,
    /// How strongly shares answer: they go with `exp(rate * need)`; 0 or above.
    pub rate: f64,
    /// Part of the last mean that a new value leaves, in [0, 1).
    pub memory: f64,
}

/// A sampler with feedback, and its whole state.
///
/// ```
/// use simplemix_mix::{Adaptive, AdaptiveConfig};
/// let mut sampler = Adaptive::new(2, AdaptiveConfig { floor: 0.2, rate: 4.0, memory: 0.9 })?;
/// assert_eq!((0..4).map(|_| sampler.draw().0).collect::<Vec<_>>(), [0, 1, 0, 1]);
/// // Source 1 is hardly ever got right: it is due more often.
/// (0..50).for_each(|_| { sampler.feed(0, 0.1); sampler.feed(1, 0.6); });
/// assert!(sampler.shares()[1] > 0.75);
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    config: AdaptiveConfig,
    needs: Vec<f64>,
    owed: Vec<f64>,
    given: Vec<u64>,
}

impl Adaptive {
    /// Even shares of `sources` to begin with.
    ///
    /// # Errors
    /// [`Error::NoSource`], or [`Error::Setting`] naming the constant.
    pub fn new(sources: usize, config: AdaptiveConfig) -> Result<Self> {
        if sources == 0 {
            return Err(Error::NoSource);
        }
        for (key, value, holds, expected) in [
            ("floor", config.floor, config.floor > 0.0 && config.floor <= 1.0, "above 0 and at most 1"),
            ("rate", config.rate, config.rate >= 0.0 && config.rate.is_finite(), "0 or above"),
            ("memory", config.memory, (0.0..1.0).contains(&config.memory), "from 0 to below 1"),
        ] {
            if !holds {
                return Err(Error::Setting { key, found: value.to_string(), expected });
            }
        }
        Ok(Self { config, needs: vec![0.0; sources], owed: vec![0.0; sources], given: vec![0; sources] })
    }

    /// Shares as they are now; they sum to 1.
    pub fn shares(&self) -> Vec<f64> {
        let most = self.needs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let pulls: Vec<f64> = self.needs.iter().map(|need| libm::exp(self.config.rate * (need - most))).collect();
        let sum: f64 = pulls.iter().sum();
        let even = self.config.floor / pulls.len() as f64;
        pulls.iter().map(|pull| even + (1.0 - self.config.floor) * pull / sum).collect()
    }

    /// Source of the next row, and how many of its rows came before: the source that is owed most.
    pub fn draw(&mut self) -> (usize, u64) {
        let shares = self.shares();
        for (owed, share) in self.owed.iter_mut().zip(shares) {
            *owed += share;
        }
        let more = |best: usize, i: usize| if self.owed[i] > self.owed[best] { i } else { best };
        let source = (0..self.owed.len()).fold(0, more);
        self.owed[source] -= 1.0;
        self.given[source] += 1;
        (source, self.given[source] - 1)
    }

    /// Tells how much a source's pairs are needed, such as 1 minus the share of them that the policy gets right; values
    /// that are not finite are passed over.
    pub fn feed(&mut self, source: usize, need: f64) {
        if let Some(known) = self.needs.get_mut(source).filter(|_| need.is_finite()) {
            *known = self.config.memory * *known + (1.0 - self.config.memory) * need;
        }
    }

    /// Rows given by each source.
    pub fn given(&self) -> &[u64] {
        &self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdaptiveConfig = AdaptiveConfig { floor: 0.1, rate: 5.0, memory: 0.8 };

    #[test]
    fn rows_follow_shares_and_no_source_starves() {
        let mut sampler = Adaptive::new(3, CONFIG).unwrap();
        (0..100).for_each(|_| sampler.feed(2, 3.0));
        let shares = sampler.shares();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        (0..3000).for_each(|_| _ = sampler.draw());
        for (given, share) in sampler.given().iter().zip(&shares) {
            assert!((*given as f64 - share * 3000.0).abs() < 2.0, "{given} {share}");
            assert!(*given >= 99);
        }
    }

    #[test]
    fn a_saved_state_goes_on_alike() {
        let mut sampler = Adaptive::new(2, CONFIG).unwrap();
        sampler.feed(1, 0.7);
        (0..17).for_each(|_| _ = sampler.draw());
        let mut back: Adaptive = serde_json::from_str(&serde_json::to_string(&sampler).unwrap()).unwrap();
        sampler.feed(0, f64::NAN);
        assert_eq!(
            (0..40).map(|_| sampler.draw()).collect::<Vec<_>>(),
            (0..40).map(|_| back.draw()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let error = Adaptive::new(2, AdaptiveConfig { floor: 0.0, ..CONFIG }).unwrap_err();
        assert_eq!(error.to_string(), "`floor` is 0, expected above 0 and at most 1");
        assert!(Adaptive::new(0, CONFIG).is_err());
    }
}
