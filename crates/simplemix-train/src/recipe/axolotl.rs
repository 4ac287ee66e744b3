//! Files of axolotl, as far as they are about preferences: `rl: dpo`, `ipo`, `orpo`, `simpo`, or `reward_model: true`.

use super::keys::Keys;
use super::schedule::schedule;
use super::translation::{Format, Source, Translation, batch_size, model, split_path};
use crate::config::Objective;

pub(super) const FORMAT: Format = Format {
    same: &[
        ("output_dir", "output"),
        ("num_epochs", "epochs"),
        ("seed", "seed"),
        ("sequence_len", "tokens.max_length"),
        ("dpo_label_smoothing", "loss.label_smoothing"),
        ("simpo_gamma", "loss.constants.simpo_gamma"),
        ("cpo_alpha", "loss.constants.cpo_alpha"),
        ("center_rewards_coefficient", "loss.center_rewards"),
        ("max_grad_norm", "optimizer.max_grad_norm"),
        ("weight_decay", "optimizer.weight_decay"),
        ("adam_beta1", "optimizer.beta1"),
        ("adam_beta2", "optimizer.beta2"),
        ("adam_epsilon", "optimizer.epsilon"),
        ("early_stopping_patience", "eval.early_stopping_patience"),
    ],
    together: &[
        (&["base_model", "revision_of_model", "model_type", "tokenizer_type", "tokenizer_config"], the_model),
        (
            &["rl", "reward_model", "rl_beta", "orpo_alpha", "dpo_loss_type", "dpo_loss_weights", "dpo_use_weighting"],
            loss,
        ),
        (&["datasets", "test_datasets", "val_set_size"], data),
        (&["chat_template", "chat_template_jinja", "special_tokens", "eot_tokens"], tokens),
        (&["micro_batch_size", "gradient_accumulation_steps"], the_batch),
        (&["learning_rate"], learning_rate),
        (&["optimizer"], optimizer),
        (&["lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio"], the_schedule),
        (&["warmup_steps", "warmup_ratio", "max_steps"], warmup),
        (
            &[
                "eval_steps",
                "evals_per_epoch",
                "eval_strategy",
                "save_steps",
                "saves_per_epoch",
                "save_strategy",
                "save_total_limit",
            ],
            intervals,
        ),
        (&["load_best_model_at_end", "metric_for_best_model", "greater_is_better"], best_checkpoint),
        (
            &[
                "adapter",
                "lora_model_dir",
                "lora_r",
                "lora_alpha",
                "lora_dropout",
                "lora_target_modules",
                "lora_target_linear",
                "lora_modules_to_save",
                "peft_use_dora",
                "peft_use_rslora",
                "load_in_8bit",
                "load_in_4bit",
            ],
            adapter,
        ),
        (&["bf16", "bfloat16", "fp16", "float16", "torch_dtype"], dtype),
        (&["gradient_checkpointing"], checkpointing),
    ],
    ignored: &[
        "accelerator_config",
        "attn_implementation",
        "context_parallel_size",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataset_num_proc",
        "dataset_prepared_path",
        "dataset_processes",
        "ddp_timeout",
        "debug",
        "deepspeed",
        "dp_replicate_size",
        "dp_shard_size",
        "dpo_padding_free",
        "dpo_use_liger_kernel",
        "eval_batch_size",
        "eval_sample_packing",
        "eval_table_size",
        "experimental_skip_move_to_device",
        "flash_attention",
        "fsdp",
        "fsdp_config",
        "fsdp_version",
        "gradient_checkpointing_kwargs",
        "hub_model_id",
        "hub_strategy",
        "is_falcon_derived_model",
        "is_llama_derived_model",
        "is_mistral_derived_model",
        "is_qwen_derived_model",
        "local_rank",
        "logging_steps",
        "loss_watchdog_patience",
        "loss_watchdog_threshold",
        "num_labels",
        "pad_to_sequence_len",
        "precompute_ref_log_probs",
        "remove_unused_columns",
        "resume_from_checkpoint",
        "sample_packing",
        "save_only_model",
        "save_safetensors",
        "sdp_attention",
        "sequence_parallel_degree",
        "strict",
        "tensor_parallel_size",
        "tf32",
        "torch_compile",
        "train_on_inputs",
        "trust_remote_code",
        "use_tensorboard",
        "wandb_entity",
        "wandb_log_model",
        "wandb_name",
        "wandb_project",
        "wandb_run_id",
        "wandb_watch",
        "xformers_attention",
    ],
    is_complete: false,
};

