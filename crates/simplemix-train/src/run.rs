//! A whole run from settings: read, tokenise, score the reference, train, save.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use simplemix_data::{
    Metrics, Pair, PairTokenizer, ReadOptions, ReadReport, TokenizeOptions, Watch, read_pairs_with_report,
};
use simplemix_loss::{LossKind, Need, PreferenceLoss};
use simplemix_mix::{Mixture, MixtureConfig, SourceConfig};
use simplemix_model::{CausalLm, LoraConfig, LoraTargets, ModelConfig, RewardModel};
use tch::{Device, Kind, Tensor};

use crate::collective::Alone;
use crate::config::{Dtype, Objective, ReferenceSource, TrainConfig};
use crate::error::{At, Error, Result};
use crate::events::Events;
use crate::forward::ForwardOptions;
use crate::hypo::Hypo;
use crate::learner::Learner;
use crate::memory::{MemoryEstimate, PROGRAM_BYTES};
use crate::metrics::Record;
use crate::order::Order;
use crate::pairs::{Feed, PairSet};
use crate::patterns::matching;
use crate::preference::{
    NamedSet, PreferenceLearner, PreferenceOptions, Reference, ReferenceLogps, SyncRule, needs_reference, no_scores,
    reference_logps,
};
use crate::reference_cache::ReferenceKey;
use crate::report;
use crate::reward::RewardLearner;
use crate::run_folder::{MetricsFile, RunFolder};
use crate::sft::SftLearner;
use crate::table::PairTable;
use crate::trainee::Trainee;
use crate::trainer::{LoopSettings, NonFinite, Observer, Occasion, Outcome, Progress, Tables, train};

/// A run whose input is read and checked, ready to start.
#[derive(Debug)]
pub struct Run {
    config: TrainConfig,
    loss: PreferenceLoss,
    settings: LoopSettings,
    start: Start,
    trained: i64,
    /// What ends an answer of the policy, for HyPO.
    stop_tokens: Vec<u32>,
    /// Training pairs.
    pub train: PairSet,
    /// Held-back pairs by name.
    pub eval: Vec<NamedSet>,
}

/// What training begins with.
#[derive(Debug)]
enum Start {
    Policy(Box<CausalLm>),
    Reward(Box<RewardModel>),
}

/// A model as training left it.
#[derive(Debug)]
pub enum Trained {
    /// A language model, its adapter merged where one was trained.
    Policy(Box<CausalLm>),
    /// A reward model.
    Reward(Box<RewardModel>),
}

impl Trained {
    /// The language model, unless a reward model was trained.
    pub fn policy(&self) -> Option<&CausalLm> {
        match self {
            Self::Policy(model) => Some(model),
            Self::Reward(_) => None,
        }
    }
}

impl Run {
    /// Reads and checks everything that the settings name. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value missing or out of range, [`Error::Empty`] where no pair is left, and whatever
    /// reading data and model reports.
    pub fn prepare(config: TrainConfig) -> Result<Self> {
        config.check()?;
        preference_loss(&config)?;
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
        for (name, path) in config.eval.iter().flat_map(|files| files.all()) {
            eval.push((name, read(path, &config, &tokenizer)?));
        }
        Self::assemble(config, &model, train, mixture, eval, &tokenizer)
    }

    /// The same with pairs that are in memory already; `train`, `mix` and `eval` of the settings are not read.
    ///
    /// # Errors
    /// As [`Run::prepare`].
    pub fn with_pairs(config: TrainConfig, model: &Path, pairs: &[Pair], held_back: &[Pair]) -> Result<Self> {
        config.check()?;
        let tokenizer = tokenizer(&config, model)?;
        let train = PairSet::tokenize(pairs, &tokenizer)?;
        let eval = PairSet::tokenize(held_back, &tokenizer)?;
        let eval = if eval.is_empty() { Vec::new() } else { vec![(String::new(), eval)] };
        Self::assemble(config, model, train, None, eval, &tokenizer)
    }

