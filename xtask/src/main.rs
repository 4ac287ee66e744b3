//! Set-up, checks and packaging: `cargo xtask --help`.
//!
//! Needs neither libtorch nor a crate of the workspace, because it prepares the machine to build them.
//! Exit codes: 2 for a failed set-up or bad input, 1 for a failed check, otherwise the code of the
//! program that it ran.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

mod api;
mod cache;
mod cargo;
mod chaos;
mod check;
mod checkout;
mod compiler;
mod demo;
mod dist;
mod features;
mod install;
mod layers;
mod libtorch;
mod licences;
mod links;
mod markdown;
mod package;
mod page;
mod program;
mod python;
mod sbom;
mod site;
mod source;
mod venv;
mod wheel;
mod words;
mod workspace;

#[cfg(test)]
#[path = "../../crates/simplemix-cli/src/documented.rs"]
mod documented;
#[path = "../../tests/chaos/mod.rs"]
mod trials;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::checkout::Checkout;
use crate::libtorch::Kind;

/// Set-up, checks and packaging of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find libtorch, or fetch it into the user's cache, and point this checkout at it
    ///
    /// Takes the first that fits: $LIBTORCH; a python3 with the right torch; the cache, filled by pip.
    Setup {
        /// Take the CUDA build and the NVIDIA libraries it needs (Linux; several GB)
        #[arg(long)]
        cuda: bool,
    },
    /// Fetch the demo's model and off-policy pairs into the user's cache
    Fetch,
    /// Set up, fetch the demo's model and data, and run the main job
    Demo {
        /// Arguments of the example; `--fast` needs neither model nor data
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, then run all tests and doctests
    Test {
        /// Arguments of `cargo test`; the whole workspace is tested unless they name a package
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the checks that CI runs, or only those named
    Check {
        /// Checks to run, in this order [default: all that CI runs]
        #[arg(value_enum)]
        steps: Vec<check::Step>,
        /// Skip the set-up and use the checkout as it is
        #[arg(long)]
        no_setup: bool,
    },
    /// Write the public items of each library to docs/api, which `check api` compares
    Api {
        /// Skip the set-up and use the checkout as it is
        #[arg(long)]
        no_setup: bool,
    },
    /// Look all dependencies up in the advisory database
    Audit {
        /// Use this snapshot of the database (a checkout of RustSec's advisory-db) and no network; needs cargo-audit
        #[arg(long, value_name = "FOLDER")]
        db: Option<PathBuf>,
    },
    /// Try every stage with faults of the disk, and killed at any moment: what it leaves must be whole, and the same command must
    /// then end on the same bytes
    Chaos(chaos::Args),
    /// Build the documentation as a static site into target/site: the pages by mdBook, which is installed there once, and rustdoc
    Site {
        /// Leave rustdoc out, which needs libtorch and minutes
        #[arg(long)]
        no_api: bool,
    },
    /// Make a folder and a .tar.gz of `simplemix` that run anywhere on this platform
    Dist,
    /// Build the Python packages into target/wheels: wheels for Python 3.10 and later, and the library's source archive
    Wheel {
        /// Packages to build [default: both]
        #[arg(value_enum)]
        packages: Vec<wheel::Package>,
        /// Also run their tests with torch, accelerate and TRL, the newest release and the one before (several GB)
        #[arg(long)]
        peers: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    if cfg!(windows) {
        bail!("Windows is not supported: it has no run path to libtorch. WSL2 works as Linux does.");
    }
    let checkout = Checkout::find();
    match command {
        Command::Setup { cuda } => {
            libtorch::set_up(&checkout, if cuda { Kind::Cuda } else { Kind::Cpu })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fetch => {
            demo::fetch()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo { args } => demo::run(&checkout, &args),
        Command::Test { args } => {
            libtorch::set_up(&checkout, Kind::Cpu)?;
            let scope = if names_packages(&args) { None } else { Some("--workspace") };
            cargo::exit_code(cargo::cargo(&checkout).arg("test").args(scope).args(args))
        }
        Command::Check { steps, no_setup } => check::run(&checkout, &steps, !no_setup),
        Command::Api { no_setup } => {
            if !no_setup {
                libtorch::set_up(&checkout, Kind::Cpu)?;
            }
            api::write(&checkout)
        }
        Command::Audit { db } => check::audit(&checkout, db.as_deref()),
        Command::Chaos(args) => chaos::run(&checkout, &args),
        Command::Site { no_api } => {
            if !no_api {
                libtorch::set_up(&checkout, Kind::Cpu)?;
            }
            site::run(&checkout, !no_api)
        }
        Command::Dist => dist::run(&checkout),
        Command::Wheel { packages, peers } => wheel::run(&checkout, &packages, peers),
    }
}

/// Whether arguments name a package, which `--workspace` would override.
fn names_packages(args: &[String]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("--package") || arg.starts_with("-p"))
}

/// Starts to time a step or phase, for the summary at the end.
#[expect(clippy::disallowed_methods, reason = "summaries tell how long everything took")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Prints a line for the user, on standard error.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::{Args, documented, links, names_packages};

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_task_of_the_documentation_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut count = 0;
        for page in links::pages(root).unwrap() {
            for command in documented::commands(&page.text, &["cargo", "xtask"]) {
                count += 1;
                let place = format!("{}:{}: {:?}", page.path.display(), command.line, command.words);
                match Args::try_parse_from(&command.words[1..]).err().map(|error| error.kind()) {
                    None | Some(ErrorKind::DisplayHelp) => {}
                    // A sentence may leave arguments and values out.
                    Some(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::InvalidValue)
                        if command.is_partial => {}
                    Some(kind) => panic!("{place}: {kind}"),
                }
            }
        }
        assert!(count > 30, "{count} tasks");
    }

    #[test]
    fn packages_are_named_before_the_dashes() {
        let names = |args: &[&str]| names_packages(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert!(names(&["-p", "simplemix-mix"]));
        assert!(names(&["--release", "--package=simplemix-mix"]));
        assert!(!names(&["--release", "--", "-p"]));
        assert!(!names(&[]));
    }
}
