//! Log-probabilities from hidden states and the output head, never holding more logits than a byte budget.
//!
//! Only scored positions come in, and they go through the head in chunks of whole rows. The gradient of a response's
//! summed log-probability with respect to its hidden states is `W[y] - softmax(z) W`, times one number a response: so
//! the backward pass is two matrix products a chunk and needs no graph. Where all rows fit the budget at once, the
//! exponentials of the forward pass are kept and nothing is computed twice.
//!
//! tch has no user-defined gradient, so the caller carries the hidden states' gradient on by
//! `(hidden * gradient).sum().backward()`, which is exact. Letters: N scored positions, H width, V vocabulary,
//! S responses.

use tch::{Kind, Tensor};

use crate::error::{Doing, Error, Result};

/// What is scored: for each position a token, and the response it belongs to.
#[derive(Debug)]
pub struct Positions {
    /// Token that the position predicts, `[N]`, Int64.
    pub targets: Tensor,
    /// Response it belongs to, `[N]`, Int64, from 0 to S - 1.
    pub owners: Tensor,
    /// Number of responses S.
    pub responses: i64,
}

/// Log-probabilities of a forward pass through the head.
#[derive(Debug)]
pub struct Scores {
    /// Summed over each response, `[S]`, nats, f32 (f64 for f64 input).
    pub logps: Tensor,
    /// Of each token, `[N]`.
    pub token_logps: Tensor,
    chunks: Vec<Chunk>,
}

/// Normalisers of some rows.
#[derive(Debug)]
struct Chunk {
    start: i64,
    len: i64,
    max: Tensor,                  // [n, 1]
    total: Tensor,                // [n], sum of exponentials
    exponentials: Option<Tensor>, // [n, V], where they were kept
}

/// Scores `positions` from `hidden` states `[N, H]` and the head's `weight` `[V, H]`, without a graph.
///
/// At most `budget` bytes of logits are held at a time, but always one row.
///
/// # Errors
/// [`Error::Shape`] if the tensors do not fit each other or a target is outside the vocabulary; [`Error::Torch`].
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
pub fn score(weight: &Tensor, hidden: &Tensor, positions: &Positions, budget: usize) -> Result<Scores> {
    let (rows, vocab) = check(weight, hidden, positions)?;
    let _guard = tch::no_grad_guard();
    let kind = accumulator(hidden.kind());
    let chunk_rows = chunk_rows(rows, vocab, kind, budget);
    let mut chunks = Vec::new();
    let mut token_logps = Vec::new();
    for start in (0..rows).step_by(chunk_rows as usize) {
        let len = chunk_rows.min(rows - start);
        let (chunk, logps) = forward(weight, hidden, positions, start, len, len == rows)?;
        chunks.push(chunk);
        token_logps.push(logps);
    }
    let token_logps = Tensor::f_cat(&token_logps, 0).doing("joining log-probs")?;
    let logps = Tensor::zeros([positions.responses], (kind, hidden.device()))
        .f_index_add(0, &positions.owners, &token_logps)
        .doing("summing log-probs")?;
    Ok(Scores { logps, token_logps, chunks })
}

/// Scores without keeping anything for a backward pass; the numbers are those of [`score`].
///
/// # Errors
/// As [`score`].
pub fn score_only(weight: &Tensor, hidden: &Tensor, positions: &Positions, budget: usize) -> Result<Tensor> {
    let (rows, vocab) = check(weight, hidden, positions)?;
    let _guard = tch::no_grad_guard();
    let kind = accumulator(hidden.kind());
    let chunk_rows = chunk_rows(rows, vocab, kind, budget);
    let mut logps = Tensor::zeros([positions.responses], (kind, hidden.device()));
    for start in (0..rows).step_by(chunk_rows as usize) {
        let len = chunk_rows.min(rows - start);
        let (_, token_logps) = forward(weight, hidden, positions, start, len, false)?;
        let owners = positions.owners.narrow(0, start, len);
        let _ = logps.f_index_add_(0, &owners, &token_logps).doing("summing log-probs")?;
    }
    Ok(logps)
}

