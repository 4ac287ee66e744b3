//! Flags that several commands share, and parsers of their values.

use std::fmt::Display;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Fails, Result, failed};
use crate::progress::{Terminal, print};

/// Parses a value by its name in settings files, such as `best-worst`. The error lists the names.
pub(crate) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// Help text with the default of a flag that clap itself does not know.
pub(crate) fn with_default(help: &str, default: impl Display) -> String {
    format!("{help} [default: {default}]")
}

/// Output file of a stage, and the summary printed after it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Output file, in the format of its ending: .parquet or .arrow, for pairs also .jsonl
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// Overwrite output, or an unfinished run, made with different settings
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) summary: Summary,
}

/// Form of the summary printed by a command.
#[derive(Debug, clap::Args)]
pub(crate) struct Summary {
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Summary {
    /// Prints a report as JSON if the flag is given, otherwise by `say`.
    pub(crate) fn print<R: Serialize>(&self, report: &R, say: impl FnOnce(&R)) -> Result {
        if self.json {
            print(&serde_json::to_string(report).run()?);
        } else {
            say(report);
        }
        Ok(())
    }
}

/// Limit and system message of the prompts that are read.
#[derive(Debug, clap::Args)]
pub(crate) struct PromptForm {
    /// Use only the first N prompts
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// System message to put before every prompt that has none
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}

/// Runs a stage of collecting, with bars on the terminal and an end by Ctrl-C.
pub(crate) fn on_terminal<R>(stage: impl FnOnce(&mut Terminal) -> simplemix_rollout::Result<R>) -> Result<R> {
    let mut terminal = Terminal::new()?;
    let report = stage(&mut terminal);
    terminal.clear();
    report.map_err(failed)
}

#[cfg(test)]
mod tests {
    use simplemix_rollout::Select;

    use super::*;

    #[test]
    fn words_are_those_of_settings_files_and_others_are_listed() {
        assert_eq!(word::<Select>("max-min-gap"), Ok(Select::MaxMinGap));
        let error = word::<Select>("max").unwrap_err();
        assert!(error.contains("unknown variant `max`, expected one of `best-worst`"), "{error}");
    }
}
