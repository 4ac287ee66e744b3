//! A pipeline as it is written: a preset, a file over it, flags over both; unknown keys are refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_mix::Weight;
use simplemix_rollout::{PromptSettings, SamplingConfig, ScorerSettings, SelectSettings, ServerSettings};
use simplemix_settings::{Settings, assignment, merge};
use simplemix_train::TrainConfig;

use crate::error::{At, Error, Result};
use crate::mix::MixSettings;

/// All stages. Sections that are TOML tables here have the settings of the command of their name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// Folder for the report, the resolved settings and the result.
    pub output: Option<PathBuf>,
    /// Folder of the stages' results, `stages` in the output without. Arms that share one share what is equal in them.
    pub stages: Option<PathBuf>,
    /// The model to start from, which is also the reference.
    pub model: Option<PathBuf>,
    /// Everything random follows from it.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Times that on-policy pairs are collected, mixed and trained on.
    #[serde(default = "one")]
    pub rounds: u32,
    /// Whether a round's reference is the model that it starts from, in place of the first one.
    #[serde(default)]
    pub renew_reference: bool,
    /// Rounds that on-policy pairs are kept: 0 takes those of the current model only.
    #[serde(default)]
    pub max_age: u32,
    /// Pairs written by others: file, folder of shards, or pattern.
    pub off_policy: Option<PathBuf>,
    /// Prompts that the model answers.
    pub prompts: Option<PromptSettings>,
    /// How on-policy pairs are made.
    #[serde(default)]
    pub collect: CollectConfig,
    /// A reward model that is trained first and scores where `collect.scorer` is empty: settings of `simplemix train`.
    pub reward: Option<toml::Table>,
    /// Shares `on` and `off`, and settings of `simplemix mix`.
    #[serde(default)]
    pub mix: MixConfig,
    /// Settings of `simplemix train`.
    #[serde(default)]
    pub train: toml::Table,
    /// What the result is held against.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
}

/// How on-policy pairs are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {
    /// Who answers.
    pub sampler: Sampler,
    /// Of the sampler `mix-p`: share of prompts that the policy alone answers.
    pub plain_share: f64,
    /// How answers are drawn.
    pub sampling: SamplingConfig,
    /// Which answers become pairs.
    pub select: SelectSettings,
    /// What answers are worth; the reward model of the stage before, if there is none.
    pub scorer: Vec<ScorerSettings>,
    /// A server that has the model, in place of this process; first round only.
    pub server: Option<ServerSettings>,
    /// Answers made together in this process.
    pub batch_rows: usize,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self {
            sampler: Sampler::Policy,
            plain_share: 0.0,
            sampling: SamplingConfig::simplemix(),
            select: SelectSettings::default(),
            scorer: Vec::new(),
            server: None,
            batch_rows: 64,
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// The model as it is.
    Policy,
    /// Policy and reference mixed, either way: DPO-Mix-P, from the second round on.
    MixP,
}

/// Shares of the sources, and the rest of a mixture's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixConfig {
    /// Share of on-policy pairs.
    #[serde(default = "equal")]
    pub on: Weight,
    /// Share of off-policy pairs.
    #[serde(default = "equal")]
    pub off: Weight,
    #[serde(flatten)]
    /// Settings of the mixture.
    pub settings: toml::Table,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self { on: equal(), off: equal(), settings: toml::Table::new() }
    }
}

/// What the result is held against.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Prompts that are answered by the model before and after.
    pub prompts: Option<PromptSettings>,
    /// Tokens of an answer.
    pub max_new_tokens: Option<usize>,
    /// What the answers are worth; as in `collect` if there is none.
    pub scorer: Vec<ScorerSettings>,
    /// Prompts, the first of each task, on which the divergence of each model from the first is estimated; 0 for none.
    pub kl_prompts: usize,
}

fn seed() -> u64 {
    42
}

fn one() -> u32 {
    1
}

fn equal() -> Weight {
    Weight::whole(1)
}

const PRESETS: [(&str, &str); 7] = [
    ("simplemix", include_str!("presets/simplemix.toml")),
    ("off-policy", include_str!("presets/off-policy.toml")),
    ("on-policy", include_str!("presets/on-policy.toml")),
    ("hypo", include_str!("presets/hypo.toml")),
    ("dpo-mix-p", include_str!("presets/dpo-mix-p.toml")),
    ("dpo-mix-r", include_str!("presets/dpo-mix-r.toml")),
    ("iterative", include_str!("presets/iterative.toml")),
];

/// The text of a preset, with comments on the sources of its values.
///
/// # Errors
/// [`Error::Setting`] naming the presets that there are.
pub fn preset(name: &str) -> Result<&'static str> {
    let known = || format!("one of {}", PRESETS.map(|(name, _)| name).join(", "));
    let found = PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| Error::setting("preset", format!("`{name}`"), known()))
}

