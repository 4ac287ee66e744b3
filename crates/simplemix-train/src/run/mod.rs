//! Training runs from settings: read, tokenise, compute the reference's log-probabilities, train, save.

mod drive;
mod estimate;
mod identity;
mod joined;
mod prepare;
mod reference;
mod shapes;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;

use simplemix_data::Watch;
use simplemix_loss::LossSum;
use simplemix_model::{CausalLm, RewardModel, TokenizerChanges};
use simplemix_settings::OrAuto;
use tch::Device;

use self::drive::{Drive, note_environment, save_policy, save_reward};
use self::identity::Identity;
use self::prepare::{Start, required};
use self::reference::ReferenceMaker;
use self::shapes::Shapes;
use crate::budget::{CPU_LOGITS, device_bytes, logits_bytes};
use crate::config::{Objective, TrainConfig};
use crate::error::{At, Result};
use crate::forward::ForwardOptions;
use crate::loop_settings::LoopSettings;
use crate::metrics::Record;
use crate::pairs::{NamedSet, PairSet};
use crate::preference::{PreferenceLearner, PreferenceOptions};
use crate::push;
use crate::reward::RewardLearner;
use crate::router::router_coef;
use crate::run_folder::RunFolder;
use crate::sft::SftLearner;
use crate::sharded::{Divide, Sharded};
use crate::team::Team;
use crate::trainee::Trainee;
use crate::trainer::Outcome;

/// A training run that is ready to start: its settings are checked and its data is read. The weights are loaded by
/// [`Run::load`], or when it starts.
#[derive(Debug)]
pub struct Run {
    config: TrainConfig,
    model: PathBuf,
    loss: LossSum,
    settings: LoopSettings,
    shapes: Shapes,
    device: Device,
    /// Model with its weights, once they are loaded.
    start: Option<Start>,
    /// The weights, where they were divided while they were loaded.
    sharded: Option<Arc<Sharded>>,
    notices: Vec<String>,
    /// Tokens that end a response of the policy, for HyPO.
    stop_tokens: Vec<u32>,
    /// Id of the end-of-sequence token, if the settings name one.
    eos_id: Option<u32>,
    /// Processes that train together.
    team: Team,
    /// Training pairs.
    pub train: PairSet,
    /// Held-out pairs by name.
    pub eval: Vec<NamedSet>,
}

/// Model after training.
#[derive(Debug)]
pub enum Trained {
    /// A language model, with the trained adapter active if there is one; the folder of the run holds it merged.
    Policy(Box<CausalLm>),
    /// A reward model.
    Reward(Box<RewardModel>),
}

impl Trained {
    /// The language model, or `None` for a reward model.
    pub fn policy(&self) -> Option<&CausalLm> {
        match self {
            Self::Policy(model) => Some(model),
            Self::Reward(_) => None,
        }
    }
}

/// Treatment of a run that the output folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Refuse it: the run is new.
    No,
    /// Go on with it, if its settings, data and models are the same. Places, the number of updates, and what cannot change
    /// an update may differ.
    Yes,
    /// Go on with it whatever differs; the differences become a notice.
    Anyway,
}

impl From<bool> for Resume {
    fn from(resume: bool) -> Self {
        if resume { Self::Yes } else { Self::No }
    }
}

/// Result of a run.
#[derive(Debug)]
pub struct Finished {
    /// Reason for the end of the run.
    pub outcome: Outcome,
    /// Trained model; `None` if the run was interrupted, or had finished before, or each process has a part of it
    /// ([`Shard::All`](crate::Shard::All)).
    pub model: Option<Trained>,
    /// Folder of the run.
    pub folder: RunFolder,
    /// Most bytes that tensors have held on the device since the run began in this process; none on a CPU, or if the run had
    /// finished before.
    pub device_peak_bytes: Option<u64>,
    /// Address of the commit on the hub, if the result was pushed.
    pub pushed: Option<String>,
    /// Length of `metrics.jsonl` when this process began.
    first_byte: u64,
}

impl Finished {
    /// Reads the lines that this process wrote to `metrics.jsonl`. While it trains it keeps none of them in memory.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.folder.records(self.first_byte)
    }
}

impl Run {
    /// Settings of the run; element type, tokens of a pass and bytes of logits are what `auto` stands for on its device.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Shares the run with the other processes of `team`, each of which starts the same run. Weights that are to be divided among
    /// them are divided while they are loaded, if this comes before [`Run::load`].
    #[must_use]
    pub fn with_team(self, team: Team) -> Self {
        Self { team, ..self }
    }

    /// Device that the run is on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Settings of the training loop.
    pub fn settings(&self) -> &LoopSettings {
        &self.settings
    }

    /// Facts about settings and data that the user should read. [`Run::start`] tells them to its watch and writes them, with
    /// those that arise later, to `notices.json`.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Pairs that an epoch trains on: those of the mixture, or of the training set.
    pub fn pairs_per_epoch(&self) -> u64 {
        self.settings.order.pairs(self.train.len() as u64)
    }

    /// Number of parameters of the model.
    pub fn parameters(&self) -> i64 {
        self.shapes.parameters()
    }

