//! Settings out of the YAML file of TRL's command line: `trl dpo --config dpo.yaml`.
//!
//! Where TRL and transformers differ from version to version, TRL 1.16 with transformers 5 is followed.

use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_settings::nearest;

use crate::config::Objective;
use crate::error::{Error, Result};

/// A key of TRL and the setting of the same meaning.
const SAME: &[(&str, &str)] = &[
    ("model_name_or_path", "model"),
    ("dataset_name", "train"),
    ("output_dir", "output"),
    ("num_train_epochs", "epochs"),
    ("beta", "loss.beta"),
    ("label_smoothing", "loss.label_smoothing"),
    ("ld_alpha", "loss.ld_alpha"),
    ("center_rewards_coefficient", "loss.center_rewards"),
    ("max_grad_norm", "optimizer.max_grad_norm"),
    ("weight_decay", "optimizer.weight_decay"),
    ("adam_beta1", "optimizer.beta1"),
    ("adam_beta2", "optimizer.beta2"),
    ("adam_epsilon", "optimizer.epsilon"),
    ("gradient_checkpointing", "memory.activation_checkpointing"),
    ("save_total_limit", "checkpoint.keep"),
];

type Read = fn(&TrlFile, &mut Translation) -> Result<()>;

/// Keys of TRL that are read together, with the function that reads them.
const TOGETHER: &[(&[&str], Read)] = &[
    (&["loss_type", "loss_weights", "use_weighting"], TrlFile::loss),
    (&["f_divergence_type", "f_alpha_divergence_coef"], TrlFile::divergence),
    (&["learning_rate"], TrlFile::learning_rate),
    (&["max_length", "truncation_mode"], TrlFile::truncation),
    (&["optim", "disable_dropout", "deepspeed", "fsdp", "fsdp_config"], TrlFile::unfollowed),
    (&["dataset_train_split", "dataset_test_split"], TrlFile::splits),
    (&["per_device_train_batch_size", "gradient_accumulation_steps"], TrlFile::batch_size),
    (&["lr_scheduler_type"], TrlFile::schedule),
    (&["max_steps", "warmup_ratio", "warmup_steps"], TrlFile::length_and_warmup),
    (&["seed", "data_seed", "train_sampling_strategy"], TrlFile::order),
    (&["eval_strategy", "eval_steps", "save_strategy", "save_steps", "logging_steps"], TrlFile::intervals),
    (&["load_best_model_at_end", "metric_for_best_model", "greater_is_better"], TrlFile::best_checkpoint),
    (
        &["sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha", "precompute_ref_log_probs"],
        TrlFile::moving_reference,
    ),
    (ADAPTER, TrlFile::adapter),
    (&["bf16", "dtype"], TrlFile::dtype),
];

/// Keys of an adapter, which count only with `use_peft`.
const ADAPTER: &[&str] = &[
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_modules_to_save",
    "lora_task_type",
    "use_rslora",
    "use_dora",
];

/// Keys that cannot change a number of the result: where and how often TRL writes, how it loads, and how it computes the same
/// sums.
const IGNORED: &[&str] = &[
    "report_to",
    "logging_strategy",
    "logging_dir",
    "logging_first_step",
    "log_level",
    "run_name",
    "disable_tqdm",
    "push_to_hub",
    "hub_model_id",
    "hub_token",
    "hub_strategy",
    "overwrite_output_dir",
    "do_train",
    "do_eval",
    "attn_implementation",
    "trust_remote_code",
    "tf32",
    "use_liger_kernel",
    "padding_free",
    "gradient_checkpointing_kwargs",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataset_num_proc",
    "ddp_find_unused_parameters",
    "ddp_timeout",
    "per_device_eval_batch_size",
    "remove_unused_columns",
    "precompute_ref_batch_size",
    "pad_to_multiple_of",
    "torch_compile",
    "use_cpu",
];

