//! NumPy's default generator, as far as [`crate::parity`] needs it for `default_rng(seed).choice(k, size, p=p)`.
//!
//! SeedSequence and PCG64 follow NumPy 2 (O'Neill 2014; XSL-RR output of a 128-bit congruential generator).

/// State of `numpy.random.default_rng(seed)`.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    state: u128,
    increment: u128,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_state(seed);
        let (initial, sequence) = (u128::from(a) << 64 | u128::from(b), u128::from(c) << 64 | u128::from(d));
        let mut generator = Self { state: 0, increment: sequence << 1 | 1 };
        generator.step();
        generator.state = generator.state.wrapping_add(initial);
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// Uniform on [0, 1), with 53 bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let bits = folded.rotate_right((self.state >> 122) as u32);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Bounds with which `choice` compares uniform numbers.
pub(crate) fn cumulative(probabilities: &[f64]) -> Vec<f64> {
    let mut sums = Vec::with_capacity(probabilities.len());
    let mut sum = 0.0;
    for p in probabilities {
        sum += p;
        sums.push(sum);
    }
    sums.iter().map(|s| s / sum).collect()
}

/// Computes `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_state(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let words = if seed >> 32 == 0 { vec![seed as u32] } else { vec![seed as u32, (seed >> 32) as u32] };
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mut pool = [0u32; POOL];
    for (i, slot) in pool.iter_mut().enumerate() {
        *slot = hash(words.get(i).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hash(pool[from]).wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let halves: Vec<u32> = (0..8)
        .map(|i| {
            let value = pool[i % POOL] ^ constant;
            constant = constant.wrapping_mul(0x58f3_8ded);
            let value = value.wrapping_mul(constant);
            value ^ value >> 16
        })
        .collect();
    std::array::from_fn(|i| u64::from(halves[2 * i]) | u64::from(halves[2 * i + 1]) << 32)
}
