//! Settings of a pipeline: typed sections, read once from TOML.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_blend::MixSettings;
use simplemix_mix::Weight;
use simplemix_model::{DeviceChoice, LoadIn};
use simplemix_rollout::{PromptSettings, SamplingConfig, ScorerSettings, Select, SelectSettings};
#[cfg(feature = "server")]
use simplemix_rollout::{Servers, WeightsSettings};
use simplemix_settings::{Error as SettingsError, Settings, merge, read};
use simplemix_train::{Objective, ParallelSettings, TrainConfig};

use crate::beside::Beside;
use crate::error::{Error, Result};
use crate::off_policy::OffPolicy;
use crate::pool::PoolSection;
use crate::presets::layers;
use crate::sweep::SECTION;

/// Settings of a pipeline.
///
/// The fields that the pipeline sets by itself stay as they are by default: model and data of `train`, model and output of
/// `reward`, sources and outputs of `mix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineSettings {
    /// Folder for the report, the resolved settings and the result.
    pub output: Option<PathBuf>,
    /// Folder of the stages' results, which pipelines may share; `stages` in the output if it is not set.
    pub stages: Option<PathBuf>,
    /// Model to start from, which is also the reference: a folder, or its id on the hub.
    pub model: Option<PathBuf>,
    /// Device that the models of all stages run on: `auto`, `cpu`, `cuda` or `cuda:N`; a reward model among the scorers may have one
    /// of its own.
    pub device: DeviceChoice,
    /// Form in which the policy is held where it samples or is measured, and the reward model of `reward` where it scores: `none`, `8bit`
    /// or `4bit`. Training has `train.quantization` and `reward.quantization`, and a reward model among the scorers a `load_in` of its own.
    pub load_in: LoadIn,
    /// Random seed; the sections `train`, `reward` and `mix` have their own where they set one.
    pub seed: u64,
    /// Rounds of collecting, mixing and training; at least 1.
    pub rounds: u32,
    /// Whether the reference of a round is the model that the round starts from, in place of the first model.
    pub renew_reference: bool,
    /// Largest age of on-policy pairs, in rounds between the model that wrote them and the one that trains on them; 0 takes those of
    /// the current model only.
    pub max_age: u32,
    /// Off-policy pairs: file, folder of shards, pattern or URL, or a list of sources with shares of `mix.off`.
    pub off_policy: Option<OffPolicy>,
    /// Prompts to sample responses to.
    pub prompts: Option<PromptSettings>,
    /// How on-policy pairs are collected.
    pub collect: CollectSection,
    /// Training of a reward model, which then scores responses where `collect.scorer` is empty.
    pub reward: Option<TrainConfig>,
    /// Shares of on-policy and off-policy pairs, and settings of the mixture.
    pub mix: MixSection,
    /// Training of the policy.
    pub train: TrainConfig,
    /// Evaluation of the model before and after each round.
    pub evaluate: EvaluateSection,
    /// Processes that share each stage.
    pub parallel: ParallelSection,
    /// Date that chat templates see in all stages, such as 2026-01-31; if not set, that of the day on which the pipeline began in
    /// this output.
    pub template_date: Option<String>,
}

/// How on-policy pairs are collected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectSection {
    /// Model that samples the responses.
    pub sampler: Sampler,
    /// Share of prompts whose responses the policy alone samples, for the sampler `mix-p`; from 0 to 1.
    pub plain_share: f64,
    /// How responses are sampled.
    pub sampling: SamplingConfig,
    /// How responses become pairs.
    pub select: SelectSettings,
    /// Scorers of the responses; the reward model of `reward` if there are none.
    pub scorer: Vec<ScorerSettings>,
    /// Other models whose responses stand beside the policy's, and how many of which models each prompt has.
    pub pool: Option<PoolSection>,
    /// Server that has the model, in place of this process, or a list of several that share the requests; with several rounds it needs
    /// `weights`.
    #[cfg(feature = "server")]
    pub server: Option<Servers>,
    /// Way in which the server gets the weights of each round, and whether it is seen that it has them.
    #[cfg(feature = "server")]
    pub weights: Option<WeightsSettings>,
    /// Batch size of sampling in this process; more needs more memory.
    pub batch_rows: usize,
    /// Rounds by which the model that samples is behind: with 1, a round samples from the model of the round before the last, so that
    /// it can collect while that one trains. Less than `rounds`.
    pub lag: u32,
    /// Stages of collecting that run beside training, with a `lag`.
    pub beside: Beside,
}

