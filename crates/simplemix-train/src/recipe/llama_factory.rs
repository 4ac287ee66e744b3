//! Files of LLaMA-Factory, as far as they are about preferences: `stage: dpo`, `rm` or `sft`.

use super::keys::Keys;
use super::schedule::schedule;
use super::translation::{Format, Source, Translation, batch_size, model};
use crate::config::Objective;

pub(super) const FORMAT: Format = Format {
    same: &[
        ("output_dir", "output"),
        ("num_train_epochs", "epochs"),
        ("seed", "seed"),
        ("cutoff_len", "tokens.max_length"),
        ("dpo_label_smoothing", "loss.label_smoothing"),
        ("ld_alpha", "loss.ld_alpha"),
        ("pref_beta", "loss.beta"),
        ("max_grad_norm", "optimizer.max_grad_norm"),
        ("weight_decay", "optimizer.weight_decay"),
        ("adam_beta1", "optimizer.beta1"),
        ("adam_beta2", "optimizer.beta2"),
        ("adam_epsilon", "optimizer.epsilon"),
        ("save_total_limit", "checkpoint.keep"),
        ("ref_model", "reference.model"),
    ],
    together: &[
        (&["model_name_or_path", "model_revision", "adapter_name_or_path"], the_model),
        (&["stage", "pref_loss", "pref_ftx", "simpo_gamma"], loss),
        (
            &[
                "dataset",
                "eval_dataset",
                "dataset_dir",
                "val_size",
                "template",
                "max_samples",
                "default_system",
                "enable_thinking",
            ],
            data,
        ),
        (&["per_device_train_batch_size", "gradient_accumulation_steps"], the_batch),
        (&["learning_rate"], learning_rate),
        (&["optim"], optimizer),
        (&["lr_scheduler_type", "lr_scheduler_kwargs"], the_schedule),
        (&["warmup_steps", "warmup_ratio", "max_steps"], warmup),
        (&["eval_strategy", "evaluation_strategy", "eval_steps", "save_strategy", "save_steps"], intervals),
        (
            &[
                "finetuning_type",
                "lora_rank",
                "lora_alpha",
                "lora_dropout",
                "lora_target",
                "additional_target",
                "use_rslora",
                "use_dora",
            ],
            adapter,
        ),
        (&["bf16", "fp16", "pure_bf16"], dtype),
        (&["quantization_bit", "quantization_method", "quantization_type", "double_quantization"], quantised),
        (&["disable_gradient_checkpointing"], checkpointing),
    ],
    ignored: &[
        "cache_dir",
        "dataloader_num_workers",
        "ddp_timeout",
        "deepspeed",
        "do_train",
        "enable_liger_kernel",
        "flash_attn",
        "fsdp",
        "fsdp_config",
        "hf_hub_token",
        "include_num_input_tokens_seen",
        "logging_steps",
        "low_cpu_mem_usage",
        "overwrite_cache",
        "overwrite_output_dir",
        "packing",
        "per_device_eval_batch_size",
        "plot_loss",
        "preprocessing_batch_size",
        "preprocessing_num_workers",
        "ray_run_name",
        "report_to",
        "resume_from_checkpoint",
        "run_name",
        "save_only_model",
        "trust_remote_code",
        "use_fast_tokenizer",
        "use_swanlab",
        "use_unsloth",
        "use_unsloth_gc",
    ],
    is_complete: false,
};

/// The objective that `stage` names.
pub(super) fn objective(keys: &Keys) -> Option<Objective> {
    match keys.text("stage").ok().flatten()? {
        "rm" => Some(Objective::Reward),
        "sft" => Some(Objective::Sft),
        _ => Some(Objective::Preference),
    }
}

fn the_model(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let revision = to.take(keys.text("model_revision"));
    if let Some(name) = to.take(keys.text("model_name_or_path")) {
        model(name, revision, "model_revision", to);
    }
    if let Some(folder) = to.take(keys.text("adapter_name_or_path")) {
        to.set("lora.adapter", folder);
    }
}

fn loss(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if !matches!(to.take(keys.text("stage")), None | Some("dpo" | "rm" | "sft")) {
        to.refuse(keys, "stage", "dpo, rm or sft: these train on pairs");
    }
    if source.objective != Objective::Preference {
        return to.ignore(keys, &["pref_loss", "pref_ftx", "simpo_gamma"]);
    }
    let name = to.take(keys.text("pref_loss")).unwrap_or("sigmoid");
    if !["sigmoid", "hinge", "ipo", "orpo", "simpo"].contains(&name) {
        return to.refuse(keys, "pref_loss", "sigmoid, hinge, ipo, orpo or simpo");
    }
    if let Some(gamma) = to.take(keys.number("simpo_gamma")).filter(|_| name == "simpo") {
        to.set("loss.constants.simpo_gamma", gamma);
    }
    match to.take(keys.number("pref_ftx")).filter(|weight| *weight != 0.0) {
        Some(weight) => {
            to.set("loss.name", vec![name, "sft"]);
            to.set("loss.weights", vec![1.0, weight]);
            to.remarks.push("`pref_ftx` is the loss `sft`: a mean over the batch's tokens, where LLaMA-Factory's is one over its pairs".to_owned());
        }
        None => to.set("loss.name", name),
    }
}

