//! Files of TRL's command line and of the alignment handbook: `trl dpo --config dpo.yaml`.
//!
//! TRL 1.16 with transformers 5.24 is followed. Keys that these no longer know, and that older files have, mean what they meant:
//! `warmup_ratio` as in transformers 4, `torch_dtype`, `evaluation_strategy`, `max_seq_length`, `rpo_alpha`.

use std::ffi::OsStr;
use std::path::Path;

use super::keys::Keys;
use super::schedule::schedule;
use simplemix_model::hub::CAN_PUSH;

use super::translation::{Format, Source, Translation, batch_size, model};
use super::trl_data;
use crate::config::Objective;

pub(super) const FORMAT: Format = Format {
    same: &[
        ("output_dir", "output"),
        ("num_train_epochs", "epochs"),
        ("beta", "loss.beta"),
        ("label_smoothing", "loss.label_smoothing"),
        ("ld_alpha", "loss.ld_alpha"),
        ("router_aux_loss_coef", "loss.router_aux_loss_coef"),
        ("center_rewards_coefficient", "loss.center_rewards"),
        ("max_grad_norm", "optimizer.max_grad_norm"),
        ("weight_decay", "optimizer.weight_decay"),
        ("adam_beta1", "optimizer.beta1"),
        ("adam_beta2", "optimizer.beta2"),
        ("adam_epsilon", "optimizer.epsilon"),
        ("save_total_limit", "checkpoint.keep"),
    ],
    together: &[
        (&["model_name_or_path", "model_revision", "model_init_kwargs"], the_model),
        (trl_data::KEYS, trl_data::data),
        (
            &["loss_type", "loss_weights", "rpo_alpha", "use_weighting", "discopop_tau", "simpo_gamma", "cpo_alpha"],
            loss,
        ),
        (&["f_divergence_type", "f_alpha_divergence_coef"], divergence),
        (&["learning_rate"], learning_rate),
        (&["max_length", "max_seq_length", "max_prompt_length", "max_completion_length", "truncation_mode"], lengths),
        (&["optim", "optim_args", "optim_target_modules"], optimizer),
        (&["gradient_checkpointing", "activation_checkpointing"], checkpointing),
        (UNFOLLOWED, unfollowed),
        (&["disable_dropout", "completion_only_loss", "do_train"], must_be_true),
        (PUSH, push_to_hub),
        (&["per_device_train_batch_size", "gradient_accumulation_steps"], the_batch),
        (&["lr_scheduler_type", "lr_scheduler_kwargs"], the_schedule),
        (&["max_steps", "warmup_ratio", "warmup_steps"], length_and_warmup),
        (&["seed", "data_seed", "train_sampling_strategy", "group_by_length"], order),
        (
            &["eval_strategy", "evaluation_strategy", "eval_steps", "save_strategy", "save_steps", "logging_steps"],
            intervals,
        ),
        (&["load_best_model_at_end", "metric_for_best_model", "greater_is_better"], best_checkpoint),
        (&["sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha"], moving_reference),
        (ADAPTER, adapter),
        (
            &["load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"],
            quantised,
        ),
        (&["bf16", "fp16", "dtype", "torch_dtype"], dtype),
        (&["chat_template", "chat_template_path", "eos_token"], tokens),
    ],
    ignored: &[
        "accelerator_config",
        "activation_checkpointing_kwargs",
        "activation_offloading",
        "attn_implementation",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "batch_eval_metrics",
        "bf16_full_eval",
        "dataloader_in_order",
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataset_num_proc",
        "dataset_kwargs",
        "ddp_backend",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ddp_timeout",
        "debug",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "enable_jit_checkpoint",
        "env",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_packing",
        "eval_use_gather_object",
        "fp16_full_eval",
        "full_determinism",
        "generate_during_eval",
        "gradient_checkpointing_kwargs",
        "ignore_bias_buffers",
        "ignore_data_skip",
        "include_for_metrics",
        "include_num_input_tokens_seen",
        "include_tokens_per_second",
        "label_names",
        "label_pad_token_id",
        "length_column_name",
        "liger_kernel_config",
        "local_rank",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_dir",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_strategy",
        "overwrite_output_dir",
        "pad_to_multiple_of",
        "pad_token",
        "packing_strategy",
        "padding_free",
        "padding_value",
        "per_device_eval_batch_size",
        "precompute_ref_batch_size",
        "precompute_ref_log_probs",
        "prediction_loss_only",
        "project",
        "ref_model_init_kwargs",
        "remove_unused_columns",
        "report_to",
        "restore_callback_states_from_checkpoint",
        "run_name",
        "save_on_each_node",
        "save_only_model",
        "save_safetensors",
        "skip_memory_metrics",
        "tf32",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "trust_remote_code",
        "use_cache",
        "use_cpu",
        "use_liger_kernel",
        "use_logits_to_keep",
        "use_num_logits_to_keep",
        "use_reentrant",
        "wandb_entity",
        "wandb_project",
    ],
    is_complete: true,
};

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

