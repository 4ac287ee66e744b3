//! Shape of an adapter, and the linear layers that it changes.

use std::path::Path;

use super::peft::{ADAPTER_CONFIG, tensor_names};
use crate::config::ModelConfig;
use crate::error::{At, Error, Result};
use crate::not_a_model;

/// Shape of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// r.
    pub rank: i64,
    /// The product of the two matrices is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of inputs dropped in training.
    pub dropout: f64,
    /// Linear layers that the adapter changes.
    pub targets: LoraTargets,
    /// Rank-stabilised scale (arXiv:2312.03732): `alpha / sqrt(rank)`.
    pub rslora: bool,
}

/// Linear layers that an adapter changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoraTargets {
    /// Every one but the output head.
    AllLinear,
    /// Those of these names: the last part, as in `q_proj`, or more of it, as in `3.self_attn.q_proj`.
    Named(Vec<String>),
}

impl Default for LoraConfig {
    /// Rank 16, alpha 32, every linear layer, no dropout.
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.0, targets: LoraTargets::AllLinear, rslora: false }
    }
}

impl LoraConfig {
    /// Reads the settings of a peft adapter's folder, without its weights.
    ///
    /// # Errors
    /// [`Error::NotAModel`] for a folder without an adapter, [`Error::Config`] for settings that are not computed.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        not_a_model::check_adapter(folder)?;
        let path = folder.join(ADAPTER_CONFIG);
        Self::from_json(&simplemix_files::read_to_string(&path).at(&path, "read")?, &path)
    }

    /// Tensors of an adapter of `model` under peft's names, with their shapes.
    ///
    /// # Errors
    /// [`Error::Input`] for a setting out of range or a target that matches no linear layer.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{LoraConfig, tiny};
    ///
    /// let tensors = LoraConfig { rank: 4, ..LoraConfig::default() }.tensors(&tiny::config())?;
    /// assert_eq!(tensors[0], ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".to_owned(), vec![4, 64]));
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn tensors(&self, model: &ModelConfig) -> Result<Vec<(String, Vec<i64>)>> {
        self.check()?;
        let of_module = |(name, [outputs, inputs]): (String, [i64; 2])| {
            let [a, b] = tensor_names(&name);
            [(a, vec![self.rank, inputs]), (b, vec![outputs, self.rank])]
        };
        Ok(self.modules(model)?.into_iter().flat_map(of_module).collect())
    }

    /// Checks rank, alpha and dropout.
    pub(super) fn check(&self) -> Result<()> {
        let refuse =
            |what, found: String, expected: &str| Err(Error::Input { what, found, expected: expected.to_owned() });
        if !(1..=1 << 16).contains(&self.rank) {
            return refuse("rank of an adapter", self.rank.to_string(), "a number from 1 to 65536");
        }
        if !self.alpha.is_finite() {
            return refuse("alpha of an adapter", self.alpha.to_string(), "a finite number");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout of an adapter", self.dropout.to_string(), "a number from 0 to below 1");
        }
        Ok(())
    }

    /// Factor of the product of the two matrices.
    pub(super) fn scale(&self) -> f64 {
        self.alpha / if self.rslora { (self.rank as f64).sqrt() } else { self.rank as f64 }
    }

    /// Modules of `config` that the adapter changes, under transformers' names, with their shapes `[O, I]`; every named target must match one.
    pub(crate) fn modules(&self, config: &ModelConfig) -> Result<Vec<(String, [i64; 2])>> {
        let layers = 0..config.num_hidden_layers;
        let all = layers.flat_map(|layer| {
            config
                .projections()
                .into_iter()
                .map(move |(name, shape, _)| (config.names.module(&format!("model.layers.{layer}.{name}")), shape))
        });
        let LoraTargets::Named(names) = &self.targets else { return Ok(all.collect()) };
        let is = |module: &str, name: &str| {
            module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let all: Vec<_> = all.collect();
        if let Some(name) = names.iter().find(|name| !all.iter().any(|(module, _)| is(module, name))) {
            let known = config.projection_names();
            return Err(Error::Input {
                what: "target of an adapter",
                found: format!("`{name}`, which matches no linear layer"),
                expected: format!("`all-linear`, or names among {}", known.join(", ")),
            });
        }
        if names.is_empty() {
            let (found, expected) = ("none".to_owned(), "at least one".to_owned());
            return Err(Error::Input { what: "targets of an adapter", found, expected });
        }
        Ok(all.into_iter().filter(|(module, _)| names.iter().any(|name| is(module, name))).collect())
    }
}
