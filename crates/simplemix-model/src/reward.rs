//! Reward models: transformers' `*ForSequenceClassification` with one label.
//!
//! Letters: S sequences, H width.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::adapters::check_whole;
use crate::causal_lm::CausalLm;
use crate::checkpoint::Top;
use crate::checkpointing::Checkpointed;
use crate::config::{HEAD, ModelConfig};
use crate::error::{Doing, Error, Result};
use crate::family;
use crate::folder::{self, Saving};
use crate::lora::{Adapter, Base, LoraConfig, LoraTask, Loras, stored_embeddings};
use crate::network::{self, Loaded, Network};
use crate::packed::Packed;
use crate::quantized::{QuantizationSettings, Quantizer};
use crate::residence::{Divider, Residence, Resident, Stage};
use crate::weights::{self, Merging, Parameters};

/// A decoder with a linear score in place of the output head.
#[derive(Debug)]
pub struct RewardModel {
    network: Network,
    parameters: Parameters,
    /// Active, if there is one.
    adapter: Option<Adapter>,
    score: Tensor, // [1, H]
    pad: Option<i64>,
    notices: Vec<String>,
    /// Folder that it was loaded from.
    origin: Option<PathBuf>,
}

impl RewardModel {
    /// Loads a folder of a `*ForSequenceClassification` of any family, as `kind` on `device`.
    ///
    /// # Errors
    /// As [`crate::CausalLm::load`]; a model of several labels has a misshapen `score.weight`.
    pub fn load(folder: &Path, kind: Kind, device: Device) -> Result<Self> {
        Self::load_divided(folder, kind, device, None)
    }

    /// As [`RewardModel::load`], with the weights of linear layers quantised as the settings say.
    ///
    /// # Errors
    /// As [`RewardModel::load`], and for a checkpoint that is quantised already, unless the settings leave it as it is.
    pub fn load_quantized(folder: &Path, kind: Kind, device: Device, settings: &QuantizationSettings) -> Result<Self> {
        let mut quantizer = Quantizer::new(settings, device);
        Self::load_divided(folder, kind, device, quantizer.as_mut().map(|quantizer| quantizer as &mut dyn Divider))
    }

    /// As [`RewardModel::load`], with weights that `divider` divides while they are read.
    ///
    /// # Errors
    /// As [`RewardModel::load`], and those of [`Divider::take`].
    pub fn load_divided(folder: &Path, kind: Kind, device: Device, divider: Option<&mut dyn Divider>) -> Result<Self> {
        let Loaded { config, parameters, notices, residence } =
            network::load(folder, (kind, device), Top::Score, divider)?;
        let origin = Some(folder.to_owned());
        let mut model = Self { notices, origin, ..Self::from_tensors(config, parameters, kind, device) };
        model.network.residence = residence;
        Ok(model)
    }

    /// A reward model on top of a language model's network, to be trained. Every score is zero until it is.
    ///
    /// # Errors
    /// [`crate::Error::Input`] while an adapter is active: merge it first; or for a type of model for which transformers has no
    /// class that scores sequences.
    pub fn on_top_of(model: CausalLm) -> Result<Self> {
        family::check_score(model.config())?;
        if let Some(name) = model.active_adapter() {
            let (found, expected) = (format!("`{name}`"), "none: merge it first".to_owned());
            return Err(Error::Input { what: "active adapter", found, expected });
        }
        let (kind, device, config, notices) =
            (model.kind(), model.device(), model.config().clone(), model.notices().to_vec());
        let (origin, residence, mut parameters) = (model.origin, model.network.residence, model.parameters);
        let head = config.names.tensor(HEAD);
        parameters.retain(|(name, _)| *name != head);
        let score = Tensor::f_zeros([1, config.hidden_size], (kind, device)).doing("making a score")?;
        parameters.push((SCORE.to_owned(), score));
        let mut model = Self { notices, origin, ..Self::from_tensors(config, parameters, kind, device) };
        model.network.residence = residence;
        Ok(model)
    }