    fn assemble(
        config: TrainConfig,
        model: &Path,
        mut train: PairSet,
        mixture: Option<Order>,
        mut eval: Vec<NamedSet>,
        tokenizer: &PairTokenizer,
    ) -> Result<Self> {
        let loss = preference_loss(&config)?;
        let feed = match (config.objective, config.share_prompts) {
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
        if config.objective == Objective::Preference && loss.kind().formula().needs.contains(&Need::LabelProbs) {
            let mut sets = std::iter::once(&train).chain(eval.iter().map(|(_, set)| set));
            sets.try_for_each(|set| scored(set, &loss))?;
        }
        let settings = config.loop_settings(train.len(), mixture)?;
        let start = Start::load(&config, model)?;
        let stop_tokens = tokenizer.eos_ids().to_vec();
        let mut run = Self { loss, settings, start, trained: 0, stop_tokens, train, eval, config };
        // Refused here rather than after the reference has been scored.
        run.trained = run.trainee()?.count();
        Ok(run)
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// What the loop will do.
    pub fn settings(&self) -> &LoopSettings {
        &self.settings
    }

    /// Numbers that the model has.
    pub fn parameters(&self) -> i64 {
        self.start.model_config().parameters()
    }

    /// Numbers that are trained.
    pub fn trained_parameters(&self) -> i64 {
        self.trained
    }

    /// The memory that the run is expected to need at its peak.
    ///
    /// # Errors
    /// [`Error::Setting`] if micro-batches cannot be made.
    pub fn memory_estimate(&self) -> Result<MemoryEstimate> {
        let (settings, model) = (&self.settings, self.start.model_config());
        let (pairs, mut largest) = (self.train.len() as u64, (0, 0));
        // An epoch shows every pair; others differ in their order only.
        let steps = settings.steps.min(pairs.div_ceil(settings.batch_size as u64));
        for step in 0..steps {
            let batch = settings.order.batch(step, settings.batch_size, pairs);
            for part in self.train.table.micro_batches(&batch, settings.micro_batch_tokens)? {
                let entries = || part.iter().map(|&pair| &self.train.table.pairs[pair]);
                let tokens: usize = entries().map(|pair| pair.tokens).sum();
                largest = largest.max((tokens, entries().map(|pair| pair.responses[0] + pair.responses[1]).sum()));
            }
        }
        let bytes = if self.start.kind() == Kind::Float { 4 } else { 2 };
        let mut cache = 0;
        if let Some(hypo) = self.config.hypo() {
            let longest = self.train.table.pairs.iter().map(|pair| pair.prompt).max().unwrap_or(0);
            largest = largest.max(hypo.pass_tokens(longest, settings.micro_batch_tokens, settings.batch_size));
            let row = (longest + hypo.max_new_tokens) as u64 * model.cache_bytes(bytes as usize);
            cache = hypo.rows(settings.batch_size) as u64 * row;
        }
        let (tokens, scored) = largest;
        let (weights, trained) = (model.parameters() as u64 * bytes, self.trained as u64);
        let head = if self.config.objective == Objective::Reward { 0 } else { model.vocab_size };
        let logits = (self.config.logits_bytes as u64).min((scored as i64 * head) as u64 * 4);
        // A second model, where one is held; and the f32 copies of what is trained in half precision.
        let second = if self.holds_second_model() { weights } else { 0 };
        let copies = if bytes == 2 { 4 * trained } else { 0 };
        Ok(MemoryEstimate {
            program: PROGRAM_BYTES,
            weights: weights + second,
            gradients: trained * bytes,
            optimizer: 2 * 4 * trained + copies,
            // Answers are written and let go before activations are kept.
            activations: model
                .activation_bytes(tokens, bytes as usize, self.config.activation_checkpointing)
                .max(cache),
            logits,
            micro_batch_tokens: tokens,
        })
    }

    fn adapts(&self) -> bool {
        self.config.lora_rank > 0 || self.config.adapter.is_some()
    }

    fn holds_second_model(&self) -> bool {
        let on_the_fly = self.config.reference == ReferenceSource::OnTheFly;
        let has_reference = self.config.objective == Objective::Preference && needs_reference(&self.loss);
        let held = (has_reference && on_the_fly) || self.config.hypo().is_some();
        held && (self.config.reference_model.is_some() || !self.adapts())
    }

    /// What is trained, with a fresh optimiser.
    fn trainee(&self) -> Result<Trainee> {
        let mut parameters = self.start.trainable();
        if !self.config.freeze.is_empty() {
            let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
            let frozen = matching("freeze", &self.config.freeze, &names)?;
            let mut at = 0..;
            parameters.retain(|_| !frozen.contains(&at.next().unwrap_or_default()));
        }
        Trainee::new(parameters, self.config.adamw, &self.config.parameter_groups)
    }

    fn forward_options(&self) -> ForwardOptions {
        ForwardOptions {
            micro_batch_tokens: self.config.micro_batch_tokens,
            logits_bytes: self.config.logits_bytes,
            activation_checkpointing: self.config.activation_checkpointing,
            token_metrics: self.config.token_metrics,
            wpo: self.config.wpo,
            ld_alpha: self.config.ld_alpha,
        }
    }

    /// Trains, and writes the run folder: settings, metrics, checkpoints and the resulting model.
    ///
    /// With `resume`, a run that was stopped goes on from its newest checkpoint. `watch` hears of the stages `reference`
    /// and `evaluation` in pairs, and of the metrics of every update and evaluation; when it interrupts, a checkpoint is
    /// saved before the next update.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be made, [`Error::NonFinite`], and whatever training reports.
    pub fn start(self, resume: bool, watch: &mut dyn Watch) -> Result<Finished> {
        let output = required("output", self.config.output.as_deref())?;
        let folder = if resume { RunFolder::open(output)? } else { RunFolder::create(output)? };
        folder.write("config.toml", &self.config.to_toml()?)?;
        folder.write("environment.json", &environment(self.start.device()))?;
        self.train.keep();
        self.eval.iter().for_each(|(_, set)| set.keep());
        let (trainee, options, seed) = (self.trainee()?, self.forward_options(), self.config.seed);
        let source = self.config.model.clone();
        let drive = Drive { config: &self.config, settings: &self.settings, train: &self.train, eval: &self.eval };
        match self.start {
            Start::Reward(model) => {
                let center = self.config.center_rewards;
                let learner = RewardLearner::new(*model, trainee, options, center, &self.train, &self.eval);
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    let model = learner.into_model();
                    model.save(&folder.model(), source.as_deref())?;
                    Ok(Trained::Reward(Box::new(model)))
                })
            }
            Start::Policy(policy) if self.config.objective == Objective::Sft => {
                let learner = SftLearner::new(*policy, trainee, options, seed, &self.train, &self.eval)?;
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    save_policy(learner.into_model(), folder, source.as_deref())
                })
            }
            Start::Policy(policy) => {
                let maker = ReferenceMaker {
                    config: &self.config,
                    loss: &self.loss,
                    options: &options,
                    train: &self.train,
                    eval: &self.eval,
                };
                let reference = maker.make(&policy, watch)?;
                let hypo = match self.config.hypo() {
                    Some(settings) => {
                        let frozen = maker.frozen(&policy, &reference)?;
                        Some(Hypo::new(settings, frozen, self.stop_tokens, seed)?)
                    }
                    None => None,
                };
                let settings = PreferenceOptions {
                    loss: self.loss,
                    forward: options,
                    seed,
                    reward_margin_scale: self.config.reward_margin_scale,
                    starts_at_reference: self.config.reference_model.is_none() && self.config.adapter.is_none(),
                };
                let mut learner =
                    PreferenceLearner::new(*policy, trainee, settings, &self.train, &self.eval, reference)?;
                if let Some(hypo) = hypo {
                    learner = learner.with_hypo(hypo);
                }
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    save_policy(learner.into_model(), folder, source.as_deref())
                })
            }
        }
    }
}

