//! Weighted sums of losses.

use tch::Tensor;

use crate::error::{Error, Result};
use crate::pair::{LossOutput, Pairs};
use crate::preference::{Objective, PreferenceLoss};
use crate::weights::Wpo;

/// `sum of weight * loss`; rewards are those of the first loss.
///
/// ```
/// use simplemix_loss::{LossSum, Objective, PairLengths, PairLogps, Pairs, PreferenceLoss};
/// use tch::Tensor;
///
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// let policy = PairLogps { chosen: v(-10.0), rejected: v(-12.0) };
/// let reference = PairLogps { chosen: v(-15.0), rejected: v(-7.0) };
/// let lengths = PairLengths { chosen: v(5.0), rejected: v(6.0) };
/// let pairs = Pairs { reference: Some(&reference), lengths: Some(&lengths), ..Pairs::new(&policy) };
/// // RPO: margin 1, and half of 2 nats a token.
/// let rpo = LossSum::rpo(0.1, 0.5)?;
/// assert!((rpo.evaluate_pairs(&pairs)?.loss.double_value(&[0]) - 1.313262).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LossSum(Vec<(PreferenceLoss, f64)>);

impl LossSum {
    /// Losses with their weights.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is none, a weight is not finite, or the losses disagree on [`Wpo`].
    pub fn new(parts: Vec<(PreferenceLoss, f64)>) -> Result<Self> {
        let refuse = |key: &str, found: String, expected: &str| {
            Err(Error::Setting { key: key.to_owned(), found, expected: expected.to_owned() })
        };
        let Some((first, _)) = parts.first() else {
            return refuse("losses", "empty".to_owned(), "at least one loss");
        };
        if let Some((_, weight)) = parts.iter().find(|(_, weight)| !weight.is_finite()) {
            return refuse("loss_weights", weight.to_string(), "finite numbers");
        }
        if let Some((other, _)) = parts.iter().find(|(loss, _)| loss.wpo() != first.wpo()) {
            return refuse("wpo", format!("{:?}", other.wpo()), "the same for all losses of a sum");
        }
        Ok(Self(parts))
    }

    /// RPO, `sigmoid + alpha * sft`: Pang et al. 2024 with alpha 1 (arXiv:2404.19733), Liu et al. 2024 with alpha 0.005
    /// (arXiv:2405.16436). TRL 0.24's `rpo_alpha`.
    ///
    /// # Errors
    /// [`Error::Setting`] if `beta` is not above 0 or `alpha` not finite.
    pub fn rpo(beta: f64, alpha: f64) -> Result<Self> {
        let loss = |name: &str| PreferenceLoss::new(name.parse()?, beta, 0.0);
        Self::new(vec![(loss("sigmoid")?, 1.0), (loss("sft")?, alpha)])
    }

    /// MPO, `0.8 sigmoid + 0.2 bco_pair + 1.0 sft`: Wang et al. 2024 (arXiv:2411.10442).
    ///
    /// # Errors
    /// [`Error::Setting`] if `beta` is not above 0.
    pub fn mpo(beta: f64) -> Result<Self> {
        let loss = |name: &str| PreferenceLoss::new(name.parse()?, beta, 0.0);
        Self::new(vec![(loss("sigmoid")?, 0.8), (loss("bco_pair")?, 0.2), (loss("sft")?, 1.0)])
    }

    /// The losses and their weights.
    pub fn parts(&self) -> &[(PreferenceLoss, f64)] {
        &self.0
    }
}

impl Objective for LossSum {
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput> {
        let mut outputs = Vec::with_capacity(self.0.len());
        for (loss, weight) in &self.0 {
            let output = loss.evaluate_pairs(pairs)?;
            outputs.push(LossOutput { loss: output.loss * *weight, ..output });
        }
        let loss = outputs.iter().map(|output| output.loss.shallow_clone()).reduce(|a, b| a + b);
        let loss = loss.unwrap_or_else(|| Tensor::zeros_like(&pairs.policy.chosen));
        let first = outputs.swap_remove(0);
        Ok(LossOutput { loss, ..first })
    }

    fn is_coupled(&self) -> bool {
        self.0.iter().any(|(loss, _)| loss.is_coupled())
    }

    fn wpo(&self) -> Option<Wpo> {
        self.0.first().and_then(|(loss, _)| loss.wpo())
    }
}
