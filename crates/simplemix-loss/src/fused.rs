//! A preference loss straight from hidden states: head, loss and backward pass of the head in one call.

use tch::{Kind, Tensor};

use crate::error::{Doing, Result};
use crate::head::{Positions, score};
use crate::pair::{LossOutput, PairLengths, PairLogps};
use crate::preference::PreferenceLoss;

/// What [`fused_preference_loss`] gives.
#[derive(Debug)]
pub struct Fused {
    /// Loss and rewards of each pair, without gradient.
    pub output: LossOutput,
    /// The policy's log-probabilities, without gradient.
    pub policy: PairLogps,
    /// A scalar whose `backward()` carries `weight` times the summed loss' gradient into the network below.
    pub surrogate: Tensor,
}

/// Loss of pairs whose responses alternate in `positions`: chosen, rejected, chosen, rejected.
///
/// The gradient into `head` (if it requires one) is added to its `.grad()` in this call; the gradient into `hidden`
/// flows when the surrogate's `backward()` is called. `weight` multiplies all gradients, not the reported loss.
///
/// # Shapes
/// `head` `[V, H]`; `hidden` `[N, H]`, part of a graph; `reference` vectors `[B]` with `positions.responses = 2 B`.
///
/// # Errors
/// [`crate::Error::Shape`] if the tensors do not fit; [`crate::Error::Torch`].
pub fn fused_preference_loss(
    loss: &PreferenceLoss,
    head: &Tensor,
    hidden: &Tensor,
    positions: &Positions,
    reference: &PairLogps,
    weight: f64,
    budget: usize,
) -> Result<Fused> {
    let states = hidden.detach();
    let scores = score(head, &states, positions, budget)?;
    let logps = scores.logps.detach().set_requires_grad(true);
    let policy = PairLogps::from_alternating(&logps)?;
    let output = loss.evaluate(&policy, reference, &lengths(positions, logps.kind())?)?;
    output.loss.sum(logps.kind()).f_backward().doing("the loss' backward pass")?;
    let gradient = scores.backward(head, &states, positions, &(logps.grad() * weight))?;
    let surrogate = (hidden * gradient).sum(Kind::Float);
    Ok(Fused {
        output: LossOutput { loss: output.loss.detach(), ..output },
        policy: PairLogps::from_alternating(&logps.detach())?,
        surrogate,
    })
}

/// Tokens of each response, counted from their positions.
fn lengths(positions: &Positions, kind: Kind) -> Result<PairLengths> {
    let counts = positions.owners.bincount::<Tensor>(None, positions.responses).to_kind(kind);
    let PairLogps { chosen, rejected } = PairLogps::from_alternating(&counts)?;
    Ok(PairLengths { chosen, rejected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preference::LossKind;
    use tch::Device;

    /// Against full logits and autograd, the head tied to the embedding that made the hidden states.
    #[test]
    fn gradients_reach_a_tied_head_from_both_sides() {
        tch::manual_seed(5);
        let options = (Kind::Double, Device::Cpu);
        let embedding = Tensor::randn([9, 4], options).set_requires_grad(true);
        let ids = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6, 7, 8]);
        let positions = Positions {
            targets: Tensor::from_slice(&[2i64, 3, 4, 5, 6, 7, 8, 0]),
            owners: Tensor::from_slice(&[0i64, 0, 1, 1, 1, 2, 3, 3]),
            responses: 4,
        };
        let reference =
            || PairLogps { chosen: Tensor::from_slice(&[-3.0, -4.0]), rejected: Tensor::from_slice(&[-5.0, -2.0]) };
        let loss = PreferenceLoss::new(LossKind::SigmoidNorm, 0.7, 0.0).unwrap();
        let below = || embedding.index_select(0, &ids).tanh();

        let token = below().matmul(&embedding.tr()).log_softmax(-1, Kind::Double);
        let token = token.gather(1, &positions.targets.unsqueeze(1), false).squeeze_dim(1);
        let logps = Tensor::zeros([4], options).index_add(0, &positions.owners, &token);
        let plain = loss
            .evaluate(
                &PairLogps::from_alternating(&logps).unwrap(),
                &reference(),
                &lengths(&positions, Kind::Double).unwrap(),
            )
            .unwrap();
        (plain.loss.sum(Kind::Double) * 0.25).backward();
        let want = embedding.grad().copy();

        embedding.shallow_clone().zero_grad();
        let fused = fused_preference_loss(&loss, &embedding, &below(), &positions, &reference(), 0.25, 200).unwrap();
        fused.surrogate.backward();
        let off = |a: &Tensor, b: &Tensor| f64::try_from((a - b).abs().max()).unwrap();
        assert!(off(&embedding.grad(), &want) < 1e-6, "{}", off(&embedding.grad(), &want));
        assert!(off(&fused.output.loss, &plain.loss) < 1e-12);
        assert!(off(&fused.output.margins(), &plain.margins()) < 1e-12);
    }
}
