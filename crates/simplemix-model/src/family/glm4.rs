//! GLM 4 of 2025: GLM with norms after attention and feed-forward too.

use crate::config::{Keys, ModelConfig, NameMap, Norms};
use crate::error::Result;
use crate::family::Family;

pub(super) const FAMILY: Family = Family {
    model_type: "glm4",
    models: "GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1",
    differs: "as `glm`; norms before and after attention and feed-forward",
    pad: Some(151_329),
    has_rewards: true,
    read,
};

const NAMES: NameMap = NameMap {
    modules: &[
        ("post_attention_layernorm", "post_self_attn_layernorm"),
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("post_feedforward_layernorm", "post_mlp_layernorm"),
    ],
    ..NameMap::PLAIN
};

fn read(keys: &Keys<'_>) -> Result<ModelConfig> {
    Ok(ModelConfig { norms: Norms::Both, names: NAMES, ..super::glm::read(keys)? })
}