impl Scores {
    /// Gradient `[N, H]` with respect to the hidden states, of a loss whose gradient with respect to
    /// [`Scores::logps`] is `gradient` `[S]`.
    ///
    /// Where `weight` requires a gradient, its own is added to `weight.grad()`, which is made if there is none yet. It
    /// adds up with what autograd puts there, so the head may be tied to the embedding.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `gradient` is `[S]`; [`Error::Torch`].
    pub fn backward(
        self,
        weight: &Tensor,
        hidden: &Tensor,
        positions: &Positions,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        if gradient.size() != [positions.responses] {
            return Err(Error::Shape {
                name: "gradient",
                found: format!("{:?}", gradient.size()),
                expected: format!("[{}]", positions.responses),
            });
        }
        let _guard = tch::no_grad_guard();
        let mut weight_gradient = weight.requires_grad().then(|| defined_gradient(weight)).transpose()?;
        let per_row = gradient.detach().index_select(0, &positions.owners).unsqueeze(1); // [N, 1]
        let mut parts = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks {
            let states = hidden.narrow(0, chunk.start, chunk.len);
            let targets = positions.targets.narrow(0, chunk.start, chunk.len);
            let scale = per_row.narrow(0, chunk.start, chunk.len);
            let exponentials = match chunk.exponentials {
                Some(kept) => kept,
                None => exponentials(weight, &states, &chunk.max)?,
            };
            // softmax is exponentials over their sum: the division is done on the narrow side.
            let share = &scale / chunk.total.unsqueeze(1);
            let pull = weight.index_select(0, &targets) * &scale;
            let spread = exponentials.to_kind(weight.kind()).f_matmul(weight).doing("the head's backward pass")?;
            parts.push((pull - spread * &share).to_kind(hidden.kind()));
            if let Some(into) = &mut weight_gradient {
                let spread = (&states * &share).to_kind(into.kind());
                let left = exponentials.to_kind(into.kind()).tr();
                subtract_product(into, &left, &spread)?;
                let pull = (&states * &scale).to_kind(into.kind());
                let _ = into.f_index_add_(0, &targets, &pull).doing("the head's weight gradient")?;
            }
        }
        Tensor::f_cat(&parts, 0).doing("joining gradients")
    }
}

/// Log-probs of rows `start..start + len`, and what a backward pass needs of them.
fn forward(
    weight: &Tensor,
    hidden: &Tensor,
    positions: &Positions,
    start: i64,
    len: i64,
    keep: bool,
) -> Result<(Chunk, Tensor)> {
    let targets = positions.targets.narrow(0, start, len).unsqueeze(1);
    let mut logits = logits(weight, &hidden.narrow(0, start, len))?;
    let max = logits.f_amax(1, true).doing("normalising logits")?;
    let chosen = logits.gather(1, &targets, false) - &max;
    let exponentials = logits.f_sub_(&max).and_then(|mut z| z.f_exp_()).doing("normalising logits")?;
    let total = exponentials.sum_dim_intlist([1i64].as_slice(), false, exponentials.kind());
    let logps = chosen.squeeze_dim(1) - total.log();
    Ok((Chunk { start, len, max, total, exponentials: keep.then_some(exponentials) }, logps))
}

/// `exp(logits - max)` `[n, V]`, computed again.
fn exponentials(weight: &Tensor, states: &Tensor, max: &Tensor) -> Result<Tensor> {
    logits(weight, states)?.f_sub_(max).and_then(|mut z| z.f_exp_()).doing("recomputing logits")
}

/// Logits `[n, V]` in the accumulating kind.
fn logits(weight: &Tensor, states: &Tensor) -> Result<Tensor> {
    let product = states.f_matmul(&weight.tr()).doing("the output head")?;
    Ok(product.to_kind(accumulator(states.kind())))
}

/// `into -= left right`, in place.
fn subtract_product(into: &mut Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
    into.f_addmm_(left, &-right).doing("the head's weight gradient").map(drop)
}

