//! Preparation of a run: checks the settings, reads and tokenises the pairs, loads the model.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use simplemix_data::{
    ChatTemplate, Form, Pair, PairTokenizer, ReadOptions, ReadReport, SourceRule, TokenizeOptions, inputs,
    read_metadata, read_pairs_with_report,
};
use simplemix_files::cache_dir_for;
use simplemix_loss::{LossSettings, LossSum, Need, PairLoss};
use simplemix_mix::{AGES_KEY, Mixture, MixtureConfig, SHARES_KEY, SourceConfig};
use simplemix_model::{CausalLm, DeviceChoice, Divider, ModelConfig, Quantizer, RewardModel};
use tch::{Device, Tensor};

use super::Run;
use super::drive::ADAPTER;
use super::joined;
use super::shapes::{Shapes, lora_task};
use crate::config::{Objective, Shard, TokenSettings, TrainConfig};
use crate::error::{Error, Result};
use crate::hub_data;
use crate::loop_settings::LoopSettings;
use crate::order::Order;
use crate::pairs::{Feed, NamedSet, PairSet};
use crate::preference::{no_scores, quantiles_of};
use crate::sharded::{Divide, Sharded};
use crate::team::Team;

/// Tokenised pairs, and the order of the training pairs where several sources are mixed.
struct Sets {
    train: PairSet,
    eval: Vec<NamedSet>,
    mixture: Option<Order>,
    notices: Vec<String>,
}

/// The model that a run starts from.
#[derive(Debug)]
pub(super) enum Start {
    Policy(Box<CausalLm>),
    Reward(Box<RewardModel>),
}

impl Run {
    /// Checks the settings and reads the pairs and the model's configuration, not its weights. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that is missing or out of range, [`Error::Empty`] if no pair is usable, and errors
    /// of reading the data and the model.
    pub fn prepare(config: TrainConfig) -> Result<Self> {
        Self::prepare_on(config, resolve_device)
    }

    /// As [`Run::prepare`], for a look at what the run would be and take: with `memory.device_gb` a GPU need not be here.
    ///
    /// # Errors
    /// Errors of [`Run::prepare`].
    pub fn plan(config: TrainConfig) -> Result<Self> {
        Self::prepare_on(config, planned_device)
    }

    fn prepare_on(
        mut config: TrainConfig,
        resolve_device: impl FnOnce(&mut TrainConfig) -> Result<Device>,
    ) -> Result<Self> {
        config.check()?;
        let device = resolve_device(&mut config)?;
        let loss = build_loss(&config)?;
        let model = required("model", config.model.as_deref())?.to_owned();
        let output = required("output", config.output.as_deref())?.to_owned();
        let tokenizer = tokenizer(&mut config, &model, Some(&output))?;
        let mut reader = Reader { config: &config, tokenizer: &tokenizer, notices: Vec::new(), asked: None };
        let mut eval = Vec::new();
        let (train, mixture) = if !config.data.sets.is_empty() {
            let (train, held_out) = reader.joined()?;
            eval.extend(held_out.map(|held_out| (String::new(), held_out)));
            (train, None)
        } else if config.mix.is_empty() {
            (reader.read(required("train", config.train.as_deref())?)?, None)
        } else {
            let (train, mixture) = reader.mixed()?;
            (train, Some(mixture))
        };
        for (name, path) in config.eval.files.iter().flat_map(|files| files.all()) {
            eval.push((name, reader.read(path)?));
        }
        let notices = reader.notices;
        let sets = Sets { train, eval, mixture, notices };
        Self::assemble(config, device, loss, &model, sets, &tokenizer)
    }

