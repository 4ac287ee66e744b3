//! Model families: what each has that Llama has not.
//!
//! A family is a file with one function, which reads the family's own keys into a [`ModelConfig`]. Settings that the
//! decoder does not know yet come as a field there. docs/models.md walks through adding one.

mod apertus;
mod arcee;
mod cohere;
mod cohere2;
mod exaone4;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm;
mod glm4;
mod glm4_moe;
mod gpt2;
mod gpt_neox;
mod granite;
mod lfm2;
mod llama;
mod ministral3;
mod mistral;
mod mixtral;
mod multimodal;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen_vl;
mod seed_oss;
mod smollm3;

use serde_json::Value;

pub use multimodal::MULTIMODAL_TYPES;
pub(crate) use multimodal::Multimodal;

use crate::config::{Activation, Biases, Keys, LayerConfig, ModelConfig, Routing};
use crate::error::{Error, Result};

/// Models whose settings are read alike.
#[derive(Debug)]
#[non_exhaustive]
pub struct Family {
    /// transformers' name.
    pub model_type: &'static str,
    /// Models of this name.
    pub models: &'static str,
    /// Parts that Llama does not have, in words.
    pub differs: &'static str,
    /// Padding token of files without the key.
    pad: Option<i64>,
    /// Whether transformers has a class that scores sequences.
    has_rewards: bool,
    /// Reader of the family's keys.
    read: fn(&Keys<'_>) -> Result<ModelConfig>,
}

impl Family {
    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        let key = "pad_token_id";
        let pad_token_id = if keys.has(key) { keys.get(key).and_then(Value::as_i64) } else { self.pad };
        Ok(ModelConfig { pad_token_id, ..(self.read)(keys)? })
    }
}

/// Every family, by name.
pub const FAMILIES: &[Family] = &[
    apertus::FAMILY,
    arcee::FAMILY,
    cohere::FAMILY,
    cohere2::FAMILY,
    exaone4::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    gemma4::FAMILY,
    glm::FAMILY,
    glm4::FAMILY,
    glm4_moe::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    granite::FAMILY,
    lfm2::FAMILY,
    llama::FAMILY,
    ministral3::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    olmo2::FAMILY,
    olmo3::FAMILY,
    olmoe::FAMILY,
    phi3::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_5::FAMILY,
    qwen3_moe::FAMILY,
    seed_oss::FAMILY,
    smollm3::FAMILY,
];

/// Text models that transformers has inside of multimodal ones alone, by name.
const INSIDE: &[Family] = &[qwen_vl::QWEN2_5_VL, qwen_vl::QWEN2_VL, qwen_vl::QWEN3_VL];

/// `model_type`s whose numbers this crate computes.
pub const MODEL_TYPES: &[&str] = &{
    let mut names = [""; FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = FAMILIES[i].model_type;
        i += 1;
    }
    names
};

/// The configuration of whichever family `keys` are of.
pub(crate) fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    let kind = keys.text("model_type")?;
    if let Some(family) = FAMILIES.iter().find(|family| Some(family.model_type) == kind) {
        return family.read(keys);
    }
    if let Some(class) = kind.and_then(multimodal::of) {
        return class.read(keys);
    }
    let (families, classes) = (MODEL_TYPES.join(", "), MULTIMODAL_TYPES.join(", "));
    Err(keys.refuse("model_type", &format!("one of {families}; or of {classes}, whose text part is read")))
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

/// The function under `key` of a feed-forward layer without gate.
fn any_activation(keys: &Keys<'_>, key: &str, default: Activation) -> Result<Activation> {
    match keys.text(key)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        // Words for one formula.
        Some("gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh") => {
            Ok(Activation::GeluTanh)
        }
        Some("relu") => Ok(Activation::Relu),
        Some("relu2") => Ok(Activation::ReluSquared),
        Some("xielu") if default == Activation::Xielu => Ok(Activation::Xielu),
        Some(_) => {
            Err(keys.refuse(key, "`gelu`, `gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`, `relu`, `relu2` or `silu`"))
        }
    }
}

/// Biases of all four attention projections or none, as `attention_bias` says.
fn attention_biases(keys: &Keys<'_>) -> Result<Biases> {
    let attention = keys.flag("attention_bias", false)?;
    Ok(Biases { qkv: attention, output: attention, mlp: false })
}

/// How many experts there are, under `key` or under the name that transformers has for it in all families.
fn experts_of(keys: &Keys<'_>, key: &str, default: i64) -> Result<i64> {
    const ALIASES: [&str; 2] = ["num_experts", "num_local_experts"];
    let other = ALIASES.iter().find(|alias| **alias != key && keys.has(alias) && !keys.has(key));
    keys.count_or(other.copied().unwrap_or(key), default)
}

/// Number of experts under `key`, and how they are chosen where `norm_topk_prob` says so.
fn softmax_routing(keys: &Keys<'_>, key: &str, default: i64, rounded: bool) -> Result<(i64, Routing)> {
    let normed = keys.flag("norm_topk_prob", false)?;
    Ok((experts_of(keys, key, default)?, Routing::Softmax { normed, rounded }))
}

