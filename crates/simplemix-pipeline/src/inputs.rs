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
    #[cfg(feature = "object-store")]
    if let Some(url) = text.to_str().filter(|text| text.contains("://")) {
        return copies(url, watch);
    }
    let _ = watch;
    Ok(simplemix_data::inputs(text)?)
}

/// Local copies of the objects that a URL names.
#[cfg(feature = "object-store")]
fn copies(url: &str, watch: &mut dyn Watch) -> Result<Vec<PathBuf>> {
    let cache = simplemix_data::ObjectCache::from_env()?;
    let copy = |reporter: &crate::background::Reporter<'_>| {
        cache.inputs_with(url, &mut |transfer| reporter.progress(transfer.done, transfer.total))
    };
    Ok(crate::background::watched(watch, "copying", copy)?)
}

/// blake3 of the files that `text` names, one after the other, in hex.
pub(crate) fn fingerprint(text: &Path, watch: &mut dyn Watch) -> Result<String> {
    Ok(simplemix_files::hash_files(files(text, watch)?)?)
}
