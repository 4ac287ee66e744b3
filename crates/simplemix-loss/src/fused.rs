//! A preference loss straight from hidden states: head, loss and backward pass of the head in one call.
//!
//! Where the head is trained and a pair's loss does not depend on other pairs, the pairs are worked through in groups
//! whose logits fit the budget: a group's loss is known while its softmax is still there, so nothing is computed twice.

use tch::Tensor;

use crate::check::float_vector;
use crate::error::{Doing, Result};
use crate::head::Head;
use crate::inputs::{Positions, ScoreOptions, TokenStats};
use crate::pair::{LossOutput, PairLengths, PairLogps, Pairs};
use crate::preference::Objective;
use crate::score::{Scores, score_in};
use crate::weights::wpo_weights;
use crate::workspace::Workspace;

/// What is known of pairs before the policy has seen them. Made from the reference's log-probabilities, or from `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Log-probabilities under the reference, `[B]` each; none for reference-free losses.
    pub reference: Option<&'a PairLogps>,
    /// Probability that the chosen response is the better one, `[B]`, for soft labels.
    pub label_probs: Option<&'a Tensor>,
}

impl<'a> From<&'a PairLogps> for Known<'a> {
    fn from(reference: &'a PairLogps) -> Self {
        Self { reference: Some(reference), label_probs: None }
    }
}

impl<'a> From<Option<&'a PairLogps>> for Known<'a> {
    fn from(reference: Option<&'a PairLogps>) -> Self {
        Self { reference, label_probs: None }
    }
}

/// What [`fused_preference_loss`] gives.
#[derive(Debug)]
pub struct Fused {
    /// Loss and rewards of each pair, without gradient.
    pub output: LossOutput,
    /// The policy's log-probabilities, without gradient.
    pub policy: PairLogps,
    /// A scalar whose `backward()` carries `weight` times the summed loss' gradient into the network below. Its value
    /// means nothing.
    pub surrogate: Tensor,
    /// Numbers of each token, as asked for in [`ScoreOptions::stats`]; one entry a group of pairs, in their order.
    pub scores: Vec<Scores>,
}

/// Loss of pairs whose responses alternate in `positions`: chosen, rejected, chosen, rejected.
///
/// The gradient into `head` (if it requires one) is added to its `.grad()` in this call; the gradient into `hidden`
/// flows when the surrogate's `backward()` is called. `weight` multiplies all gradients, not the reported loss. Where
/// the loss has WPO weights, they come from the same pass.
///
/// # Shapes
/// `head` `[V, H]`; `hidden` `[N, H]`, part of a graph; vectors of `known` `[B]` with `positions.responses = 2 B`;
/// `options`, or a number of bytes.
///
/// # Errors
/// As [`crate::score`] and [`Objective::evaluate_pairs`].
pub fn fused_preference_loss<'a>(
    loss: &(impl Objective + ?Sized),
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    known: impl Into<Known<'a>>,
    weight: f64,
    options: impl Into<ScoreOptions<'a>>,
) -> Result<Fused> {
    let (head, known, mut options) = (head.into(), known.into(), options.into());
    options.stats.log_sum_sq_probs |= loss.wpo().is_some();
    let pairs = positions.responses / 2;
    if let Some(reference) = known.reference {
        float_vector("reference.chosen", &reference.chosen, pairs)?;
        float_vector("reference.rejected", &reference.rejected, pairs)?;
    }
    if let Some(probs) = known.label_probs {
        float_vector("label_probs", probs, pairs)?;
    }
    if let Some(weights) = options.token_weights {
        float_vector("token_weights", weights, positions.owners.numel() as i64)?;
    }
    let lone = !loss.is_coupled() && head.is_trained();
    let groups = if lone { positions.groups(options.rows_within(&head)) } else { None };
    let mut workspace = Workspace::default();
    let (mut gradients, mut outputs, mut policies, mut scores) = (vec![], vec![], vec![], vec![]);
    for group in groups.unwrap_or_else(|| vec![Group::all(positions)]) {
        let part = positions.narrow(&group);
        let reference = known.reference.map(|logps| logps.narrow(group.pair, group.pairs));
        let label_probs = known.label_probs.map(|probs| probs.narrow(0, group.pair, group.pairs));
        let token_weights = options.token_weights.map(|weights| weights.narrow(0, group.row, group.rows));
        let options = ScoreOptions { token_weights: token_weights.as_ref(), ..options };
        let evaluate = |logps: &Tensor, scores: &Scores| {
            let policy = PairLogps::from_alternating(logps)?;
            let lengths = PairLengths::from_alternating(&part.counts().to_kind(logps.kind()))?;
            let weights = match (loss.wpo(), &scores.log_sum_sq_probs) {
                (Some(wpo), Some(squares)) => Some(wpo_weights(wpo, &part, &scores.token_logps, squares)?),
                _ => None,
            };
            let pairs = Pairs {
                reference: reference.as_ref(),
                lengths: Some(&lengths),
                label_probs: label_probs.as_ref(),
                weights: weights.as_ref(),
                ..Pairs::new(&policy)
            };
            let output = loss.evaluate_pairs(&pairs)?;
            Ok((output.loss.sum(output.loss.kind()) * weight, output))
        };
        let states = hidden.detach().narrow(0, group.row, group.rows);
        let step = step(&mut workspace, head, &states, &part, options, evaluate)?;
        policies.push(step.scores.logps.shallow_clone());
        outputs.push(LossOutput { loss: step.output.loss.detach(), ..step.output });
        gradients.push(step.gradient);
        if options.stats != TokenStats::default() {
            scores.push(step.scores);
        }
    }
    let gradient = Tensor::f_cat(&gradients, 0).doing("joining gradients")?;
    Ok(Fused {
        output: LossOutput::join(&outputs),
        policy: PairLogps::from_alternating(&Tensor::cat(&policies, 0))?,
        surrogate: (hidden * gradient).sum(hidden.kind()),
        scores,
    })
}