/// Keys that change results and have no counterpart here, if they say anything.
const UNFOLLOWED: &[&str] = &[
    "assistant_only_loss",
    "dataloader_drop_last",
    "deepspeed",
    "eval_delay",
    "eval_on_start",
    "fsdp",
    "fsdp_config",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "packing",
    "parallelism_config",
    "reference_free",
    "resume_from_checkpoint",
    "shuffle_dataset",
];

fn unfollowed(source: &Source<'_>, to: &mut Translation) {
    let expected = |key: &str| match key {
        "deepspeed" | "fsdp" | "fsdp_config" | "parallelism_config" => {
            "no such key: several processes train with --processes, torchrun or Slurm"
        }
        "resume_from_checkpoint" => "no such key: --resume goes on with a run",
        "reference_free" => "false: a loss without a reference has a name, such as `loss_type: simpo`",
        "eval_delay" | "eval_on_start" => "no such key: evaluations come every `eval_steps` updates or every epoch",
        "packing" => "false: pairs are packed without padding anyhow, and a batch is a number of pairs",
        "dataloader_drop_last" => "false: the last pairs of an epoch are trained on too",
        _ => "no such key: it has no counterpart",
    };
    for key in UNFOLLOWED.iter().filter(|key| source.keys.is_set(key)) {
        to.refuse(source.keys, key, expected(key));
    }
}

fn must_be_true(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    for (key, expected) in [
        ("disable_dropout", "true: a model is trained without dropout of its own"),
        ("completion_only_loss", "true: prompts are not learned"),
    ] {
        if to.take(keys.flag(key)) == Some(false) {
            to.refuse(keys, key, expected);
        }
    }
    to.ignore(keys, &["do_train"]);
}

fn the_model(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let kwargs = to.take(keys.table("model_init_kwargs")).unwrap_or_default();
    let own = |key: &str| {
        matches!(key, "revision" | "dtype" | "torch_dtype" | "attn_implementation" | "trust_remote_code" | "use_cache")
    };
    for key in kwargs.names().filter(|key| !own(key)) {
        to.unfollowed.push(format!("`model_init_kwargs.{key}` is set, expected no such key: it has no counterpart"));
    }
    let outer = to.take(keys.text("model_revision"));
    let revision = to.take(kwargs.text("revision")).or(outer);
    if let Some(name) = to.take(keys.text("model_name_or_path")) {
        model(name, revision, "model_revision", to);
    }
}

