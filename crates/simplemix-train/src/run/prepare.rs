//! Preparation of a run: checks the settings, reads and tokenises the pairs, loads the model.

use std::path::Path;
use std::sync::Arc;

use simplemix_data::{Pair, PairTokenizer, ReadOptions, ReadReport, TokenizeOptions, read_pairs_with_report};
use simplemix_files::cache_dir_for;
use simplemix_loss::{LossSettings, LossSum, Need, PairLoss};
use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
use simplemix_model::{CausalLm, ModelConfig, RewardModel, default_device};
use tch::{Device, Kind, Tensor};

use super::Run;
use super::drive::ADAPTER;
use crate::config::{Objective, TokenSettings, TrainConfig};
use crate::error::{Error, Result};
use crate::order::Order;
use crate::pairs::{Feed, NamedSet, PairSet};
use crate::preference::no_scores;

/// Tokenised pairs, and the order of the training pairs where several sources are mixed.
struct Sets {
    train: PairSet,
    eval: Vec<NamedSet>,
    mixture: Option<Order>,
}

/// The model that a run starts from.
#[derive(Debug)]
pub(super) enum Start {
    Policy(Box<CausalLm>),
    Reward(Box<RewardModel>),
}

impl Run {
    /// Checks the settings, reads the pairs and loads the model. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that is missing or out of range, [`Error::Empty`] if no pair is usable, and errors
    /// of reading the data and the model.
    pub fn prepare(config: TrainConfig) -> Result<Self> {
        config.check()?;
        let loss = build_loss(&config)?;
        let model = required("model", config.model.as_deref())?.to_owned();
        required("output", config.output.as_deref())?;
        let tokenizer = tokenizer(&config, &model)?;
        let (train, mixture) = if config.mix.is_empty() {
            (read(required("train", config.train.as_deref())?, &config, &tokenizer)?, None)
        } else {
            let (train, mixture) = mixed(&config, &tokenizer)?;
            (train, Some(mixture))
        };
        let mut eval = Vec::new();
        for (name, path) in config.eval.files.iter().flat_map(|files| files.all()) {
            eval.push((name, read(path, &config, &tokenizer)?));
        }
        Self::assemble(config, loss, &model, Sets { train, eval, mixture }, &tokenizer)
    }

    /// Prepares a run on pairs in memory; `train`, `mix` and `eval.files` of the settings are ignored.
    ///
    /// # Errors
    /// Errors of [`Run::prepare`].
    pub fn with_pairs(config: TrainConfig, model: &Path, pairs: &[Pair], held_out: &[Pair]) -> Result<Self> {
        config.check()?;
        let loss = build_loss(&config)?;
        let tokenizer = tokenizer(&config, model)?;
        let train = PairSet::tokenize(pairs, &tokenizer)?;
        let eval = PairSet::tokenize(held_out, &tokenizer)?;
        let eval = if eval.is_empty() { Vec::new() } else { vec![(String::new(), eval)] };
        Self::assemble(config, loss, model, Sets { train, eval, mixture: None }, &tokenizer)
    }

    fn assemble(
        config: TrainConfig,
        loss: LossSum,
        model: &Path,
        sets: Sets,
        tokenizer: &PairTokenizer,
    ) -> Result<Self> {
        let Sets { mut train, mut eval, mixture } = sets;
        let feed = match (config.objective, config.memory.share_prompts) {
            (Objective::Sft, _) => Feed::Chosen,
            (_, true) => Feed::Shared,
            (_, false) => Feed::Apart,
        };
        train.set_feed(feed);
        eval.iter_mut().for_each(|(_, set)| set.set_feed(feed));
        if train.is_empty() {
            let path = config.train.clone().unwrap_or_default();
            return Err(Error::Empty { path, reason: train.summary() });
        }
        if config.objective == Objective::Preference && loss.needs(Need::LabelProbs) {
            let mut sets = std::iter::once(&train).chain(eval.iter().map(|(_, set)| set));
            sets.try_for_each(|set| scored(set, &loss))?;
        }
        let settings = config.loop_settings(train.len(), mixture);
        let start = Start::load(&config, model)?;
        let stop_tokens = tokenizer.eos_ids().to_vec();
        let mut run = Self { loss, settings, start, trained: 0, stop_tokens, train, eval, config };
        // Checks the parameters here, before the reference is computed.
        run.trained = run.trainee()?.count();
        Ok(run)
    }
}

impl Start {
    pub(super) fn load(config: &TrainConfig, folder: &Path) -> Result<Self> {
        let device = default_device();
        let kind = config.dtype.kind(device);
        if config.objective == Objective::Reward {
            // A reward model is trained further; any other model gets a new score head.
            let is_reward = ends_in_a_score(folder);
            let model = if is_reward {
                RewardModel::load(folder, kind, device)?
            } else {
                RewardModel::on_top_of(CausalLm::load(folder, kind, device)?)?
            };
            return Ok(Self::Reward(Box::new(model)));
        }
        let mut model = CausalLm::load(folder, kind, device)?;
        match (&config.lora.adapter, config.lora.config()) {
            (Some(adapter), _) => model.load_adapter(ADAPTER, adapter)?,
            (None, Some(lora)) => model.add_adapter(ADAPTER, lora, config.seed)?,
            (None, None) => return Ok(Self::Policy(Box::new(model))),
        }
        Ok(Self::Policy(Box::new(model.with_adapter(Some(ADAPTER))?)))
    }