impl Start {
    fn load(config: &TrainConfig, folder: &Path) -> Result<Self> {
        let device = Device::cuda_if_available();
        let kind = match config.dtype {
            Dtype::Auto if device.is_cuda() => Kind::BFloat16,
            Dtype::Auto | Dtype::Float32 => Kind::Float,
            Dtype::Bfloat16 => Kind::BFloat16,
        };
        if config.objective == Objective::Reward {
            // A folder of a reward model goes on being trained; any other gets a new score.
            let is_reward = ends_in_a_score(folder);
            let model = if is_reward {
                RewardModel::load(folder, kind, device)?
            } else {
                RewardModel::on_top_of(CausalLm::load(folder, kind, device)?)?
            };
            return Ok(Self::Reward(Box::new(model)));
        }
        let mut model = CausalLm::load(folder, kind, device)?;
        if let Some(adapter) = &config.adapter {
            model.load_adapter(ADAPTER, adapter)?;
        } else if config.lora_rank > 0 {
            let targets = match config.lora_targets.as_slice() {
                [] => LoraTargets::AllLinear,
                names => LoraTargets::Named(names.to_vec()),
            };
            let (rank, alpha, dropout) = (config.lora_rank, config.lora_alpha, config.lora_dropout);
            let lora = LoraConfig { rank, alpha, dropout, targets, rslora: config.lora_rslora };
            model.add_adapter(ADAPTER, lora, config.seed)?;
        } else {
            return Ok(Self::Policy(Box::new(model)));
        }
        Ok(Self::Policy(Box::new(model.with_adapter(Some(ADAPTER))?)))
    }