fn loss(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let names = to.take(keys.texts("loss_type").map_err(|_| keys.wrong("loss_type", "a name, or a list of names")));
    if source.objective == Objective::Sft {
        let names = names.unwrap_or_default();
        if names.iter().any(|name| name != "nll" && name != "chunked_nll") {
            to.refuse(keys, "loss_type", "nll for this objective");
        }
        return;
    }
    let weights = to.take(keys.numbers("loss_weights"));
    if weights.is_some() && names.is_none() {
        to.refuse(keys, "loss_weights", "a list of losses with it, `loss_type`");
    }
    let mut names = names.unwrap_or_default();
    let mut weights = weights.unwrap_or_default();
    // TRL before 0.20: the mean over tokens of the chosen response's cross-entropy, added to the loss.
    if let Some(alpha) = to.take(keys.number("rpo_alpha")) {
        if names.is_empty() {
            names.push("sigmoid".to_owned());
        }
        weights.resize(names.len(), 1.0);
        names.push("sft".to_owned());
        weights.push(alpha);
        to.remarks.push(format!("`rpo_alpha` is the loss `sft` with the weight {alpha}"));
    }
    for (key, loss) in [("discopop_tau", "discopop"), ("simpo_gamma", "simpo"), ("cpo_alpha", "cpo")] {
        match to.take(keys.number(key)) {
            Some(constant) if names.iter().any(|name| name == loss) => {
                to.set(&format!("loss.constants.{key}"), constant)
            }
            _ => to.ignore(keys, &[key]),
        }
    }
    match names.as_slice() {
        [] => {}
        [name] => to.set("loss.name", name.as_str()),
        _ => to.set("loss.name", names),
    }
    if !weights.is_empty() {
        to.set("loss.weights", weights);
    }
    if to.take(keys.flag("use_weighting")) == Some(true) {
        to.set("loss.wpo", "uncapped");
    }
}

/// The command names the loss of other trainers, and folders of recipes are called after them.
pub(super) fn loss_of_folder(source: &Source<'_>, path: &Path, to: &mut Translation) {
    let mut parts = path.iter().filter_map(OsStr::to_str);
    let other = parts.find_map(|part| ["orpo", "cpo", "simpo", "kto", "bco"].into_iter().find(|name| *name == part));
    if let Some(name) = other.filter(|_| source.objective == Objective::Preference && !source.keys.has("loss_type")) {
        to.remarks.push(format!(
            "the loss is sigmoid (DPO), since `loss_type` is not set; the file lies in a folder `{name}`: with TRL's trainer of that name \
             it is another (loss.name)"
        ));
    }
}

fn divergence(source: &Source<'_>, to: &mut Translation) {
    let alpha = to.take(source.keys.number("f_alpha_divergence_coef")).unwrap_or(0.5);
    match to.take(source.keys.text("f_divergence_type")) {
        Some("alpha_divergence") => {
            let value = toml::Table::from_iter([("alpha_divergence".to_owned(), alpha.into())]);
            to.set("loss.f_divergence_type", value);
        }
        Some(name @ ("reverse_kl" | "forward_kl" | "js_divergence")) => to.set("loss.f_divergence_type", name),
        Some(_) => {
            to.refuse(source.keys, "f_divergence_type", "reverse_kl, forward_kl, js_divergence or alpha_divergence");
        }
        None => to.ignore(source.keys, &["f_alpha_divergence_coef"]),
    }
}

/// Defaults of DPOConfig, SFTConfig and RewardConfig.
fn learning_rate(source: &Source<'_>, to: &mut Translation) {
    let default = match source.objective {
        Objective::Preference => 1e-6,
        Objective::Sft => 2e-5,
        Objective::Reward => 1e-4,
    };
    let rate = to.take(source.keys.number("learning_rate")).unwrap_or(default);
    to.set("optimizer.learning_rate", rate);
}

/// Tokens of a pair that no model has.
const UNLIMITED: i64 = 1 << 40;

/// An absent `max_length` is 1024, a null one no limit.
fn lengths(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let key = if keys.has("max_length") || keys.is_null("max_length") { "max_length" } else { "max_seq_length" };
    let length = match keys.is_null(key) {
        true => UNLIMITED,
        false => to.take(keys.whole(key)).unwrap_or(1024),
    };
    to.set("tokens.max_length", length);
    if to.take(keys.text("truncation_mode")).is_some_and(|mode| mode != "keep_start") {
        to.refuse(keys, "truncation_mode", "keep_start: longer pairs are cut at their end");
    }
    for key in ["max_prompt_length", "max_completion_length"] {
        if let Some(most) = to.take(keys.whole(key)) {
            to.remarks.push(format!(
                "`{key}: {most}` is not followed: TRL 1.16 has no such key, and cuts a pair at its end where it is longer than `max_length`"
            ));
        }
    }
}

