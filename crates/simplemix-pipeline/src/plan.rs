//! Plan of a pipeline: its stages, their inputs, and the folders of their results.
//!
//! A stage's folder is named by a key of everything that its result depends on: its settings, the content of the files
//! that it reads, and the keys of the stages before it. So a changed setting gives new folders to the stages that depend on
//! it, and the results of all other stages are found again.

mod pool;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simplemix_blend::{MixSettings, MixSource};
use simplemix_data::{PairReader, ReadOptions, TokenizerAs, Watch};
use simplemix_files::{hash_files, hash_model_folder};
use simplemix_mix::Weight;
use simplemix_model::hub;
use simplemix_rollout::{
    GenerateSettings, GeneratorSettings, LocalSettings, MixPSettings, ModelProcessors, PairSettings, PoolSettings,
    PoolShare, PromptSettings, RewardSettings, SamplingConfig, ScoreSettings, ScorerKind, ScorerSettings, Select,
    SelectSettings,
};
#[cfg(feature = "server")]
use simplemix_rollout::{ServerSettings, YardstickSettings};
use simplemix_settings::OrAuto;
use simplemix_train::{EvalFiles, ReferenceSettings, TrainConfig, most_training_tokens};
use tch::Device;

use crate::divergence::DivergenceSettings;
use crate::error::{Error, Result};
use crate::inputs::files;
use crate::pool::POLICY;
use crate::scoring::ScoringOptions;
use crate::settings::{PipelineSettings, Sampler, needed};

/// Stages, in the order in which they are done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<Stage>,
    /// Index of the training whose model is the result.
    pub(crate) result: usize,
    /// Indices of the stages that score responses to the evaluation's prompts: before training, and after each round.
    pub(crate) grades: Vec<usize>,
    /// Indices of the estimates of the divergence after each round, where they are asked for.
    pub(crate) divergences: Vec<usize>,
}

/// A step of a pipeline with a result of its own.
#[derive(Debug)]
pub struct Stage {
    /// Name: `generate`, or `generate-2` in the second of several rounds.
    pub name: String,
    /// Key of everything that the result depends on.
    pub key: String,
    /// Folder of the result.
    pub folder: PathBuf,
    /// Work to do.
    pub job: Job,
    /// Indices of the stages whose results it needs.
    pub(crate) after: Vec<usize>,
    /// Whether it is a part of collecting on-policy pairs.
    pub(crate) collects: bool,
}

impl Stage {
    /// Files and folders that hold the result; an estimate has its record only.
    pub fn outputs(&self) -> Vec<PathBuf> {
        match &self.job {
            Job::Generate(settings, _) => vec![settings.output.clone()],
            Job::Score(settings, _) => vec![settings.output.clone()],
            Job::Pool(settings) => vec![settings.output.clone()],
            Job::Pair(settings) => vec![settings.output.clone()],
            Job::Mix(settings) => {
                [&settings.output, &settings.report, &settings.plot].into_iter().flatten().cloned().collect()
            }
            Job::Train(config) => config.output.iter().map(|run| run.join("model")).collect(),
            Job::Diverge(..) => Vec::new(),
            #[cfg(feature = "server")]
            Job::Yardstick(settings) => vec![settings.output.clone()],
        }
    }
}

/// Work of a stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Sample responses.
    Generate(Box<GenerateSettings>, GeneratorSettings),
    /// Bring the responses of several models together.
    Pool(PoolSettings),
    /// Score responses.
    Score(ScoreSettings, Vec<ScorerSettings>),
    /// Make pairs of scored responses.
    Pair(PairSettings),
    /// Mix files of pairs.
    Mix(Box<MixSettings>),
    /// Train a policy or a reward model.
    Train(Box<TrainConfig>),
    /// Estimate the divergence of a model from the first one, on this number of prompts of each task.
    Diverge(Box<DivergenceSettings>, PromptSettings, usize),
    /// Make the responses by which the weights of a server are told.
    #[cfg(feature = "server")]
    Yardstick(Box<YardstickSettings>),
}

