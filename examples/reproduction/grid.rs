//! The comparison: arms, seeds, and the settings that are tried for each; and the runs of it, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use simplemix::pipeline::{Finished, Pipeline, PipelineSettings};
use simplemix::settings::{Settings, assignment, merge};
use simplemix::train::{EvalFiles, Run, RunFolder, TrainConfig};

use crate::bars::Bars;
use crate::data::Sizes;
use crate::outcome::Outcome;

/// Reward models: one to choose on-policy pairs, another one to judge responses.
pub(crate) const REWARD_MODELS: [&str; 2] = ["scorer", "judge"];

/// A grid file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    /// Folder of all results.
    pub(crate) root: PathBuf,
    pub(crate) data: Sizes,
    /// Settings of every arm, such as `mix.size=2000`.
    #[serde(default)]
    set: Vec<String>,
    /// Settings of the reward models' training on top of reward.toml, such as `epochs=1`.
    #[serde(default)]
    reward_set: Vec<String>,
    tuning: Option<Tuning>,
    pub(crate) arm: Vec<Arm>,
    /// Folder of the grid file and of the arms' files.
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
    /// The arm whose learning rate and beta it takes, in place of trials of its own.
    like: Option<String>,
}

/// A run of an arm.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) output: PathBuf,
    /// Learning rate and beta, if there are trials.
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

    /// Does everything that is not done yet. After a kill at any moment, the same call continues.
    pub(crate) fn run(&self, only: Option<&str>) -> Result<()> {
        let asked: Vec<&Arm> = self.arm.iter().filter(|arm| only.is_none_or(|only| arm.name == only)).collect();
        ensure!(!asked.is_empty(), "no arm is called `{}`", only.unwrap_or_default());
        for name in REWARD_MODELS {
            self.reward_model(name)?;
        }
        // Arms that are like another one share its trials.
        let tuned: BTreeSet<&str> = asked.iter().map(|arm| self.tuned(arm).name.as_str()).collect();
        for arm in self.arm.iter().filter(|arm| tuned.contains(arm.name.as_str())) {
            for trial in self.trials(arm) {
                trial.run()?;
            }
        }
        for arm in asked {
            for run in self.runs(arm)? {
                run.run()?;
            }
        }
        Ok(())
    }

    /// A reward model, trained on pairs of its own and measured on the same held-out pairs as the other one.
    fn reward_model(&self, name: &str) -> Result<()> {
        let output = self.root.join(format!("reward-{name}"));
        if output.join("model/config.json").is_file() {
            return Ok(());
        }
        println!("--- reward model: {name} -> {}", output.display());
        let path = self.folder.join("reward.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let mut table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        merge(&mut table, assigned(&self.reward_set)?);
        let data = |name: &str| self.root.join(format!("data/{name}.parquet"));
        let mut config = TrainConfig::from_table(table)?;
        config.model = Some(self.root.join("model"));
        config.train = Some(data(&format!("reward-{name}")));
        config.eval.files = Some(EvalFiles::One(data("reward-test")));
        config.output = Some(output.clone());
        let mut bars = Bars::default();
        Run::prepare(config)?.start(RunFolder::is_started(&output).into(), &mut bars)?;
        bars.clear();
        Ok(())
    }
}

impl Planned {
    pub(crate) fn is_done(&self) -> bool {
        self.output.join("summary.json").is_file()
    }

    fn run(&self) -> Result<()> {
        println!("--- {} seed {} -> {}", self.arm, self.seed, self.output.display());
        let mut over = assigned(&self.set)?;
        over.insert("seed".to_owned(), toml::Value::try_from(self.seed)?);
        over.insert("output".to_owned(), toml::Value::try_from(&self.output)?);
        let mut bars = Bars::default();
        let pipeline = Pipeline::open(PipelineSettings::resolve(None, Some(&self.file), over)?, &mut bars)?;
        let stages = pipeline.stages().len();
        let tell = &mut |Finished { position, stage, done, was_done, .. }: &Finished<'_>| {
            let how = if *was_done { "done before".to_owned() } else { format!("{:.1} s", done.seconds) };
            println!("[{}/{stages}] {} ({how}): {}", position + 1, stage.name, done.report);
        };
        pipeline.run_each(&mut bars, tell)?;
        bars.clear();
        Ok(())
    }
}

/// The settings of assignments such as `mix.size=2000`.
fn assigned(sets: &[String]) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    for text in sets {
        merge(&mut table, assignment(text)?);
    }
    Ok(table)
}