    /// Number of parameters that are trained.
    pub fn trained_parameters(&self) -> i64 {
        shapes::count(&self.shapes.trained)
    }

    /// Loads the weights, so that the folder's faults are known before anything is written.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for weights that are missing, damaged, or not those of `config.json`.
    pub fn load(mut self) -> Result<Self> {
        if self.start.is_none() {
            self.start = Some(self.read_weights()?);
        }
        Ok(self)
    }

    fn read_weights(&mut self) -> Result<Start> {
        let is_trained = |name: &str| self.shapes.trained.iter().any(|(trained, _)| trained == name);
        let mut divide = self.divide(&is_trained);
        let start = Start::load(&self.config, self.device, &self.model, divide.as_mut())?;
        self.sharded = divide.and_then(|divide| divide.sharded);
        self.notices.extend(start.notices().iter().cloned());
        // The weights may hold an output head that the configuration does not speak of.
        self.shapes = Shapes::of(&self.config, start.model_config().clone())?;
        Ok(start)
    }

    /// Divides weights among the processes, if that is asked for.
    fn divide<'a>(&'a self, is_trained: &'a dyn Fn(&str) -> bool) -> Option<Divide<'a>> {
        let (device, team) = (self.device, &self.team);
        self.config.parallel.shard.divides_weights(team).then(|| Divide {
            team,
            kind: self.config.dtype.kind(device),
            device,
            is_trained,
            has_gradients: true,
            sharded: self.sharded.clone(),
        })
    }

    /// Divides what of the weights is not divided yet.
    fn divide_rest(&self, start: &mut Start) -> Result<Option<Arc<Sharded>>> {
        let is_trained = |name: &str| self.shapes.trained.iter().any(|(trained, _)| trained == name);
        let Some(divide) = self.divide(&is_trained) else { return Ok(None) };
        let sharded = divide.rest(start.model_config(), start.parameters())?;
        start.set_residence(&sharded);
        Ok(Some(sharded))
    }

