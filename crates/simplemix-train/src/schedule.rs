//! Learning rate over the run: warm-up, then constant, linear or cosine decay to zero.
//!
//! Definitions are those of transformers' `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` and
//! `get_constant_schedule_with_warmup`, so that a curve matches TRL's.

simplemix_settings::choice! {
    /// Shape of the learning rate after warm-up.
    pub enum Schedule {
        /// Linear decay to zero at the last step; TRL's default.
        Linear = "linear";
        /// Half a cosine down to zero at the last step.
        Cosine = "cosine";
        /// No decay.
        Constant = "constant";
    }
}

impl Schedule {
    /// Factor on the peak learning rate for update `step` (counted from zero) of `steps`, after `warmup` updates.
    ///
    /// ```
    /// use simplemix_train::Schedule;
    /// // Ten updates, two of them warm-up: the first has rate 0, the third the full rate.
    /// let rates: Vec<f64> = [0, 1, 2, 6].map(|s| Schedule::Linear.factor(s, 10, 2)).into();
    /// assert_eq!(rates, [0.0, 0.5, 1.0, 0.5]);
    /// ```
    pub fn factor(self, step: u64, steps: u64, warmup: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
            Self::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers 5: `get_cosine_schedule_with_warmup(opt, 2, 10)`, rates of updates 0..10 at peak 1.
    #[test]
    fn cosine_is_that_of_transformers() {
        let expected = [0.0, 0.5, 1.0, 0.9619398, 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602];
        for (step, want) in expected.iter().enumerate() {
            let rate = Schedule::Cosine.factor(step as u64, 10, 2);
            assert!((rate - want).abs() < 1e-7, "{step}: {rate} {want}");
        }
    }

    #[test]
    fn without_warm_up_the_first_update_has_the_full_rate() {
        for schedule in [Schedule::Linear, Schedule::Cosine, Schedule::Constant] {
            assert_eq!(schedule.factor(0, 4, 0), 1.0);
        }
        assert_eq!(Schedule::Linear.factor(3, 4, 0), 0.25);
    }
}
