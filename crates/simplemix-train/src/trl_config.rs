//! Settings out of the YAML file of TRL's command line: `trl dpo --config dpo.yaml`.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// What a key of TRL's becomes.
enum Meaning {
    /// A setting of the same meaning, under another name perhaps.
    Is(&'static str),
    /// A setting in the optimiser's table.
    Optimizer(&'static str),
    /// Something that [`from_trl`] works out from several keys.
    Together,
}

use Meaning::{Is, Optimizer, Together};

const KEYS: &[(&str, Meaning)] = &[
    ("model_name_or_path", Is("model")),
    ("dataset_name", Is("train")),
    ("output_dir", Is("output")),
    ("beta", Is("beta")),
    ("label_smoothing", Is("label_smoothing")),
    ("ld_alpha", Is("ld_alpha")),
    ("learning_rate", Is("learning_rate")),
    ("num_train_epochs", Is("epochs")),
    ("max_grad_norm", Is("max_grad_norm")),
    ("max_length", Is("max_length")),
    ("gradient_checkpointing", Is("activation_checkpointing")),
    ("save_total_limit", Is("keep_checkpoints")),
    ("metric_for_best_model", Is("best_metric")),
    ("center_rewards_coefficient", Is("center_rewards")),
    ("lora_alpha", Is("lora_alpha")),
    ("lora_dropout", Is("lora_dropout")),
    ("use_rslora", Is("lora_rslora")),
    ("weight_decay", Optimizer("weight_decay")),
    ("adam_beta1", Optimizer("beta1")),
    ("adam_beta2", Optimizer("beta2")),
    ("adam_epsilon", Optimizer("epsilon")),
    ("loss_type", Together),
    ("use_weighting", Together),
    ("f_divergence_type", Together),
    ("f_alpha_divergence_coef", Together),
    ("per_device_train_batch_size", Together),
    ("gradient_accumulation_steps", Together),
    ("lr_scheduler_type", Together),
    ("warmup_ratio", Together),
    ("warmup_steps", Together),
    ("max_steps", Together),
    ("seed", Together),
    ("data_seed", Together),
    ("train_sampling_strategy", Together),
    ("eval_strategy", Together),
    ("eval_steps", Together),
    ("save_strategy", Together),
    ("save_steps", Together),
    ("sync_ref_model", Together),
    ("ref_model_sync_steps", Together),
    ("ref_model_mixup_alpha", Together),
    ("precompute_ref_log_probs", Together),
    ("use_peft", Together),
    ("lora_r", Together),
    ("lora_target_modules", Together),
    ("bf16", Together),
    ("dtype", Together),
];

/// Keys that say how, where or how often TRL does something that is done otherwise here, or always.
const WITHOUT_MEANING: &[&str] = &[
    "report_to",
    "logging_steps",
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
    "optim",
    "use_liger_kernel",
    "padding_free",
    "gradient_checkpointing_kwargs",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataset_num_proc",
    "dataset_train_split",
    "dataset_test_split",
    "ddp_find_unused_parameters",
    "ddp_timeout",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "per_device_eval_batch_size",
    "remove_unused_columns",
    "load_best_model_at_end",
    "precompute_ref_batch_size",
    "disable_dropout",
    "pad_to_multiple_of",
    "torch_compile",
    "use_cpu",
    "truncation_mode",
];

/// Settings as a TOML table, with TRL's defaults where they differ from ours, and the keys that have no meaning here.
///
/// # Errors
/// [`Error::Config`] naming a key that is not known, with the nearest that is, or a value that cannot be followed.
pub fn from_trl(text: &str, path: &Path) -> Result<(toml::Table, Vec<String>)> {
    let wrong = |message: String| Error::Config { path: path.to_owned(), message };
    let all: serde_json::Map<String, Value> = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let (mut table, mut adamw, mut unused) = (toml::Table::new(), toml::Table::new(), Vec::new());
    for (key, value) in all.iter().filter(|(_, value)| !value.is_null()) {
        let toml = || toml::Value::try_from(value).map_err(|error| wrong(format!("`{key}`: {error}")));
        match KEYS.iter().find(|(known, _)| known == key) {
            Some((_, Is(name))) => drop(table.insert((*name).to_owned(), toml()?)),
            Some((_, Optimizer(name))) => drop(adamw.insert((*name).to_owned(), toml()?)),
            Some((_, Together)) => {}
            None if WITHOUT_MEANING.contains(&key.as_str()) => unused.push(key.clone()),
            None => {
                let names: Vec<&str> =
                    KEYS.iter().map(|(name, _)| *name).chain(WITHOUT_MEANING.iter().copied()).collect();
                let meant = nearest(key, &names).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                return Err(wrong(format!("`{key}` is no key of TRL's that is known here{meant}")));
            }
        }
    }
    let get = |key: &str| all.get(key).filter(|value| !value.is_null());
    let whole = |key: &str, default: i64| match get(key) {
        None => Ok(default),
        Some(value) => value.as_i64().ok_or_else(|| wrong(format!("`{key}` is {value}, expected a whole number"))),
    };
    let is = |key: &str| get(key).and_then(Value::as_bool).unwrap_or(false);
    let mut set = |key: &str, value: toml::Value| drop(table.insert(key.to_owned(), value));

    match get("loss_type") {
        Some(Value::Array(losses)) if losses.len() != 1 => {
            return Err(wrong(format!("`loss_type` has {} losses, expected one", losses.len())));
        }
        Some(loss) => {
            let name = loss.as_str().or_else(|| loss[0].as_str());
            set("loss", name.ok_or_else(|| wrong(format!("`loss_type` is {loss}, expected a name")))?.into());
        }
        None => {}
    }
    if is("use_weighting") {
        set("wpo", "uncapped".into());
    }
    match get("f_divergence_type").and_then(Value::as_str) {
        Some("alpha_divergence") => {
            let alpha = get("f_alpha_divergence_coef").and_then(Value::as_f64).unwrap_or(0.5);
            set("f_divergence_type", toml::Table::from_iter([("alpha_divergence".to_owned(), alpha.into())]).into());
        }
        Some(name) => set("f_divergence_type", name.into()),
        None => {}
    }
    set("batch_size", (whole("per_device_train_batch_size", 8)? * whole("gradient_accumulation_steps", 1)?).into());
    match get("lr_scheduler_type").map(|value| (value, value.as_str())) {
        None => {}
        Some((_, Some(name @ ("linear" | "cosine" | "constant")))) => set("schedule", name.into()),
        Some((_, Some("constant_with_warmup"))) => set("schedule", "constant".into()),
        Some((value, _)) => {
            return Err(wrong(format!(
                "`lr_scheduler_type` is {value}, expected linear, cosine, constant or constant_with_warmup"
            )));
        }
    }
    let max_steps = whole("max_steps", -1)?;
    if max_steps > 0 {
        set("max_steps", max_steps.into());
    }
    let warmup = get("warmup_steps").or_else(|| get("warmup_ratio")).and_then(Value::as_f64).unwrap_or(0.0);
    match warmup {
        share if share < 1.0 => set("warmup_ratio", share.into()),
        steps if max_steps > 0 => set("warmup_ratio", (steps / max_steps as f64).into()),
        steps => {
            return Err(wrong(format!("`warmup_steps` is {steps}, expected `max_steps` with it, or a share below 1")));
        }
    }
    set("seed", whole("data_seed", whole("seed", 42)?)?.into());
    let sequential = get("train_sampling_strategy").and_then(Value::as_str) == Some("sequential");
    set("shuffle", if sequential { "none" } else { "trl" }.into());
    for (strategy, steps, key) in
        [("eval_strategy", "eval_steps", "eval_every_steps"), ("save_strategy", "save_steps", "save_every_steps")]
    {
        let asked = get(strategy).and_then(Value::as_str) == Some("steps") || get(steps).is_some();
        if asked {
            set(key, whole(steps, 500)?.into());
        }
    }
    if is("sync_ref_model") {
        set("reference", "on_the_fly".into());
        set("sync_reference_every", whole("ref_model_sync_steps", 512)?.into());
        let mixup = get("ref_model_mixup_alpha").and_then(Value::as_f64).unwrap_or(0.6);
        set("sync_reference_mixup", mixup.into());
    }
    if is("use_peft") {
        set("lora_rank", whole("lora_r", 16)?.into());
        match get("lora_target_modules") {
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "all-linear");
                set("lora_targets", names.map(toml::Value::from).collect::<Vec<_>>().into());
            }
            Some(Value::String(name)) if name != "all-linear" => set("lora_targets", vec![name.clone()].into()),
            _ => {}
        }
    }
    let kind = get("dtype").and_then(Value::as_str).filter(|kind| *kind != "auto");
    match kind {
        Some(kind @ ("float32" | "bfloat16")) => set("dtype", kind.into()),
        Some(kind) => return Err(wrong(format!("`dtype` is {kind}, expected float32 or bfloat16"))),
        None if get("bf16").and_then(Value::as_bool) == Some(false) => set("dtype", "float32".into()),
        None => {}
    }
    table.entry("epochs").or_insert(toml::Value::Float(3.0));
    if let Some(epochs) = table.get("epochs").and_then(toml::Value::as_integer) {
        table.insert("epochs".to_owned(), (epochs as f64).into());
    }
    if !adamw.is_empty() {
        table.insert("adamw".to_owned(), adamw.into());
    }
    Ok((table, unused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dtype, Shuffle, TrainConfig};
    use crate::schedule::Schedule;

    fn read(text: &str) -> Result<(TrainConfig, Vec<String>)> {
        let (table, unused) = from_trl(text, Path::new("dpo.yaml"))?;
        Ok((TrainConfig::from_toml(&table.to_string(), Path::new("dpo.yaml"))?, unused))
    }

    #[test]
    fn a_file_of_trls_is_followed() {
        let text = "\
            model_name_or_path: ./smollm2\ndataset_name: pairs.parquet\noutput_dir: out\nloss_type: [ipo]\nbeta: 0.05\n\
            learning_rate: 5.0e-7\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nper_device_train_batch_size: 4\n\
            gradient_accumulation_steps: 8\nnum_train_epochs: 1\nweight_decay: 0.01\nbf16: false\nuse_peft: true\nlora_r: 8\n\
            lora_target_modules: [q_proj, v_proj]\nlogging_steps: 10\nreport_to: none\neval_strategy: steps\neval_steps: 50\n";
        let (config, unused) = read(text).unwrap();
        assert_eq!((config.loss.as_str(), config.beta, config.learning_rate), ("ipo", 0.05, 5e-7));
        assert_eq!((config.schedule, config.warmup_ratio), (Schedule::Cosine, 0.1));
        assert_eq!((config.batch_size, config.epochs, config.adamw.weight_decay), (32, 1.0, 0.01));
        assert_eq!((config.dtype, config.shuffle, config.eval_every_steps), (Dtype::Float32, Shuffle::Trl, 50));
        assert_eq!((config.lora_rank, config.lora_targets.len()), (8, 2));
        assert_eq!(unused, ["logging_steps", "report_to"]);
    }

    #[test]
    fn trls_defaults_are_trls() {
        let (config, _) = read("beta: 0.1\n").unwrap();
        assert_eq!((config.batch_size, config.epochs, config.seed), (8, 3.0, 42));
        assert_eq!((config.shuffle, config.max_length, config.learning_rate), (Shuffle::Trl, 1024, 1e-6));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (text, expected) in [
            ("betta: 0.1\n", "dpo.yaml: `betta` is no key of TRL's that is known here; did you mean `beta`?"),
            ("loss_type: [ipo, sft]\n", "dpo.yaml: `loss_type` has 2 losses, expected one"),
            ("warmup_steps: 10\n", "dpo.yaml: `warmup_steps` is 10, expected `max_steps` with it, or a share below 1"),
            ("max_steps: ten\n", "dpo.yaml: `max_steps` is \"ten\", expected a whole number"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
    }
}
