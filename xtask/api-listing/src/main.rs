//! Lists the public items of crates, one a line with its signature.
//!
//! `api-listing FOLDER JSON...` writes `FOLDER/NAME.txt` for each `NAME.json` that rustdoc has made.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use public_api::Builder;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let (folder, inputs) = paths.split_first().context("usage: api-listing FOLDER JSON...")?;
    ensure!(!inputs.is_empty(), "usage: api-listing FOLDER JSON...");
    for input in inputs {
        let name = input.file_stem().with_context(|| format!("{} names no file", input.display()))?;
        let output = folder.join(name).with_extension("txt");
        fs::write(&output, listing(input)?).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(())
}

/// The public items, without implementations that the compiler or a blanket one gives.
fn listing(input: &Path) -> Result<String> {
    let api = Builder::from_rustdoc_json(input)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("cannot read {}", input.display()))?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}