impl Default for CollectSection {
    fn default() -> Self {
        Self {
            sampler: Sampler::Policy,
            plain_share: 0.0,
            sampling: SamplingConfig::simplemix(),
            select: SelectSettings::default(),
            scorer: Vec::new(),
            pool: None,
            #[cfg(feature = "server")]
            server: None,
            #[cfg(feature = "server")]
            weights: None,
            batch_rows: 64,
            lag: 0,
            beside: Beside::Servers,
        }
    }
}

/// Model that samples responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// The policy.
    Policy,
    /// Mixtures of policy and reference, as in DPO-Mix-P; from the second round on.
    MixP,
}

/// Shares of the sources, and settings of the mixture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixSection {
    /// Share of on-policy pairs.
    pub on: Weight,
    /// Share of off-policy pairs.
    pub off: Weight,
    /// Settings of the mixture.
    #[serde(flatten)]
    pub settings: MixSettings,
}

impl Default for MixSection {
    fn default() -> Self {
        Self { on: Weight::whole(1), off: Weight::whole(1), settings: MixSettings::default() }
    }
}

/// Evaluation of the model before and after each round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSection {
    /// Prompts that each model answers, with its likeliest response.
    pub prompts: Option<PromptSettings>,
    /// Limit of a response, in tokens; that of `collect.sampling` if it is not set.
    pub max_new_tokens: Option<usize>,
    /// Scorers of the responses; those of `collect` if there are none.
    pub scorer: Vec<ScorerSettings>,
    /// Prompts of each task for an estimate of every model's divergence from the first model; 0 for no estimate.
    pub kl_prompts: usize,
}

/// Several processes, one a device, that share each stage that runs a model. No result depends on their number but for the last
/// bits of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelSection {
    /// Processes on this machine; 1 to 1024.
    pub processes: usize,
    /// Time in seconds after which a process that the others wait for, and that does nothing new, is an error; if not set, 120 s on
    /// CPUs and 600 s on GPUs.
    pub time_limit: Option<f64>,
}

impl Default for ParallelSection {
    fn default() -> Self {
        Self { processes: 1, time_limit: None }
    }
}

impl ParallelSection {
    /// The settings of a training, `own` but for what holds for all stages.
    pub(crate) fn of_training(self, own: ParallelSettings) -> ParallelSettings {
        ParallelSettings { processes: self.processes, time_limit: self.time_limit, ..own }
    }

    fn check(self) -> Result<()> {
        let Self { processes, time_limit } = self;
        if !(1..=1024).contains(&processes) {
            return Err(Error::setting("parallel.processes", processes, "a number from 1 to 1024"));
        }
        if let Some(limit) = time_limit.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
            return Err(Error::setting("parallel.time_limit", limit, "a number of seconds above 0"));
        }
        Ok(())
    }
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            output: None,
            stages: None,
            model: None,
            device: DeviceChoice::Auto,
            load_in: LoadIn::None,
            seed: 42,
            rounds: 1,
            renew_reference: false,
            max_age: 0,
            off_policy: None,
            prompts: None,
            collect: CollectSection::default(),
            reward: None,
            mix: MixSection::default(),
            train: TrainConfig::default(),
            evaluate: EvaluateSection::default(),
            parallel: ParallelSection::default(),
            template_date: None,
        }
    }
}

/// Keys that the pipeline sets by itself, by section.
pub(crate) const SET_BY_THE_PIPELINE: [(&str, &[&str]); 6] = [
    ("train", &["model", "train", "mix", "output", "device"]),
    ("train.reference", &["model"]),
    ("train.parallel", &["processes", "time_limit"]),
    ("reward", &["model", "output", "device"]),
    ("reward.parallel", &["processes", "time_limit"]),
    ("mix", &["source", "output", "report", "plot"]),
];

/// Sections that have the pipeline's random seed unless they set one.
const SEEDED: [&str; 3] = ["train", "reward", "mix"];

impl PipelineSettings {
    /// File of the resolved settings in the output of a pipeline.
    pub(crate) const FILE: &str = "pipeline.toml";