/// Reads settings as a TOML table, with TRL's defaults for the objective where they differ from ours, and the keys that are
/// ignored because they cannot change a result.
///
/// # Errors
/// [`Error::Config`] naming an unknown key, with the nearest known one, or a value that cannot be followed.
pub fn from_trl(text: &str, path: &Path, objective: Objective) -> Result<(toml::Table, Vec<String>)> {
    let keys = serde_saphyr::from_str(text)
        .map_err(|error| Error::Config { path: path.to_owned(), message: error.to_string() })?;
    let file = TrlFile { path: path.to_owned(), keys, objective };
    let mut translation = Translation::default();
    translation.set("epochs", 3.0);
    for (key, value) in file.keys.iter().filter(|(_, value)| !value.is_null()) {
        let is_read_elsewhere = TOGETHER.iter().any(|(keys, _)| keys.contains(&key.as_str()));
        if let Some((_, path)) = SAME.iter().find(|(known, _)| known == key) {
            let value = toml::Value::try_from(value).map_err(|error| file.refuse(format!("`{key}`: {error}")))?;
            translation.set(path, value);
        } else if IGNORED.contains(&key.as_str()) {
            translation.ignored.push(key.clone());
        } else if !is_read_elsewhere {
            return Err(file.unknown(key));
        }
    }
    for (_, read) in TOGETHER {
        read(&file, &mut translation)?;
    }
    Ok((translation.settings, translation.ignored))
}

/// Settings out of a file of TRL.
#[derive(Default)]
struct Translation {
    settings: toml::Table,
    ignored: Vec<String>,
}

impl Translation {
    /// Sets a setting by its path.
    fn set(&mut self, path: &str, value: impl Into<toml::Value>) {
        let Some((section, key)) = path.split_once('.') else {
            self.settings.insert(path.to_owned(), value.into());
            return;
        };
        let inner = toml::Table::from_iter([(key.to_owned(), value.into())]);
        simplemix_settings::merge(&mut self.settings, toml::Table::from_iter([(section.to_owned(), inner.into())]));
    }
}

/// A file of TRL.
struct TrlFile {
    path: PathBuf,
    keys: serde_json::Map<String, Value>,
    objective: Objective,
}

impl TrlFile {
    fn loss(&self, to: &mut Translation) -> Result<()> {
        match self.get("loss_type") {
            Some(Value::String(name)) => to.set("loss.name", name.as_str()),
            Some(Value::Array(names)) => {
                let names = names.iter().map(|name| name.as_str().map(toml::Value::from)).collect::<Option<Vec<_>>>();
                let names = names.ok_or_else(|| self.value("loss_type", "a name, or a list of names"))?;
                match names.as_slice() {
                    [name] => to.set("loss.name", name.clone()),
                    _ => to.set("loss.name", names),
                }
            }
            Some(_) => return Err(self.value("loss_type", "a name, or a list of names")),
            None => {}
        }
        if let Some(weights) = self.get("loss_weights") {
            let weights =
                toml::Value::try_from(weights).map_err(|_| self.value("loss_weights", "a list of numbers"))?;
            to.set("loss.weights", weights);
        }
        if self.is("use_weighting") {
            to.set("loss.wpo", "uncapped");
        }
        Ok(())
    }

    fn divergence(&self, to: &mut Translation) -> Result<()> {
        match self.text("f_divergence_type") {
            Some("alpha_divergence") => {
                let alpha = self.number("f_alpha_divergence_coef").unwrap_or(0.5);
                let value = toml::Table::from_iter([("alpha_divergence".to_owned(), alpha.into())]);
                to.set("loss.f_divergence_type", value);
            }
            Some(name) => to.set("loss.f_divergence_type", name),
            None => {}
        }
        Ok(())
    }

    /// Defaults of DPOConfig, SFTConfig and RewardConfig.
    fn learning_rate(&self, to: &mut Translation) -> Result<()> {
        let default = match self.objective {
            Objective::Preference => 1e-6,
            Objective::Sft => 2e-5,
            Objective::Reward => 1e-4,
        };
        to.set("optimizer.learning_rate", self.float("learning_rate", default)?);
        Ok(())
    }

