//! Architectures of llama.cpp and the families of transformers that they are: names of tensors, what its converter does to weights,
//! and the keys of a `config.json`.

use serde_json::{Value as Json, json};

use super::error::Result;
use super::reader::Gguf;
use super::rope;

/// An architecture that is read.
pub(super) struct Architecture {
    /// llama.cpp's name, which is the prefix of its metadata.
    pub(super) name: &'static str,
    /// transformers' `model_type` and class.
    model: [&'static str; 2],
    /// Modules of a layer: transformers' name and llama.cpp's.
    parts: &'static [(&'static str, &'static str)],
    /// Whether rows of queries and keys are in the order of llama.cpp's rotary kernel.
    pub(super) interleaves_rows: bool,
    /// Whether one was added to the weights of norms.
    pub(super) adds_one_to_norms: bool,
    /// Adds the family's own settings.
    adds: fn(&Gguf<'_>, &Shape, &mut Json) -> Result<()>,
    /// Metadata that these settings follow, among those that are refused otherwise.
    pub(super) follows: &'static [&'static str],
}

/// Sizes that settings of a family follow from.
pub(super) struct Shape {
    pub(super) layers: u64,
    pub(super) heads: u64,
    pub(super) width: u64,
    pub(super) head_dim: u64,
}

const ATTENTION: [(&str, &str); 4] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
];
const FEED_FORWARD: [(&str, &str); 3] =
    [("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const NORMS: [(&str, &str); 2] = [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")];
const QK_NORMS: [(&str, &str); 2] = [("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm")];
const FOUR_NORMS: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const LATE_NORMS: [(&str, &str); 2] =
    [("post_attention_layernorm", "post_attention_norm"), ("post_feedforward_layernorm", "post_ffw_norm")];
