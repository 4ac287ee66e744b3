//! Architectures of llama.cpp and the families of transformers that they are: names of tensors, what its converter does to weights,
//! and the keys of a `config.json`.

use serde_json::{Value as Json, json};

use super::error::Result;
use super::reader::Gguf;
use super::settings::{self, Shape};

/// An architecture that is read.
pub(super) struct Architecture {
    /// llama.cpp's name, which is the prefix of its metadata.
    pub(super) name: &'static str,
    /// transformers' `model_type` and class.
    model: [&'static str; 2],
    /// Modules of a layer: the decoder's name and llama.cpp's.
    parts: &'static [(&'static str, &'static str)],
    /// Whether rows of queries and keys are in the order of llama.cpp's rotary kernel.
    pub(super) interleaves_rows: bool,
    /// Whether rows of queries, keys and values, in one matrix head by head, are in the order all queries, all keys, all values.
    pub(super) gathers_qkv: bool,
    /// Whether one was added to the weights of norms.
    pub(super) adds_one_to_norms: bool,
    /// Adds the family's own settings.
    adds: fn(&Gguf<'_>, &Shape, &mut Json) -> Result<()>,
    /// Metadata that these settings follow, among those that are refused otherwise.
    pub(super) follows: &'static [&'static str],
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

const GATE_IN_UP: [(&str, &str); 2] = [("mlp.gate_up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const UP_AND_DOWN: [(&str, &str); 2] = [("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const UNGATED: [(&str, &str); 4] = [
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const SEED_NORMS: [(&str, &str); 2] =
    [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "post_attention_norm")];
const ONE_NORM: [(&str, &str); 1] = [("input_layernorm", "attn_norm")];

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
const GPT: Parts<6> = joined(&[&UNGATED, &NORMS]);
const GLM: Parts<8> = joined(&[&ATTENTION, &GATE_IN_UP, &NORMS]);
const GLM4: Parts<10> = joined(&[&ATTENTION, &GATE_IN_UP, &FOUR_NORMS]);
const SEED: Parts<9> = joined(&[&ATTENTION, &FEED_FORWARD, &SEED_NORMS]);
const COHERE: Parts<10> = joined(&[&ATTENTION, &FEED_FORWARD, &ONE_NORM, &QK_NORMS]);
const APERTUS: Parts<10> = joined(&[&ATTENTION, &UP_AND_DOWN, &NORMS, &QK_NORMS]);

const PLAIN: Architecture = Architecture {
    name: "llama",
    model: ["llama", "LlamaForCausalLM"],
    parts: &LLAMA,
    interleaves_rows: true,
    gathers_qkv: false,
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
        adds: settings::gemma2,
        follows: &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
        ..PLAIN
    },
    Architecture {
        name: "gemma3",
        model: ["gemma3_text", "Gemma3ForCausalLM"],
        parts: &GEMMA3,
        interleaves_rows: false,
        adds_one_to_norms: true,
        adds: settings::gemma3,
        follows: &["attention.sliding_window", "rope.freq_base_swa", "final_logit_softcapping"],
        ..PLAIN
    },
    Architecture {
        name: "phi3",
        model: ["phi3", "Phi3ForCausalLM"],
        parts: &PHI3,
        interleaves_rows: false,
        adds: settings::phi3,
        follows: &["attention.sliding_window", "rope.dimension_count", "rope.scaling.attn_factor"],
        ..PLAIN
    },
    Architecture {
        name: "olmo2",
        model: ["olmo2", "Olmo2ForCausalLM"],
        parts: &OLMO2,
        interleaves_rows: false,
        adds: settings::olmo,
        follows: &["attention.sliding_window", "rope.freq_base_swa"],
        ..PLAIN
    },
    // llama.cpp rotates no keys in every fourth layer, as the class does by default.
    Architecture { name: "smollm3", model: ["smollm3", "SmolLM3ForCausalLM"], ..PLAIN },
    Architecture {
        name: "granite",
        model: ["granite", "GraniteForCausalLM"],
        adds: settings::granite,
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
    Architecture {
        name: "gptneox",
        model: ["gpt_neox", "GPTNeoXForCausalLM"],
        parts: &GPT,
        interleaves_rows: false,
        gathers_qkv: true,
        adds: settings::gpt_neox,
        follows: &["rope.dimension_count", "use_parallel_residual"],
        ..PLAIN
    },
    Architecture {
        name: "gpt2",
        model: ["gpt2", "GPT2LMHeadModel"],
        parts: &GPT,
        interleaves_rows: false,
        adds: settings::gpt2,
        ..PLAIN
    },
    Architecture {
        name: "chatglm",
        model: ["glm", "GlmForCausalLM"],
        parts: &GLM,
        interleaves_rows: false,
        adds: settings::glm,
        follows: &["rope.dimension_count"],
        ..PLAIN
    },
    Architecture {
        name: "glm4",
        model: ["glm4", "Glm4ForCausalLM"],
        parts: &GLM4,
        interleaves_rows: false,
        adds: settings::glm,
        follows: &["rope.dimension_count"],
        ..PLAIN
    },
    Architecture {
        name: "exaone4",
        model: ["exaone4", "Exaone4ForCausalLM"],
        parts: &OLMO2,
        interleaves_rows: false,
        adds: settings::exaone4,
        follows: &["attention.sliding_window"],
        ..PLAIN
    },
    Architecture {
        name: "seed_oss",
        model: ["seed_oss", "SeedOssForCausalLM"],
        parts: &SEED,
        interleaves_rows: false,
        adds: settings::seed_oss,
        ..PLAIN
    },
    Architecture {
        name: "command-r",
        model: ["cohere", "CohereForCausalLM"],
        parts: &COHERE,
        interleaves_rows: false,
        adds: settings::cohere,
        follows: &["logit_scale"],
        ..PLAIN
    },
    Architecture {
        name: "cohere2",
        model: ["cohere2", "Cohere2ForCausalLM"],
        parts: &COHERE,
        interleaves_rows: false,
        adds: settings::cohere2,
        follows: &["logit_scale", "attention.sliding_window"],
        ..PLAIN
    },
    Architecture {
        name: "apertus",
        model: ["apertus", "ApertusForCausalLM"],
        parts: &APERTUS,
        interleaves_rows: false,
        adds: settings::apertus,
        ..PLAIN
    },
    Architecture {
        name: "mistral3",
        model: ["mistral", "MistralForCausalLM"],
        adds: settings::mistral3,
        follows: &["attention.temperature_scale", "rope.scaling.yarn_log_multiplier"],
        ..PLAIN
    },
];

/// Families that are written, beside `mistral`, by transformers' name.
pub(super) const WRITTEN: &[&str] =
    &["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2", "smollm3", "granite", "arcee"];

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

    /// That of a family, by transformers' name of its type, if files of it are written.
    pub(super) fn written(model_type: &str) -> Option<&'static Self> {
        // llama.cpp has Mistral's models without a window as Llama's.
        let model_type = if model_type == "mistral" { "llama" } else { model_type };
        let is_written = WRITTEN.contains(&model_type);
        ALL.iter().find(|known| is_written && known.model[0] == model_type)
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

    /// llama.cpp's name of a tensor that the decoder calls `name`.
    pub(super) fn tensor(&self, name: &str) -> String {
        match name {
            "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
            "model.embed_positions.weight" => return "position_embd.weight".to_owned(),
            "model.norm.weight" => return "output_norm.weight".to_owned(),
            "model.norm.bias" => return "output_norm.bias".to_owned(),
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
        assert_eq!(named("gpt2").tensor("model.embed_positions.weight"), "position_embd.weight");
        assert_eq!(named("gptneox").tensor("model.norm.bias"), "output_norm.bias");
    }
}