    /// transformers' name of the multimodal model whose text part is trained, if it is one.
    pub fn part_of(&self) -> Option<&'static str> {
        self.shapes.model.part_of()
    }

    /// Bytes of logits in memory at a time.
    pub fn logits_bytes(&self) -> usize {
        self.config.memory.logits_bytes.or(CPU_LOGITS)
    }

    /// Settles what the settings leave to the device.
    fn settle_budget(&mut self) -> Result<()> {
        let bytes = device_bytes(self.device(), self.config.memory.device_gb)?;
        let states = match bytes {
            Some(_) => self.memory_estimate()?.states(),
            None => 0,
        };
        let tokens = self.needs().settled_tokens(states)?;
        let logits = logits_bytes(self.config.memory.logits_bytes, bytes);
        self.settings.micro_batch_tokens = tokens;
        self.config.batch.micro_batch_tokens = OrAuto::Value(tokens);
        self.config.memory.logits_bytes = OrAuto::Value(logits);
        Ok(())
    }

    /// Folder of the tokenizer files that the result gets, if they are not those of the model.
    fn tokenizer_of_result(&self, folder: &RunFolder) -> Result<Option<PathBuf>> {
        let tokens = &self.config.tokens;
        let changes = TokenizerChanges {
            chat_template: tokens.chat_template.as_deref(),
            eos_token: tokens.eos_token.as_deref().zip(self.eos_id),
        };
        if changes.chat_template.is_none() && changes.eos_token.is_none() {
            return Ok(None);
        }
        let to = folder.path().join("tokenizer");
        simplemix_files::create_dir_all(&to)?;
        changes.copy(&self.model, &to)?;
        Ok(Some(to))
    }

    fn forward_options(&self) -> ForwardOptions {
        let TrainConfig { loss, memory, log, .. } = &self.config;
        ForwardOptions {
            micro_batch_tokens: self.settings.micro_batch_tokens,
            logits_bytes: self.logits_bytes(),
            activation_checkpointing: memory.activation_checkpointing,
            token_metrics: log.token_metrics,
            token_metrics_every: log.token_metrics_every,
            wpo: loss.wpo,
            ld_alpha: loss.ld_alpha,
        }
    }

    /// Trains and writes the run folder: settings, metrics, checkpoints and the trained model.
    ///
    /// A run that is resumed continues from its newest checkpoint; if it had finished, nothing is changed. `watch` is told the progress of the stages
    /// `reference` and `evaluation`, counted in pairs, and the metrics of every update and evaluation. When it interrupts,
    /// a checkpoint is saved before the next update.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the folder cannot be made, [`Error::Differs`](crate::Error::Differs),
    /// [`Error::NonFinite`](crate::Error::NonFinite), [`Error::NothingTrained`](crate::Error::NothingTrained), and errors of
    /// model, data and loss. [`Error::NotPushed`](crate::Error::NotPushed) leaves a run that is whole.
    pub fn start(self, resume: Resume, watch: &mut dyn Watch) -> Result<Finished> {
        let is_first = self.team.is_first();
        let settings = self.config.push.clone();
        // Before hours are spent.
        let push = if is_first { push::open(&settings)? } else { None };
        let mut finished = self.trained(resume, watch)?;
        if let (Some(push), Outcome::Finished | Outcome::StoppedEarly) = (&push, finished.outcome) {
            finished.pushed = Some(push::push(push, &settings, &finished.folder, watch)?);
        }
        Ok(finished)
    }

    fn trained(mut self, resume: Resume, watch: &mut dyn Watch) -> Result<Finished> {
        let team = self.team.clone();
        team.does_at_length("loading the model");
        let mut start = match self.start.take() {
            Some(start) => start,
            None => self.read_weights()?,
        };
        let output = required("output", self.config.output.as_deref())?;
        team.does_at_length("hashing models and pairs");
        let identity = Identity::of(&self)?;
        identity.agree(&self, &team)?;
        let folder = match resume {
            _ if !team.is_first() => RunFolder::beside(output),
            Resume::No => RunFolder::create(output)?,
            Resume::Yes | Resume::Anyway => RunFolder::open(output)?,
        };
        let _lock = if team.is_first() { Some(folder.lock()?) } else { None };
        let resume_notice = match resume {
            Resume::Yes | Resume::Anyway if team.is_first() => identity.check(&folder, resume == Resume::Anyway)?,
            _ => None,
        };
        let is_finished = team.is_first()
            && folder.finished()?.is_some_and(|steps| steps >= self.settings.steps)
            && resume_notice.is_none();
        if team.any(is_finished)? {
            let metrics = folder.metrics_file();
            let first_byte = if team.is_first() { std::fs::metadata(&metrics).at(&metrics, "read")?.len() } else { 0 };
            let outcome = Outcome::FinishedBefore;
            return Ok(Finished { outcome, model: None, folder, device_peak_bytes: None, pushed: None, first_byte });
        }
        shared::see(&folder, &team)?;
        team.does_at_length("preparing the run folder and the optimiser");
        if team.is_first() {
            folder.unfinish()?;
            identity.write(&folder)?;
            folder.write("config.toml", &self.config.to_toml()?)?;
            let device_notice = note_environment(&folder, start.device())?;
            for text in resume_notice.iter().chain(&device_notice).chain(&self.notices) {
                watch.notice(text);
                folder.add_notice(text)?;
            }
            self.train.fill_cache();
            self.eval.iter().for_each(|(_, set)| set.fill_cache());
        }
        let resume = resume != Resume::No;
        let trained = shapes::trained(&self.config, start.trainable())?;
        let sharded = self.divide_rest(&mut start)?;
        let (optimizer, parallel) = (&self.config.optimizer, &self.config.parallel);
        let trainee = Trainee::together(trained, optimizer, team.clone(), parallel, sharded)?;
        let (options, seed) = (self.forward_options(), self.config.seed);
        let source = self.config.model.clone();
        let tokenizer = if team.is_first() { self.tokenizer_of_result(&folder)? } else { None }.or(source.clone());
        let device = start.device();
        // From here on, so that what loading took at most is no part of the run's peak.
        simplemix_torch::device::reset_peak(device)?;
        let (settings, train, eval) = (&self.settings, &self.train, &self.eval);
        let drive = Drive { config: &self.config, settings, train, eval, device, team: &team };
        match start {
            Start::Reward(model) => {
                let center = self.config.loss.center_rewards;
                let learner = RewardLearner::new(*model, seed, trainee, options, center, &self.train, &self.eval)?;
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    save_reward(learner.into_model(), folder, source.as_deref(), tokenizer.as_deref())
                })
            }
            Start::Policy(policy) if self.config.objective == Objective::Sft => {
                let learner = SftLearner::new(*policy, trainee, options, seed, &self.train, &self.eval)?;
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    save_policy(learner.into_model(), folder, source.as_deref(), tokenizer.as_deref())
                })
            }
            Start::Policy(policy) => {
                let maker = ReferenceMaker {
                    config: &self.config,
                    loss: &self.loss,
                    model_hash: identity.reference_hash(),
                    options: &options,
                    train: &self.train,
                    eval: &self.eval,
                    team: &team,
                    trained: self.shapes.trained_names(),
                };
                let reference = maker.make(&policy, watch)?;
                let hypo = maker.hypo(&policy, &reference, self.stop_tokens)?;
                let settings = PreferenceOptions {
                    loss: self.loss.clone(),
                    forward: options,
                    seed,
                    reward_margin_scale: self.config.loss.reward_margin_scale,
                    starts_at_reference: self.config.reference.model.is_none() && self.config.lora.adapter.is_none(),
                    router_coef: router_coef(&self.config, policy.config())?,
                };
                let learner = PreferenceLearner::new(*policy, trainee, settings, &self.train, &self.eval, reference)?;
                let learner = match hypo {
                    Some(hypo) => learner.with_hypo(hypo),
                    None => learner,
                };
                drive.run(learner, folder, resume, watch, |learner, folder| {
                    save_policy(learner.into_model(), folder, source.as_deref(), tokenizer.as_deref())
                })
            }
        }
    }
}
