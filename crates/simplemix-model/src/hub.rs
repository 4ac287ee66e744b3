//! Model folders from the Hugging Face hub, through its own client and cache.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};

use crate::error::{Error, Result};
use crate::not_a_model;
#[cfg(feature = "hub")]
use crate::weights::{WEIGHTS, WEIGHTS_INDEX};

/// Files that not every model has.
#[cfg(feature = "hub")]
const OPTIONAL: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// The folder of `model`: the path itself, or the hub's model of that id, downloaded into the hub's cache.
///
/// `HF_HOME`, `HF_ENDPOINT` and the token file are honoured as by `huggingface_hub`.
///
/// # Errors
/// [`Error::Hub`] if there is no such folder and the hub cannot be reached, has no such model, or is not part of this build
/// (feature `hub`); [`Error::NotAModel`] for a path that is known to be something else than a model folder.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    match hub_id(model) {
        Some(id) => fetch(id),
        None => not_a_model::check(model).map(|()| model.to_owned()),
    }
}

#[cfg(not(feature = "hub"))]
fn fetch(id: &str) -> Result<PathBuf> {
    let reason = "there is no such folder, and this build has no access to the hub; build it with `--features hub`";
    Err(Error::Hub { id: id.to_owned(), reason: reason.to_owned() })
}

/// Downloads a model into the hub's cache.
#[cfg(feature = "hub")]
fn fetch(id: &str) -> Result<PathBuf> {
    let failed = |reason: &dyn std::fmt::Display| Error::Hub { id: id.to_owned(), reason: reason.to_string() };
    let api: Api = ApiBuilder::from_env().with_progress(false).build().map_err(|e| failed(&e))?;
    let repo = api.model(id.to_owned());
    let get = |name: &str| repo.get(name).map_err(|e| failed(&e));
    let config = get("config.json")?;
    get("tokenizer.json")?;
    for name in OPTIONAL {
        // Absence is usual; anything else shows when the file is needed.
        let _ = repo.get(name);
    }
    weights(&repo).map_err(|e| failed(&e))?;
    config.parent().map(Path::to_owned).ok_or_else(|| failed(&"the cache has no folder for it"))
}

/// `owner/name`, where no such folder exists.
fn hub_id(model: &Path) -> Option<&str> {
    let text = model.to_str()?;
    let named = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (owner, name) = text.split_once('/')?;
    (!model.exists() && named(owner) && named(name)).then_some(text)
}

/// One file of weights, or the shards that the index names.
#[cfg(feature = "hub")]
fn weights(repo: &ApiRepo) -> std::result::Result<(), Box<dyn std::error::Error>> {
    if repo.get(WEIGHTS).is_ok() {
        return Ok(());
    }
    let index: serde_json::Value = serde_json::from_str(&simplemix_files::read_to_string(repo.get(WEIGHTS_INDEX)?)?)?;
    let shards = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let shards: std::collections::BTreeSet<&str> = shards.filter_map(serde_json::Value::as_str).collect();
    for shard in shards {
        repo.get(shard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_paths_are_not_ids() {
        for path in ["src", "./a/b", "/a/b", "a", "a/b/c", "../b", "a/..", "a b/c"] {
            assert_eq!(hub_id(Path::new(path)), None, "{path}");
        }
        assert_eq!(hub_id(Path::new("HuggingFaceTB/SmolLM2-135M")), Some("HuggingFaceTB/SmolLM2-135M"));
    }
}
