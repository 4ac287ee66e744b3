//! Log-probabilities of pairs under a model in a folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_model::{CausalLm, DeviceChoice, Dtype, LoadIn};
use simplemix_settings::OrAuto;
use simplemix_train::{ForwardOptions, PairSet, ReferenceLogps, Team, reference_logps_together, scoring_budget};

use crate::error::{Error, Result};

/// How pairs are scored; but for `load_in` only time and memory depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoringOptions {
    /// Device that the model runs on.
    pub device: DeviceChoice,
    /// Tokens of a forward pass; `auto` is 2048 on a CPU and 16384 on a GPU.
    pub micro_batch_tokens: OrAuto<usize>,
    /// Form in which the weights of linear layers are held.
    #[serde(default, skip_serializing_if = "LoadIn::is_none")]
    pub load_in: LoadIn,
}

/// Summed log-probabilities of both responses of every pair of `set`, in nats, in the set's order. Progress is reported as
/// `stage`, in pairs.
///
/// # Errors
/// [`crate::Error::Model`] if the model cannot be loaded, [`crate::Error::Train`] if a pair cannot be scored.
pub fn log_probabilities(
    model: &Path,
    set: &PairSet,
    scoring: ScoringOptions,
    stage: &str,
    watch: &mut dyn Watch,
) -> Result<ReferenceLogps> {
    log_probabilities_together(&Team::default(), model, set, scoring, stage, watch)
}

/// As [`log_probabilities`], each process of `team` its share of the passes; all get all. The numbers are those of one process to
/// the last bit.
///
/// # Errors
/// As there, and if the processes have other models or pairs, or one of them has failed.
pub fn log_probabilities_together(
    team: &Team,
    model: &Path,
    set: &PairSet,
    scoring: ScoringOptions,
    stage: &str,
    watch: &mut dyn Watch,
) -> Result<ReferenceLogps> {
    team.does_at_length("loading a model");
    if team.size() > 1 {
        let hashes = format!("{} {}", simplemix_files::hash_model_folder(model)?, set.hash());
        team.same(&format!("hashes of model and pairs ({stage})"), &hashes)?;
        team.does_at_length("loading a model");
    }
    let device = scoring.device.open().map_err(simplemix_model::Error::from)?;
    let model = CausalLm::load_quantized(model, Dtype::Auto.kind(device), device, &scoring.load_in.into())?;
    model.notices().iter().for_each(|notice| watch.notice(notice));
    set.check_for(model.config(), "the pairs", 0).map_err(Error::Prepare)?;
    let budget = scoring_budget(scoring.micro_batch_tokens, device)?;
    let options = ForwardOptions {
        micro_batch_tokens: budget.micro_batch_tokens,
        logits_bytes: budget.logits_bytes,
        activation_checkpointing: false,
        token_metrics: false,
        token_metrics_every: 1,
        wpo: None,
        ld_alpha: None,
    };
    let total = set.len() as u64;
    let mut progress = |done: usize| watch.progress(stage, done as u64, total);
    Ok(reference_logps_together(team, &model, set, &options, &mut progress)?)
}
