//! Random numbers from counters: a value is a function of its key, never of what was drawn before.

/// A step of SplitMix64 (Steele, Lea and Flood 2014): spreads a counter over all bits.
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A prompt's random stream, from its id alone (FNV-1a), so that neither order nor company of prompts matters.
pub(crate) fn stream(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Uniform on [0, 1), 53 bits, for `place` of `stream` under `seed`.
pub(crate) fn uniform(seed: u64, stream: u64, place: u64) -> f64 {
    (mix(mix(mix(seed) ^ stream) ^ place) >> 11) as f64 / (1u64 << 53) as f64
}