fn optimizer(source: &Source<'_>, to: &mut Translation) {
    let name = to.take(source.keys.text("optim")).unwrap_or("adamw_torch");
    // AdamW too, computed or kept otherwise.
    let same = ["adamw_torch", "adamw_torch_fused", "adamw_apex_fused", "adamw_hf", "paged_adamw", "paged_adamw_32bit"];
    if !same.contains(&name) {
        to.refuse(source.keys, "optim", "adamw_torch or adamw_torch_fused");
    }
    to.refuse_set(source.keys, &["optim_args", "optim_target_modules"], "no such key: it has no counterpart");
}

fn checkpointing(source: &Source<'_>, to: &mut Translation) {
    let newer = to.take(source.keys.flag("activation_checkpointing"));
    let older = to.take(source.keys.flag("gradient_checkpointing"));
    if let Some(checkpointing) = newer.or(older) {
        to.set("memory.activation_checkpointing", checkpointing);
    }
}

/// Keys about the hub.
const PUSH: &[&str] = &[
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_model_revision",
    "hub_strategy",
    "hub_always_push",
    "hub_token",
];

/// The result is pushed once, at the end; transformers pushes the same then. Without a name, a repository is called as the output's
/// folder, as there.
fn push_to_hub(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if keys.is_set("hub_token") {
        // Without its value.
        let text = "`hub_token` is set, expected no such key: settings are kept beside the result; set HF_TOKEN";
        to.unfollowed.push(text.to_owned());
    }
    if to.take(keys.flag("push_to_hub")) != Some(true) {
        to.ignore(keys, &PUSH[..PUSH.len() - 1]);
        return;
    }
    let (id, output) = (to.take(keys.text("hub_model_id")), keys.text("output_dir").ok().flatten());
    let of_folder = || output.and_then(|output| Path::new(output).file_name()?.to_str());
    let repository = id.or_else(of_folder).unwrap_or("NAME");
    if !CAN_PUSH {
        let command = format!("`hf upload {repository} {}/model` does it", output.unwrap_or("RUN"));
        let expected = format!("false: this build cannot push (`--features push` can); after the run, {command}");
        return to.refuse(keys, "push_to_hub", &expected);
    }
    to.set("push.to", repository);
    let branches = [to.take(keys.text("hub_revision")), to.take(keys.text("hub_model_revision"))];
    if let Some(revision) = branches.into_iter().flatten().next() {
        to.set("push.revision", revision);
    }
    if let Some(private) = to.take(keys.flag("hub_private_repo")) {
        to.set("push.private", private);
    }
    if keys.flag("use_peft").ok().flatten() == Some(true) {
        to.set("push.adapter", true);
    }
    match to.take(keys.text("hub_strategy")) {
        None | Some("end") => {}
        Some("every_save" | "checkpoint" | "all_checkpoints") => {
            to.remarks.push("`hub_strategy`: the result is pushed at the end; checkpoints stay here".to_owned());
        }
        Some(_) => to.refuse(keys, "hub_strategy", "end, every_save, checkpoint or all_checkpoints"),
    }
    to.ignore(keys, &["hub_always_push"]);
}

fn the_batch(source: &Source<'_>, to: &mut Translation) {
    batch_size(source, ["per_device_train_batch_size", "gradient_accumulation_steps"], 8, to);
}

fn the_schedule(source: &Source<'_>, to: &mut Translation) {
    schedule(source, ["lr_scheduler_type", "lr_scheduler_kwargs"], "linear", to);
}