/// A model folder: given, or made by a stage.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) path: PathBuf,
    /// Hash of the files, or key of the stage.
    pub(crate) key: String,
    /// Adapters that were trained one after the other to make it of the first model, where adapters are trained.
    pub(crate) adapters: Vec<PathBuf>,
}

pub(crate) struct Planner<'a> {
    pub(crate) config: &'a PipelineSettings,
    /// Device that the models run on.
    device: Device,
    purpose: Purpose,
    stages: Vec<Stage>,
    root: PathBuf,
    hashes: &'a mut Hashes,
    /// Models that a server samples from, in the order of the rounds.
    #[cfg(feature = "server")]
    pub(crate) served: Vec<Model>,
    /// Files of the pool's other models that sample, once they are planned.
    others: Option<Vec<pool::Member>>,
    watch: &'a mut dyn Watch,
}

/// Reason for which stages are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be run.
    Run,
    /// To be looked at: models need no weights.
    Look,
}

impl Purpose {
    /// Folder of a model, of which a look needs no weights.
    pub(crate) fn resolve(self, model: &Path) -> Result<PathBuf> {
        Ok(match self {
            Self::Run => hub::resolve(model)?,
            Self::Look => hub::resolve_without_weights(model)?,
        })
    }
}

/// Whether a folder has a model's configuration alone.
fn has_no_weights(folder: &Path) -> bool {
    let is_weights = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "safetensors");
    let entries = || std::fs::read_dir(folder).into_iter().flatten().flatten();
    folder.join("config.json").is_file() && !entries().any(is_weights)
}

/// Hashes of files and model folders that were read, which plans of one sweep share.
pub(crate) type Hashes = HashMap<PathBuf, String>;

/// Version of the stages' results, a part of every key: results of other versions are not found.
const VERSION: u32 = 4;

/// Settings of training that are not part of a stage's key, as JSON pointers: the device, paths (their content is), caches and
/// logs.
const KNOWN_BY_CONTENT: [&str; 9] = [
    "/device",
    "/model",
    "/train",
    "/output",
    "/lora/adapter",
    "/reference/cache_folder",
    "/tokens/cache",
    "/tokens/cache_folder",
    "/log/tensorboard",
];

impl Plan {
    /// Hashes the files that are read; nothing is written.
    pub(crate) fn new(
        config: &PipelineSettings,
        device: Device,
        purpose: Purpose,
        hashes: &mut Hashes,
        watch: &mut dyn Watch,
    ) -> Result<Self> {
        let output = needed("output", config.output.as_deref(), "a folder")?;
        let first = purpose.resolve(needed("model", config.model.as_deref(), "a model folder")?)?;
        let root = config.stages.clone().unwrap_or_else(|| output.join("stages"));
        let mut planner = Planner {
            config,
            device,
            purpose,
            stages: Vec::new(),
            root,
            hashes,
            others: None,
            #[cfg(feature = "server")]
            served: Vec::new(),
            watch,
        };
        let first = Model { key: planner.hash(&first)?, path: first, adapters: Vec::new() };
        let reward = planner.reward(&first)?;
        let mut plan = Self { stages: Vec::new(), result: 0, grades: Vec::new(), divergences: Vec::new() };
        if config.evaluate.prompts.is_some() {
            plan.grades.push(planner.grade("before", &first, reward.as_ref())?);
        }
        // The model after each round.
        let mut policies = vec![first.clone()];
        let mut pairs: Vec<(PathBuf, String)> = Vec::new();
        for round in 1..=config.rounds {
            let suffix = config.suffix(round);
            let policy = policies[round as usize - 1].clone();
            // With a lag the next round is collected before this one trains, or beside it.
            for next in pairs.len() as u32 + 1..=config.collected_before(round) {
                let (begin, sampler) = (planner.stages.len(), &policies[config.sampler_of(next)]);
                pairs.push(planner.collect(next, &config.suffix(next), sampler, &first, reward.as_ref())?);
                planner.stages[begin..].iter_mut().for_each(|stage| stage.collects = true);
            }
            let mixture = planner.mix(round, &suffix, &pairs[..pairs.len().min(round as usize)])?;
            plan.result = planner.train(&suffix, &policy, &first, mixture)?;
            let trained = &planner.stages[plan.result];
            let adapters = [policy.adapters, vec![trained.folder.join("run/adapter")]].concat();
            let policy = Model { path: trained.folder.join("run/model"), key: trained.key.clone(), adapters };
            if config.evaluate.prompts.is_some() {
                plan.grades.push(planner.grade(&format!("after{suffix}"), &policy, reward.as_ref())?);
            }
            if config.evaluate.kl_prompts > 0 {
                plan.divergences.push(planner.diverge(&suffix, &policy, &first)?);
            }
            policies.push(policy);
        }
        plan.stages = planner.stages;
        Ok(plan)
    }

