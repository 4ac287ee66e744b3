//! Products of few rows with a matrix on a CPU: what a step of decoding consists of.
//!
//! A step reads every weight once for a handful of rows. libtorch's matrix product repacks the weights as it goes, which
//! pays for itself with hundreds of rows; here they are read as they lie, three rows of the matrix against up to eight
//! of the input at a time, and the next three are asked for meanwhile. The sum of a product is taken in the same order
//! whatever the number of rows, so a row's result does not depend on the rows beside it.
//! Letters: T input rows, O outputs, I inputs.

use std::cell::RefCell;

use fork_union::ThreadPool;
use tch::{Device, Kind, Tensor};

use crate::decoder::{self, Weights};
use crate::error::{Doing, Result};
use crate::host;

/// More input rows than this are libtorch's.
const MOST_ROWS: i64 = 64;
/// Rows of a matrix that a thread takes at a time.
const ROWS_OF_A_TASK: usize = 48;
/// Numbers of a row come in steps of the widest vector.
const LANES: usize = 16;

/// Vector instructions of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vectors {
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Vectors {
    /// None where nothing is written for the processor.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn here() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return Some(Self::Avx512);
        }
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self::Avx2)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn here() -> Option<Self> {
        None
    }

    /// Whether rows of so many numbers can be multiplied.
    pub(crate) fn takes(width: usize) -> bool {
        width > 0 && width.is_multiple_of(LANES)
    }

    /// Product of every row of `matrix` with every row of `x`, both `width` wide, as `put(row of matrix, row of x, sum)`.
    pub(crate) fn products(self, matrix: &[f32], x: &[f32], width: usize, mut put: impl FnMut(usize, usize, f32)) {
        let (rows, columns) = (matrix.len() / width, x.len() / width);
        // As many sums as there are registers for, beside the rows that are multiplied.
        let most = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 4,
        };
        let mut first = 0;
        while first < rows {
            let high = if rows - first >= 3 { 3 } else { 1 };
            for start in (0..columns).step_by(most) {
                let block = &x[start * width..columns.min(start + most) * width];
                let of = &matrix[first * width..(first + high) * width];
                self.tile(of, block, width, &mut |r, t, sum| put(first + r, start + t, sum));
            }
            first += high;
        }
    }

    /// Sum of `rows`, each as wide as `sum`, times its share.
    pub(crate) fn mix(self, shares: &[f32], rows: &[f32], sum: &mut [f32]) {
        assert_eq!(shares.len() * sum.len(), rows.len());
        match self {
            // SAFETY: `Vectors::here` has seen that the processor knows the instructions.
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function for some processors only")]
            Self::Avx512 | Self::Avx2 => unsafe { mix(shares, rows, sum) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn tile(self, matrix: &[f32], x: &[f32], width: usize, put: &mut impl FnMut(usize, usize, f32)) {
        macro_rules! sizes {
            ($of:path, $high:literal; $($wide:literal)*) => {
                match x.len() / width {
                    $($wide => {
                        // SAFETY: `Vectors::here` has seen that the processor knows the instructions.
                        #[expect(unsafe_code, reason = "a function for some processors only")]
                        let sums = unsafe { $of(rows_of::<$high>(matrix, width), rows_of::<$wide>(x, width)) };
                        for (r, sums) in sums.iter().enumerate() {
                            for (t, sum) in sums.iter().enumerate() {
                                put(r, t, *sum);
                            }
                        }
                    })*
                    _ => unreachable!("as many rows as a tile has"),
                }
            };
        }
        match (self, matrix.len() / width) {
            (Self::Avx512, 3) => sizes!(avx512::tile, 3; 1 2 3 4 5 6 7 8),
            (Self::Avx512, _) => sizes!(avx512::tile, 1; 1 2 3 4 5 6 7 8),
            (Self::Avx2, 3) => sizes!(avx2::tile, 3; 1 2 3 4),
            (Self::Avx2, _) => sizes!(avx2::tile, 1; 1 2 3 4),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn rows_of<const N: usize>(matrix: &[f32], width: usize) -> [&[f32]; N] {
    std::array::from_fn(|row| &matrix[row * width..(row + 1) * width])
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn mix(shares: &[f32], rows: &[f32], sum: &mut [f32]) {
    let width = sum.len();
    for (sum, first) in sum.chunks_mut(LANES).zip((0..width).step_by(LANES)) {
        let mut lanes = [0f32; LANES];
        for (share, row) in shares.iter().zip(rows.chunks_exact(width)) {
            for (lane, value) in lanes.iter_mut().zip(&row[first..first + LANES]) {
                *lane = share.mul_add(*value, *lane);
            }
        }
        sum.copy_from_slice(&lanes);
    }
}

/// One tile in the vectors of one kind of processor.
#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $mul:ident, $fma:ident, $sum:ident) => {
        #[cfg(target_arch = "x86_64")]
        mod $name {
            #![expect(unsafe_code, reason = "vector loads take pointers")]
            use std::arch::x86_64::*;

            #[allow(unused_imports, reason = "of one kind of vector only")]
            use super::sum_of_lanes;

            /// Sums of products of `R` rows of a matrix with `T` rows of input, all of one length, a multiple of
            /// [`super::LANES`].
            #[target_feature(enable = $features)]
            pub(super) fn tile<const R: usize, const T: usize>(w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
                let len = w[0].len();
                assert!(w.iter().chain(&x).all(|row| row.len() == len) && len >= $lanes && len % $lanes == 0);
                // Plain loops: what a closure refers to would be written to memory at every turn. And the first products
                // start the sums: of zeros, the compiler would keep some in memory too.
                let (mut rows, mut sums) = ([$zero(); R], [[$zero(); T]; R]);
                for r in 0..R {
                    // SAFETY: every row has so many numbers, by the assertion.
                    rows[r] = unsafe { $load(w[r].as_ptr()) };
                }
                for t in 0..T {
                    // SAFETY: as above.
                    let x = unsafe { $load(x[t].as_ptr()) };
                    for r in 0..R {
                        sums[r][t] = $mul(rows[r], x);
                    }
                }
                for k in (1..len / $lanes).map(|step| step * $lanes) {
                    for r in 0..R {
                        _mm_prefetch::<_MM_HINT_T0>(w[r].as_ptr().wrapping_add(R * len + k).cast());
                        // SAFETY: k and as many numbers as are loaded are within a row.
                        rows[r] = unsafe { $load(w[r].as_ptr().add(k)) };
                    }
                    for t in 0..T {
                        // SAFETY: as above.
                        let x = unsafe { $load(x[t].as_ptr().add(k)) };
                        for r in 0..R {
                            sums[r][t] = $fma(rows[r], x, sums[r][t]);
                        }
                    }
                }
                let mut totals = [[0.0; T]; R];
                for r in 0..R {
                    for t in 0..T {
                        totals[r][t] = $sum(sums[r][t]);
                    }
                }
                totals
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tile!(
    avx512,
    "avx512f,avx512vl,avx2,fma",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_reduce_add_ps
);
#[cfg(target_arch = "x86_64")]
tile!(avx2, "avx2,fma", 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_fmadd_ps, sum_of_lanes);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sum_of_lanes(v: std::arch::x86_64::__m256) -> f32 {
    use std::arch::x86_64::*;
    let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
}

/// `x W^T + b` `[T, O]` of every layer for `x` `[T, I]`, fit for [`decoder::Product`]; by libtorch where this is not the way.
pub(crate) fn linear(x: &Tensor, layers: &[Weights<'_>]) -> Result<Vec<Tensor>> {
    let Some(products) = products(x, layers) else { return decoder::linear(x, layers) };
    let biased =
        products.into_iter().zip(layers).map(|(y, layer)| layer.bias.map_or(Ok(y.shallow_clone()), |b| y.f_add(b)));
    biased.collect::<std::result::Result<_, _>>().doing("a linear layer")
}

/// None for a device or kind of number that is not read here, for too many rows, or where gradients are wanted.
fn products(x: &Tensor, layers: &[Weights<'_>]) -> Option<Vec<Tensor>> {
    let &[rows, inputs] = &x.size()[..] else { return None };
    let width = usize::try_from(inputs).ok().filter(|&width| Vectors::takes(width))?;
    if rows > MOST_ROWS || wants_gradient(x) || layers.iter().any(|layer| wants_gradient(layer.weight)) {
        return None;
    }
    let (vectors, x) = (Vectors::here()?, host::values(x)?);
    let empty = |layer: &Weights<'_>| Tensor::f_empty([rows, layer.weight.size()[0]], (Kind::Float, Device::Cpu)).ok();
    let mut products = layers.iter().map(empty).collect::<Option<Vec<_>>>()?;
    let entries = |y| host::values_mut(y).map(host::Shared::new);
    let outs = products.iter_mut().map(entries).collect::<Option<Vec<_>>>()?;
    // A task is some rows of one matrix; all matrices are gone through at once.
    let mut tasks = Vec::new();
    for (layer, out) in layers.iter().zip(&outs) {
        let parts = host::values(layer.weight)?.chunks(ROWS_OF_A_TASK * width).enumerate();
        let outputs = layer.weight.size()[0] as usize;
        tasks.extend(parts.map(|(part, matrix)| (matrix, out, outputs, part * ROWS_OF_A_TASK)));
    }
    by_all(tasks.len(), |task| {
        let (matrix, out, outputs, first) = &tasks[task];
        let high = matrix.len() / width;
        // By rows of the output, so that it is written in stretches.
        let mut sums = [0.0; ROWS_OF_A_TASK * MOST_ROWS as usize];
        vectors.products(matrix, x, width, |row, t, sum| sums[t * ROWS_OF_A_TASK + row] = sum);
        for (t, sums) in sums.chunks_exact(ROWS_OF_A_TASK).take(x.len() / width).enumerate() {
            out.put(t * outputs + first, &sums[..high]);
        }
    });
    Some(products)
}

thread_local! {
    static TEAM: RefCell<Option<ThreadPool>> = const { RefCell::new(None) };
}

/// While it lives, threads stand by for this one's [`by_all`], and libtorch works with this one alone.
///
/// A step of decoding has some hundred products of some tens of microseconds each: about what rayon takes to wake a thread.
/// These do not sleep between products, so they are there while rows are decoded only.
pub(crate) struct StandBy {
    threads: i32,
}

impl StandBy {
    pub(crate) fn new() -> Self {
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        // Without them this thread does all of it.
        TEAM.set(usize::try_from(threads).ok().filter(|&n| n > 1).and_then(|n| ThreadPool::try_spawn(n).ok()));
        Self { threads }
    }
}

impl Drop for StandBy {
    fn drop(&mut self) {
        TEAM.take();
        tch::set_num_threads(self.threads);
    }
}

/// Goes through tasks with this thread and those that stand by for it.
pub(crate) fn by_all(tasks: usize, work: impl Fn(usize) + Sync) {
    TEAM.with_borrow_mut(|team| match team {
        Some(team) if tasks > 1 => drop(team.for_n_dynamic(tasks, |prong| work(prong.task_index))),
        _ => (0..tasks).for_each(work),
    });
}

/// Whether a product with `tensor` would be remembered for a backward pass. A parameter wants gradients even while none
/// are kept, and so does a view of it; what is computed from it tells.
fn wants_gradient(tensor: &Tensor) -> bool {
    tensor.requires_grad() && tensor.narrow(0, 0, 0).neg().requires_grad()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn narrower_vectors_give_the_same() {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return;
        }
        let (matrix, x) = (numbers(7, 32, 3), numbers(5, 32, 1));
        let mut found = vec![0.0; 35];
        let (w, rows) = (host::values(&matrix).unwrap(), host::values(&x).unwrap());
        Vectors::Avx2.products(w, rows, 32, |row, t, sum| found[t * 7 + row] = sum);
        let error = Tensor::from_slice(&found).view([5, 7]) - x.matmul(&matrix.tr());
        assert!(error.abs().max().double_value(&[]) < 1e-5);
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
