//! Two sources: the first gives `round(w t)` of the first `t` positions.
//!
//! Rounding strays by at most half a row, and the difference of two rounded values by less than one. So every run of
//! positions, such as a batch, holds its share rounded up or down.

use super::rounded;

/// The first source gives `a` of every `q` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Two {
    a: u64,
    q: u64,
}

impl Two {
    pub(crate) fn new(a: u64, b: u64) -> Self {
        Self { a, q: a + b }
    }

    #[inline]
    pub(crate) fn at(&self, position: u64) -> (usize, u64) {
        let before = rounded(self.a, self.q, position);
        match rounded(self.a, self.q, position + 1) > before {
            true => (0, before),
            false => (1, position - before),
        }
    }

    pub(crate) fn count(&self, source: usize, end: u64) -> u64 {
        let first = rounded(self.a, self.q, end);
        if source == 0 { first } else { end - first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{SourceOrder, testing::deviation};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_prefix_strays_by_more_than_half_a_row(a in 1u64..60, b in 1u64..60) {
            let worst = deviation(&SourceOrder::Two(Two::new(a, b)), &[a, b], 2 * (a + b));
            prop_assert!(worst <= 0.5 + 1e-9, "{worst}");
        }

        #[test]
        fn every_batch_holds_floor_or_ceil(a in 1u64..40, b in 1u64..40, size in 1u64..50) {
            let order = Two::new(a, b);
            for batch in 0..40 {
                let held = order.count(0, (batch + 1) * size) - order.count(0, batch * size);
                let due = a as f64 * size as f64 / (a + b) as f64;
                prop_assert!((held as f64 - due).abs() < 1.0, "{held} of {due}");
            }
        }
    }

    #[test]
    fn half_and_half_alternates() {
        let order = Two::new(1, 1);
        assert_eq!((0..6).map(|t| order.at(t).0).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn far_positions_are_as_exact_as_near_ones() {
        let order = Two::new(3, 7);
        let far = 10 * (1u64 << 58);
        assert_eq!(order.count(0, far), 3 * (1u64 << 58));
        assert_eq!(order.at(far).0, order.at(0).0);
    }
}
