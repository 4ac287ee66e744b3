//! Execution of a stage, once: a stage that is done is found again by its key, one that was stopped continues.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_eval::read_curves;
use simplemix_files::Lock;
use simplemix_files::secret::storable;
use simplemix_rollout::{
    GenerateReport, GenerateSettings, GeneratorSettings, Prompt, ScoreReport, ScoreSettings, ScorerSettings, Weighted,
    generate, pair, pool, score, together,
};
#[cfg(feature = "server")]
use simplemix_rollout::{RoundSettings, YardstickReport, YardstickSettings, measure};
use simplemix_train::{Outcome, Resume, Run, RunFolder, Team, TrainConfig};

use crate::divergence::{Divergence, DivergenceSettings, log_ratios_together};
use crate::error::{Error, Result};
use crate::mix::mix;
use crate::plan::{Job, Stage};
use crate::ranks::{Ranks, peers};
use crate::report::{DivergenceReport, StageReport, TrainReport};

/// Record of a stage that is done, `stage.json`, which is written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Name of the stage.
    pub stage: String,
    /// Key of everything that the result depends on.
    pub key: String,
    /// Program that wrote it.
    pub tool: String,
    /// Seconds of the call that finished it.
    pub seconds: f64,
    /// Report of the stage.
    pub report: StageReport,
}

const DONE: &str = "stage.json";

impl Stage {
    /// The record of the stage, if it is done.
    pub fn done(&self) -> Option<Done> {
        let text = simplemix_files::read_to_string(self.folder.join(DONE)).ok()?;
        serde_json::from_str::<Done>(&text).ok().filter(|done| done.key == self.key)
    }

    /// Whether the stage has begun.
    pub fn is_begun(&self) -> bool {
        self.folder.is_dir()
    }

    /// Takes the record of the stage away, so that it counts as not done.
    pub(crate) fn undo(&self) -> Result<()> {
        Ok(simplemix_files::remove_file(self.folder.join(DONE))?)
    }

