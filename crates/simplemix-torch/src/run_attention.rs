//! Attention over runs that share their first keys, on a CPU.
//!
//! Letters: T rows, N query heads, K key/value heads, D head width.

use tch::{Device, Kind, Tensor};

use crate::attention::Varlen;
use crate::error::{Error, Result};
use crate::{calls, function, native, records};

/// Rows of queries `start..start + length`, which see the keys of the rows `parent..parent + parent_length` and their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First row.
    pub start: i64,
    /// Number of rows.
    pub length: i64,
    /// First row of the parent.
    pub parent: i64,
    /// Number of the parent's rows; 0 for a run without one.
    pub parent_length: i64,
}

impl Run {
    fn numbers(self) -> [i64; 4] {
        [self.start, self.length, self.parent, self.parent_length]
    }

    fn end(self) -> i64 {
        self.start + self.length
    }
}

/// Whether [`run_attention`] takes tensors of a kind on a device: f32 and f64 on a CPU, if libtorch exports its BLAS.
pub fn has_run_attention(kind: Kind, device: Device) -> bool {
    device == Device::Cpu && native::has_run_attention(kind)
}

/// Causal attention within runs: `[T, N, D]` from queries `[T, N, D]`, keys and values `[T, K, D]`. Differentiable.
///
/// Row i of a run sees all keys of its parent and those of its run up to its own; with a window the last ones of these. N is
/// a multiple of K. The runs are all rows in order, and a parent lies within one earlier run. Flash attention (Dao 2023,
/// arXiv:2307.08691) in blocks of queries: no product of a query with a key that it does not see is computed but in the last
/// block, no key is copied, and kept for the gradient are the result and one number a query.
///
/// # Errors
/// [`Error::Argument`] for shapes and runs that do not fit each other, or a kind for which [`has_run_attention`] is false.
///
/// # Examples
/// ```
/// use simplemix_torch::{Run, Varlen, has_run_attention, run_attention};
/// use tch::{Device, Kind, Tensor};
///
/// if !has_run_attention(Kind::Float, Device::Cpu) {
///     return Ok(()); // A libtorch whose BLAS cannot be called.
/// }
/// // A prompt of one token with one response of one token, and another one.
/// let first = Run { start: 0, length: 2, parent: 0, parent_length: 0 };
/// let second = Run { start: 2, length: 1, parent: 0, parent_length: 1 };
/// let q = Tensor::zeros([3, 1, 1], (Kind::Float, Device::Cpu));
/// let v = Tensor::from_slice(&[1f32, 3.0, 6.0]).view([3, 1, 1]);
/// let mixed = run_attention(&q, &q, &v, &[first, second], Varlen { scale: 1.0, window: None })?;
/// // Even weights: the mean of the values that each query sees.
/// assert_eq!(Vec::<f32>::try_from(mixed.flatten(0, -1))?, [1.0, 2.0, 3.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_attention(q: &Tensor, k: &Tensor, v: &Tensor, runs: &[Run], how: Varlen) -> Result<Tensor> {
    check([q, k, v], runs, how)?;
    let runs: Vec<[i64; 4]> = runs.iter().map(|run| run.numbers()).collect();
    let how = (how.window.unwrap_or(0), how.scale);
    let inputs = [q, k, v].map(Tensor::detach);
    let [q_, k_, v_] = &inputs;
    let [mixed, sums] = calls::named(NAME, || native::run_attention([q_, k_, v_], &runs, how.0, how.1))?;
    if !records(&[q, k, v])? {
        return Ok(mixed);
    }
    let kept = mixed.shallow_clone();
    let carry = move |gradients: &[Tensor]| {
        let [q, k, v] = &inputs;
        let back = || native::run_attention_backward([q, k, v, &kept, &sums], &runs, how, &gradients[0]);
        Ok(calls::named(NAME, back)?.into_iter().map(Some).collect())
    };
    Ok(function("RunAttention", &[q, k, v], vec![mixed], carry)?.remove(0))
}

/// Name in traces.
const NAME: &str = "simplemix::run_attention";

