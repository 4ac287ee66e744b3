//! Doing a stage, once: what is done is found again by its key, what was stopped goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simplemix_data::Watch;
use simplemix_eval::read_curves;
use simplemix_rollout::{
    GenerateSettings, GeneratorSettings, Prompt, ScoreSettings, ScorerSettings, Weighted, generate, pair, score,
};
use simplemix_train::{Outcome, Run, TrainConfig};

use crate::divergence::{Divergence, DivergenceSettings, log_ratios};
use crate::error::{At, Error, Result};
use crate::mix::mix;
use crate::plan::{Job, Stage};

/// What is known of a stage that is done; the file that says so is written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Name of the stage.
    pub stage: String,
    /// Key of everything that the result depends on.
    pub key: String,
    /// Program that wrote it.
    pub tool: String,
    /// Seconds of the call that finished it.
    pub seconds: f64,
    /// What came of it.
    pub report: Value,
}

const DONE: &str = "stage.json";

impl Stage {
    /// What came of it, if it is done.
    pub fn done(&self) -> Option<Done> {
        let text = std::fs::read_to_string(self.folder.join(DONE)).ok()?;
        serde_json::from_str::<Done>(&text).ok().filter(|done| done.key == self.key)
    }

    /// Whether something of it is there.
    pub fn is_begun(&self) -> bool {
        self.folder.is_dir()
    }

    /// Does the stage, or what is left of it.
    pub(crate) fn run(&self, watch: &mut dyn Watch) -> Result<Done> {
        let started = now();
        let folder = &self.folder;
        std::fs::create_dir_all(folder).at(folder, "create")?;
        let _lock = lock(folder, watch)?;
        // Another process may have done it while this one was elsewhere.
        if let Some(done) = self.done() {
            return Ok(done);
        }
        let report = match &self.job {
            Job::Generate(settings, by) => self.generate(settings, by, watch)?,
            Job::Score(settings, scorers) => self.score(settings, scorers, watch)?,
            Job::Pair(settings) => {
                let report = pair(settings, watch)?;
                if report.pairs == 0 {
                    let dropped = json!(report.dropped).to_string();
                    return Err(Error::NoPairs { stage: self.name.clone(), prompts: report.prompts, dropped });
                }
                json!(report)
            }
            Job::Mix(settings) => {
                let achieved = mix(settings, watch)?.achieved;
                let sources = achieved.sources.iter().map(|source| {
                    json!({ "name": source.name, "asked": source.asked, "share": source.share, "pairs": source.tally.pairs })
                });
                json!({ "pairs": achieved.pairs, "sources": sources.collect::<Vec<_>>() })
            }
            Job::Train(config) => self.train(config, watch)?,
            Job::Diverge(settings, prompts, each) => diverge(settings, &prompts.prompts()?, *each, watch)?,
        };
        let done = Done {
            stage: self.name.clone(),
            key: self.key.clone(),
            tool: crate::TOOL.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
            report,
        };
        let text = serde_json::to_string_pretty(&done).map_err(|error| Error::serialise("a stage")(&error))?;
        write_whole(&folder.join(DONE), &text)?;
        Ok(done)
    }

    fn generate(&self, settings: &GenerateSettings, by: &GeneratorSettings, watch: &mut dyn Watch) -> Result<Value> {
        Ok(json!(generate(settings, by.open()?.as_mut(), watch)?))
    }

    fn score(&self, settings: &ScoreSettings, scorers: &[ScorerSettings], watch: &mut dyn Watch) -> Result<Value> {
        let mut opened = scorers.iter().map(|scorer| Ok(scorer.open()?)).collect::<Result<Vec<Weighted>>>()?;
        Ok(json!(score(settings, &mut opened, watch)?))
    }

    fn train(&self, config: &TrainConfig, watch: &mut dyn Watch) -> Result<Value> {
        let run = config.output.clone().unwrap_or_default();
        let resume = run.join("metrics.jsonl").exists();
        let prepared = Run::prepare(config.clone()).map_err(Error::Prepare)?;
        let pairs = prepared.train.len();
        if prepared.start(resume, watch)?.outcome == Outcome::Stopped {
            return Err(Error::Interrupted);
        }
        // The file has the metrics of this process and of those before it.
        let curves = read_curves(&run.join("metrics.jsonl"))?;
        let steps = curves.get("loss").map_or(0, Vec::len);
        let last: serde_json::Map<String, Value> = curves
            .iter()
            .filter(|(name, _)| {
                name.starts_with("eval_") || SHOWN.contains(&name.split('@').next().unwrap_or_default())
            })
            .map(|(name, points)| (name.clone(), json!(tail_mean(points, name.starts_with("eval_")))))
            .collect();
        Ok(json!({ "pairs": pairs, "updates": steps, "last": last }))
    }
}

/// The divergence over all answers, and task by task, on the first `each` prompts of a task.
fn diverge(settings: &DivergenceSettings, prompts: &[Prompt], each: usize, watch: &mut dyn Watch) -> Result<Value> {
    let mut taken: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut is_taken = |prompt: &Prompt| {
        let count = taken.entry(prompt.task.clone()).or_default();
        *count += 1;
        *count <= each
    };
    let prompts: Vec<Prompt> = prompts.iter().filter(|prompt| is_taken(prompt)).cloned().collect();
    let ratios = log_ratios(settings, &prompts, watch)?;
    let mut report = json!(Divergence::of(&ratios));
    for task in ratios.iter().filter_map(|ratio| ratio.task.as_ref()).collect::<BTreeSet<_>>() {
        let of_task = ratios.iter().filter(|ratio| ratio.task.as_ref() == Some(task));
        report["tasks"][task] = json!(Divergence::of(of_task));
    }
    Ok(report)
}

/// Metrics of training that the pipeline's report shows.
const SHOWN: &[&str] = &["loss", "rewards/margins", "rewards/accuracies", "accuracy", "margin", "kl"];

/// The last value of an evaluation; of training the mean over its last tenth.
fn tail_mean(points: &[(f64, f64)], last_only: bool) -> f64 {
    let count = if last_only { 1 } else { points.len().div_ceil(10) };
    let tail = &points[points.len() - count.min(points.len())..];
    tail.iter().map(|(_, value)| value).sum::<f64>() / tail.len().max(1) as f64
}

/// Holds a stage's folder until it is dropped.
fn lock(folder: &Path, watch: &mut dyn Watch) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).at(&path, "create")?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).at(&path, "lock"),
            Err(TryLockError::WouldBlock) => {
                if watch.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                if !told {
                    watch.notice(&format!("{}: another process is at it; waiting", folder.display()));
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any other file: what the user's mask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).at(path, "write")?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).at(path, "write")?;
    file.persist(path).map(drop).map_err(|error| error.error).at(path, "write")
}

#[expect(clippy::disallowed_methods, reason = "the report says how long each stage took")]
fn now() -> Instant {
    Instant::now()
}