const FUSED: [(&str, &str); 4] = [
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

type Parts<const N: usize> = [(&'static str, &'static str); N];

/// Lists one after the other.
const fn joined<const N: usize>(lists: &[&[(&'static str, &'static str)]]) -> Parts<N> {
    let (mut all, mut at, mut list) = ([("", ""); N], 0, 0);
    while list < lists.len() {
        let mut item = 0;
        while item < lists[list].len() {
            all[at] = lists[list][item];
            (at, item) = (at + 1, item + 1);
        }
        list += 1;
    }
    assert!(at == N, "the length of the joined list is given");
    all
}

const LLAMA: Parts<9> = joined(&[&ATTENTION, &FEED_FORWARD, &NORMS]);
const QWEN3: Parts<11> = joined(&[&ATTENTION, &FEED_FORWARD, &NORMS, &QK_NORMS]);
const GEMMA2: Parts<11> = joined(&[&ATTENTION, &FEED_FORWARD, &FOUR_NORMS]);
const GEMMA3: Parts<13> = joined(&[&ATTENTION, &FEED_FORWARD, &FOUR_NORMS, &QK_NORMS]);
const OLMO2: Parts<11> = joined(&[&ATTENTION, &FEED_FORWARD, &LATE_NORMS, &QK_NORMS]);
const PHI3: Parts<6> = joined(&[&FUSED, &NORMS]);

const PLAIN: Architecture = Architecture {
    name: "llama",
    model: ["llama", "LlamaForCausalLM"],
    parts: &LLAMA,
    interleaves_rows: true,
    adds_one_to_norms: false,
    adds: |_, _, _| Ok(()),
    follows: &[],
};

/// Every architecture that is read.
const ALL: &[Architecture] = &[
    Architecture {
        adds: |_, _, config| {
            (config["attention_bias"], config["mlp_bias"]) = (false.into(), false.into());
            Ok(())
        },
        ..PLAIN
    },
    Architecture { name: "qwen2", model: ["qwen2", "Qwen2ForCausalLM"], interleaves_rows: false, ..PLAIN },
    Architecture {
        name: "qwen3",
        model: ["qwen3", "Qwen3ForCausalLM"],
        parts: &QWEN3,
        interleaves_rows: false,
        ..PLAIN
    },
    Architecture {
        name: "gemma2",
        model: ["gemma2", "Gemma2ForCausalLM"],
        parts: &GEMMA2,
        interleaves_rows: false,
        adds_one_to_norms: true,
        adds: gemma2,
        follows: &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
    },
    Architecture {
        name: "gemma3",
        model: ["gemma3_text", "Gemma3ForCausalLM"],
        parts: &GEMMA3,
        interleaves_rows: false,
        adds_one_to_norms: true,
        adds: gemma3,
        follows: &["attention.sliding_window", "rope.freq_base_swa", "final_logit_softcapping"],
    },
    Architecture {
        name: "phi3",
        model: ["phi3", "Phi3ForCausalLM"],
        parts: &PHI3,
        interleaves_rows: false,
        adds: phi3,
        follows: &["attention.sliding_window", "rope.dimension_count", "rope.scaling.attn_factor"],
        ..PLAIN
    },
    Architecture {
        name: "olmo2",
        model: ["olmo2", "Olmo2ForCausalLM"],
        parts: &OLMO2,
        interleaves_rows: false,
        ..PLAIN
    },
    // llama.cpp rotates no keys in every fourth layer, as the class does by default.
    Architecture { name: "smollm3", model: ["smollm3", "SmolLM3ForCausalLM"], ..PLAIN },
    Architecture {
        name: "granite",
        model: ["granite", "GraniteForCausalLM"],
        adds: granite,
        follows: &["attention.scale", "embedding_scale", "residual_scale", "logit_scale"],
        ..PLAIN
    },
    Architecture {
        name: "arcee",
        model: ["arcee", "ArceeForCausalLM"],
        adds: |_, _, config| {
            config["hidden_act"] = "relu2".into();
            Ok(())
        },
        ..PLAIN
    },
];

impl Architecture {
    /// That of a file.
    pub(super) fn of(gguf: &Gguf<'_>) -> Result<&'static Self> {
        const KEY: &str = "general.architecture";
        let name = gguf.text(KEY).unwrap_or("absent");
        ALL.iter().find(|known| known.name == name).ok_or_else(|| {
            let known: Vec<String> = ALL.iter().map(|known| format!("`{}`", known.name)).collect();
            gguf.unsupported(KEY, format!("`{name}`"), &format!("one of {}", known.join(", ")))
        })
    }

    /// Key of the architecture's own metadata.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// Adds class and settings of the family to a `config.json`.
    pub(super) fn complete(&self, gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
        let [model_type, class] = self.model;
        config["model_type"] = model_type.into();
        config["architectures"] = json!([class]);
        (self.adds)(gguf, shape, config)
    }

    /// llama.cpp's name of a checkpoint's tensor.
    pub(super) fn tensor(&self, name: &str) -> String {
        match name {
            "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
            "model.norm.weight" => return "output_norm.weight".to_owned(),
            "lm_head.weight" => return "output.weight".to_owned(),
            _ => {}
        }
        let inner = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let part = inner.and_then(|(layer, rest)| {
            let (theirs, ours) = self.parts.iter().find(|(theirs, _)| rest.starts_with(theirs))?;
            Some(format!("blk.{layer}.{ours}{}", &rest[theirs.len()..]))
        });
        part.unwrap_or_else(|| name.to_owned())
    }
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

fn gemma2(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    gemma(gguf, shape, config, 46);
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        add_number(gguf, &format!("gemma2.{cap}"), config, cap);
    }
    Ok(())
}

fn gemma3(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    gemma(gguf, shape, config, 62);
    add_number(gguf, "gemma3.final_logit_softcapping", config, "final_logit_softcapping");
    let period = gguf.unsigned("gemma3.attention.sliding_window_pattern").unwrap_or(6).max(1);
    let kind = |layer: u64| if (layer + 1).is_multiple_of(period) { "full_attention" } else { "sliding_attention" };
    // More layers than a model has are refused when the configuration is checked.
    config["layer_types"] = (0..shape.layers.min(1 << 12)).map(kind).collect();
    // Flat keys, which transformers 4 and 5 read: those of layers with a window have a base of their own and no scaling.
    let parameters = config.as_object_mut().and_then(|config| config.remove("rope_parameters")).unwrap_or_default();
    config["rope_theta"] = parameters["rope_theta"].clone();
    config["rope_local_base_freq"] = json!(gguf.float("gemma3.rope.freq_base_swa").unwrap_or(10_000.0));
    if parameters["rope_type"] == "linear" {
        config["rope_scaling"] = json!({ "rope_type": "linear", "factor": parameters["factor"] });
    }
    Ok(())
}

fn phi3(gguf: &Gguf<'_>, shape: &Shape, config: &mut Json) -> Result<()> {
    add_window(gguf, "phi3.attention.sliding_window", config);
    config["hidden_act"] = "silu".into();
    if let Some(rotated) = gguf.unsigned("phi3.rope.dimension_count") {
        config["partial_rotary_factor"] = json!(rotated as f64 / shape.head_dim.max(1) as f64);
    }
    rope::long(gguf, config)
}

fn granite(gguf: &Gguf<'_>, _: &Shape, config: &mut Json) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Architecture {
        ALL.iter().find(|known| known.name == name).unwrap()
    }

    #[test]
    fn names_are_those_of_llama_cpp() {
        let llama = named("llama");
        assert_eq!(llama.tensor("model.layers.12.mlp.down_proj.weight"), "blk.12.ffn_down.weight");
        assert_eq!(llama.tensor("model.layers.0.post_attention_layernorm.weight"), "blk.0.ffn_norm.weight");
        assert_eq!(llama.tensor("model.norm.weight"), "output_norm.weight");
        assert_eq!(named("qwen2").tensor("model.layers.3.self_attn.q_proj.bias"), "blk.3.attn_q.bias");
        assert_eq!(
            named("gemma2").tensor("model.layers.0.post_attention_layernorm.weight"),
            "blk.0.post_attention_norm.weight"
        );
        assert_eq!(named("phi3").tensor("model.layers.1.mlp.gate_up_proj.weight"), "blk.1.ffn_up.weight");
    }
}
