//! A mixture's papers, and checking them: the same settings on the same files give the same bytes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_mix::{Achieved, Origin, Receipt};

use super::execute::Plan;
use super::settings::Settings;
use crate::failure::{Fails, Failure, Result, read_text};
use crate::progress::print;

const VERSION: u32 = 1;

/// A receipt with what this command needs to make the mixture again.
#[derive(Debug, Serialize, Deserialize)]
struct Papers {
    #[serde(flatten)]
    receipt: Receipt,
    /// What `tokens` counts: tokens, or bytes where no tokenizer was given.
    length_unit: String,
    /// The settings of the call.
    settings: Settings,
}

/// Writes the receipt of a mixture that lies at `output`.
pub(super) fn write(path: &Path, settings: &Settings, plan: &Plan, achieved: &Achieved, output: &Path) -> Result {
    let receipt = receipt(settings, plan, achieved, output)?;
    let papers = Papers { receipt, length_unit: plan.lengths.unit().to_owned(), settings: settings.clone() };
    let text = serde_json::to_string_pretty(&papers).run()?;
    std::fs::write(path, text + "\n").map_err(|e| Failure::Run(anyhow::anyhow!("{}: {e}", path.display())))
}

fn receipt(settings: &Settings, plan: &Plan, achieved: &Achieved, output: &Path) -> Result<Receipt> {
    let mut origins = Vec::new();
    for ((source, store), refused) in settings.sources.iter().zip(&plan.sources.stores).zip(&plan.sources.refused) {
        origins.push(Origin {
            name: source.name.clone(),
            path: source.path.display().to_string(),
            blake3: fingerprint(&source.path)?,
            rows: store.rows(),
            refused: refused.clone(),
        });
    }
    Ok(Receipt {
        version: VERSION,
        tool: format!("simplemix {}", env!("CARGO_PKG_VERSION")),
        mixture: plan.mixture.config().clone(),
        origins,
        plan: plan.mixture.plan(),
        promise: plan.mixture.promise(),
        achieved: achieved.clone(),
        output: output.display().to_string(),
        output_blake3: fingerprint(output)?,
    })
}

/// Makes the mixture of a receipt again and compares: sources, what was achieved, and the bytes, also of the file that
/// was written then if it is still there.
pub(super) fn verify(path: &Path) -> Result {
    let text = read_text(path)?;
    let papers: Papers =
        serde_json::from_str(&text).map_err(|e| Failure::input(format!("{}: not a receipt: {e}", path.display())))?;
    let Papers { receipt: known, settings, .. } = papers;
    if known.version != VERSION {
        let text = format!("{}: version {} of the receipt, expected {VERSION}", path.display(), known.version);
        return Err(Failure::input(text));
    }
    for origin in &known.origins {
        let found = fingerprint(Path::new(&origin.path))?;
        if found != origin.blake3 {
            let text = format!(
                "{}: source `{}` has changed: blake3 {found}, expected {}",
                origin.path, origin.name, origin.blake3
            );
            return Err(Failure::input(text));
        }
    }
    // Made beside the result, in a folder of its own that vanishes.
    let output = PathBuf::from(&known.output);
    let folder = output.parent().filter(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let folder = tempfile::tempdir_in(folder).run()?;
    let name = output.file_name().ok_or_else(|| Failure::input(format!("{}: no output is named", path.display())))?;
    let again = folder.path().join(name);
    let plan = Plan::new(&Settings { output: Some(again.clone()), ..settings.clone() })?;
    let achieved = plan.write(&again)?;
    let made = receipt(&settings, &plan, &achieved, &again)?;
    let differs = |what: &str| Err(Failure::Run(anyhow::anyhow!("{}: {what}", path.display())));
    if made.achieved != known.achieved || made.plan != known.plan {
        return differs("the mixture holds other rows now than the receipt says");
    }
    if made.output_blake3 != known.output_blake3 {
        return differs(&format!(
            "the mixture has other bytes now; it was written by {}, this is {}",
            known.tool, made.tool
        ));
    }
    let on_disk = match output.is_file() {
        true if fingerprint(&output)? != known.output_blake3 => {
            return differs(&format!("{} is not what was written then", output.display()));
        }
        true => format!("{} is what was written then", output.display()),
        false => format!("{} is gone, but can be made again", output.display()),
    };
    print(&format!(
        "{}: holds: {} pairs, {} sources unchanged, {on_disk}",
        path.display(),
        achieved.pairs,
        known.origins.len()
    ));
    Ok(())
}

/// blake3 of a file, or of several one after the other, in hex.
fn fingerprint(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for file in crate::reading::named(path)? {
        let wrong = |e: std::io::Error| Failure::input(format!("{}: {e}", file.display()));
        std::io::copy(&mut std::fs::File::open(&file).map_err(wrong)?, &mut hasher).map_err(wrong)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
