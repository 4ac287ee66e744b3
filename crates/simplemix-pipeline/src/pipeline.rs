//! The front door: a pipeline that is planned, run stage by stage, and summarised.

use std::path::{Path, PathBuf};

use simplemix_data::Watch;
use simplemix_files::secret::storable;
use simplemix_model::{DeviceChoice, Gpus};
use tch::Device;

use crate::date::dated;
use crate::error::{Error, Result};
use crate::estimate::{Estimate, Estimator};
use crate::execute;
use crate::page;
use crate::plan::{Hashes, Job, Plan, Purpose, Stage};
use crate::ranks::Ranks;
use crate::settings::{PipelineSettings, needed};
use crate::stage::Done;
use crate::summary::Summary;

/// A pipeline whose stages are planned.
#[derive(Debug)]
pub struct Pipeline {
    settings: PipelineSettings,
    plan: Plan,
    device: Device,
    purpose: Purpose,
}

/// A stage that is done, as it is reported while the pipeline runs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// Position of the stage in the pipeline, from 0.
    pub position: usize,
    /// The stage.
    pub stage: &'a Stage,
    /// Record of the stage.
    pub done: &'a Done,
    /// Whether an earlier run did it.
    pub was_done: bool,
}

impl Pipeline {
    /// Checks the settings and plans the stages: hashes the files that are read, and writes nothing. Chat templates that look at
    /// the date see one date in all stages, see [`PipelineSettings::template_date`].
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that is missing or cannot be used; others for files and models that cannot be
    /// read.
    pub fn open(settings: PipelineSettings, watch: &mut dyn Watch) -> Result<Self> {
        Self::planned(settings, Purpose::Run, &mut Hashes::default(), watch)
    }