/// The objective that a file names: a file without `rl` is for imitation.
pub(super) fn objective(keys: &Keys) -> Option<Objective> {
    match (keys.flag("reward_model"), keys.has("rl")) {
        (Ok(Some(true)), _) => Some(Objective::Reward),
        (_, true) => Some(Objective::Preference),
        _ => Some(Objective::Sft),
    }
}

fn the_model(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let revision = to.take(keys.text("revision_of_model"));
    if let Some(name) = to.take(keys.text("base_model")) {
        model(name, revision, "revision_of_model", to);
    }
    to.ignore(keys, &["model_type", "tokenizer_type"]);
    to.refuse_set(keys, &["tokenizer_config"], "no such key: the tokenizer is that of the model's folder");
}

fn loss(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let beta = to.take(keys.number("rl_beta")).or(to.take(keys.number("orpo_alpha")));
    if let Some(beta) = beta {
        to.set("loss.beta", beta);
    }
    let (names, weights) = (to.take(keys.texts("dpo_loss_type")), to.take(keys.numbers("dpo_loss_weights")));
    match to.take(keys.text("rl")) {
        None => {}
        Some("dpo") => match names.unwrap_or_default().as_slice() {
            [] => {}
            [name] => to.set("loss.name", name.as_str()),
            names => to.set("loss.name", names.to_vec()),
        },
        Some(name @ ("ipo" | "orpo" | "simpo")) => to.set("loss.name", name),
        Some(_) => to.refuse(keys, "rl", "dpo, ipo, orpo or simpo: these train on pairs"),
    }
    if let Some(weights) = weights {
        to.set("loss.weights", weights);
    }
    if to.take(keys.flag("dpo_use_weighting")) == Some(true) {
        to.set("loss.wpo", "uncapped");
    }
}

fn data(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let (mut sets, mut names_fields) = (Vec::new(), false);
    for set in to.take(keys.tables("datasets")).unwrap_or_default() {
        sets.extend(path_of(&set, to));
        // Templates and fields are found by what the rows hold.
        let known = ["path", "ds_type", "split", "type", "name", "data_files", "revision"];
        let is_field = |key: &str| key.starts_with("field_") || key == "message_property_mappings" || key == "roles";
        names_fields |= set.names().any(is_field);
        for key in set.names().filter(|key| !known.contains(key) && !is_field(key)) {
            to.unfollowed.push(format!("`datasets.{key}` is set, expected no such key: it has no counterpart"));
        }
    }
    if names_fields {
        to.remarks.push("`datasets` name their columns: here these are found by their names; look at the pairs with `simplemix show`".to_owned());
    }
    match sets.len() {
        0 => to.unfollowed.push("`datasets` has no set, expected files of pairs; set `train`".to_owned()),
        1 => to.set("train", sets.remove(0)),
        _ => {
            let table = |path: toml::Value| toml::Value::Table([("path".to_owned(), path)].into_iter().collect());
            to.set("data.sets", sets.into_iter().map(table).collect::<Vec<_>>());
        }
    }
    held_out(keys, to);
}

fn held_out(keys: &Keys, to: &mut Translation) {
    let tests: Vec<toml::Value> =
        to.take(keys.tables("test_datasets")).unwrap_or_default().iter().filter_map(|set| path_of(set, to)).collect();
    match tests.as_slice() {
        [] => {}
        [one] => to.set("eval.files", one.clone()),
        several => {
            let named = several.iter().enumerate().map(|(number, path)| (format!("test-{number}"), path.clone()));
            to.set("eval.files", named.collect::<toml::Table>());
        }
    }
    let Some(share) = to.take(keys.number("val_set_size")).filter(|share| *share > 0.0) else { return };
    // A held-out part needs sets to join.
    if let Some(train) = to.settings.remove("train") {
        let set = toml::Value::Table([("path".to_owned(), train)].into_iter().collect());
        to.set("data.sets", vec![set]);
    }
    to.set("data.held_out", share);
    to.set("data.seed", keys.whole("seed").ok().flatten().unwrap_or(42));
}