    /// Prepares a run on pairs in memory; `train`, `mix`, `data` and `eval.files` of the settings are ignored.
    ///
    /// # Errors
    /// Errors of [`Run::prepare`].
    pub fn with_pairs(mut config: TrainConfig, model: &Path, pairs: &[Pair], held_out: &[Pair]) -> Result<Self> {
        config.check()?;
        let device = resolve_device(&mut config)?;
        let loss = build_loss(&config)?;
        let output = config.output.clone();
        let tokenizer = tokenizer(&mut config, model, output.as_deref())?;
        let mut reader = Reader { config: &config, tokenizer: &tokenizer, notices: Vec::new(), asked: None };
        let train = reader.tokenize(pairs, "training pairs", PairSet::tokenize)?;
        let eval = reader.tokenize(held_out, "held-out pairs", PairSet::tokenize)?;
        let notices = reader.notices;
        let eval = if eval.is_empty() { Vec::new() } else { vec![(String::new(), eval)] };
        let sets = Sets { train, eval, mixture: None, notices };
        Self::assemble(config, device, loss, model, sets, &tokenizer)
    }

    fn assemble(
        mut config: TrainConfig,
        device: Device,
        loss: LossSum,
        model: &Path,
        sets: Sets,
        tokenizer: &PairTokenizer,
    ) -> Result<Self> {
        let Sets { mut train, mut eval, mixture, mut notices } = sets;
        notices.extend(tokenizer.folder_notices().iter().cloned());
        if train.is_empty() {
            let path = config.train.clone().unwrap_or_else(|| "the pairs".into());
            return Err(Error::Empty { path, reason: train.summary() });
        }
        if config.objective == Objective::Preference {
            let mut sets = std::iter::once(&train).chain(eval.iter().map(|(_, set)| set));
            sets.try_for_each(|set| scored(set, &loss))?;
        }
        if eval.is_empty() && config.eval.best_metric.is_some() {
            return Err(Error::setting("eval.best_metric", "set", "held-out pairs to measure it on (`eval.files`)"));
        }
        config.lora.resolve_targets(config_json(model)["model_type"].as_str().unwrap_or_default())?;
        if config.parallel.shard == Shard::All && !config.memory.activation_checkpointing {
            config.memory.activation_checkpointing = true;
            notices.push(CHECKPOINTING.to_owned());
        }
        let settings = config.loop_settings(train.len(), mixture);
        let shapes = Shapes::read(&config, model)?;
        let is_quantised = config.quantization.is_on() || shapes.model.is_quantized();
        if is_quantised && !config.memory.activation_checkpointing {
            config.memory.activation_checkpointing = true;
            notices.push(QUANTISED.to_owned());
        }
        let sampled = config.hypo().map_or(0, |hypo| hypo.max_new_tokens);
        let other = config.reference.model.as_deref().map(ModelConfig::from_folder).transpose()?;
        let models: Vec<&ModelConfig> = std::iter::once(&shapes.model).chain(&other).collect();
        let feed = Feed::of(&config);
        train.set_feed(feed, &models);
        eval.iter_mut().for_each(|(_, set)| set.set_feed(feed, &models));
        for model in models {
            train.check_for(model, "the training pairs", sampled)?;
            eval.iter().try_for_each(|(_, set)| set.check_for(model, "the held-out pairs", 0))?;
        }
        let stop_tokens = tokenizer.eos_ids().to_vec();
        let eos_id = config.tokens.eos_token.as_ref().and_then(|token| tokenizer.inner().token_to_id(token));
        notices.extend(notices_of(&settings, train.len()));
        notices.extend(tokenizer_notice(&config, &shapes));
        if let Some(date) = &config.tokens.template_date {
            notices.push(format!("the chat template writes a date: {date} in this run (`tokens.template_date`)"));
        }
        check_rates(&settings, &config, shapes.learns(&config)?)?;
        let model = model.to_owned();
        let start = None;
        let mut run = Self {
            model,
            loss,
            settings,
            shapes,
            device,
            start,
            sharded: None,
            notices,
            stop_tokens,
            eos_id,
            train,
            eval,
            config,
            team: Team::default(),
        };
        run.settle_budget()?;
        Ok(run)
    }
}

