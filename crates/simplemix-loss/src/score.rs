//! Log-probabilities from hidden states and the output head, never holding more logits than a byte budget.
//!
//! Scored positions go through the head in chunks of whole rows. The gradient of a token's log-probability with respect
//! to its hidden state is `W[y] - softmax(z) W`, and a loss multiplies it by one number per response. That leaves three
//! methods, all exact and all without an autograd graph:
//!
//! | head | rows | matrix products |
//! | --- | --- | --- |
//! | frozen | any | 2: the forward pass makes hidden-state gradients, which are scaled once that number is known |
//! | trained | fit the budget at once | 3: softmax is kept until the backward pass |
//! | trained | exceed the budget | 4: logits are recomputed |
//!
//! The caller propagates the hidden states' gradient by `simplemix_torch::backward(&[&hidden], &[&gradient])`. Letters: N
//! scored positions, n of them in a chunk, H width, V vocabulary, S responses.

use tch::Tensor;

use crate::check::{finite, float_vector, is_float};
use crate::error::{Doing, Error, Result};
use crate::gemm::{Spread, accumulator};
use crate::head::{Chunk, GradientSums, Head};
use crate::inputs::{Checks, Positions, ScoreOptions, TokenStats};
use crate::rows::Rows;
use crate::workspace::{Workspace, default_budget};

/// Log-probabilities of a forward pass through the head, without gradient.
#[derive(Debug)]
pub struct Scores {
    /// Sums over each response, `[S]`, nats, f32 (f64 for f64 input).
    pub logps: Tensor,
    /// Log-probability of each token, `[N]`, unweighted.
    pub token_logps: Tensor,
    /// Log of the sum of exponentials of each position's logits, `[N]`.
    pub lse: Tensor,
    /// Mean logits, `[N]`; like the following, present if [`ScoreOptions::stats`] asks for it.
    pub mean_logit: Option<Tensor>,
    /// Entropies, `[N]`, nats.
    pub entropy: Option<Tensor>,
    /// Whether each target is the most likely token, `[N]`, Bool.
    pub top1: Option<Tensor>,
    /// `ln sum p^2` over the vocabulary, `[N]`.
    pub log_sum_sq_probs: Option<Tensor>,
    pub(crate) saved: SavedForBackward,
    /// Whether the backward pass computes the entropies.
    entropy_later: bool,
    chunk_rows: i64,
    token_weights: Option<Tensor>,
    checks: Checks,
}

/// Results of the forward pass that the backward pass uses.
#[derive(Debug)]
pub(crate) enum SavedForBackward {
    /// Nothing: logits are recomputed.
    Nothing,
    /// Softmax (times the cap's slope) of all rows, and the cap's slope at the targets.
    Probs(Tensor, Option<Tensor>),
    /// Gradients `[N, H]` of each token's log-probability.
    Gradients(Tensor),
}

/// Scores `positions` from `hidden` states `[N, H]`, and saves what [`Scores::backward`] needs.
///
/// # Errors
/// [`Error::Shape`] if the tensors do not fit each other, [`Error::Index`] for a target outside the vocabulary,
/// [`Error::EmptyResponse`], [`Error::NonFinite`] if a log-probability is NaN or infinite, [`Error::Torch`].
///
/// # Examples
/// ```
/// use simplemix_loss::{Positions, score};
/// use tch::Tensor;
///
/// // Two tokens to choose from, with logits 1 and 0: the first has log-probability -ln(1 + e^-1).
/// let weight = Tensor::from_slice(&[1f32, 0.0]).view([2, 1]);
/// let hidden = Tensor::from_slice(&[1f32]).view([1, 1]);
/// let positions = Positions::new(&[0], &[0], 1, tch::Device::Cpu)?;
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
    score_in(&mut Workspace::default(), head.into(), hidden, positions, options.into(), Next::Backward)
}

/// Log-probabilities `[S]` for references and evaluation: the numbers of [`score`], without its memory for a backward pass.
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

/// Like [`score_only`], with all the statistics that [`ScoreOptions`] asks for.
///
/// # Errors
/// As [`score`].
pub fn score_forward<'a>(
    head: impl Into<Head<'a>>,
    hidden: &Tensor,
    positions: &Positions,
    options: impl Into<ScoreOptions<'a>>,
) -> Result<Scores> {
    score_in(&mut Workspace::default(), head.into(), hidden, positions, options.into(), Next::Nothing)
}

/// Use of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The scores alone.
    Nothing,
    /// A backward pass, if the caller likes; the scores are complete before it.
    Backward,
    /// A backward pass in the same call, which completes the scores.
    BackwardAtOnce,
}

