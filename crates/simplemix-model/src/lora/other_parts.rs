//! Tensors of an adapter that change other parts of a multimodal model than its text part. peft adapts layers by the ends of their
//! names, so an adapter of a few names has them too; trained on text alone, they change nothing, and are left out. Others are refused.

use std::collections::BTreeSet;
use std::path::Path;

use tch::{Device, Kind};

use super::peft::{ADAPTER_WEIGHTS, PREFIX};
use crate::config::ModelConfig;
use crate::error::{Doing, Error, Result};
use crate::safetensors_reader::Reader;

/// The name among those `wanted` that a tensor of peft's file has today; files of older versions of transformers have other prefixes.
pub(super) fn today(name: &str, wanted: &BTreeSet<String>, model: &ModelConfig) -> Option<String> {
    let readings = model.names.readings(name.strip_prefix(PREFIX)?);
    readings.into_iter().map(|reading| format!("{PREFIX}{reading}")).find(|reading| wanted.contains(reading))
}

/// Names of tensors beside other parts of the model, none of which changes anything.
///
/// # Errors
/// [`Error::Weights`] for tensors that change another part, [`Error::Safetensors`] for a damaged file.
pub(super) fn without_effect(folder: &Path, model: &ModelConfig) -> Result<Vec<String>> {
    if model.multimodal.is_none() {
        return Ok(Vec::new());
    }
    let mut file = Reader::open(&folder.join(ADAPTER_WEIGHTS))?;
    let names: Vec<String> = file.names().into_iter().filter(|name| is_of_other_part(name, model)).collect();
    for name in &names {
        let changes = match name.rsplit_once(".lora_").map(|(_, end)| end) {
            Some("A.weight") => false,
            Some("B.weight") => {
                let tensor = file.tensor(name, Some(Kind::Float), Device::Cpu)?;
                tensor.f_count_nonzero(None).doing("looking at an adapter")?.int64_value(&[]) > 0
            }
            _ => true,
        };
        if changes {
            let problems = format!(
                "`{name}` changes another part of the model than its text, which is not computed; merge the adapter with peft, and \
                 give the merged model"
            );
            return Err(Error::Weights { folder: folder.to_owned(), problems });
        }
    }
    Ok(names)
}

/// Whether a tensor belongs to none of the modules of the text part.
fn is_of_other_part(name: &str, model: &ModelConfig) -> bool {
    let Some(inner) = name.strip_prefix(PREFIX) else { return false };
    let is_of_text = |reading: &String| {
        [model.names.decoder, model.names.head, "score"]
            .iter()
            .any(|module| reading.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
    };
    !model.names.readings(inner).iter().any(is_of_text)
}
