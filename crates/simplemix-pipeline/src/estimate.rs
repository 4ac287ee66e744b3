//! Estimates of tokens, memory and time of stages that are not done yet: upper bounds where nothing better is known.

use std::path::{Path, PathBuf};

use simplemix_model::{Dtype, LoadIn, ModelConfig, QuantizationSettings};
use simplemix_rollout::{GeneratorSettings, ScorerKind, ScorerSettings};
use simplemix_train::{CheckpointSettings, TrainConfig};
use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::plan::{Job, Stage};
use crate::settings::PipelineSettings;

/// Expected cost of a stage; none where it is not known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    /// Upper bound of the tokens that go through a model.
    pub tokens: Option<f64>,
    /// Peak memory, in bytes.
    pub memory: Option<f64>,
    /// Time, in seconds.
    pub seconds: Option<f64>,
    /// Models and checkpoints on disk, in bytes.
    pub disk: Option<f64>,
}

/// Shares of the speed of matrix products that a training step reaches (benches/results), and decoding with full batches.
const TRAINING: f64 = 0.6;
const DECODING: f64 = 0.5;

/// Estimates from the speed of the machine and the size of the model.
pub(crate) struct Estimator {
    folder: PathBuf,
    model: ModelConfig,
    device: Device,
    /// Operations a second of all processes together; none where the device is not here and nobody says.
    flops: Option<f64>,
    pairs: Option<f64>,
}

impl Estimator {
    /// Measures the device, unless it is not here: then `memory.device_tflops` of training stands for its speed. `pairs` of the
    /// settings is the size of the mixture, where they set it.
    pub(crate) fn new(model: &Path, settings: &PipelineSettings, device: Device) -> Result<Self> {
        let (folder, model) = (model.to_owned(), ModelConfig::from_folder(model)?);
        let memory = &settings.train.memory;
        for (key, of_gpu) in [("device_gb", memory.device_gb), ("device_tflops", memory.device_tflops)] {
            if let Some(found) = of_gpu.filter(|_| !device.is_cuda()) {
                let expected = "nothing of a GPU for a pipeline on the CPU";
                return Err(Error::setting(&format!("train.memory.{key}"), found, expected));
            }
        }
        let one = match memory.device_tflops {
            Some(tflops) => Some(tflops * 1e12),
            None if memory.device_gb.is_some() => None,
            None => Some(measured_flops(device)),
        };
        // Processes on one CPU share the cores that were measured.
        let devices = if device.is_cuda() { settings.parallel.processes as f64 } else { 1.0 };
        let pairs = settings.mix.settings.size.map(|pairs| pairs as f64);
        Ok(Self { folder, model, device, flops: one.map(|one| one * devices), pairs })
    }

    /// Estimate of `stage`, to which the stages before it give a number of `responses`.
    pub(crate) fn of(&self, stage: &Stage, responses: Option<f64>) -> Estimate {
        match &stage.job {
            Job::Generate(settings, by) => {
                let Ok(responses) = settings.responses() else { return Estimate::default() };
                let tokens = responses as f64 * settings.sampling.max_new_tokens as f64;
                let (models, local) = match by {
                    GeneratorSettings::Local(local) => (1.0, local),
                    GeneratorSettings::MixP(folders) => (2.0, &folders.policy),
                    // A server: its memory and speed are not known.
                    _ => return Estimate { tokens: Some(tokens), ..Estimate::default() },
                };
                // Keys and values of a batch, with prompts as long as responses.
                // A folder that a stage will write has a model of the first one's shape.
                let model = ModelConfig::from_folder(&local.model).unwrap_or_else(|_| self.model.clone());
                let (each, rows) = (self.number_bytes(), local.batch_rows as f64);
                let tokens_of_row = 2.0 * settings.sampling.max_new_tokens as f64;
                let cache = rows * (tokens_of_row * model.cache_bytes(each) as f64 + model.state_bytes(each) as f64);
                let share = DECODING * (rows / 32.0).min(1.0);
                Estimate {
                    tokens: Some(tokens),
                    memory: Some(models * self.weight_bytes(&model, local.load_in) + cache),
                    seconds: self.seconds(&model, models * 2.0, tokens, share),
                    disk: None,
                }
            }
            Job::Score(_, scorers) => self.scoring(scorers, responses),
            Job::Train(config) => self.training(config),
            Job::Pool(_) | Job::Pair(_) | Job::Mix(_) | Job::Diverge(..) => Estimate::default(),
            // A moment, beside loading.
            #[cfg(feature = "server")]
            Job::Yardstick(_) => {
                let memory = Some(self.weight_bytes(&self.model, LoadIn::None));
                Estimate { memory, ..Estimate::default() }
            }
        }
    }

