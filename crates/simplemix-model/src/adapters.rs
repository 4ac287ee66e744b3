//! Adapters of a model by name.
//!
//! A model may hold several adapters; at most one is active. [`CausalLm::with_adapter`] gives a second handle on the same
//! weights with another adapter active, so a policy and its reference are one model in memory.

use std::collections::HashMap;
use std::path::Path;

use tch::Tensor;

use crate::causal_lm::CausalLm;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::{Adapter, Base, Change, LoraConfig, LoraTask, stored_embeddings};
use crate::weights::{self, Merging, Parameters};

impl CausalLm {
    /// Adds an adapter, made from `seed`, under `name`. It is active only in the handle that [`CausalLm::with_adapter`]
    /// gives, and changes nothing until it is trained.
    ///
    /// # Errors
    /// [`Error::Input`] for settings out of range, a name in use, or a target that matches no linear layer.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{CausalLm, LoraConfig, tiny};
    /// use tch::Device;
    ///
    /// let mut reference = CausalLm::random(tiny::config(), 1, Device::Cpu)?;
    /// reference.add_adapter("default", LoraConfig { rank: 4, ..LoraConfig::default() }, 7)?;
    /// let policy = reference.with_adapter(Some("default"))?;
    /// policy.set_trainable(true);
    /// // Two layers, rank 4: inputs and outputs of the four attention projections and the three of the feed-forward.
    /// let trained: i64 = policy.trainable_parameters().iter().map(|(_, t)| t.numel() as i64).sum();
    /// assert_eq!(trained, 2 * 4 * (4 * 64 + 192 + 3 * (64 + 160)));
    /// # Ok::<(), simplemix_model::Error>(())
    /// ```
    pub fn add_adapter(&mut self, name: &str, config: LoraConfig, seed: u64) -> Result<()> {
        config.check_task(LoraTask::CausalLm)?;
        let adapter = Adapter::new(config, self.base(), seed)?;
        self.insert(name, adapter)
    }

    /// Adds an adapter from peft's folder under `name`.
    ///
    /// An embedding or output head that the folder holds takes the place of the model's, in every handle made from now on, as in peft;
    /// so does its vocabulary.
    ///
    /// # Errors
    /// [`Error::NotAModel`] for a folder without an adapter, [`Error::Config`] for settings that are not computed, [`Error::Weights`] if its tensors
    /// do not fit the model, [`Error::Safetensors`], [`Error::Input`] if the name is in use, or the vocabulary that of another adapter.
    pub fn load_adapter(&mut self, name: &str, folder: &Path) -> Result<()> {
        let config = LoraConfig::from_folder(folder)?;
        config.check_task(LoraTask::CausalLm)?;
        let stored = stored_embeddings(folder, &config, self.base())?;
        let holds_embeddings = stored.is_some();
        if holds_embeddings && !self.adapters.is_empty() {
            let found = format!("one with embeddings of its own, in {}", folder.display());
            let expected = "a model without other adapters for it".to_owned();
            return Err(Error::Input { what: "adapter", found, expected });
        }
        check_whole(holds_embeddings, self.is_divided(), folder)?;
        // The model takes the embeddings once everything else has been read.
        let base = match &stored {
            Some((config, parameters)) => Base { config, parameters, ..self.base() },
            None => self.base(),
        };
        let adapter = Adapter::load(folder, config, base, holds_embeddings)?;
        if let Some((config, parameters)) = stored {
            self.replace(config, parameters);
        }
        self.notices.extend(adapter.notices.iter().cloned());
        self.insert(name, adapter)
    }

    fn insert(&mut self, name: &str, adapter: Adapter) -> Result<()> {
        if self.adapters.contains_key(name) {
            let (found, expected) = (format!("`{name}`"), "one that is not in use".to_owned());
            return Err(Error::Input { what: "name of an adapter", found, expected });
        }
        self.adapters.insert(name.to_owned(), adapter);
        Ok(())
    }

    /// Another handle on the same weights and adapters, with `name`'s adapter active, or none.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such adapter.
    pub fn with_adapter(&self, name: Option<&str>) -> Result<Self> {
        if let Some(name) = name {
            self.adapter(name)?;
        }
        Ok(self.handle(name.map(str::to_owned), None))
    }

    /// Another handle on the same weights and adapters in which the active adapter drops inputs, for training; which ones is a
    /// function of `seed`, the module, the token's segment ([`crate::Packed::name`]), its place there, and the feature.
    #[must_use]
    pub fn in_training(&self, seed: u64) -> Self {
        self.handle(self.active.clone(), Some(seed))
    }

