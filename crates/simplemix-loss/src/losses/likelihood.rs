//! Log-likelihood of the chosen response, alone or as a term of other losses.

use tch::{Kind, Tensor};

use crate::formula::{Formula, Need, Rewards};

/// SFT, the negative log-likelihood of the chosen responses' tokens, averaged over all tokens of the batch.
///
/// `chosen` `[B]` summed log-probabilities, `lengths` `[B]` tokens. Each pair gets its share, `-l_w B / sum(n_w)`, so
/// that the batch mean is the token mean; TRL repeats the token mean instead, with the same batch mean and gradients.
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

/// The family's losses.
pub(crate) const FORMULAS: &[Formula] = &[Formula {
    name: "sft",
    aliases: &["nll"],
    constants: &[],
    needs: &[Need::Lengths],
    divergences: true,
    coupled: true,
    rewards: Rewards::Sum,
    value: |t| sft(&t.pairs.policy.chosen, &t.lengths().chosen),
    at_reference: None,
}];
