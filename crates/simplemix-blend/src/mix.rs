//! A mixture from settings to files: the mixture, its receipt and its plot, all of them or none.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_files::AtomicFile;
use simplemix_mix::{Achieved, Planned, Promise};

use crate::error::{At, Result};
use crate::execute::Mixing;
use crate::inputs::{Find, here};
use crate::receipt;
use crate::settings::MixSettings;

/// Summary of a mixture that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixReport {
    /// File of the mixture.
    pub output: PathBuf,
    /// Rows that each source was planned to give.
    pub plan: Vec<Planned>,
    /// Bounds that the order of the rows keeps.
    pub promise: Promise,
    /// Shares, counts and discrepancies of the rows that were written.
    pub achieved: Achieved,
}

/// Writes the mixture of `settings`, and its receipt and plot where they are asked for: all of them or, after an error, none.
///
/// # Errors
/// As [`Mixing::open`] and [`Mixing::write`]; [`crate::Error::Setting`] without an output.
pub fn mix(settings: &MixSettings, watch: &mut dyn Watch) -> Result<MixReport> {
    mix_with(settings, &here, watch)
}

/// [`mix()`] with the files of each source as `find` finds them.
///
/// # Errors
/// As [`mix()`]; errors of `find` as [`crate::Error::Find`], or as they are if they are of this crate.
pub fn mix_with(settings: &MixSettings, find: Find<'_>, watch: &mut dyn Watch) -> Result<MixReport> {
    let output = settings.required_output()?.to_owned();
    settings.check_apart()?;
    let mixing = Mixing::open_with(settings, find, watch)?;
    let (mixture, achieved) = mixing.write_without_name(&output, watch)?;
    // The mixture gets its name last, so that it is never there without its receipt.
    let mut files = Vec::new();
    #[cfg(feature = "plot")]
    if let Some(path) = &settings.plot {
        files.push(written(path, &crate::plot::shares(&mixing.mixture)?)?);
    }
    if let Some(path) = &settings.report {
        let hash = simplemix_files::hash_file(mixture.temporary_path())?;
        files.push(written(path, &receipt::text(settings, &mixing, &achieved, hash, find, watch)?)?);
    }
    files.push(mixture);
    AtomicFile::commit_together(files)?;
    let (plan, promise) = (mixing.mixture.plan(), mixing.mixture.promise());
    Ok(MixReport { output, plan, promise, achieved })
}

/// A file of this text that has no name yet.
fn written(path: &Path, text: &str) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes()).at(path, "write")?;
    Ok(file)
}