    /// An absent `max_length` is 1024, a null one no limit.
    fn truncation(&self, to: &mut Translation) -> Result<()> {
        let length = match self.keys.get("max_length") {
            Some(Value::Null) => UNLIMITED,
            _ => self.whole("max_length", 1024)?,
        };
        to.set("tokens.max_length", length);
        match self.text("truncation_mode") {
            None | Some("keep_start") => Ok(()),
            Some(_) => Err(self.value("truncation_mode", "keep_start: longer pairs are cut at their end")),
        }
    }

    /// Keys with a value that changes results and has no counterpart here.
    fn unfollowed(&self, _: &mut Translation) -> Result<()> {
        if !matches!(self.text("optim"), None | Some("adamw_torch" | "adamw_torch_fused" | "adamw_apex_fused")) {
            return Err(self.value("optim", "adamw_torch or adamw_torch_fused"));
        }
        if self.get("disable_dropout").and_then(Value::as_bool) == Some(false) {
            return Err(self.value("disable_dropout", "true: a model is trained without dropout of its own"));
        }
        let is_set = |key: &&str| self.get(key).is_some_and(|value| !is_empty(value));
        match ["deepspeed", "fsdp", "fsdp_config"].into_iter().find(is_set) {
            Some(key) => Err(self.value(key, "no such key: one process trains")),
            None => Ok(()),
        }
    }

