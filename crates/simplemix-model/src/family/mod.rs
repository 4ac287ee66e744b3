//! Model families: what each has that Llama has not.
//!
//! A family is a file with one function, which reads the family's own keys into a [`ModelConfig`]. Settings that the
//! decoder does not know yet come as a field there. docs/models.md walks through adding one.

mod gemma2;
mod gemma3;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;

use serde_json::Value;

use crate::config::{Activation, Biases, Keys, LayerConfig, ModelConfig};
use crate::error::Result;

type Read = fn(&Keys<'_>) -> Result<ModelConfig>;

/// Every family: `model_type`, and what reads its keys.
const FAMILIES: &[(&str, Read)] = &[
    ("gemma2", gemma2::read),
    ("gemma3_text", gemma3::read),
    ("llama", llama::read),
    ("mistral", mistral::read),
    ("olmo2", olmo2::read),
    ("phi3", phi3::read),
    ("qwen2", qwen2::read),
    ("qwen3", qwen3::read),
];

/// `model_type`s whose numbers this crate computes.
pub const MODEL_TYPES: &[&str] = &{
    let mut names = [""; FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = FAMILIES[i].0;
        i += 1;
    }
    names
};

/// The configuration of whichever family `keys` are of.
pub(crate) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let kind = keys.text("model_type")?;
    match FAMILIES.iter().find(|(name, _)| Some(*name) == kind) {
        Some((_, read)) => read(keys),
        None => Err(keys.refuse("model_type", &format!("one of {}", MODEL_TYPES.join(", ")))),
    }
}

/// The gate's function under `key`.
fn activation(keys: &Keys<'_>, key: &str, default: Activation) -> Result<Activation> {
    match keys.text(key)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some(_) => Err(keys.refuse(key, "`silu` or `gelu_pytorch_tanh`")),
    }
}

/// Biases of all four attention projections or none, as `attention_bias` says.
fn attention_biases(keys: &Keys<'_>) -> Result<Biases> {
    let attention = keys.flag("attention_bias", false)?;
    Ok(Biases { qkv: attention, output: attention, mlp: false })
}

/// Layers that see only a window, from `layer_types` or, without it, from `default(layer)`.
fn sliding_layers(
    keys: &Keys<'_>,
    layers: usize,
    window: Option<i64>,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    let sliding = named_layers(keys, layers, default)?;
    if window.is_none() && sliding.contains(&true) {
        return Err(keys.refuse("sliding_window", "a window for the layers that `layer_types` gives one"));
    }
    Ok(sliding)
}

fn named_layers(keys: &Keys<'_>, layers: usize, default: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let expected = || keys.refuse("layer_types", &format!("{layers} of `full_attention` and `sliding_attention`"));
    let Some(types) = keys.get("layer_types") else { return Ok((0..layers).map(default).collect()) };
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(expected)?;
    let sliding = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(expected()),
    };
    types.iter().map(sliding).collect()
}

/// Layers that see `window` tokens where they slide.
fn windows(sliding: &[bool], window: Option<i64>) -> Vec<LayerConfig> {
    sliding.iter().map(|&slides| LayerConfig { window: window.filter(|_| slides), rope: 0 }).collect()
}
