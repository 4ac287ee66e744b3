//! Receipts of mixtures, and their verification: the same settings on the same files give the same bytes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;
use simplemix_files::AtomicFolder;
use simplemix_files::secret::storable;
use simplemix_mix::{Achieved, Origin, Receipt};

use crate::error::{At, Error, Result};
use crate::execute::Mixing;
use crate::inputs::{Find, fingerprint, here};
use crate::settings::MixSettings;
use crate::sources::Sources;

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

/// The receipt of a mixture whose file has this hash.
pub(crate) fn text(
    settings: &MixSettings,
    mixing: &Mixing,
    achieved: &Achieved,
    hash: String,
    find: Find<'_>,
    watch: &mut dyn Watch,
) -> Result<String> {
    let file = file(settings, mixing, achieved, hash, find, watch)?;
    let text = serde_json::to_string_pretty(&file).map_err(|error| Error::serialise("the receipt")(&error))?;
    Ok(storable(&(text + "\n")).to_string())
}

fn file(
    settings: &MixSettings,
    mixing: &Mixing,
    achieved: &Achieved,
    hash: String,
    find: Find<'_>,
    watch: &mut dyn Watch,
) -> Result<File> {
    let output = settings.required_output()?;
    let mut origins = Vec::new();
    let Sources { counts, refused, .. } = &mixing.sources;
    for ((source, rows), refused) in settings.sources.iter().zip(counts).zip(refused) {
        origins.push(Origin {
            name: source.name.clone(),
            path: source.path.display().to_string(),
            blake3: fingerprint(find, &source.path, watch)?,
            rows: *rows,
            refused: refused.clone(),
        });
    }
    let receipt = Receipt {
        version: VERSION,
        tool: crate::TOOL.to_owned(),
        mixture: mixing.mixture.config().clone(),
        origins,
        plan: mixing.mixture.plan(),
        promise: mixing.mixture.promise(),
        achieved: achieved.clone(),
        output: output.display().to_string(),
        output_blake3: hash,
    };
    Ok(File { receipt, length_unit: mixing.lengths.unit().to_owned(), settings: settings.clone() })
}

/// Makes the mixture of a receipt again, and compares sources, shares and bytes, also those of the file that was written
/// then if it is still there.
///
/// # Errors
/// [`Error::Receipt`] for a file that is no receipt, [`Error::SourceChanged`], [`Error::Differs`], and whatever mixing
/// reports.
pub fn verify(path: &Path, watch: &mut dyn Watch) -> Result<Verified> {
    verify_with(path, &here, watch)
}

/// [`verify`] with the files of each source as `find` finds them.
///
/// # Errors
/// As [`verify`]; errors of `find` as [`Error::Find`], or as they are if they are of this crate.
pub fn verify_with(path: &Path, find: Find<'_>, watch: &mut dyn Watch) -> Result<Verified> {
    let known = read(path)?;
    for origin in &known.receipt.origins {
        let found = fingerprint(find, Path::new(&origin.path), watch)?;
        if found != origin.blake3 {
            let (path, name, expected) = (origin.path.clone(), origin.name.clone(), origin.blake3.clone());
            return Err(Error::SourceChanged { path, name, found, expected });
        }
    }
    let output = PathBuf::from(&known.receipt.output);
    let made = made_again(path, &known.settings, find, watch)?;
    let differs = |message: String| Err(Error::Differs { path: path.to_owned(), message });
    if let Some(message) = difference(&known, &made)? {
        return differs(message);
    }
    let is_there = output.is_file();
    if is_there && fingerprint(find, &output, watch)? != known.receipt.output_blake3 {
        return differs(stale(path, &output));
    }
    Ok(Verified { pairs: made.receipt.achieved.pairs, sources: made.receipt.origins.len(), output, is_there })
}

/// Words for a receipt and a mixture of which one is not of the other's making, by the times at which they were written.
fn stale(receipt: &Path, output: &Path) -> String {
    let written = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let (receipt_name, name) = (receipt.display(), output.display());
    match (written(receipt), written(output)) {
        (Some(receipt), Some(output)) if output > receipt => format!(
            "{name} is not what was written then: {receipt_name} is stale, since {name} was written after it; mix again with \
             --report"
        ),
        _ => format!(
            "{name} is not what was written then: {name} is stale, since it was written before {receipt_name}; mix again"
        ),
    }
}

fn read(path: &Path) -> Result<File> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let wrong = |message| Error::Receipt { path: path.to_owned(), message };
    let file: File = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match file.receipt.version {
        VERSION => Ok(file),
        version => Err(wrong(format!("version {version}, expected {VERSION}"))),
    }
}

/// The receipt that the settings lead to now. The mixture is written to the cache and vanishes.
fn made_again(path: &Path, settings: &MixSettings, find: Find<'_>, watch: &mut dyn Watch) -> Result<File> {
    let output = settings.required_output()?;
    let cache = simplemix_files::cache_dir()?;
    simplemix_files::open_dir(&cache)?;
    // Never gets its name, and is deleted when dropped.
    let folder = AtomicFolder::create(cache.join("verified"))?;
    let name = output.file_name().ok_or_else(|| Error::Receipt {
        path: path.to_owned(),
        message: format!("its output is `{}`, expected a file", output.display()),
    })?;
    let temporary = MixSettings { output: Some(folder.path().join(name)), ..settings.clone() };
    let mixing = Mixing::open_with(&temporary, find, watch)?;
    let (mixture, achieved) = mixing.write_without_name(temporary.required_output()?, watch)?;
    let hash = simplemix_files::hash_file(mixture.temporary_path())?;
    let mut file = file(&temporary, &mixing, &achieved, hash, find, watch)?;
    file.receipt.output = output.display().to_string();
    file.settings = settings.clone();
    Ok(file)
}

/// First entry of a receipt that is not what its settings lead to now. The program that wrote it may be another one.
fn difference(known: &File, made: &File) -> Result<Option<String>> {
    let entries = |file: &File| serde_json::to_value(file).map_err(|error| Error::serialise("the receipt")(&error));
    let (known, made) = (entries(known)?, entries(made)?);
    let keys =
        ["version", "origins", "mixture", "plan", "promise", "achieved", "length_unit", "output", "output_blake3"];
    let Some(key) = keys.into_iter().find(|&key| known[key] != made[key]) else { return Ok(None) };
    Ok(Some(match key {
        "output_blake3" => {
            let (then, now) = (&known["tool"], &made["tool"]);
            format!("the mixture has other bytes now; it was written by {then}, this is {now}")
        }
        "plan" | "achieved" => format!("the mixture holds other rows now than the receipt has: `{key}` differs"),
        _ => format!("`{key}` is {}, but its settings lead to {}", known[key], made[key]),
    }))
}
