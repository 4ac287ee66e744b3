//! Model folders from the Hugging Face hub, in the cache that all its programs share.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
#[cfg(feature = "hub")]
use crate::hub_files::{Hub, Kind, Repo};
use crate::not_a_model;
#[cfg(feature = "hub")]
use crate::weights::{WEIGHTS, WEIGHTS_INDEX};

/// The revision of which nothing else is said.
const MAIN: &str = "main";

/// Files that not every model has.
#[cfg(feature = "hub")]
const OPTIONAL: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    // Files of the other parts of multimodal models, which go into a saved model.
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// Files of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision stands for.
    pub commit: String,
    /// Paths of all files in the repository.
    pub files: Vec<String>,
}

/// The folder of `model`: the path itself, or the hub's model of that id, downloaded into the hub's cache. After an `@` follows the
/// revision, a branch, a tag or a commit: `HuggingFaceTB/SmolLM3-3B-checkpoints@it-SFT`; without it, `main`.
///
/// `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN` and the token file are honoured as by `huggingface_hub`. The token is sent
/// to the endpoint and to no place that it redirects to.
///
/// # Errors
/// [`Error::Hub`] if there is no such folder and the hub cannot be reached, has no such model, or is not part of this build
/// (feature `hub`); [`Error::NotAModel`] for a path that is known to be something else than a model folder.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    match hub_id(model) {
        Some((id, revision)) => fetch(id, revision, true),
        None => not_a_model::check(model).map(|()| model.to_owned()),
    }
}

/// As [`resolve`], without the weights of a model of the hub: for what follows from its configuration and tokenizer alone.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_without_weights(model: &Path) -> Result<PathBuf> {
    match hub_id(model) {
        Some((id, revision)) => fetch(id, revision, false),
        None => resolve(model),
    }
}

#[cfg(not(feature = "hub"))]
fn fetch(id: &str, _: &str, _: bool) -> Result<PathBuf> {
    Err(Error::Hub { id: id.to_owned(), reason: ABSENT.to_owned() })
}

#[cfg(not(feature = "hub"))]
const ABSENT: &str = "this build has no access to the hub; build it with `--features hub`";

/// Downloads a model into the hub's cache, with its weights or without.
#[cfg(feature = "hub")]
fn fetch(id: &str, revision: &str, with_weights: bool) -> Result<PathBuf> {
    let failed = |reason: String| Error::Hub { id: id.to_owned(), reason };
    let hub = Hub::from_env();
    let repo = Repo { kind: Kind::Model, id, revision };
    let get = |name: &str| hub.get(repo, name);
    let config = get("config.json").map_err(failed)?;
    get("tokenizer.json").map_err(failed)?;
    for name in OPTIONAL {
        // Absence is usual; anything else shows when the file is needed.
        let _ = get(name);
    }
    if with_weights {
        weights(&get).map_err(failed)?;
    }
    config.parent().map(Path::to_owned).ok_or_else(|| failed("the cache has no folder for it".to_owned()))
}

/// A file of the data set `id` on the hub from its cache or, if `may_fetch`, downloaded into it; `None` if it is not there.
///
/// # Errors
/// [`Error::Hub`] if the hub cannot be reached or has no such file.
#[cfg(feature = "hub")]
pub fn dataset_file(id: &str, name: &str, may_fetch: bool) -> Result<Option<PathBuf>> {
    let (hub, repo) = (Hub::from_env(), Repo { kind: Kind::Dataset, id, revision: MAIN });
    match hub.cached(repo, name) {
        None if may_fetch => {
            hub.get(repo, name).map(Some).map_err(|reason| Error::Hub { id: format!("{id}/{name}"), reason })
        }
        found => Ok(found),
    }
}

/// Files of the data set `id` on the hub at a revision: a branch, a tag or a commit.
///
/// # Errors
/// [`Error::Hub`] if the hub cannot be reached, has no such data set, or is not part of this build (feature `hub`).
pub fn dataset_listing(id: &str, revision: &str) -> Result<Listing> {
    #[cfg(feature = "hub")]
    let listing = Hub::from_env().listing(Repo { kind: Kind::Dataset, id, revision });
    #[cfg(not(feature = "hub"))]
    let listing = Err(format!("{revision}: {ABSENT}"));
    listing.map_err(|reason| Error::Hub { id: id.to_owned(), reason })
}

/// A file of the data set `id` on the hub at a revision, downloaded into the hub's cache if it is not there.
///
/// # Errors
/// As [`dataset_listing`].
pub fn dataset_file_at(id: &str, revision: &str, name: &str) -> Result<PathBuf> {
    #[cfg(feature = "hub")]
    let file = Hub::from_env().get(Repo { kind: Kind::Dataset, id, revision }, name);
    #[cfg(not(feature = "hub"))]
    let file = Err(format!("{revision}: {ABSENT}"));
    file.map_err(|reason| Error::Hub { id: format!("{id}/{name}"), reason })
}

