//! Log-probabilities from hidden states and the output head, never holding more logits than a byte budget.
//!
//! Only scored positions come in, and they go through the head in chunks of whole rows. The gradient of a token's
//! log-probability with respect to its hidden state is `W[y] - softmax(z) W`, and a loss multiplies it by one number a
//! response. So there are three ways through, all exact, none with a graph:
//!
//! | head | rows | matrix products |
//! | --- | --- | --- |
//! | frozen | any | 2: hidden-state gradients are made in the forward pass and scaled when that number is known |
//! | trained | fit the budget at once | 3: softmax is kept until the backward pass |
//! | trained | do not | 4: logits are computed again |
//!
//! tch has no user-defined gradient, so the caller carries the hidden states' gradient on by
//! `(hidden * gradient).sum().backward()`, which is exact. Letters: N scored positions, n of them in a chunk, H width,
//! V vocabulary, S responses.

use tch::Tensor;

use crate::check::{finite, float_vector};
use crate::error::{Doing, Error, Result};
use crate::gemm::accumulator;
use crate::head::{GradientSums, Head};
use crate::inputs::{Positions, ScoreOptions, TokenStats, check};
use crate::rows::Rows;
use crate::workspace::Workspace;

/// Log-probabilities of a forward pass through the head, without graph.
#[derive(Debug)]
pub struct Scores {
    /// Summed over each response, `[S]`, nats, f32 (f64 for f64 input).
    pub logps: Tensor,
    /// Of each token, `[N]`, unweighted.
    pub token_logps: Tensor,
    /// Log of the sum of exponentials of each position's logits, `[N]`.
    pub lse: Tensor,
    /// `[N]`, if asked for; so are the following.
    pub mean_logit: Option<Tensor>,
    /// `[N]`, nats.
    pub entropy: Option<Tensor>,
    /// `[N]`, Bool.
    pub top1: Option<Tensor>,
    /// `[N]`.
    pub log_sum_sq_probs: Option<Tensor>,
    pub(crate) kept: Kept,
    chunk_rows: i64,
    token_weights: Option<Tensor>,
}

/// What the forward pass leaves to the backward pass.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Nothing: logits are computed again.
    Nothing,
    /// Softmax (times the cap's slope) of all rows, and the cap's slope at the targets.
    Probs(Tensor, Option<Tensor>),
    /// Gradients `[N, H]` of each token's log-probability.
    Gradients(Tensor),
}

/// Scores `positions` from `hidden` states `[N, H]`, and keeps what [`Scores::backward`] needs.
///
/// # Errors
/// [`Error::Shape`] if the tensors do not fit each other, [`Error::Index`] for a target outside the vocabulary,
/// [`Error::EmptyResponse`], [`Error::NonFinite`] if a log-probability is none, [`Error::Torch`].
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, score};
/// use tch::Tensor;
///
/// // Two tokens to choose from, with logits 1 and 0: the first has log-probability -ln(1 + e^-1).
/// let weight = Tensor::from_slice(&[1f32, 0.0]).view([2, 1]);
/// let hidden = Tensor::from_slice(&[1f32]).view([1, 1]);
/// let positions =
///     Positions { targets: Tensor::from_slice(&[0i64]), owners: Tensor::from_slice(&[0i64]), responses: 1 };
/// let scores = score(&weight, &hidden, &positions, 1 << 20)?;
/// assert!((scores.logps.double_value(&[0]) + 0.313262).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn score<'a>(
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    options: impl Into<ScoreOptions<'a>>,
) -> Result<Scores> {
    score_in(&mut Workspace::default(), head.into(), hidden, positions, options.into(), true)
}

/// Log-probabilities `[S]` for references and evaluation: nothing is kept, and the numbers are those of [`score`].
///
/// # Errors
/// As [`score`].
pub fn score_only<'a>(
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    options: impl Into<ScoreOptions<'a>>,
) -> Result<Tensor> {
    Ok(score_forward(head, hidden, positions, options)?.logps)
}

/// As [`score_only`], with all the numbers that [`ScoreOptions`] asks for.
///
/// # Errors
/// As [`score`].
pub fn score_forward<'a>(
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    options: impl Into<ScoreOptions<'a>>,
) -> Result<Scores> {
    score_in(&mut Workspace::default(), head.into(), hidden, positions, options.into(), false)
}