impl Start {
    /// Loads the model. `divide` divides its weights while they are read, unless the embeddings may be an adapter's, or a score takes
    /// the head's place.
    pub(super) fn load(
        config: &TrainConfig,
        device: Device,
        folder: &Path,
        divide: Option<&mut Divide<'_>>,
    ) -> Result<Self> {
        let kind = config.dtype.kind(device);
        let mut quantizer = Quantizer::new(&config.quantization, device);
        let mut divide = divide.filter(|_| config.lora.adapter.is_none()).map(|divide| divide as &mut dyn Divider);
        if let Some(quantizer) = &mut quantizer {
            divide = Some(quantizer);
        }
        if config.objective == Objective::Reward {
            // A reward model is trained further; any other model gets a new score head.
            let is_reward = ends_in_a_score(folder);
            let mut model = if is_reward {
                RewardModel::load_divided(folder, kind, device, divide)?
            } else {
                let divide = divide.filter(|divide| !divide.is_shared());
                RewardModel::on_top_of(CausalLm::load_divided(folder, kind, device, divide)?)?
            };
            check_frozen(config, model.is_quantized())?;
            match (&config.lora.adapter, config.lora.config(lora_task(config))) {
                (Some(adapter), _) => model.load_adapter(adapter)?,
                (None, Some(lora)) => model.add_adapter(lora, config.seed)?,
                (None, None) => {}
            }
            return Ok(Self::Reward(Box::new(model)));
        }
        let mut model = CausalLm::load_divided(folder, kind, device, divide)?;
        check_frozen(config, model.is_quantized())?;
        match (&config.lora.adapter, config.lora.config(lora_task(config))) {
            (Some(adapter), _) => model.load_adapter(ADAPTER, adapter)?,
            (None, Some(lora)) => model.add_adapter(ADAPTER, lora, config.seed)?,
            (None, None) => return Ok(Self::Policy(Box::new(model))),
        }
        Ok(Self::Policy(Box::new(model.with_adapter(Some(ADAPTER))?)))
    }

    /// Weights under the checkpoint's names, without an adapter.
    pub(super) fn parameters(&self) -> &[(String, Tensor)] {
        match self {
            Self::Policy(model) => model.named_parameters(),
            Self::Reward(model) => model.named_parameters(),
        }
    }

    /// Lets `sharded` keep the weights.
    pub(super) fn set_residence(&mut self, sharded: &Arc<Sharded>) {
        match self {
            Self::Policy(model) => model.set_residence(sharded.clone()),
            Self::Reward(model) => model.set_residence(sharded.clone()),
        }
    }

    pub(super) fn model_config(&self) -> &ModelConfig {
        match self {
            Self::Policy(model) => model.config(),
            Self::Reward(model) => model.config(),
        }
    }

    /// Ways in which the model's weights depart from its configuration.
    pub(super) fn notices(&self) -> &[String] {
        match self {
            Self::Policy(model) => model.notices(),
            Self::Reward(model) => model.notices(),
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
            Self::Reward(model) => model.trainable_parameters(),
        }
    }
}

/// Notice of a setting that follows from another.
const CHECKPOINTING: &str = "`parallel.shard = \"all\"` turns `memory.activation_checkpointing` on: what a layer computes is computed \
                             again in the backward pass, for which its weights are gathered again";

/// As [`CHECKPOINTING`].
const QUANTISED: &str = "quantised weights turn `memory.activation_checkpointing` on: what a layer computes is computed again in the \
                         backward pass, for which its weights are dequantised again";

/// Refuses to train weights that are quantised.
fn check_frozen(config: &TrainConfig, is_quantised: bool) -> Result<()> {
    if !is_quantised || config.lora.is_on() {
        return Ok(());
    }
    Err(Error::setting(
        "lora.rank",
        "0 for a model whose weights are quantised",
        "a rank above 0: such weights are frozen",
    ))
}