    /// Settings of a preset or a file, with `over` on top.
    ///
    /// `base` is a preset or the path of a TOML file. `file` goes over it; without a base, the file's own key `preset`
    /// names one. What is absent has its default.
    ///
    /// ```
    /// use simplemix_pipeline::PipelineSettings;
    /// let over = "model = 'smollm2'\n[train.loss]\nbeta = 0.5".parse()?;
    /// let settings = PipelineSettings::resolve(Some("simplemix"), None, over)?;
    /// assert_eq!((settings.train.loss.beta, settings.train.batch.batch_size), (0.5, 128));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Config`], [`Error::Setting`] and [`Error::Settings`] for
    /// settings that are unknown or have a wrong value.
    pub fn resolve(base: Option<&str>, file: Option<&Path>, over: toml::Table) -> Result<Self> {
        let mut table = layers(base, file)?;
        merge(&mut table, over);
        Self::from_table(table, file)
    }

    /// Settings of `pipeline.toml` in the output of a pipeline, or of any other file.
    ///
    /// # Errors
    /// See [`PipelineSettings::resolve`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::resolve(None, Some(path), toml::Table::new())
    }

    fn from_table(mut table: toml::Table, place: Option<&Path>) -> Result<Self> {
        if let Some(key) = keys_of_the_pipeline(&table).next() {
            let expected = match key.split_once(".parallel.") {
                Some((_, key)) => format!("none: `parallel.{key}` holds for all stages"),
                None => "none: the pipeline sets it".to_owned(),
            };
            return Err(Error::setting(&key, "given", expected));
        }
        if table.contains_key(SECTION) {
            return Err(Error::setting(
                SECTION,
                "a section",
                "none for a single pipeline; `simplemix sweep` does its runs",
            ));
        }
        inherit_seed(&mut table);
        // All keys at fault are named at once.
        let mut errors = Vec::new();
        let train = section(&mut table, "train", &mut errors, TrainConfig::from_table);
        let reward = section(&mut table, "reward", &mut errors, TrainConfig::from_table);
        let mix = section(&mut table, "mix", &mut errors, read::<MixSection>);
        let settings = read::<Self>(table).map_err(|error| errors.extend_from_slice(error.each())).ok();
        let Some(settings) = settings.filter(|_| errors.is_empty()) else {
            return Err(unreadable(errors, place));
        };
        let reward = reward.map(|reward| TrainConfig { objective: Objective::Reward, ..reward });
        Ok(Self { train: train.unwrap_or_default(), reward, mix: mix.unwrap_or_default(), ..settings })
    }

    /// The settings as TOML, every key written out that has a value. Sections with the pipeline's seed do not repeat it.
    ///
    /// # Errors
    /// [`Error::Serialise`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        let wrong = Error::serialise("settings");
        let mut table = toml::Table::try_from(self).map_err(|error| wrong(&error))?;
        let seed = table.get("seed").cloned();
        for section in SEEDED {
            let section = table.get_mut(section).and_then(toml::Value::as_table_mut);
            if let Some(section) = section.filter(|section| section.get("seed") == seed.as_ref()) {
                section.remove("seed");
            }
        }
        for (path, keys) in SET_BY_THE_PIPELINE {
            if let Some(section) = inner_mut(&mut table, path) {
                keys.iter().for_each(|key| drop(section.remove(*key)));
            }
        }
        toml::to_string(&table).map_err(|error| wrong(&error))
    }

    /// Checks every setting that no data is needed for.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Settings`] or [`Error::Rollout`] naming the first one that cannot be used.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, found: &str, expected: &str| Err(Error::setting(key, found, expected));
        if self.rounds == 0 {
            return refuse("rounds", "0", "at least 1");
        }
        if self.mix.on.is_zero() && self.mix.off.is_zero() {
            return refuse("mix.on", "0, as `mix.off`", "a share of one of them");
        }
        self.off_policy.as_ref().map_or(Ok(()), |sources| sources.check(self.own_source()))?;
        if !self.collects() && self.rounds > 1 {
            return refuse("rounds", &self.rounds.to_string(), "1 without on-policy pairs: nothing would change");
        }
        if !(0.0..=1.0).contains(&self.collect.plain_share) {
            return refuse("collect.plain_share", &self.collect.plain_share.to_string(), "a number from 0 to 1");
        }
        #[cfg(feature = "server")]
        crate::served::check(self)?;
        if self.collect.sampler == Sampler::MixP
            && let Some(key) = self.collect.sampling.given_processor()
        {
            return refuse(&format!("collect.sampling.{key}"), "given", "no value with the sampler `mix-p`");
        }
        if self.collects() {
            self.collect.sampling.check()?;
            self.collect.select.check()?;
            match &self.collect.pool {
                Some(pool) => self.check_pool(pool)?,
                None => self.collect.select.check_for_one_model()?,
            }
        }
        for (section, config) in [("train", Some(&self.train)), ("reward", self.reward.as_ref())] {
            if let Some(to) = config.and_then(|config| config.push.to.as_ref()) {
                let expected = "none in a pipeline; `simplemix push OUTPUT OWNER/NAME` pushes its model";
                return refuse(&format!("{section}.push.to"), to, expected);
            }
        }
        self.check_lag()?;
        self.check_reference_rewards()?;
        self.parallel.check()?;
        check_training("train", &self.train)?;
        self.reward.as_ref().map_or(Ok(()), |reward| check_training("reward", reward))
    }

    fn check_pool(&self, pool: &PoolSection) -> Result<()> {
        pool.check()?;
        if self.collect.sampler == Sampler::MixP {
            return Err(Error::setting("collect.pool", "given", "none with the sampler `mix-p`"));
        }
        if self.rounds > 1 && !pool.has_policy() {
            let expected = "1 where the policy takes no part in the pool: nothing would change";
            return Err(Error::setting("rounds", self.rounds, expected));
        }
        Ok(())
    }

    /// Checks that the pairs' age is bounded, and that what runs beside training can.
    fn check_lag(&self) -> Result<()> {
        let CollectSection { lag, beside, .. } = self.collect;
        let refuse =
            |key: &str, found: &dyn ToString, expected: String| Err(Error::setting(key, found.to_string(), expected));
        if lag == 0 {
            return match beside {
                Beside::Servers => Ok(()),
                other => refuse(
                    "collect.beside",
                    &other,
                    "no value without `collect.lag`: each round waits for the last".into(),
                ),
            };
        }
        if !self.collects() {
            return refuse("collect.lag", &lag, "0 without on-policy pairs: no model samples".into());
        }
        if lag >= self.rounds {
            return refuse("collect.lag", &lag, format!("less than `rounds`, {}", self.rounds));
        }
        if self.max_age < lag {
            return refuse(
                "max_age",
                &self.max_age,
                format!("at least `collect.lag`, {lag}: pairs of a round are that old"),
            );
        }
        if beside == Beside::All && self.parallel.processes > 1 {
            let expected = "`servers` or `none` with several processes, which have every device while they train";
            return refuse("collect.beside", &beside, expected.into());
        }
        Ok(())
    }

    /// Checks that the samples of each round are the reference's, where training ranks rewards among those of its samples.
    fn check_reference_rewards(&self) -> Result<()> {
        if !self.collects() || !self.train.learns_from_reference_rewards() {
            return Ok(());
        }
        let refuse = |key: &str, found: &dyn ToString, expected: &str| {
            let expected = format!(
                "{expected} with the loss `{}`: it ranks rewards among those of the reference's samples",
                self.train.loss.name
            );
            Err(Error::setting(key, found.to_string(), expected))
        };
        if self.rounds > 1 && !self.renew_reference {
            return refuse("renew_reference", &false, "true");
        }
        if self.max_age > 0 {
            return refuse("max_age", &self.max_age, "0");
        }
        if self.rounds > 1 && self.collect.sampler == Sampler::MixP {
            return refuse("collect.sampler", &"mix-p", "policy");
        }
        if self.collect.select.select == Select::Delta {
            return refuse("collect.select.select", &"delta", "a rule of scores");
        }
        match &self.collect.pool {
            Some(pool) if !pool.has_policy() => {
                refuse("collect.pool.take", &"without the policy", "a share of `policy`")
            }
            _ => Ok(()),
        }
    }

    /// Name of the source of the pairs that the pipeline collects.
    pub(crate) fn own_source(&self) -> &'static str {
        if self.collect.pool.is_some() { "pool" } else { "on" }
    }

    /// Whether pairs are collected.
    pub(crate) fn collects(&self) -> bool {
        !self.mix.on.is_zero()
    }
}