    /// Folder of the resulting model.
    pub(crate) fn model(&self) -> PathBuf {
        self.stages[self.result].folder.join("run/model")
    }
}

impl Planner<'_> {
    /// Adds a stage whose result depends on `material` and on `inputs`, which are keys or hashes. Returns its index.
    pub(crate) fn add(
        &mut self,
        name: String,
        material: Value,
        inputs: &[&str],
        job: impl FnOnce(&Path) -> Result<Job>,
    ) -> Result<usize> {
        let kind = name.split('-').next().unwrap_or_default();
        let whole = json!({ "version": VERSION, "kind": kind, "settings": material, "inputs": inputs });
        let key = blake3::hash(whole.to_string().as_bytes()).to_hex()[..16].to_owned();
        let folder = self.root.join(format!("{name}-{}", &key[..8]));
        let job = job(&folder)?;
        let after = (0..self.stages.len()).filter(|&at| inputs.contains(&self.stages[at].key.as_str())).collect();
        self.stages.push(Stage { name, key, folder, job, after, collects: false });
        Ok(self.stages.len() - 1)
    }

    pub(crate) fn folder(&self, stage: usize) -> PathBuf {
        self.stages[stage].folder.clone()
    }

    pub(crate) fn key(&self, stage: usize) -> String {
        self.stages[stage].key.clone()
    }

    /// Hash of a file, of all files that a pattern names, or of a model folder's files.
    fn hash(&mut self, path: &Path) -> Result<String> {
        if let Some(known) = self.hashes.get(path) {
            return Ok(known.clone());
        }
        let hash = if self.purpose == Purpose::Look && has_no_weights(path) {
            hash_files([path.join("config.json")])?
        } else if path.join("config.json").is_file() {
            hash_model_folder(path)?
        } else {
            hash_files(files(path, self.watch)?)?
        };
        if self.watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        self.hashes.insert(path.to_owned(), hash.clone());
        Ok(hash)
    }

    /// The part of a key that stands for prompts.
    pub(crate) fn prompts(&mut self, prompts: &PromptSettings) -> Result<Value> {
        let files = prompts.files.iter().map(|file| self.hash(file)).collect::<Result<Vec<_>>>()?;
        Ok(json!([files, prompts.limit, prompts.system, prompts.messages]))
    }

    /// Prompts with their patterns resolved.
    pub(crate) fn resolved(&mut self, prompts: &PromptSettings) -> Result<PromptSettings> {
        let files = prompts.files.iter().map(|text| files(text, self.watch)).collect::<Result<Vec<_>>>()?.concat();
        Ok(PromptSettings { files, ..prompts.clone() })
    }

    fn reward(&mut self, first: &Model) -> Result<Option<Model>> {
        let Some(config) = self.config.reward.clone() else { return Ok(None) };
        let stage = self.training("reward".to_owned(), config, first, None, None)?;
        Ok(Some(Model { path: self.folder(stage).join("run/model"), key: self.key(stage), adapters: Vec::new() }))
    }

    /// Adds the training of `start` on `mixture` (a file and its key) or, without one, on the data that `config` names.
    fn training(
        &mut self,
        name: String,
        config: TrainConfig,
        start: &Model,
        reference: Option<&Model>,
        mixture: Option<(PathBuf, String)>,
    ) -> Result<usize> {
        let parallel = self.config.parallel.of_training(config.parallel);
        let mut config = TrainConfig { device: self.config.device, parallel, ..config };
        config.tokens.template_date = config.tokens.template_date.or_else(|| self.config.template_date.clone());
        let mut inputs = vec![start.key.clone()];
        inputs.extend(reference.map(|model| model.key.clone()));
        inputs.extend(mixture.iter().map(|(_, key)| key.clone()));
        let mut data: Vec<PathBuf> = config.train.iter().cloned().collect();
        data.extend(config.mix.iter().map(|source| source.path.clone()));
        data.extend(config.eval.files.iter().flat_map(EvalFiles::all).map(|(_, path)| path.to_owned()));
        data.extend(config.lora.adapter.clone());
        for path in &data {
            inputs.push(self.hash(path)?);
        }
        let mut material = as_json(&config)?;
        // Paths are known by their content; caches and processes change no result.
        if let Some(material) = material.as_object_mut() {
            material.remove("parallel");
        }
        for path in KNOWN_BY_CONTENT {
            if let Some(value) = material.pointer_mut(path) {
                *value = Value::Null;
            }
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let (model, reference) = (start.path.clone(), reference.map(|model| model.path.clone()));
        self.add(name, material, &inputs, |folder| {
            let train = mixture.map_or(config.train.clone(), |(file, _)| Some(file));
            Ok(Job::Train(Box::new(TrainConfig {
                model: Some(model),
                train,
                reference: ReferenceSettings { model: reference, ..config.reference },
                output: Some(folder.join("run")),
                ..config
            })))
        })
    }

    fn train(&mut self, suffix: &str, policy: &Model, first: &Model, mixture: (PathBuf, String)) -> Result<usize> {
        let config = self.config.train.clone();
        // The first model is the policy's own reference in the first round.
        let reference = (policy.key != first.key && !self.config.renew_reference).then_some(first);
        self.training(format!("train{suffix}"), config, policy, reference, Some(mixture))
    }

    /// Adds the stages that collect on-policy pairs in a round. Returns the file of the pairs and its key.
    fn collect(
        &mut self,
        round: u32,
        suffix: &str,
        policy: &Model,
        first: &Model,
        reward: Option<&Model>,
    ) -> Result<(PathBuf, String)> {
        let collect = &self.config.collect;
        let select = match collect.select.select {
            Select::MixR => {
                SelectSettings { seed: self.of_round(round, collect.select.seed), ..collect.select.clone() }
            }
            _ => collect.select.clone(),
        };
        let sampling = self.sampling(round);
        let generated = if let Some(pool) = &collect.pool {
            let own = if pool.has_policy() { Some(self.policy_generator(suffix, policy, first)?) } else { None };
            self.pool(suffix, pool, own.map(|(by, inputs)| pool::Policy { by, inputs, sampling }))?
        } else {
            let prompts = self.asked()?;
            let (by, inputs) = self.policy_generator(suffix, policy, first)?;
            self.generate(format!("generate{suffix}"), &prompts, sampling, by, inputs, None)?
        };
        let (stage, file) = match select.select {
            // Who wrote a response says all.
            Select::Delta => (generated, CANDIDATES),
            _ => {
                let (name, scorers) = (format!("score{suffix}"), &collect.scorer);
                let with_references = select.uses_reference();
                (self.score(name, generated, scorers, reward, with_references, "collect.scorer")?, SCORED)
            }
        };
        self.pairs(suffix, select, self.folder(stage).join(file), &self.key(stage))
    }

    /// Adds the stage that makes pairs of a file of candidates. Returns the file of the pairs and its key.
    fn pairs(
        &mut self,
        suffix: &str,
        select: SelectSettings,
        candidates: PathBuf,
        key: &str,
    ) -> Result<(PathBuf, String)> {
        let (mut select, mut policy_generators) = (select, None);
        if let Some(pool) = &self.config.collect.pool {
            select.chosen_generators = pool.models_of(&select.chosen_generators);
            select.rejected_generators = pool.models_of(&select.rejected_generators);
            policy_generators = Some(pool.has_policy().then(|| POLICY.to_owned()).into_iter().collect::<Vec<_>>());
        }
        let material = match &policy_generators {
            None => json!(select),
            Some(own) => json!([select, own]),
        };
        let source = self.config.own_source().to_owned();
        let paired = self.add(format!("pair{suffix}"), material, &[key], |folder| {
            let output = folder.join(PAIRS);
            Ok(Job::Pair(PairSettings { select, source, policy_generators, ..PairSettings::new(candidates, output) }))
        })?;
        Ok((self.folder(paired).join(PAIRS), self.key(paired)))
    }

    /// The seed of a round: rounds have the same prompts; they must not sample the same responses, nor draw pairs by the same
    /// numbers.
    fn of_round(&self, round: u32, seed: u64) -> u64 {
        seed.wrapping_add(self.config.seed).wrapping_add(u64::from(round - 1))
    }

    /// Sampling of a round.
    fn sampling(&self, round: u32) -> SamplingConfig {
        let collect = &self.config.collect;
        // DPO-Mix-P samples from the models' own distributions, in its first round too.
        let generation_config = match collect.sampler {
            Sampler::MixP => ModelProcessors::None,
            Sampler::Policy => collect.sampling.generation_config,
        };
        let seed = self.of_round(round, collect.sampling.seed);
        SamplingConfig { seed, generation_config, ..collect.sampling.clone() }
    }

    /// Prompts to sample responses to.
    fn asked(&self) -> Result<PromptSettings> {
        let expected = "files of prompts, for responses that are sampled";
        Ok(needed("prompts", self.config.prompts.as_ref(), expected)?.clone())
    }

    /// Generator of the policy's responses in a round, and keys of what they depend on.
    fn policy_generator(
        &mut self,
        suffix: &str,
        policy: &Model,
        first: &Model,
    ) -> Result<(GeneratorSettings, Vec<String>)> {
        let collect = &self.config.collect;
        let mixes = collect.sampler == Sampler::MixP && policy.key != first.key;
        let by = if mixes {
            GeneratorSettings::MixP(MixPSettings {
                policy: self.local(policy),
                reference: first.path.clone(),
                plain_share: collect.plain_share,
            })
        } else {
            GeneratorSettings::Local(self.local(policy))
        };
        let models = [Some(policy), Some(first).filter(|_| mixes)].into_iter().flatten();
        let inputs: Vec<String> = models.map(|model| model.key.clone()).collect();
        #[cfg(not(feature = "server"))]
        let _ = suffix;
        #[cfg(feature = "server")]
        if let Some(weights) = &collect.weights {
            let prompts = self.asked()?;
            let (by, more) = self.round(suffix, policy, &prompts, weights)?;
            return Ok((by, [inputs, more].concat()));
        }
        #[cfg(feature = "server")]
        let by = collect.server.clone().map_or(by, |server| {
            GeneratorSettings::Server(server.map(|server| {
                let tokenizer = server.tokenizer.clone().or_else(|| Some(policy.path.clone()));
                ServerSettings { tokenizer, ..server }
            }))
        });
        Ok((by, inputs))
    }

    pub(crate) fn local(&self, model: &Model) -> LocalSettings {
        let mut settings = LocalSettings::new(&model.path);
        settings.batch_rows = self.config.collect.batch_rows;
        settings.device = self.config.device;
        settings.load_in = self.config.load_in;
        settings.tokenizer_as = self.config.train.tokens.tokenizer_as.into();
        settings.template_date.clone_from(&self.config.template_date);
        // Folders of stages are all called `model`.
        settings.name = Some(self.model_name(model));
        settings
    }

    /// Name of a model in the column `generator`.
    pub(crate) fn model_name(&self, model: &Model) -> String {
        match self.stages.iter().find(|stage| stage.key == model.key) {
            Some(stage) => format!("{}-{}", stage.name, &stage.key[..8]),
            None => simplemix_model::model_name(&model.path),
        }
    }

    fn generate(
        &mut self,
        name: String,
        prompts: &PromptSettings,
        sampling: SamplingConfig,
        by: GeneratorSettings,
        inputs: Vec<String>,
        share: Option<(PoolShare, Vec<&str>)>,
    ) -> Result<usize> {
        let mut material = json!({ "prompts": self.prompts(prompts)?, "sampling": sampling });
        match &by {
            GeneratorSettings::Local(settings) => {
                // The last bits of log-probabilities depend on the batch.
                material["batch_rows"] = json!(settings.batch_rows);
                add_reading(&mut material, settings);
            }
            GeneratorSettings::MixP(folders) => {
                material["plain_share"] = json!(folders.plain_share);
                add_reading(&mut material, &folders.policy);
            }
            #[cfg(feature = "server")]
            // The model's key is among the inputs; any server that has it will do.
            GeneratorSettings::Server(servers) => material["server"] = servers.identity(),
            // The server may move and wait longer; the model is among the inputs.
            #[cfg(feature = "server")]
            GeneratorSettings::Round(round) => material["backend"] = crate::served::material(round),
            backend => material["backend"] = json!(backend),
        }
        let mut inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        if let Some((share, ready)) = &share {
            let PoolShare { generator, samplers, take, candidates, seed } = share;
            let names: Vec<_> = candidates.iter().map(|member| &member.generator).collect();
            material["share"] = json!([generator, samplers, pool::texts(take), names, seed]);
            inputs.extend(ready);
        }
        let prompts = self.resolved(prompts)?;
        let share = share.map(|(share, _)| share);
        self.add(name, material, &inputs, |folder| {
            let output = folder.join(CANDIDATES);
            let settings = GenerateSettings { prompts, sampling, output, overwrite: false, share };
            Ok(Job::Generate(Box::new(settings), by))
        })
    }

    /// Adds the stage that scores the responses of stage `generated`, by `scorers` or by the reward model.
    fn score(
        &mut self,
        name: String,
        generated: usize,
        scorers: &[ScorerSettings],
        reward: Option<&Model>,
        with_references: bool,
        key: &str,
    ) -> Result<usize> {
        let (candidates, generated) = (self.folder(generated).join(CANDIDATES), self.key(generated));
        let mut inputs = vec![generated];
        let scorers = match (scorers, reward) {
            ([], Some(reward)) => {
                inputs.push(reward.key.clone());
                let trained = self.config.reward.as_ref().map(|reward| reward.tokens.tokenizer_as.into());
                let tokenizer_as = trained.unwrap_or_default();
                let load_in = self.config.load_in;
                let settings = RewardSettings { tokenizer_as, load_in, ..RewardSettings::new(&reward.path) };
                vec![ScorerSettings::new(ScorerKind::RewardModel(settings))]
            }
            ([], None) => {
                let expected = "at least one scorer, or a section [reward]";
                return Err(Error::setting(key, "not set", expected));
            }
            (scorers, _) => scorers.to_vec(),
        };
        let PipelineSettings { template_date: date, device, .. } = self.config;
        let prepared = |scorer: ScorerSettings| scorer.with_date(date.clone()).with_device(*device);
        let mut scorers: Vec<ScorerSettings> = scorers.into_iter().map(prepared).collect();
        // A model that a stage makes may not exist yet; the key of the stage is among the inputs.
        let is_made = |model: &Path| reward.is_some_and(|reward| reward.path == model);
        for scorer in &mut scorers {
            if let ScorerKind::RewardModel(settings) = &mut scorer.kind
                && !is_made(&settings.model)
            {
                settings.model = self.purpose.resolve(&settings.model)?;
            }
        }
        let mut material = json!([scorers, with_references]);
        for (at, scorer) in scorers.iter().enumerate() {
            if let ScorerKind::RewardModel(settings) = &scorer.kind {
                // The model is known by its content, and the device changes no result.
                for key in ["model", "device"] {
                    material[0][at][key] = Value::Null;
                }
                if !is_made(&settings.model) {
                    inputs.push(self.hash(&settings.model)?);
                }
            }
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.add(name, material, &inputs, |folder| {
            let output = folder.join(SCORED);
            let settings = ScoreSettings { candidates, output, reference: with_references, overwrite: false };
            Ok(Job::Score(settings, scorers))
        })
    }

    /// Adds the stage that mixes the pairs of a round. Returns the file of the mixture and its key.
    fn mix(&mut self, round: u32, suffix: &str, pairs: &[(PathBuf, String)]) -> Result<(PathBuf, String)> {
        let config = self.config;
        let mut settings = config.mix.settings.clone();
        // By default every batch holds the shares.
        if settings.batch.is_none() && settings.schedule.is_none() && settings.routing.is_none() {
            settings.batch = Some(config.train.batch.batch_size as u64);
        }
        settings.seed = settings.seed.wrapping_add(u64::from(round - 1));
        let mut inputs = Vec::new();
        if !config.mix.off.is_zero() {
            let sources = needed("off_policy", config.off_policy.as_ref(), "a file of pairs, for `mix.off` above 0")?;
            for source in sources.sources(config.mix.off)? {
                inputs.push(self.hash(&source.path)?);
                if config.train.learns_from_reference_rewards() {
                    self.check_reference_rewards(&source.path)?;
                }
                settings.sources.push(source);
            }
        }
        let kept = pairs.iter().rev().take(1 + config.rounds_kept() as usize).collect::<Vec<_>>();
        for (back, (path, key)) in (0..).zip(&kept) {
            inputs.push(key.clone());
            let own = config.own_source();
            let name = if back == 0 { own.to_owned() } else { format!("{own}-{back}") };
            let source = MixSource::new(&name, path, part(config.mix.on, kept.len() as u64)?);
            settings.sources.push(source.with_age(config.age(round, back)));
        }
        let mut material = as_json(&settings)?;
        if let Some(tokenizer) = &settings.tokenizer {
            inputs.push(self.hash(&tokenizer.join("tokenizer.json"))?);
        }
        for source in material["source"].as_array_mut().into_iter().flatten() {
            source["path"] = Value::Null;
        }
        for key in ["tokenizer", "memory"] {
            material[key] = Value::Null;
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let stage = self.add(format!("mix{suffix}"), material, &inputs, |folder| {
            settings.output = Some(folder.join(MIXTURE));
            settings.report = Some(folder.join("receipt.json"));
            settings.plot = Some(folder.join("shares.svg"));
            Ok(Job::Mix(Box::new(settings)))
        })?;
        Ok((self.folder(stage).join(MIXTURE), self.key(stage)))
    }

    /// Refuses off-policy pairs that a loss of rewards cannot learn from, by the first pair, before anything is sampled.
    fn check_reference_rewards(&mut self, path: &Path) -> Result<()> {
        let Some(file) = files(path, self.watch)?.into_iter().next() else { return Ok(()) };
        let mut reader = PairReader::open(&file, &ReadOptions::default())?;
        let first = loop {
            match reader.next_pairs()? {
                Some(pairs) if pairs.is_empty() => {}
                Some(pairs) => break pairs.into_iter().next(),
                None => break None,
            }
        };
        let Some(pair) = first else { return Ok(()) };
        let missing = match (pair.score_chosen, pair.score_rejected) {
            (Some(_), Some(_)) if pair.ref_rewards.is_empty() => "`ref_rewards`",
            (Some(_), Some(_)) => return Ok(()),
            _ => "`score_chosen` or `score_rejected`",
        };
        let expected = "pairs with both scores and `ref_rewards`, the scores of the reference's samples, which the loss needs; or \
                        `mix.off` of 0";
        Err(Error::setting("off_policy", format!("{}, whose first pair has no {missing}", file.display()), expected))
    }

    /// Adds the stages that sample the model's likeliest responses to the evaluation's prompts and score them.
    fn grade(&mut self, when: &str, model: &Model, reward: Option<&Model>) -> Result<usize> {
        let evaluate = &self.config.evaluate;
        let prompts = needed("evaluate.prompts", evaluate.prompts.as_ref(), "files of prompts")?.clone();
        let collect = &self.config.collect;
        let sampling = SamplingConfig::greedy(self.answer_tokens());
        let by = GeneratorSettings::Local(self.local(model));
        let inputs = vec![model.key.clone()];
        let generated = self.generate(format!("answer-{when}"), &prompts, sampling, by, inputs, None)?;
        let scorers = if evaluate.scorer.is_empty() { &collect.scorer } else { &evaluate.scorer };
        self.score(format!("grade-{when}"), generated, scorers, reward, false, "evaluate.scorer")
    }

    /// Limit of a response in the evaluation, in tokens.
    fn answer_tokens(&self) -> usize {
        self.config.evaluate.max_new_tokens.unwrap_or(self.config.collect.sampling.max_new_tokens)
    }

    /// Adds the estimate of the divergence of `model` from the first one, on the prompts of the evaluation.
    fn diverge(&mut self, suffix: &str, model: &Model, first: &Model) -> Result<usize> {
        let evaluate = &self.config.evaluate;
        let prompts =
            needed("evaluate.prompts", evaluate.prompts.as_ref(), "files of prompts, for `kl_prompts`")?.clone();
        let train = &self.config.train;
        let tokens = most_training_tokens(train.batch.micro_batch_tokens, self.device);
        let settings = DivergenceSettings {
            model: model.path.clone(),
            reference: first.path.clone(),
            max_new_tokens: self.answer_tokens(),
            max_length: train.tokens.max_length,
            scoring: ScoringOptions {
                device: self.config.device,
                micro_batch_tokens: OrAuto::Value(tokens),
                load_in: self.config.load_in,
            },
            // Every model draws with one seed.
            seed: 0,
            tokenizer_as: train.tokens.tokenizer_as.into(),
            template_date: self.config.template_date.clone(),
        };
        let each = evaluate.kl_prompts;
        let mut material = json!({
            "prompts": self.prompts(&prompts)?,
            "each": each,
            "max_new_tokens": settings.max_new_tokens,
            "max_length": settings.max_length,
        });
        add_reading(&mut material, &settings.local());
        let prompts = self.resolved(&prompts)?;
        self.add(format!("divergence{suffix}"), material, &[&model.key, &first.key], |_| {
            Ok(Job::Diverge(Box::new(settings), prompts, each))
        })
    }
}

/// Adds to a stage's material how texts become token ids and weights are held, where that is not the usual way.
pub(crate) fn add_reading(material: &mut Value, settings: &LocalSettings) {
    if settings.tokenizer_as != TokenizerAs::File {
        material["tokenizer_as"] = json!(settings.tokenizer_as);
    }
    if let Some(date) = &settings.template_date {
        material["template_date"] = json!(date);
    }
    if !settings.load_in.is_none() {
        material["load_in"] = json!(settings.load_in);
    }
}

/// A weight divided into `parts` equal parts.
fn part(weight: Weight, parts: u64) -> Result<Weight> {
    let (above, below) = weight.parts();
    Ok(format!("{above}/{}", below * parts).parse()?)
}

fn as_json(settings: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(settings).map_err(|error| Error::serialise("settings")(&error))
}

const CANDIDATES: &str = "candidates.parquet";
/// File of scored responses in the folder of a stage `score` or `grade`.
pub const SCORED: &str = "scored.parquet";
const PAIRS: &str = "pairs.parquet";
const MIXTURE: &str = "mixture.parquet";
