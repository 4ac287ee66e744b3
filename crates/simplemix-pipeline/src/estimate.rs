//! Estimates of tokens, memory and time of stages that are not done yet: upper bounds where nothing better is known.

use std::path::{Path, PathBuf};

use simplemix_model::{Dtype, ModelConfig};
use simplemix_rollout::GeneratorSettings;
use simplemix_train::{CheckpointSettings, TrainConfig};
use tch::{Device, Tensor};

use crate::error::Result;
use crate::plan::{Job, Stage};

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
    flops: f64,
    pairs: Option<f64>,
}

impl Estimator {
    /// Measures the device. `pairs` is the size of the mixture, where the settings set it.
    pub(crate) fn new(model: &Path, pairs: Option<u64>, device: Device) -> Result<Self> {
        let (folder, model) = (model.to_owned(), ModelConfig::from_folder(model)?);
        Ok(Self { folder, model, device, flops: measured_flops(device), pairs: pairs.map(|pairs| pairs as f64) })
    }

    pub(crate) fn of(&self, stage: &Stage) -> Estimate {
        match &stage.job {
            Job::Generate(settings, by) => {
                let Ok(responses) = settings.responses() else { return Estimate::default() };
                let tokens = responses as f64 * settings.sampling.max_new_tokens as f64;
                let (models, rows, folder) = match by {
                    GeneratorSettings::Local(local) => (1.0, local.batch_rows as f64, &local.model),
                    GeneratorSettings::MixP(folders) => (2.0, folders.policy.batch_rows as f64, &folders.policy.model),
                    // A server: its memory and speed are not known.
                    _ => return Estimate { tokens: Some(tokens), ..Estimate::default() },
                };
                // Keys and values of a batch, with prompts as long as responses.
                // A folder that a stage will write has a model of the first one's shape.
                let model = ModelConfig::from_folder(folder).unwrap_or_else(|_| self.model.clone());
                let cache = rows * 2.0 * settings.sampling.max_new_tokens as f64 * model.cache_bytes(4) as f64;
                let share = DECODING * (rows / 32.0).min(1.0);
                Estimate {
                    tokens: Some(tokens),
                    memory: Some(models * 4.0 * model.parameters() as f64 + cache),
                    seconds: Some(models * self.seconds(&model, 2.0, tokens, share)),
                    disk: None,
                }
            }
            Job::Train(config) => self.training(config),
            Job::Pool(_) | Job::Score(..) | Job::Pair(_) | Job::Mix(_) | Job::Diverge(..) => Estimate::default(),
            // A moment, beside loading.
            #[cfg(feature = "server")]
            Job::Yardstick(_) => Estimate { memory: Some(4.0 * self.model.parameters() as f64), ..Estimate::default() },
        }
    }

    fn training(&self, config: &TrainConfig) -> Estimate {
        // The stage's own model is the first round's, or one of its shape.
        let memory = config.memory_bound(&self.folder, self.device).map(|memory| memory.total() as f64).ok();
        let pairs = config.max_steps.map(|steps| (steps as usize * config.batch.batch_size) as f64);
        let pairs = pairs.or(self.pairs.map(|pairs| pairs * config.epochs));
        // Every pair has the maximum length, its second response half of it.
        let tokens = pairs.map(|pairs| pairs * 1.5 * config.tokens.max_length as f64);
        let seconds =
            tokens.map(|tokens| self.seconds(&self.model, 6.0 + 2.0 / config.epochs.max(1.0), tokens, TRAINING));
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
    fn seconds(&self, model: &ModelConfig, operations: f64, tokens: f64, share: f64) -> f64 {
        operations * model.parameters() as f64 * tokens / (self.flops * share)
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
