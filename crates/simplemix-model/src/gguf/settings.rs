//! Settings of a family in `config.json` out of GGUF metadata.

use serde_json::{Value as Json, json};

use super::error::Result;
use super::reader::{Gguf, Value};
use super::rope;

/// Sizes that settings of a family follow from.
pub(super) struct Shape {
    pub(super) layers: u64,
    pub(super) heads: u64,
    pub(super) width: u64,
    pub(super) head_dim: u64,
}

/// A number under a key of the architecture, where it is given.
fn add_number(gguf: &Gguf<'_>, key: &str, config: &mut Json, to: &str) {
    if let Some(found) = gguf.float(key) {
        config[to] = json!(found);
    }
}

fn add_window(gguf: &Gguf<'_>, key: &str, config: &mut Json) {
    if let Some(window) = gguf.unsigned(key).filter(|window| *window > 0) {
        config["sliding_window"] = json!(window);
    }
}

/// Products of queries and keys are scaled by a head's width, but in the largest model by the width over the heads, as in
/// llama.cpp, which keeps no number for it.
fn gemma(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json, layers_of_largest: u64) {
    let is_largest = shape.layers == layers_of_largest;
    let scale = if is_largest { shape.width / shape.heads.max(1) } else { shape.head_dim };
    config["hidden_activation"] = "gelu_pytorch_tanh".into();
    config["query_pre_attn_scalar"] = json!(scale);
    let name = gguf.text("general.architecture").unwrap_or_default();
    add_window(gguf, &format!("{name}.attention.sliding_window"), config);
}

pub(super) fn gemma2(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    gemma(gguf, shape, config, 46);
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        add_number(gguf, &format!("gemma2.{cap}"), config, cap);
    }
    Ok(())
}

pub(super) fn gemma3(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    gemma(gguf, shape, config, 62);
    add_number(gguf, "gemma3.final_logit_softcapping", config, "final_logit_softcapping");
    config["layer_types"] = layer_types_of_window(gguf, "gemma3", shape, config, 6)?;
    // Flat keys, which transformers 4 and 5 read: those of layers with a window have a base of their own and no scaling.
    let parameters = take(config, "rope_parameters");
    config["rope_theta"] = parameters["rope_theta"].clone();
    config["rope_local_base_freq"] = json!(gguf.float("gemma3.rope.freq_base_swa").unwrap_or(10_000.0));
    if parameters["rope_type"] == "linear" {
        config["rope_scaling"] = json!({ "rope_type": "linear", "factor": parameters["factor"] });
    }
    Ok(())
}

pub(super) fn phi3(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    add_window(gguf, "phi3.attention.sliding_window", config);
    config["hidden_act"] = "silu".into();
    if let Some(rotated) = gguf.unsigned("phi3.rope.dimension_count") {
        config["partial_rotary_factor"] = json!(rotated as f64 / shape.head_dim.max(1) as f64);
    }
    rope::long(gguf, config)
}

pub(super) fn granite(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    for (key, to) in [
        ("granite.attention.scale", "attention_multiplier"),
        ("granite.embedding_scale", "embedding_multiplier"),
        ("granite.residual_scale", "residual_multiplier"),
        ("granite.logit_scale", "logits_scaling"),
    ] {
        add_number(gguf, key, config, to);
    }
    Ok(())
}

/// Base of the rotary rule of OLMo 3's layers with a window, which transformers takes where a file says none.
const OLMO3_THETA: f64 = 500_000.0;

/// OLMo 3 has OLMo 2's name, and a window.
pub(super) fn olmo(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    add_window(gguf, "olmo2.attention.sliding_window", config);
    if config["sliding_window"].is_null() {
        return Ok(());
    }
    (config["model_type"], config["architectures"]) = ("olmo3".into(), json!(["Olmo3ForCausalLM"]));
    config["layer_types"] = layer_types(gguf, "olmo2", shape, 4)?;
    let full = take(config, "rope_parameters");
    let theta = gguf.float("olmo2.rope.freq_base_swa").or(full["rope_theta"].as_f64()).unwrap_or(OLMO3_THETA);
    if theta != OLMO3_THETA {
        // transformers 5 alone reads a base of their own.
        config["rope_scaling"] = Json::Null;
        config["rope_parameters"] =
            json!({ "full_attention": full, "sliding_attention": { "rope_type": "default", "rope_theta": theta } });
    }
    Ok(())
}

