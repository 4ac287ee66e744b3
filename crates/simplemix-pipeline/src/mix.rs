//! Mixtures whose sources may also be data sets of the Hugging Face hub.

use std::path::{Path, PathBuf};

use simplemix_blend::{MixReport, MixSettings, Verified, mix_with, verify_with};
use simplemix_data::Watch;

use crate::error::Result;
use crate::inputs::files;

/// Writes the mixture of `settings` as [`simplemix_blend::mix`] does, from sources that [`files`] finds.
///
/// # Errors
/// As [`simplemix_blend::mix`] and [`files`].
pub fn mix(settings: &MixSettings, watch: &mut dyn Watch) -> Result<MixReport> {
    Ok(mix_with(settings, &found, watch)?)
}

/// Makes the mixture of a receipt again as [`simplemix_blend::verify`] does, from sources that [`files`] finds.
///
/// # Errors
/// As [`simplemix_blend::verify`] and [`files`].
pub fn verify(path: &Path, watch: &mut dyn Watch) -> Result<Verified> {
    Ok(verify_with(path, &found, watch)?)
}

/// Files of a source, for simplemix-blend.
fn found(path: &Path, watch: &mut dyn Watch) -> Result<Vec<PathBuf>, Box<dyn std::error::Error + Send + Sync>> {
    files(path, watch).map_err(Into::into)
}