/// Data sets have names of `dataset_info.json`, which only LLaMA-Factory's folder has.
fn data(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    to.set("tokens.messages", true);
    to.remarks.push(
        "pairs longer than `cutoff_len` are cut at their end; LLaMA-Factory cuts prompts and responses in proportion"
            .to_owned(),
    );
    for (key, setting) in [("dataset", "train"), ("eval_dataset", "eval.files")] {
        if keys.has(key) {
            to.refuse(
                keys,
                key,
                &format!("the files of the sets that dataset_info.json has under these names: set `{setting}`"),
            );
        }
    }
    to.ignore(keys, &["dataset_dir"]);
    if let Some(name) = to.take(keys.text("template")) {
        to.remarks.push(format!("`template: {name}` is one of LLaMA-Factory's; here the model's own is used (`tokens.chat_template` is another)"));
    }
    if to.take(keys.number("val_size")).is_some_and(|size| size > 0.0) {
        to.refuse(keys, "val_size", "no such key: `data.held_out` holds rows back, once `data.sets` names the files");
    }
    to.refuse_set(keys, &["max_samples"], "no such key: `simplemix mix --size` takes a number of pairs");
    to.refuse_set(keys, &["default_system"], "no such key: it has no counterpart");
    to.ignore(keys, &["enable_thinking"]);
}

fn the_batch(source: &Source<'_>, to: &mut Translation) {
    batch_size(source, ["per_device_train_batch_size", "gradient_accumulation_steps"], 8, to);
    to.set("batch.shuffle", "trl");
}

/// transformers' default.
fn learning_rate(source: &Source<'_>, to: &mut Translation) {
    let rate = to.take(source.keys.number("learning_rate")).unwrap_or(5e-5);
    to.set("optimizer.learning_rate", rate);
}

fn optimizer(source: &Source<'_>, to: &mut Translation) {
    let name = to.take(source.keys.text("optim")).unwrap_or("adamw_torch");
    if !["adamw_torch", "adamw_torch_fused", "adamw_hf", "paged_adamw_32bit"].contains(&name) {
        to.refuse(source.keys, "optim", "adamw_torch or adamw_torch_fused: AdamW is used");
    }
}

fn the_schedule(source: &Source<'_>, to: &mut Translation) {
    schedule(source, ["lr_scheduler_type", "lr_scheduler_kwargs"], "linear", to);
}

fn warmup(source: &Source<'_>, to: &mut Translation) {
    super::trl::length_and_warmup(source, to);
}

fn intervals(source: &Source<'_>, to: &mut Translation) {
    super::trl::intervals(source, to);
}

fn adapter(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let all = ["lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target", "use_rslora", "use_dora"];
    match to.take(keys.text("finetuning_type")).unwrap_or("lora") {
        "full" => return to.ignore(keys, &all),
        "lora" => {}
        _ => return to.refuse(keys, "finetuning_type", "lora or full"),
    }
    if keys.has("adapter_name_or_path") {
        return to.ignore(keys, &all);
    }
    let rank = to.take(keys.whole("lora_rank")).unwrap_or(8);
    let (alpha, dropout) = (to.take(keys.number("lora_alpha")), to.take(keys.number("lora_dropout")));
    to.set("lora.rank", rank);
    to.set("lora.alpha", alpha.unwrap_or(2.0 * rank as f64));
    to.set("lora.dropout", dropout.unwrap_or(0.0));
    for (key, path) in [("use_rslora", "lora.rslora"), ("use_dora", "lora.dora")] {
        let is_on = to.take(keys.flag(key)).unwrap_or(false);
        to.set(path, is_on);
    }
    let names = |text: &str| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let targets = to.take(keys.text("lora_target")).filter(|target| *target != "all").map_or(Vec::new(), names);
    to.set("lora.targets", targets);
    let saved = to.take(keys.text("additional_target")).map_or(Vec::new(), names);
    to.set("lora.modules_to_save", saved);
}

fn dtype(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    if to.take(keys.flag("fp16")) == Some(true) {
        to.refuse(keys, "fp16", "false: weights are float32 or bfloat16");
    }
    if to.take(keys.flag("pure_bf16")) == Some(true) {
        to.set("dtype", "bfloat16");
    } else if to.take(keys.flag("bf16")) == Some(false) {
        to.set("dtype", "float32");
    }
}

fn quantised(source: &Source<'_>, to: &mut Translation) {
    let keys = source.keys;
    let others = ["quantization_method", "quantization_type", "double_quantization"];
    let bits = match to.take(keys.whole("quantization_bit")) {
        None => return to.ignore(keys, &others),
        Some(bits @ (4 | 8)) => bits,
        Some(_) => return to.refuse(keys, "quantization_bit", "4 or 8"),
    };
    let is_bnb = |name: &str| matches!(name.to_ascii_lowercase().as_str(), "bnb" | "bitsandbytes");
    if to.take(keys.text("quantization_method")).is_some_and(|name| !is_bnb(name)) {
        return to.refuse(keys, "quantization_method", "bnb");
    }
    if bits == 8 {
        super::trl::eight_bits(to);
        return to.ignore(keys, &others[1..]);
    }
    if to.take(keys.text("quantization_type")).unwrap_or("nf4") != "nf4" {
        to.refuse(keys, "quantization_type", "nf4");
    }
    let is_double = to.take(keys.flag("double_quantization")).unwrap_or(true);
    super::trl::four_bits(is_double, to);
}

fn checkpointing(source: &Source<'_>, to: &mut Translation) {
    let is_off = to.take(source.keys.flag("disable_gradient_checkpointing")) == Some(true);
    to.set("memory.activation_checkpointing", !is_off);
}
