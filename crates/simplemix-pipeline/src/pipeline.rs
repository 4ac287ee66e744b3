//! The front door: a pipeline that is planned, run stage by stage, and reported.

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_data::Watch;

use crate::error::{At, Error, Result};
use crate::estimate::{Estimate, Estimator};
use crate::inputs::model_folder;
use crate::plan::{Plan, Stage};
use crate::report::Results;
use crate::settings::{PipelineConfig, needed};
use crate::stage::{Done, write_whole};

/// A pipeline whose stages are planned.
#[derive(Debug)]
pub struct Pipeline {
    settings: PipelineConfig,
    plan: Plan,
}

/// A stage that is done, as it is told while the pipeline runs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// Place of the stage in the pipeline, from 0.
    pub at: usize,
    /// The stage.
    pub stage: &'a Stage,
    /// Its result.
    pub done: &'a Done,
    /// Whether it was done before this run.
    pub was_done: bool,
}

impl Pipeline {
    /// Plans the stages: hashes the files that are read, and writes nothing.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that is missing, [`Error::Io`] and others for files that cannot be read.
    pub fn open(settings: PipelineConfig, watch: &mut dyn Watch) -> Result<Self> {
        let plan = Plan::new(&settings, watch)?;
        Ok(Self { settings, plan })
    }

    /// The stages, in the order that they are done in.
    pub fn stages(&self) -> &[Stage] {
        &self.plan.stages
    }

    /// Upper bounds of tokens, memory and time of each stage that is not done.
    ///
    /// # Errors
    /// [`Error::Model`] if the model's configuration cannot be read.
    pub fn estimate(&self) -> Result<Vec<Estimate>> {
        let model = model_folder(needed("model", self.settings.model.as_deref(), "a model folder")?)?;
        let estimator = Estimator::new(&model, self.settings.mix_settings()?.size)?;
        let stages = self.plan.stages.iter();
        Ok(stages.map(|stage| if stage.done().is_some() { Estimate::default() } else { estimator.of(stage) }).collect())
    }

    /// Folder of the resulting model.
    pub fn model(&self) -> PathBuf {
        self.plan.stages[self.plan.result].folder.join("run/model")
    }

    /// Does all stages that are not done, tells `finished` about each of them, and writes settings and reports to the
    /// output. Returns the summary.
    ///
    /// # Errors
    /// The error of the first stage that fails; the stages before it stay done.
    pub fn run(&self, watch: &mut dyn Watch, finished: &mut dyn FnMut(&Finished<'_>)) -> Result<Value> {
        let output = needed("output", self.settings.output.as_deref(), "a folder")?;
        std::fs::create_dir_all(output).at(output, "create")?;
        let settings = toml::to_string(&self.settings).map_err(|error| Error::serialise("settings")(&error))?;
        write_whole(&output.join("pipeline.toml"), &settings)?;
        let mut all = Vec::new();
        for (at, stage) in self.plan.stages.iter().enumerate() {
            let before = stage.done();
            let was_done = before.is_some();
            let done = match before {
                Some(done) => done,
                None => stage.run(watch)?,
            };
            finished(&Finished { at, stage, done: &done, was_done });
            all.push(done);
        }
        let results = Results { config: &self.settings, plan: &self.plan, done: &all };
        let summary = results.summary()?;
        results.write(output, &summary)?;
        link_result(output, &self.model());
        Ok(summary)
    }
}

/// `model` in the output, as a link to the result, where links can be made.
fn link_result(output: &Path, model: &Path) {
    #[cfg(unix)]
    {
        let link = output.join("model");
        let target = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
        if link.symlink_metadata().map_or(true, |found| found.file_type().is_symlink()) {
            let _ = std::fs::remove_file(&link);
            let _ = std::os::unix::fs::symlink(target, &link);
        }
    }
}