    /// Does the stage, or what is left of it, in the processes of `ranks` if it runs a model and there are several.
    pub(crate) fn run(&self, ranks: Option<&mut (dyn Ranks + '_)>, watch: &mut dyn Watch) -> Result<Done> {
        let started = now();
        simplemix_files::create_dir_all(&self.folder)?;
        let _lock = lock(&self.folder, watch)?;
        // Another process may have done it while this one waited.
        if let Some(done) = self.done() {
            return Ok(done);
        }
        let report = match ranks.filter(|_| self.job.runs_models()) {
            Some(ranks) => ranks.run(self, watch)?,
            None => self.job.run(&Team::default(), watch)?.expect("a process of its own is the first"),
        };
        let (stage, key) = (self.name.clone(), self.key.clone());
        let done = Done { stage, key, tool: crate::TOOL.to_owned(), seconds: started.elapsed().as_secs_f64(), report };
        let text = serde_json::to_string_pretty(&done).map_err(|error| Error::serialise("a stage")(&error))?;
        simplemix_files::write(self.folder.join(DONE), storable(&text))?;
        Ok(done)
    }
}

impl Job {
    /// Does the work of the stage, which the processes of `team` share; the report is that of the first process.
    ///
    /// # Errors
    /// Whatever the work reports; [`Error::Interrupted`] if any process was interrupted.
    pub fn run(&self, team: &Team, watch: &mut dyn Watch) -> Result<Option<StageReport>> {
        Ok(match self {
            Self::Generate(settings, by) => {
                generated(settings, by, team, watch)?.map(|report| StageReport::Generate(Box::new(report)))
            }
            Self::Score(settings, scorers) => scored(settings, scorers, team, watch)?.map(StageReport::Score),
            Self::Train(config) => trained(config, team, watch)?.map(StageReport::Train),
            Self::Diverge(settings, prompts, each) => {
                let (prompts, notices) = prompts.prompts_and_notices()?;
                notices.iter().for_each(|notice| watch.notice(notice));
                let report = diverge(settings, &prompts, *each, team, watch)?;
                team.is_first().then_some(StageReport::Divergence(report))
            }
            #[cfg(feature = "server")]
            Self::Yardstick(settings) => {
                let report = measured(settings, team, watch)?;
                team.is_first().then_some(StageReport::Yardstick(report))
            }
            Self::Pool(_) | Self::Pair(_) | Self::Mix(_) if !team.is_first() => None,
            Self::Pool(settings) => Some(StageReport::Pool(pool(settings, watch)?)),
            Self::Pair(settings) => Some(StageReport::Pair(pair(settings, watch)?)),
            Self::Mix(settings) => Some(StageReport::Mix(mix(settings, watch)?.achieved)),
        })
    }
}

fn generated(
    settings: &GenerateSettings,
    by: &GeneratorSettings,
    team: &Team,
    watch: &mut dyn Watch,
) -> Result<Option<GenerateReport>> {
    #[cfg(feature = "server")]
    if let GeneratorSettings::Round(round) = by {
        return generated_in_round(settings, round, watch).map(Some);
    }
    team.does_at_length("loading a model");
    let generator = by.open_for(&settings.output)?;
    Ok(together(peers(team), Some(generator), Vec::new(), watch, |generator, _, watch| {
        generate(settings, generator.expect("one was given"), watch)
    })?)
}

/// As [`generated`], by a server that gets the weights first, and lets go of them afterwards.
#[cfg(feature = "server")]
fn generated_in_round(
    settings: &GenerateSettings,
    round: &RoundSettings,
    watch: &mut dyn Watch,
) -> Result<GenerateReport> {
    // A server that is started may need what libtorch keeps for later.
    simplemix_torch::device::empty_cache().map_err(simplemix_model::Error::from)?;
    let folder = settings.output.parent().expect("the output of a stage is in its folder");
    let mut generator = round.open(folder, watch)?;
    let mut report = generate(settings, &mut generator, watch)?;
    let mut served = generator.end(watch);
    report.notices.append(&mut served.notices);
    report.served = Some(served);
    Ok(report)
}

/// Own responses of a model, made by the first process; all get the report.
#[cfg(feature = "server")]
fn measured(settings: &YardstickSettings, team: &Team, watch: &mut dyn Watch) -> Result<YardstickReport> {
    team.does_at_length("making own responses");
    let own = if team.is_first() { Some(measure(settings, watch)?) } else { None };
    let failed = Error::serialise("own responses");
    let text = serde_json::to_string(&own).map_err(|error| failed(&error))?;
    let told = team.told(&text, "waiting for own responses")?;
    let report: Option<YardstickReport> = serde_json::from_str(&told).map_err(|error| failed(&error))?;
    Ok(report.unwrap_or_default())
}

fn scored(
    settings: &ScoreSettings,
    scorers: &[ScorerSettings],
    team: &Team,
    watch: &mut dyn Watch,
) -> Result<Option<ScoreReport>> {
    team.does_at_length("loading a model");
    let opened = scorers.iter().map(|scorer| Ok(scorer.open()?)).collect::<Result<Vec<Weighted>>>()?;
    Ok(together(peers(team), None, opened, watch, |_, scorers, watch| score(settings, scorers, watch))?)
}

fn trained(config: &TrainConfig, team: &Team, watch: &mut dyn Watch) -> Result<Option<TrainReport>> {
    team.does_at_length("reading and loading a model");
    let run = config.output.as_deref().ok_or_else(|| Error::setting("train.output", "not set", "a folder"))?;
    let resume = Resume::from(RunFolder::is_started(run));
    let prepared = Run::prepare(config.clone()).and_then(Run::load).map_err(Error::Prepare)?.with_team(team.clone());
    let pairs = prepared.train.len() as u64;
    let finished = prepared.start(resume, watch)?;
    if finished.outcome == Outcome::Stopped {
        return Err(Error::Interrupted);
    }
    if !team.is_first() {
        return Ok(None);
    }
    let notices = finished.folder.notices()?;
    // The file has the metrics of this process and of those before it.
    let curves = read_curves(&finished.folder.metrics_file())?;
    let is_shown =
        |name: &str| name.starts_with("eval_") || SHOWN.iter().any(|shown| name.split('@').next() == Some(shown));
    let last = curves
        .iter()
        .filter(|(name, _)| is_shown(name))
        .map(|(name, points)| (name.clone(), tail_mean(points, name.starts_with("eval_"))))
        .filter(|(_, value)| value.is_finite());
    let updates = curves.get("loss").map_or(0, Vec::len) as u64;
    Ok(Some(TrainReport { pairs, updates, last: last.collect(), notices }))
}

/// The divergence over all responses and by task, on the first `each` prompts of a task.
fn diverge(
    settings: &DivergenceSettings,
    prompts: &[Prompt],
    each: usize,
    team: &Team,
    watch: &mut dyn Watch,
) -> Result<DivergenceReport> {
    let mut taken: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut is_taken = |prompt: &Prompt| {
        let count = taken.entry(prompt.task.clone()).or_default();
        *count += 1;
        *count <= each
    };
    let prompts: Vec<Prompt> = prompts.iter().filter(|prompt| is_taken(prompt)).cloned().collect();
    let ratios = log_ratios_together(team, settings, &prompts, watch)?;
    let tasks: BTreeSet<&String> = ratios.iter().filter_map(|ratio| ratio.task.as_ref()).collect();
    let of_task =
        |task: &String| (task.clone(), Divergence::of(ratios.iter().filter(|ratio| ratio.task.as_ref() == Some(task))));
    Ok(DivergenceReport { all: Divergence::of(&ratios), tasks: tasks.into_iter().map(of_task).collect() })
}

/// Metrics of training that the pipeline's report shows.
const SHOWN: &[&str] =
    &["loss", "rewards/margins", "rewards/accuracies", "accuracy", "margin", "kl", "age/mean", "age/max"];

/// The mean over the last tenth of a curve, or its last value.
fn tail_mean(points: &[(f64, f64)], last_only: bool) -> f64 {
    let count = if last_only { 1 } else { points.len().div_ceil(10) };
    let tail = &points[points.len() - count.min(points.len())..];
    tail.iter().map(|(_, value)| value).sum::<f64>() / tail.len().max(1) as f64
}

/// Holds a stage's folder until it is dropped; waits for another process that holds it.
fn lock(folder: &Path, watch: &mut dyn Watch) -> Result<Lock> {
    let mut told = false;
    let lock = Lock::wait(folder.join(".lock"), &mut |holder| {
        if !told {
            let holder = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
            watch.notice(&format!("{}: waiting for {holder}, which works on this stage", folder.display()));
            told = true;
        }
        !watch.is_interrupted()
    });
    match lock {
        Err(simplemix_files::Error::Locked { .. }) => Err(Error::Interrupted),
        lock => Ok(lock?),
    }
}

#[expect(clippy::disallowed_methods, reason = "the report says how long each stage took")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_curve_is_its_last_tenth_or_its_last_point() {
        let points: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!((tail_mean(&points, false), tail_mean(&points, true)), (18.5, 19.0));
    }
}
