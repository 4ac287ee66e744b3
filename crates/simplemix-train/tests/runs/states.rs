//! Runs of tiny models with the gated delta rule, or a short convolution, in one of two layers, or with keys and embeddings that layers
//! share: prompts, micro-batches and processes share states, and no number changes.

use serde_json::{Value, json};
use simplemix_model::ModelConfig;

use super::together::{furthest_by_norm, together};
use super::*;

/// A Qwen 3.5 of two layers.
fn qwen() -> Value {
    json!({
        "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "vocab_size": 259, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 2, "full_attention_interval": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_conv_kernel_dim": 4, "tie_word_embeddings": true,
        "eos_token_id": 258, "pad_token_id": 256, "dtype": "float32",
    })
}

/// An LFM2 of two layers.
fn lfm2() -> Value {
    json!({
        "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "vocab_size": 259, "hidden_size": 48,
        "intermediate_size": 96, "block_multiple_of": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "full_attn_idxs": [1], "conv_bias": true, "eos_token_id": 258, "pad_token_id": 256,
        "dtype": "float32",
    })
}

/// A Gemma 4 of four layers, of which the last two read the keys of the others.
fn gemma4() -> Value {
    json!({
        "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "vocab_size": 259, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"], "sliding_window": 8,
        "num_kv_shared_layers": 2, "global_head_dim": 24, "use_double_wide_mlp": true, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 260, "final_logit_softcapping": 30.0, "eos_token_id": 258, "pad_token_id": 256,
        "dtype": "float32",
    })
}

/// A Qwen 3 of two layers, one of them with four experts, whose routers' loss has a factor of `coef`.
fn experts(coef: f64) -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 259, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": true, "mlp_only_layers": [0],
        "router_aux_loss_coef": coef, "tie_word_embeddings": true, "eos_token_id": 258, "pad_token_id": 256, "dtype": "float32",
    })
}

/// A folder whose model has this `config`, and the tiny model's tokenizer.
fn dir(config: &Value) -> Dir {
    let dir = Dir::new();
    let plain = dir.path("plain-model");
    std::fs::rename(dir.model(), &plain).unwrap();
    let config = ModelConfig::from_json(&config.to_string(), Path::new("config.json")).unwrap();
    CausalLm::random(config, 3, Device::Cpu).unwrap().save(&dir.model(), None).unwrap();
    for entry in std::fs::read_dir(&plain).unwrap() {
        let path = entry.unwrap().path();
        let target = dir.model().join(path.file_name().unwrap());
        if !target.exists() {
            std::fs::copy(&path, target).unwrap();
        }
    }
    dir
}

#[test]
fn shortcuts_change_no_number() {
    without_changes(&dir(&qwen()));
    without_changes(&dir(&lfm2()));
    without_changes(&dir(&gemma4()));
    // The routers' loss is one of each pass, as in TRL.
    without_changes(&dir(&experts(0.0)));
}

