//! Loss of the routers of a mixture of experts, beside that of preference pairs, as TRL's DPO trainer adds it.

use simplemix_model::ModelConfig;

use crate::config::{Objective, TrainConfig};
use crate::error::{Error, Result};

/// Name of the setting.
const KEY: &str = "loss.router_aux_loss_coef";

/// Factor of the routers' loss in training: the setting, or that of the model's own `config.json`; none where it is 0 or the model has
/// no such loss.
///
/// # Errors
/// [`Error::Setting`] if the factor is set, and the model has no such loss or pairs are not what is learnt from.
pub(crate) fn router_coef(config: &TrainConfig, model: &ModelConfig) -> Result<Option<f64>> {
    let (set, own) = (config.loss.router_aux_loss_coef, model.experts.and_then(|experts| experts.aux_loss_coef));
    let refused = |expected: &str| Err(Error::setting(KEY, format!("{}", set.unwrap_or_default()), expected));
    let coef = match (set, own) {
        (Some(coef), None) if coef > 0.0 => {
            let expected = "0 or no such key: transformers computes no such loss for models of this `model_type`";
            return refused(expected);
        }
        (Some(coef), _) if coef > 0.0 && config.objective != Objective::Preference => {
            return refused("no such key: only pairs of responses have it, as in TRL's DPO trainer");
        }
        _ if config.objective != Objective::Preference => None,
        (set, own) => own.and(set.or(own)),
    };
    Ok(coef.filter(|&coef| coef > 0.0))
}