    /// Name of the active adapter.
    pub fn active_adapter(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// Share of inputs that the active adapter drops in training; 0 where there is none.
    pub fn adapter_dropout(&self) -> f64 {
        self.active.as_ref().map_or(0.0, |name| self.adapters[name].config.dropout)
    }

    /// Another handle, without adapters, whose weights have the active adapter's product added. The weights that it
    /// changes are copies: this handle keeps its own, so dropping the merged one unmerges exactly. An output head that is no longer
    /// the embedding gets weights of its own.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn merged(&self) -> Result<Self> {
        let (config, parameters, changes) = self.merging();
        let base = self.base();
        let merge = |(name, tensor): (String, Tensor)| {
            let whole = base.made_whole(&name, tensor)?;
            let merged = match changes.get(&name) {
                Some(change) => change.merged_into(&whole)?,
                None => whole,
            };
            Ok((name, merged))
        };
        let parameters = parameters.into_iter().map(merge).collect::<Result<_>>()?;
        let mut model = Self::from_tensors(config, parameters, self.kind(), self.device());
        model.origin.clone_from(&self.origin);
        Ok(model)
    }

    /// Whether the active adapter changes no number, as before training; true where there is none.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn is_unadapted(&self) -> Result<bool> {
        self.active.as_ref().map_or(Ok(true), |name| self.adapters[name].is_neutral(self.base()))
    }

    fn merging(&self) -> (ModelConfig, Parameters, HashMap<String, Change>) {
        match &self.active {
            Some(name) => self.adapters[name].merging(self.base()),
            None => {
                let own = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
                (self.config().clone(), own.collect(), HashMap::new())
            }
        }
    }

    /// Writes the files that [`CausalLm::merged`] and [`CausalLm::save`] would, without a second model: each weight is merged,
    /// on its device, when its turn to be written comes.
    ///
    /// # Errors
    /// As [`CausalLm::save`]; [`Error::Io`] where memory does not suffice for a weight.
    pub fn save_merged(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        let (config, parameters, changes) = self.merging();
        let weights = self.merged_weights(&config, &parameters, &changes);
        self.saving(weights, source, weights::MAX_SHARD_BYTES).write(folder, |_| ())
    }

    /// Helps another process in [`CausalLm::save_merged`], as [`CausalLm::help_save`].
    ///
    /// # Errors
    /// As [`crate::Residence::whole`].
    pub fn help_save_merged(&self) -> Result<()> {
        let (config, parameters, changes) = self.merging();
        self.saving(self.merged_weights(&config, &parameters, &changes), None, weights::MAX_SHARD_BYTES).help()
    }

    fn merged_weights<'a>(
        &'a self,
        config: &'a ModelConfig,
        parameters: &'a Parameters,
        changes: &'a HashMap<String, Change>,
    ) -> Merging<'a> {
        Merging { config, parameters, changes: Some(changes), residence: self.residence() }
    }

    /// Writes `name`'s adapter as peft does, into a folder that appears whole or not at all. `base` is what peft is to
    /// load the model from.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such adapter, [`Error::Files`] if `folder` exists already or cannot be written.
    pub fn save_adapter(&self, name: &str, folder: &Path, base: Option<&str>) -> Result<()> {
        let adapter = self.adapter(name)?;
        crate::folder::write(folder, |new| adapter.write(new, self.base(), base))
    }

    fn adapter(&self, name: &str) -> Result<&Adapter> {
        let known = || self.adapters.keys().cloned().collect::<Vec<_>>().join(", ");
        self.adapters.get(name).ok_or_else(|| Error::Input {
            what: "name of an adapter",
            found: format!("`{name}`"),
            expected: if self.adapters.is_empty() {
                "no name, since the model has no adapter".to_owned()
            } else {
                format!("one of {}", known())
            },
        })
    }
}

/// Refuses embeddings of an adapter for weights that are divided, which have no place for them.
pub(crate) fn check_whole(holds_embeddings: bool, is_divided: bool, folder: &Path) -> Result<()> {
    if !(holds_embeddings && is_divided) {
        return Ok(());
    }
    let found = format!("one with embeddings of its own, in {}", folder.display());
    let expected = "a model whose weights are divided among processes after it has been loaded".to_owned();
    Err(Error::Input { what: "adapter", found, expected })
}
