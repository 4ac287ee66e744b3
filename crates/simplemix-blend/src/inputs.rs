//! Files that a source's path names.

use std::path::{Path, PathBuf};

use simplemix_data::Watch;

use crate::error::{Error, Result};

/// Finds the files that a path names, in the order of their names, for callers who know more places than [`files`] does.
pub type Find<'a> = &'a dyn Fn(&Path, &mut dyn Watch) -> Result<Vec<PathBuf>, Box<dyn std::error::Error + Send + Sync>>;

/// Beginning of a data set's name on the Hugging Face hub.
const HUB: &str = "hf://";

/// Files that `text` names, in the order of their names: a path, a folder of shards, a pattern or, with the feature
/// `object-store`, a URL, whose objects are copied into the cache and reported to `watch` as `copying`, in bytes.
///
/// # Errors
/// [`Error::Data`] if no file fits, or a store refuses; [`Error::Setting`] for a data set of the Hugging Face hub, which is left
/// to callers ([`Find`]).
pub fn files(text: &Path, watch: &mut dyn Watch) -> Result<Vec<PathBuf>> {
    if text.to_str().is_some_and(|text| text.starts_with(HUB)) {
        return Err(Error::setting("path", text.display(), "files here or in a store: this call does not ask the hub"));
    }
    #[cfg(feature = "object-store")]
    if let Some(url) = text.to_str().filter(|text| text.contains("://")) {
        return copies(url, watch);
    }
    let _ = watch;
    Ok(simplemix_data::inputs(text)?)
}

/// [`files`] as a [`Find`].
pub(crate) fn here(
    text: &Path,
    watch: &mut dyn Watch,
) -> Result<Vec<PathBuf>, Box<dyn std::error::Error + Send + Sync>> {
    files(text, watch).map_err(Into::into)
}

/// Files that `find` finds, with its error as one of this crate.
pub(crate) fn found(find: Find<'_>, text: &Path, watch: &mut dyn Watch) -> Result<Vec<PathBuf>> {
    find(text, watch).map_err(|error| match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::Find(error),
    })
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
pub(crate) fn fingerprint(find: Find<'_>, text: &Path, watch: &mut dyn Watch) -> Result<String> {
    Ok(simplemix_files::hash_files(found(find, text, watch)?)?)
}

#[cfg(test)]
mod tests {
    use simplemix_data::Unwatched;

    use super::*;

    #[test]
    fn other_places_are_left_to_the_caller_and_their_errors_pass() {
        let path = Path::new("hf://datasets/a/b");
        let error = found(&here, path, &mut Unwatched).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }) && error.is_input(), "{error}");
        assert!(error.to_string().starts_with("`path` is hf://datasets/a/b, expected files here"), "{error}");
        let error = found(&|_, _| Err("gone".into()), path, &mut Unwatched).unwrap_err();
        assert!(matches!(error, Error::Find(_)) && error.is_input() && error.to_string() == "gone", "{error}");
        let files = found(&|path, _| Ok(vec![path.join("x")]), path, &mut Unwatched).unwrap();
        assert_eq!(files, [path.join("x")]);
    }
}