/// transformers 5: steps below 1 are a share, rounded up. Of transformers 4: a share beside, where there are no steps.
pub(super) fn length_and_warmup(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if let Some(steps) = to.take(keys.whole("max_steps")).filter(|steps| *steps > 0) {
        to.set("max_steps", steps);
    }
    let (steps, ratio) = (to.take(keys.number("warmup_steps")), to.take(keys.number("warmup_ratio")));
    for key in ["warmup_steps", "warmup_ratio"] {
        if keys.number(key).is_ok_and(|value| value.is_some_and(|value| value < 0.0)) {
            to.refuse(keys, key, "a number >= 0");
        }
    }
    // transformers gives this schedule no warm-up.
    if keys.text("lr_scheduler_type") == Ok(Some("constant")) {
        return to.ignore(keys, &["warmup_steps", "warmup_ratio"]);
    }
    match (steps.filter(|steps| *steps > 0.0), ratio) {
        (Some(steps), _) if steps >= 1.0 => {
            to.set("optimizer.warmup_steps", steps as i64);
            to.ignore(keys, &["warmup_ratio"]);
        }
        (Some(share), _) => {
            to.set("optimizer.warmup_ratio", share);
            to.ignore(keys, &["warmup_ratio"]);
        }
        (None, Some(ratio)) if ratio > 1.0 => to.refuse(keys, "warmup_ratio", "a share from 0 to 1"),
        (None, Some(ratio)) => to.set("optimizer.warmup_ratio", ratio),
        (None, None) => {}
    }
}

fn order(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let (seed, of_data) = (to.take(keys.whole("seed")), to.take(keys.whole("data_seed")));
    to.set("seed", of_data.or(seed).unwrap_or(42));
    if of_data.is_some() && seed.is_some_and(|seed| Some(seed) != of_data) {
        to.remarks.push("`data_seed` is the random seed of all: `seed` is left aside".to_owned());
    }
    let shuffle = match to.take(keys.text("train_sampling_strategy")) {
        None | Some("random") => "trl",
        Some("sequential") => "none",
        Some(_) => return to.refuse(keys, "train_sampling_strategy", "random or sequential"),
    };
    to.set("batch.shuffle", shuffle);
    if to.take(keys.flag("group_by_length")) == Some(true) {
        to.refuse(keys, "group_by_length", "false: pairs come in a random order");
    }
}

/// transformers evaluates only if `eval_strategy` says when; `steps` without `eval_steps` is as often as it logs.
pub(super) fn intervals(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let logging = to.take(keys.number("logging_steps"));
    to.ignore(keys, &["logging_steps"]);
    let every = to.take(keys.number("eval_steps")).filter(|steps| *steps != 0.0);
    let key = if keys.has("eval_strategy") { "eval_strategy" } else { "evaluation_strategy" };
    let strategy = strategy(keys, key, to);
    let paths = ["eval.eval_every_steps", "eval.eval_every_ratio", "eval.eval_every_epoch"];
    interval([key, "eval_steps"], strategy.unwrap_or("no"), every.or(logging).unwrap_or(500.0), paths, keys, to);
    // Without the key, pairs that --eval names are evaluated at the end.
    if let Some(strategy) = strategy {
        to.set("eval.eval_at_end", strategy != "no");
    }
    let paths = ["checkpoint.save_every_steps", "checkpoint.save_every_ratio", "checkpoint.save_every_epoch"];
    // How often it saves changes no result, so the default of 500 steps is left aside.
    if keys.has("save_strategy") || keys.has("save_steps") {
        let every = to.take(keys.number("save_steps")).unwrap_or(500.0);
        let strategy = self::strategy(keys, "save_strategy", to).unwrap_or("steps");
        interval(["save_strategy", "save_steps"], strategy, every, paths, keys, to);
    }
}