fn path_of(set: &Keys, to: &mut Translation) -> Option<toml::Value> {
    let Some(name) = to.take(set.text("path")) else {
        to.unfollowed.push("`datasets` has a set without `path`, expected a file or a data set of the hub".to_owned());
        return None;
    };
    let texts = ["split", "name", "revision"].map(|key| to.take(set.text(key)));
    let files = to.take(set.texts("data_files")).unwrap_or_default();
    let place = match files.as_slice() {
        [] => "",
        [file] => file,
        _ => {
            to.refuse(set, "data_files", "one file or pattern");
            ""
        }
    };
    if ["json", "parquet", "arrow"].contains(&name) && !place.is_empty() {
        return Some(place.into());
    }
    Some(split_path([name, place], [texts[2], texts[1]], texts[0].unwrap_or("train"), to))
}

/// axolotl renders every pair by a template.
fn tokens(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    to.set("tokens.messages", true);
    if let Some(template) = to.take(keys.text("chat_template_jinja")) {
        to.set("tokens.chat_template", template);
    } else if let Some(name) = to.take(keys.text("chat_template")).filter(|name| *name != "tokenizer_default") {
        to.remarks.push(format!("`chat_template: {name}` is one of axolotl's; here the model's own is used (`tokens.chat_template` is another)"));
    }
    let special = to.take(keys.table("special_tokens")).unwrap_or_default();
    for token in special.names() {
        match token {
            "eos_token" => {
                if let Some(text) = to.take(special.text(token)) {
                    to.set("tokens.eos_token", text);
                }
            }
            "pad_token" => to.ignored.push("special_tokens.pad_token".to_owned()),
            other => to
                .unfollowed
                .push(format!("`special_tokens.{other}` is set, expected no such key: tokens are those of the model")),
        }
    }
    to.refuse_set(keys, &["eot_tokens"], "no such key: a template ends its turns itself");
}

fn the_batch(source: &Source<'_>, to: &mut Translation) {
    batch_size(source, ["micro_batch_size", "gradient_accumulation_steps"], 1, to);
    to.set("batch.shuffle", "trl");
}

fn learning_rate(source: &Source<'_>, to: &mut Translation) {
    if let Some(rate) = to.take(source.keys.number("learning_rate")) {
        to.set("optimizer.learning_rate", rate);
    }
}

fn optimizer(source: &Source<'_>, to: &mut Translation) {
    let name = to.take(source.keys.text("optimizer")).unwrap_or("adamw_torch_fused");
    if !["adamw_torch", "adamw_torch_fused", "adamw_hf", "paged_adamw_32bit"].contains(&name) {
        to.refuse(source.keys, "optimizer", "adamw_torch or adamw_torch_fused: AdamW is used");
    }
}

fn the_schedule(source: &Source<'_>, to: &mut Translation) {
    schedule(source, ["lr_scheduler", "lr_scheduler_kwargs"], "cosine", to);
    if let Some(share) = to.take(source.keys.number("cosine_min_lr_ratio")) {
        to.set("optimizer.min_rate_ratio", share);
    }
}

/// Without both keys the warm-up is 3 % of the updates, of which axolotl takes 100 at most.
fn warmup(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let max_steps = to.take(keys.whole("max_steps")).filter(|steps| *steps > 0);
    if let Some(steps) = max_steps {
        to.set("max_steps", steps);
    }
    match (to.take(keys.whole("warmup_steps")), to.take(keys.number("warmup_ratio"))) {
        (Some(steps), _) => {
            to.set("optimizer.warmup_steps", steps);
            to.ignore(keys, &["warmup_ratio"]);
        }
        (None, Some(share)) => to.set("optimizer.warmup_ratio", share),
        (None, None) => {
            to.set("optimizer.warmup_ratio", 0.03);
            to.remarks.push("no warm-up is given: axolotl takes 3 % of the updates, and 100 at most".to_owned());
        }
    }
}

/// Evaluations and checkpoints, in updates, by the epoch, or a number of times in an epoch.
fn intervals(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let epochs = keys.number("num_epochs").ok().flatten().unwrap_or(1.0);
    for (steps, times, strategy, paths) in [
        (
            "eval_steps",
            "evals_per_epoch",
            "eval_strategy",
            ["eval.eval_every_steps", "eval.eval_every_ratio", "eval.eval_every_epoch"],
        ),
        (
            "save_steps",
            "saves_per_epoch",
            "save_strategy",
            ["checkpoint.save_every_steps", "checkpoint.save_every_ratio", "checkpoint.save_every_epoch"],
        ),
    ] {
        let every = to.take(keys.number(steps)).filter(|every| *every > 0.0);
        let times = to.take(keys.number(times)).filter(|times| *times > 0.0);
        let strategy = to.take(keys.text(strategy));
        match (every, times) {
            (Some(every), _) if every < 1.0 => to.set(paths[1], every),
            (Some(every), _) => to.set(paths[0], every as i64),
            (None, Some(times)) => to.set(paths[1], (1.0 / (times * epochs)).min(1.0)),
            (None, None) if strategy == Some("epoch") => to.set(paths[2], true),
            (None, None) => {}
        }
    }
    if let Some(keep) = to.take(keys.whole("save_total_limit")).filter(|keep| *keep > 0) {
        to.set("checkpoint.keep", keep);
    }
}