/// Whether this build can push to the hub (feature `push`).
pub const CAN_PUSH: bool = cfg!(feature = "push");

/// Place on the hub that a folder is pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushTo<'a> {
    /// `OWNER/NAME`, or a name alone, whose owner is the user of the token.
    pub repository: &'a str,
    /// Branch, made if it is not there.
    pub revision: &'a str,
    /// Whether the repository is private where it has to be made.
    pub private: bool,
}

/// A model repository of the hub that a folder can be pushed to: it is there, and the token may write to it.
///
/// Large files are sent by the LFS protocol, and those that the hub has are not sent again; the whole is one commit. The token is sent
/// to the endpoint alone. Tested against servers of the tests' own, not on the hub itself.
#[derive(Debug)]
pub struct Push {
    #[cfg(feature = "push")]
    target: crate::hub_push::Target,
    /// There is none in this build.
    #[cfg(not(feature = "push"))]
    absent: std::convert::Infallible,
}

impl Push {
    /// Logs in with `HF_TOKEN` or the token file, and makes repository and branch if they are not there.
    ///
    /// # Errors
    /// [`Error::Push`] without a token or network, for a token that may not write there, for a name that is none, and in a build without
    /// the feature `push`.
    pub fn open(to: PushTo<'_>) -> Result<Self> {
        Self::opened(to).map_err(|reason| Error::Push { repository: to.repository.to_owned(), reason })
    }

    /// `owner/name`.
    pub fn repository(&self) -> &str {
        self.name()
    }

    /// Pushes all files of `folder` but hidden ones, as one commit with this message, and returns the commit's address. `progress`
    /// hears of bytes done, and of all.
    ///
    /// # Errors
    /// [`Error::Push`]. Nothing of the repository has changed then, and the call may be repeated.
    pub fn push(&self, folder: &Path, message: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<String> {
        let failed = |reason| Error::Push { repository: self.repository().to_owned(), reason };
        self.pushed(folder, message, progress).map_err(failed)
    }
}

#[cfg(feature = "push")]
impl Push {
    fn opened(to: PushTo<'_>) -> Result<Self, String> {
        let target = crate::hub_push::Target::open(Hub::from_env(), to.repository, to.revision, to.private)?;
        Ok(Self { target })
    }

    fn name(&self) -> &str {
        self.target.repository()
    }

    fn pushed(&self, folder: &Path, message: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<String, String> {
        self.target.push(folder, message, progress)
    }
}

/// Without the feature there is no value of the type.
#[cfg(not(feature = "push"))]
impl Push {
    fn opened(_: PushTo<'_>) -> Result<Self, String> {
        Err("this build cannot push; build it with `--features push`".to_owned())
    }

    fn name(&self) -> &str {
        match self.absent {}
    }

    fn pushed(&self, _: &Path, _: &str, _: &mut dyn FnMut(u64, u64)) -> Result<String, String> {
        match self.absent {}
    }
}

/// Owner, name and revision, where no such folder exists.
fn hub_id(model: &Path) -> Option<(&str, &str)> {
    let (text, revision) = model.to_str().map(|text| text.split_once('@').unwrap_or((text, MAIN)))?;
    let named = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (owner, name) = text.split_once('/')?;
    (!model.exists() && named(owner) && named(name)).then_some((text, revision))
}

/// One file of weights, or the shards that the index names.
#[cfg(feature = "hub")]
fn weights(get: &dyn Fn(&str) -> Result<PathBuf, String>) -> Result<(), String> {
    let Err(no_single_file) = get(WEIGHTS) else { return Ok(()) };
    let index = get(WEIGHTS_INDEX).map_err(|error| format!("{no_single_file}; {error}"))?;
    let text = simplemix_files::read_to_string(&index).map_err(|error| format!("{}: {error}", index.display()))?;
    let index: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{WEIGHTS_INDEX}: {error}"))?;
    let shards = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let shards: std::collections::BTreeSet<&str> = shards.filter_map(serde_json::Value::as_str).collect();
    shards.into_iter().try_for_each(|shard| get(shard).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_paths_are_not_ids() {
        for path in ["src", "./a/b", "/a/b", "a", "a/b/c", "../b", "a/..", "a b/c"] {
            assert_eq!(hub_id(Path::new(path)), None, "{path}");
        }
        assert_eq!(hub_id(Path::new("HuggingFaceTB/SmolLM2-135M")), Some(("HuggingFaceTB/SmolLM2-135M", "main")));
        assert_eq!(hub_id(Path::new("a/b@refs/pr/1")), Some(("a/b", "refs/pr/1")));
    }
}
