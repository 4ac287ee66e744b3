//! Attention of one query per row over the row's own columns of the cache, on a CPU.
//!
//! libtorch attends to all columns for every row, with those before a row's first token masked. Here a row sees its own
//! columns only, so the result depends neither on other rows nor on the layout of the cache.
//! Letters: B rows, N query heads, K key/value heads, G queries of a key head, S columns, D head width.

use std::ops::Range;

use tch::Tensor;

use crate::host::{NewTensor, values};
use crate::stand_by::for_all;
use crate::vectors::Vectors;

/// Mixed values `[B, N * D]` of queries `[B, N, D]` over keys and values `[B, K, S, D]`, of which row `b` sees the columns
/// `seen(b)`. `None` for a device or element type without kernels, or if gradients are recorded.
pub(super) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    seen: impl Fn(usize) -> Range<usize> + Sync,
    scale: f32,
) -> Option<Tensor> {
    let &[rows, heads, columns, width] = &k.size()[..] else { return None };
    let (heads, columns, width) = (heads as usize, columns as usize, width as usize);
    let queries = q.size()[1] as usize / heads;
    let vectors = Vectors::detect().filter(|_| Vectors::takes(width) && !q.requires_grad())?;
    let q = q.contiguous();
    #[expect(unsafe_code, reason = "views of tensors' memory")]
    // SAFETY: the slices end with this function, which writes to its new tensor alone.
    let (q, k, v) = unsafe { (values(&q)?, values(k)?, values(v)?) };
    let mut mixed = NewTensor::zeros(&[rows, (heads * queries * width) as i64])?;
    // A task is one key head of one row.
    for_all(mixed.entries().chunks_mut(queries * width).enumerate().collect(), |(at, out): (usize, &mut [f32])| {
        let seen = seen(at / heads);
        let (start, end) = ((at * columns + seen.start) * width, (at * columns + seen.end) * width);
        let (q, k, v) = (&q[at * queries * width..][..queries * width], &k[start..end], &v[start..end]);
        let mut weights = vec![0.0; queries * seen.len()];
        vectors.products(k, q, width, |column, query, product| {
            weights[query * seen.len() + column] = product * scale;
        });
        for (weights, out) in weights.chunks_exact_mut(seen.len()).zip(out.chunks_exact_mut(width)) {
            softmax(weights);
            vectors.mix(weights, v, out);
        }
    });
    Some(mixed.into_tensor())
}

/// Replaces logits by their softmax.
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
    use tch::{Device, Kind};

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
