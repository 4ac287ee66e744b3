//! Check of the first batch: before the first update, policy and reference are one.

use crate::error::{Error, Result};
use crate::stats::PairStats;
use crate::table::PairTable;

/// Facts that the first batch must show, if policy and reference are the same model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstLoss {
    /// Mean loss of the pairs: ln 2 = 0.6931 for DPO.
    pub loss: f64,
    /// Largest difference of the mean that rounding explains.
    pub tolerance: f64,
    /// Largest difference between a response's log-probabilities under policy and reference that rounding explains, nats a
    /// token; `None` where there is no reference.
    pub nats_per_token: Option<f64>,
}

impl FirstLoss {
    /// Checks the first batch, of which `stats` are.
    ///
    /// The mean is held tightly, since roundings of many tokens even out; a single response loosely and by its length,
    /// since log-probabilities of half precision differ with how tokens are packed.
    pub(crate) fn check(&self, table: &PairTable, pairs: &[usize], stats: &[PairStats]) -> Result<()> {
        let found = stats.iter().map(|pair| pair.loss).sum::<f64>() / stats.len().max(1) as f64;
        if (found - self.loss).abs() > self.tolerance {
            return Err(Error::FirstLoss { found, expected: self.loss, tolerance: self.tolerance });
        }
        let Some(tolerance) = self.nats_per_token else { return Ok(()) };
        for (&pair, stats) in pairs.iter().zip(stats) {
            let entry = &table.pairs[pair];
            let Some(reference) = stats.reference_logps else { continue };
            let sides = [
                (stats.logps.chosen - reference.chosen, entry.responses.chosen),
                (stats.logps.rejected - reference.rejected, entry.responses.rejected),
            ];
            for (difference, tokens) in sides {
                let found = difference.abs() / tokens.max(1) as f64;
                // A response of a few tokens has no roundings that even out.
                if found > tolerance * (1.0 + 4.0 / tokens.max(1) as f64) {
                    return Err(Error::FirstLogps { row: entry.row, found, tolerance });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sides::Sides;
    use crate::table::PairEntry;

    const BF16: FirstLoss = FirstLoss { loss: std::f64::consts::LN_2, tolerance: 0.02, nats_per_token: Some(0.05) };

    fn batch(differences: &[f64]) -> (PairTable, Vec<usize>, Vec<PairStats>) {
        let entry = |row| PairEntry { row, responses: Sides { chosen: 400, rejected: 300 }, ..PairEntry::default() };
        let table = PairTable { pairs: (10..10 + differences.len()).map(entry).collect(), ..PairTable::default() };
        let stats = |difference: &f64| {
            let reference = Sides { chosen: -500.0, rejected: -400.0 };
            let logps = Sides { chosen: reference.chosen + difference, ..reference };
            let loss = (1.0 + (-0.1 * difference).exp()).ln();
            PairStats { loss, logps, reference_logps: Some(reference), ..PairStats::default() }
        };
        (table, (0..differences.len()).collect(), differences.iter().map(stats).collect())
    }

    /// bf16 sums of 300 to 1,000 log-probabilities differ by some tenths of a nat between packings.
    #[test]
    fn roundings_of_half_precision_pass() {
        let (table, pairs, stats) = batch(&[0.4, -0.3, 0.1, -0.6, 0.5, -0.2, 0.9, -0.7]);
        BF16.check(&table, &pairs, &stats).unwrap();
    }

    #[test]
    fn a_reference_that_is_another_model_fails() {
        let (table, pairs, stats) = batch(&[4.0, 3.0, 5.0, 2.0]);
        let error = BF16.check(&table, &pairs, &stats).unwrap_err().to_string();
        assert!(error.contains("mean loss of the first batch is 0.5"), "{error}");
        // Differences that even out show in the single pairs.
        let (table, pairs, stats) = batch(&[0.1, 30.0, -31.0, 0.2]);
        let evened = FirstLoss { tolerance: 1.0, ..BF16 };
        let error = evened.check(&table, &pairs, &stats).unwrap_err().to_string();
        assert!(error.starts_with("pair 11 of the training set: "), "{error}");
    }
}