    fn model_config(&self) -> &ModelConfig {
        match self {
            Self::Policy(model) => model.config(),
            Self::Reward(model) => model.config(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Policy(model) => model.kind(),
            Self::Reward(model) => model.score_head().kind(),
        }
    }

    fn device(&self) -> Device {
        match self {
            Self::Policy(model) => model.device(),
            Self::Reward(model) => model.score_head().device(),
        }
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Policy(model) => model.trainable_parameters(),
            Self::Reward(model) => {
                model.named_parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
            }
        }
    }
}

/// Name of the adapter that is trained, as peft calls it.
const ADAPTER: &str = "default";

/// Whether a folder's configuration is that of a reward model.
fn ends_in_a_score(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    config["architectures"][0].as_str().is_some_and(|name| name.ends_with("ForSequenceClassification"))
}

fn save_policy(model: CausalLm, folder: &RunFolder, source: Option<&Path>) -> Result<Trained> {
    if model.active_adapter().is_none() {
        model.save(&folder.model(), source)?;
        return Ok(Trained::Policy(Box::new(model)));
    }
    model.save_adapter(ADAPTER, &folder.path().join("adapter"), source.and_then(Path::to_str))?;
    let merged = model.merged()?;
    merged.save(&folder.model(), source)?;
    Ok(Trained::Policy(Box::new(merged)))
}

