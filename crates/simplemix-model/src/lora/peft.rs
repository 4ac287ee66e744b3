//! Settings and names of adapters in peft's files.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{LoraBias, LoraConfig, LoraTargets, LoraTask};
use super::matching::ModuleNames;
use crate::config::{Keys, ModelConfig};
use crate::config_file::not_json;
use crate::error::Result;

/// peft's file of settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// peft's file of weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Prefix of peft before the names of modules.
pub(super) const PREFIX: &str = "base_model.model.";

/// Settings that change the numbers and that this crate does not compute, with the way out.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "trainable_token_indices",
        "nothing: merge the adapter with peft, or train `embed_tokens` whole (`modules_to_save`)",
    ),
    ("layer_replication", MERGE),
    ("megatron_config", MERGE),
    ("arrow_config", MERGE),
    ("alora_invocation_tokens", MERGE),
    ("kasa_config", MERGE),
    ("monteclora_config", MERGE),
    ("velora_config", MERGE),
    ("use_qalora", MERGE),
    ("use_bdlora", MERGE),
    ("lora_bias", "`false`: merge the adapter with peft, which adds its biases to the model's"),
];

/// Advice for adapters of another kind.
const MERGE: &str = "nothing: adapters of two matrices a layer; merge the adapter with peft where it can be";

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

/// Whether a value asks for nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// Texts of a list, if there is one.
fn texts(keys: &Keys<'_>, key: &str) -> Result<Vec<String>> {
    let expected = || keys.refuse(key, "a list of names");
    match keys.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(expected)).collect()
        }
        Some(_) => Err(expected()),
    }
}

/// Numbers by pattern, in the file's order, in which peft tries them.
fn by_pattern<T>(keys: &Keys<'_>, key: &str, number: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>> {
    let expected = || keys.refuse(key, "an object of numbers by pattern");
    match keys.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Object(all)) => {
            let pair = |(pattern, value): (&String, &Value)| Ok((pattern.clone(), number(value).ok_or_else(expected)?));
            all.iter().map(pair).collect()
        }
        Some(_) => Err(expected()),
    }
}

fn layers(keys: &Keys<'_>) -> Result<Vec<i64>> {
    const KEY: &str = "layers_to_transform";
    let expected = || keys.refuse(KEY, "numbers of layers");
    match keys.get(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(|layer| layer.as_i64().ok_or_else(expected)).collect(),
        Some(one) => Ok(vec![one.as_i64().ok_or_else(expected)?]),
    }
}

