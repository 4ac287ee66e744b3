//! Sweeps: one pipeline with many values of some of its keys, on shared stages, within a budget, in one report.
//!
//! Every combination of values is a run with a folder of its own. Runs share the folder of stages, so that what does not depend on
//! a value is done once: a sweep over sizes, learning rates, betas and shares samples on-policy pairs once for each seed. A run
//! that fails is a row of the report. A sweep that was stopped continues when it is started again.

mod axis;
mod disk;
mod forecast;
mod grid;
mod metric;
mod page;
mod record;
mod report;
mod settings;
mod verdict;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use simplemix_data::Watch;
use simplemix_files::secret::storable;
use simplemix_settings::merge;
use toml::Table;

pub use axis::Axis;
pub use forecast::{Forecast, RunForecast};
pub use grid::PlannedRun;
pub use metric::BestBy;
pub use record::RunState;
pub use report::{RunReport, SweepReport};
pub(crate) use settings::SECTION;
pub use settings::{Keep, SweepSettings};
pub use verdict::{Configuration, Over};

use self::grid::is_seed;
use self::record::{Record, said};
use self::verdict::{Measured, configurations, doubt, words};
use self::watching::ToldOnce;
use crate::date::dated;
use crate::error::{Error, Result};
use crate::pipeline::{Finished, Pipeline};
use crate::plan::{Hashes, Purpose, Stage};
use crate::ranks::Ranks;
use crate::settings::{PipelineSettings, needed};
use crate::summary::{Grades, Summary};

/// File of the report in the output of a sweep.
const REPORT: &str = "sweep.json";

/// A sweep whose runs are planned.
#[derive(Debug)]
pub struct Sweep {
    settings: SweepSettings,
    base: PipelineSettings,
    best_by: BestBy,
    output: PathBuf,
    runs: Vec<PlannedRun>,
    pipelines: Vec<Pipeline>,
    /// For a run that does what an earlier one does, the index of that one.
    same_as: Vec<Option<usize>>,
}

/// Something that happened in a sweep.
#[derive(Debug)]
#[non_exhaustive]
pub enum SweepEvent<'a> {
    /// A run begins.
    Begins {
        /// Position of the run, from 0.
        position: usize,
        /// The run.
        run: &'a PlannedRun,
        /// Number of stages of its pipeline.
        stages: usize,
    },
    /// A stage of the run is done.
    Stage(&'a Finished<'a>),
    /// A run is done, failed, was done before, or is left out.
    Ended {
        /// Position of the run, from 0.
        position: usize,
        /// Outcome.
        run: &'a RunReport,
        /// Whether an earlier call did it.
        was_done: bool,
    },
}

impl Sweep {
    /// Plans all runs of `table`, the settings of a pipeline as [`SweepSettings::resolve`] gives them; writes nothing.
    ///
    /// # Errors
    /// [`Error::Setting`] and others for settings that cannot be used in some run, which the message names; for a key whose
    /// values change nothing; and for files and models that cannot be read.
    pub fn open(table: Table, settings: SweepSettings, watch: &mut dyn Watch) -> Result<Self> {
        Self::planned(table, settings, Purpose::Run, watch)
    }

    /// As [`Sweep::open`], for [`Sweep::forecast`] alone: as [`Pipeline::look`] does, it needs neither weights nor, with
    /// `train.memory.device_gb`, the GPUs.
    ///
    /// # Errors
    /// As [`Sweep::open`].
    pub fn look(table: Table, settings: SweepSettings, watch: &mut dyn Watch) -> Result<Self> {
        Self::planned(table, settings, Purpose::Look, watch)
    }

