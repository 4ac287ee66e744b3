//! Collecting that runs beside training, and the age of pairs that comes with it.
//!
//! With `collect.lag` the plan has a round sample from an older model, so that its stages do not wait for the training of the round
//! before. The plan alone decides every result; whether stages run beside others only decides when.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::Stage;
use crate::settings::PipelineSettings;

/// Stages of collecting that run beside training, where `collect.lag` lets them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// Those that run no model in this process: a server samples, scorers are rules, commands or judges.
    #[default]
    Servers,
    /// All. A model in this process then shares the memory and the time of the device that trains.
    All,
    /// None: one stage after the other.
    None,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Servers => "servers",
            Self::All => "all",
            Self::None => "none",
        })
    }
}

impl PipelineSettings {
    /// Rounds after which the model that samples in `round` was made; 0 for the first model.
    pub(crate) fn sampler_of(&self, round: u32) -> usize {
        (round - 1).saturating_sub(self.collect.lag) as usize
    }

    /// Rounds whose pairs are collected before the training of `round` in the order of the plan.
    pub(crate) fn collected_before(&self, round: u32) -> u32 {
        let ahead = u32::from(self.collect.lag > 0);
        if self.collects() { self.rounds.min(round + ahead) } else { 0 }
    }

    /// End of the names of a round's stages: `-2`, or nothing where there is one round.
    pub(crate) fn suffix(&self, round: u32) -> String {
        if self.rounds == 1 { String::new() } else { format!("-{round}") }
    }

    /// Earlier rounds whose pairs a round is trained on, so that none is older than `max_age`.
    pub(crate) fn rounds_kept(&self) -> u32 {
        self.max_age.saturating_sub(self.collect.lag)
    }

    /// Age in `round` of pairs collected `back` rounds before: rounds between the model that wrote them and the one that trains on
    /// them. None where all pairs are of the current model.
    pub(crate) fn age(&self, round: u32, back: u32) -> Option<u32> {
        (self.max_age > 0).then(|| round - 1 - self.sampler_of(round - back) as u32)
    }

    /// Whether `stage` runs beside training; `is_shared` says whether processes share the stages that run a model.
    pub(crate) fn runs_beside(&self, stage: &Stage, is_shared: bool) -> bool {
        let may = match self.collect.beside {
            Beside::None => false,
            Beside::Servers => !stage.job.runs_models(),
            Beside::All => !(is_shared && stage.job.runs_models()),
        };
        self.collect.lag > 0 && stage.collects && may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(lag: u32, max_age: u32) -> PipelineSettings {
        let mut settings = PipelineSettings { rounds: 5, max_age, ..PipelineSettings::default() };
        settings.collect.lag = lag;
        settings
    }

    #[test]
    fn pairs_are_as_old_as_the_lag_and_never_older_than_their_bound() {
        // Round 3 trains the model of round 2. With a lag of 1 the model of round 1 has written its pairs, and the first model those of
        // rounds 1 and 2.
        let of = |lag, max_age| {
            let settings = settings(lag, max_age);
            (1..=5)
                .map(|round| {
                    let kept = settings.rounds_kept().min(round - 1);
                    (0..=kept).map(|back| settings.age(round, back)).collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0, 0), vec![vec![None]; 5]);
        let some = |ages: &[u32]| ages.iter().map(|age| Some(*age)).collect::<Vec<_>>();
        let expected = [&[0][..], &[0, 1], &[0, 1], &[0, 1], &[0, 1]].map(some);
        assert_eq!(of(0, 1), expected);
        assert_eq!(of(1, 1), [&[0][..], &[1], &[1], &[1], &[1]].map(some));
        assert_eq!(of(1, 2), [&[0][..], &[1, 1], &[1, 2], &[1, 2], &[1, 2]].map(some));
        assert_eq!(of(2, 2), [&[0][..], &[1], &[2], &[2], &[2]].map(some));
    }
}
