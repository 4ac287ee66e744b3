//! Embedding and output head in an adapter's files, which peft writes where the vocabulary was resized or one of them is adapted:
//! they take the place of the model's own.

use std::path::Path;

use tch::Tensor;

use super::adapter::Base;
use super::config::LoraConfig;
use super::parts::LoraParts;
use super::peft::{ADAPTER_WEIGHTS, PREFIX};
use crate::config::ModelConfig;
use crate::error::{Doing, Error, Result};
use crate::safetensors_reader::Reader;
use crate::weights::Parameters;

/// Last parts of the names of embeddings and output heads.
const NAMES: [&str; 5] = ["embed_tokens", "lm_head", "embed_in", "embed_out", "wte"];
/// Ends of the names of a module's weight in peft's files: of the model's own, and of one that is trained.
const OWN: [&str; 2] = ["base_layer.weight", "original_module.weight"];
const TRAINED: [&str; 2] = ["modules_to_save.weight", "weight"];

/// Rows of the embeddings in an adapter's file, if it holds some.
pub(super) fn stored_vocabulary(folder: &Path) -> Result<Option<i64>> {
    let file = Reader::open(&folder.join(ADAPTER_WEIGHTS))?;
    let is_embedding = |name: &String| {
        let mut ends = OWN.iter().chain(&TRAINED);
        let is_module = |module: &str| NAMES.contains(&module.rsplit('.').next().unwrap_or_default());
        ends.any(|end| name.strip_suffix(end).and_then(|rest| rest.strip_suffix('.')).is_some_and(is_module))
    };
    let Some(name) = file.names().into_iter().find(is_embedding) else { return Ok(None) };
    Ok(file.shape(&name)?.first().copied())
}

/// Whether a tensor of an adapter's file is the model's own: an embedding or output head before training, or one that is not trained.
pub(super) fn is_of_model(name: &str, model: &ModelConfig, parts: &LoraParts) -> bool {
    // peft writes a second name of what is trained whole, and what it was, where `bias` or a resized vocabulary asks for them too.
    let twin = [".modules_to_save.", ".original_module."].iter().find(|part| name.contains(*part));
    if let Some(part) = twin {
        let name = name.replacen(part, ".", 1);
        return parts.saved.iter().any(|saved| saved.file == name) || parts.has_tied_head;
    }
    let modules = [model.embedding_module(), model.head_module()];
    modules.iter().any(|module| {
        let Some(end) =
            name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(module.as_str())?.strip_prefix('.'))
        else {
            return false;
        };
        OWN.contains(&end)
            || (end == TRAINED[1] && !is_trained(parts, module, model))
            || (parts.has_tied_head && *module == modules[1])
    })
}

/// Whether the embedding or the output head, by its module, is trained whole.
fn is_trained(parts: &LoraParts, module: &str, model: &ModelConfig) -> bool {
    let own = if module == model.head_module() { model.own_head_name() } else { format!("{module}.weight") };
    parts.saved.iter().any(|saved| saved.tensor == own)
}

/// Configuration and weights of `base` with the embeddings of an adapter's folder; none if it holds none.
///
/// # Errors
/// [`Error::Weights`] for embeddings that do not fit each other or the model.
pub(crate) fn stored(folder: &Path, config: &LoraConfig, base: Base<'_>) -> Result<Option<(ModelConfig, Parameters)>> {
    if config.vocab_size.is_none() {
        return Ok(None);
    }
    let (parts, resized) = (config.parts(base.config)?, config.resized(base.config));
    let mut file = File { folder, reader: Reader::open(&folder.join(ADAPTER_WEIGHTS))?, base, parts: &parts };
    let is_resized = resized.vocab_size != base.config.vocab_size;
    let mut found = false;
    let mut parameters: Parameters =
        base.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let [embedding, head] = [resized.embedding_module(), resized.head_module()];
    for (name, tensor) in &mut parameters {
        let module = match () {
            () if *name == resized.embedding_name() => &embedding,
            () if *name == resized.own_head_name() => &head,
            () => continue,
        };
        let is_tied = resized.tie_word_embeddings && !config.is_reward();
        let own = match file.own(module, &resized)? {
            Some(own) => Some(own),
            None if is_tied => file.own(&head, &resized)?,
            None => None,
        };
        *tensor = match own {
            Some(own) => own,
            None if !is_resized => continue,
            None => file.extended(module, tensor, &resized, is_tied.then_some(head.as_str()))?,
        };
        found = true;
    }
    Ok(found.then_some((resized, parameters)))
}

/// An adapter's file beside the model that it is for.
struct File<'a> {
    folder: &'a Path,
    reader: Reader,
    base: Base<'a>,
    parts: &'a LoraParts,
}

impl File<'_> {
    /// The weight that the model has in `module` according to the file.
    fn own(&mut self, module: &str, resized: &ModelConfig) -> Result<Option<Tensor>> {
        let trained = is_trained(self.parts, module, resized) || self.parts.has_tied_head;
        let plain = (!trained).then_some(TRAINED[1]);
        let names = self.reader.names();
        let name = OWN.iter().copied().chain(plain).map(|end| format!("{PREFIX}{module}.{end}"));
        let Some(name) = name.into_iter().find(|name| names.contains(name)) else { return Ok(None) };
        self.read(&name, resized).map(Some)
    }

    fn read(&mut self, name: &str, resized: &ModelConfig) -> Result<Tensor> {
        let (shape, expected) = (self.reader.shape(name)?, [resized.vocab_size, resized.hidden_size]);
        if shape != expected {
            return Err(self.refuse(format!("`{name}` is {shape:?}, expected {expected:?}")));
        }
        self.reader.tensor(name, Some(self.base.kind), self.base.device)
    }

    /// The model's weight of `module` with as many rows as the resized vocabulary has; new ones are those that are trained.
    fn extended(
        &mut self,
        module: &str,
        weight: &Tensor,
        resized: &ModelConfig,
        tied_to: Option<&str>,
    ) -> Result<Tensor> {
        let mut used = [Some(module), tied_to].into_iter().flatten();
        let missing = used.find(|used| !is_trained(self.parts, used, resized) && !self.parts.has_tied_head);
        let (old, new) = (self.base.config.vocab_size, resized.vocab_size);
        if let Some(missing) = missing {
            return Err(self.refuse(format!(
                "the vocabulary has {new} entries, the model's {old}, and the weights of `{missing}` for the new ones are missing; \
                 save the adapter again with peft's save_pretrained(..., save_embedding_layers=True)"
            )));
        }
        let kept = weight.f_narrow(0, 0, old.min(new)).doing("resizing an embedding")?;
        if new <= old {
            return kept.f_detach_copy().doing("resizing an embedding");
        }
        let trained = self.read(&format!("{PREFIX}{module}.weight"), resized)?;
        let rows = trained.f_narrow(0, old, new - old).doing("resizing an embedding")?;
        Tensor::f_cat(&[kept, rows], 0).doing("resizing an embedding")
    }

    fn refuse(&self, problems: String) -> Error {
        Error::Weights { folder: self.folder.to_owned(), problems }
    }
}
