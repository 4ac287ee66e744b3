//! Log-probabilities of pairs under a model in a folder.

use std::path::Path;

use simplemix_model::CausalLm;
use simplemix_train::{ForwardOptions, PairSet, reference_logps};
use tch::{Device, Kind};

use crate::failure::{Fails, Result};
use crate::progress::bar;

/// Summed log-probabilities of both responses of every pair of the set, in nats, in the set's order; on a GPU if there is
/// one. `name` is what the bar says.
pub(crate) fn log_probabilities(
    model: &Path,
    set: &PairSet,
    micro_batch_tokens: usize,
    name: &str,
) -> Result<Vec<[f64; 2]>> {
    let device = Device::cuda_if_available();
    let kind = if device.is_cuda() { Kind::BFloat16 } else { Kind::Float };
    let model = CausalLm::load(model, kind, device).input()?;
    let bar = bar(name, set.len() as u64);
    let options = ForwardOptions {
        micro_batch_tokens,
        logits_bytes: 256 << 20,
        activation_checkpointing: false,
        token_metrics: false,
        wpo: None,
        ld_alpha: None,
    };
    let logps = reference_logps(&model, set, &options, &mut |done| bar.set_position(done as u64)).run()?;
    bar.finish_and_clear();
    Ok(logps)
}
