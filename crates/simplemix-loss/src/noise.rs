//! Random numbers for tests. All threads share libtorch's generator, so tests that run in parallel cannot use it.

use tch::Tensor;

/// Uniform numbers in [-2, 2), in f64, the same for the same `seed`.
pub(crate) fn noise(seed: u64, size: &[i64]) -> Tensor {
    let mut state = seed;
    let draw = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 51) as f64 - 2.0
    };
    let numbers: Vec<f64> = (0..size.iter().product::<i64>()).map(draw).collect();
    Tensor::from_slice(&numbers).view(size)
}
