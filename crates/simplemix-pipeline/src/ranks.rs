//! Processes that share a stage.
//!
//! A pipeline with several processes has one that drives it: it plans, holds locks, shows progress and keeps records, and has no
//! model in memory. For each stage that runs a model it has a [`Ranks`] start the processes, which end with the stage, so that
//! every device is free for the next one.

use std::rc::Rc;

use simplemix_data::Watch;
use simplemix_model::DeviceChoice;
use simplemix_rollout::{GeneratorSettings, Peers, ScorerKind};
use simplemix_train::Team;

use crate::error::Result;
use crate::plan::{Job, Stage};
use crate::report::StageReport;

/// Whoever starts the processes of a stage.
pub trait Ranks {
    /// Has several processes call [`Job::run`] with the job of `stage`, and gives the report of the first. What the first process
    /// tells its watch is told to `watch`, and when this one interrupts, all of them are.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] if the stage fails there; [`crate::Error::Interrupted`].
    fn run(&mut self, stage: &Stage, watch: &mut dyn Watch) -> Result<StageReport>;
}

/// The processes of a team, for sampling and scoring; `None` for a process of its own.
pub fn peers(team: &Team) -> Option<Rc<dyn Peers>> {
    (team.size() > 1).then(|| Rc::new(TeamPeers(team.clone())) as Rc<dyn Peers>)
}

struct TeamPeers(Team);

fn failed<T>(result: simplemix_train::Result<T>) -> simplemix_rollout::Result<T> {
    result.map_err(|error| simplemix_rollout::Error::Process(Box::new(error)))
}

impl Peers for TeamPeers {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn told(&self, text: &str) -> simplemix_rollout::Result<String> {
        failed(self.0.told(text, "waiting for work of rank 0"))
    }

    fn texts(&self, own: &str) -> simplemix_rollout::Result<Vec<String>> {
        failed(self.0.texts(own, "gathering responses or scores"))
    }

    fn agree(&self, what: &str, value: &str) -> simplemix_rollout::Result<()> {
        failed(self.0.same(what, value))
    }

    fn does(&self, text: &str) {
        self.0.does_at_length(text);
    }
}

impl Job {
    /// Whether the stage runs a model in its process, so that several processes can share it.
    pub fn runs_models(&self) -> bool {
        match self {
            Self::Generate(_, by) => is_local(by),
            Self::Score(_, scorers) => scorers.iter().any(|scorer| matches!(scorer.kind, ScorerKind::RewardModel(_))),
            Self::Train(_) | Self::Diverge(..) => true,
            #[cfg(feature = "server")]
            Self::Yardstick(_) => true,
            Self::Pool(_) | Self::Pair(_) | Self::Mix(_) => false,
        }
    }

    /// Devices of the stage's models, which are to be those of this process.
    pub fn devices_mut(&mut self) -> Vec<&mut DeviceChoice> {
        match self {
            Self::Generate(_, GeneratorSettings::Local(local)) => vec![&mut local.device],
            Self::Generate(_, GeneratorSettings::MixP(mix)) => vec![&mut mix.policy.device],
            Self::Score(_, scorers) => scorers
                .iter_mut()
                .filter_map(|scorer| match &mut scorer.kind {
                    ScorerKind::RewardModel(reward) => Some(&mut reward.device),
                    _ => None,
                })
                .collect(),
            Self::Train(config) => vec![&mut config.device],
            Self::Diverge(settings, ..) => vec![&mut settings.scoring.device],
            #[cfg(feature = "server")]
            Self::Yardstick(settings) => vec![&mut settings.model.device],
            Self::Generate(..) | Self::Pool(_) | Self::Pair(_) | Self::Mix(_) => Vec::new(),
        }
    }
}

fn is_local(by: &GeneratorSettings) -> bool {
    matches!(by, GeneratorSettings::Local(_) | GeneratorSettings::MixP(_))
}
