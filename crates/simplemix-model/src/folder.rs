//! Folders that appear whole or not at all.

use std::path::Path;

use crate::error::{At, Result};

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