/// Factor of the routers' loss: from 0.
fn aux_loss_coef(keys: &Keys<'_>, default: f64) -> Result<f64> {
    const KEY: &str = "router_aux_loss_coef";
    let expected = || keys.refuse(KEY, "a number from 0");
    keys.get(KEY).map_or(Ok(default), |value| {
        value.as_f64().filter(|coef| coef.is_finite() && *coef >= 0.0).ok_or_else(expected)
    })
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
    layers_of_kind(keys, layers, "sliding_attention", default)
}

/// Whether each layer is of `kind`, where `layer_types` names it or `full_attention`; without the key, as `default(layer)` says.
fn layers_of_kind(keys: &Keys<'_>, layers: usize, kind: &str, default: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let expected = || keys.refuse("layer_types", &format!("{layers} of `full_attention` and `{kind}`"));
    let Some(types) = keys.get("layer_types") else { return Ok((0..layers).map(default).collect()) };
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(expected)?;
    let is_of_kind = |named: &Value| match named.as_str() {
        Some(named) if named == kind => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(expected()),
    };
    types.iter().map(is_of_kind).collect()
}

/// Layers that see `window` tokens where they slide.
fn windows(sliding: &[bool], window: Option<i64>) -> Vec<LayerConfig> {
    let layer = |&slides| LayerConfig { window: window.filter(|_| slides), ..LayerConfig::PLAIN };
    sliding.iter().map(layer).collect()
}

/// As [`windows`], where layers that see everything are not rotated.
fn rotated_windows(sliding: &[bool], window: Option<i64>) -> Vec<LayerConfig> {
    let rope = |slides| if slides { Some(0) } else { None };
    let layers = windows(sliding, window).into_iter().zip(sliding);
    layers.map(|(layer, &slides)| LayerConfig { rope: rope(slides), ..layer }).collect()
}

/// Refuses reward models of a type for which transformers has no class.
pub(crate) fn check_score(config: &ModelConfig) -> Result<()> {
    let (has_rewards, model_type) = match config.multimodal {
        Some(class) => (class.has_rewards, class.model_type),
        None => {
            let own = FAMILIES.iter().chain(INSIDE).find(|family| family.model_type == config.model_type);
            (own.is_none_or(|family| family.has_rewards), config.model_type.as_str())
        }
    };
    match has_rewards {
        true => Ok(()),
        false => Err(Error::Input {
            what: "`model_type` of a reward model",
            found: format!("`{model_type}`"),
            expected: "one for which transformers has a class that scores sequences; it has none for this one"
                .to_owned(),
        }),
    }
}

/// transformers' class that scores sequences, where its name does not follow from that of the language model's class.
pub(crate) fn scorer(config: &ModelConfig) -> Option<&'static str> {
    match (config.multimodal, config.model_type.as_str()) {
        (None, "gemma3_text") => Some("Gemma3TextForSequenceClassification"),
        (None, "qwen3_5_text") => Some("Qwen3_5TextForSequenceClassification"),
        _ => None,
    }
}

/// As [`windows`], with the second rotary embedding in layers that slide.
fn windows_with_own_rope(sliding: &[bool], window: Option<i64>) -> Vec<LayerConfig> {
    let layers = windows(sliding, window).into_iter().zip(sliding);
    layers.map(|(layer, &slides)| LayerConfig { rope: Some(usize::from(slides)), ..layer }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- families: UPDATE_DOCS=1 cargo test -p simplemix-model --lib table_of_families -->\n";
    const END: &str = "<!-- end of families -->";

    /// Compares a table of docs/models.md, between two marks, with the one that the code makes; UPDATE_DOCS=1 writes it.
    pub(super) fn check_table(begin: &str, end: &str, expected: &str) {
        // Tests of one process may write the page at once.
        static PAGE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _alone = PAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(begin).expect("docs/models.md has the first marker");
        let (table, after) = rest.split_once(end).expect("docs/models.md has the second marker");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        } else {
            assert_eq!(table, expected, "run the command in {begin}");
        }
    }

    #[test]
    fn families_are_in_order_and_named_once() {
        assert!(MODEL_TYPES.is_sorted_by(|a, b| a < b), "{MODEL_TYPES:?}");
    }

    #[test]
    fn the_table_of_families_is_up_to_date() {
        let row = |family: &Family| {
            let differs = if family.differs.is_empty() { String::new() } else { format!("{} ", family.differs) };
            format!("| `{}` | {} | {differs}|\n", family.model_type, family.models)
        };
        let rows: String = FAMILIES.iter().chain(INSIDE).map(row).collect();
        let expected = format!("\n| `model_type` | models | differs from Llama in |\n| --- | --- | --- |\n{rows}\n");
        check_table(BEGIN, END, &expected);
    }
}
