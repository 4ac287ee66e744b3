//! Weighted sums of losses.

use std::fmt;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::objective::PairLoss;
use crate::pair::{LossOutput, Need, Pairs};
use crate::preference::PreferenceLoss;
use crate::weights::Wpo;

/// Weighted sum of one loss or more, `sum of weight * loss`, as TRL's `loss_type` with `loss_weights`.
///
/// Rewards are those of the first loss. [`crate::LossSettings::build`] makes any sum; [`LossSum::rpo`] and
/// [`LossSum::mpo`] are published ones.
///
/// ```
/// use simplemix_loss::{LossSum, PairLoss, PairLengths, PairLogps, Pairs};
/// use tch::Tensor;
///
/// let v = |x: f64| Tensor::from_slice(&[x]);
/// let policy = PairLogps { chosen: v(-10.0), rejected: v(-12.0) };
/// let reference = PairLogps { chosen: v(-15.0), rejected: v(-7.0) };
/// let lengths = PairLengths { chosen: v(5.0), rejected: v(6.0) };
/// let pairs = Pairs { reference: Some(&reference), lengths: Some(&lengths), ..Pairs::new(&policy) };
/// // RPO: margin 1, and half of 2 nats per token.
/// let rpo = LossSum::rpo(0.1, 0.5)?;
/// assert!((rpo.evaluate_pairs(&pairs)?.loss.double_value(&[0]) - 1.313262).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LossSum(Vec<(PreferenceLoss, f64)>);

impl LossSum {
    /// A sum of losses with their weights.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no loss, a weight is not finite, or the losses disagree on [`Wpo`].
    pub fn new(parts: Vec<(PreferenceLoss, f64)>) -> Result<Self> {
        let refuse = |key: &str, found: String, expected: &str| {
            Err(Error::Setting { key: key.to_owned(), found, expected: expected.to_owned() })
        };
        let Some((first, _)) = parts.first() else {
            return refuse("name", "empty".to_owned(), "at least one loss");
        };
        if let Some((_, weight)) = parts.iter().find(|(_, weight)| !weight.is_finite()) {
            return refuse("weights", weight.to_string(), "finite numbers");
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
        Self::of_names(&[("sigmoid", 1.0), ("sft", alpha)], beta)
    }

    /// MPO, `0.8 sigmoid + 0.2 bco_pair + sft`: Wang et al. 2024 (arXiv:2411.10442).
    ///
    /// # Errors
    /// [`Error::Setting`] if `beta` is not above 0.
    pub fn mpo(beta: f64) -> Result<Self> {
        Self::of_names(&[("sigmoid", 0.8), ("bco_pair", 0.2), ("sft", 1.0)], beta)
    }

    fn of_names(parts: &[(&str, f64)], beta: f64) -> Result<Self> {
        let part = |(name, weight): &(&str, f64)| Ok((PreferenceLoss::new(name.parse()?, beta, 0.0)?, *weight));
        Self::new(parts.iter().map(part).collect::<Result<_>>()?)
    }

    /// The losses and their weights, at least one.
    pub fn parts(&self) -> &[(PreferenceLoss, f64)] {
        &self.0
    }
}

impl From<PreferenceLoss> for LossSum {
    fn from(loss: PreferenceLoss) -> Self {
        Self(vec![(loss, 1.0)])
    }
}

impl fmt::Display for LossSum {
    /// Writes the weights and names, as in `0.8 sigmoid + sft`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (loss, weight)) in self.0.iter().enumerate() {
            let plus = if index == 0 { "" } else { " + " };
            match *weight {
                1.0 => write!(f, "{plus}{}", loss.kind())?,
                weight => write!(f, "{plus}{weight} {}", loss.kind())?,
            }
        }
        Ok(())
    }
}

impl PairLoss for LossSum {
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput> {
        pairs.check()?;
        let ((first, weight), others) = self.0.split_first().expect("`LossSum::new` refuses an empty sum");
        let mut sum = first.compute(pairs)?;
        // New tensors: an operation in place would change what a backward pass has kept.
        let weighted = |loss: Tensor, weight: f64| loss * weight;
        let mut total = weighted(sum.loss, *weight);
        for (loss, weight) in others {
            total = &total + weighted(loss.compute(pairs)?.loss, *weight);
        }
        sum.loss = total;
        Ok(sum)
    }

    fn needs(&self, need: Need) -> bool {
        self.0.iter().any(|(loss, _)| loss.needs(need))
    }

    fn is_coupled(&self) -> bool {
        self.0.iter().any(|(loss, _)| loss.is_coupled())
    }

    fn at_reference(&self) -> Option<f64> {
        self.0.iter().map(|(loss, weight)| Some(loss.at_reference()? * weight)).sum()
    }