/// Log-probabilities, then any loss: `loss` turns them (`[S]`, a leaf that requires a gradient) into a scalar.
///
/// Gives the scores and the surrogate, whose `backward()` carries the scalar's gradient into `hidden`'s graph; the
/// head's is added in this call, as in [`fused_preference_loss`].
///
/// # Errors
/// As [`crate::score`], and whatever `loss` reports.
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, fused_logps};
/// use tch::{Kind, Tensor};
///
/// let weight = Tensor::from_slice(&[1.0, 0.0]).view([2, 1]);
/// let hidden = Tensor::from_slice(&[0.0]).view([1, 1]).set_requires_grad(true);
/// let positions =
///     Positions { targets: Tensor::from_slice(&[0i64]), owners: Tensor::from_slice(&[0i64]), responses: 1 };
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
    let step = step(&mut Workspace::default(), head.into(), &hidden.detach(), positions, options.into(), scalar)?;
    Ok((step.scores, (hidden * step.gradient).sum(hidden.kind())))
}

struct Step<T> {
    scores: Scores,
    gradient: Tensor,
    output: T,
}

/// Scores, takes the loss' gradient with respect to the log-probabilities, and runs the head's backward pass.
fn step<T>(
    workspace: &mut Workspace,
    head: Head<'_>,
    states: &Tensor,
    positions: &Positions,
    options: ScoreOptions<'_>,
    loss: impl FnOnce(&Tensor, &Scores) -> Result<(Tensor, T)>,
) -> Result<Step<T>> {
    let mut scores = score_in(workspace, head, states, positions, options, true)?;
    let logps = scores.logps.detach().set_requires_grad(true);
    let (scalar, output) = tch::with_grad(|| loss(&logps, &scores))?;
    scalar.f_backward().doing("the loss' backward pass")?;
    let kept = scores.take_for_backward();
    let gradient = kept.run(workspace, head, states, positions, &logps.grad(), &scores)?;
    Ok(Step { scores, gradient, output })
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
        Self { pair: 0, pairs: positions.responses / 2, row: 0, rows: positions.owners.numel() as i64 }
    }
}

impl Positions {
    /// Pairs in order, as many at a time as have at most `most` rows; none unless each response's rows are together and
    /// in order.
    fn groups(&self, most: i64) -> Option<Vec<Group>> {
        if self.responses < 2 || self.responses % 2 == 1 || self.owners.dim() != 1 || self.owners.numel() < 2 {
            return None;
        }
        let steps = self.owners.diff::<Tensor>(1, 0, None, None);
        if steps.min().int64_value(&[]) < 0 || self.owners.int64_value(&[0]) < 0 {
            return None;
        }
        let counts = Vec::<i64>::try_from(self.counts()).ok()?;
        let mut groups = vec![Group { pair: 0, pairs: 0, row: 0, rows: 0 }];
        for (pair, rows) in counts.chunks_exact(2).map(|pair| pair.iter().sum::<i64>()).enumerate() {
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

    fn narrow(&self, group: &Group) -> Self {
        if group.rows == self.owners.numel() as i64 {
            let (targets, owners) = (self.targets.shallow_clone(), self.owners.shallow_clone());
            return Self { targets, owners, responses: self.responses };
        }
        Self {
            targets: self.targets.narrow(0, group.row, group.rows),
            owners: self.owners.narrow(0, group.row, group.rows) - 2 * group.pair,
            responses: 2 * group.pairs,
        }
    }
}

#[cfg(test)]
#[path = "fused_tests.rs"]
mod tests;