/// As [`resolve_device`], of a run that is planned only.
pub(super) fn planned_device(config: &mut TrainConfig) -> Result<Device> {
    let (DeviceChoice::Cuda(number), Some(_)) = (config.device, config.memory.device_gb) else {
        return resolve_device(config);
    };
    let device = Device::Cuda(number);
    config.dtype = config.dtype.resolved(device);
    Ok(device)
}

/// The device of the settings, which then hold the element type that `auto` stands for on it.
fn resolve_device(config: &mut TrainConfig) -> Result<Device> {
    let device = config.device.open()?;
    config.dtype = config.dtype.resolved(device);
    Ok(device)
}

/// Whether a folder holds a reward model.
fn ends_in_a_score(folder: &Path) -> bool {
    let config = config_json(folder);
    config["architectures"][0].as_str().is_some_and(|name| name.ends_with("ForSequenceClassification"))
}

/// A model folder's configuration; null if there is none, which loading the model reports.
pub(super) fn config_json(folder: &Path) -> serde_json::Value {
    let text = simplemix_files::read_to_string(folder.join("config.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The model's tokenizer. A template that looks at the date gets one for the whole run: that of the settings, of a run in
/// `output`, or today's, which the settings then hold.
fn tokenizer(config: &mut TrainConfig, model: &Path, output: Option<&Path>) -> Result<PairTokenizer> {
    let options = TokenizeOptions {
        max_length: config.tokens.max_length,
        tokenizer_as: config.tokens.tokenizer_as.into(),
        on_refused: config.tokens.on_refused.into(),
        ..TokenizeOptions::default()
    };
    let mut tokenizer = PairTokenizer::from_dir(model, options)?;
    if let Some(token) = &config.tokens.eos_token {
        tokenizer = tokenizer.with_eos_token(token).map_err(|_| {
            Error::setting("tokens.eos_token", format!("`{token}`"), "a token of the model's tokenizer")
        })?;
    }
    if let Some(text) = config.tokens.chat_template.as_deref().map(template_text).transpose()? {
        let template = ChatTemplate::from_str(&text)
            .map_err(|error| Error::setting("tokens.chat_template", error, "a Jinja template, or a file with one"))?;
        tokenizer = tokenizer.with_template(template);
        config.tokens.chat_template = Some(text);
    }
    let date = config.tokens.template_date.clone().or_else(|| kept_date(output?));
    if let Some(date) = date {
        tokenizer = tokenizer
            .with_date(&date)
            .map_err(|_| Error::setting("tokens.template_date", format!("`{date}`"), "a date such as 2026-01-31"))?;
    }
    config.tokens.template_date = tokenizer.date();
    Ok(tokenizer)
}

/// The text of a chat template that may be a file.
fn template_text(template: &str) -> Result<String> {
    if !template.ends_with(".jinja") || template.contains(['{', '\n']) {
        return Ok(template.to_owned());
    }
    simplemix_files::read_to_string(template).map_err(|error| {
        Error::setting("tokens.chat_template", format!("{template}: {error}"), "a file with a Jinja template")
    })
}

/// The date of a run that was started in `output`.
fn kept_date(output: &Path) -> Option<String> {
    let path = output.join("config.toml");
    let text = simplemix_files::read_to_string(&path).ok()?;
    TrainConfig::from_toml(&text, &path).ok()?.tokens.template_date
}

/// Pairs of files, with the numbers of their rows.
#[derive(Default)]
struct FromFiles {
    pairs: Vec<Pair>,
    /// Rows of all files, those without a pair included.
    rows: u64,
    /// For each file, the number of its first pair and of its first row.
    starts: Vec<(usize, u64)>,
    /// Shares of the sources that the file asks for, if it is a mixture that says so.
    asked: Option<BTreeMap<String, f64>>,
    /// Ages of the on-policy sources, if it is a mixture that tells them.
    ages: BTreeMap<String, u32>,
}

impl FromFiles {
    /// The pairs with their rows, counted through all files.
    fn with_rows(self) -> impl Iterator<Item = (u64, Pair)> {
        let starts = self.starts;
        self.pairs.into_iter().enumerate().map(move |(number, pair)| {
            let file = starts.partition_point(|(first, _)| *first <= number) - 1;
            let row = pair.origin.file().map_or(0, |(_, row)| row);
            (starts[file].1 + row, pair)
        })
    }
}

/// Reads and tokenises pairs, and collects what its user should know about them.
struct Reader<'a> {
    config: &'a TrainConfig,
    tokenizer: &'a PairTokenizer,
    notices: Vec<String>,
    /// Shares of the sources that the file asks for, if it is a mixture that says so.
    asked: Option<BTreeMap<String, f64>>,
}

impl Reader<'_> {
    /// Reads the pairs of all files that `path` names.
    fn read(&mut self, path: &Path) -> Result<PairSet> {
        let FromFiles { pairs, asked, ages, .. } = self.pairs(path, None)?;
        self.asked = asked;
        let mut set = self.tokenize_cached(&pairs, &path.display().to_string())?;
        set.table.set_ages(&ages);
        Ok(set)
    }

    /// Reads the pairs of all files that `path` names; `source` is the source of rows that name none.
    fn pairs(&mut self, path: &Path, source: Option<&str>) -> Result<FromFiles> {
        let mut options = ReadOptions::default();
        options.form = self.config.tokens.messages.then_some(Form::Messages);
        if let Some(source) = source.or_else(|| hub_data::name(path)) {
            options.source = SourceRule::Default(source.to_owned());
        }
        let mut read = FromFiles::default();
        let mut reasons = Vec::new();
        let files = hub_data::files(path)?.map_or_else(|| inputs(path), Ok)?;
        if let [file] = &files[..] {
            read.asked = told(file, SHARES_KEY);
            read.ages = told(file, AGES_KEY).unwrap_or_default();
        }
        for file in files {
            let (found, report) = read_pairs_with_report(&file, &options)?;
            read.starts.push((read.pairs.len(), read.rows));
            read.pairs.extend(found);
            read.rows += report.rows;
            let reason = refusals(&report);
            if !report.is_plain() {
                self.notices.push(format!("{}: {reason}{}", file.display(), report.remarks()));
            }
            reasons.push(reason);
        }
        match read.pairs.is_empty() {
            true => Err(Error::Empty { path: path.to_owned(), reason: reasons.join("; ") }),
            false => Ok(read),
        }
    }

    /// Reads the sets to join; returns the training pairs and those that are held out for evaluation.
    fn joined(&mut self) -> Result<(PairSet, Option<PairSet>)> {
        let config = self.config;
        let settings = &config.data;
        let (mut sizes, mut by_row) = (Vec::new(), HashMap::new());
        for (number, set) in settings.sets.iter().enumerate() {
            let read = self.pairs(&set.path, set.name.as_deref())?;
            sizes.push(read.rows);
            for (row, pair) in read.with_rows() {
                by_row.entry((number, row)).or_insert_with(Vec::new).push(pair);
            }
        }
        let plan = joined::plan(settings, &sizes)?;
        let mut take = |rows: Vec<joined::Row>| -> Vec<Pair> {
            rows.into_iter().filter_map(|row| by_row.remove(&row)).flatten().collect()
        };
        let (train, held_out) = (take(plan.train), take(plan.held_out));
        let train = self.tokenize_cached(&train, "the joined sets")?;
        let is_evaluated = settings.held_out.is_some() && config.eval.files.is_none();
        if settings.held_out.is_some() && !is_evaluated {
            let count = held_out.len();
            self.notices.push(format!(
                "{count} pairs that `data.held_out` keeps back are not used: `eval.files` are evaluated"
            ));
        }
        let held_out = is_evaluated.then(|| self.tokenize_cached(&held_out, "the held-out rows")).transpose()?;
        Ok((train, held_out))
    }

    fn tokenize_cached(&mut self, pairs: &[Pair], name: &str) -> Result<PairSet> {
        let TokenSettings { cache, cache_folder, .. } = &self.config.tokens;
        let cache = cache.then(|| cache_folder.clone().or_else(|| cache_dir_for("tokens").ok())).flatten();
        // Token ids come from the cache, or are made, to be written there when the run starts.
        self.tokenize(pairs, name, |pairs, tokenizer| match &cache {
            Some(folder) => PairSet::tokenize_cached(pairs, tokenizer, folder),
            None => PairSet::tokenize(pairs, tokenizer),
        })
    }

    fn tokenize(
        &mut self,
        pairs: &[Pair],
        name: &str,
        tokenize: impl FnOnce(&[Pair], &PairTokenizer) -> Result<PairSet>,
    ) -> Result<PairSet> {
        let plain = self.tokenizer.plain_text_notice(pairs);
        self.notices.extend(plain.map(|notice| format!("{name}: {notice}")));
        let reading = self.tokenizer.reading_notice(pairs)?;
        self.notices.extend(reading.map(|notice| format!("{name}: {notice}")));
        let set = tokenize(pairs, self.tokenizer)?;
        let repeated = self.tokenizer.repeated_notices(set.token_rows());
        self.notices.extend(repeated.into_iter().map(|notice| format!("{name}: {notice}")));
        self.notices.extend(moved_shares(pairs, &set, name, self.asked.as_ref()));
        Ok(set)
    }

    /// Reads the pairs of all sources and plans their mixture. Shares hold for the pairs that are trained on.
    fn mixed(&mut self) -> Result<(PairSet, Order)> {
        let (mut all, mut starts, mut sources) = (PairSet::default(), Vec::new(), Vec::new());
        let config = self.config;
        for source in &config.mix {
            let set = self.read(&source.path)?;
            starts.push(all.len());
            sources.push(SourceConfig::new(&source.name, set.len() as u64, source.weight));
            all.append(set, &source.name);
        }
        let (batch, seed) = (self.config.batch.batch_size as u64, self.config.seed);
        let mixture = MixtureConfig { batch: Some(batch), ..MixtureConfig::new(sources, seed) };
        let order = Order::Mixed { mixture: Arc::new(Mixture::new(mixture)?), starts: starts.into() };
        Ok((all, order))
    }
}

/// A number for each source that was written into a file when it was mixed.
fn told<T: serde::de::DeserializeOwned>(file: &Path, key: &str) -> Option<BTreeMap<String, T>> {
    let text = read_metadata(file).ok()?.remove(key)?;
    serde_json::from_str(&text).ok()
}

/// Share of a source in the file, among the pairs that are trained on, and as it was asked for when the file was mixed.
struct Share<'a> {
    source: &'a str,
    given: f64,
    trained: f64,
    asked: Option<f64>,
}

