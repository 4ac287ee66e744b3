//! Model folders, which appear whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use simplemix_files::{AtomicFolder, create_dir_all};
use tch::Kind;

use crate::config_file;
use crate::error::Result;
use crate::rest::Rest;
use crate::weights::{self, Merging};

/// Files that travel with the weights when a model is saved beside another.
pub(crate) const COMPANIONS: &[&str] = &[
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

/// A model to be written.
pub(crate) struct Saving<'a> {
    pub(crate) weights: Merging<'a>,
    /// Element type of the weights.
    pub(crate) kind: Kind,
    /// Folder with the tokenizer.
    pub(crate) source: Option<&'a Path>,
    /// Folder that the model was loaded from.
    pub(crate) origin: Option<&'a Path>,
    /// Most bytes of a file with several tensors.
    pub(crate) shard_bytes: usize,
}

impl Saving<'_> {
    /// Writes a model folder: `config.json`, changed by `change`, weights, merged as they are written, and the source's tokenizer;
    /// of a multimodal model also its other parts.
    ///
    /// # Errors
    /// [`crate::Error::Files`] if `folder` exists already or cannot be written, [`crate::Error::Gone`] if the other parts are not where they
    /// were.
    pub(crate) fn write(&self, folder: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
        let rest = Rest::of(self.weights.config, self.origin)?;
        let mut config = config_file::to_write(self.weights.config, self.source, self.kind, &rest)?;
        change(&mut config);
        write(folder, |new| {
            new.write("config.json", format!("{config:#}\n"))?;
            for (name, from) in self.companions(&rest) {
                if let Some(within) = name.parent() {
                    create_dir_all(new.path().join(within))?;
                }
                new.copy(from, name)?;
            }
            weights::save_in_shards(new, self.weights, &rest, self.shard_bytes)
        })
    }

    /// Helps another process in [`Saving::write`] of weights that are divided among several.
    ///
    /// # Errors
    /// As [`crate::Residence::whole`].
    pub(crate) fn help(&self) -> Result<()> {
        let rest = Rest::of(self.weights.config, self.origin)?;
        weights::help_save(self.weights, &rest, self.shard_bytes)
    }

    /// Files that travel along, by their paths in the folder: the source's, and those of `rest` that it does not have.
    fn companions(&self, rest: &Rest) -> BTreeMap<PathBuf, PathBuf> {
        let of_rest = |name: &PathBuf| Some((name.clone(), self.origin?.join(name)));
        let mut all: BTreeMap<PathBuf, PathBuf> = rest.files.iter().filter_map(of_rest).collect();
        let names: Vec<PathBuf> = COMPANIONS.iter().map(PathBuf::from).chain(all.keys().cloned()).collect();
        let of_source = |name: PathBuf| Some((name.clone(), self.source?.join(name)));
        all.extend(names.into_iter().filter_map(of_source).filter(|(_, path)| path.is_file()));
        all
    }
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