    /// A file has no splits.
    fn splits(&self, to: &mut Translation) -> Result<()> {
        if !matches!(self.text("dataset_train_split"), None | Some("train")) {
            return Err(self.value("dataset_train_split", "no such key: `dataset_name` is the file of the split"));
        }
        match self.get("dataset_test_split") {
            Some(_) if self.evaluates() => {
                Err(self.value("dataset_test_split", "no such key: --eval names the file of held-out pairs"))
            }
            Some(_) => {
                to.ignored.push("dataset_test_split".to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn evaluates(&self) -> bool {
        matches!(self.text("eval_strategy"), Some("steps" | "epoch"))
    }

    fn batch_size(&self, to: &mut Translation) -> Result<()> {
        let pairs = self.whole("per_device_train_batch_size", 8)? * self.whole("gradient_accumulation_steps", 1)?;
        to.set("batch.batch_size", pairs);
        Ok(())
    }

    fn schedule(&self, to: &mut Translation) -> Result<()> {
        let name = match self.get("lr_scheduler_type").map(Value::as_str) {
            None => return Ok(()),
            Some(Some(name @ ("linear" | "cosine" | "constant"))) => name,
            Some(Some("constant_with_warmup")) => "constant",
            Some(_) => {
                let expected = "linear, cosine, constant or constant_with_warmup";
                return Err(self.value("lr_scheduler_type", expected));
            }
        };
        to.set("optimizer.schedule", name);
        Ok(())
    }

    /// transformers 5: `warmup_ratio` takes the place of `warmup_steps`, and steps below 1 are a share.
    fn length_and_warmup(&self, to: &mut Translation) -> Result<()> {
        let max_steps = self.whole("max_steps", -1)?;
        if max_steps > 0 {
            to.set("max_steps", max_steps);
        }
        let key = if self.get("warmup_ratio").is_some() { "warmup_ratio" } else { "warmup_steps" };
        let warmup = self.number(key).unwrap_or(0.0);
        if warmup >= 1.0 && max_steps <= 0 {
            return Err(self.value(key, "`max_steps` with it, or a share below 1"));
        }
        let ratio = if warmup < 1.0 { warmup } else { share(warmup, max_steps as f64) };
        to.set("optimizer.warmup_ratio", ratio);
        Ok(())
    }

    fn order(&self, to: &mut Translation) -> Result<()> {
        to.set("seed", self.whole("data_seed", self.whole("seed", 42)?)?);
        let is_sequential = self.text("train_sampling_strategy") == Some("sequential");
        to.set("batch.shuffle", if is_sequential { "none" } else { "trl" });
        Ok(())
    }

    /// transformers evaluates only if `eval_strategy` says when; `steps` without `eval_steps` is as often as it logs.
    fn intervals(&self, to: &mut Translation) -> Result<()> {
        let logging = self.whole("logging_steps", 500)?;
        if self.get("logging_steps").is_some() {
            to.ignored.push("logging_steps".to_owned());
        }
        let evaluation = ["eval_strategy", "eval_steps"];
        let paths = ["eval.eval_every_steps", "eval.eval_every_epoch"];
        let is_timed = self.interval(evaluation, self.whole("eval_steps", logging)?, paths, to)?;
        // Without the key, pairs that --eval names are evaluated at the end.
        if self.get("eval_strategy").is_some() {
            to.set("eval.eval_at_end", is_timed);
        }
        let saving = ["save_strategy", "save_steps"];
        let paths = ["checkpoint.save_every_steps", "checkpoint.save_every_epoch"];
        // How often it saves changes no result, so the default of 500 steps is left aside.
        if self.get("save_strategy").is_some() || self.get("save_steps").is_some() {
            self.interval(saving, self.whole("save_steps", 500)?, paths, to)?;
        }
        Ok(())
    }

    /// Translates a strategy; returns whether it is `steps` or `epoch`.
    fn interval(
        &self,
        [strategy, steps]: [&str; 2],
        every: i64,
        [steps_path, epoch_path]: [&str; 2],
        to: &mut Translation,
    ) -> Result<bool> {
        let default = if strategy == "save_strategy" { "steps" } else { "no" };
        let text = match self.get(strategy) {
            None => default,
            Some(Value::Bool(false)) => "no",
            Some(value) => value.as_str().unwrap_or_default(),
        };
        match text {
            "steps" => to.set(steps_path, every),
            "epoch" => to.set(epoch_path, true),
            "no" => {}
            _ => return Err(self.value(strategy, "no, steps or epoch")),
        }
        if text != "steps" && self.get(steps).is_some() {
            to.ignored.push(steps.to_owned());
        }
        Ok(text != "no")
    }

    /// The metric has an effect on the result only if the best checkpoint is loaded at the end.
    fn best_checkpoint(&self, to: &mut Translation) -> Result<()> {
        if !self.is("load_best_model_at_end") {
            let unused =
                ["metric_for_best_model", "greater_is_better"].into_iter().filter(|key| self.get(key).is_some());
            to.ignored.extend(unused.map(str::to_owned));
            return Ok(());
        }
        let metric = self.text("metric_for_best_model").unwrap_or("loss");
        let is_greater = !metric.ends_with("loss");
        if self.get("greater_is_better").and_then(Value::as_bool).is_some_and(|greater| greater != is_greater) {
            return Err(self.value("greater_is_better", &format!("{is_greater} for `{metric}`")));
        }
        to.set("eval.best_metric", format!("eval_{}", metric.strip_prefix("eval_").unwrap_or(metric)));
        Ok(())
    }

    fn moving_reference(&self, to: &mut Translation) -> Result<()> {
        if self.is("sync_ref_model") {
            to.set("reference.source", "on-the-fly");
            to.set("reference.sync_every", self.whole("ref_model_sync_steps", 512)?);
            to.set("reference.sync_mixup", self.number("ref_model_mixup_alpha").unwrap_or(0.6));
        }
        Ok(())
    }

    /// Defaults of TRL's ModelConfig; without names of layers, peft chooses them by the model's type.
    fn adapter(&self, to: &mut Translation) -> Result<()> {
        if !self.is("use_peft") {
            let unused = ADAPTER.iter().filter(|key| **key != "use_peft" && self.get(key).is_some());
            to.ignored.extend(unused.map(|&key| key.to_owned()));
            return Ok(());
        }
        to.set("lora.rank", self.whole("lora_r", 16)?);
        to.set("lora.alpha", self.float("lora_alpha", 32.0)?);
        to.set("lora.dropout", self.float("lora_dropout", 0.05)?);
        to.set("lora.rslora", self.is("use_rslora"));
        to.set("lora.dora", self.is("use_dora"));
        to.set("lora.modules_to_save", self.texts("lora_modules_to_save")?.unwrap_or_default());
        if self.get("lora_target_parameters").is_some_and(|value| !is_empty(value)) {
            return Err(
                self.value("lora_target_parameters", "no such key: name linear layers in `lora_target_modules`")
            );
        }
        // Without the score a reward model learns to please one that was drawn at random.
        let task = if self.objective == Objective::Reward { "SEQ_CLS" } else { "CAUSAL_LM" };
        if self.text("lora_task_type").unwrap_or("CAUSAL_LM") != task {
            return Err(self.value("lora_task_type", &format!("{task} for this objective")));
        }
        let targets = match self.get("lora_target_modules") {
            None => vec!["peft-default".to_owned()],
            Some(Value::String(pattern)) => vec![pattern.clone()],
            Some(_) => self.texts("lora_target_modules")?.unwrap_or_default(),
        };
        match targets.as_slice() {
            [all] if all.eq_ignore_ascii_case("all-linear") => to.set("lora.targets", Vec::<String>::new()),
            // TRL gives peft a list of one as a text, which is a regular expression.
            [pattern] if pattern != "peft-default" => to.set("lora.target_pattern", pattern.as_str()),
            _ => to.set("lora.targets", targets),
        }
        Ok(())
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let wrong = || self.value(key, "a list of names");
        let Some(value) = self.get(key) else { return Ok(None) };
        let names = value.as_array().ok_or_else(wrong)?.iter();
        names.map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_>>().map(Some)
    }

    fn dtype(&self, to: &mut Translation) -> Result<()> {
        match self.text("dtype").filter(|kind| *kind != "auto") {
            Some(kind @ ("float32" | "bfloat16")) => to.set("dtype", kind),
            Some(_) => return Err(self.value("dtype", "float32 or bfloat16")),
            None if self.get("bf16").and_then(Value::as_bool) == Some(false) => to.set("dtype", "float32"),
            None => {}
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64)
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        // YAML 1.1 reads `1e-6` as a text, and so does TRL before it makes a number of it.
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        self.get(key).map_or(Ok(default), |value| number(value).ok_or_else(|| self.value(key, "a number")))
    }

    fn is(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn whole(&self, key: &str, default: i64) -> Result<i64> {
        self.get(key).map_or(Ok(default), |value| value.as_i64().ok_or_else(|| self.value(key, "a whole number")))
    }

    fn refuse(&self, message: String) -> Error {
        Error::Config { path: self.path.clone(), message }
    }

    fn value(&self, key: &str, expected: &str) -> Error {
        let found = self.keys.get(key).unwrap_or(&Value::Null);
        self.refuse(format!("`{key}` is {found}, expected {expected}"))
    }

    fn unknown(&self, key: &str) -> Error {
        let known = SAME.iter().map(|(key, _)| *key).chain(TOGETHER.iter().flat_map(|(keys, _)| keys.iter().copied()));
        let known: Vec<&str> = known.chain(IGNORED.iter().copied()).collect();
        let meant = nearest(key, &known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        self.refuse(format!("unknown key `{key}`{meant}"))
    }
}

/// Tokens of a pair that no model has.
const UNLIMITED: i64 = 1 << 40;

/// Whether a value says that there is nothing: an empty text, list or table, or false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(table) => table.is_empty(),
        _ => false,
    }
}

/// The share of `all` updates that rounds up to `warmup` of them.
fn share(warmup: f64, all: f64) -> f64 {
    let share = warmup / all;
    if (share * all).ceil() == warmup { share } else { (warmup - 0.5) / all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shuffle, TrainConfig};
    use crate::schedule::Schedule;
    use simplemix_model::Dtype;
    use simplemix_settings::Settings;

    fn read_for(objective: Objective, text: &str) -> Result<(TrainConfig, Vec<String>)> {
        let (table, ignored) = from_trl(text, Path::new("dpo.yaml"), objective)?;
        Ok((TrainConfig::from_table(table)?, ignored))
    }

    fn read(text: &str) -> Result<(TrainConfig, Vec<String>)> {
        read_for(Objective::Preference, text)
    }

    #[test]
    fn a_file_of_trls_is_followed() {
        let text = "\
            model_name_or_path: ./smollm2\ndataset_name: pairs.parquet\noutput_dir: out\nloss_type: [ipo]\nbeta: 0.05\n\
            learning_rate: 5.0e-7\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nper_device_train_batch_size: 4\n\
            gradient_accumulation_steps: 8\nnum_train_epochs: 1\nweight_decay: 0.01\nbf16: false\nuse_peft: true\nlora_r: 8\n\
            lora_target_modules: [q_proj, v_proj]\nlogging_steps: 10\nreport_to: none\neval_strategy: steps\neval_steps: 50\n";
        let (config, ignored) = read(text).unwrap();
        let (loss, optimizer) = (&config.loss, &config.optimizer);
        assert_eq!((&loss.name, loss.beta, optimizer.learning_rate), (&"ipo".into(), 0.05, 5e-7));
        assert_eq!((optimizer.schedule, optimizer.warmup_ratio), (Schedule::Cosine, 0.1));
        assert_eq!((config.batch.batch_size, config.epochs, optimizer.weight_decay), (32, 1.0, 0.01));
        assert_eq!(
            (config.dtype, config.batch.shuffle, config.eval.eval_every_steps),
            (Dtype::Float32, Shuffle::Trl, 50)
        );
        assert_eq!((config.lora.rank, config.lora.targets.len()), (8, 2));
        assert_eq!(ignored, ["report_to", "logging_steps"]);
    }

    #[test]
    fn an_adapter_has_trls_and_pefts_defaults() {
        let lora = |text: &str| read(text).unwrap().0.lora;
        let default = lora("use_peft: true\n");
        assert_eq!((default.rank, default.alpha, default.dropout), (16, 32.0, 0.05));
        let q_and_v: &[&str] = &["q_proj", "v_proj"];
        for (model_type, expected) in [
            ("llama", Some(q_and_v)),
            ("qwen3", Some(q_and_v)),
            ("gpt2", Some(&["c_attn"])),
            ("gpt_neox", Some(&["query_key_value"])),
            ("phi3", None),
            ("olmo2", None),
            ("granite", None),
        ] {
            let mut lora = default.clone();
            let found = lora.resolve_targets(model_type).ok().map(|()| lora.targets);
            assert_eq!(
                found,
                expected.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
                "{model_type}"
            );
        }
        let error = default.clone().resolve_targets("phi3").unwrap_err().to_string();
        let expected = "`lora.targets` is peft-default, expected names of layers: peft has no default for `phi3`";
        assert_eq!(error, expected);
        let all = lora("use_peft: true\nlora_target_modules: all-linear\nlora_dropout: 0.0\n");
        assert_eq!((all.targets.len(), all.dropout), (0, 0.0));
        let (config, ignored) = read("lora_r: 8\n").unwrap();
        assert_eq!((config.lora.rank, ignored), (0, vec!["lora_r".to_owned()]));
    }

    #[test]
    fn the_learning_rate_is_that_of_the_objective() {
        for (objective, expected) in [(Objective::Preference, 1e-6), (Objective::Sft, 2e-5), (Objective::Reward, 1e-4)]
        {
            assert_eq!(read_for(objective, "seed: 1\n").unwrap().0.optimizer.learning_rate, expected);
            assert_eq!(read_for(objective, "learning_rate: 1e-7\n").unwrap().0.optimizer.learning_rate, 1e-7);
        }
    }

    #[test]
    fn a_length_of_null_is_no_limit() {
        let length = |text: &str| read(text).unwrap().0.tokens.max_length;
        assert_eq!(length("seed: 1\n"), 1024);
        assert_eq!(length("max_length: 512\n"), 512);
        assert_eq!(length("max_length: null\n"), 1 << 40);
    }

    #[test]
    fn evaluations_are_when_transformers_has_them() {
        let eval = |text: &str| {
            let eval = read(text).unwrap().0.eval;
            (eval.eval_every_steps, eval.eval_every_epoch, eval.eval_at_end)
        };
        assert_eq!(eval("seed: 1\n"), (0, false, true));
        for no in ["\"no\"", "no", "false"] {
            assert_eq!(eval(&format!("eval_strategy: {no}\n")), (0, false, false), "{no}");
        }
        assert_eq!(eval("eval_strategy: epoch\n"), (0, true, true));
        assert_eq!(eval("eval_strategy: steps\n"), (500, false, true));
        assert_eq!(eval("eval_strategy: steps\nlogging_steps: 20\n"), (20, false, true));
        assert_eq!(eval("eval_strategy: steps\neval_steps: 5\n"), (5, false, true));
        let (config, ignored) = read("eval_steps: 50\nsave_strategy: epoch\n").unwrap();
        assert_eq!((config.eval.eval_every_steps, ignored), (0, vec!["eval_steps".to_owned()]));
        assert!(config.checkpoint.save_every_epoch);
    }

    #[test]
    fn losses_are_added_up_with_their_weights() {
        let (config, _) = read("loss_type: [sigmoid, sft]\nloss_weights: [1, 0.2]\n").unwrap();
        assert_eq!(config.loss.name.as_slice(), ["sigmoid", "sft"]);
        assert_eq!(config.loss.weights, [1.0, 0.2]);
    }

    /// transformers 5, `TrainingArguments.__post_init__` and `get_warmup_steps`.
    #[test]
    fn warm_up_is_that_of_transformers_5() {
        let warmup = |text: &str| read(text).unwrap().0.loop_settings(800, None).warmup_steps;
        // 800 pairs, three epochs, eight pairs an update: 300 updates.
        assert_eq!(warmup("warmup_steps: 0\nwarmup_ratio: 0.1\n"), 30);
        assert_eq!(warmup("warmup_steps: 0.1\n"), 30);
        assert_eq!(warmup("warmup_steps: 10\nmax_steps: 50\nwarmup_ratio: 0.1\n"), 5);
        for steps in 1..50 {
            assert_eq!(warmup(&format!("warmup_steps: {steps}\nmax_steps: 50\n")), steps);
        }
    }

    #[test]
    fn the_best_checkpoint_becomes_the_result_only_if_it_is_loaded() {
        let (config, ignored) = read("metric_for_best_model: loss\nload_best_model_at_end: false\n").unwrap();
        assert_eq!((config.eval.best_metric, ignored), (None, vec!["metric_for_best_model".to_owned()]));
        let best = |text: &str| read(text).unwrap().0.eval.best_metric.unwrap();
        assert_eq!(best("load_best_model_at_end: true\n"), "eval_loss");
        let accuracy = "load_best_model_at_end: true\nmetric_for_best_model: eval_rewards/accuracies\n";
        assert_eq!(best(accuracy), "eval_rewards/accuracies");
        let error = read("load_best_model_at_end: true\ngreater_is_better: true\n").unwrap_err().to_string();
        assert_eq!(error, "dpo.yaml: `greater_is_better` is true, expected false for `loss`");
    }

    #[test]
    fn trls_defaults_are_trls() {
        let (config, _) = read("beta: 0.1\n").unwrap();
        assert_eq!((config.batch.batch_size, config.epochs, config.seed), (8, 3.0, 42));
        assert_eq!((config.batch.shuffle, config.tokens.max_length), (Shuffle::Trl, 1024));
        assert_eq!(config.optimizer.learning_rate, 1e-6);
    }

    /// TRL 1.16, `ModelConfig` and `get_peft_config`: a list of one becomes a text, which peft takes for a regular expression.
    #[test]
    fn an_adapter_is_that_of_trl() {
        let lora = |text: &str| read(&format!("use_peft: true\n{text}")).unwrap().0.lora;
        let plain = lora("");
        assert_eq!(
            (plain.rank, plain.alpha, plain.dropout, plain.targets),
            (16, 32.0, 0.05, vec!["peft-default".to_owned()])
        );
        assert_eq!(lora("lora_target_modules: [q_proj, v_proj]").targets, ["q_proj", "v_proj"]);
        assert_eq!(lora("lora_target_modules: ['.*_proj']").target_pattern.as_deref(), Some(".*_proj"));
        assert_eq!(lora("lora_target_modules: '.*_proj'").target_pattern.as_deref(), Some(".*_proj"));
        for all in ["all-linear", "[all-linear]"] {
            let lora = lora(&format!("lora_target_modules: {all}"));
            assert_eq!((lora.targets.len(), lora.target_pattern), (0, None), "{all}");
        }
        let saved =
            lora("lora_modules_to_save: [lm_head]\nuse_dora: true\nuse_rslora: true\nlora_task_type: CAUSAL_LM");
        assert_eq!((saved.modules_to_save, saved.dora, saved.rslora), (vec!["lm_head".to_owned()], true, true));
        let reward = |text: &str| read_for(Objective::Reward, &format!("use_peft: true\n{text}"));
        assert_eq!(reward("lora_task_type: SEQ_CLS").unwrap().0.lora.rank, 16);
        let error = reward("").unwrap_err().to_string();
        assert_eq!(error, "dpo.yaml: `lora_task_type` is null, expected SEQ_CLS for this objective");
        let (config, ignored) = read("use_dora: true\nlora_r: 4").unwrap();
        assert_eq!((config.lora.rank, ignored), (0, vec!["lora_r".to_owned(), "use_dora".to_owned()]));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (text, expected) in [
            (
                "use_peft: true\nlora_target_parameters: [experts.down_proj]\n",
                "dpo.yaml: `lora_target_parameters` is [\"experts.down_proj\"], expected no such key: name linear layers in \
                 `lora_target_modules`",
            ),
            (
                "use_peft: true\nlora_task_type: SEQ_CLS\n",
                "dpo.yaml: `lora_task_type` is \"SEQ_CLS\", expected CAUSAL_LM for this objective",
            ),
            ("betta: 0.1\n", "dpo.yaml: unknown key `betta`; did you mean `beta`?"),
            ("loss_type: [1]\n", "dpo.yaml: `loss_type` is [1], expected a name, or a list of names"),
            ("warmup_steps: 10\n", "dpo.yaml: `warmup_steps` is 10, expected `max_steps` with it, or a share below 1"),
            ("optim: adafactor\n", "dpo.yaml: `optim` is \"adafactor\", expected adamw_torch or adamw_torch_fused"),
            (
                "truncation_mode: keep_end\n",
                "dpo.yaml: `truncation_mode` is \"keep_end\", expected keep_start: longer pairs are cut at their end",
            ),
            (
                "disable_dropout: false\n",
                "dpo.yaml: `disable_dropout` is false, expected true: a model is trained without dropout of its own",
            ),
            ("deepspeed: ds.json\n", "dpo.yaml: `deepspeed` is \"ds.json\", expected no such key: one process trains"),
            (
                "eval_strategy: steps\ndataset_test_split: test\n",
                "dpo.yaml: `dataset_test_split` is \"test\", expected no such key: --eval names the file of held-out pairs",
            ),
            ("eval_strategy: often\n", "dpo.yaml: `eval_strategy` is \"often\", expected no, steps or epoch"),
            ("max_steps: ten\n", "dpo.yaml: `max_steps` is \"ten\", expected a whole number"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
    }
}