/// Presets, file and flags as one table. A file names in its key `preset` what it goes over: one of the presets, or another
/// file.
///
/// # Errors
/// [`Error::Config`], [`Error::Setting`], and [`Error::Io`] for a file that cannot be read.
pub fn resolve(
    named: Option<&str>,
    file: Option<&Path>,
    flags: toml::Table,
    sets: &[String],
) -> Result<PipelineConfig> {
    let mut table = match (file, named) {
        (Some(path), _) => of_file(path, named, MOST_LAYERS)?,
        (None, Some(name)) => below(name, Path::new(""), MOST_LAYERS)?,
        (None, None) => toml::Table::new(),
    };
    merge(&mut table, flags);
    for text in sets {
        merge(&mut table, assignment(text)?);
    }
    let place = file.map_or_else(|| "flags".to_owned(), |path| path.display().to_string());
    let config: PipelineConfig = toml::Value::Table(table).try_into().map_err(|error| invalid(&place, &error))?;
    config.check()?;
    Ok(config)
}

/// Files that may stand on each other.
const MOST_LAYERS: usize = 8;

/// A file's settings, over those of the preset that it names, or over those of `named` in its place.
fn of_file(path: &Path, named: Option<&str>, layers: usize) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).at(path, "read")?;
    let mut own: toml::Table = text.parse().map_err(|error| invalid(&path.display().to_string(), &error))?;
    let preset = match own.remove("preset") {
        Some(toml::Value::String(name)) => Some(name),
        Some(other) => {
            return Err(Error::setting("preset", other, "a name or a file"));
        }
        None => None,
    };
    let mut table = match (named, &preset) {
        (Some(name), _) => below(name, Path::new(""), layers)?,
        (None, Some(name)) => below(name, path.parent().unwrap_or(Path::new("")), layers)?,
        (None, None) => toml::Table::new(),
    };
    merge(&mut table, own);
    Ok(table)
}

/// The settings that a preset's name stands for; one that ends in `.toml` is a file, seen from `folder`.
fn below(name: &str, folder: &Path, layers: usize) -> Result<toml::Table> {
    if !name.ends_with(".toml") {
        return preset(name)?.parse().map_err(|error| invalid(name, &error));
    }
    if layers == 0 {
        let found = format!("a chain of more than {MOST_LAYERS} files");
        return Err(Error::setting("preset", found, "fewer; is it a circle?"));
    }
    of_file(&folder.join(name), None, layers - 1)
}

impl PipelineConfig {
    /// Whether on-policy pairs are collected.
    pub(crate) fn collects(&self) -> bool {
        !self.mix.on.is_zero()
    }

    fn check(&self) -> Result<()> {
        let refuse = |key: &str, found: &str, expected: &str| Err(Error::setting(key, found, expected));
        if self.rounds == 0 {
            return refuse("rounds", "0", "at least 1");
        }
        if self.mix.on.is_zero() && self.mix.off.is_zero() {
            return refuse("mix.on", "0, as `mix.off`", "a share of one of them");
        }
        if !self.collects() && self.rounds > 1 {
            return refuse("rounds", &self.rounds.to_string(), "1 without on-policy pairs: nothing would change");
        }
        if self.collect.server.is_some() && self.rounds > 1 {
            return refuse("collect.server", "given", "none with several rounds: it has the first model only");
        }
        if self.collect.server.is_some() && self.collect.sampler == Sampler::MixP {
            return refuse("collect.server", "given", "none with the sampler `mix-p`, which mixes logits");
        }
        if !(0.0..=1.0).contains(&self.collect.plain_share) {
            return refuse("collect.plain_share", &self.collect.plain_share.to_string(), "a number from 0 to 1");
        }
        if self.collects() {
            self.collect.sampling.check()?;
            self.collect.select.check()?;
        }
        for key in ["model", "train", "mix", "output"] {
            if self.train.contains_key(key) {
                return refuse(&format!("train.{key}"), "given", "none: the pipeline knows it");
            }
        }
        if self.train.get("reference").is_some_and(|reference| reference.get("model").is_some()) {
            return refuse("train.reference.model", "given", "none: the pipeline knows it");
        }
        for key in ["model", "output"] {
            if self.reward.as_ref().is_some_and(|reward| reward.contains_key(key)) {
                return refuse(&format!("reward.{key}"), "given", "none: the pipeline knows it");
            }
        }
        for key in ["source", "output", "report", "plot"] {
            if self.mix.settings.contains_key(key) {
                return refuse(&format!("mix.{key}"), "given", "none: the pipeline knows it");
            }
        }
        self.train_config()?;
        self.reward_config()?;
        self.mix_settings()?;
        Ok(())
    }

    /// Settings of training, without model and data.
    pub(crate) fn train_config(&self) -> Result<TrainConfig> {
        let config = table_config("train", &self.train)?;
        Ok(TrainConfig { seed: seed_of(&self.train, self.seed, config.seed), ..config })
    }