#[test]
fn the_loss_of_routers_is_trained_and_in_the_metrics() {
    let dir = dir(&experts(0.5));
    let plain = train(dir.config("plain")).records().unwrap();
    let of_routers =
        |records: &[Record]| records.iter().filter_map(|record| record.get("aux_loss")).collect::<Vec<f64>>();
    let losses = of_routers(&plain);
    assert!(losses.len() > 2 && losses.iter().all(|loss| (1.9..4.0).contains(loss)), "{losses:?}");
    for (name, text) in [
        ("apart", "memory.share_prompts = false"),
        ("checkpointing", "memory.activation_checkpointing = true"),
        ("set", "loss.router_aux_loss_coef = 0.5"),
    ] {
        let other = train(dir.with(name, text)).records().unwrap();
        let off = metrics_differ(&plain, &other);
        assert!(off < 2e-4, "{name}: {off}");
        let most = of_routers(&other).iter().zip(&losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(most < 1e-4, "{name}: {most}");
    }
    let without = train(dir.with("without", "loss.router_aux_loss_coef = 0")).records().unwrap();
    let first = |records: &[Record]| records.first().and_then(|record| record.get("grad_norm")).unwrap();
    assert!(of_routers(&without).is_empty() && (first(&plain) - first(&without)).abs() > 1e-5);
    // Where there is no such loss it cannot have a factor.
    for (dir, text) in [(&Dir::new(), ""), (&dir, "objective = 'sft'\n")] {
        let config = dir.with("refused", &format!("{text}loss.router_aux_loss_coef = 0.5"));
        let error = Run::with_pairs(config, &dir.model(), &pairs(8), &[]).map(drop).unwrap_err().to_string();
        assert!(error.contains("`loss.router_aux_loss_coef` is 0.5, expected"), "{error}");
    }
}

fn without_changes(dir: &Dir) {
    let plain = train(dir.config("plain"));
    let records = plain.records().unwrap();
    let losses: Vec<f64> = records.iter().filter_map(|record| record.get("loss")).collect();
    assert!((losses[0] - 2f64.ln()).abs() < 1e-6 && losses.last() < losses.first(), "{losses:?}");
    for (name, text) in [
        ("apart", "memory.share_prompts = false"),
        ("alone", "batch.micro_batch_tokens = 1"),
        ("checkpointing", "memory.activation_checkpointing = true"),
        ("on the fly", "reference.source = 'on-the-fly'"),
    ] {
        let other = train(dir.with(name, text));
        let off = metrics_differ(&records, &other.records().unwrap());
        assert!(off < 2e-4, "{name}: {off}");
        let off = furthest(&dir.path("plain"), &dir.path(name));
        assert!(off < 5e-4, "{name}: {off}");
    }
    // Nothing is left as it was.
    let (before, after) =
        (weights::read_all(&dir.model().join(weights::WEIGHTS)).unwrap(), weights_of(&dir.path("plain")));
    for (name, tensor) in &after {
        // transformers has a buffer there.
        assert_eq!(*tensor == before[name], name.ends_with(".layer_scalar"), "{name}: every tensor is trained");
    }
}

#[test]
fn a_run_ends_on_the_same_bits() {
    for config in [qwen(), lfm2(), gemma4(), experts(0.1)] {
        let dir = dir(&config);
        train(dir.config("whole"));
        assert_eq!(start(dir.config("cut"), false, 2).outcome, Outcome::Stopped);
        start(dir.config("cut"), true, u64::MAX);
        assert_eq!(furthest(&dir.path("whole"), &dir.path("cut")), 0.0);
    }
}

#[test]
fn several_processes_learn_what_one_learns() {
    divided(&dir(&qwen()));
    divided(&dir(&lfm2()));
    divided(&dir(&gemma4()));
    divided(&dir(&experts(0.0)));
    // Where each pair is a pass of its own, the routers' loss is the same too.
    divided_with(&dir(&experts(0.3)), "batch.micro_batch_tokens = 1");
}

fn divided(dir: &Dir) {
    divided_with(dir, "");
}

fn divided_with(dir: &Dir, more: &str) {
    let config = |output: &str, text: &str| {
        let common =
            "max_steps = 5\nbatch.batch_size = 7\noptimizer.learning_rate = 1e-4\noptimizer.weight_decay = 0.1";
        dir.with(output, &format!("{common}\n{more}\n{text}"))
    };
    train(config("one", ""));
    for (name, text) in [("sharded", "parallel.shard = 'all'"), ("optimizer", "parallel.shard = 'optimizer'")] {
        together(&config(name, text), 2, false, u64::MAX);
        let difference = furthest_by_norm(&dir.path("one"), &dir.path(name));
        assert!(difference < 1e-6, "{name}: {difference}");
    }
}

#[test]
fn adapters_rewards_and_samples_of_its_own() {
    let dir = dir(&qwen());
    for (name, text) in [
        ("adapter", "lora = { rank = 4, dropout = 0.2 }"),
        ("reward", "objective = 'reward'\nlora = { rank = 4 }"),
        ("responses", "objective = 'sft'"),
        ("half", "dtype = 'bfloat16'"),
        ("samples", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }"),
    ] {
        assert_eq!(train(dir.with(name, text)).outcome, Outcome::Finished, "{name}");
    }
    let adapter = std::fs::read_to_string(dir.path("adapter/adapter/adapter_config.json")).unwrap();
    assert!(adapter.contains("\"in_proj_qkv\"") && adapter.contains("\"q_proj\""), "{adapter}");
    CausalLm::load(&dir.path("samples/model"), Kind::Float, Device::Cpu).unwrap();
}

#[test]
fn adapters_samples_and_quantised_weights_of_shared_keys() {
    let dir = dir(&gemma4());
    for (name, text) in [
        ("adapter", "lora = { rank = 4, dropout = 0.2 }"),
        ("whole", "lora = { rank = 4, modules_to_save = ['embed_tokens_per_layer'] }"),
        ("quantised", "lora = { rank = 4 }\nquantization.load_in = '4bit'"),
        ("responses", "objective = 'sft'"),
        ("half", "dtype = 'bfloat16'"),
        ("samples", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }"),
    ] {
        assert_eq!(train(dir.with(name, text)).outcome, Outcome::Finished, "{name}");
    }
    let adapter = std::fs::read_to_string(dir.path("adapter/adapter/adapter_config.json")).unwrap();
    assert!(adapter.contains("\"per_layer_model_projection\""), "{adapter}");
    CausalLm::load(&dir.path("samples/model"), Kind::Float, Device::Cpu).unwrap();
    // Layers that read the keys of others keep none; the others differ in width and number of heads.
    let config = ModelConfig::from_folder(&dir.model()).unwrap();
    assert_eq!(config.cache_bytes(4), 2 * (2 * 24 + 2 * 16) * 4);
}

#[test]
fn adapters_rewards_and_samples_of_experts() {
    let dir = dir(&experts(0.01));
    for (name, text) in [
        ("adapter", "lora = { rank = 4 }"),
        ("half-adapter", "lora = { rank = 4 }\ndtype = 'bfloat16'\nmemory.activation_checkpointing = true"),
        ("attention", "lora = { rank = 4, dropout = 0.2, targets = ['q_proj', 'v_proj'] }"),
        ("tensors", "lora = { rank = 4, target_parameters = ['down_proj'] }"),
        ("quantised", "lora = { rank = 4 }\nquantization.load_in = '4bit'"),
        ("reward", "objective = 'reward'"),
        ("responses", "objective = 'sft'"),
        ("half", "dtype = 'bfloat16'"),
        ("samples", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }"),
    ] {
        assert_eq!(train(dir.with(name, text)).outcome, Outcome::Finished, "{name}");
    }
    let adapter =
        |name: &str| std::fs::read_to_string(dir.path(&format!("{name}/adapter/adapter_config.json"))).unwrap();
    assert!(adapter("adapter").contains("\"gate_up_proj\"") && !adapter("attention").contains("down_proj"));
    let only: Value = serde_json::from_str(&adapter("tensors")).unwrap();
    assert_eq!((&only["target_modules"], &only["target_parameters"]), (&json!([]), &json!(["down_proj"])));
    let dropped = dir.with("dropped", "lora = { rank = 4, dropout = 0.2 }");
    let error = Run::with_pairs(dropped, &dir.model(), &pairs(8), &[]).map(drop).unwrap_err().to_string();
    assert!(error.contains("adapter of experts is dropout of 0.2"), "{error}");
}

/// The state of a row stands beside the keys and values of its tokens.
#[test]
fn states_are_in_the_memory_estimate() {
    let dir = dir(&qwen());
    let config = ModelConfig::from_folder(&dir.model()).unwrap();
    // One of two layers has keys and values.
    assert_eq!(config.cache_bytes(4), 2 * 2 * 16 * 4);
    assert_eq!(config.state_bytes(4), 4 * (4 * 8 * 12) + 3 * (2 * 16 + 48) * 4);
    // Samples of an update's prompts keep both.
    let hypo = "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }";
    let run = Run::with_pairs(dir.with("x", hypo), &dir.model(), &pairs(8), &[]).unwrap();
    assert!(run.memory_estimate().unwrap().phases.passes > 5 * config.state_bytes(4));
}