/// Makes a reference out of the settings.
struct ReferenceMaker<'a> {
    config: &'a TrainConfig,
    loss: &'a PreferenceLoss,
    options: &'a ForwardOptions,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl ReferenceMaker<'_> {
    fn make(&self, policy: &CausalLm, watch: &mut dyn Watch) -> Result<Reference> {
        let config = self.config;
        if !needs_reference(self.loss) {
            return Ok(Reference::Absent);
        }
        let on_the_fly = config.reference == ReferenceSource::OnTheFly;
        let own = config.reference_model.is_none();
        let adapts = policy.active_adapter().is_some();
        let folder = config.reference_model.as_deref().or(config.model.as_deref());
        let model = match folder {
            // A model of its own, since the policy's weights will move.
            Some(folder) if !own || (on_the_fly && !adapts) => CausalLm::load(folder, policy.kind(), policy.device())?,
            None if on_the_fly && !adapts => return required("model", None).map(|_| Reference::Absent),
            // The policy's own weights, without the adapter.
            _ => policy.with_adapter(None)?,
        };
        if on_the_fly {
            let rule = SyncRule { every: config.sync_reference_every, mixup: config.sync_reference_mixup };
            return Ok(Reference::Model(Box::new(model), (rule.every > 0).then_some(rule)));
        }
        let total = self.train.len() + self.eval.iter().map(|(_, set)| set.len()).sum::<usize>();
        let mut done = 0;
        let mut logps = |set: &PairSet, watch: &mut dyn Watch| {
            let known = self.known(set, &model, folder, &mut |of_set| {
                watch.progress("reference", (done + of_set) as u64, total as u64);
            });
            done += set.len();
            known
        };
        let train = logps(self.train, watch)?;
        let eval = self.eval.iter().map(|(_, set)| logps(set, watch)).collect::<Result<_>>()?;
        Ok(Reference::Known(train, eval))
    }

    /// The reference as a model that stays while the policy moves; a second handle of the one that is held already, if
    /// there is one.
    fn frozen(&self, policy: &CausalLm, reference: &Reference) -> Result<CausalLm> {
        if let Reference::Model(model, _) = reference {
            return Ok(model.with_adapter(None)?);
        }
        let own = self.config.reference_model.as_deref();
        if own.is_none() && policy.active_adapter().is_some() {
            return Ok(policy.with_adapter(None)?);
        }
        let folder = required("model", own.or(self.config.model.as_deref()))?;
        Ok(CausalLm::load(folder, policy.kind(), policy.device())?)
    }

    /// Log-probabilities out of the cache, or computed and kept there.
    fn known(
        &self,
        set: &PairSet,
        model: &CausalLm,
        folder: Option<&Path>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<ReferenceLogps> {
        let compute = |progress: &mut dyn FnMut(usize)| reference_logps(model, set, self.options, progress);
        let cache = match self.config.reference {
            ReferenceSource::Cached => self.config.reference_cache.clone().or_else(|| cache_folder("logps")),
            _ => None,
        };
        let (Some(cache), Some(folder)) = (cache, folder) else { return compute(progress) };
        let settings = format!("{:?} {:?} ld_alpha {:?}", model.kind(), set.feed(), self.options.ld_alpha);
        let key = ReferenceKey::new(&[folder], set, &settings)?;
        if let Some(logps) = key.load(&cache, set.len()) {
            tracing::info!(key = key.as_str(), "reference log-probabilities from {}", cache.display());
            return Ok(logps);
        }
        let logps = compute(progress)?;
        // A cache that cannot be written is no reason to stop.
        if let Err(error) = key.store(&cache, &logps) {
            tracing::warn!("reference log-probabilities are not kept: {error}");
        }
        Ok(logps)
    }
}

/// `part` of simplemix's cache folder.
fn cache_folder(part: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = variable("SIMPLEMIX_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("simplemix")))
        .or_else(|| Some(variable("HOME")?.join(".cache").join("simplemix")))?;
    Some(root.join(part))
}

/// What every objective's run has in common.
struct Drive<'a> {
    config: &'a TrainConfig,
    settings: &'a LoopSettings,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl Drive<'_> {
    fn run<L: Learner + RestoreWeights>(
        &self,
        mut learner: L,
        folder: RunFolder,
        resume: bool,
        watch: &mut dyn Watch,
        save: impl FnOnce(L, &RunFolder) -> Result<Trained>,
    ) -> Result<Finished> {
        let mut progress = if resume { folder.restore(&mut learner)?.unwrap_or_default() } else { Progress::default() };
        let metrics = folder.metrics(progress.step)?;
        let events = if self.config.tensorboard { Some(Events::open(folder.path(), progress.step)?) } else { None };
        let mut recorder = Recorder {
            folder: &folder,
            metrics,
            events,
            watch,
            steps: self.settings.steps,
            keep: self.config.keep_checkpoints,
            ids: &self.train.ids,
            records: Vec::new(),
        };
        let eval: Vec<&PairTable> = self.eval.iter().map(|(_, set)| &set.table).collect();
        let tables = Tables { train: &self.train.table, eval: &eval };
        let outcome = train(self.settings, tables, &mut learner, &mut progress, &Alone, &mut recorder)?;
        let records = recorder.records;
        if outcome == Outcome::Stopped {
            return Ok(Finished { outcome, records, model: None, folder });
        }
        if let Some(best) = progress.best {
            learner.restore_weights(&folder.checkpoint(best.step))?;
        }
        // What a run left that was killed after this point, and has come here again.
        for old in [folder.model(), folder.path().join("adapter")].iter().filter(|old| old.exists()) {
            std::fs::remove_dir_all(old).at(old, "replace")?;
        }
        let model = save(learner, &folder)?;
        report::write(&folder, self.config, self.train)?;
        Ok(Finished { outcome, records, model: Some(model), folder })
    }
}

/// A learner that can go back to the best checkpoint's weights.
trait RestoreWeights {
    fn restore_weights(&self, folder: &Path) -> Result<()>;
}

impl RestoreWeights for PreferenceLearner<'_> {
    fn restore_weights(&self, folder: &Path) -> Result<()> {
        Self::restore_weights(self, folder)
    }
}

impl RestoreWeights for SftLearner<'_> {
    fn restore_weights(&self, folder: &Path) -> Result<()> {
        Self::restore_weights(self, folder)
    }
}