    /// Settings of the reward model's training.
    pub(crate) fn reward_config(&self) -> Result<Option<TrainConfig>> {
        let Some(table) = &self.reward else { return Ok(None) };
        let config = table_config("reward", table)?;
        let seed = seed_of(table, self.seed, config.seed);
        Ok(Some(TrainConfig { objective: simplemix_train::Objective::Reward, seed, ..config }))
    }

    /// Settings of mixing, without sources.
    pub(crate) fn mix_settings(&self) -> Result<MixSettings> {
        let settings: MixSettings =
            toml::Value::Table(self.mix.settings.clone()).try_into().map_err(|error| invalid("[mix]", &error))?;
        Ok(MixSettings { seed: seed_of(&self.mix.settings, self.seed, settings.seed), ..settings })
    }
}

/// A section's own seed, or the pipeline's.
fn seed_of(table: &toml::Table, pipeline: u64, own: u64) -> u64 {
    if table.contains_key("seed") { own } else { pipeline }
}

fn table_config(section: &str, table: &toml::Table) -> Result<TrainConfig> {
    let config = TrainConfig::from_table(table.clone()).map_err(|error| error.under(section))?;
    config.check().map_err(|error| match error {
        simplemix_train::Error::Setting(error) => Error::Settings(error.under(section)),
        other => Error::Prepare(other),
    })?;
    Ok(config)
}

fn invalid(place: &str, error: &toml::de::Error) -> Error {
    Error::Config { place: place.to_owned(), message: error.to_string().trim_end().to_owned() }
}

/// A setting that a pipeline cannot do without.
pub(crate) fn needed<'a, T: ?Sized>(key: &str, value: Option<&'a T>, expected: &str) -> Result<&'a T> {
    value.ok_or_else(|| Error::setting(key, "not set", expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sets: &[&str]) -> Result<PipelineConfig> {
        let sets: Vec<String> = sets.iter().map(|&text| text.to_owned()).collect();
        resolve(Some("simplemix"), None, toml::Table::new(), &sets)
    }

    #[test]
    fn every_preset_is_sound() {
        for (name, _) in PRESETS {
            let config = resolve(Some(name), None, toml::Table::new(), &[]).unwrap();
            let again: PipelineConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(again, config, "{name}");
        }
    }

    #[test]
    fn flags_win_over_presets() {
        let config = of(&["train.loss.beta=0.05", "seed = 7", "mix.size=10", "model=some/folder"]).unwrap();
        assert_eq!(config.train_config().unwrap().loss.beta, 0.05);
        assert_eq!((config.train_config().unwrap().seed, config.mix_settings().unwrap().seed), (7, 7));
        assert_eq!(config.model, Some(PathBuf::from("some/folder")));
    }

    #[test]
    fn files_stand_on_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("base.toml", "preset = \"on-policy\"\nseed = 7\n[train]\nloss.beta = 0.2\nbatch.batch_size = 4");
        std::fs::create_dir(dir.path().join("arms")).unwrap();
        write("arms/arm.toml", "preset = \"../base.toml\"\n[train]\nloss.beta = 0.3");
        let of = |name: &str| resolve(None, Some(&dir.path().join(name)), toml::Table::new(), &[]);
        let config = of("arms/arm.toml").unwrap();
        let train = config.train_config().unwrap();
        assert_eq!((config.seed, train.loss.beta, train.batch.batch_size), (7, 0.3, 4));
        assert!(config.mix.off.is_zero());
        write("base.toml", "preset = \"arms/arm.toml\"");
        assert!(of("arms/arm.toml").unwrap_err().to_string().contains("is it a circle?"));
        write("base.toml", "preset = \"missing.toml\"");
        assert!(of("base.toml").unwrap_err().to_string().contains("missing.toml"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let message = |sets: &[&str]| of(sets).unwrap_err().to_string();
        assert!(message(&["rounds=0"]).contains("`rounds` is 0, expected at least 1"));
        assert_eq!(message(&["train.loss.betta=1"]), "unknown key `train.loss.betta`; did you mean `train.loss.beta`?");
        assert_eq!(message(&["train.beta=1"]), "`train.beta` is now `train.loss.beta`");
        assert_eq!(message(&["train.loss.beta=0"]), "`train.loss.beta` is 0, expected a number above 0");
        assert!(message(&["train.reference.model='x'"]).contains("`train.reference.model` is given"));
        assert!(message(&["train.model='x'"]).contains("`train.model` is given"));
        assert!(message(&["mix.on=0", "mix.off=0"]).contains("`mix.on` is 0"));
        assert!(message(&["mix.sice=3"]).contains("sice"));
        assert!(message(&["nothing=3"]).contains("nothing"));
        assert!(message(&["beta"]).contains("expected SECTION.KEY=VALUE"));
    }
}