    fn wpo(&self) -> Option<Wpo> {
        self.0.iter().find_map(|(loss, _)| loss.wpo())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::{PairLengths, PairLogps};
    use tch::{Kind, Tensor};

    fn logps(chosen: &[f64], rejected: &[f64]) -> PairLogps {
        PairLogps { chosen: Tensor::from_slice(chosen), rejected: Tensor::from_slice(rejected) }
    }

    /// Loss, rewards, and the gradient of the mean loss with respect to the policy's log-probabilities.
    fn outcome(loss: &dyn PairLoss) -> [Vec<f64>; 5] {
        let policy = logps(&[-10.0, -7.0, -3.0], &[-12.0, -5.0, -9.0]);
        let _ = (policy.chosen.set_requires_grad(true), policy.rejected.set_requires_grad(true));
        let reference = logps(&[-11.0, -6.0, -3.5], &[-11.5, -5.5, -8.0]);
        let lengths =
            PairLengths { chosen: Tensor::from_slice(&[5.0, 3.0, 4.0]), rejected: Tensor::from_slice(&[8.0; 3]) };
        let pairs = Pairs { reference: Some(&reference), lengths: Some(&lengths), ..Pairs::new(&policy) };
        let output = loss.evaluate_pairs(&pairs).unwrap();
        output.loss.mean(Kind::Double).backward();
        let vector = |t: &Tensor| if t.defined() { Vec::<f64>::try_from(t).unwrap() } else { vec![0.0; 3] };
        [&output.loss, &output.chosen_rewards, &output.rejected_rewards, &policy.chosen.grad(), &policy.rejected.grad()]
            .map(vector)
    }

    #[test]
    fn a_sum_is_the_weighted_sum_of_its_parts_and_so_is_its_gradient() {
        let sum = LossSum::mpo(0.3).unwrap();
        let parts: Vec<_> = sum.parts().iter().map(|(loss, weight)| (outcome(loss), *weight)).collect();
        let got = outcome(&sum);
        for field in [0, 3, 4] {
            for (pair, got) in got[field].iter().enumerate() {
                let want: f64 = parts.iter().map(|(part, weight)| part[field][pair] * weight).sum();
                assert!((got - want).abs() < 1e-14, "{field} {pair}: {got} {want}");
            }
        }
        assert_eq!(got[1..3], parts[0].0[1..3]);
        // The first pair by hand: margin 0.3 * 1.5, rewards 0.3 and -0.15, 10 nats over 4 tokens on average.
        let softplus = |x: f64| x.exp().ln_1p();
        let want = 0.8 * softplus(-0.45) + 0.2 * (softplus(-0.3) + softplus(-0.15)) + 10.0 / 4.0;
        assert!((got[0][0] - want).abs() < 1e-14);
    }

    /// Bit for bit, so that a run of one loss is what it was before there were sums.
    #[test]
    fn a_sum_of_one_loss_is_that_loss() {
        for name in ["sigmoid", "ipo", "sft", "aot", "nca_pair"] {
            let loss = PreferenceLoss::new(name.parse().unwrap(), 0.1, 0.0).unwrap();
            let sum = LossSum::from(loss);
            assert_eq!(outcome(&sum), outcome(&loss));
            assert_eq!((sum.is_coupled(), sum.at_reference()), (loss.is_coupled(), loss.at_reference()));
            assert_eq!(sum.to_string(), name);
        }
    }

    /// A reference that another part needs does not enter a reference-free loss.
    #[test]
    fn simpo_beside_dpo_is_simpo() {
        let loss = |name: &str| PreferenceLoss::new(name.parse().unwrap(), 2.0, 0.0).unwrap();
        let sum = LossSum::new(vec![(loss("sigmoid"), 0.5), (loss("simpo"), 2.0)]).unwrap();
        let policy = logps(&[-10.0], &[-12.0]);
        let reference = logps(&[-15.0], &[-7.0]);
        let lengths = PairLengths { chosen: Tensor::from_slice(&[5.0]), rejected: Tensor::from_slice(&[6.0]) };
        let pairs = Pairs { reference: Some(&reference), lengths: Some(&lengths), ..Pairs::new(&policy) };
        let alone = loss("simpo").evaluate(&policy, None, &lengths).unwrap().loss.double_value(&[0]);
        let dpo = loss("sigmoid").evaluate(&policy, &reference, None).unwrap().loss.double_value(&[0]);
        let got = sum.evaluate_pairs(&pairs).unwrap().loss.double_value(&[0]);
        assert!((got - 0.5 * dpo - 2.0 * alone).abs() < 1e-14);
    }

    #[test]
    fn the_first_loss_of_a_sum_is_known_where_each_part_s_is() {
        let ln_2 = std::f64::consts::LN_2;
        let loss = |name: &str| PreferenceLoss::new(name.parse().unwrap(), 0.1, 0.0).unwrap();
        let sum = LossSum::new(vec![(loss("sigmoid"), 0.5), (loss("bco_pair"), 2.0)]).unwrap();
        assert!((sum.at_reference().unwrap() - 4.5 * ln_2).abs() < 1e-15);
        assert_eq!(LossSum::rpo(0.1, 1.0).unwrap().at_reference(), None);
    }
}