impl<'de> Deserialize<'de> for MixSection {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let mut weight = |key: &str| table.remove(key).map_or(Ok(Weight::whole(1)), toml::Value::try_into);
        let (on, off) = (weight("on"), weight("off"));
        let read = || Ok(Self { on: on?, off: off?, settings: toml::Value::Table(table).try_into()? });
        read().map_err(|error: toml::de::Error| serde::de::Error::custom(error.message()))
    }
}

/// The table at a path such as `train.reference`.
fn inner_mut<'a>(table: &'a mut toml::Table, path: &str) -> Option<&'a mut toml::Table> {
    path.split('.').try_fold(table, |table, key| table.get_mut(key)?.as_table_mut())
}

/// Paths of the keys in `table` that only the pipeline sets.
fn keys_of_the_pipeline(table: &toml::Table) -> impl Iterator<Item = String> {
    let given = move |path: &str, key: &str| {
        let section = path.split('.').try_fold(table, |table, key| table.get(key)?.as_table());
        section.is_some_and(|section| section.contains_key(key))
    };
    SET_BY_THE_PIPELINE
        .into_iter()
        .flat_map(|(path, keys)| keys.iter().map(move |key| (path, *key)))
        .filter(move |(path, key)| given(path, key))
        .map(|(path, key)| format!("{path}.{key}"))
}