/// `no`, `steps`, `epoch` or, for checkpoints, `best`; YAML reads a plain `no` as false.
fn strategy<'a>(keys: &'a Keys, key: &str, to: &mut Translation) -> Option<&'a str> {
    let text = match keys.get(key)? {
        serde_json::Value::Bool(false) => "no",
        value => value.as_str().unwrap_or_default(),
    };
    match text {
        "no" | "steps" | "epoch" => Some(text),
        "best" if key == "save_strategy" => Some("no"),
        _ => {
            to.refuse(keys, key, "no, steps or epoch");
            None
        }
    }
}

/// Sets how often something is done: in updates, as a share of them below 1, or every epoch.
fn interval(
    [key, steps_key]: [&str; 2],
    strategy: &str,
    every: f64,
    [steps, ratio, epoch]: [&str; 3],
    keys: &Keys,
    to: &mut Translation,
) {
    match strategy {
        "steps" if every > 0.0 && every < 1.0 => to.set(ratio, every),
        "steps" if every >= 1.0 && every.fract() == 0.0 => to.set(steps, every as i64),
        "steps" => to
            .unfollowed
            .push(format!("`{steps_key}` is {every}, expected a share below 1 or a whole number of updates")),
        "epoch" => to.set(epoch, true),
        _ => {}
    }
    if strategy != "steps" {
        to.ignore(keys, &[steps_key]);
    }
    if keys.get(key).is_some_and(|value| value == "best") {
        to.remarks.push(
            "`save_strategy: best`: the best checkpoint is kept wherever `load_best_model_at_end` asks for one"
                .to_owned(),
        );
    }
}

/// The metric has an effect on the result only if the best checkpoint is loaded at the end.
fn best_checkpoint(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("load_best_model_at_end")) != Some(true) {
        return to.ignore(keys, &["metric_for_best_model", "greater_is_better"]);
    }
    let metric = to.take(keys.text("metric_for_best_model")).unwrap_or("loss");
    let is_greater = !metric.ends_with("loss");
    if to.take(keys.flag("greater_is_better")).is_some_and(|greater| greater != is_greater) {
        to.refuse(keys, "greater_is_better", &format!("{is_greater} for `{metric}`"));
    }
    to.set("eval.best_metric", format!("eval_{}", metric.strip_prefix("eval_").unwrap_or(metric)));
}

fn moving_reference(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("sync_ref_model")) != Some(true) {
        return to.ignore(keys, &["ref_model_sync_steps", "ref_model_mixup_alpha"]);
    }
    let (steps, share) = (to.take(keys.whole("ref_model_sync_steps")), to.take(keys.number("ref_model_mixup_alpha")));
    to.set("reference.source", "on-the-fly");
    to.set("reference.sync_every", steps.unwrap_or(512));
    to.set("reference.sync_mixup", share.unwrap_or(0.6));
}

/// Defaults of TRL's ModelConfig; without names of layers, peft chooses them by the model's type.
fn adapter(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("use_peft")) != Some(true) {
        return to.ignore(keys, &ADAPTER[1..]);
    }
    let rank = to.take(keys.whole("lora_r")).unwrap_or(16);
    let (alpha, dropout) = (to.take(keys.number("lora_alpha")), to.take(keys.number("lora_dropout")));
    to.set("lora.rank", rank);
    to.set("lora.alpha", alpha.unwrap_or(32.0));
    to.set("lora.dropout", dropout.unwrap_or(0.05));
    for (key, path) in [("use_rslora", "lora.rslora"), ("use_dora", "lora.dora")] {
        let is_on = to.take(keys.flag(key)).unwrap_or(false);
        to.set(path, is_on);
    }
    let saved = to.take(keys.texts("lora_modules_to_save")).unwrap_or_default();
    to.set("lora.modules_to_save", saved);
    let parameters = to.take(keys.texts("lora_target_parameters")).unwrap_or_default();
    // Without the score a reward model learns to please one that was drawn at random.
    let task = if source.objective == Objective::Reward { "SEQ_CLS" } else { "CAUSAL_LM" };
    if to.take(keys.text("lora_task_type")).unwrap_or("CAUSAL_LM") != task {
        to.refuse(keys, "lora_task_type", &format!("{task} for this objective"));
    }
    // peft has no default beside tensors of experts.
    let default = if parameters.is_empty() { vec!["peft-default".to_owned()] } else { Vec::new() };
    let targets = to.take(keys.texts("lora_target_modules")).unwrap_or(default);
    to.set("lora.target_parameters", parameters);
    match targets.as_slice() {
        [all] if all.eq_ignore_ascii_case("all-linear") => to.set("lora.targets", Vec::<String>::new()),
        // TRL gives peft a list of one as a text, which is a regular expression.
        [pattern] if pattern != "peft-default" => to.set("lora.target_pattern", pattern.as_str()),
        _ => to.set("lora.targets", targets),
    }
}