/// The file does not say which GELU: the published models have the one by the error function, or one that is 0.0005 from it.
pub(super) fn gpt_neox(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    add_layer_norm(gguf, "gptneox", config, "layer_norm_eps")?;
    let parallel = gguf.flag("gptneox.use_parallel_residual");
    let parallel =
        parallel.ok_or_else(|| gguf.unsupported("gptneox.use_parallel_residual", "absent", "true or false"))?;
    config["use_parallel_residual"] = parallel.into();
    config["hidden_act"] = "gelu".into();
    take(config, "head_dim");
    config["rotary_emb_base"] = config["rope_theta"].clone();
    add_rotated(gguf, "gptneox", shape, config, "rotary_pct");
    Ok(())
}

pub(super) fn gpt2(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    add_layer_norm(gguf, "gpt2", config, "layer_norm_epsilon")?;
    for (general, own) in [
        ("hidden_size", "n_embd"),
        ("intermediate_size", "n_inner"),
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
        ("max_position_embeddings", "n_positions"),
    ] {
        config[own] = take(config, general);
    }
    for none in ["head_dim", "num_key_value_heads", "hidden_act", "rope_theta", "rope_parameters", "rope_scaling"] {
        take(config, none);
    }
    config["activation_function"] = "gelu_new".into();
    Ok(())
}

/// GLM 4 of 2024 and of 2025.
pub(super) fn glm(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    config["attention_bias"] = has_bias(gguf, "attn_q").into();
    let name = gguf.text("general.architecture").unwrap_or_default();
    add_rotated(gguf, name, shape, config, "partial_rotary_factor");
    Ok(())
}

/// Without a window in the file, llama.cpp gives one to the model with 64 layers.
pub(super) fn exaone4(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    config["sliding_window"] = if shape.layers == 64 { 4096.into() } else { Json::Null };
    add_window(gguf, "exaone4.attention.sliding_window", config);
    config["layer_types"] = layer_types_of_window(gguf, "exaone4", shape, config, 4)?;
    Ok(())
}

pub(super) fn seed_oss(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    config["attention_bias"] = has_bias(gguf, "attn_q").into();
    config["attention_out_bias"] = has_bias(gguf, "attn_output").into();
    config["mlp_bias"] = has_bias(gguf, "ffn_up").into();
    Ok(())
}

pub(super) fn cohere(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    add_layer_norm(gguf, "command-r", config, "layer_norm_eps")?;
    config["logit_scale"] = json!(needed_number(gguf, "command-r.logit_scale")?);
    config["attention_bias"] = has_bias(gguf, "attn_q").into();
    config["use_qk_norm"] = gguf.tensors.contains_key("blk.0.attn_q_norm.weight").into();
    Ok(())
}

pub(super) fn cohere2(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    add_layer_norm(gguf, "cohere2", config, "layer_norm_eps")?;
    config["logit_scale"] = json!(needed_number(gguf, "cohere2.logit_scale")?);
    config["attention_bias"] = has_bias(gguf, "attn_q").into();
    config["sliding_window"] = gguf.needed("cohere2.attention.sliding_window")?.into();
    config["layer_types"] = layer_types(gguf, "cohere2", shape, 4)?;
    Ok(())
}

pub(super) fn apertus(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    config["hidden_act"] = "xielu".into();
    config["attention_bias"] = has_bias(gguf, "attn_q").into();
    Ok(())
}

