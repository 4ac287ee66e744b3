//! A preference loss straight from hidden states: head, loss and backward pass of the head in one call.
//!
//! If the head is trained and a pair's loss does not depend on other pairs, the pairs are processed in groups whose
//! logits fit the budget: a group's loss is known while its softmax is still in memory, so nothing is computed twice.

use tch::Tensor;

use crate::check::float_vector;
use crate::error::{Doing, Result};
use crate::head::Head;
use crate::inputs::{Positions, ScoreOptions, TokenStats};
use crate::objective::PairLoss;
use crate::pair::{LossOutput, PairLengths, PairLogps, PairQuantiles, Pairs};
use crate::score::{Next, Scores, rows_within, score_in};
use crate::weights::wpo_weights;
use crate::workspace::Workspace;

/// Inputs of [`fused_preference_loss`]: B pairs, whose responses alternate in `positions`: chosen, rejected, chosen,
/// rejected.
#[derive(Debug, Clone, Copy)]
pub struct FusedInputs<'a> {
    /// Output head, `[V, H]`.
    pub head: Head<'a>,
    /// Hidden states of the scored positions, `[N, H]`, part of a graph.
    pub hidden: &'a Tensor,
    /// Scored positions of `2 B` responses.
    pub positions: &'a Positions,
    /// Log-probabilities under the reference, `[B]` each; `None` for reference-free losses.
    pub reference: Option<&'a PairLogps>,
    /// Probability that the chosen response is the better one, `[B]`, for soft labels.
    pub label_probs: Option<&'a Tensor>,
    /// Quantile rewards of the responses, `[B]` each, for losses of rewards.
    pub quantiles: Option<&'a PairQuantiles>,
    /// Factor of all gradients, but not of the reported loss.
    pub weight: f64,
    /// Budget of logits, statistics and weights of tokens.
    pub options: ScoreOptions<'a>,
}

/// Result of [`fused_preference_loss`].
#[derive(Debug)]
pub struct FusedLoss {
    /// Loss and rewards of each pair, without gradient.
    pub output: LossOutput,
    /// The policy's log-probabilities, without gradient.
    pub policy: PairLogps,
    /// `weight` times the summed loss, a scalar whose `backward()` carries its gradient into the network below.
    pub surrogate: Tensor,
    /// Token statistics that [`ScoreOptions::stats`] asks for; one entry per group of pairs, in the pairs' order.
    pub scores: Vec<Scores>,
}

impl<'a> FusedInputs<'a> {
    /// Inputs without reference, with weight 1 and default options.
    pub fn new(head: impl Into<Head<'a>>, hidden: &'a Tensor, positions: &'a Positions) -> Self {
        let (head, options) = (head.into(), ScoreOptions::default());
        Self { head, hidden, positions, reference: None, label_probs: None, quantiles: None, weight: 1.0, options }
    }

    fn check(&self) -> Result<()> {
        let pairs = self.positions.responses() / 2;
        if let Some(reference) = self.reference {
            float_vector("reference.chosen", &reference.chosen, pairs)?;
            float_vector("reference.rejected", &reference.rejected, pairs)?;
        }
        if let Some(probs) = self.label_probs {
            float_vector("label_probs", probs, pairs)?;
        }
        if let Some(quantiles) = self.quantiles {
            float_vector("quantiles.chosen", &quantiles.chosen, pairs)?;
            float_vector("quantiles.rejected", &quantiles.rejected, pairs)?;
        }
        if let Some(weights) = self.options.token_weights {
            float_vector("token_weights", weights, self.positions.rows())?;
        }
        Ok(())
    }