impl RestoreWeights for RewardLearner<'_> {
    fn restore_weights(&self, folder: &Path) -> Result<()> {
        Self::restore_weights(self, folder)
    }
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// Whether all updates were done.
    pub outcome: Outcome,
    /// Every line of `metrics.jsonl` that this process wrote.
    pub records: Vec<Record>,
    /// The result; none of a run that was interrupted.
    pub model: Option<Trained>,
    /// Where everything was written.
    pub folder: RunFolder,
}

/// Writes what happens into the run folder and passes it on.
struct Recorder<'a> {
    folder: &'a RunFolder,
    metrics: MetricsFile,
    events: Option<Events>,
    watch: &'a mut dyn Watch,
    steps: u64,
    keep: usize,
    ids: &'a [String],
    records: Vec<Record>,
}

impl Recorder<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.metrics.append(record)?;
        if let Some(events) = &mut self.events {
            events.append(record)?;
        }
        self.records.push(record.clone());
        Ok(())
    }
}

impl<L: Learner> Observer<L> for Recorder<'_> {
    fn step(&mut self, record: &Record) -> Result<()> {
        self.record(record)?;
        self.watch.metrics(&Metrics::update(record.step, self.steps, &record.values));
        Ok(())
    }

    fn evaluated(&mut self, record: &Record) -> Result<()> {
        self.record(record)?;
        self.watch.metrics(&Metrics::evaluation(record.step, self.steps, &record.values));
        Ok(())
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        self.watch.progress("evaluation", done as u64, total as u64);
    }

    fn checkpoint(&mut self, learner: &L, progress: &Progress, _: Occasion) -> Result<()> {
        self.folder.save_checkpoint(learner, progress, self.keep).map(drop)
    }

    fn nonfinite(&mut self, report: &NonFinite) -> Result<()> {
        let mut value = serde_json::json!(report);
        value["ids"] = report.pairs.iter().map(|&pair| self.ids[pair].as_str()).collect();
        self.folder.write(&format!("nonfinite-{}.json", report.step), &format!("{value:#}\n"))
    }

    fn interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }
}

