//! Whether a judge sees two answers in the other order. It depends on the instruction alone, as in the official package:
//! `random.Random("is_switched_outputs" + instruction + "0").choices([False, True])[0]` of Python.

use rand_mt::Mt;
use sha2::{Digest, Sha512};

/// Whether the answers to an instruction are swapped before the judge sees them, under a seed; the official one is 0.
///
/// ```
/// assert!(simplemix_eval::judge::is_switched("How did US states get their names?", 0));
/// assert!(!simplemix_eval::judge::is_switched("Ünïcode ☃", 0));
/// ```
pub fn is_switched(instruction: &str, seed: u64) -> bool {
    python_random(&format!("is_switched_outputs{instruction}{seed}")) >= 0.5
}

/// The first number of Python's `random.Random(text).random()`: MT19937, seeded by the text and its SHA-512 as one
/// big-endian integer, least significant word first.
fn python_random(text: &str) -> f64 {
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend_from_slice(&Sha512::digest(text.as_bytes()));
    let word = |chunk: &[u8]| chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    let mut key: Vec<u32> = bytes.rchunks(4).map(word).collect();
    // Leading zero bytes are no part of an integer.
    while key.len() > 1 && key.last() == Some(&0) {
        key.pop();
    }
    let mut random = Mt::new_with_key(key);
    let (high, low) = (random.next_u32() >> 5, random.next_u32() >> 6);
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python 3.11, `random.Random(text).random()`.
    #[test]
    fn numbers_are_pythons() {
        assert_eq!(python_random("is_switched_outputsa0"), 0.719_058_498_655_510_4);
        assert_eq!(python_random(&"x".repeat(5000)), 0.576_183_544_442_993_9);
    }
}
