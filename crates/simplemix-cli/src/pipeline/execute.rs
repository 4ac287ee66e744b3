//! Doing a stage, once: what is done is found again by its key, what was stopped goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simplemix_eval::read_curves;
use simplemix_rollout::{
    GenerateSettings, GeneratorSettings, Prompt, ScoreSettings, ScorerSettings, Weighted, generate, pair, score,
};
use simplemix_train::{Outcome, Run, TrainConfig};

use super::plan::{Job, Stage};
use crate::divergence::{Divergence, DivergenceSettings, log_ratios};
use crate::failure::{Fails, Failure, Result};
use crate::mix;
use crate::progress::{print, warn};
use crate::stages::{Stages, failed};
use crate::train::Screen;

/// What is known of a stage that is done; the file that says so is written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) stage: String,
    pub(super) key: String,
    /// Written by.
    pub(super) tool: String,
    /// Seconds of the call that finished it.
    pub(super) seconds: f64,
    /// What came of it.
    pub(super) report: Value,
}

const DONE: &str = "stage.json";

impl Stage {
    /// What came of it, if it is done.
    pub(super) fn done(&self) -> Option<Done> {
        let text = std::fs::read_to_string(self.folder.join(DONE)).ok()?;
        serde_json::from_str::<Done>(&text).ok().filter(|done| done.key == self.key)
    }

    /// Whether something of it is there.
    pub(super) fn is_begun(&self) -> bool {
        self.folder.is_dir()
    }

    /// Does the stage, or what is left of it.
    pub(super) fn run(&self) -> Result<Done> {
        let started = now();
        let folder = &self.folder;
        let wrong = |error: std::io::Error| Failure::Run(anyhow::anyhow!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(wrong)?;
        let _lock = lock(folder)?;
        // Another process may have done it while this one was elsewhere.
        if let Some(done) = self.done() {
            return Ok(done);
        }
        let report = match &self.job {
            Job::Generate(settings, by) => self.generate(settings, by)?,
            Job::Score(settings, scorers) => self.score(settings, scorers)?,
            Job::Pair(settings) => {
                let mut screen = Stages::new()?;
                let report = pair(settings, &mut screen);
                screen.clear();
                let report = report.map_err(failed)?;
                if report.pairs == 0 {
                    let dropped = serde_json::to_string(&report.dropped).run()?;
                    let text = format!("{}: no pair of {} prompts, dropped: {dropped}", self.name, report.prompts);
                    return Err(Failure::Run(anyhow::anyhow!(text)));
                }
                json!(report)
            }
            Job::Mix(settings) => {
                let achieved = mix::write(settings)?;
                let sources = achieved.sources.iter().map(|source| {
                    json!({ "name": source.name, "asked": source.asked, "share": source.share, "pairs": source.tally.pairs })
                });
                json!({ "pairs": achieved.pairs, "sources": sources.collect::<Vec<_>>() })
            }
            Job::Train(config) => self.train(config)?,
            Job::Diverge(settings, prompts, each) => diverge(settings, &prompts.prompts().input()?, *each)?,
        };
        let done = Done {
            stage: self.name.clone(),
            key: self.key.clone(),
            tool: format!("simplemix {}", env!("CARGO_PKG_VERSION")),
            seconds: started.elapsed().as_secs_f64(),
            report,
        };
        write_whole(&folder.join(DONE), &serde_json::to_string_pretty(&done).run()?)?;
        Ok(done)
    }

    fn generate(&self, settings: &GenerateSettings, by: &GeneratorSettings) -> Result<Value> {
        let mut generator = by.open().map_err(failed)?;
        if let Some(remark) = generator.remark() {
            warn(&format!("{}: {remark}", self.name));
        }
        let mut screen = Stages::new()?;
        let report = generate(settings, generator.as_mut(), &mut screen);
        screen.clear();
        Ok(json!(report.map_err(failed)?))
    }

    fn score(&self, settings: &ScoreSettings, scorers: &[ScorerSettings]) -> Result<Value> {
        let mut opened =
            scorers.iter().map(|scorer| scorer.open().map_err(failed)).collect::<Result<Vec<Weighted>>>()?;
        let mut screen = Stages::new()?;
        let report = score(settings, &mut opened, &mut screen);
        screen.clear();
        Ok(json!(report.map_err(failed)?))
    }

    fn train(&self, config: &TrainConfig) -> Result<Value> {
        let run = config.output.clone().unwrap_or_default();
        let resume = run.join("metrics.jsonl").exists();
        let prepared = Run::prepare(config.clone()).input()?;
        let pairs = prepared.train.len();
        let mut screen = Screen::new()?;
        let finished = prepared.start(resume, &mut screen);
        screen.clear();
        if finished.run()?.outcome == Outcome::Stopped {
            return Err(Failure::Interrupted);
        }
        // Of this process and those before it.
        let curves = read_curves(&run.join("metrics.jsonl")).run()?;
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
fn diverge(settings: &DivergenceSettings, prompts: &[Prompt], each: usize) -> Result<Value> {
    let mut taken: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut is_taken = |prompt: &Prompt| {
        let count = taken.entry(prompt.task.clone()).or_default();
        *count += 1;
        *count <= each
    };
    let prompts: Vec<Prompt> = prompts.iter().filter(|prompt| is_taken(prompt)).cloned().collect();
    let ratios = log_ratios(settings, &prompts)?;
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
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let wrong = |error: std::io::Error| Failure::Run(anyhow::anyhow!("{}: {error}", path.display()));
    let file = File::create(&path).map_err(wrong)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
            Err(TryLockError::WouldBlock) => {
                if crate::interrupt::flag()?.load(std::sync::atomic::Ordering::SeqCst) {
                    return Err(Failure::Interrupted);
                }
                if !told {
                    print(&format!("{}: another process is at it; waiting", folder.display()));
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let wrong = |error: std::io::Error| Failure::Run(anyhow::anyhow!("{}: cannot write: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any other file: what the user's mask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(wrong)?;
    file.persist(path).map_err(|error| wrong(error.error))?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the report says how long each stage took")]
fn now() -> Instant {
    Instant::now()
}