    fn planned(table: Table, settings: SweepSettings, purpose: Purpose, watch: &mut dyn Watch) -> Result<Self> {
        let base = PipelineSettings::resolve(None, None, table.clone())?;
        settings.check(&base)?;
        let output = needed("output", base.output.as_deref(), "a folder")?.to_owned();
        let mut watch = ToldOnce::new(watch);
        // One date for all runs, whenever they are done.
        let date = dated(base.clone(), purpose, &mut watch)?.template_date;
        let stages = base.stages.clone().unwrap_or_else(|| output.join("stages"));
        let runs = grid::runs(&settings.vary, &output.join("runs"))?;
        let mut hashes = Hashes::default();
        let mut pipelines = Vec::with_capacity(runs.len());
        for run in &runs {
            let of_run = |error| in_run(error, run);
            let own = run_settings(&table, run, &stages, date.clone()).map_err(of_run)?;
            pipelines.push(Pipeline::planned(own, purpose, &mut hashes, &mut watch).map_err(of_run)?);
        }
        let signatures: Vec<Vec<String>> = pipelines.iter().map(keys).collect();
        check_effects(&settings.vary, &runs, &signatures)?;
        let same = |at: usize| signatures[..at].iter().position(|keys| *keys == signatures[at]);
        let same_as = (0..runs.len()).map(same).collect();
        let best_by = match &settings.best_by {
            Some(best_by) => best_by.clone(),
            None => BestBy::of(pipelines[0].settings())?,
        };
        Ok(Self {
            settings,
            base: PipelineSettings { template_date: date, ..base },
            best_by,
            output,
            runs,
            pipelines,
            same_as,
        })
    }

    /// Runs, in the order in which they are done.
    pub fn runs(&self) -> &[PlannedRun] {
        &self.runs
    }

    /// Pipelines of the runs.
    pub fn pipelines(&self) -> &[Pipeline] {
        &self.pipelines
    }

    /// Settings of the sweep.
    pub fn settings(&self) -> &SweepSettings {
        &self.settings
    }

    /// Settings that the runs have in common.
    pub fn base(&self) -> &PipelineSettings {
        &self.base
    }

    /// Folder of the report and of the runs.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Metric by which the best run is found.
    pub fn best_by(&self) -> &BestBy {
        &self.best_by
    }

    /// Models that stay.
    pub fn kept(&self) -> Keep {
        self.settings.kept(&self.base)
    }

    /// Expected time and disk space of what is not done, shared stages once.
    ///
    /// # Errors
    /// [`Error::Model`] if the model's configuration cannot be read.
    pub fn forecast(&self) -> Result<Forecast> {
        forecast::forecast(self)
    }