impl std::fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, given, trained, asked } = self;
        write!(f, "{source} {given:.4}")?;
        if format!("{given:.4}") != format!("{trained:.4}") {
            write!(f, " -> {trained:.4}")?;
        }
        asked.map_or(Ok(()), |asked| write!(f, " (asked {asked:.4})"))
    }
}

/// Says how the shares of a file's sources have moved because pairs were dropped, or that they never were what was `asked`.
fn moved_shares(pairs: &[Pair], set: &PairSet, name: &str, asked: Option<&BTreeMap<String, f64>>) -> Option<String> {
    let mut given: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in pairs {
        *given.entry(&pair.source).or_default() += 1;
    }
    let kept: BTreeMap<&str, usize> = set.shares().into_iter().map(|(source, pairs, _)| (source, pairs)).collect();
    let share = |pairs: usize, all: usize| pairs as f64 / all.max(1) as f64;
    let shares: Vec<Share<'_>> = given
        .iter()
        .map(|(source, &rows)| Share {
            source,
            given: share(rows, pairs.len()),
            trained: share(kept.get(source).copied().unwrap_or(0), set.len()),
            asked: asked.and_then(|asked| asked.get(*source).copied()),
        })
        .collect();
    let shown = shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let dropped: usize = set.dropped.values().sum();
    if dropped > 0 && shown.contains(" -> ") {
        let reasons: Vec<String> = set.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        return Some(format!(
            "{name}: {dropped} of {} pairs are left out ({}), which moves the shares of the file: {shown}; `train --mix` \
             leaves pairs out before it mixes",
            pairs.len(),
            reasons.join(", "),
        ));
    }
    // A share is kept to within a pair.
    let strays =
        |share: &Share<'_>| share.asked.is_some_and(|asked| (share.given - asked).abs() * pairs.len() as f64 > 1.0);
    shares
        .iter()
        .any(strays)
        .then(|| format!("{name}: the shares of the file are not those that were asked for: {shown}"))
}

