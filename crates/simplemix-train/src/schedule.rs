//! Learning rate over the run: warm-up, then a decay, to zero or to a floor.
//!
//! Definitions are those of transformers 5: `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup`,
//! `get_cosine_with_min_lr_schedule_with_warmup`, `get_constant_schedule_with_warmup`, `get_inverse_sqrt_schedule` and
//! `get_wsd_schedule`, so that a curve matches TRL's.

use std::f64::consts::PI;

simplemix_settings::choice! {
    /// Shape of the learning rate after warm-up.
    pub enum Schedule {
        /// Linear decay to the last step; TRL's default.
        Linear = "linear";
        /// Half a cosine down to the last step.
        Cosine = "cosine";
        /// No decay.
        Constant = "constant";
        /// Decay with the inverse square root of the step.
        InverseSqrt = "inverse-sqrt", old "inverse_sqrt";
        /// No decay at first, then one over the last steps.
        WarmupStableDecay = "warmup-stable-decay", old "warmup_stable_decay";
    }
}

simplemix_settings::choice! {
    /// Shape of the decay at the end of a warm-up-stable-decay schedule.
    pub enum Decay {
        /// Half a cosine.
        Cosine = "cosine";
        /// A straight line.
        Linear = "linear";
        /// One minus a square root: fast at first.
        OneMinusSqrt = "1-sqrt";
    }
}

/// Steps of the warm-up that the inverse square root takes when there is none, as in transformers.
const TIMESCALE: f64 = 10_000.0;

/// Factor on the peak learning rate, update by update.
///
/// ```
/// use simplemix_train::{RateCurve, Schedule};
/// // Ten updates, two of them warm-up: the first has rate 0, the third the full rate.
/// let curve = RateCurve { warmup: 2, ..RateCurve::new(Schedule::Linear, 10) };
/// assert_eq!([0, 1, 2, 6].map(|step| curve.factor(step)), [0.0, 0.5, 1.0, 0.5]);
/// // A floor: the decay ends at a tenth of the peak.
/// let curve = RateCurve { min_ratio: 0.1, ..RateCurve::new(Schedule::Linear, 10) };
/// assert_eq!([0, 5, 10].map(|step| curve.factor(step)), [1.0, 0.55, 0.1]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateCurve {
    /// Shape after warm-up.
    pub schedule: Schedule,
    /// Updates of the run.
    pub steps: u64,
    /// Updates over which the factor rises.
    pub warmup: u64,
    /// Factor at which the decay ends.
    pub min_ratio: f64,
    /// Updates of the decay at the end of a warm-up-stable-decay schedule.
    pub decay_steps: u64,
    /// Shape of that decay.
    pub decay: Decay,
}

impl RateCurve {
    /// A curve over `steps` updates without warm-up, down to zero.
    pub fn new(schedule: Schedule, steps: u64) -> Self {
        Self { schedule, steps, warmup: 0, min_ratio: 0.0, decay_steps: 0, decay: Decay::Cosine }
    }

    /// Factor of update `step`, counted from zero.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.warming(step as f64 / self.warmup as f64);
        }
        let progress = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        match self.schedule {
            Schedule::Linear => self.above_floor(1.0 - progress),
            Schedule::Cosine => self.above_floor(half_cosine(progress)),
            Schedule::Constant => 1.0,
            Schedule::InverseSqrt => self.inverse_sqrt(step),
            Schedule::WarmupStableDecay => self.stable_then_decay(step),
        }
    }

    /// A warm-up-stable-decay schedule rises from the floor, the others from zero.
    fn warming(&self, progress: f64) -> f64 {
        match self.schedule {
            Schedule::WarmupStableDecay => self.above_floor(progress),
            _ => progress,
        }
    }

    fn inverse_sqrt(&self, step: u64) -> f64 {
        let timescale = if self.warmup == 0 { TIMESCALE } else { self.warmup as f64 };
        let shift = timescale - self.warmup as f64;
        1.0 / ((step as f64 + shift) / timescale).sqrt()
    }

    fn stable_then_decay(&self, step: u64) -> f64 {
        if step >= self.steps {
            return self.min_ratio;
        }
        // A decay longer than the rest of the run has begun before the run, as in transformers.
        let progress = (step as f64 - (self.steps as f64 - self.decay_steps as f64)) / self.decay_steps.max(1) as f64;
        if progress < 0.0 {
            return 1.0;
        }
        self.above_floor(match self.decay {
            Decay::Cosine => half_cosine(progress),
            Decay::Linear => 1.0 - progress,
            Decay::OneMinusSqrt => 1.0 - progress.sqrt(),
        })
    }

    fn above_floor(&self, factor: f64) -> f64 {
        (factor * (1.0 - self.min_ratio) + self.min_ratio).max(0.0)
    }
}

fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers 5: `get_cosine_schedule_with_warmup(opt, 2, 10)`, rates of updates 0..10 at peak 1.
    #[test]
    fn cosine_is_that_of_transformers() {
        let curve = RateCurve { warmup: 2, ..RateCurve::new(Schedule::Cosine, 10) };
        let expected = [0.0, 0.5, 1.0, 0.9619398, 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602];
        for (step, want) in expected.iter().enumerate() {
            let rate = curve.factor(step as u64);
            assert!((rate - want).abs() < 1e-7, "{step}: {rate} {want}");
        }
    }

    /// Rates that `tests/golden/train_schedules.py` has from transformers' `get_scheduler`.
    #[test]
    fn every_schedule_is_that_of_transformers() {
        let cases = crate::golden("schedules");
        for case in cases["cases"].as_array().unwrap() {
            let kwargs = &case["kwargs"];
            let whole = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
            let (schedule, min) = match case["name"].as_str().unwrap() {
                "linear" => (Schedule::Linear, "min_lr_rate"),
                "cosine" | "cosine_with_min_lr" => (Schedule::Cosine, "min_lr_rate"),
                "constant_with_warmup" => (Schedule::Constant, "min_lr_rate"),
                "inverse_sqrt" => (Schedule::InverseSqrt, "min_lr_rate"),
                _ => (Schedule::WarmupStableDecay, "min_lr_ratio"),
            };
            let curve = RateCurve {
                warmup: whole(&case["warmup"]),
                min_ratio: kwargs[min].as_f64().unwrap_or(0.0),
                decay_steps: whole(&kwargs["num_decay_steps"]),
                decay: match kwargs["decay_type"].as_str() {
                    Some("linear") => Decay::Linear,
                    Some("1-sqrt") => Decay::OneMinusSqrt,
                    _ => Decay::Cosine,
                },
                ..RateCurve::new(schedule, whole(&case["steps"]))
            };
            for (step, want) in case["rates"].as_array().unwrap().iter().enumerate() {
                let (rate, want) = (curve.factor(step as u64), want.as_f64().unwrap());
                assert!((rate - want).abs() < 1e-12, "{case} at {step}: {rate}");
            }
        }
    }

    #[test]
    fn without_warm_up_the_first_update_has_the_full_rate() {
        for schedule in [Schedule::Linear, Schedule::Cosine, Schedule::Constant, Schedule::InverseSqrt] {
            assert_eq!(RateCurve::new(schedule, 4).factor(0), 1.0);
        }
        assert_eq!(RateCurve::new(Schedule::Linear, 4).factor(3), 0.25);
    }
}
