//! Reward models: transformers' `*ForSequenceClassification` with one label.
//!
//! Letters: S sequences, H width.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::network::{self, Network};
use crate::packed::Packed;

/// A decoder with a linear score in place of the output head.
#[derive(Debug)]
pub struct RewardModel {
    network: Network,
    score: Tensor, // [1, H]
    pad: Option<i64>,
}

impl RewardModel {
    /// Loads a folder of a `*ForSequenceClassification` of any family, as `kind` on `device`.
    ///
    /// # Errors
    /// As [`crate::CausalLm::load`]; a model of several labels has a misshapen `score.weight`.
    pub fn load(folder: &Path, kind: Kind, device: Device) -> Result<Self> {
        let score = |config: &ModelConfig| Some((SCORE.to_owned(), vec![1, config.hidden_size]));
        let (config, parameters) = network::load(folder, kind, device, score)?;
        let pad = config.to_json().get("pad_token_id").and_then(serde_json::Value::as_i64);
        let score = parameters.iter().find(|(name, _)| name == SCORE).map(|(_, tensor)| tensor.shallow_clone());
        let network = Network::new(config, &parameters, None, kind, device);
        Ok(Self { network, score: score.unwrap_or_default(), pad })
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Scores `[S]` of whole sequences, each of which becomes one segment of a forward pass.
    ///
    /// As in transformers, the score is that of a sequence's last token that is not `pad_token_id`, where the
    /// configuration has one.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for an empty sequence or a token id outside the vocabulary; [`crate::Error::Torch`].
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
        let hidden = self.network.hidden_states(&packed)?;
        let rows = Tensor::from_slice(&last).to_device(self.network.device);
        let scores = hidden
            .f_index_select(0, &rows)
            .and_then(|rows| rows.f_linear(&self.score, None::<&Tensor>)?.f_squeeze_dim(1)?.f_to_kind(Kind::Double))
            .doing("scoring")?;
        Vec::try_from(scores).doing("reading scores")
    }
}

/// The score's name in a checkpoint.
const SCORE: &str = "score.weight";
