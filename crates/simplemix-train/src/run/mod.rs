//! A whole run from settings: read, tokenise, score the reference, train, save.

mod drive;
mod estimate;
mod prepare;
mod reference;

use simplemix_data::Watch;
use simplemix_loss::LossSum;
use simplemix_model::{CausalLm, RewardModel};

use self::drive::{Drive, environment, save_policy};
use self::prepare::{Start, required};
use self::reference::ReferenceMaker;
pub use self::reference::{ReferenceSettings, ReferenceSource};
use crate::config::{Objective, TrainConfig};
use crate::error::Result;
use crate::forward::ForwardOptions;
use crate::hypo::Hypo;
use crate::loop_settings::LoopSettings;
use crate::metrics::Record;
use crate::pairs::{NamedSet, PairSet};
use crate::patterns::matching;
use crate::preference::{PreferenceLearner, PreferenceOptions};
use crate::reward::RewardLearner;
use crate::run_folder::RunFolder;
use crate::sft::SftLearner;
use crate::trainee::Trainee;
use crate::trainer::Outcome;

/// A run whose input is read and checked, ready to start.
#[derive(Debug)]
pub struct Run {
    config: TrainConfig,
    loss: LossSum,
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

impl Run {
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

    /// What is trained, with a fresh optimiser.
    fn trainee(&self) -> Result<Trainee> {
        let mut parameters = self.start.trainable();
        let optimizer = &self.config.optimizer;
        if !optimizer.freeze.is_empty() {
            let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
            let frozen = matching("optimizer.freeze", &optimizer.freeze, &names)?;
            let trained = parameters.into_iter().enumerate().filter(|(at, _)| !frozen.contains(at));
            parameters = trained.map(|(_, parameter)| parameter).collect();
        }
        Trainee::new(parameters, optimizer)
    }

    fn forward_options(&self) -> ForwardOptions {
        let TrainConfig { loss, batch, memory, log, .. } = &self.config;
        ForwardOptions {
            micro_batch_tokens: batch.micro_batch_tokens,
            logits_bytes: memory.logits_bytes,
            activation_checkpointing: memory.activation_checkpointing,
            token_metrics: log.token_metrics,
            wpo: loss.wpo,
            ld_alpha: loss.ld_alpha,
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
        let _lock = folder.lock()?;
        folder.write("config.toml", &self.config.to_toml()?)?;
        folder.write("environment.json", &environment(self.start.device()))?;
        self.train.fill_cache();
        self.eval.iter().for_each(|(_, set)| set.fill_cache());
        let (trainee, options, seed) = (self.trainee()?, self.forward_options(), self.config.seed);
        let source = self.config.model.clone();
        let drive = Drive { config: &self.config, settings: &self.settings, train: &self.train, eval: &self.eval };
        match self.start {
            Start::Reward(model) => {
                let center = self.config.loss.center_rewards;
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
                    loss: self.loss.clone(),
                    forward: options,
                    seed,
                    reward_margin_scale: self.config.loss.reward_margin_scale,
                    starts_at_reference: self.config.reference.model.is_none() && self.config.lora.adapter.is_none(),
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