/// bitsandbytes' settings of TRL's ModelConfig, with their defaults.
fn quantised(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let is_on = |to: &mut Translation, key: &str| to.take(keys.flag(key)) == Some(true);
    match (is_on(to, "load_in_4bit"), is_on(to, "load_in_8bit")) {
        (true, true) => to.refuse(keys, "load_in_8bit", "one of `load_in_4bit` and `load_in_8bit`"),
        (true, false) => {
            if to.take(keys.text("bnb_4bit_quant_type")).unwrap_or("nf4") != "nf4" {
                to.refuse(keys, "bnb_4bit_quant_type", "nf4");
            }
            let is_double = is_on(to, "use_bnb_nested_quant");
            four_bits(is_double, to);
            // How the bytes are wrapped changes no number.
            return to.ignore(keys, &["bnb_4bit_quant_storage"]);
        }
        (false, true) => eight_bits(to),
        (false, false) => {}
    }
    to.ignore(keys, &["bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"]);
}

/// Weights in bitsandbytes' NF4.
pub(super) fn four_bits(is_double: bool, to: &mut Translation) {
    to.set("quantization.load_in", "4bit");
    to.set("quantization.double_quant", is_double);
}

/// Weights in 8 bits, with what differs from bitsandbytes.
pub(super) fn eight_bits(to: &mut Translation) {
    to.set("quantization.load_in", "8bit");
    to.remarks.push(
        "weights are held in 8 bits as bitsandbytes holds them; it quantises activations too, and here they are not"
            .to_owned(),
    );
}

/// `torch_dtype` is the older name. float16 is refused; `bf16` with weights in float32 is what `auto` does on a GPU.
fn dtype(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("fp16")) == Some(true) {
        to.refuse(keys, "fp16", "false: weights are float32 or bfloat16");
    }
    let kwargs = keys.table("model_init_kwargs").ok().flatten().unwrap_or_default();
    let all = [(keys, "dtype"), (keys, "torch_dtype"), (&kwargs, "dtype"), (&kwargs, "torch_dtype")];
    let kind = all.into_iter().find(|(keys, key)| keys.has(key));
    let is_off = to.take(keys.flag("bf16")) == Some(false);
    match kind.map(|(keys, key)| (keys, key, keys.text(key))) {
        Some((_, _, Ok(Some("auto")))) | None if is_off => to.set("dtype", "float32"),
        Some((_, _, Ok(Some("auto")))) | None => {}
        Some((_, _, Ok(Some(kind @ ("float32" | "bfloat16"))))) => to.set("dtype", kind),
        Some((keys, key, _)) => to.refuse(keys, key, "float32 or bfloat16"),
    }
}

fn tokens(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let path = to.take(keys.text("chat_template_path"));
    if let Some(template) = to.take(keys.text("chat_template")) {
        to.set("tokens.chat_template", template);
    } else if let Some(path) = path {
        match [".jinja", ".jinja2", ".j2"].iter().any(|ending| path.ends_with(ending)) {
            true => to.set("tokens.chat_template", path),
            false => {
                to.refuse(keys, "chat_template_path", "a .jinja file: copy the template out of the model's folder")
            }
        }
    }
    if let Some(token) = to.take(keys.text("eos_token")) {
        to.set("tokens.eos_token", token);
    }
}
