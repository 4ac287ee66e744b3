//! Permutations of `numpy.random.default_rng(seed)`, by which `datasets` shuffles.
//!
//! The generator is PCG64 (O'Neill 2014) with NumPy's SeedSequence before it. A permutation swaps from the end; an index is drawn by
//! cutting random bits to the width of the range until they fit it.

/// The numbers from 0 to below `count`, as `numpy.random.default_rng(seed).permutation(count)` orders them.
pub(crate) fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Pcg64::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.up_to(last as u64) as usize);
    }
    order
}

/// PCG with 128 bits of state and 64 of output, of which halves are handed out too.
struct Pcg64 {
    state: u128,
    increment: u128,
    half: Option<u32>,
}

impl Pcg64 {
    const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

    fn new(seed: u64) -> Self {
        let [state, stream] = seed_sequence(seed);
        let mut random = Self { state: 0, increment: (stream << 1) | 1, half: None };
        random.step();
        random.state = random.state.wrapping_add(state);
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(Self::MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// The low half of a new output, then its high half.
    fn next_u32(&mut self) -> u32 {
        if let Some(high) = self.half.take() {
            return high;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }

    /// A number from 0 to `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        let mask = u64::MAX >> most.leading_zeros();
        loop {
            let bits = if most > u64::from(u32::MAX) { self.next_u64() } else { u64::from(self.next_u32()) };
            if bits & mask <= most {
                return bits & mask;
            }
        }
    }
}

/// State and stream that NumPy's SeedSequence makes of a seed.
fn seed_sequence(seed: u64) -> [u128; 2] {
    let mut hash = Hash { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(|word| hash.of(word));
    for from in 0..pool.len() {
        for to in (0..pool.len()).filter(|to| *to != from) {
            pool[to] = mixed(pool[to], hash.of(pool[from]));
        }
    }
    let mut hash = Hash { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
    let words: Vec<u128> = pool.iter().chain(&pool).map(|word| u128::from(hash.of(*word))).collect();
    // Words of 64 bits, the low half first; of two such words the high one comes first.
    [0, 4].map(|at| words[at] << 64 | words[at + 1] << 96 | words[at + 2] | words[at + 3] << 32)
}

struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.constant);
        word ^ (word >> 16)
    }
}

fn mixed(a: u32, b: u32) -> u32 {
    let word = a.wrapping_mul(0xca01_f9dd).wrapping_sub(b.wrapping_mul(0x4973_f715));
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NumPy 2: `numpy.random.default_rng(seed).permutation(count)`.
    #[test]
    fn permutations_are_those_of_numpy() {
        assert_eq!(permutation(10, 0), [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]);
        assert_eq!(permutation(10, 42), [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]);
        assert_eq!(permutation(10, (1 << 40) + 7), [6, 2, 8, 7, 9, 3, 4, 1, 5, 0]);
        let long = permutation(100_003, 42);
        assert_eq!(
            (&long[..5], &long[100_000..]),
            (&[28963, 51751, 46627, 14169, 62747][..], &[5668, 22113, 75400][..])
        );
        let sum: usize = long.iter().enumerate().map(|(place, row)| row * place % 1_000_003).sum();
        assert_eq!(sum, 49_820_234_513);
        assert_eq!((permutation(0, 1), permutation(1, 1)), (vec![], vec![0]));
    }
}
