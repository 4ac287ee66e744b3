//! Reward models: transformers' `*ForSequenceClassification` with one label.
//!
//! Letters: S sequences, H width.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::causal_lm::CausalLm;
use crate::checkpoint::Top;
use crate::config::{HEAD, ModelConfig};
use crate::error::{Doing, Error, Result};
use crate::family;
use crate::folder::Saving;
use crate::network::{self, Loaded, Network};
use crate::packed::Packed;
use crate::weights::{self, Merging, Parameters};

/// A decoder with a linear score in place of the output head.
#[derive(Debug)]
pub struct RewardModel {
    network: Network,
    parameters: Parameters,
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
        let Loaded { config, parameters, notices } = network::load(folder, kind, device, Top::Score)?;
        let origin = Some(folder.to_owned());
        Ok(Self { notices, origin, ..Self::from_tensors(config, parameters, kind, device) })
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
        let (origin, mut parameters) = (model.origin, model.parameters);
        let head = config.names.tensor(HEAD);
        parameters.retain(|(name, _)| *name != head);
        let score = Tensor::f_zeros([1, config.hidden_size], (kind, device)).doing("making a score")?;
        parameters.push((SCORE.to_owned(), score));
        Ok(Self { notices, origin, ..Self::from_tensors(config, parameters, kind, device) })
    }

    fn from_tensors(config: ModelConfig, parameters: Parameters, kind: Kind, device: Device) -> Self {
        let pad = config.pad_token_id;
        let score = parameters.iter().find(|(name, _)| name == SCORE).map(|(_, tensor)| tensor.shallow_clone());
        let network = Network::new(config, &parameters, None, kind, device);
        Self {
            network,
            parameters,
            score: score.expect("callers pass the score among the parameters"),
            pad,
            notices: Vec::new(),
            origin: None,
        }
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Ways in which the weights of the folder depart from its `config.json`, which the user should know.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Weights under the checkpoint's names.
    pub fn named_parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The score's weights `[1, H]`.
    pub fn score_head(&self) -> &Tensor {
        &self.score
    }

    /// Whether gradients are kept for all weights.
    pub fn set_trainable(&self, trainable: bool) {
        for (_, tensor) in &self.parameters {
            let _ = tensor.set_requires_grad(trainable);
        }
    }

    /// Scores `[S]` at `rows` of the packed tokens, in a graph where gradients are kept.
    ///
    /// # Errors
    /// [`Error::Input`] for a token id outside the vocabulary or no token at all; [`Error::Torch`].
    pub fn scores(&self, packed: &Packed, rows: &[i64]) -> Result<Tensor> {
        let mut rows = Tensor::from_slice(rows);
        let hidden = self.network.hidden_states(packed, &mut [&mut rows])?;
        hidden
            .f_index_select(0, &rows)
            .and_then(|rows| rows.f_linear(&self.score, None::<&Tensor>)?.f_squeeze_dim(1))
            .doing("scoring")
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
            let is_pad = |id: u32| self.pad == Some(i64::from(id));
            let end = sequence.iter().rposition(|&id| !is_pad(id)).unwrap_or(0);
            last.push((start + end) as i64);
        }
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        let scores = self.scores(&packed, &last)?.f_to_kind(Kind::Double).doing("reading scores")?;
        Vec::try_from(scores).doing("reading scores")
    }

    /// Writes a folder that transformers loads as `*ForSequenceClassification` with one label, and the tokenizer and
    /// template files of `source`, if given. It appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Files`] if `folder` exists already or cannot be written.
    pub fn save(&self, folder: &Path, source: Option<&Path>) -> Result<()> {
        let architecture = self.config().to_json()["architectures"][0].as_str().map_or_else(
            || format!("Llama{SCORER}"),
            |name| {
                let tops = ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"];
                tops.iter().fold(name.to_owned(), |name, top| name.replace(top, SCORER))
            },
        );
        let saving = Saving {
            weights: Merging { config: self.config(), parameters: &self.parameters, loras: None },
            kind: self.network.kind,
            source,
            origin: self.origin.as_deref(),
            shard_bytes: weights::MAX_SHARD_BYTES,
        };
        saving.write(folder, |config| {
            config["architectures"] = serde_json::json!([architecture]);
            config["num_labels"] = 1.into();
            config["id2label"] = serde_json::json!({ "0": "LABEL_0" });
            config["label2id"] = serde_json::json!({ "LABEL_0": 0 });
        })
    }
}

/// End of the names of transformers' classes that score sequences.
const SCORER: &str = "ForSequenceClassification";
/// The score's name in a checkpoint.
pub(crate) const SCORE: &str = "score.weight";
