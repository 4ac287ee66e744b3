//! The `simplemix` binary: flags to settings to library calls, and an exit code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advise;
mod claims;
mod clean;
mod closing;
mod collect;
mod compare;
mod convert;
#[cfg(test)]
mod documented;
mod eval;
mod export;
mod failure;
mod fault;
mod flags;
mod generate;
mod help;
mod import;
mod import_config;
mod inspect;
mod interrupt;
mod layout;
mod lines;
mod logging;
mod logps;
mod mix;
mod off_policy_flags;
mod out_of_memory;
mod pair;
mod pipeline_closing;
mod pool;
mod pool_flags;
mod progress;
mod progress_events;
mod push;
mod reading;
mod report;
mod run;
mod score;
mod setting_flags;
mod show;
mod stage;
mod sweep;
mod together;
mod tokenize;
mod train;
mod unused;
mod waiting;
mod watch;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use simplemix_files::secret;

use crate::failure::Result;

/// Mix on-policy and off-policy preference pairs, train on the mixture, evaluate.
#[derive(Debug, Parser)]
#[command(name = "simplemix", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Log more to standard error (-v, -vv)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  simplemix inspect uf.parquet
  simplemix show uf.parquet --rows 2
  simplemix convert hh.jsonl.gz -o hh.parquet
  simplemix collect --model ./smollm2 --prompts gsm8k.jsonl --scorer exact-answer -o on.parquet
  simplemix advise --model ./smollm2 --prompts gsm8k.jsonl --off-policy uf.parquet --scorer exact-answer
  simplemix mix --source off=uf.parquet --source on=on.parquet --weights off=0.5,on=0.5 --size 10000 --seed 1 -o mix.parquet
  simplemix train --model ./smollm2 --train mix.parquet --output runs/first --beta 0.1 --learning-rate 1e-6
  simplemix run --preset simplemix --model ./smollm2 --prompts gsm8k.jsonl --off-policy uf.parquet --scorer exact-answer --output runs/all
  simplemix sweep pipeline.toml --vary size=1000,2000 --vary beta=0.05,0.1 --output runs/sweep
  simplemix eval alpaca --annotations annotations.json
  simplemix compare ./smollm2 runs/first/model --prompts gsm8k.jsonl --limit 5
  simplemix watch runs/first
  simplemix report runs/* -o comparison
  simplemix push runs/first my-name/first
  simplemix import-config dpo.yaml -o run.toml
  simplemix import-gguf model.gguf ./model
  simplemix export-gguf runs/all/model model.gguf --type q8_0
  simplemix clean --dry-run";

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Show(show::Args),
    Convert(Box<convert::Args>),
    Tokenize(Box<tokenize::Args>),
    Generate(Box<generate::Args>),
    Score(score::Args),
    Pool(pool::Args),
    Pair(pair::Args),
    Collect(Box<collect::Args>),
    Advise(Box<advise::Args>),
    Mix(mix::Args),
    Train(Box<train::Args>),
    Logps(Box<logps::Args>),
    Run(Box<run::Args>),
    Sweep(Box<sweep::Args>),
    Eval(Box<eval::Args>),
    Compare(Box<compare::Args>),
    Report(report::Args),
    Watch(watch::Args),
    Push(push::Args),
    ImportConfig(import_config::Args),
    ImportGguf(import::Args),
    ExportGguf(export::Args),
    Clean(clean::Args),
    #[command(hide = true)]
    Stage(stage::Args),
    Completions(Completions),
}

impl Command {
    /// Whether models run in this process; settings that cannot be read are told later.
    fn runs_models(&self) -> bool {
        match self {
            Self::Generate(args) => args.runs_models(),
            Self::Score(args) => args.runs_models().unwrap_or(false),
            Self::Collect(args) => args.runs_models().unwrap_or(false),
            Self::Eval(args) => args.runs_models(),
            Self::Train(_)
            | Self::Logps(_)
            | Self::Advise(_)
            | Self::Run(_)
            | Self::Sweep(_)
            | Self::Compare(_)
            | Self::Stage(_) => true,
            Self::Inspect(_)
            | Self::Show(_)
            | Self::Convert(_)
            | Self::Tokenize(_)
            | Self::Pool(_)
            | Self::Pair(_)
            | Self::Mix(_)
            | Self::Report(_)
            | Self::Watch(_)
            | Self::Push(_)
            | Self::ImportConfig(_)
            | Self::ImportGguf(_)
            | Self::ExportGguf(_)
            | Self::Clean(_)
            | Self::Completions(_) => false,
        }
    }
}

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  simplemix completions bash > ~/.local/share/bash-completion/completions/simplemix")]
struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

fn main() -> ExitCode {
    secret::remember_environment();
    secret::remember_arguments();
    let parsed = help::prepared(Cli::command()).try_get_matches();
    let name = parsed.as_ref().ok().and_then(|found| found.subcommand_name()).unwrap_or_default().to_owned();
    let parsed = parsed.and_then(|found| Ok((Cli::from_arg_matches(&found)?, unused::refuse_server_flags(&found))));
    let (cli, in_vain) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(error),
    };
    logging::to_stderr(cli.verbose);
    together::end_with_the_starter();
    if cli.command.runs_models() {
        waiting::sleep_while_waiting();
    }
    let signals = interrupt::handle_signals();
    lines::break_silences(name);
    let work = || in_vain.and(signals).and_then(|()| run(cli.command)).and_then(|()| lines::written());
    match fault::caught(work) {
        None => ExitCode::FAILURE,
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(failure)) => {
            if let Some(message) = failure.message() {
                lines::warn(&format!("error: {message}"));
            }
            failure.code()
        }
    }
}

/// Prints what clap has to say, or what replaced a flag that is gone.
fn refuse(error: clap::Error) -> ExitCode {
    let trains = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).is_some_and(|command| command == "train");
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if trains && error.kind() == ErrorKind::UnknownArgument => Some(flag),
        _ => None,
    };
    if let Some(message) = unknown.and_then(|flag| train::gone(flag)) {
        lines::warn(&format!("error: {message}"));
        return ExitCode::from(2);
    }
    // clap repeats words of the command line, which may come from file names.
    let text = error.to_string();
    if error.use_stderr() && lines::shown(&text) != text {
        lines::warn(text.trim_end());
        return ExitCode::from(2);
    }
    match error.print() {
        Err(reason) if !error.use_stderr() && reason.kind() != std::io::ErrorKind::BrokenPipe => {
            lines::warn(&format!("error: {}", lines::cannot_be_written(&reason)));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

fn run(command: Command) -> Result {
    match command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Pool(args) => pool::run(&args),
        Command::Pair(args) => pair::run(&args),
        Command::Collect(args) => collect::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Mix(args) => mix::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Logps(args) => logps::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Push(args) => push::run(&args),
        Command::ImportConfig(args) => import_config::run(&args),
        Command::ImportGguf(args) => import::run(&args),
        Command::ExportGguf(args) => export::run(&args),
        Command::Clean(args) => clean::run(&args),
        Command::Stage(_) => stage::run(),
        Command::Completions(Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "simplemix", &mut script);
            lines::print_bytes(&script);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        help::prepared(Cli::command()).debug_assert();
    }

    /// Fault of a command of a page, in one line. Of one that stands in a sentence, or has `...` in it, the flags alone have to be
    /// there.
    fn fault(command: &documented::Documented) -> Option<String> {
        let text = command.words.join(" ");
        if command.is_partial {
            return unknown(&command.words).map(|word| format!("there is no `{word}`: {text}"));
        }
        let parsed = help::prepared(Cli::command()).try_get_matches_from(&command.words);
        let error = parsed.and_then(|found| Cli::from_arg_matches(&found)).err()?;
        let is_fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        (!is_fine).then(|| format!("{}: {text}", error.to_string().lines().next().unwrap_or_default()))
    }

    /// First word that is neither a command nor a flag where it stands.
    fn unknown(words: &[String]) -> Option<&str> {
        let mut command = help::prepared(Cli::command());
        command.build();
        let mut at = &command;
        for word in &words[1..] {
            let word = word.trim_matches(['[', ']']);
            let name = word.split('=').next().unwrap_or_default();
            if let Some(next) = at.find_subcommand(name) {
                at = next;
            } else if at.has_subcommands() && !name.starts_with('-') {
                return Some(word);
            } else if let Some(flag) = name.strip_prefix("--") {
                let has = |arg: &clap::Arg| {
                    arg.get_long() == Some(flag) || arg.get_all_aliases().is_some_and(|names| names.contains(&flag))
                };
                if !at.get_arguments().any(has) {
                    return Some(word);
                }
            }
        }
        None
    }

    /// Pages of the repository: those in its root and in docs/, and the READMEs of the crates. None in an unpacked package.
    fn pages() -> Vec<std::path::PathBuf> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let crates = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = [root.clone(), root.join("docs"), root.join("gpu")].into_iter().chain(crates);
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
    }

    #[test]
    fn every_command_of_the_documentation_is_one() {
        let mut faults = Vec::new();
        let mut count = 0;
        for page in pages() {
            let text = std::fs::read_to_string(&page).unwrap();
            for command in documented::commands(&text, &["simplemix"]) {
                count += 1;
                faults.extend(fault(&command).map(|fault| format!("{}:{}: {fault}", page.display(), command.line)));
            }
        }
        assert!(count == 0 || count > 150, "{count} commands");
        assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        fn texts(command: &clap::Command, all: &mut Vec<String>) {
            let help = [command.get_after_help(), command.get_after_long_help()];
            all.extend(help.into_iter().flatten().map(|text| text.to_string()));
            command.get_subcommands().for_each(|command| texts(command, all));
        }
        let mut all = Vec::new();
        texts(&Cli::command(), &mut all);
        let mut faults = Vec::new();
        let mut count = 0;
        for text in all {
            for command in documented::commands(&format!("```\n{text}\n```\n"), &["simplemix"]) {
                count += 1;
                faults.extend(fault(&command));
            }
        }
        assert!(count > 30, "{count} commands");
        assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
    }

    #[test]
    fn a_flag_that_is_none_is_found() {
        let faults = |page: &str| {
            let found = documented::commands(page, &["simplemix"]);
            found.iter().filter_map(fault).collect::<Vec<_>>()
        };
        assert_eq!(faults("    simplemix mix --sise 3 -o x.parquet").len(), 1);
        assert_eq!(faults("    simplemix convert x.jsonl").len(), 1);
        assert_eq!(faults("`simplemix mix --sise` and `simplemix mxi`").len(), 2);
        assert!(
            faults("`simplemix convert x.jsonl`, `simplemix run --processes N` and `simplemix mix [--seed N]`")
                .is_empty()
        );
    }
}
