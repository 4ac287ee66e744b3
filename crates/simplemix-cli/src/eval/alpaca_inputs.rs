//! Constant inputs of AlpacaEval's length control: from a flag, the official package's cache, or the hub.

use std::path::{Path, PathBuf};

use simplemix_eval::alpaca::{LengthControl, read_difficulty, read_gamed};

use crate::failure::{Fails, Result};
use crate::lines::warn;

/// Data set from which the official package downloads them.
const DATASET: &str = "tatsu-lab/alpaca_eval";
const GAMED: &str = "df_gamed.csv";
const DIFFICULTY: &str = "instruction_difficulty.csv";

/// Reads the inputs that exist; `None` if there are none. Without the gamed rows, only published weights can be used.
pub(crate) fn length_control(
    gamed: Option<&Path>,
    difficulty: Option<&Path>,
    may_fetch: bool,
) -> Result<Option<LengthControl>> {
    let gamed = gamed.map(Path::to_owned).or_else(|| found(GAMED, may_fetch));
    // The gamed rows also hold the difficulties.
    let difficulty = match (&gamed, difficulty) {
        (_, Some(path)) => Some(path.to_owned()),
        (None, None) => found(DIFFICULTY, may_fetch),
        (Some(_), None) => None,
    };
    if gamed.is_none() {
        warn(&format!(
            "no length-controlled win rates, which need {GAMED} of the data set {DATASET}: give --gamed FILE, or --fetch to \
             download it"
        ));
    }
    let difficulty = difficulty.map(|path| read_difficulty(&path)).transpose().input()?;
    let rows = gamed.map(|path| read_gamed(&path)).transpose().input()?;
    Ok(match (rows, difficulty) {
        (None, None) => None,
        (rows, difficulty) => Some(LengthControl::new(&rows.unwrap_or_default(), difficulty)),
    })
}

/// Without access to the hub there is nothing to find.
#[cfg(not(feature = "hub"))]
fn found(name: &str, may_fetch: bool) -> Option<PathBuf> {
    if may_fetch {
        warn(&format!(
            "--fetch: cannot download {name}: this build has no access to the hub; build it with `--features hub`"
        ));
    }
    None
}

/// Finds a file in the cache of the Hugging Face hub, or downloads it.
#[cfg(feature = "hub")]
fn found(name: &str, may_fetch: bool) -> Option<PathBuf> {
    simplemix_model::hub::dataset_file(DATASET, name, may_fetch).unwrap_or_else(|error| {
        warn(&format!("--fetch: cannot download {name} of the data set {DATASET}: {error}"));
        None
    })
}