/// Mistral, or Ministral 3 where queries grow with their position.
pub(super) fn mistral3(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
    const GROWTH: &str = "mistral3.attention.temperature_scale";
    const SCALE: &str = "mistral3.rope.scaling.yarn_log_multiplier";
    config["sliding_window"] = Json::Null;
    let Some(beta) = gguf.float(GROWTH).filter(|beta| *beta != 0.0) else {
        return match gguf.float(SCALE) {
            None | Some(0.0) => Ok(()),
            Some(found) => Err(gguf.unsupported(SCALE, found.to_string(), &format!("none without `{GROWTH}`"))),
        };
    };
    if config["rope_parameters"]["rope_type"] != "yarn" {
        return Err(gguf.unsupported(GROWTH, beta.to_string(), "none without YaRN, which knows the first context"));
    }
    (config["model_type"], config["architectures"]) = ("ministral3".into(), json!(["Ministral3ForCausalLM"]));
    // llama.cpp takes 1 for `mscale`, which a file does not have.
    let rule = json!({ "llama_4_scaling_beta": beta, "mscale": 1.0, "mscale_all_dim": needed_number(gguf, SCALE)? });
    for (key, value) in rule.as_object().into_iter().flatten() {
        config["rope_parameters"][key] = value.clone();
        config["rope_scaling"][key] = value.clone();
    }
    config["rope_scaling"]["rope_theta"] = config["rope_theta"].clone();
    Ok(())
}

/// Takes a key out, null if there is none.
fn take(config: &mut Json, key: &str) -> Json {
    config.as_object_mut().and_then(|config| config.remove(key)).unwrap_or_default()
}

fn needed_number(gguf: &Gguf<'_>, key: &str) -> Result<f64> {
    gguf.float(key).ok_or_else(|| gguf.unsupported(key, "absent or no number", "a number"))
}

/// The summand under the root of norms by variance, in the place of that of norms by square.
fn add_layer_norm(gguf: &Gguf<'_>, name: &str, config: &mut Json, to: &str) -> Result<()> {
    take(config, "rms_norm_eps");
    config[to] = json!(needed_number(gguf, &format!("{name}.attention.layer_norm_epsilon"))?);
    Ok(())
}

/// Rotated share of a head, all of it where the file says nothing.
fn add_rotated(gguf: &Gguf<'_>, name: &str, shape: &Shape, config: &mut Json, to: &str) {
    let rotated = gguf.unsigned(&format!("{name}.rope.dimension_count")).unwrap_or(shape.head_dim);
    let share = json!(rotated as f64 / shape.head_dim.max(1) as f64);
    config["rope_parameters"]["partial_rotary_factor"] = share.clone();
    config[to] = share;
}

/// Whether a module of the first layer has a bias, queries with keys and values perhaps.
fn has_bias(gguf: &Gguf<'_>, module: &str) -> bool {
    let has = |module: &str| gguf.tensors.contains_key(&format!("blk.0.{module}.bias"));
    has(module) || (module == "attn_q" && has("attn_qkv"))
}

/// As [`layer_types`], where no layer has a window if the model has none.
fn layer_types_of_window(gguf: &Gguf<'_>, name: &str, shape: &Shape, config: &Json, period: u64) -> Result<Json> {
    match config["sliding_window"].is_null() {
        true => Ok(named_layers(shape, |_| false)),
        false => layer_types(gguf, name, shape, period),
    }
}

/// Kinds of layers: a flag for each layer that has a window, or every `period`th has none.
fn layer_types(gguf: &Gguf<'_>, name: &str, shape: &Shape, period: u64) -> Result<Json> {
    let key = format!("{name}.attention.sliding_window_pattern");
    let Some(flags) = gguf.list(&key) else {
        let period = gguf.unsigned(&key).unwrap_or(period);
        return Ok(named_layers(shape, |layer| period == 0 || !(layer + 1).is_multiple_of(period)));
    };
    let flag = |flag: &Value| match flag {
        Value::Bool(flag) => Some(*flag),
        Value::Unsigned(number) => Some(*number != 0),
        Value::Signed(number) => Some(*number != 0),
        _ => None,
    };
    let found: Option<Vec<bool>> = flags.iter().map(flag).collect();
    match found.filter(|found| found.len() as u64 == shape.layers) {
        Some(found) => Ok(named_layers(shape, |layer| found[layer as usize])),
        None => {
            let expected = format!("a number, or {} flags, one for each layer", shape.layers);
            Err(gguf.unsupported(&key, format!("a list of {}", flags.len()), &expected))
        }
    }
}

/// `layer_types`. More layers than a model has are refused when the configuration is checked.
fn named_layers(shape: &Shape, slides: impl Fn(u64) -> bool) -> Json {
    let kind = |layer| if slides(layer) { "sliding_attention" } else { "full_attention" };
    (0..shape.layers.min(1 << 12)).map(kind).collect()
}
