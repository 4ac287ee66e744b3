//! Settings and names of adapters in peft's files.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{LoraConfig, LoraTargets};
use crate::config::{Keys, ModelConfig};
use crate::error::{Error, Result};

/// peft's file of settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// peft's file of weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Prefix of peft before the names of modules.
const PREFIX: &str = "base_model.model.";

/// Settings that change the numbers and that this crate does not compute.
const UNSUPPORTED: &[&str] = &[
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "exclude_modules",
    "layers_to_transform",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "megatron_config",
    "arrow_config",
    "alora_invocation_tokens",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

/// Names of a module's two matrices in peft's files: A, B.
pub(super) fn tensor_names(module: &str) -> [String; 2] {
    ["A", "B"].map(|matrix| format!("{PREFIX}{module}.lora_{matrix}.weight"))
}

impl LoraConfig {
    /// Reads peft's settings; a setting that changes the numbers and is not computed is an error.
    pub(super) fn from_json(text: &str, path: &Path) -> Result<Self> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let keys = Keys::new(&map, path, "");
        if keys.text("peft_type")? != Some("LORA") {
            return Err(keys.refuse("peft_type", "`LORA`"));
        }
        for key in ["fan_in_fan_out", "use_dora", "lora_bias", "use_qalora", "use_bdlora"] {
            keys.only(key, &false.into())?;
        }
        keys.only("bias", &"none".into())?;
        let is_empty = |value: &Value| match value {
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            _ => false,
        };
        for key in UNSUPPORTED {
            if keys.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(keys.refuse(key, "nothing: adapters of one rank on whole linear layers"));
            }
        }
        let expected = || keys.refuse("target_modules", "`all-linear` or a list of names");
        let targets = match keys.get("target_modules") {
            Some(Value::String(all)) if all == "all-linear" => LoraTargets::AllLinear,
            Some(Value::Array(names)) => {
                let name = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(expected);
                LoraTargets::Named(names.iter().map(name).collect::<Result<_>>()?)
            }
            _ => return Err(expected()),
        };
        let config = Self {
            rank: keys.needed_count("r")?,
            alpha: keys.needed_positive("lora_alpha")?,
            dropout: keys.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
            targets,
            rslora: keys.flag("use_rslora", false)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Settings as peft writes them; `base` is where peft loads the model from.
    pub(crate) fn to_json(&self, model: &ModelConfig, base: Option<&str>) -> Value {
        // peft writes `all-linear` out, in the order of a set.
        let targets: Vec<String> = match &self.targets {
            LoraTargets::Named(names) => names.clone(),
            LoraTargets::AllLinear => {
                let name = |(name, ..): &(&str, _, _)| name.rsplit('.').next().unwrap_or(name).to_owned();
                model.projections().iter().map(name).collect()
            }
        };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "use_rslora": self.rslora,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }
}
