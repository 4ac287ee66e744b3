//! Products of f32 rows in the processor's vector registers.
//!
//! A kernel multiplies up to three rows of a matrix, read in place, with up to eight rows of input, and prefetches the
//! matrix' next rows. The order of summation does not depend on the number of rows.

/// Numbers in the widest vector; rows are processed in multiples of it.
const LANES: usize = 16;

/// Proof that the processor has vector instructions that kernels are written for: only [`Vectors::detect`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vectors(Width);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Vectors {
    /// Instructions of this processor; `None` if no kernel is written for it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn detect() -> Option<Self> {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return None;
        }
        let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        Some(Self(if wide { Width::Avx512 } else { Width::Avx2 }))
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    /// Whether rows of `width` numbers can be multiplied.
    pub(crate) fn takes(width: usize) -> bool {
        width > 0 && width.is_multiple_of(LANES)
    }

    /// Dot product of every row of `matrix` with every row of `x`, both `width` wide, as `put(row of matrix, row of x, sum)`.
    pub(crate) fn products(self, matrix: &[f32], x: &[f32], width: usize, mut put: impl FnMut(usize, usize, f32)) {
        let (rows, columns) = (matrix.len() / width, x.len() / width);
        // As many sums as the registers hold besides the rows that are multiplied.
        let most = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Width::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Width::Avx2 => 4,
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

    /// Writes the sum of `rows`, each as wide as `sum` and times its share, to `sum`.
    pub(crate) fn mix(self, shares: &[f32], rows: &[f32], sum: &mut [f32]) {
        assert_eq!(shares.len() * sum.len(), rows.len());
        match self.0 {
            // SAFETY: `Vectors::detect` has found AVX2 and FMA, which both widths have.
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function for some processors only")]
            Width::Avx512 | Width::Avx2 => unsafe { mix(shares, rows, sum) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn tile(self, matrix: &[f32], x: &[f32], width: usize, put: &mut impl FnMut(usize, usize, f32)) {
        macro_rules! sizes {
            ($of:path, $high:literal; $($wide:literal)*) => {
                match x.len() / width {
                    $($wide => {
                        // SAFETY: `Vectors::detect` has found the instructions of this width.
                        #[expect(unsafe_code, reason = "a function for some processors only")]
                        let sums = unsafe { $of(rows_of::<$high>(matrix, width), rows_of::<$wide>(x, width)) };
                        for (r, sums) in sums.iter().enumerate() {
                            for (t, sum) in sums.iter().enumerate() {
                                put(r, t, *sum);
                            }
                        }
                    })*
                    _ => unreachable!("`products` gives a tile 1 to 8 rows, or 1 to 4"),
                }
            };
        }
        match (self.0, matrix.len() / width) {
            (Width::Avx512, 3) => sizes!(avx512::tile, 3; 1 2 3 4 5 6 7 8),
            (Width::Avx512, _) => sizes!(avx512::tile, 1; 1 2 3 4 5 6 7 8),
            (Width::Avx2, 3) => sizes!(avx2::tile, 3; 1 2 3 4),
            (Width::Avx2, _) => sizes!(avx2::tile, 1; 1 2 3 4),
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

/// Defines the module of one vector width, with its kernel `tile`.
#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $mul:ident, $fma:ident, $sum:ident) => {
        #[cfg(target_arch = "x86_64")]
        mod $name {
            #![expect(unsafe_code, reason = "vector loads take pointers")]
            use std::arch::x86_64::*;

            #[allow(unused_imports, reason = "only one width uses it")]
            use super::sum_of_lanes;

            /// Sums of products of `R` rows of a matrix with `T` rows of input, all of one length, a multiple of
            /// [`super::LANES`].
            #[target_feature(enable = $features)]
            pub(super) fn tile<const R: usize, const T: usize>(w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
                let len = w[0].len();
                assert!(w.iter().chain(&x).all(|row| row.len() == len) && len >= $lanes && len % $lanes == 0);
                // Plain loops, since the compiler would spill variables captured by a closure in every iteration. The first
                // products initialise the sums, since it would also spill sums initialised with zeros.
                let (mut rows, mut sums) = ([$zero(); R], [[$zero(); T]; R]);
                for r in 0..R {
                    // SAFETY: a row holds at least as many numbers as a vector, by the assertion.
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
                        // SAFETY: k is at most the row's length less a vector's, so the vector is inside the row.
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn both_widths_give_the_products() {
        let Some(Vectors(best)) = Vectors::detect() else { return };
        let numbers =
            |count: usize, seed: f32| (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect::<Vec<f32>>();
        let (matrix, x) = (numbers(7 * 32, 3.0), numbers(5 * 32, 1.0));
        for width in [Width::Avx2, best] {
            Vectors(width).products(&matrix, &x, 32, |row, t, sum| {
                let want: f32 = (0..32).map(|i| matrix[row * 32 + i] * x[t * 32 + i]).sum();
                assert!((sum - want).abs() < 1e-5, "{width:?} {row} {t}");
            });
        }
    }
}
