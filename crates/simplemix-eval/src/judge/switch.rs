//! Order in which a judge sees two responses. The order depends on the instruction only, as in the official package:
//! Python's `random.Random("is_switched_outputs" + instruction + "0").choices([False, True])[0]`.

use sha2::{Digest, Sha512};

/// Whether the responses to an instruction are swapped before the judge sees them. The official package uses the seed
/// 0.
///
/// # Examples
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
    // Leading zero bytes are not part of an integer.
    while key.len() > 1 && key.last() == Some(&0) {
        key.pop();
    }
    let (high, low) = first_two(seeded(&key));
    (f64::from(high >> 5) * 67_108_864.0 + f64::from(low >> 6)) / 9_007_199_254_740_992.0
}

/// Number of words in the generator's state.
const N: usize = 624;

/// The state of MT19937 after `init_by_array` (Matsumoto and Nishimura 2002), for keys of any length.
fn seeded(key: &[u32]) -> [u32; N] {
    let mut state = [0u32; N];
    state[0] = 19_650_218;
    for i in 1..N {
        state[i] = spread(state[i - 1]).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
    }
    let mut i = 1;
    let mut advance = |state: &mut [u32; N], change: &dyn Fn(u32, u32, usize) -> u32| {
        state[i] = change(state[i], spread(state[i - 1]), i);
        i += 1;
        if i == N {
            state[0] = state[N - 1];
            i = 1;
        }
    };
    for (j, word) in (0..key.len()).cycle().zip(key.iter().cycle()).take(N.max(key.len())) {
        advance(&mut state, &|old, before, _| {
            (old ^ before.wrapping_mul(1_664_525)).wrapping_add(*word).wrapping_add(j as u32)
        });
    }
    for _ in 1..N {
        advance(&mut state, &|old, before, i| (old ^ before.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32));
    }
    state[0] = 1 << 31;
    state
}

fn spread(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// The first two numbers from a state.
fn first_two(state: [u32; N]) -> (u32, u32) {
    let number = |i: usize| {
        let mixed = (state[i] & 0x8000_0000) | (state[i + 1] & 0x7fff_ffff);
        let mut y = state[i + 397] ^ (mixed >> 1) ^ if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    };
    (number(0), number(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `random.Random(text).random()` in Python 3.11.
    #[test]
    fn numbers_match_python() {
        assert_eq!(python_random("is_switched_outputsa0"), 0.719_058_498_655_510_4);
        // The text is longer than the generator's state.
        assert_eq!(python_random(&"x".repeat(5000)), 0.576_183_544_442_993_9);
    }
}