    /// As [`Pipeline::open`], for [`Pipeline::stages`] and [`Pipeline::estimate`] alone: models need their configuration and no
    /// weights, and with `train.memory.device_gb` the GPUs of the settings need not be here.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn look(settings: PipelineSettings, watch: &mut dyn Watch) -> Result<Self> {
        Self::planned(settings, Purpose::Look, &mut Hashes::default(), watch)
    }

    /// A pipeline for `purpose`, with the hashes of files that were read for other pipelines.
    pub(crate) fn planned(
        settings: PipelineSettings,
        purpose: Purpose,
        hashes: &mut Hashes,
        watch: &mut dyn Watch,
    ) -> Result<Self> {
        settings.check()?;
        let device = match (settings.device, settings.parallel.processes) {
            (DeviceChoice::Cuda(number), _)
                if purpose == Purpose::Look && settings.train.memory.device_gb.is_some() =>
            {
                Ok(Device::Cuda(number))
            }
            (device, 1) => device.open(),
            // This process holds no memory of a GPU, which those of the stages need.
            (device, _) => device.among(&Gpus::here()),
        };
        let device = device.map_err(simplemix_model::Error::from)?;
        let settings = dated(settings, purpose, watch)?;
        let plan = Plan::new(&settings, device, purpose, hashes, watch)?;
        Ok(Self { settings, plan, device, purpose })
    }

    /// Device that the models run on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The settings.
    pub fn settings(&self) -> &PipelineSettings {
        &self.settings
    }

    /// The stages, in the order in which they are done.
    pub fn stages(&self) -> &[Stage] {
        &self.plan.stages
    }

    /// For each stage, whether it runs beside the training of the round before, on a thread of its own.
    pub fn beside(&self) -> Vec<bool> {
        let is_shared = self.settings.parallel.processes > 1;
        self.stages().iter().map(|stage| self.settings.runs_beside(stage, is_shared)).collect()
    }

    /// Folder for the report, the resolved settings and the result.
    pub fn output(&self) -> &Path {
        self.settings.output.as_deref().expect("a pipeline without an output is not planned")
    }

    /// Folder of the resulting model.
    pub fn model(&self) -> PathBuf {
        self.plan.model()
    }

    /// The stage that scores the responses of the resulting model, where there is an evaluation.
    pub(crate) fn last_grade(&self) -> Option<&Stage> {
        self.plan.grades.last().map(|&at| &self.plan.stages[at])
    }

    /// Upper bounds of tokens, memory, time and disk space of each stage; none for stages that are done.
    ///
    /// # Errors
    /// [`Error::Model`] if the model's configuration cannot be read.
    pub fn estimate(&self) -> Result<Vec<Estimate>> {
        let model = needed("model", self.settings.model.as_deref(), "a model folder")?;
        let model = simplemix_model::hub::resolve_without_weights(model)?;
        let estimator = Estimator::new(&model, &self.settings, self.device)?;
        let estimate = |stage: &Stage| match stage.done() {
            Some(_) => Estimate::default(),
            None => estimator.of(stage, self.responses_before(stage)),
        };
        Ok(self.plan.stages.iter().map(estimate).collect())
    }

    /// Responses that the stages before `stage` give it, as many as are asked for.
    fn responses_before(&self, stage: &Stage) -> Option<f64> {
        let of = |&at: &usize| match &self.plan.stages[at].job {
            Job::Generate(settings, _) => settings.responses().ok().map(|responses| responses as f64),
            Job::Pool(_) => self.responses_before(&self.plan.stages[at]),
            _ => None,
        };
        stage.after.iter().map(of).sum()
    }

    /// Does all stages that are not done, and writes settings, summary and report to the output.
    ///
    /// # Errors
    /// The error of the first stage that fails or is interrupted. Stages that are done stay done, and another run
    /// continues from there.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Summary> {
        self.run_each(watch, &mut |_| {})
    }

    /// [`Pipeline::run`], with `finished` called after each stage.
    ///
    /// # Errors
    /// See [`Pipeline::run`].
    pub fn run_each(&self, watch: &mut dyn Watch, finished: &mut dyn FnMut(&Finished<'_>)) -> Result<Summary> {
        if self.settings.parallel.processes > 1 {
            let expected = "1 for a pipeline in this process; `Pipeline::run_with` has others start";
            return Err(Error::setting("parallel.processes", self.settings.parallel.processes, expected));
        }
        self.run_stages(None, watch, finished)
    }

    /// As [`Pipeline::run_each`], with each stage that runs a model in the processes that `ranks` starts.
    ///
    /// # Errors
    /// See [`Pipeline::run`].
    pub fn run_with(
        &self,
        ranks: &mut dyn Ranks,
        watch: &mut dyn Watch,
        finished: &mut dyn FnMut(&Finished<'_>),
    ) -> Result<Summary> {
        self.run_stages(Some(ranks), watch, finished)
    }

    fn run_stages(
        &self,
        ranks: Option<&mut dyn Ranks>,
        watch: &mut dyn Watch,
        finished: &mut dyn FnMut(&Finished<'_>),
    ) -> Result<Summary> {
        if self.purpose == Purpose::Look {
            return Err(Error::setting(
                "pipeline",
                "opened by `Pipeline::look`",
                "one that `Pipeline::open` has opened, to run",
            ));
        }
        let output = self.output();
        simplemix_files::create_dir_all(output)?;
        simplemix_files::write(output.join(PipelineSettings::FILE), storable(&self.settings.to_toml()?))?;
        let stages = self.stages();
        let mut hears = |position: usize, done: &Done, was_done: bool| {
            finished(&Finished { position, stage: &stages[position], done, was_done });
        };
        let all = execute::all(stages, &self.beside(), ranks, watch, &mut hears)?;
        let summary = Summary::new(&self.plan, &all)?;
        let text = serde_json::to_string_pretty(&summary).map_err(|error| Error::serialise("the summary")(&error))?;
        simplemix_files::write(output.join(Summary::FILE), storable(&(text + "\n")))?;
        let page = page::report(output, &self.settings, &self.plan, &summary)?;
        simplemix_files::write(output.join("report.html"), storable(&page))?;
        link_result(output, &self.model());
        Ok(summary)
    }
}

/// Makes `model` in the output a link to the result, where links can be made and nothing else has the name.
fn link_result(output: &Path, model: &Path) {
    #[cfg(unix)]
    {
        let link = output.join("model");
        let is_link = link.symlink_metadata().map(|found| found.file_type().is_symlink());
        if is_link.unwrap_or(true) {
            let target = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
            // The link is a convenience: without it, the summary names the model.
            let _ = std::fs::remove_file(&link);
            let _ = std::os::unix::fs::symlink(target, &link);
        }
    }
    #[cfg(not(unix))]
    let _ = (output, model);
}