pub(crate) fn score_in(
    workspace: &mut Workspace,
    head: Head<'_>,
    hidden: &Tensor,
    positions: &Positions,
    options: ScoreOptions<'_>,
    next: Next,
) -> Result<Scores> {
    let rows = check_inputs(&head, hidden, positions, &options)?;
    let _guard = tch::no_grad_guard();
    let hidden = &hidden.detach();
    let kind = accumulator(hidden.kind());
    let vocab = head.weight.size()[0];
    let chunk_rows = even_chunks(rows, rows_within(&options, &head));
    let frozen = next != Next::Nothing && !head.is_trained();
    // The product that gradients need gives the entropies too.
    let is_by_product = head.soft_cap.is_none() && (frozen || next == Next::BackwardAtOnce);
    let by_product = options.stats.entropy && is_by_product;
    let stats = TokenStats { entropy: options.stats.entropy && !is_by_product, ..options.stats };
    let gradients =
        if frozen { Some(Tensor::f_empty(hidden.size(), (kind, hidden.device())).doing("allocating")?) } else { None };
    let mut probs = None;
    let mut chunks = Vec::new();
    for start in (0..rows).step_by(chunk_rows as usize) {
        let len = chunk_rows.min(rows - start);
        let buffer = workspace.rows(len, vocab, (kind, hidden.device()))?;
        let targets = positions.targets().narrow(0, start, len);
        let states = hidden.narrow(0, start, len);
        let mut chunk = head.softmax_of(&buffer, &states, &targets, stats)?;
        if let Some(gradients) = &gradients {
            let spread = Spread::new(&buffer, hidden.kind())?;
            let mean = spread.pull_back(&head.weight.detach())?;
            if by_product {
                chunk.entropy = Some(head.entropies(&spread, &mean, &states, &chunk.lse)?);
            }
            let token = head.token_gradients(&mean, &targets, chunk.target_slope.as_ref());
            gradients.narrow(0, start, len).f_copy_(&token).doing("keeping gradients")?;
        }
        probs = (len == rows).then_some(buffer);
        chunks.push(chunk);
    }
    let rows = Rows::join(&chunks)?;
    if options.checks == Checks::Now {
        finite("log-probabilities", &rows.token_logps)?;
    }
    let weighted = options.token_weights.map(|weights| &rows.token_logps * weights.to_kind(kind));
    let logps = Tensor::zeros([positions.responses()], (kind, hidden.device()))
        .f_index_add(0, positions.owners(), weighted.as_ref().unwrap_or(&rows.token_logps))
        .doing("summing log-probs")?;
    let saved = match (gradients, probs) {
        _ if next == Next::Nothing => SavedForBackward::Nothing,
        (Some(gradients), _) => SavedForBackward::Gradients(gradients),
        (None, Some(probs)) => SavedForBackward::Probs(probs, rows.target_slope),
        (None, None) => SavedForBackward::Nothing,
    };
    Ok(Scores {
        logps,
        token_logps: rows.token_logps,
        lse: rows.lse,
        mean_logit: rows.mean_logit,
        entropy: rows.entropy,
        top1: rows.top1,
        log_sum_sq_probs: rows.log_sum_sq_probs,
        saved,
        entropy_later: by_product && !frozen,
        chunk_rows,
        token_weights: options.token_weights.map(Tensor::detach),
        checks: options.checks,
    })
}

impl Scores {
    /// Gradient `[N, H]` with respect to the hidden states, of a loss whose gradient with respect to
    /// [`Scores::logps`] is `gradient` `[S]`. Takes the head, hidden states and positions that were scored.
    ///
    /// If the head's weight or bias requires a gradient, that gradient is added to the tensor's `.grad()`, which is
    /// created if undefined. Autograd's own contributions add up with it, so the head may be tied to the embedding. The
    /// gradient of a half-precision weight is summed in f32 and rounded once.
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
        backward.run(&mut Workspace::default(), head.into(), hidden, positions, gradient, &mut scores)
    }

    /// Moves out what the backward pass needs; the scores stay.
    pub(crate) fn take_for_backward(&mut self) -> Backward {
        Backward(std::mem::replace(&mut self.saved, SavedForBackward::Nothing))
    }
}

/// Backward pass of one forward pass.
pub(crate) struct Backward(SavedForBackward);

