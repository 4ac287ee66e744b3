//! Settings and names of adapters in peft's files.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{LoraConfig, LoraTargets};
use crate::config::{Keys, ModelConfig};
use crate::config_file::not_json;
use crate::error::Result;

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

/// Refuses initial values for which peft changes the base weights when it loads the adapter.
fn check_initial_values(keys: &Keys<'_>) -> Result<()> {
    const KEY: &str = "init_lora_weights";
    match keys.get(KEY) {
        None | Some(Value::Bool(_)) => Ok(()),
        // These set the adapter's own matrices alone, which its file replaces.
        Some(Value::String(name)) if matches!(name.to_lowercase().as_str(), "gaussian" | "eva" | "orthogonal") => {
            Ok(())
        }
        Some(Value::String(name)) if name.eq_ignore_ascii_case("mica") => {
            Err(keys.refuse(KEY, "`true`: with this one peft trains A alone"))
        }
        Some(_) => Err(keys.refuse(
            KEY,
            "`true`, `false`, `gaussian`, `eva` or `orthogonal`: with this one peft changes the weights of the model \
             when it loads the adapter; convert it with peft's save_pretrained(..., \
             path_initial_model_for_weight_conversion=...), or merge it with peft and give the merged model",
        )),
    }
}

/// Names of layers as peft reads them: by the ends of their paths; in a multimodal model, whose other parts have layers of these
/// names too, as a pattern of paths inside of the text part.
fn target_modules(model: &ModelConfig, names: &[String]) -> Value {
    if model.multimodal.is_none() {
        return json!(names);
    }
    let escaped = |text: &str| text.replace('.', r"\.");
    let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
    format!(r"{}\.layers\.(.*\.)?({})", escaped(model.names.decoder), names.join("|")).into()
}

impl LoraConfig {
    /// Reads peft's settings; a setting that changes the numbers and is not computed is an error.
    pub(super) fn from_json(text: &str, path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_str(text).map_err(|source| not_json(text, path, source))?;
        let keys = Keys::new(&map, path, "");
        if keys.text("peft_type")? != Some("LORA") {
            return Err(keys.refuse("peft_type", "`LORA`"));
        }
        for key in ["use_dora", "lora_bias", "use_qalora", "use_bdlora"] {
            keys.only(key, &false.into())?;
        }
        // Whatever the file says, peft takes what the layer is.
        keys.flag("fan_in_fan_out", false)?;
        keys.only("bias", &"none".into())?;
        check_initial_values(&keys)?;
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
            dropout: match keys.get("lora_dropout") {
                None => 0.0,
                Some(share) => share.as_f64().ok_or_else(|| keys.refuse("lora_dropout", "a number"))?,
            },
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
            LoraTargets::AllLinear => model.projection_names(),
        };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": target_modules(model, &targets),
            "use_rslora": self.rslora,
            "bias": "none",
            "fan_in_fan_out": model.turned_linear,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }
}