/// Gives the pipeline's seed to the sections that set none.
fn inherit_seed(table: &mut toml::Table) {
    let Some(seed) = table.get("seed").cloned() else { return };
    for section in SEEDED {
        // A reward model is trained only if its section is there.
        let section = match table.get_mut(section) {
            None if section == "reward" => None,
            None => table.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut(),
            Some(section) => section.as_table_mut(),
        };
        if let Some(section) = section.filter(|section| !section.contains_key("seed")) {
            section.insert("seed".to_owned(), seed.clone());
        }
    }
}

/// Takes a section out of the table and reads it; what is wrong with it goes to `errors`.
fn section<T>(
    table: &mut toml::Table,
    name: &str,
    errors: &mut Vec<SettingsError>,
    read: impl FnOnce(toml::Table) -> Result<T, SettingsError>,
) -> Option<T> {
    let read = match table.remove(name)? {
        toml::Value::Table(section) => read(section).map_err(|error| error.under(name)),
        other => Err(SettingsError::value(name, simplemix_settings::toml_text(&other), "a section")),
    };
    read.map_err(|error| errors.extend_from_slice(error.each())).ok()
}

/// The error about all settings at fault, which names their file if they are from one.
fn unreadable(errors: Vec<SettingsError>, place: Option<&Path>) -> Error {
    let error = SettingsError::Several(errors);
    match place {
        Some(path) => Error::Config { place: path.display().to_string(), message: error.to_string() },
        None => error.into(),
    }
}

fn check_training(section: &str, config: &TrainConfig) -> Result<()> {
    config.check().map_err(|error| match error {
        simplemix_train::Error::Setting(error) => Error::Settings(error.under(section)),
        other => Error::Prepare(other),
    })
}

/// A setting that a pipeline cannot do without.
pub(crate) fn needed<'a, T: ?Sized>(key: &str, value: Option<&'a T>, expected: &str) -> Result<&'a T> {
    value.ok_or_else(|| Error::setting(key, "not set", expected))
}

#[cfg(test)]
mod tests {
    use simplemix_settings::assignment;

    use super::*;
    use crate::presets;