fn check([q, k, v]: [&Tensor; 3], runs: &[Run], how: Varlen) -> Result<()> {
    let shape =
        |name, tensor: &Tensor, expected: String| Error::argument(name, format!("{:?}", tensor.size()), expected);
    let [rows, heads, width] = q.size()[..] else { return Err(shape("q", q, "[T, N, D]".to_owned())) };
    let [_, key_heads, _] = k.size()[..] else { return Err(shape("k", k, "[T, K, D]".to_owned())) };
    if k.size() != [rows, key_heads, width] || key_heads == 0 || heads % key_heads != 0 {
        return Err(shape("k", k, format!("[{rows}, K, {width}], K a divisor of {heads}")));
    }
    if v.size() != k.size() {
        return Err(shape("v", v, format!("{:?}", k.size())));
    }
    for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
        if tensor.kind() != q.kind() || !has_run_attention(tensor.kind(), tensor.device()) {
            let found = format!("{:?} on {:?}", tensor.kind(), tensor.device());
            return Err(Error::argument(name, found, "f32 or f64 on a CPU, all three alike"));
        }
    }
    if how.window.is_some_and(|window| window < 1) {
        return Err(Error::argument("window", format!("{:?}", how.window), "at least 1"));
    }
    check_runs(runs, rows)
}

