//! Names and shapes of a run's weights, from configurations alone.

use std::path::Path;

use simplemix_model::{LoraConfig, ModelConfig};

use crate::config::{Objective, TrainConfig};
use crate::error::Result;
use crate::patterns::matching;

/// Tensors by name, in the checkpoint's order.
pub(super) type Named = Vec<(String, Vec<i64>)>;

/// Weights of a run.
#[derive(Debug)]
pub(super) struct Shapes {
    pub(super) model: ModelConfig,
    /// Weights of the model, without an adapter.
    pub(super) weights: Named,
    /// Adapter that is trained in place of them.
    pub(super) adapter: Option<LoraConfig>,
    /// Tensors that are trained.
    pub(super) trained: Named,
}

impl Shapes {
    /// Reads `config.json` of the model's folder and the settings of an adapter to continue with.
    pub(super) fn read(config: &TrainConfig, folder: &Path) -> Result<Self> {
        Self::of(config, ModelConfig::from_folder(folder)?)
    }

    pub(super) fn of(config: &TrainConfig, model: ModelConfig) -> Result<Self> {
        let adapter = match &config.lora.adapter {
            Some(folder) => Some(LoraConfig::from_folder(folder)?),
            None => config.lora.config(),
        };
        let weights = match config.objective {
            Objective::Reward => {
                model.check_rewards()?;
                model.reward_tensors()
            }
            Objective::Preference | Objective::Sft => model.tensors(),
        };
        let all = match &adapter {
            Some(adapter) => adapter.tensors(&model)?,
            None => weights.clone(),
        };
        let trained = trained(config, all)?;
        Ok(Self { model, weights, adapter, trained })
    }

    /// Number of weights of the model, without an adapter.
    pub(super) fn parameters(&self) -> i64 {
        count(&self.weights)
    }

    /// Whether the optimiser moves any of the trained tensors, at a learning rate above 0.
    pub(super) fn learns(&self, config: &TrainConfig) -> Result<bool> {
        let names: Vec<&str> = self.trained.iter().map(|(name, _)| name.as_str()).collect();
        config.optimizer.learns(&names)
    }
}

/// Those of `all` parameters that are trained.
pub(super) fn trained<T>(config: &TrainConfig, all: Vec<(String, T)>) -> Result<Vec<(String, T)>> {
    let freeze = &config.optimizer.freeze;
    if freeze.is_empty() {
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let frozen = matching("optimizer.freeze", freeze, &names)?;
    let trained = all.into_iter().enumerate().filter(|(at, _)| !frozen.contains(at));
    Ok(trained.map(|(_, parameter)| parameter).collect())
}

/// Number of weights in all tensors together.
pub(super) fn count(tensors: &[(String, Vec<i64>)]) -> i64 {
    tensors.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
}