    /// Loss, rewards and gradients of one group of pairs.
    fn group_pass(
        &self,
        loss: &(impl PairLoss + ?Sized),
        workspace: &mut Workspace,
        group: &Group,
    ) -> Result<HeadPass<LossOutput>> {
        let part = group.of(self.positions);
        let reference = self.reference.map(|logps| logps.narrow(group.pair, group.pairs));
        let label_probs = self.label_probs.map(|probs| probs.narrow(0, group.pair, group.pairs));
        let quantiles = self.quantiles.map(|quantiles| quantiles.narrow(group.pair, group.pairs));
        let token_weights = self.options.token_weights.map(|weights| weights.narrow(0, group.row, group.rows));
        let mut options = ScoreOptions { token_weights: token_weights.as_ref(), ..self.options };
        options.stats.log_sum_sq_probs |= loss.wpo().is_some();
        let evaluate = |logps: &Tensor, scores: &Scores| {
            let policy = PairLogps::from_alternating(logps)?;
            let lengths = PairLengths::from_alternating(&part.lengths(logps.kind()))?;
            let weights = match (loss.wpo(), &scores.log_sum_sq_probs) {
                (Some(wpo), Some(squares)) => Some(wpo_weights(wpo, &part, &scores.token_logps, squares)?),
                _ => None,
            };
            let pairs = Pairs {
                reference: reference.as_ref(),
                lengths: Some(&lengths),
                label_probs: label_probs.as_ref(),
                quantiles: quantiles.as_ref(),
                weights: weights.as_ref(),
                checks: options.checks,
                ..Pairs::new(&policy)
            };
            let output = loss.evaluate_pairs(&pairs)?;
            Ok((output.loss.sum(output.loss.kind()) * self.weight, output))
        };
        let states = self.hidden.detach().narrow(0, group.row, group.rows);
        head_pass(workspace, self.head, &states, &part, options, evaluate)
    }
}

/// Loss of pairs from hidden states, with gradients into the network and its head.
///
/// The gradient into the head (if it requires one) is added to its `.grad()` in this call; the gradient into `hidden`
/// flows when the surrogate's `backward()` is called. WPO weights, if the loss has them, come from the same pass.
///
/// # Errors
/// As [`crate::score`] and [`PairLoss::evaluate_pairs`].
pub fn fused_preference_loss(loss: &(impl PairLoss + ?Sized), inputs: &FusedInputs<'_>) -> Result<FusedLoss> {
    inputs.check()?;
    let grouped = !loss.is_coupled() && inputs.head.is_trained();
    let groups = if grouped { groups(inputs.positions, rows_within(&inputs.options, &inputs.head)) } else { None };
    let has_stats = inputs.options.stats != TokenStats::default() || loss.wpo().is_some();
    let mut workspace = Workspace::default();
    let (mut gradients, mut outputs, mut policies, mut scores) = (vec![], vec![], vec![], vec![]);
    let mut losses = Vec::new();
    for group in groups.unwrap_or_else(|| vec![Group::all(inputs.positions)]) {
        let pass = inputs.group_pass(loss, &mut workspace, &group)?;
        policies.push(pass.scores.logps.shallow_clone());
        outputs.push(LossOutput { loss: pass.output.loss.detach(), ..pass.output });
        gradients.push(pass.gradient);
        losses.push(pass.loss);
        if has_stats {
            scores.push(pass.scores);
        }
    }
    let gradient = Tensor::f_cat(&gradients, 0).doing("joining gradients")?;
    Ok(FusedLoss {
        output: LossOutput::join(&outputs),
        policy: PairLogps::from_alternating(&Tensor::cat(&policies, 0))?,
        surrogate: surrogate(inputs.hidden, gradient, Tensor::stack(&losses, 0).sum(losses[0].kind()))?,
        scores,
    })
}

