//! Mixtures of files: one file from several sources, in stated shares, with a receipt that can be verified.
//!
//! [`mix()`] does all of it from [`MixSettings`]; [`Mixing`] does it step by step. Which row comes when is decided by
//! `simplemix-mix`; this module reads the sources and writes the rows.

mod difference;
mod execute;
mod lengths;
mod receipt;
mod settings;
mod sources;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_eval::plot::{Panel, Series, svg};
use simplemix_files::AtomicFile;
use simplemix_mix::{Achieved, Mixture, Planned, Promise, SourceConfig};

pub use execute::Mixing;
pub use receipt::{Verified, verify};
pub use settings::{MixSettings, MixSource, SharedPrompts};

use crate::error::{At, Result};

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
    let output = settings.required_output()?.to_owned();
    settings.check_apart()?;
    let mixing = Mixing::open(settings, watch)?;
    let (mixture, achieved) = mixing.write_without_name(&output, watch)?;
    // The mixture gets its name last, so that it is never there without its receipt.
    let mut files = Vec::new();
    if let Some(path) = &settings.plot {
        files.push(written(path, &svg(&drawn(&mixing.mixture))?)?);
    }
    if let Some(path) = &settings.report {
        let hash = simplemix_files::hash_file(mixture.temporary_path())?;
        files.push(written(path, &receipt::text(settings, &mixing, &achieved, hash, watch)?)?);
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

/// The sources' shares up to each pair.
fn drawn(mixture: &Mixture) -> [Panel; 2] {
    const POINTS: u64 = 400;
    let total = mixture.len();
    let at: Vec<u64> = (1..=POINTS.min(total)).map(|i| i * total / POINTS.min(total)).collect();
    let curves = |value: &dyn Fn(usize, u64) -> f64| -> Vec<Series> {
        let sources = mixture.config().sources.iter().enumerate();
        let series = |(i, source): (usize, &SourceConfig)| Series {
            name: source.name.clone(),
            points: at.iter().map(|&pairs| (pairs as f64, value(i, pairs))).collect(),
        };
        sources.map(series).collect()
    };
    let panel = |title: &str, series| Panel {
        title: title.to_owned(),
        x: "pairs".to_owned(),
        series,
        smooth: false,
        baseline: None,
    };
    let shares = curves(&|i, pairs| mixture.count(i, pairs) as f64 / pairs as f64);
    let ahead = curves(&|i, pairs| mixture.count(i, pairs) as f64 - mixture.due(i, pairs));
    [panel("Share of the pairs so far", shares), panel("Pairs ahead of the share", ahead)]
}
