//! Random numbers from counters: every value is a function of seed, stream and position, whatever was drawn before.

/// Uniform on [0, 1) with 53 bits, at `position` of `stream` under `seed`.
pub(crate) fn uniform(seed: u64, stream: u64, position: u64) -> f64 {
    unit(mix(mix(mix(seed) ^ stream) ^ position))
}

/// Uniform on [0, 1), from 64 random bits.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Random stream of a prompt, from its id alone (FNV-1a), so that neither the order nor the number of prompts matters.
pub(crate) fn stream(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Seed of one sample for a server: from the run's seed, the prompt's id and the sample's number. It has 31 bits, which
/// every server accepts.
#[cfg(feature = "server")]
pub(crate) fn sample_seed(seed: u64, id: &str, sample: usize) -> u64 {
    mix(mix(seed ^ stream(id)) ^ sample as u64) >> 33
}

/// SplitMix64's output function (Steele, Lea and Flood 2014).
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