/// What the run ran on, as JSON.
fn environment(device: Device) -> String {
    let value = serde_json::json!({
        "simplemix": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "device": format!("{device:?}"),
        "libtorch_threads": tch::get_num_threads(),
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "arguments": std::env::args().collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn tokenizer(config: &TrainConfig, model: &Path) -> Result<PairTokenizer> {
    let options = TokenizeOptions { max_length: config.max_length, ..TokenizeOptions::default() };
    Ok(PairTokenizer::from_dir(model, options)?)
}

fn read(path: &Path, config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<PairSet> {
    let (pairs, report) = read_pairs_with_report(path, &ReadOptions::default())?;
    if pairs.is_empty() {
        return Err(Error::Empty { path: path.to_owned(), reason: refusals(&report) });
    }
    tokenize(&pairs, config, tokenizer)
}

/// Token ids out of the cache, or made; they are kept there once the run starts.
fn tokenize(pairs: &[Pair], config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<PairSet> {
    let cache = config.cache_tokens.then(|| config.token_cache.clone().or_else(|| cache_folder("tokens"))).flatten();
    match cache {
        Some(folder) => PairSet::tokenize_cached(pairs, tokenizer, &folder),
        None => PairSet::tokenize(pairs, tokenizer),
    }
}

/// Pairs of all sources, and the mixture of those that are kept: shares hold of what is trained on.
fn mixed(config: &TrainConfig, tokenizer: &PairTokenizer) -> Result<(PairSet, Order)> {
    let (mut all, mut starts, mut sources) = (PairSet::default(), Vec::new(), Vec::new());
    for source in &config.mix {
        let set = read(&source.path, config, tokenizer)?;
        starts.push(all.len());
        sources.push(SourceConfig::new(&source.name, set.len() as u64, source.weight));
        all.append(set, &source.name);
    }
    let mixture = MixtureConfig { batch: Some(config.batch_size as u64), ..MixtureConfig::new(sources, config.seed) };
    let order = Order::Mixed { mixture: Arc::new(Mixture::new(mixture)?), starts: starts.into() };
    Ok((all, order))
}

fn preference_loss(config: &TrainConfig) -> Result<PreferenceLoss> {
    let kind: LossKind = config.loss.parse()?;
    let mut constants = config.loss_constants.clone();
    if config.label_smoothing != 0.0 {
        constants.insert("label_smoothing".to_owned(), config.label_smoothing);
    }
    let loss =
        PreferenceLoss::with_constants(kind, config.beta, &constants)?.with_divergence(config.f_divergence_type)?;
    Ok(config.wpo.map_or(Ok(loss), |wpo| loss.with_wpo(wpo))?)
}

/// Refuses a set with a pair that has no scores, before anything is computed.
fn scored(set: &PairSet, loss: &PreferenceLoss) -> Result<()> {
    match set.score_margins.iter().position(Option::is_none) {
        Some(pair) => Err(no_scores(set, pair, loss)),
        None => Ok(()),
    }
}

fn required<'a>(key: &'static str, path: Option<&'a Path>) -> Result<&'a Path> {
    path.ok_or(Error::Setting { key, found: "not set".to_owned(), expected: "a path" })
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

    #[test]
    fn a_set_without_scores_is_refused_for_soft_labels() {
        let loss = preference_loss(&TrainConfig { loss: "soft_label".to_owned(), ..TrainConfig::default() }).unwrap();
        let mut set = PairSet { score_margins: vec![Some(1.0), None], ..PairSet::default() };
        set.table.pairs =
            vec![PairEntry { row: 4, ..PairEntry::default() }, PairEntry { row: 7, ..PairEntry::default() }];
        let error = scored(&set, &loss).unwrap_err().to_string();
        assert_eq!(error, "row 7: no `score_chosen` and `score_rejected`, which the loss `soft_label` needs");
    }

    #[test]
    fn constants_of_a_loss_come_by_name() {
        let text = "loss = \"simpo\"\nbeta = 2.0\n[loss_constants]\nsimpo_gamma = 1.2\n";
        let mut config = TrainConfig::from_toml(text, Path::new("run.toml")).unwrap();
        assert_eq!(preference_loss(&config).unwrap().constant("simpo_gamma"), Some(1.2));
        config.loss_constants.insert("tau".to_owned(), 1.0);
        let error = preference_loss(&config).unwrap_err().to_string();
        assert_eq!(error, "`tau` is 1, expected nothing: `simpo` knows simpo_gamma, label_smoothing");
        let text = "loss = \"ipo_sum\"\nf_divergence_type = { alpha_divergence = 0.5 }\nwpo = \"capped\"\n";
        let config = TrainConfig::from_toml(text, Path::new("run.toml")).unwrap();
        assert!(simplemix_loss::Objective::wpo(&preference_loss(&config).unwrap()).is_some());
        assert_eq!(TrainConfig::from_toml(&config.to_toml().unwrap(), Path::new("run.toml")).unwrap(), config);
    }
}
