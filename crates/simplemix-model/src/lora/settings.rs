//! Settings of an adapter that is trained.

use std::path::PathBuf;

use super::config::{LoraConfig, LoraTargets};

simplemix_settings::section! {
    /// Low-rank adapter, trained instead of all weights (arXiv:2106.09685).
    pub struct LoraSettings("lora") {
        /// Rank of the LoRA adapter to train; 0 trains all weights.
        rank: i64 = 0, in between(0.0, 65536.0), was "lora_rank";
        /// LoRA alpha; the adapter's output is scaled by alpha / rank.
        alpha: f64 = 32.0, from "TRL", was "lora_alpha";
        /// Dropout on the adapter's inputs.
        dropout: f64 = 0.0, in from_to_below(0.0, 1.0), was "lora_dropout";
        /// Linear layers to adapt, by the last part of their names, such as `q_proj`; all of them if empty, and peft's choice
        /// for the model's type if `peft-default`.
        targets: Vec<String> = Vec::new(), was "lora_targets";
        /// Scale by alpha / sqrt(rank), as rank-stabilised LoRA does (arXiv:2312.03732).
        rslora: bool = false, was "lora_rslora";
        /// Folder of a peft adapter to continue training; the model without it is the reference.
        adapter: Option<PathBuf> = None, was "adapter";
    }
}

/// Word for the layers that peft adapts if none are named.
const PEFT_DEFAULT: &str = "peft-default";

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
        match model_type {
            "gemma" | "gemma2" | "gemma3_text" | "llama" | "mistral" | "qwen2" | "qwen3" => {
                self.targets = ["q_proj", "v_proj"].map(str::to_owned).into();
                Ok(())
            }
            other => {
                Err(refuse(PEFT_DEFAULT.to_owned(), &format!("names of layers: peft has no default for `{other}`")))
            }
        }
    }

    /// Whether an adapter is trained: a new one or one from a folder.
    pub fn is_on(&self) -> bool {
        self.rank > 0 || self.adapter.is_some()
    }

    /// Shape of a new adapter; none if the rank is 0.
    pub fn config(&self) -> Option<LoraConfig> {
        let targets = match self.targets.as_slice() {
            [] => LoraTargets::AllLinear,
            names => LoraTargets::Named(names.to_vec()),
        };
        let (rank, alpha, dropout, rslora) = (self.rank, self.alpha, self.dropout, self.rslora);
        (rank > 0).then_some(LoraConfig { rank, alpha, dropout, targets, rslora })
    }
}
