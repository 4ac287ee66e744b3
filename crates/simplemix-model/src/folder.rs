//! Folders that appear whole or not at all.

use std::path::Path;

use serde_json::Value;
use tch::Kind;

use crate::config::ModelConfig;
use crate::error::{At, Error, Result};
use crate::network::Parameters;
use crate::weights;

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

/// The source's own config.json where there is one, so that keys unknown to us survive; the weights' kind is ours.
pub(crate) fn config_json(config: &ModelConfig, source: Option<&Path>, kind: Kind) -> Result<Value> {
    let dtype = match kind {
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        _ => "float32",
    };
    let mut config = match source.map(|s| s.join("config.json")).filter(|p| p.is_file()) {
        Some(path) => {
            let text = std::fs::read_to_string(&path).at(&path, "read")?;
            serde_json::from_str(&text).map_err(|source| Error::Json { path, source })?
        }
        None => config.to_json(),
    };
    if config.get("torch_dtype").is_some() {
        config["torch_dtype"] = dtype.into();
    }
    config["dtype"] = dtype.into();
    Ok(config)
}

/// Writes a model folder: config, weights in files of at most `shard_bytes` (or one tensor), and the source's tokenizer.
pub(crate) fn write_model(
    folder: &Path,
    source: Option<&Path>,
    config: &Value,
    parameters: &Parameters,
    shard_bytes: usize,
) -> Result<()> {
    write(folder, |temporary| {
        let path = temporary.join("config.json");
        std::fs::write(&path, format!("{config:#}\n")).at(&path, "write")?;
        for name in COMPANIONS {
            if let Some(from) = source.map(|s| s.join(name)).filter(|f| f.is_file()) {
                std::fs::copy(&from, temporary.join(name)).at(&from, "read")?;
            }
        }
        weights::save_in_shards(temporary, parameters, shard_bytes)
    })
}

/// Fills a folder beside `folder` with `write`, and renames it once everything is on disk.
///
/// # Errors
/// [`crate::Error::Io`] if `folder` exists already or cannot be written, or whatever `write` reports.
pub(crate) fn write(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(exists).at(folder, "write");
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).at(parent, "write")?;
    let temporary = tempfile::Builder::new().prefix(".saving-").tempdir_in(parent).at(parent, "write")?;
    write(temporary.path())?;
    publish(temporary.path())?;
    std::fs::rename(temporary.path(), folder).at(folder, "write")?;
    // The folder has another name now; there is nothing left to remove.
    let _ = temporary.keep();
    Ok(())
}

/// Sees that a temporary folder's files are on disk and readable as others that the user makes.
pub(crate) fn publish(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).at(folder, "read")? {
        let path = entry.at(folder, "read")?.path();
        std::fs::File::open(&path).and_then(|file| file.sync_all()).at(&path, "write")?;
        share(&path, 0o644)?;
    }
    share(folder, 0o755)
}

/// What is made in a temporary place is its owner's alone; a model is readable as any other file that the user makes.
#[cfg(unix)]
fn share(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at(path, "write")
}

#[cfg(not(unix))]
fn share(_path: &Path, _mode: u32) -> Result<()> {
    Ok(())
}
