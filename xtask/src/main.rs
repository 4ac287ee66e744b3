//! Set-up, checks and packaging: `cargo xtask --help`.
//!
//! Needs no libtorch and no crate of the workspace, since it is what makes those buildable. Exit
//! codes: 2 where the set-up or the input is at fault, 1 where a check failed, and that of the
//! program that was run otherwise.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

mod api;
mod cache;
mod cargo;
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
mod package;
mod page;
mod python;
mod source;
mod words;
mod workspace;

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
    /// The first that fits: $LIBTORCH; a python3 with the right torch; the cache, filled by pip.
    Setup {
        /// The CUDA build and the NVIDIA libraries it needs (Linux; several GB)
        #[arg(long)]
        cuda: bool,
    },
    /// Fetch the demo's model and off-policy pairs into the user's cache
    Fetch,
    /// Set up, fetch the demo's model and data, and run the main job
    Demo {
        /// Passed on to the example; `--fast` needs neither model nor data
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, then run all tests and doctests
    Test {
        /// Passed on to `cargo test`; without a package among them, the whole workspace is tested
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the checks that CI runs, or only those named
    Check {
        /// Checks to run, in this order [default: all that CI runs]
        #[arg(value_enum)]
        steps: Vec<check::Step>,
        /// Take the checkout as it is set up
        #[arg(long)]
        no_setup: bool,
    },
    /// Write the public items of each library to docs/api, which `check api` compares
    Api {
        /// Take the checkout as it is set up
        #[arg(long)]
        no_setup: bool,
    },
    /// Look all dependencies up in the advisory database
    Audit,
    /// Make a folder and a .tar.gz of `simplemix` that run anywhere on this platform
    Dist,
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
        Command::Audit => check::audit(&checkout),
        Command::Dist => dist::run(&checkout),
    }
}

/// Cargo takes `--workspace` over `--package`, where the user who names one means just that.
fn names_packages(args: &[String]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("--package") || arg.starts_with("-p"))
}

/// Tells the user what happens next.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Args, names_packages};

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
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
