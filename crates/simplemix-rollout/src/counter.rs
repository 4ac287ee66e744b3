//! Uniform numbers from counters: a value is a function of its key, never of what was drawn before.

use crate::generator::mix;

/// Uniform on [0, 1), 53 bits, for `place` of `stream` under `seed`.
pub(crate) fn uniform(seed: u64, stream: u64, place: u64) -> f64 {
    unit(mix(mix(mix(seed) ^ stream) ^ place))
}

/// Uniform on [0, 1) out of random bits.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
