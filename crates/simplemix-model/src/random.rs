//! Random numbers from counters: a value is a function of its key, never of what was drawn before.
//!
//! The mixer is SplitMix64's finaliser (Steele, Lea and Flood 2014), applied to seed, stream and position in turn.

/// SplitMix64's output function.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 bits for `position` of `stream`.
pub(crate) fn bits(stream: u64, position: u64) -> u64 {
    mix(mix(stream) ^ position)
}

/// Uniform on [0, 1), 53 bits, for `position` of `stream` under `seed`.
pub(crate) fn uniform(seed: u64, stream: u64, position: u64) -> f64 {
    let bits = mix(mix(mix(seed) ^ stream) ^ position);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// `count` values of a centred normal distribution (Box-Muller).
pub(crate) fn normals(seed: u64, stream: u64, count: usize, deviation: f64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| {
            let radius = (-2.0 * (1.0 - uniform(seed, stream, 2 * i)).ln()).sqrt();
            let angle = std::f64::consts::TAU * uniform(seed, stream, 2 * i + 1);
            (deviation * radius * angle.cos()) as f32
        })
        .collect()
}

/// `count` values, uniform within `bound` of zero.
pub(crate) fn uniforms(seed: u64, stream: u64, count: usize, bound: f64) -> Vec<f32> {
    (0..count as u64).map(|i| ((2.0 * uniform(seed, stream, i) - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_fills_the_unit_interval_evenly() {
        let mut bins = [0u32; 16];
        for i in 0..16_000 {
            bins[(uniform(7, i % 13, i) * 16.0) as usize] += 1;
        }
        // Chi-square with 15 degrees of freedom: 99.9 % of samples stay below 37.7.
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 37.7, "{chi}");
    }

    #[test]
    fn normals_have_the_asked_spread() {
        let values = normals(1, 2, 20_000, 0.02);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 6e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 4e-4, "{variance}");
    }
}
