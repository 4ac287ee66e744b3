//! Products of few rows with a matrix on a CPU, which dominate a step of decoding.
//!
//! A step reads every weight once for a handful of rows. libtorch's matrix product repacks the weights on the way, which
//! pays off for hundreds of rows; here they are read in place. The order of summation does not depend on the number of
//! rows, so a row's result does not depend on the rows computed with it.
//! Letters: T input rows, O outputs, I inputs.

use tch::Tensor;

use crate::error::{Doing, Result};
use crate::host::{Columns, NewTensor, values};
use crate::linear::{self, Weights};
use crate::stand_by::for_all;
use crate::vectors::Vectors;

/// Above this many input rows, use libtorch's matmul.
const MOST_ROWS: usize = 64;
/// Rows of a matrix in one task of a thread.
const TASK_ROWS: usize = 48;

/// A [`linear::Product`]: `x W^T + b` `[T, O]` of every layer for `x` `[T, I]`; falls back to libtorch.
pub(crate) fn linear(x: &Tensor, layers: &[Weights<'_>]) -> Result<Vec<Tensor>> {
    let Some(products) = products(x, layers) else { return linear::linear(x, layers) };
    let biased =
        products.into_iter().zip(layers).map(|(y, layer)| layer.bias.map_or(Ok(y.shallow_clone()), |b| y.f_add(b)));
    biased.collect::<std::result::Result<_, _>>().doing("a linear layer")
}

/// Products without bias; `None` for a device or element type without kernels, too many rows, or if gradients are recorded.
fn products(x: &Tensor, layers: &[Weights<'_>]) -> Option<Vec<Tensor>> {
    let &[rows, inputs] = &x.size()[..] else { return None };
    let width = usize::try_from(inputs).ok().filter(|&width| Vectors::takes(width))?;
    let rows = usize::try_from(rows).ok().filter(|rows| (1..=MOST_ROWS).contains(rows))?;
    if wants_gradient(x) || layers.iter().any(|layer| wants_gradient(layer.weight)) {
        return None;
    }
    let vectors = Vectors::detect()?;
    #[expect(unsafe_code, reason = "views of tensors' memory")]
    // SAFETY: the slices end with this function, which writes to its new tensors alone.
    let (x, matrices) =
        unsafe { (values(x)?, layers.iter().map(|layer| values(layer.weight)).collect::<Option<Vec<&[f32]>>>()?) };
    let new = |layer: &Weights<'_>| NewTensor::zeros(&[rows as i64, layer.weight.size()[0]]);
    let mut products = layers.iter().map(new).collect::<Option<Vec<_>>>()?;
    // A task computes some rows of one matrix; tasks of all matrices run together.
    let mut tasks = Vec::new();
    for (matrix, product) in matrices.iter().zip(&mut products) {
        tasks.extend(matrix.chunks(TASK_ROWS * width).zip(product.column_blocks(rows, TASK_ROWS)));
    }
    // Clearing room for 64 rows costs a task of one row as much as its products.
    if rows <= 8 {
        for_all(tasks, |(matrix, output)| block::<{ 8 * TASK_ROWS }>(vectors, matrix, x, width, output));
    } else {
        for_all(tasks, |(matrix, output)| block::<{ MOST_ROWS * TASK_ROWS }>(vectors, matrix, x, width, output));
    }
    Some(products.into_iter().map(NewTensor::into_tensor).collect())
}

/// Products of `x` with at most [`TASK_ROWS`] rows of a matrix. They are collected by rows of the output, in room for `N`,
/// so that it is written in stretches.
fn block<const N: usize>(vectors: Vectors, matrix: &[f32], x: &[f32], width: usize, mut output: Columns<'_>) {
    let mut sums = [0.0; N];
    vectors.products(matrix, x, width, |row, t, sum| sums[t * TASK_ROWS + row] = sum);
    for (t, sums) in sums.chunks_exact(TASK_ROWS).take(x.len() / width).enumerate() {
        let output = output.row(t);
        output.copy_from_slice(&sums[..output.len()]);
    }
}

/// Whether autograd would record a product with `tensor`. A parameter and its views require gradients even inside
/// `no_grad`; the result of an operation does not.
fn wants_gradient(tensor: &Tensor) -> bool {
    tensor.requires_grad() && tensor.narrow(0, 0, 0).neg().requires_grad()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn product(x: &Tensor, weight: &Tensor) -> Option<Tensor> {
        Some(products(x, &[Weights { weight, bias: None }])?.remove(0))
    }

    fn numbers(rows: i64, width: i64, seed: i64) -> Tensor {
        let raw = Tensor::arange(rows * width, (Kind::Float, Device::Cpu)).view([rows, width]);
        (raw * 0.37 + seed as f64).sin()
    }

    #[test]
    fn products_are_those_of_libtorch_whatever_the_number_of_rows() {
        let weight = numbers(101, 48, 3);
        for rows in [1, 2, 3, 8, 9, 31, 64] {
            let x = numbers(rows, 48, 1);
            let y = product(&x, &weight).unwrap();
            let error = (&y - x.linear(&weight, None::<&Tensor>)).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{rows} rows: {error}");
            // Bit for bit what the first row gives alone.
            assert_eq!(product(&x.narrow(0, 0, 1), &weight).unwrap(), y.narrow(0, 0, 1));
        }
    }

    #[test]
    fn matrices_of_one_input_are_told_apart() {
        let (x, a, b) = (numbers(3, 32, 0), numbers(50, 32, 1), numbers(4, 32, 2));
        let bias = numbers(1, 4, 5).squeeze_dim(0);
        let layers = [Weights { weight: &a, bias: None }, Weights { weight: &b, bias: Some(&bias) }];
        let found = linear(&x, &layers).unwrap();
        for (found, layer) in found.iter().zip(layers) {
            let error = found - x.linear(layer.weight, layer.bias);
            assert!(error.abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn what_needs_gradients_or_other_numbers_is_left_to_libtorch() {
        let (x, weight) = (numbers(4, 32, 1), numbers(8, 32, 2));
        assert!(product(&x, &weight.to_kind(Kind::Double)).is_none());
        assert!(product(&x, &weight.narrow(1, 0, 16)).is_none());
        assert!(product(&numbers(65, 32, 1), &weight).is_none());
        assert!(product(&numbers(4, 24, 1), &numbers(8, 24, 1)).is_none());
        let weight = weight.set_requires_grad(true);
        assert!(product(&x, &weight).is_none());
        tch::no_grad(|| assert!(product(&x, &weight).is_some()));
    }
}
