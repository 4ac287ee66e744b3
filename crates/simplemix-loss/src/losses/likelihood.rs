//! Log-likelihood of the chosen response, alone or as a term of other losses.

use tch::{Kind, Tensor};

use crate::formula::{Coupling, Formula, Rewards};
use crate::pair::Need;

/// SFT, the negative log-likelihood of the chosen responses' tokens, averaged over all tokens of the batch.
///
/// `chosen` `[B]` summed log-probabilities, `lengths` `[B]` tokens. A pair's loss is `-l_w B / sum(n_w)`, so that the mean
/// over the batch is the mean over tokens. TRL gives every pair the token mean instead; batch mean and gradients agree.
///
/// ```
/// use tch::Tensor;
/// // 9 nats over 6 tokens: 1.5 on average.
/// let loss = simplemix_loss::losses::likelihood::sft(
///     &Tensor::from_slice(&[-3.0, -6.0]), &Tensor::from_slice(&[4.0, 2.0]));
/// assert_eq!(loss.mean(tch::Kind::Double).double_value(&[]), 1.5);
/// ```
pub fn sft(chosen: &Tensor, lengths: &Tensor) -> Tensor {
    -chosen / lengths.mean(Kind::Double).to_kind(chosen.kind())
}

/// Losses of this family.
pub(crate) const FORMULAS: &[Formula] = &[Formula {
    name: "sft",
    aliases: &["nll"],
    constants: &[],
    needs: &[Need::Lengths],
    divergences: true,
    coupling: Coupling::Batch,
    rewards: Rewards::Sum,
    value: |t| sft(&t.pairs.policy.chosen, &t.lengths().chosen),
    at_reference: None,
}];
