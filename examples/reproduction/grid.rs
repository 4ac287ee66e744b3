//! The comparison: arms, seeds, and the settings that are tried for each; and the runs of it, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::data::Sizes;
use crate::outcome::Outcome;

/// One that on-policy pairs are chosen by, and one that answers are judged by.
pub(crate) const REWARD_MODELS: [&str; 2] = ["scorer", "judge"];

/// A grid file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    /// Folder of everything that is made.
    pub(crate) root: PathBuf,
    pub(crate) data: Sizes,
    /// Settings of every arm, such as `mix.size=2000`.
    #[serde(default)]
    set: Vec<String>,
    /// Flags of the reward models' training over reward.toml.
    #[serde(default)]
    reward_flags: Vec<String>,
    tuning: Option<Tuning>,
    pub(crate) arm: Vec<Arm>,
    /// Folder of the grid's file, where the arms' are too.
    #[serde(skip)]
    folder: PathBuf,
}

/// Learning rates and betas, of which each arm takes those that do best on the development prompts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tuning {
    seed: u64,
    learning_rate: Vec<f64>,
    beta: Vec<f64>,
}

/// An arm of the comparison.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arm {
    /// Name in tables.
    pub(crate) name: String,
    /// Settings file without `.toml`; the name, if there is none.
    file: Option<String>,
    seeds: Vec<u64>,
    #[serde(default)]
    set: Vec<String>,
    /// The arm whose learning rate and beta it takes, in place of trying for itself.
    like: Option<String>,
}

/// A run of an arm.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) output: PathBuf,
    /// Learning rate and beta, where they are tried.
    pub(crate) tried: Option<(f64, f64)>,
    file: PathBuf,
    set: Vec<String>,
}

impl Grid {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let mut grid: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        path.parent().unwrap_or(Path::new("")).clone_into(&mut grid.folder);
        for arm in &grid.arm {
            let known = |name: &String| grid.arm.iter().any(|other| other.name == *name && other.like.is_none());
            if let Some(like) = arm.like.as_ref().filter(|like| !known(like)) {
                bail!("{}: arm `{}` is like `{like}`, expected an arm that tries for itself", path.display(), arm.name);
            }
        }
        Ok(grid)
    }

    /// Learning rates and betas that are tried: none, or several.
    fn tries(&self) -> Vec<(f64, f64)> {
        let Some(tuning) = &self.tuning else { return Vec::new() };
        let pairs = tuning.learning_rate.iter().flat_map(|&lr| tuning.beta.iter().map(move |&beta| (lr, beta)));
        pairs.collect()
    }

    /// The trials of an arm.
    pub(crate) fn trials(&self, arm: &Arm) -> Vec<Planned> {
        let seed = self.tuning.as_ref().map_or(0, |tuning| tuning.seed);
        let trial = |tried: (f64, f64)| {
            let name = format!("lr-{:e}-beta-{}", tried.0, tried.1);
            self.planned(arm, seed, self.root.join("trials").join(&arm.name).join(name), Some(tried))
        };
        if arm.like.is_some() { Vec::new() } else { self.tries().into_iter().map(trial).collect() }
    }

    /// The runs of an arm, with what was best in its trials.
    pub(crate) fn runs(&self, arm: &Arm) -> Result<Vec<Planned>> {
        let tried = self.best(arm)?;
        let output = |seed: u64| self.root.join("arms").join(&arm.name).join(format!("seed-{seed}"));
        Ok(arm.seeds.iter().map(|&seed| self.planned(arm, seed, output(seed), tried)).collect())
    }

    /// The arm that tries for `arm`: itself, or the one that it is like.
    fn tuned<'a>(&'a self, arm: &'a Arm) -> &'a Arm {
        arm.like.as_ref().and_then(|like| self.arm.iter().find(|other| other.name == *like)).unwrap_or(arm)
    }

    /// Learning rate and beta that did best on the development prompts; none where none are tried.
    fn best(&self, arm: &Arm) -> Result<Option<(f64, f64)>> {
        let mut best = None;
        for trial in self.trials(self.tuned(arm)) {
            let score = Outcome::read(&trial)?.development();
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, trial.tried));
            }
        }
        Ok(best.and_then(|(_, tried)| tried))
    }

    fn planned(&self, arm: &Arm, seed: u64, output: PathBuf, tried: Option<(f64, f64)>) -> Planned {
        let mut set = self.set.clone();
        if let Some((learning_rate, beta)) = tried {
            set.extend([format!("train.optimizer.learning_rate={learning_rate:e}"), format!("train.loss.beta={beta}")]);
        }
        set.extend(arm.set.iter().cloned());
        let file = self.folder.join(format!("{}.toml", arm.file.as_ref().unwrap_or(&arm.name)));
        Planned { arm: arm.name.clone(), seed, output, tried, file, set }
    }

    /// Does all that is not done yet. Stopped or killed at any moment, the same call goes on.
    pub(crate) fn run(&self, simplemix: &Path, only: Option<&str>) -> Result<()> {
        let asked: Vec<&Arm> = self.arm.iter().filter(|arm| only.is_none_or(|only| arm.name == only)).collect();
        ensure!(!asked.is_empty(), "no arm is called `{}`", only.unwrap_or_default());
        for name in REWARD_MODELS {
            self.reward_model(simplemix, name)?;
        }
        // Arms that are like another one share its trials.
        let tuned: BTreeSet<&str> = asked.iter().map(|arm| self.tuned(arm).name.as_str()).collect();
        for arm in self.arm.iter().filter(|arm| tuned.contains(arm.name.as_str())) {
            for trial in self.trials(arm) {
                trial.run(simplemix)?;
            }
        }
        for arm in asked {
            for run in self.runs(arm)? {
                run.run(simplemix)?;
            }
        }
        Ok(())
    }

    /// A reward model, trained on pairs of its own and measured on the same held-out ones.
    fn reward_model(&self, simplemix: &Path, name: &str) -> Result<()> {
        let output = self.root.join(format!("reward-{name}"));
        if output.join("model/config.json").is_file() {
            return Ok(());
        }
        let data = |name: &str| self.root.join(format!("data/{name}.parquet"));
        let mut command = Command::new(simplemix);
        command.arg("train").arg("--config").arg(self.folder.join("reward.toml"));
        command.arg("--model").arg(self.root.join("model")).arg("--output").arg(&output);
        command.arg("--train").arg(data(&format!("reward-{name}"))).arg("--eval").arg(data("reward-test"));
        command.args(&self.reward_flags);
        if output.join("metrics.jsonl").is_file() {
            command.arg("--resume");
        }
        call(command)
    }
}

impl Planned {
    pub(crate) fn is_done(&self) -> bool {
        self.output.join("summary.json").is_file()
    }

    fn run(&self, simplemix: &Path) -> Result<()> {
        println!("--- {} seed {} -> {}", self.arm, self.seed, self.output.display());
        let mut command = Command::new(simplemix);
        command.arg("run").arg(&self.file).args(["--seed", &self.seed.to_string()]);
        command.arg("--output").arg(&self.output);
        for set in &self.set {
            command.args(["--set", set]);
        }
        call(command)
    }
}

fn call(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
