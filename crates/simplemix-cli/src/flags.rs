//! Flags that several commands share, and parsers of their values.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use simplemix_model::{DeviceChoice, LoadIn};
use simplemix_settings::OrAuto;

use crate::failure::{Fails, Failure, Result, failed};
use crate::lines::print_json;
use crate::progress::Terminal;

/// Parses a value by its name in settings files, such as `best-worst`. The error lists the names.
pub(crate) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// Parses `auto` or a number of tokens above 0.
pub(crate) fn tokens(text: &str) -> Result<OrAuto<usize>, String> {
    match text.parse() {
        Ok(OrAuto::Value(0)) | Err(_) => Err("expected `auto` or a whole number >= 1".to_owned()),
        Ok(tokens) => Ok(tokens),
    }
}

/// Help text with the default of a flag that clap itself does not know.
pub(crate) fn with_default(help: &str, default: impl Display) -> String {
    format!("{help} [default: {default}]")
}

/// Output file of a stage, and the summary printed after it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Output file, in the format of its ending: .parquet, .arrow or .jsonl
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// Overwrite output, or an unfinished run, made with different settings
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) summary: Summary,
}

/// Checks that an output is none of the inputs.
pub(crate) fn check_apart(output: &Path, inputs: &[PathBuf]) -> Result {
    if inputs.iter().any(|input| simplemix_files::is_same_file(input, output)) {
        let output = output.display();
        return Err(Failure::input(format!("--output is {output}, expected a file that is none of the inputs")));
    }
    Ok(())
}

/// Checks that an output does not exist, unless it may be overwritten.
pub(crate) fn check_new(output: &Path, overwrite: bool) -> Result {
    if output.exists() && !overwrite {
        let output = output.display();
        return Err(Failure::input(format!("--output {output}: exists; choose another name, or give --overwrite")));
    }
    Ok(())
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
            print_json(&serde_json::to_string(report).run()?);
        } else {
            say(report);
        }
        Ok(())
    }
}

/// Device that models run on.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct DeviceFlag {
    /// Device for models; auto is the first GPU, else the CPU, and refuses a GPU that libtorch cannot use [default: auto]
    #[arg(long, value_name = "auto|cpu|cuda|cuda:N")]
    pub(crate) device: Option<DeviceChoice>,
}

impl DeviceFlag {
    pub(crate) fn choice(self) -> DeviceChoice {
        self.device.unwrap_or_default()
    }

    /// Refuses the flag where no model runs in this process.
    pub(crate) fn refuse_without_models(self, has_models: bool) -> Result {
        match self.device {
            Some(device) if !has_models => {
                Err(Failure::input(format!("--device {device} has no use: no model runs in this process")))
            }
            _ => Ok(()),
        }
    }
}

/// Form of the weights of models that are not trained.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct LoadInFlag {
    /// Form in which the linear layers of the models are held: as they are, or in 8 or 4 bits, as training over such weights has them
    #[arg(long, value_name = "none|8bit|4bit", default_value = "none", value_parser = word::<LoadIn>)]
    pub(crate) load_in: LoadIn,
}

/// Processes that share the work of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ProcessesFlag {
    /// Processes on this machine that share the work, one a device; under torchrun or Slurm their number is what these have started
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024)
    )]
    pub(crate) processes: usize,
}

impl ProcessesFlag {
    /// Refuses the flag where no model runs in this process.
    pub(crate) fn refuse_without_models(self, has_models: bool) -> Result {
        match self.processes {
            1 => Ok(()),
            _ if has_models => Ok(()),
            count => Err(Failure::input(format!("--processes {count} has no use: no model runs in this process"))),
        }
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

/// Runs a stage of collecting with bars on the terminal, until it ends or Ctrl-C stops it.
pub(crate) fn on_terminal<R>(stage: impl FnOnce(&mut Terminal) -> R) -> R {
    let mut terminal = Terminal::new();
    let report = stage(&mut terminal);
    terminal.clear();
    report
}

/// Settings of generating and pairing whose flags have the same name.
const FLAGS: [&str; 26] = [
    "api_key_env",
    "batch_rows",
    "begin_suppress_tokens",
    "chosen_generators",
    "concurrency",
    "endpoint",
    "max_gap",
    "max_new_tokens",
    "max_pairs",
    "messages",
    "min_gap",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "output",
    "plain_share",
    "rejected_generators",
    "repetition_penalty",
    "reward_margin_scale",
    "samples",
    "suppress_tokens",
    "take",
    "temperature",
    "threshold",
    "top_p",
    "uniform_share",
];

/// Failure of generating or pairing, with the flag in place of the setting at fault.
pub(crate) fn flagged(error: simplemix_rollout::Error) -> Failure {
    let simplemix_rollout::Error::Setting { key, found, expected } = &error else { return failed(error) };
    let flag = match *key {
        "url" => "server".to_owned(),
        "timeout_secs" => "timeout".to_owned(),
        key if FLAGS.contains(&key) => key.replace('_', "-"),
        _ => return failed(error),
    };
    Failure::input(format!("--{flag} is {found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use simplemix_rollout::Select;

    use super::*;

    #[test]
    fn settings_with_a_flag_are_named_by_it() {
        let message = |key| {
            let error = simplemix_rollout::Error::Setting { key, found: "0".to_owned(), expected: "at least 1" };
            flagged(error).message().unwrap()
        };
        assert_eq!(message("max_new_tokens"), "--max-new-tokens is 0, expected at least 1");
        assert_eq!(message("timeout_secs"), "--timeout is 0, expected at least 1");
        assert_eq!(message("max_tokens"), "`max_tokens` is 0, expected at least 1", "a key of --scorers");
    }

    #[test]
    fn every_flag_named_in_an_error_exists() {
        use clap::CommandFactory;
        let command = crate::Cli::command();
        let commands = ["collect", "pool"].map(|name| command.find_subcommand(name).unwrap());
        let has = |name: &str| {
            commands.iter().any(|command| command.get_arguments().any(|flag| flag.get_long() == Some(name)))
        };
        assert!(FLAGS.iter().all(|key| has(&key.replace('_', "-"))) && has("server") && has("timeout"));
    }

    #[test]
    fn words_are_those_of_settings_files_and_others_are_listed() {
        assert_eq!(word::<Select>("max-min-gap"), Ok(Select::MaxMinGap));
        let error = word::<Select>("max").unwrap_err();
        assert!(error.contains("unknown variant `max`, expected one of `best-worst`"), "{error}");
    }
}