fn best_checkpoint(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("load_best_model_at_end")) != Some(true) && !keys.has("early_stopping_patience") {
        return to.ignore(keys, &["metric_for_best_model", "greater_is_better"]);
    }
    let metric = to.take(keys.text("metric_for_best_model")).unwrap_or("loss");
    to.set("eval.best_metric", format!("eval_{}", metric.strip_prefix("eval_").unwrap_or(metric)));
    to.ignore(keys, &["greater_is_better"]);
}

fn adapter(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let [in_4bit, in_8bit] = ["load_in_4bit", "load_in_8bit"].map(|key| to.take(keys.flag(key)) == Some(true));
    let linear = to.take(keys.flag("lora_target_linear")) == Some(true);
    let names = to.take(keys.texts("lora_target_modules")).unwrap_or_default();
    match to.take(keys.text("adapter")).filter(|name| !name.is_empty()) {
        None => {
            let all = [
                "lora_r",
                "lora_alpha",
                "lora_dropout",
                "lora_target_modules",
                "lora_target_linear",
                "lora_modules_to_save",
            ];
            to.refuse_set(keys, &["load_in_8bit", "load_in_4bit"], "false without an adapter: such weights are frozen");
            return to.ignore(keys, &all);
        }
        // Axolotl quantises so for these two alone.
        Some("qlora") if in_4bit && !in_8bit => super::trl::four_bits(true, to),
        Some("qlora") => to.refuse(keys, "adapter", "lora, or `load_in_4bit: true` alone"),
        Some("lora") if in_4bit => to.refuse(keys, "load_in_4bit", "false, or `adapter: qlora`"),
        Some("lora") if in_8bit => super::trl::eight_bits(to),
        Some("lora") => {}
        Some(_) => return to.refuse(keys, "adapter", "lora"),
    }
    if let Some(folder) = to.take(keys.text("lora_model_dir")).filter(|folder| !folder.is_empty()) {
        return to.set("lora.adapter", folder);
    }
    let (rank, alpha) = (to.take(keys.whole("lora_r")), to.take(keys.number("lora_alpha")));
    to.set("lora.rank", rank.unwrap_or(8));
    to.set("lora.alpha", alpha.unwrap_or(16.0));
    let dropout = to.take(keys.number("lora_dropout")).unwrap_or(0.0);
    to.set("lora.dropout", dropout);
    for (key, path) in [("peft_use_dora", "lora.dora"), ("peft_use_rslora", "lora.rslora")] {
        let is_on = to.take(keys.flag(key)).unwrap_or(false);
        to.set(path, is_on);
    }
    let saved = to.take(keys.texts("lora_modules_to_save")).unwrap_or_default();
    to.set("lora.modules_to_save", saved);
    match names.as_slice() {
        _ if linear => to.set("lora.targets", Vec::<String>::new()),
        [pattern] if pattern.contains(['*', '\\', '|']) => to.set("lora.target_pattern", pattern.as_str()),
        names => to.set("lora.targets", names.to_vec()),
    }
}

fn dtype(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    to.refuse_set(keys, &["fp16", "float16"], "false: weights are float32 or bfloat16");
    match to.take(keys.text("torch_dtype")) {
        Some(kind @ ("float32" | "bfloat16")) => to.set("dtype", kind),
        Some("auto") | None => {}
        Some(_) => to.refuse(keys, "torch_dtype", "float32 or bfloat16"),
    }
    // `auto`, `full` and true are what the device makes of `dtype = "auto"`.
    if [keys.flag("bf16"), keys.flag("bfloat16")].contains(&Ok(Some(false))) {
        to.set("dtype", "float32");
    }
}

fn checkpointing(source: &Source<'_>, to: &mut Translation) {
    if source.keys.is_set("gradient_checkpointing") {
        to.set("memory.activation_checkpointing", true);
    }
}
