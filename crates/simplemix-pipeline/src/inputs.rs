//! Files that a user names.

use std::path::{Path, PathBuf};

use simplemix_data::Watch;

use crate::error::{Error, Result};

/// Files that `text` names, in the order of their names: a path, a folder of shards, a pattern or, with the feature
/// `object-store`, a URL, whose objects are copied into the cache and reported to `watch` as `copying`, in bytes. A data set of the
/// Hugging Face hub is `hf://datasets/OWNER/NAME@REVISION?config=CONFIG&split=SPLIT`.
///
/// # Errors
/// [`Error::Data`] if no file fits, or a store refuses, [`Error::Prepare`] if the hub does.
pub fn files(text: &Path, watch: &mut dyn Watch) -> Result<Vec<PathBuf>> {
    if let Some(files) = simplemix_train::hub_data_files(text).map_err(Error::Prepare)? {
        return Ok(files);
    }
    Ok(simplemix_blend::files(text, watch)?)
}
