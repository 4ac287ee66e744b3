//! Settings out of the YAML files of other programs: TRL and the alignment handbook, axolotl, LLaMA-Factory.
//!
//! Every key is followed, named as one without effect on the result, or named as one that cannot be followed; all of a file at once.

mod axolotl;
mod keys;
mod llama_factory;
mod schedule;
mod translation;
mod trl;
mod trl_data;

use std::fmt;
use std::path::Path;

use self::keys::Keys;
use self::translation::{Format, Source, Translation};
use crate::config::Objective;
use crate::error::{Error, Result};

/// Program that a file of settings was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// TRL, and the alignment handbook on top of it.
    Trl,
    /// axolotl.
    Axolotl,
    /// LLaMA-Factory.
    LlamaFactory,
}

/// Settings out of another program's file, and what had no counterpart.
#[derive(Debug)]
pub struct Recipe {
    /// The program.
    pub program: Program,
    /// Settings, with the program's defaults where they differ from ours.
    pub settings: toml::Table,
    /// Keys that cannot change a result.
    pub ignored: Vec<String>,
    /// Facts that the user should know, such as the batch size.
    pub remarks: Vec<String>,
    /// Keys and values that could change a result and have no counterpart, with what was expected.
    pub unfollowed: Vec<String>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trl => "TRL",
            Self::Axolotl => "axolotl",
            Self::LlamaFactory => "LLaMA-Factory",
        })
    }
}

/// Reads settings of TRL's command line, or of the alignment handbook, with TRL's defaults for the objective. A batch is that of
/// `devices` devices.
///
/// # Errors
/// [`Error::Config`] for a text that is no YAML, for a file of another program, and naming all keys and values that cannot be
/// followed.
pub fn from_trl(text: &str, path: &Path, objective: Objective, devices: u64) -> Result<Recipe> {
    let refuse = |message: String| Error::Config { path: path.to_owned(), message };
    let recipe = import_recipe(text, path, Some(objective), devices)?;
    match recipe.program {
        Program::Trl if recipe.unfollowed.is_empty() => Ok(recipe),
        Program::Trl => Err(refuse(recipe.unfollowed.join("; "))),
        other => Err(refuse(format!(
            "a file of {other}, expected one of TRL; `simplemix import-config {} -o run.toml` writes settings for --config from it",
            path.display()
        ))),
    }
}

/// Reads settings of TRL, the alignment handbook, axolotl or LLaMA-Factory, told apart by their keys. What has no counterpart is
/// listed. Without an objective, that of the file, or preferences.
///
/// # Errors
/// [`Error::Config`] for a text that is no YAML, or for a file of a program that only starts training.
pub fn import_recipe(text: &str, path: &Path, objective: Option<Objective>, devices: u64) -> Result<Recipe> {
    let keys = Keys::read(text, path)?;
    let program = program_of(&keys).map_err(|message| Error::Config { path: path.to_owned(), message })?;
    let (format, of_file): (&Format, Option<Objective>) = match program {
        Program::Trl => (&trl::FORMAT, None),
        Program::Axolotl => (&axolotl::FORMAT, axolotl::objective(&keys)),
        Program::LlamaFactory => (&llama_factory::FORMAT, llama_factory::objective(&keys)),
    };
    let chosen = objective.or(of_file).unwrap_or(Objective::Preference);
    let mut to = Translation::default();
    to.set("objective", chosen.word());
    to.set("epochs", if program == Program::Axolotl { 1.0 } else { 3.0 });
    let source = Source { keys: &keys, objective: chosen, devices, text };
    format.translate(&source, &mut to);
    if program == Program::Trl {
        trl::loss_of_folder(&source, path, &mut to);
    }
    let Translation { settings, ignored, remarks, unfollowed } = to;
    Ok(Recipe { program, settings, ignored, remarks, unfollowed })
}

/// The program that has such keys.
fn program_of(keys: &Keys) -> Result<Program, String> {
    let has = |names: &[&str]| names.iter().any(|name| keys.has(name));
    if has(&["compute_environment", "distributed_type"]) || has(&["zero_optimization"]) {
        return Err("a file of the launcher, accelerate or DeepSpeed, expected the file of a recipe".to_owned());
    }
    if keys.has("base_model") && !keys.has("model_name_or_path") {
        return Ok(Program::Axolotl);
    }
    if has(&["stage", "finetuning_type", "cutoff_len", "pref_loss", "pref_beta"]) {
        return Ok(Program::LlamaFactory);
    }
    Ok(Program::Trl)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
