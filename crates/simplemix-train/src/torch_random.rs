//! Permutations as `torch.randperm` draws them on a CPU, without libtorch and its process-wide generator.
//!
//! libtorch's CPU generator is MT19937 (Matsumoto and Nishimura 1998) seeded with the low 32 bits of its seed.

/// `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`.
pub(crate) fn randperm(n: usize, seed: u64) -> Vec<usize> {
    let mut random = Mt19937::new(seed as u32);
    // libtorch changes its algorithm where 32 random bits would no longer be close to uniform.
    if n < (u32::MAX / 20) as usize { shuffled(n, &mut random) } else { inside_out(n, &mut random) }
}

/// Fisher-Yates from the front, 32 random bits an element.
fn shuffled(n: usize, random: &mut Mt19937) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let offset = random.next_u32() as usize % (n - i);
        order.swap(i, i + offset);
    }
    order
}

/// Fisher-Yates "inside out", 64 random bits an element.
fn inside_out(n: usize, random: &mut Mt19937) -> Vec<usize> {
    let mut order = Vec::with_capacity(n);
    for i in 0..n {
        let place = (random.next_u64() % (i as u64 + 1)) as usize;
        order.push(i);
        order.swap(i, place);
    }
    order
}

/// State size and the distance of the recurrence's middle term.
const N: usize = 624;
const M: usize = 397;

/// The 32-bit Mersenne Twister.
struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn twist(&mut self) {
        for i in 0..N {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let matrix = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (mixed >> 1) ^ matrix;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The first draw is the high half.
    fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// torch 2.11: `torch.randperm(10, generator=torch.Generator().manual_seed(42))`, and with 43.
    #[test]
    fn permutations_are_those_of_torch() {
        assert_eq!(randperm(10, 42), [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
        assert_eq!(randperm(10, 43), [8, 4, 9, 0, 5, 1, 6, 7, 2, 3]);
    }

    /// No other test of this crate draws from libtorch's generator, which is the process's.
    #[test]
    fn libtorch_draws_the_same() {
        for (n, seed) in [(0, 0), (1, 1), (2, u64::MAX), (624, 5), (5000, 1 << 40 | 7)] {
            tch::manual_seed(seed as i64);
            let theirs: Vec<i64> = Tensor::randperm(n, (Kind::Int64, Device::Cpu)).try_into().unwrap();
            let ours: Vec<i64> = randperm(n as usize, seed).into_iter().map(|place| place as i64).collect();
            assert_eq!(ours, theirs, "{n} {seed}");
        }
    }

    /// C++ standard, [rand.predef]: the 10000th output of a default-seeded mt19937.
    #[test]
    fn the_generator_is_the_standards() {
        let mut random = Mt19937::new(5489);
        assert_eq!((0..10_000).map(|_| random.next_u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn large_orders_hold_every_number_once() {
        let mut order = inside_out(1000, &mut Mt19937::new(3));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
