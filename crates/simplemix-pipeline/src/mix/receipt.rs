//! Receipts of mixtures, and their verification: the same settings on the same files give the same bytes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_mix::{Achieved, Origin, Receipt};

use super::execute::Mixing;
use super::settings::MixSettings;
use crate::error::{At, Error, Result};
use crate::inputs::fingerprint;

const VERSION: u32 = 1;

/// A receipt with all that is needed to make the mixture again.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    receipt: Receipt,
    /// Unit of lengths: tokens, or bytes where no tokenizer was given.
    length_unit: String,
    /// Settings of the mixture.
    settings: MixSettings,
}

/// Outcome of a verification that found no difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Pairs of the mixture.
    pub pairs: u64,
    /// Sources, all unchanged.
    pub sources: usize,
    /// File of the mixture, as the receipt names it.
    pub output: PathBuf,
    /// Whether that file is there, with the bytes of then.
    pub is_there: bool,
}

/// Writes the receipt of a mixture that was written.
pub(super) fn write(
    path: &Path,
    settings: &MixSettings,
    mixing: &Mixing,
    achieved: &Achieved,
    watch: &mut dyn Watch,
) -> Result<()> {
    let receipt = receipt(settings, mixing, achieved, watch)?;
    let file = File { receipt, length_unit: mixing.lengths.unit().to_owned(), settings: settings.clone() };
    let text = serde_json::to_string_pretty(&file).map_err(|error| Error::serialise("the receipt")(&error))?;
    Ok(simplemix_files::write(path, text + "\n")?)
}

fn receipt(settings: &MixSettings, mixing: &Mixing, achieved: &Achieved, watch: &mut dyn Watch) -> Result<Receipt> {
    let output = settings.required_output()?;
    let mut origins = Vec::new();
    for ((source, store), refused) in settings.sources.iter().zip(&mixing.sources.stores).zip(&mixing.sources.refused) {
        origins.push(Origin {
            name: source.name.clone(),
            path: source.path.display().to_string(),
            blake3: fingerprint(&source.path, watch)?,
            rows: store.rows(),
            refused: refused.clone(),
        });
    }
    Ok(Receipt {
        version: VERSION,
        tool: crate::TOOL.to_owned(),
        mixture: mixing.mixture.config().clone(),
        origins,
        plan: mixing.mixture.plan(),
        promise: mixing.mixture.promise(),
        achieved: achieved.clone(),
        output: output.display().to_string(),
        output_blake3: fingerprint(output, watch)?,
    })
}

/// Makes the mixture of a receipt again, and compares sources, shares and bytes, also those of the file that was written
/// then if it is still there.
///
/// # Errors
/// [`Error::Receipt`] for a file that is no receipt, [`Error::SourceChanged`], [`Error::Differs`], and whatever mixing
/// reports.
pub fn verify(path: &Path, watch: &mut dyn Watch) -> Result<Verified> {
    let File { receipt: known, settings, .. } = read(path)?;
    for origin in &known.origins {
        let found = fingerprint(Path::new(&origin.path), watch)?;
        if found != origin.blake3 {
            let (path, name, expected) = (origin.path.clone(), origin.name.clone(), origin.blake3.clone());
            return Err(Error::SourceChanged { path, name, found, expected });
        }
    }
    let output = PathBuf::from(&known.output);
    let made = made_again(path, &settings, &output, watch)?;
    let differs = |message: String| Err(Error::Differs { path: path.to_owned(), message });
    if made.achieved != known.achieved || made.plan != known.plan {
        return differs("the mixture holds other rows now than the receipt has".to_owned());
    }
    if made.output_blake3 != known.output_blake3 {
        let (then, now) = (&known.tool, &made.tool);
        return differs(format!("the mixture has other bytes now; it was written by {then}, this is {now}"));
    }
    let is_there = output.is_file();
    if is_there && fingerprint(&output, watch)? != known.output_blake3 {
        return differs(format!("{} is not what was written then", output.display()));
    }
    Ok(Verified { pairs: made.achieved.pairs, sources: known.origins.len(), output, is_there })
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).at(path, "read")?;
    let wrong = |message| Error::Receipt { path: path.to_owned(), message };
    let file: File = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match file.receipt.version {
        VERSION => Ok(file),
        version => Err(wrong(format!("version {version}, expected {VERSION}"))),
    }
}

/// The receipt of the mixture made once more, beside the first one, in a folder that vanishes.
fn made_again(path: &Path, settings: &MixSettings, output: &Path, watch: &mut dyn Watch) -> Result<Receipt> {
    let folder = output.parent().filter(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let folder = tempfile::tempdir_in(folder).at(folder, "create a temporary folder in")?;
    let name = output.file_name().ok_or_else(|| Error::Receipt {
        path: path.to_owned(),
        message: format!("its output is `{}`, expected a file", output.display()),
    })?;
    let settings = MixSettings { output: Some(folder.path().join(name)), ..settings.clone() };
    let mixing = Mixing::open(&settings, watch)?;
    let achieved = mixing.write(settings.required_output()?, watch)?;
    receipt(&settings, &mixing, &achieved, watch)
}