impl LoraConfig {
    /// Reads peft's settings; a setting that changes the numbers and is not computed is an error.
    pub(super) fn from_json(text: &str, path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_str(text).map_err(|source| not_json(text, path, source))?;
        let keys = Keys::new(&map, path, "");
        if keys.text("peft_type")? != Some("LORA") {
            return Err(keys.refuse("peft_type", "`LORA`"));
        }
        // Decided by the class of each layer, as in peft, which sets it right with a warning.
        keys.flag("fan_in_fan_out", false)?;
        check_initial_values(&keys)?;
        for (key, expected) in UNSUPPORTED {
            if keys.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(keys.refuse(key, expected));
            }
        }
        let parameters = texts(&keys, "target_parameters")?;
        let expected = || keys.refuse("target_modules", "`all-linear`, a list of names, or a regular expression");
        let targets = match keys.get("target_modules") {
            Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => LoraTargets::AllLinear,
            Some(Value::String(pattern)) => LoraTargets::Pattern(pattern.clone()),
            Some(Value::Array(_)) => LoraTargets::Named(texts(&keys, "target_modules")?),
            None if !parameters.is_empty() => LoraTargets::Named(Vec::new()),
            _ => return Err(expected()),
        };
        let exclude = match keys.get("exclude_modules") {
            Some(Value::String(pattern)) => ModuleNames::Pattern(pattern.clone()),
            _ => ModuleNames::Named(texts(&keys, "exclude_modules")?),
        };
        let layers_pattern = match keys.get("layers_pattern") {
            Some(Value::String(list)) if list.is_empty() => Vec::new(),
            Some(Value::String(list)) => vec![list.clone()],
            _ => texts(&keys, "layers_pattern")?,
        };
        let task = match keys.text("task_type")? {
            None | Some("CAUSAL_LM") => LoraTask::CausalLm,
            Some("SEQ_CLS") => LoraTask::SeqCls,
            Some(_) => return Err(keys.refuse("task_type", "`CAUSAL_LM` or `SEQ_CLS`")),
        };
        let config = Self {
            rank: keys.needed_count("r")?,
            alpha: keys.needed_positive("lora_alpha")?,
            dropout: match keys.get("lora_dropout") {
                None => 0.0,
                Some(share) => share.as_f64().ok_or_else(|| keys.refuse("lora_dropout", "a number"))?,
            },
            targets,
            parameters,
            exclude,
            rank_pattern: by_pattern(&keys, "rank_pattern", Value::as_i64)?,
            alpha_pattern: by_pattern(&keys, "alpha_pattern", Value::as_f64)?,
            layers: layers(&keys)?,
            layers_pattern,
            modules_to_save: texts(&keys, "modules_to_save")?,
            bias: match keys.text("bias")? {
                None | Some("none") => LoraBias::None,
                Some("all") => LoraBias::All,
                Some("lora_only") => LoraBias::Only,
                Some(_) => return Err(keys.refuse("bias", "`none`, `all` or `lora_only`")),
            },
            rslora: keys.flag("use_rslora", false)?,
            dora: keys.flag("use_dora", false)?,
            tie: keys.flag("ensure_weight_tying", false)?,
            task,
            vocab_size: None,
        };
        if let Some((key, pattern, reason)) = config.pattern_problem() {
            let expected = format!("regular expressions that can be followed, or names: `{pattern}` has {reason}");
            return Err(keys.refuse(key, &expected));
        }
        config.check()?;
        Ok(config)
    }

    /// Settings as peft writes them; `base` is where peft loads the model from.
    pub(crate) fn to_json(&self, model: &ModelConfig, base: Option<&str>) -> Value {
        // The other parts of a multimodal model have modules of these names too, so those of the text are named in full.
        let in_full = model.multimodal.is_some().then(|| self.parts(model).ok()).flatten();
        let targets = match (&in_full, &self.targets) {
            (Some(parts), _) => parts.targets.iter().map(|target| target.module.as_str()).collect(),
            (None, LoraTargets::Named(names)) => json!(names),
            // peft writes `all-linear` out, in the order of a set.
            (None, LoraTargets::AllLinear) => json!(model.projection_names()),
            (None, LoraTargets::Pattern(pattern)) => json!(pattern),
        };
        let layers = if in_full.is_some() { &[] } else { self.layers.as_slice() };
        let exclude = match &self.exclude {
            ModuleNames::Named(names) if names.is_empty() => Value::Null,
            ModuleNames::Named(names) => json!(names),
            ModuleNames::Pattern(pattern) => json!(pattern),
        };
        let saved: Vec<&str> = match &in_full {
            Some(parts) => parts.whole.iter().map(String::as_str).collect(),
            None => self.saved_names().collect(),
        };
        let list = |is_empty: bool, value: Value| if is_empty { Value::Null } else { value };
        let numbers = |all: Vec<(String, Value)>| Value::Object(all.into_iter().collect());
        json!({
            "peft_type": "LORA",
            "task_type": if self.is_reward() { "SEQ_CLS" } else { "CAUSAL_LM" },
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "target_parameters": list(self.parameters.is_empty(), json!(self.parameters)),
            "exclude_modules": exclude,
            "rank_pattern": numbers(self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank))).collect()),
            "alpha_pattern": numbers(self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), json!(alpha))).collect()),
            "layers_to_transform": list(layers.is_empty(), json!(layers)),
            "layers_pattern": list(layers.is_empty() || self.layers_pattern.is_empty(), json!(self.layers_pattern)),
            "modules_to_save": list(saved.is_empty(), json!(saved)),
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "bias": self.bias.word(),
            "ensure_weight_tying": self.tie,
            "fan_in_fan_out": model.turned_linear,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }
}