/// Log-probabilities with any loss on top: `loss` maps them (`[S]`, a leaf that requires a gradient) to a scalar.
///
/// Returns the scores and the surrogate, whose `backward()` carries the scalar's gradient into the graph of `hidden`. The
/// head's gradient is added in this call, as in [`fused_preference_loss`].
///
/// # Errors
/// As [`crate::score`], and the errors of `loss`.
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, fused_logps};
/// use tch::{Kind, Tensor};
///
/// let weight = Tensor::from_slice(&[1.0, 0.0]).view([2, 1]);
/// let hidden = Tensor::from_slice(&[0.0]).view([1, 1]).set_requires_grad(true);
/// let positions = Positions::new(&[0], &[0], 1, tch::Device::Cpu)?;
/// let (_, surrogate) = fused_logps(&weight, &hidden, &positions, 1 << 20, |logps| Ok(-logps.sum(Kind::Double)))?;
/// surrogate.backward();
/// // Of two even tokens, the first's weight is 1 and the mean weight 1/2.
/// assert_eq!(hidden.grad().double_value(&[0, 0]), -0.5);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn fused_logps<'a>(
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    options: impl Into<ScoreOptions<'a>>,
    loss: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<(Scores, Tensor)> {
    let scalar = |logps: &Tensor, _: &Scores| Ok((loss(logps)?, ()));
    let pass = head_pass(&mut Workspace::default(), head.into(), &hidden.detach(), positions, options.into(), scalar)?;
    let surrogate = surrogate(hidden, pass.gradient, pass.loss)?;
    Ok((pass.scores, surrogate))
}

/// `loss` as a scalar in the graph of `hidden`, with a gradient that is known.
fn surrogate(hidden: &Tensor, gradient: Tensor, loss: Tensor) -> Result<Tensor> {
    let carry = move |factor: &[Tensor]| Ok(vec![Some(gradient.f_mul(&factor[0].to_kind(gradient.kind()))?)]);
    Ok(simplemix_torch::function("FusedHead", &[hidden], vec![loss], carry)?.remove(0))
}

/// Result of a forward and backward pass through the head.
struct HeadPass<T> {
    scores: Scores,
    /// Gradient with respect to the hidden states, `[N, H]`.
    gradient: Tensor,
    /// Loss, a scalar without graph.
    loss: Tensor,
    output: T,
}

/// Scores, takes the loss' gradient with respect to the log-probabilities, and runs the head's backward pass.
fn head_pass<T>(
    workspace: &mut Workspace,
    head: Head<'_>,
    states: &Tensor,
    positions: &Positions,
    options: ScoreOptions<'_>,
    loss: impl FnOnce(&Tensor, &Scores) -> Result<(Tensor, T)>,
) -> Result<HeadPass<T>> {
    let mut scores = score_in(workspace, head, states, positions, options, Next::BackwardAtOnce)?;
    let logps = scores.logps.detach().set_requires_grad(true);
    let (scalar, output) = tch::with_grad(|| loss(&logps, &scores))?;
    scalar.f_backward().doing("the loss' backward pass")?;
    let backward = scores.take_for_backward();
    let gradient = backward.run(workspace, head, states, positions, &logps.grad(), &mut scores)?;
    Ok(HeadPass { scores, gradient, loss: scalar.detach(), output })
}

/// Pairs that go through the head together.
struct Group {
    pair: i64,
    pairs: i64,
    row: i64,
    rows: i64,
}

impl Group {
    fn all(positions: &Positions) -> Self {
        Self { pair: 0, pairs: positions.responses() / 2, row: 0, rows: positions.rows() }
    }

    fn of(&self, positions: &Positions) -> Positions {
        positions.narrow(self.row..self.row + self.rows, 2 * self.pair..2 * (self.pair + self.pairs))
    }
}

/// Consecutive pairs in groups of at most `most` rows, or of one pair; `None` unless each response's rows are contiguous and
/// responses are in order.
fn groups(positions: &Positions, most: i64) -> Option<Vec<Group>> {
    if positions.responses() % 2 == 1 || !positions.owner_of().is_sorted() {
        return None;
    }
    let mut groups = vec![Group { pair: 0, pairs: 0, row: 0, rows: 0 }];
    let (pairs, _) = positions.counts().as_chunks::<2>();
    for (pair, rows) in pairs.iter().map(|[chosen, rejected]| chosen + rejected).enumerate() {
        let last = groups.last_mut()?;
        if last.pairs > 0 && last.rows + rows > most {
            let row = last.row + last.rows;
            groups.push(Group { pair: pair as i64, pairs: 1, row, rows });
        } else {
            last.pairs += 1;
            last.rows += rows;
        }
    }
    Some(groups)
}

#[cfg(test)]
#[path = "fused_tests.rs"]
mod tests;