    /// Does the runs that are not done, within the budget. A run that fails is told in the report, and the next one begins. The
    /// report is written after each run.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Setting`] if no run has the metric by which the best is to be found; others if the
    /// report cannot be written.
    pub fn run(
        &self,
        mut ranks: Option<&mut dyn Ranks>,
        watch: &mut dyn Watch,
        tell: &mut dyn FnMut(&SweepEvent<'_>),
    ) -> Result<SweepReport> {
        simplemix_files::create_dir_all(&self.output)?;
        self.write_settings()?;
        let mut work = Work::new(self);
        let mut told = ToldOnce::new(watch);
        for position in 0..self.runs.len() {
            let was_done = work.found[position].is_some();
            if !was_done {
                match self.reason_to_leave_out(position, &work)? {
                    Some(reason) => work.found[position] = Some((RunState::LeftOut { reason }, None)),
                    None => self.do_run(position, &mut work, ranks.as_deref_mut(), &mut told, tell)?,
                }
            }
            let report = self.write_report(&work)?;
            tell(&SweepEvent::Ended { position, run: &report.runs[position], was_done });
        }
        self.remove_models(&work)?;
        self.write_report(&work)
    }

    /// Does one run, and keeps its record.
    fn do_run(
        &self,
        position: usize,
        work: &mut Work,
        ranks: Option<&mut (dyn Ranks + '_)>,
        watch: &mut dyn Watch,
        tell: &mut dyn FnMut(&SweepEvent<'_>),
    ) -> Result<()> {
        let (run, pipeline) = (&self.runs[position], &self.pipelines[position]);
        tell(&SweepEvent::Begins { position, run, stages: pipeline.stages().len() });
        let started = now();
        let mut finished = |stage: &Finished<'_>| tell(&SweepEvent::Stage(stage));
        let done = match ranks.filter(|_| pipeline.settings().parallel.processes > 1) {
            Some(ranks) => pipeline.run_with(ranks, watch, &mut finished),
            None => pipeline.run_each(watch, &mut finished),
        };
        let state = match done {
            Ok(summary) => RunState::Done { metrics: self.metrics(&summary)? },
            Err(error) if error.is_interrupted() => return Err(error),
            Err(error) => RunState::Failed { message: said(&error), is_input: error.is_input() },
        };
        let seconds = started.elapsed().as_secs_f64();
        Record { keys: keys(pipeline), seconds, state: state.clone() }.write(&run.folder)?;
        work.found[position] = Some((state, Some(seconds)));
        self.remove_models(work)
    }

    /// Metrics of a run; refuses a metric for the best that it does not have.
    fn metrics(&self, summary: &Summary) -> Result<BTreeMap<String, f64>> {
        let metrics = metric::metrics(summary);
        if metrics.contains_key(&self.best_by.metric) {
            return Ok(metrics);
        }
        let known = metrics.keys().cloned().collect::<Vec<_>>().join(", ");
        let found = format!("`{}`, which the runs do not have", self.best_by.metric);
        Err(Error::setting("sweep.best_by", found, format!("one of {known}; the runs that are done stay")))
    }

    /// Reason for which a run is not begun: it does what another one does, or the budget is spent.
    fn reason_to_leave_out(&self, position: usize, work: &Work) -> Result<Option<String>> {
        if let Some(same) = self.same_as[position] {
            return Ok(Some(format!("it does the same as {}", self.runs[same].name)));
        }
        if let Some(most) = self.settings.max_runs.filter(|most| work.begun() >= *most) {
            return Ok(Some(format!("{most} runs are the most (max_runs)")));
        }
        if let Some(most) = self.settings.max_hours {
            let (spent, next) = (work.seconds() / 3600.0, work.mean_seconds() / 3600.0);
            if spent > 0.0 && spent + next > most {
                return Ok(Some(format!(
                    "{spent:.2} hours are spent, and a run takes {next:.2}; {most} are the most (max_hours)"
                )));
            }
        }
        if let Some(most) = self.settings.max_disk_gb {
            let (used, next) = (self.disk_bytes() as f64 / 1e9, forecast::disk(&self.pipelines[position])? / 1e9);
            if used + next > most {
                return Ok(Some(format!(
                    "{used:.2} GB are used, and the run may take {next:.2}; {most} are the most (max_disk_gb)"
                )));
            }
        }
        Ok(None)
    }

    /// Removes the models of runs that are done and not the best, unless a run to come needs them.
    fn remove_models(&self, work: &Work) -> Result<()> {
        if self.kept() == Keep::All {
            return Ok(());
        }
        let (measured, all) = self.measured(work)?;
        let best: BTreeSet<usize> =
            all.first().map(|best| best.members.iter().map(|&at| measured[at].run).collect()).unwrap_or_default();
        let is_needed = |at: usize| match &work.found[at] {
            Some((RunState::Done { .. }, _)) => best.contains(&at),
            Some((RunState::LeftOut { .. }, _)) => false,
            // A failed run is tried again by the same command.
            _ => true,
        };
        let needed = (0..self.runs.len()).filter(|at| is_needed(*at)).flat_map(|at| self.pipelines[at].stages());
        let needed: BTreeSet<&Path> = needed.map(|stage| stage.folder.as_path()).collect();
        let is_spare = |stage: &&Stage| stage.name.starts_with("train") && !needed.contains(stage.folder.as_path());
        let mut stages = self.pipelines.iter().flat_map(|pipeline| pipeline.stages().iter().filter(is_spare));
        stages.try_for_each(disk::remove_model)?;
        self.runs.iter().try_for_each(|run| disk::remove_dead_link(&run.folder.join("model")))
    }

    /// The runs that are done, and their values with the best first.
    fn measured(&self, work: &Work) -> Result<(Vec<Measured>, Vec<Configuration>)> {
        let mut measured = Vec::new();
        for (at, run) in self.runs.iter().enumerate() {
            let Some((RunState::Done { metrics }, _)) = &work.found[at] else { continue };
            let Some(&value) = metrics.get(&self.best_by.metric) else { continue };
            let axes = || self.settings.vary.iter();
            let seed = axes().zip(&run.choice).find(|(axis, _)| is_seed(axis));
            let choice = axes().zip(&run.choice).filter(|(axis, _)| !is_seed(axis));
            let values = axes().zip(&run.values).filter(|(axis, _)| !is_seed(axis));
            measured.push(Measured {
                run: at,
                seed: seed.map_or(0, |(_, at)| *at),
                choice: choice.map(|(_, at)| *at).collect(),
                values: values.map(|(_, value)| value.clone()).collect(),
                value,
                scores: self.scores(at)?,
            });
        }
        let names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        let all = configurations(&measured, &names, &self.best_by);
        Ok((measured, all))
    }

    /// Scores of a run's responses by prompt, where the metric is their mean.
    fn scores(&self, run: usize) -> Result<Option<BTreeMap<String, f64>>> {
        let Some(task) = self.best_by.task() else { return Ok(None) };
        let Some(stage) = self.pipelines[run].last_grade() else { return Ok(None) };
        let grades = Grades::read(stage)?;
        Ok(Some(grades.of(task).map(|(id, graded)| (id.clone(), graded.score)).collect()))
    }

    fn disk_bytes(&self) -> u64 {
        let own = disk::bytes_below(&self.output);
        own + self
            .base
            .stages
            .as_deref()
            .filter(|stages| !stages.starts_with(&self.output))
            .map_or(0, disk::bytes_below)
    }

    fn report(&self, work: &Work) -> Result<SweepReport> {
        let (measured, configurations) = self.measured(work)?;
        let warning = match &configurations[..] {
            [best, next, ..] => doubt(&measured, best, next),
            _ => None,
        };
        let warning = [warning, self.incomparable()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let runs = self.runs.iter().enumerate().map(|(at, run)| {
            let (state, seconds) = work.found[at].clone().unwrap_or((RunState::ToDo, None));
            let value = match &state {
                RunState::Done { metrics } => metrics.get(&self.best_by.metric).copied(),
                _ => None,
            };
            let model = Some(self.pipelines[at].model()).filter(|model| value.is_some() && model.is_dir());
            let values = run.values.iter().cloned().collect();
            RunReport { name: run.name.clone(), values, folder: run.folder.clone(), state, value, seconds, model }
        });
        Ok(SweepReport {
            tool: crate::TOOL.to_owned(),
            best_by: self.best_by.to_string(),
            runs: runs.collect(),
            configurations,
            warning: (!warning.is_empty()).then_some(warning),
            seconds: work.seconds(),
            disk_bytes: self.disk_bytes(),
        })
    }

    /// A sentence where values of the metric mean different things in different runs.
    fn incomparable(&self) -> Option<String> {
        let is_loss = self.best_by.metric.ends_with("loss");
        let of_the_loss = |axis: &&Axis| axis.key().starts_with("train.loss.") && axis.len() > 1;
        let axis = self.settings.vary.iter().find(of_the_loss).filter(|_| is_loss)?;
        Some(format!("`{}` is a loss of another scale for each `{}`", self.best_by.metric, axis.key()))
    }

    fn write_report(&self, work: &Work) -> Result<SweepReport> {
        let report = self.report(work)?;
        let text = serde_json::to_string_pretty(&report).map_err(|error| Error::serialise("the report")(&error))?;
        simplemix_files::write(self.output.join(REPORT), storable(&(text + "\n")))?;
        let page = page::html(&self.output, &self.settings.vary, &report, &self.to_toml()?)?;
        simplemix_files::write(self.output.join("report.html"), storable(&page))?;
        Ok(report)
    }

    /// Settings of pipeline and sweep as one file, from which the sweep can be started again.
    ///
    /// # Errors
    /// [`Error::Serialise`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        Ok(format!("{}\n{}", self.base.to_toml()?, self.settings.to_toml()?))
    }

    /// Writes the settings; those of the pipeline alone too, which keep the date.
    fn write_settings(&self) -> Result<()> {
        simplemix_files::write(self.output.join("sweep.toml"), storable(&self.to_toml()?))?;
        Ok(simplemix_files::write(self.output.join(PipelineSettings::FILE), storable(&self.base.to_toml()?))?)
    }
}

/// Outcome of each run so far, and its seconds.
struct Work {
    found: Vec<Option<(RunState, Option<f64>)>>,
}

impl Work {
    /// Outcomes of earlier calls.
    fn new(sweep: &Sweep) -> Self {
        let kept = |(run, pipeline): (&PlannedRun, &Pipeline)| {
            let record = Record::done(&run.folder, &keys(pipeline))?;
            Some((record.state, Some(record.seconds)))
        };
        Self { found: sweep.runs.iter().zip(&sweep.pipelines).map(kept).collect() }
    }

    fn begun(&self) -> usize {
        self.found.iter().flatten().filter(|(_, seconds)| seconds.is_some()).count()
    }

    fn seconds(&self) -> f64 {
        self.found.iter().flatten().filter_map(|(_, seconds)| *seconds).sum()
    }

    /// Mean seconds of the runs that are done.
    fn mean_seconds(&self) -> f64 {
        let done = self.found.iter().flatten().filter(|(state, _)| matches!(state, RunState::Done { .. }));
        let seconds: Vec<f64> = done.filter_map(|(_, seconds)| *seconds).collect();
        seconds.iter().sum::<f64>() / seconds.len().max(1) as f64
    }
}

/// Settings of a run.
fn run_settings(table: &Table, run: &PlannedRun, stages: &Path, date: Option<String>) -> Result<PipelineSettings> {
    let mut table = table.clone();
    merge(&mut table, run.over.clone());
    let settings = PipelineSettings::resolve(None, None, table)?;
    let (output, stages) = (Some(run.folder.clone()), Some(stages.to_owned()));
    Ok(PipelineSettings { output, stages, template_date: settings.template_date.clone().or(date), ..settings })
}

/// Keys of a pipeline's stages.
fn keys(pipeline: &Pipeline) -> Vec<String> {
    pipeline.stages().iter().map(|stage| stage.key.clone()).collect()
}

/// The error with the values of the run at fault.
fn in_run(error: Error, run: &PlannedRun) -> Error {
    match error.is_interrupted() {
        true => error,
        false => Error::InRun { values: words(&run.values), source: Box::new(error) },
    }
}

/// Refuses an axis whose values lead to the same stages in every run.
fn check_effects(axes: &[Axis], runs: &[PlannedRun], signatures: &[Vec<String>]) -> Result<()> {
    for (at, axis) in axes.iter().enumerate().filter(|(_, axis)| axis.len() > 1) {
        let mut seen: BTreeMap<Vec<usize>, &Vec<String>> = BTreeMap::new();
        let mut has_effect = false;
        for (run, keys) in runs.iter().zip(signatures) {
            let mut rest = run.choice.clone();
            rest.remove(at);
            has_effect |= *seen.entry(rest).or_insert(keys) != keys;
        }
        if !has_effect {
            let expected = "a key that changes a result; all runs would be the same";
            return Err(Error::setting("sweep.vary", format!("`{}`", axis.key()), expected));
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the report says how long each run took")]
fn now() -> Instant {
    Instant::now()
}
