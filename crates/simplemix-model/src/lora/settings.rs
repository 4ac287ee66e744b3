//! Settings of an adapter that is trained.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::config::{LoraBias, LoraConfig, LoraTargets, LoraTask};
use super::matching::ModuleNames;

simplemix_settings::section! {
    /// Low-rank adapter, trained instead of all weights (arXiv:2106.09685).
    pub struct LoraSettings("lora") {
        /// Rank of the LoRA adapter to train; 0 trains all weights.
        rank: i64 = 0, in between(0.0, 65536.0), was "lora_rank";
        /// LoRA alpha; the adapter's output is scaled by alpha / rank.
        alpha: f64 = 32.0, from "TRL", was "lora_alpha";
        /// Dropout on the adapter's inputs.
        dropout: f64 = 0.0, in from_to_below(0.0, 1.0), was "lora_dropout";
        /// Layers to adapt, by the last part of their names, such as `q_proj`, `embed_tokens` or `lm_head`; all linear layers if empty,
        /// and peft's choice for the model's type if `peft-default`.
        targets: Vec<String> = Vec::new(), was "lora_targets";
        /// Regular expression for the whole names of the layers to adapt, as peft's `target_modules` given as one text; in place of
        /// `lora.targets`.
        target_pattern: Option<String> = None;
        /// Tensors of experts to adapt, by the ends of their names, such as `gate_up_proj`, `down_proj` or `gate.weight`; without
        /// `lora.targets` these alone. Empty: those for which `lora.targets` has the names of experts' layers, or stands empty.
        target_parameters: Vec<String> = Vec::new(), from "peft";
        /// Layers to leave out, by the last part of their names.
        exclude: Vec<String> = Vec::new();
        /// Decoder layers to adapt, by number; all of them if empty. Needs `lora.targets`.
        layers: Vec<i64> = Vec::new();
        /// Ranks of layers by regular expressions for the ends of their names, such as `q_proj` or `layers\.0\..*`.
        rank_pattern: BTreeMap<String, i64> = BTreeMap::new();
        /// Alphas of layers by such expressions.
        alpha_pattern: BTreeMap<String, f64> = BTreeMap::new();
        /// Modules to train whole beside the adapter, by the ends of their names, such as `lm_head`, `embed_tokens` or `norm`.
        modules_to_save: Vec<String> = Vec::new();
        /// Keep output head and embedding one matrix where `lora.modules_to_save` names one of them and the model ties them.
        ensure_weight_tying: bool = false, from "peft";
        /// Biases to train too: `all` of the model, or those of adapted layers, `lora_only`.
        bias: LoraBias = LoraBias::None, from "peft";
        /// Train the length of each row of the weights apart from its direction (DoRA, arXiv:2402.09353).
        dora: bool = false;
        /// Scale by alpha / sqrt(rank), as rank-stabilised LoRA does (arXiv:2312.03732).
        rslora: bool = false, was "lora_rslora";
        /// Folder of a peft adapter to continue training; the model without it is the reference.
        adapter: Option<PathBuf> = None, was "adapter";
    }
}

/// Word for the layers that peft adapts if none are named.
const PEFT_DEFAULT: &str = "peft-default";

/// Layers that peft 0.21 adapts in models of a type if none are named; none if it has no default.
fn peft_targets(model_type: &str) -> &'static [&'static str] {
    match model_type {
        "gemma" | "gemma2" | "gemma3_text" | "llama" | "mistral" | "mixtral" | "qwen2" | "qwen3" => {
            &["q_proj", "v_proj"]
        }
        "gpt2" => &["c_attn"],
        "gpt_neox" => &["query_key_value"],
        _ => &[],
    }
}

impl LoraSettings {
    /// Replaces `peft-default` among the targets by the layers that peft 0.21 adapts in models of this type if none are named
    /// (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`).
    ///
    /// # Errors
    /// An error that names the key if peft has no default for the type, or if the word stands beside names.
    pub fn resolve_targets(&mut self, model_type: &str) -> simplemix_settings::Result {
        if !self.targets.iter().any(|target| target == PEFT_DEFAULT) {
            return Ok(());
        }
        let refuse = |found: String, expected: &str| simplemix_settings::Error::value("lora.targets", found, expected);
        if self.targets.len() > 1 {
            return Err(refuse(format!("{:?}", self.targets), "`peft-default` alone, or names alone"));
        }
        match peft_targets(model_type) {
            [] => Err(refuse(
                PEFT_DEFAULT.to_owned(),
                &format!("names of layers: peft has no default for `{model_type}`"),
            )),
            names => {
                self.targets = names.iter().map(|&name| name.to_owned()).collect();
                Ok(())
            }
        }
    }

    /// Whether an adapter is trained: a new one or one from a folder.
    pub fn is_on(&self) -> bool {
        self.rank > 0 || self.adapter.is_some()
    }

    /// A setting of a new adapter that is set while none is trained, or an adapter from a folder is, which has its own.
    pub fn unused(&self) -> Option<&'static str> {
        let plain = Self { rank: self.rank, adapter: self.adapter.clone(), ..Self::default() };
        let sets = [
            ("lora.target_pattern", self.target_pattern != plain.target_pattern),
            ("lora.target_parameters", self.target_parameters != plain.target_parameters),
            ("lora.exclude", self.exclude != plain.exclude),
            ("lora.layers", self.layers != plain.layers),
            ("lora.rank_pattern", self.rank_pattern != plain.rank_pattern),
            ("lora.alpha_pattern", self.alpha_pattern != plain.alpha_pattern),
            ("lora.modules_to_save", self.modules_to_save != plain.modules_to_save),
            ("lora.ensure_weight_tying", self.ensure_weight_tying),
            ("lora.bias", self.bias != plain.bias),
            ("lora.dora", self.dora),
        ];
        sets.into_iter().find(|(_, is_set)| *is_set && self.rank == 0).map(|(key, _)| key)
    }

    /// Settings of a new adapter for a `task`; none if the rank is 0.
    pub fn config(&self, task: LoraTask) -> Option<LoraConfig> {
        let targets = match (&self.target_pattern, self.targets.as_slice()) {
            (Some(pattern), _) => LoraTargets::Pattern(pattern.clone()),
            (None, []) if !self.target_parameters.is_empty() => LoraTargets::Named(Vec::new()),
            (None, []) => LoraTargets::AllLinear,
            (None, names) => LoraTargets::Named(names.to_vec()),
        };
        (self.rank > 0).then(|| LoraConfig {
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            targets,
            parameters: self.target_parameters.clone(),
            exclude: ModuleNames::Named(self.exclude.clone()),
            rank_pattern: self.rank_pattern.clone().into_iter().collect(),
            alpha_pattern: self.alpha_pattern.clone().into_iter().collect(),
            layers: self.layers.clone(),
            modules_to_save: self.modules_to_save.clone(),
            bias: self.bias,
            rslora: self.rslora,
            dora: self.dora,
            tie: self.ensure_weight_tying,
            task,
            ..LoraConfig::default()
        })
    }
}