pub(crate) fn score_in(
    workspace: &mut Workspace,
    head: Head<'_>,
    hidden: &Tensor,
    positions: &Positions,
    options: ScoreOptions<'_>,
    for_backward: bool,
) -> Result<Scores> {
    let rows = check(&head, hidden, positions, &options)?;
    let _guard = tch::no_grad_guard();
    let hidden = &hidden.detach();
    let kind = accumulator(hidden.kind());
    let vocab = head.weight.size()[0];
    let chunk_rows = even_chunks(rows, options.rows_within(&head));
    let frozen = for_backward && !head.is_trained();
    let gradients =
        if frozen { Some(Tensor::f_empty(hidden.size(), (kind, hidden.device())).doing("allocating")?) } else { None };
    let mut probs = None;
    let mut chunks = Vec::new();
    for start in (0..rows).step_by(chunk_rows as usize) {
        let len = chunk_rows.min(rows - start);
        let buffer = workspace.rows(len, vocab, (kind, hidden.device()))?;
        let targets = positions.targets.narrow(0, start, len);
        let chunk = head.softmax_of(&buffer, &hidden.narrow(0, start, len), &targets, options.stats)?;
        if let Some(gradients) = &gradients {
            let token = head.token_gradients(&buffer, &targets, chunk.target_slope.as_ref())?;
            gradients.narrow(0, start, len).f_copy_(&token).doing("keeping gradients")?;
        }
        probs = (len == rows).then_some(buffer);
        chunks.push(chunk);
    }
    let rows = Rows::join(&chunks)?;
    finite("log-probabilities", &rows.token_logps)?;
    let weighted = options.token_weights.map(|weights| &rows.token_logps * weights.to_kind(kind));
    let logps = Tensor::zeros([positions.responses], (kind, hidden.device()))
        .f_index_add(0, &positions.owners, weighted.as_ref().unwrap_or(&rows.token_logps))
        .doing("summing log-probs")?;
    let kept = match (gradients, probs) {
        _ if !for_backward => Kept::Nothing,
        (Some(gradients), _) => Kept::Gradients(gradients),
        (None, Some(probs)) => Kept::Probs(probs, rows.target_slope),
        (None, None) => Kept::Nothing,
    };
    Ok(Scores {
        logps,
        token_logps: rows.token_logps,
        lse: rows.lse,
        mean_logit: rows.mean_logit,
        entropy: rows.entropy,
        top1: rows.top1,
        log_sum_sq_probs: rows.log_sum_sq_probs,
        kept,
        chunk_rows,
        token_weights: options.token_weights.map(Tensor::detach),
    })
}

impl Scores {
    /// Gradient `[N, H]` with respect to the hidden states, of a loss whose gradient with respect to
    /// [`Scores::logps`] is `gradient` `[S]`. Takes the head, hidden states and positions that were scored.
    ///
    /// Where the head's weight or bias requires a gradient, its own is added to its `.grad()`, which is made if there is
    /// none yet. It adds up with what autograd puts there, so the head may be tied to the embedding. A half-precision
    /// weight's gradient is summed in f32 and rounded once.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `gradient` is `[S]`, [`Error::NonFinite`], [`Error::Torch`].
    pub fn backward<'a>(
        self,
        head: impl Into<Head<'a>>,
        hidden: &Tensor,
        positions: &Positions,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let mut scores = self;
        let backward = scores.take_for_backward();
        backward.run(&mut Workspace::default(), head.into(), hidden, positions, gradient, &scores)
    }

    /// What the backward pass needs, once; the numbers stay.
    pub(crate) fn take_for_backward(&mut self) -> Backward {
        Backward(std::mem::replace(&mut self.kept, Kept::Nothing))
    }
}

/// The backward pass of a forward pass.
pub(crate) struct Backward(Kept);

impl Backward {
    pub(crate) fn run(
        self,
        workspace: &mut Workspace,
        head: Head<'_>,
        hidden: &Tensor,
        positions: &Positions,
        gradient: &Tensor,
        scores: &Scores,
    ) -> Result<Tensor> {
        let rows = scores.token_logps.size()[0];
        float_vector("gradient", gradient, positions.responses)?;
        finite("gradient", gradient)?;
        if hidden.size() != [rows, head.weight.size()[1]] {
            let expected = format!("[{rows}, {}], as scored", head.weight.size()[1]);
            return Err(Error::Shape { name: "hidden", found: format!("{:?}", hidden.size()), expected });
        }
        let _guard = tch::no_grad_guard();
        let hidden = &hidden.detach();
        let kind = scores.token_logps.kind();
        let mut per_row = gradient.detach().to_kind(kind).index_select(0, &positions.owners);
        if let Some(weights) = &scores.token_weights {
            per_row *= weights.to_kind(kind);
        }
        let per_row = per_row.unsqueeze(1); // [N, 1]
        let mut kept = match self.0 {
            Kept::Gradients(mut gradients) => {
                let _ = gradients.f_mul_(&per_row).doing("scaling gradients")?;
                return Ok(gradients.to_kind(hidden.kind()));
            }
            Kept::Probs(probs, slope) => Some((probs, slope)),
            Kept::Nothing => None,
        };
        let mut sums = GradientSums::of(&head, kind)?;
        let result = Tensor::f_empty(hidden.size(), (hidden.kind(), hidden.device())).doing("allocating")?;
        for start in (0..rows).step_by(scores.chunk_rows as usize) {
            let len = scores.chunk_rows.min(rows - start);
            let states = hidden.narrow(0, start, len);
            let targets = positions.targets.narrow(0, start, len);
            let scale = per_row.narrow(0, start, len);
            let (probs, slope) = match kept.take() {
                Some(kept) => kept,
                None => {
                    let buffer = workspace.rows(len, head.weight.size()[0], (kind, hidden.device()))?;
                    let rows = head.softmax_of(&buffer, &states, &targets, TokenStats::default())?;
                    (buffer, rows.target_slope)
                }
            };
            let token = head.token_gradients(&probs, &targets, slope.as_ref())? * &scale;
            result.narrow(0, start, len).f_copy_(&token).doing("keeping gradients")?;
            sums.add(&head, &probs, &states, &targets, &scale, slope.as_ref())?;
        }
        sums.finish(&head)?;
        Ok(result)
    }
}

/// Rows of a chunk, so that chunks of at most `most` are as even as can be.
fn even_chunks(rows: i64, most: i64) -> i64 {
    let chunks = (rows + most - 1) / most;
    (rows + chunks - 1) / chunks
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