    pub(super) fn model_config(&self) -> &ModelConfig {
        match self {
            Self::Policy(model) => model.config(),
            Self::Reward(model) => model.config(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Policy(model) => model.kind(),
            Self::Reward(model) => model.score_head().kind(),
        }
    }

    pub(super) fn device(&self) -> Device {
        match self {
            Self::Policy(model) => model.device(),
            Self::Reward(model) => model.score_head().device(),
        }
    }

    pub(super) fn trainable(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Policy(model) => model.trainable_parameters(),
            Self::Reward(model) => {
                model.named_parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
            }
        }
    }
}

/// Whether a folder holds a reward model.
fn ends_in_a_score(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    config["architectures"][0].as_str().is_some_and(|name| name.ends_with("ForSequenceClassification"))
}

fn tokenizer(config: &TrainConfig, model: &Path) -> Result<PairTokenizer> {
    let options = TokenizeOptions { max_length: config.tokens.max_length, ..TokenizeOptions::default() };
    Ok(PairTokenizer::from_dir(model, options)?)
}

fn read(path: &Path, config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<PairSet> {
    let (pairs, report) = read_pairs_with_report(path, &ReadOptions::default())?;
    if pairs.is_empty() {
        return Err(Error::Empty { path: path.to_owned(), reason: refusals(&report) });
    }
    tokenize(&pairs, config, tokenizer)
}

/// Reads token ids from the cache, or makes them, to be written there when the run starts.
fn tokenize(pairs: &[Pair], config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<PairSet> {
    let TokenSettings { cache, cache_folder, .. } = &config.tokens;
    let cache = cache.then(|| cache_folder.clone().or_else(|| cache_dir_for("tokens").ok())).flatten();
    match cache {
        Some(folder) => PairSet::tokenize_cached(pairs, tokenizer, &folder),
        None => PairSet::tokenize(pairs, tokenizer),
    }
}

/// Reads the pairs of all sources and plans their mixture. Shares hold for the pairs that are trained on.
fn mixed(config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<(PairSet, Order)> {
    let (mut all, mut starts, mut sources) = (PairSet::default(), Vec::new(), Vec::new());
    for source in &config.mix {
        let set = read(&source.path, config, tokenizer)?;
        starts.push(all.len());
        sources.push(SourceConfig::new(&source.name, set.len() as u64, source.weight));
        all.append(set, &source.name);
    }
    let mixture =
        MixtureConfig { batch: Some(config.batch.batch_size as u64), ..MixtureConfig::new(sources, config.seed) };
    let order = Order::Mixed { mixture: Arc::new(Mixture::new(mixture)?), starts: starts.into() };
    Ok((all, order))
}

/// Builds the loss; errors name the keys of the run's settings.
fn build_loss(config: &TrainConfig) -> Result<LossSum> {
    config.loss.build().map_err(|error| match error {
        simplemix_loss::Error::Setting { key, found, expected } => {
            Error::setting(&LossSettings::SECTION.path(&key), found, expected)
        }
        other => other.into(),
    })
}

/// Refuses a set in which a pair has no scores.
fn scored(set: &PairSet, loss: &LossSum) -> Result<()> {
    match set.score_margins.iter().position(Option::is_none) {
        Some(pair) => Err(no_scores(set, pair, loss)),
        None => Ok(()),
    }
}

pub(super) fn required<'a>(key: &'static str, path: Option<&'a Path>) -> Result<&'a Path> {
    path.ok_or_else(|| Error::setting(key, "not set", "a path"))
}

fn refusals(report: &ReadReport) -> String {
    let reasons: Vec<String> =
        report.refused.iter().map(|(problem, rows)| format!("{} {}", rows.count, problem.name())).collect();
    format!(
        "{} rows read; {}",
        report.rows,
        if reasons.is_empty() { "none refused".to_owned() } else { reasons.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::PairEntry;

    fn config(text: &str) -> TrainConfig {
        TrainConfig::from_toml(text, Path::new("run.toml")).unwrap()
    }

    #[test]
    fn a_set_without_scores_is_refused_for_soft_labels() {
        let loss = build_loss(&config("loss.name = 'soft_label'")).unwrap();
        let mut set = PairSet { score_margins: vec![Some(1.0), None], ..PairSet::default() };
        set.table.pairs =
            vec![PairEntry { row: 4, ..PairEntry::default() }, PairEntry { row: 7, ..PairEntry::default() }];
        let error = scored(&set, &loss).unwrap_err().to_string();
        assert_eq!(error, "row 7: `score_chosen` or `score_rejected` is missing; the loss `soft_label` needs both");
    }

    #[test]
    fn errors_of_the_loss_name_the_keys_of_the_settings() {
        let text = "[loss]\nname = 'simpo'\nbeta = 2\nconstants = { simpo_gamma = 1.2 }";
        assert_eq!(build_loss(&config(text)).unwrap().parts()[0].0.constant("simpo_gamma"), Some(1.2));
        let refused = |text: &str| build_loss(&config(text)).unwrap_err().to_string();
        let error = refused("[loss]\nname = 'simpo'\nconstants = { tau = 1 }");
        let expected = "`loss.constants.tau` is 1, expected a constant of `simpo`: simpo_gamma, label_smoothing";
        assert_eq!(error, expected);
        let error = refused("loss.name = 'dop'");
        assert!(error.starts_with("`loss.name` is `dop`, expected one of sigmoid"), "{error}");
        let text = "[loss]\nname = 'ipo_sum'\nf_divergence_type = { alpha_divergence = 0.5 }\nwpo = 'capped'";
        let config = config(text);
        assert!(build_loss(&config).unwrap().wpo().is_some());
        assert_eq!(TrainConfig::from_toml(&config.to_toml().unwrap(), Path::new("run.toml")).unwrap(), config);
    }
}