    fn from_tensors(config: ModelConfig, parameters: Parameters, kind: Kind, device: Device) -> Self {
        let pad = config.pad_token_id;
        let network = Network::new(config, &parameters, Loras::default(), kind, device);
        Self {
            network,
            score: score_of(&parameters),
            parameters,
            adapter: None,
            pad,
            notices: Vec::new(),
            origin: None,
        }
    }

    /// The model as adapters see it.
    fn base(&self) -> Base<'_> {
        let Network { config, kind, device, residence, .. } = &self.network;
        Base { config, parameters: &self.parameters, kind: *kind, device: *device, residence: residence.as_ref() }
    }

    /// Adds an adapter, made from `seed`, which is active from now on and trained with the score.
    ///
    /// # Errors
    /// [`Error::Input`] for settings out of range or of another kind of model, a target that matches no linear layer, or a second
    /// adapter.
    pub fn add_adapter(&mut self, config: LoraConfig, seed: u64) -> Result<()> {
        config.check_task(LoraTask::SeqCls)?;
        let adapter = Adapter::new(config, self.base(), seed)?;
        self.adapt(adapter)
    }

    /// Adds an adapter from peft's folder, which is active from now on. An embedding that the folder holds takes the place of the
    /// model's.
    ///
    /// # Errors
    /// As [`CausalLm::load_adapter`].
    pub fn load_adapter(&mut self, folder: &Path) -> Result<()> {
        let config = LoraConfig::from_folder(folder)?;
        config.check_task(LoraTask::SeqCls)?;
        let stored = stored_embeddings(folder, &config, self.base())?;
        let holds_embeddings = stored.is_some();
        check_whole(holds_embeddings, self.is_divided(), folder)?;
        // The model takes the embeddings once everything else has been read.
        let base = match &stored {
            Some((config, parameters)) => Base { config, parameters, ..self.base() },
            None => self.base(),
        };
        let adapter = Adapter::load(folder, config, base, holds_embeddings)?;
        self.notices.extend(adapter.notices.iter().cloned());
        if let Some((config, parameters)) = stored {
            let mut model = Self::from_tensors(config, parameters, self.network.kind, self.network.device);
            model.network.residence = self.network.residence.take();
            let (notices, origin) = (std::mem::take(&mut self.notices), self.origin.take());
            *self = Self { notices, origin, adapter: self.adapter.take(), ..model };
        }
        self.adapt(adapter)
    }

    fn adapt(&mut self, adapter: Adapter) -> Result<()> {
        if self.adapter.is_some() {
            let (found, expected) = ("a second one".to_owned(), "one, for a reward model".to_owned());
            return Err(Error::Input { what: "adapter", found, expected });
        }
        self.adapter = Some(adapter);
        self.take_parts(None);
        Ok(())
    }

    /// Takes network and score from the weights and the adapter.
    fn take_parts(&mut self, training: Option<u64>) {
        let Some(adapter) = &self.adapter else { return };
        let (parameters, _) = adapter.over(self.base());
        let Network { config, kind, device, .. } = &self.network;
        let network = Network::new(config.clone(), &parameters, adapter.loras(training), *kind, *device);
        (self.score, self.network) = (score_of(&parameters), network.like(&self.network));
    }

    /// Another handle on the same weights in which the adapter drops inputs, for training: see [`CausalLm::in_training`].
    #[must_use]
    pub fn in_training(&self, seed: u64) -> Self {
        let own = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let Network { config, kind, device, .. } = &self.network;
        let handle = Self::from_tensors(config.clone(), own, *kind, *device);
        let mut handle = Self { network: handle.network.like(&self.network), ..handle };
        handle.origin.clone_from(&self.origin);
        handle.adapter.clone_from(&self.adapter);
        handle.take_parts(Some(seed));
        handle
    }

    /// Share of inputs that the adapter drops in training; 0 where there is none.
    pub fn adapter_dropout(&self) -> f64 {
        self.adapter.as_ref().map_or(0.0, |adapter| adapter.config.dropout)
    }

    /// Whether there is an adapter.
    pub fn has_adapter(&self) -> bool {
        self.adapter.is_some()
    }

    /// Parameters to train: the adapter's under peft's names, or all weights without one.
    pub fn trainable_parameters(&self) -> Vec<(String, Tensor)> {
        match &self.adapter {
            Some(adapter) => adapter.named_parameters(),
            None => self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
        }
    }

    /// Writes the adapter as peft does, into a folder that appears whole or not at all. `base` is what peft is to load the model from.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, [`Error::Files`] if `folder` exists already or cannot be written.
    pub fn save_adapter(&self, folder: &Path, base: Option<&str>) -> Result<()> {
        let Some(adapter) = &self.adapter else {
            let (found, expected) = ("none".to_owned(), "one".to_owned());
            return Err(Error::Input { what: "adapter of a reward model", found, expected });
        };
        folder::write(folder, |new| adapter.write(new, self.base(), base))
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Ways in which the weights of the folder depart from its `config.json`, which the user should know.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Weights under the checkpoint's names, without an adapter.
    pub fn named_parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The score's weights `[1, H]`.
    pub fn score_head(&self) -> &Tensor {
        &self.score
    }

    /// Whether gradients are kept for [`RewardModel::trainable_parameters`].
    pub fn set_trainable(&self, trainable: bool) {
        for (_, tensor) in self.trainable_parameters() {
            let _ = tensor.set_requires_grad(trainable);
        }
    }

    /// Scores `[S]` at `rows` of the packed tokens, in a graph where gradients are kept.
    ///
    /// # Errors
    /// [`Error::Input`] for a token id outside the vocabulary or no token at all; [`Error::Torch`].
    pub fn scores(&self, packed: &Packed, rows: &[i64]) -> Result<Tensor> {
        let mut rows = Tensor::from_slice(rows);
        let _root = self.resident_root()?;
        let hidden = self.network.hidden_states(packed, &mut [&mut rows])?;
        self.scores_of(&hidden, &rows)
    }

    /// As [`RewardModel::scores`], with a pass that keeps little: see [`Checkpointed`]. Run the backward pass of a loss of the
    /// scores first, then that of the pass.
    ///
    /// # Errors
    /// As [`RewardModel::scores`].
    pub fn checkpointed_scores(&self, packed: &Packed, rows: &[i64]) -> Result<(Tensor, Checkpointed<'_>)> {
        let mut rows = Tensor::from_slice(rows);
        let pass = self.network.checkpointed(packed, &mut [&mut rows], None)?;
        Ok((self.scores_of(pass.hidden(), &rows)?, pass))
    }

    fn scores_of(&self, hidden: &Tensor, rows: &Tensor) -> Result<Tensor> {
        hidden
            .f_index_select(0, rows)
            .and_then(|rows| rows.f_linear(&self.score, None::<&Tensor>)?.f_squeeze_dim(1))
            .doing("scoring")
    }

    /// Whether processes divide the weights among themselves, so that each takes part in the passes of the others.
    pub fn is_divided(&self) -> bool {
        self.network.is_divided()
    }

    /// Whether linear layers are held in a few bits: see [`crate::Quantizer`]. Such weights are frozen.
    pub fn is_quantized(&self) -> bool {
        self.network.residence.is_some() && !self.is_divided()
    }

    /// Lets `residence` keep the weights, in this handle and those that are made of it from now on.
    pub fn set_residence(&mut self, residence: Arc<dyn Residence>) {
        self.network.residence = Some(residence);
    }

    /// Keeper of the weights, where they are not always whole.
    pub fn residence(&self) -> Option<&Arc<dyn Residence>> {
        self.network.residence.as_ref()
    }

    /// As [`crate::CausalLm::resident_root`].
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn resident_root(&self) -> Result<Option<Resident>> {
        self.network.resident(Stage::Root, None)
    }

    /// As [`crate::CausalLm::idle_pass`].
    ///
    /// # Errors
    /// As [`Residence::enter`].
    pub fn idle_pass(&self, trains: bool) -> Result<()> {
        self.network.idle_pass(trains)
    }

    /// Place of a sequence's last token that is not `pad_token_id`, where the configuration has one: the token that is scored,
    /// as in transformers. None if there is no such token.
    pub fn last_token(&self, sequence: &[u32]) -> Option<usize> {
        sequence.iter().rposition(|&id| self.pad != Some(i64::from(id)))
    }

    /// Scores `[S]` of whole sequences, each of which becomes one segment of a forward pass.
    ///
    /// As in transformers, the score is that of a sequence's last token that is not `pad_token_id`, where the
    /// configuration has one.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty sequence or a token id outside the vocabulary; [`Error::Torch`].
    pub fn score(&self, sequences: &[&[u32]]) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let (mut packed, mut last) = (Packed::new(), Vec::with_capacity(sequences.len()));
        for sequence in sequences {
            let start = packed.len();
            packed.push(sequence)?;
            last.push((start + self.last_token(sequence).unwrap_or(0)) as i64);
        }
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        let scores = self.scores(&packed, &last)?.f_to_kind(Kind::Double).doing("reading scores")?;
        Vec::try_from(scores).doing("reading scores")
    }

    /// Writes a folder that transformers loads as `*ForSequenceClassification` with one label, and the tokenizer and
    /// template files of `source`, if given. It appears whole or not at all. An adapter is merged into the weights.
    ///
    /// # Errors
    /// [`Error::Files`] if `folder` exists already or cannot be written.
    pub fn save(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        let architecture = self.architecture();
        self.saving(source, |saving| {
            saving.write(folder, |config| {
                config["architectures"] = serde_json::json!([architecture]);
                config["num_labels"] = 1.into();
                config["id2label"] = serde_json::json!({ "0": "LABEL_0" });
                config["label2id"] = serde_json::json!({ "LABEL_0": 0 });
            })
        })
    }

    /// transformers' class of this model.
    fn architecture(&self) -> String {
        if let Some(class) = family::scorer(self.config()) {
            return class.to_owned();
        }
        let config = self.config().to_json();
        let tops = ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"];
        let replaced = |name: &str| tops.iter().fold(name.to_owned(), |name, top| name.replace(top, SCORER));
        config["architectures"][0].as_str().map_or_else(|| format!("Llama{SCORER}"), replaced)
    }

    /// Helps another process in [`RewardModel::save`], as [`CausalLm::help_save`].
    ///
    /// # Errors
    /// As [`Residence::whole`].
    pub fn help_save(&self) -> Result<()> {
        self.saving(None, |saving| saving.help())
    }

    fn saving(&self, source: Option<&Path>, work: impl FnOnce(&Saving<'_>) -> Result<()>) -> Result<()> {
        let (config, parameters, changes) = match &self.adapter {
            Some(adapter) => adapter.merging(self.base()),
            None => {
                let own = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
                (self.config().clone(), own.collect(), HashMap::new())
            }
        };
        let (changes, residence) = (Some(&changes), self.residence());
        work(&Saving {
            weights: Merging { config: &config, parameters: &parameters, changes, residence },
            kind: self.network.kind,
            source,
            origin: self.origin.as_deref(),
            shard_bytes: weights::MAX_SHARD_BYTES,
        })
    }
}

/// End of the names of transformers' classes that score sequences.
const SCORER: &str = "ForSequenceClassification";

/// The score among a model's weights.
fn score_of(parameters: &Parameters) -> Tensor {
    let score = parameters.iter().find(|(name, _)| name == SCORE).map(|(_, tensor)| tensor.shallow_clone());
    score.expect("callers pass the score among the parameters")
}

/// The score's name in a checkpoint.
pub(crate) const SCORE: &str = "score.weight";