fn check_runs(runs: &[Run], rows: i64) -> Result<()> {
    let mut next = 0;
    for (number, run) in runs.iter().enumerate() {
        let wrong = |expected: String| Err(Error::argument("runs", format!("{run:?}"), expected));
        if run.start != next || run.length < 1 {
            return wrong(format!("a run of at least one row from row {next} on"));
        }
        let is_inside = |earlier: &Run| {
            (earlier.start..earlier.end()).contains(&run.parent) && run.parent_length <= earlier.end() - run.parent
        };
        if run.parent_length < 0 || run.parent_length > 0 && !runs[..number].iter().any(is_inside) {
            return wrong("a parent within one earlier run".to_owned());
        }
        next = run.end();
    }
    if next == rows { Ok(()) } else { Err(Error::argument("runs", format!("{next} rows"), format!("all {rows} rows"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::assert_same_on_any_threads;
    use crate::{Sequences, varlen_attention};

    fn run(start: i64, length: i64, parent: i64, parent_length: i64) -> Run {
        Run { start, length, parent, parent_length }
    }

    /// `[rows, heads, width]`, as a view with rows further apart than they are wide.
    fn numbers(rows: i64, heads: i64, width: i64, seed: i64, kind: Kind) -> Tensor {
        let raw = Tensor::arange(rows * (heads + 1) * width, (Kind::Double, Device::Cpu));
        let wide = ((raw * 0.37 + seed as f64).sin() * 1.5).to_kind(kind).view([rows, heads + 1, width]);
        wide.narrow(1, 0, heads).set_requires_grad(true)
    }

    /// Result and gradients by `attend`.
    fn with_gradients(inputs: &[Tensor; 3], attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> [Tensor; 4] {
        let leaves = inputs.each_ref().map(|t| t.detach().set_requires_grad(true));
        let mixed = attend(&leaves[0], &leaves[1], &leaves[2]);
        let weights = Tensor::arange(mixed.numel() as i64, (mixed.kind(), Device::Cpu)).cos().view_as(&mixed);
        (&mixed * weights).sum(mixed.kind()).backward();
        let [q, k, v] = leaves.map(|leaf| leaf.grad());
        [mixed.detach(), q, k, v]
    }

    /// As above, by a call of libtorch's attention for each run, over gathered keys.
    fn expected(inputs: &[Tensor; 3], runs: &[Run], how: Varlen) -> [Tensor; 4] {
        let rows: Vec<i64> = runs
            .iter()
            .flat_map(|run| (run.parent..run.parent + run.parent_length).chain(run.start..run.end()))
            .collect();
        let rows = Tensor::from_slice(&rows);
        let queries: Vec<i64> = runs.iter().map(|run| run.length).collect();
        let keys: Vec<i64> = runs.iter().map(|run| run.parent_length + run.length).collect();
        let sequences = Sequences::new(&queries, &keys, Device::Cpu).unwrap();
        with_gradients(inputs, |q, k, v| {
            varlen_attention(q, &k.index_select(0, &rows), &v.index_select(0, &rows), &sequences, how).unwrap()
        })
    }

    #[test]
    fn runs_attend_and_carry_gradients_as_libtorch_does() {
        // A prompt with three responses, a lone run longer than several blocks, another prompt with a short second response.
        let runs = [
            run(0, 90, 0, 0),
            run(90, 70, 0, 40),
            run(160, 3, 0, 40),
            run(163, 300, 0, 0),
            run(463, 5, 0, 0),
            run(468, 1, 463, 4),
        ];
        for (kind, bound) in [(Kind::Double, 1e-12), (Kind::Float, 2e-5)] {
            for (heads, key_heads, width) in [(6, 2, 8), (3, 3, 5), (4, 1, 64)] {
                let inputs = [heads, key_heads, key_heads].map(|n| numbers(469, n, width, n, kind));
                for window in [None, Some(1), Some(7), Some(65), Some(400)] {
                    let how = Varlen { scale: 1.0 / (width as f64).sqrt(), window };
                    let found = with_gradients(&inputs, |q, k, v| run_attention(q, k, v, &runs, how).unwrap());
                    for (found, expected) in found.iter().zip(expected(&inputs, &runs, how)) {
                        let error = (found - expected).abs().max().double_value(&[]);
                        assert!(error < bound, "{kind:?} {heads} {key_heads} {width} {window:?}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_products_neither_overflow_nor_vanish() {
        let inputs = [2, 1, 1].map(|n| numbers(130, n, 16, n, Kind::Float) * 60.0);
        let (runs, how) = ([run(0, 100, 0, 0), run(100, 30, 0, 50)], Varlen { scale: 1.0, window: None });
        let found = with_gradients(&inputs, |q, k, v| run_attention(q, k, v, &runs, how).unwrap());
        let exact = expected(&inputs.each_ref().map(|t| t.to_kind(Kind::Double)), &runs, how);
        let peer = expected(&inputs, &runs, how);
        for ((found, peer), exact) in found.iter().zip(peer).zip(exact) {
            let error = |t: &Tensor| (t - &exact).abs().max().double_value(&[]);
            assert!(error(found) <= 3.0 * error(&peer), "{} beside {}", error(found), error(&peer));
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let inputs = [6, 2, 2].map(|n| numbers(300, n, 16, n, Kind::Float));
        let (runs, how) = ([run(0, 200, 0, 0), run(200, 100, 0, 60)], Varlen { scale: 0.25, window: None });
        let work = || with_gradients(&inputs, |q, k, v| run_attention(q, k, v, &runs, how).unwrap());
        assert_same_on_any_threads(work);
    }

    #[test]
    fn runs_that_do_not_fit_are_refused() {
        let [q, k] = [numbers(4, 2, 8, 0, Kind::Float), numbers(4, 1, 8, 1, Kind::Float)];
        let how = Varlen { scale: 1.0, window: None };
        let error =
            |q: &Tensor, k: &Tensor, runs: &[Run], how| run_attention(q, k, k, runs, how).unwrap_err().to_string();
        for (runs, expected) in [
            (&[run(0, 3, 0, 0)][..], "`runs` is 3 rows, expected all 4 rows"),
            (&[run(1, 3, 0, 0)], "expected a run of at least one row from row 0 on"),
            (&[run(0, 4, 0, 1)], "expected a parent within one earlier run"),
            (&[run(0, 2, 0, 0), run(2, 2, 1, 2)], "expected a parent within one earlier run"),
            (&[run(0, 2, 0, 0), run(2, 2, 0, -1)], "expected a parent within one earlier run"),
        ] {
            let found = error(&q, &k, runs, how);
            assert!(found.contains(expected), "{found}");
        }
        let all = [run(0, 4, 0, 0)];
        assert!(error(&q, &k.narrow(2, 0, 4), &all, how).starts_with("`k` is "));
        assert!(error(&q, &k.to_kind(Kind::Double), &all, how).starts_with("`k` is "));
        let half = Kind::BFloat16;
        assert!(error(&q.to_kind(half), &k.to_kind(half), &all, how).starts_with("`q` is "));
        assert!(error(&q, &k, &all, Varlen { scale: 1.0, window: Some(0) }).starts_with("`window` is "));
    }
}
