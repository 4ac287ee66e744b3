//! Model folders, which appear whole or not at all.

use std::path::Path;

use serde_json::Value;
use simplemix_files::{AtomicFolder, create_dir_all};

use crate::error::Result;
use crate::weights::{self, Merging};

/// Files that travel with the weights when a model is saved beside another.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
];

/// Writes a model folder: config, weights, merged as they are written, in files of at most `shard_bytes` (or one tensor), and the source's tokenizer.
pub(crate) fn write_model(
    folder: &Path,
    source: Option<&Path>,
    config: &Value,
    weights: Merging<'_>,
    shard_bytes: usize,
) -> Result<()> {
    write(folder, |new| {
        new.write("config.json", format!("{config:#}\n"))?;
        for name in COMPANIONS {
            if let Some(from) = source.map(|s| s.join(name)).filter(|f| f.is_file()) {
                new.copy(from, name)?;
            }
        }
        weights::save_in_shards(new, weights, shard_bytes)
    })
}

/// Fills a new folder with `fill`, which then appears whole and durably under its name.
///
/// # Errors
/// [`crate::Error::Files`] if `folder` exists already or cannot be written, or the error of `fill`.
pub(crate) fn write(folder: &Path, fill: impl FnOnce(&AtomicFolder) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Err(simplemix_files::Error::Exists { path: folder.to_owned() }.into());
    }
    if let Some(parent) = folder.parent() {
        create_dir_all(parent)?;
    }
    let new = AtomicFolder::create(folder)?;
    fill(&new)?;
    Ok(new.commit_new()?)
}