/// Sums are held in f32 at least.
fn accumulator(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

/// Rows whose logits fit `budget` bytes, spread evenly over the chunks.
fn chunk_rows(rows: i64, vocab: i64, kind: Kind, budget: usize) -> i64 {
    let row_bytes = vocab as usize * kind.elt_size_in_bytes();
    let most = (budget / row_bytes).max(1) as i64;
    let chunks = (rows + most - 1) / most;
    (rows + chunks - 1) / chunks
}

/// `tensor.grad()`, zeros if there was none.
fn defined_gradient(tensor: &Tensor) -> Result<Tensor> {
    let gradient = tensor.grad();
    if gradient.defined() {
        return Ok(gradient);
    }
    // tch cannot set a gradient; one of zeros comes from the backward pass of a product with zero.
    tch::with_grad(|| (tensor.narrow(0, 0, 1) * 0.0).sum(tensor.kind()).f_backward()).doing("making a gradient")?;
    Ok(tensor.grad())
}

/// Rows and vocabulary, if everything fits together.
fn check(weight: &Tensor, hidden: &Tensor, positions: &Positions) -> Result<(i64, i64)> {
    let refuse = |name, found: String, expected: String| Err(Error::Shape { name, found, expected });
    let (Ok((vocab, width)), Ok((rows, states))) = (weight.size2(), hidden.size2()) else {
        return refuse(
            "hidden",
            format!("{:?} with a head of {:?}", hidden.size(), weight.size()),
            "[N, H] and [V, H]".into(),
        );
    };
    if states != width {
        return refuse("hidden", format!("[{rows}, {states}]"), format!("[N, {width}]"));
    }
    if rows == 0 {
        return refuse("hidden", "[0, H]".into(), "at least one scored position".into());
    }
    for (name, vector, bound) in
        [("targets", &positions.targets, vocab), ("owners", &positions.owners, positions.responses)]
    {
        if vector.size() != [rows] || vector.kind() != Kind::Int64 {
            return refuse(name, format!("{:?} {:?}", vector.kind(), vector.size()), format!("Int64 [{rows}]"));
        }
        let (low, high) = (vector.min().int64_value(&[]), vector.max().int64_value(&[]));
        if low < 0 || high >= bound {
            return refuse(name, format!("{low} to {high}"), format!("from 0 to {}", bound - 1));
        }
    }
    Ok((rows, vocab))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Rows, width, vocabulary and responses of a made-up case in f64.
    fn case() -> (Tensor, Tensor, Positions, Tensor) {
        tch::manual_seed(3);
        let options = (Kind::Double, Device::Cpu);
        let hidden = Tensor::randn([7, 5], options).set_requires_grad(true);
        let weight = Tensor::randn([11, 5], options).set_requires_grad(true);
        let positions = Positions {
            targets: Tensor::from_slice(&[0i64, 10, 3, 3, 7, 1, 5]),
            owners: Tensor::from_slice(&[0i64, 0, 1, 1, 1, 2, 2]),
            responses: 3,
        };
        (weight, hidden, positions, Tensor::from_slice(&[0.7f64, -1.3, 0.2]))
    }

    /// The naive twin: full logits, autograd.
    fn naive(weight: &Tensor, hidden: &Tensor, positions: &Positions) -> Tensor {
        let logps = hidden.matmul(&weight.tr()).log_softmax(-1, Kind::Double);
        let token_logps = logps.gather(1, &positions.targets.unsqueeze(1), false).squeeze_dim(1);
        Tensor::zeros([positions.responses], (Kind::Double, Device::Cpu)).index_add(0, &positions.owners, &token_logps)
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max()).unwrap()
    }

    /// Budgets for one row, three rows and all rows.
    const BUDGETS: [usize; 3] = [1, 3 * 11 * 8, 1 << 20];

    #[test]
    fn numbers_and_gradients_are_those_of_the_naive_path_at_every_budget() {
        let (weight, hidden, positions, gradient) = case();
        let plain = naive(&weight, &hidden, &positions);
        (&plain * &gradient).sum(Kind::Double).backward();
        let (want_hidden, want_weight) = (hidden.grad().copy(), weight.grad().copy());
        for budget in BUDGETS {
            weight.shallow_clone().zero_grad();
            let scores = score(&weight, &hidden.detach(), &positions, budget).unwrap();
            assert!(difference(&scores.logps, &plain) < 1e-12);
            assert!(difference(&score_only(&weight, &hidden, &positions, budget).unwrap(), &plain) < 1e-12);
            let got = scores.backward(&weight, &hidden.detach(), &positions, &gradient).unwrap();
            assert!(difference(&got, &want_hidden) < 1e-12, "{budget}");
            assert!(difference(&weight.grad(), &want_weight) < 1e-12, "{budget}");
        }
    }

    #[test]
    fn the_head_may_be_frozen_or_without_gradient_yet() {
        let (_, hidden, positions, gradient) = case();
        let frozen = Tensor::randn([11, 5], (Kind::Double, Device::Cpu));
        let run = |weight: &Tensor| {
            let scores = score(weight, &hidden.detach(), &positions, 300).unwrap();
            scores.backward(weight, &hidden.detach(), &positions, &gradient).unwrap()
        };
        let with_frozen = run(&frozen);
        assert!(!frozen.grad().defined());
        let trained = frozen.copy().set_requires_grad(true);
        assert!(difference(&run(&trained), &with_frozen) < 1e-12);
        assert!(trained.grad().defined());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (weight, hidden, positions, _) = case();
        let text = |p: &Positions| score(&weight, &hidden, p, 1).unwrap_err().to_string();
        let outside =
            Positions { targets: positions.targets.shallow_clone() + 1, owners: positions.owners.copy(), responses: 3 };
        assert_eq!(text(&outside), "`targets` is 1 to 11, expected from 0 to 10");
        let fewer = Positions { targets: positions.targets.copy(), owners: positions.owners.copy(), responses: 2 };
        assert_eq!(text(&fewer), "`owners` is 0 to 2, expected from 0 to 1");
    }

    #[test]
    fn chunks_are_even_and_within_the_budget() {
        assert_eq!(chunk_rows(10, 100, Kind::Float, 4 * 400), 4);
        assert_eq!(chunk_rows(9, 100, Kind::Float, 8 * 400), 5);
        assert_eq!(chunk_rows(5, 100, Kind::Float, 1), 1);
    }
}
