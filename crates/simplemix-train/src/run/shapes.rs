//! Names and shapes of a run's weights, from configurations alone.

use std::collections::HashSet;
use std::path::Path;

use simplemix_model::{LoraConfig, LoraTask, ModelConfig};

use crate::config::{Objective, TrainConfig};
use crate::error::{Error, Result};
use crate::patterns::matching;
use crate::router::router_coef;

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
    /// Tensors of the adapter under peft's names.
    pub(super) of_adapter: Named,
    /// Those that the model has too: peft's name and the model's.
    whole: Vec<(String, String)>,
    /// Tensors that are trained.
    pub(super) trained: Named,
}

impl Shapes {
    /// Reads `config.json` of the model's folder and the settings of an adapter to continue with.
    pub(super) fn read(config: &TrainConfig, folder: &Path) -> Result<Self> {
        Self::of(config, ModelConfig::from_folder(folder)?)
    }

    pub(super) fn of(config: &TrainConfig, model: ModelConfig) -> Result<Self> {
        let task = lora_task(config);
        let adapter = match &config.lora.adapter {
            Some(folder) => Some(LoraConfig::from_folder(folder)?),
            None => config.lora.config(task),
        };
        let mut model = model;
        let (mut of_adapter, mut whole) = (Named::new(), Vec::new());
        if let Some(adapter) = &adapter {
            adapter.check_task(task)?;
            if config.lora.adapter.is_none() {
                adapter.check_for(&model)?;
            }
            model = adapter.resized(&model);
            if adapter.dropout > 0.0 && adapter.adapts_head(&model)? {
                let found = format!("{} with an adapter of the output head", adapter.dropout);
                return Err(Error::setting("lora.dropout", found, "0, or the output head in `lora.modules_to_save`"));
            }
            (of_adapter, whole) = (adapter.tensors(&model)?, adapter.whole_tensors(&model)?);
        }
        let weights = match config.objective {
            Objective::Reward => {
                model.check_rewards()?;
                model.reward_tensors()
            }
            Objective::Preference | Objective::Sft => model.tensors(),
        };
        let mut all = if adapter.is_some() { of_adapter.clone() } else { weights.clone() };
        all.retain(|(name, _)| !model.is_buffer(name));
        router_coef(config, &model)?;
        let trained = trained(config, all)?;
        Ok(Self { model, weights, adapter, of_adapter, whole, trained })
    }

    /// Whether the tensor of the adapter that peft calls `name` is f32, whatever the model's element type is.
    pub(super) fn is_matrix(&self, name: &str) -> bool {
        self.adapter.is_some() && !self.whole.iter().any(|(file, _)| file == name)
    }

    /// Names in the model of the tensors that are trained whole.
    pub(super) fn trained_names(&self) -> HashSet<&str> {
        let trained = self.trained.iter().map(|(name, _)| name.as_str());
        match &self.adapter {
            None => trained.collect(),
            Some(_) => {
                let of_model =
                    |name: &str| self.whole.iter().find(|(file, _)| file == name).map(|(_, own)| own.as_str());
                trained.filter_map(of_model).collect()
            }
        }
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

/// Kind of model that an adapter of the run is for.
pub(super) fn lora_task(config: &TrainConfig) -> LoraTask {
    match config.objective {
        Objective::Reward => LoraTask::SeqCls,
        Objective::Preference | Objective::Sft => LoraTask::CausalLm,
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