impl Backward {
    pub(crate) fn run(
        self,
        workspace: &mut Workspace,
        head: Head<'_>,
        hidden: &Tensor,
        positions: &Positions,
        gradient: &Tensor,
        scores: &mut Scores,
    ) -> Result<Tensor> {
        let rows = scores.token_logps.size()[0];
        float_vector("gradient", gradient, positions.responses())?;
        if scores.checks == Checks::Now {
            finite("gradient", gradient)?;
        }
        if hidden.size() != [rows, head.weight.size()[1]] {
            let expected = format!("[{rows}, {}], as scored", head.weight.size()[1]);
            return Err(Error::Shape { name: "hidden", found: format!("{:?}", hidden.size()), expected });
        }
        let _guard = tch::no_grad_guard();
        let hidden = &hidden.detach();
        let kind = scores.token_logps.kind();
        let mut per_row = gradient.detach().to_kind(kind).index_select(0, positions.owners());
        if let Some(weights) = &scores.token_weights {
            per_row *= weights.to_kind(kind);
        }
        let per_row = per_row.unsqueeze(1); // [N, 1]
        let mut saved = match self.0 {
            SavedForBackward::Gradients(mut gradients) => {
                let _ = gradients.f_mul_(&per_row).doing("scaling gradients")?;
                return Ok(gradients.to_kind(hidden.kind()));
            }
            SavedForBackward::Probs(probs, slope) => Some((probs, slope)),
            SavedForBackward::Nothing => None,
        };
        let mut sums = GradientSums::of(&head, kind)?;
        let result = Tensor::f_empty(hidden.size(), (hidden.kind(), hidden.device())).doing("allocating")?;
        let mut entropies = Vec::new();
        for start in (0..rows).step_by(scores.chunk_rows as usize) {
            let len = scores.chunk_rows.min(rows - start);
            let states = hidden.narrow(0, start, len);
            let targets = positions.targets().narrow(0, start, len);
            let scale = per_row.narrow(0, start, len);
            let (probs, slope) = match saved.take() {
                Some(saved) => saved,
                None => {
                    let buffer = workspace.rows(len, head.weight.size()[0], (kind, hidden.device()))?;
                    let rows = head.softmax_of(&buffer, &states, &targets, TokenStats::default())?;
                    (buffer, rows.target_slope)
                }
            };
            let spread = Spread::new(&probs, hidden.kind())?;
            let mean = spread.pull_back(&head.weight.detach())?;
            if scores.entropy_later {
                entropies.push(head.entropies(&spread, &mean, &states, &scores.lse.narrow(0, start, len))?);
            }
            let token = head.token_gradients(&mean, &targets, slope.as_ref()) * &scale;
            result.narrow(0, start, len).f_copy_(&token).doing("keeping gradients")?;
            let chunk = Chunk { spread: &spread, states: &states, targets: &targets, slope: slope.as_ref() };
            sums.add(&head, chunk, &scale)?;
        }
        if scores.entropy_later {
            scores.entropy = Some(Tensor::f_cat(&entropies, 0).doing("joining entropies")?);
        }
        sums.finish(&head)?;
        Ok(result)
    }
}

/// Rows whose logits fit the budget, at least one.
pub(crate) fn rows_within(options: &ScoreOptions<'_>, head: &Head<'_>) -> i64 {
    let kind = accumulator(head.weight.kind());
    let budget = options.budget.unwrap_or_else(|| default_budget(head.weight.device()));
    (budget / (head.weight.size()[0] as usize * kind.elt_size_in_bytes())).max(1) as i64
}

/// Number of rows, if head, hidden states, positions and options fit together.
fn check_inputs(head: &Head<'_>, hidden: &Tensor, positions: &Positions, options: &ScoreOptions<'_>) -> Result<i64> {
    let refuse = |name, found: String, expected: String| Err(Error::Shape { name, found, expected });
    let (Ok((vocab, width)), Ok((rows, states))) = (head.weight.size2(), hidden.size2()) else {
        let found = format!("{:?} with a head of {:?}", hidden.size(), head.weight.size());
        return refuse("hidden", found, "[N, H] and [V, H]".into());
    };
    if states != width || !is_float(hidden.kind()) || hidden.kind() != head.weight.kind() {
        let expected = format!("{:?} [N, {width}], like the head", head.weight.kind());
        return refuse("hidden", format!("{:?} [{rows}, {states}]", hidden.kind()), expected);
    }
    if rows == 0 {
        return refuse("hidden", "[0, H]".into(), "at least one scored position".into());
    }
    if let Some(bias) = head.bias {
        float_vector("bias", bias, vocab)?;
    }
    if let Some(weights) = options.token_weights {
        float_vector("token_weights", weights, rows)?;
        if options.checks == Checks::Now {
            finite("token_weights", weights)?;
        }
    }
    for (key, value) in [("soft_cap", head.soft_cap.unwrap_or(1.0)), ("scale", head.scale)] {
        if !value.is_finite() || value <= 0.0 {
            let expected = "a number above 0".to_owned();
            return Err(Error::Setting { key: key.into(), found: value.to_string(), expected });
        }
    }
    if positions.rows() != rows {
        return refuse("hidden", format!("[{rows}, H]"), format!("[{}, H], a row for each position", positions.rows()));
    }
    positions.check_vocabulary(vocab)?;
    Ok(rows)
}

/// Rows of a chunk such that chunks of at most `most` rows are as even as possible.
fn even_chunks(rows: i64, most: i64) -> i64 {
    let chunks = (rows + most - 1) / most;
    (rows + chunks - 1) / chunks
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