/// Builds the loss; errors name the keys of the run's settings.
pub(super) fn build_loss(config: &TrainConfig) -> Result<LossSum> {
    config.loss.build().map_err(|error| match error {
        simplemix_loss::Error::Setting { key, found, expected } => {
            Error::setting(&LossSettings::SECTION.path(&key), found, expected)
        }
        other => other.into(),
    })
}

/// Facts about the updates that the user should know.
fn notices_of(settings: &LoopSettings, pairs: usize) -> Vec<String> {
    let (pairs, size) = (settings.order.pairs(pairs as u64), settings.batch_size);
    let mut notices = Vec::new();
    if pairs < size as u64 {
        notices.push(format!(
            "{pairs} pairs are fewer than `batch.batch_size`, {size}: every update takes all {pairs}, once an epoch"
        ));
    }
    notices
}

/// Says that an adapter with embeddings of its own may have been made for another tokenizer.
fn tokenizer_notice(config: &TrainConfig, shapes: &Shapes) -> Option<String> {
    let (folder, entries) = (config.lora.adapter.as_ref()?, shapes.adapter.as_ref()?.vocab_size?);
    folder.join("tokenizer.json").is_file().then(|| {
        format!(
            "{}: the adapter brings {entries} embeddings and a tokenizer; texts are read with the model's tokenizer, so copy the \
             adapter's files over it in a copy of the model's folder if tokens were added",
            folder.display()
        )
    })
}

