//! One query a row over the row's own columns of the cache, on a CPU.
//!
//! libtorch attends for every row to all columns, those before a row's first token masked. Here a row sees its own only,
//! so what comes out depends neither on the rows beside it nor on how the cache is laid out.
//! Letters: B rows, N query heads, K key/value heads, G queries of a key head, S columns, D head width.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::few_rows::{Vectors, by_all};
use crate::host;

/// Mixed values `[B, N * D]` of queries `[B, N, D]` over keys and values `[B, K, S, D]`, of which row `b` sees the columns
/// `seen(b)`. None where this is not the way: for another device or kind of number, or where gradients are wanted.
pub(super) fn attend(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    seen: impl Fn(usize) -> Range<usize> + Sync,
    scale: f32,
) -> Option<Tensor> {
    let &[rows, heads, columns, width] = &keys.size()[..] else { return None };
    let (heads, columns, width) = (heads as usize, columns as usize, width as usize);
    let queries = q.size()[1] as usize / heads;
    let vectors = Vectors::here().filter(|_| Vectors::takes(width) && !q.requires_grad())?;
    let q = q.contiguous();
    let (q, keys, values) = (host::values(&q)?, host::values(keys)?, host::values(values)?);
    let mut mixed = Tensor::f_empty([rows, (heads * queries * width) as i64], (Kind::Float, Device::Cpu)).ok()?;
    let out = host::Shared::new(host::values_mut(&mut mixed)?);
    // A task is one key head of one row.
    by_all(rows as usize * heads, |at| {
        let seen = seen(at / heads);
        let (start, end) = ((at * columns + seen.start) * width, (at * columns + seen.end) * width);
        let (q, keys, values) = (&q[at * queries * width..][..queries * width], &keys[start..end], &values[start..end]);
        let mut weights = vec![0.0; queries * seen.len()];
        vectors.products(keys, q, width, |column, query, product| {
            weights[query * seen.len() + column] = product * scale;
        });
        let mut sums = vec![0.0; width];
        for (query, weights) in weights.chunks_exact_mut(seen.len()).enumerate() {
            softmax(weights);
            vectors.mix(weights, values, &mut sums);
            out.put((at * queries + query) * width, &sums);
        }
    });
    Some(mixed)
}

/// Shares in place of their logarithms.
fn softmax(weights: &mut [f32]) {
    let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for weight in weights.iter_mut() {
        *weight = (*weight - most).exp();
        total += *weight;
    }
    for weight in weights {
        *weight /= total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_sees_its_own_columns() {
        let numbers = |shape: &[i64], seed: f64| {
            let count = shape.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + seed).sin().view(shape)
        };
        let (q, k, v) = (numbers(&[2, 6, 16], 0.0), numbers(&[2, 2, 9, 16], 1.0), numbers(&[2, 2, 9, 16], 2.0));
        let seen = [0..8usize, 3..8];
        let mixed = attend(&q, &k, &v, |row| seen[row].clone(), 0.25).unwrap();
        for (row, seen) in seen.iter().enumerate() {
            let (at, len) = (seen.start as i64, seen.len() as i64);
            let of = |t: &Tensor| t.narrow(0, row as i64, 1).narrow(2, at, len).repeat_interleave_self_int(3, 1, None);
            let one = q.narrow(0, row as i64, 1).unsqueeze(2);
            let expected =
                Tensor::scaled_dot_product_attention(&one, &of(&k), &of(&v), None::<&Tensor>, 0.0, false, 0.25, false);
            let error = expected.flatten(1, -1) - mixed.narrow(0, row as i64, 1);
            assert!(error.abs().max().double_value(&[]) < 1e-5);
        }
    }
}