    /// Rewards of local models: every text has the most tokens that its model reads.
    fn scoring(&self, scorers: &[ScorerSettings], responses: Option<f64>) -> Estimate {
        let local = scorers.iter().filter_map(|scorer| match &scorer.kind {
            ScorerKind::RewardModel(settings) => Some(settings),
            _ => None,
        });
        let mut sum = Estimate::default();
        for settings in local {
            // A reward model that a stage will train has the policy's shape.
            let model = ModelConfig::from_folder(&settings.model).unwrap_or_else(|_| self.model.clone());
            let tokens = responses.map(|texts| texts * settings.max_length as f64);
            let seconds = tokens.and_then(|tokens| self.seconds(&model, 2.0, tokens, TRAINING));
            let memory = self.weight_bytes(&model, settings.load_in);
            sum = Estimate {
                tokens: tokens.map(|tokens| tokens + sum.tokens.unwrap_or_default()),
                memory: Some(sum.memory.unwrap_or_default().max(memory)),
                seconds: seconds.map(|seconds| seconds + sum.seconds.unwrap_or_default()),
                disk: None,
            };
        }
        sum
    }

    /// Bytes of a number in stages that do not train.
    fn number_bytes(&self) -> usize {
        Dtype::Auto.kind(self.device).elt_size_in_bytes()
    }

    /// Bytes of a model's weights in stages that do not train, with those of a layer that are dequantised at a time.
    fn weight_bytes(&self, model: &ModelConfig, load_in: LoadIn) -> f64 {
        let settings = QuantizationSettings::from(load_in);
        let (held, dequantised) = settings.weight_bytes(model, &model.tensors(), self.number_bytes());
        (held + dequantised) as f64
    }

    fn training(&self, config: &TrainConfig) -> Estimate {
        // The stage's own model is the first round's, or one of its shape.
        let memory = match config.memory.device_gb {
            Some(_) => TrainConfig { model: Some(self.folder.clone()), ..config.clone() }.memory_plan(),
            None => config.memory_bound(&self.folder, self.device),
        };
        let memory = memory.map(|memory| memory.total() as f64).ok();
        let pairs = config.max_steps.map(|steps| (steps as usize * config.batch.batch_size) as f64);
        let pairs = pairs.or(self.pairs.map(|pairs| pairs * config.epochs));
        // Every pair has the maximum length, its second response half of it.
        let tokens = pairs.map(|pairs| pairs * 1.5 * config.tokens.max_length as f64);
        let operations = 6.0 + 2.0 / config.epochs.max(1.0);
        let seconds = tokens.and_then(|tokens| self.seconds(&self.model, operations, tokens, TRAINING));
        Estimate { tokens, memory, seconds, disk: Some(self.disk(config)) }
    }

    /// Bytes of the resulting model and of the checkpoints that a training keeps, with two moments of every weight and one checkpoint
    /// that is being written.
    fn disk(&self, config: &TrainConfig) -> f64 {
        let CheckpointSettings { save_every_steps, save_every_ratio, save_every_epoch, keep } = &config.checkpoint;
        let is_saving = *save_every_steps > 0 || *save_every_ratio > 0.0 || *save_every_epoch;
        let kept = if is_saving { *keep as f64 + 1.0 } else { 0.0 }
            + if config.eval.best_metric.is_some() { 1.0 } else { 0.0 };
        4.0 * self.model.parameters() as f64 * (1.0 + 3.0 * kept)
    }

    /// Seconds for `tokens` through `model`, at a number of operations for each weight and a share of the speed.
    fn seconds(&self, model: &ModelConfig, operations: f64, tokens: f64, share: f64) -> Option<f64> {
        self.flops.map(|flops| operations * model.parameters() as f64 * tokens / (flops * share))
    }
}

/// Measured speed of a large matrix product, in operations a second.
#[expect(clippy::disallowed_methods, reason = "a speed is measured, for an estimate only")]
fn measured_flops(device: Device) -> f64 {
    const SIZE: i64 = 1024;
    let _guard = tch::no_grad_guard();
    let a = Tensor::ones([SIZE, SIZE], (Dtype::Auto.kind(device), device));
    let times = (0..4).map(|_| {
        let start = std::time::Instant::now();
        // Reading a number waits for the device.
        a.matmul(&a).double_value(&[0, 0]);
        start.elapsed().as_secs_f64()
    });
    2.0 * (SIZE as f64).powi(3) / times.fold(f64::INFINITY, f64::min)
}