/// Refuses a run whose learning rate is 0 in every update, or for every parameter.
fn check_rates(settings: &LoopSettings, config: &TrainConfig, learns: bool) -> Result<()> {
    if !learns {
        let key = "optimizer.parameter_groups.learning_rate_factor";
        return Err(Error::setting(key, "0 for every parameter", "a factor above 0 for some"));
    }
    let (steps, warmup) = (settings.steps, settings.warmup_steps);
    // A schedule is 0 in the first update of its warm-up, and at its end.
    if (0..steps).any(|step| settings.rate(step) > 0.0) {
        return Ok(());
    }
    let is_counted = config.optimizer.warmup_steps.is_some();
    let key = if is_counted { "optimizer.warmup_steps" } else { "optimizer.warmup_ratio" };
    let found = format!("a warm-up over {warmup} of {steps} updates, whose learning rates are all 0");
    Err(Error::setting(key, found, "0, or more updates"))
}

/// Refuses a set in which a pair has no scores, or no rewards of the reference, and the loss needs them.
fn scored(set: &PairSet, loss: &LossSum) -> Result<()> {
    if loss.needs(Need::LabelProbs)
        && let Some(pair) = set.score_margins.iter().position(Option::is_none)
    {
        return Err(no_scores(set, pair, loss));
    }
    match loss.needs(Need::Quantiles) {
        true => (0..set.len()).try_for_each(|pair| quantiles_of(set, pair, loss).map(drop)),
        false => Ok(()),
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