    fn of(sets: &[&str]) -> Result<PipelineSettings> {
        let mut over = toml::Table::new();
        sets.iter().for_each(|text| merge(&mut over, assignment(text).unwrap()));
        let settings = PipelineSettings::resolve(Some("simplemix"), None, over)?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn every_preset_is_sound() {
        for name in presets::names() {
            let settings = PipelineSettings::resolve(Some(name), None, toml::Table::new()).unwrap();
            settings.check().unwrap();
            let again = settings.to_toml().unwrap().parse().unwrap();
            assert_eq!(PipelineSettings::from_table(again, None).unwrap(), settings, "{name}");
        }
    }

    #[test]
    fn sections_have_the_seed_of_the_pipeline_unless_they_set_one() {
        let settings = of(&["train.loss.beta=0.05", "seed = 7", "mix.seed=3", "model=some/folder"]).unwrap();
        assert_eq!((settings.train.loss.beta, settings.train.seed, settings.mix.settings.seed), (0.05, 7, 3));
        assert_eq!((settings.model, settings.reward), (Some(PathBuf::from("some/folder")), None));
        let settings = of(&["seed = 7", "reward.train='pairs.parquet'"]).unwrap();
        let reward = settings.reward.clone().unwrap();
        assert_eq!((reward.seed, reward.objective), (7, Objective::Reward));
        // A seed that was inherited is not written out, so that another one takes its place.
        let text = settings.to_toml().unwrap();
        assert_eq!(text.matches("seed = 7").count(), 1, "{text}");
        let mut table: toml::Table = text.parse().unwrap();
        table.insert("seed".to_owned(), 8.into());
        let settings = PipelineSettings::from_table(table, None).unwrap();
        assert_eq!((settings.train.seed, settings.reward.unwrap().seed, settings.mix.settings.seed), (8, 8, 8));
    }

    #[test]
    fn files_may_be_based_on_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("base.toml", "preset = \"on-policy\"\nseed = 7\n[train]\nloss.beta = 0.2\nbatch.batch_size = 4");
        std::fs::create_dir(dir.path().join("arms")).unwrap();
        write("arms/arm.toml", "preset = \"../base.toml\"\n[train]\nloss.beta = 0.3");
        let read = |name: &str| PipelineSettings::read(&dir.path().join(name));
        let settings = read("arms/arm.toml").unwrap();
        let train = &settings.train;
        assert_eq!((settings.seed, train.loss.beta, train.batch.batch_size), (7, 0.3, 4));
        assert!(settings.mix.off.is_zero());
        write("base.toml", "preset = \"arms/arm.toml\"");
        assert!(read("arms/arm.toml").unwrap_err().to_string().contains("is it a circle?"));
        write("base.toml", "preset = \"missing.toml\"");
        assert!(read("base.toml").unwrap_err().to_string().contains("missing.toml"));
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named() {
        let message = |sets: &[&str]| of(sets).unwrap_err().to_string();
        let mixed = message(&["collect.sampler='mix-p'", "collect.sampling.repetition_penalty=1.1"]);
        assert!(mixed.contains("`collect.sampling.repetition_penalty` is given"), "{mixed}");
        assert!(message(&["rounds=0"]).contains("`rounds` is 0, expected at least 1"));
        assert_eq!(message(&["train.loss.betta=1"]), "unknown key `train.loss.betta`; did you mean `train.loss.beta`?");
        assert_eq!(message(&["train.beta=1"]), "`train.beta` is now `train.loss.beta`");
        assert_eq!(message(&["train.loss.beta=0"]), "`train.loss.beta` is 0, expected a number above 0");
        assert!(message(&["train.reference.model='x'"]).contains("`train.reference.model` is given"));
        assert!(message(&["train.parallel.processes=2"]).contains("none: `parallel.processes` holds for all stages"));
        assert!(message(&["parallel.processes=0"]).contains("`parallel.processes` is 0, expected a number from 1"));
        assert!(
            message(&["parallel.time_limit=0"]).contains("`parallel.time_limit` is 0, expected a number of seconds")
        );
        assert!(message(&["train.model='x'"]).contains("`train.model` is given"));
        assert!(message(&["train=3"]).contains("`train` is 3, expected a section"));
        assert!(message(&["mix.on=0", "mix.off=0"]).contains("`mix.on` is 0"));
        assert!(message(&["mix.sice=3"]).contains("sice"));
        assert!(message(&["mix.on=much"]).contains("`mix.on`: "));
        let all = message(&["mix.sice=3", "train.loss.betta=1", "seeed=3", "collect.sampling.samples='x'"]);
        for key in ["`mix.sice`", "`train.loss.betta`", "`seeed`", "`collect.sampling.samples`"] {
            assert!(all.contains(key), "{key} in {all}");
        }
        assert!(message(&["nothing=3"]).contains("nothing"));
        assert!(message(&["train.push.to='o/n'"]).starts_with("`train.push.to` is o/n, expected none in a pipeline"));
        let qrpo = |set: &str| message(&["train.loss.name=qrpo", "rounds=2", set]);
        let expected = "expected true with the loss `qrpo`: it ranks rewards among those of the reference's samples";
        assert_eq!(qrpo("mix.on=1"), format!("`renew_reference` is false, {expected}"));
        assert!(of(&["train.loss.name=qrpo", "rounds=2", "renew_reference=true"]).is_ok());
        let renewed = |set: &str| message(&["train.loss.name=qrpo", "rounds=2", "renew_reference=true", set]);
        assert!(renewed("max_age=1").starts_with("`max_age` is 1, expected 0"), "{}", renewed("max_age=1"));
        assert!(renewed("collect.sampler='mix-p'").starts_with("`collect.sampler` is mix-p, expected policy"));
        let scored = ["collect.scorer=[{kind='digit-share'}]", "evaluate.foo=1"];
        assert!(message(&scored).starts_with("`evaluate.foo`: unknown field"), "{}", message(&scored));
    }
}
