//! Set-up, checks and packaging: `cargo xtask --help`.
//!
//! Needs no libtorch and no crate of the workspace, since it is what makes those buildable. Exit
//! codes: 2 where the set-up or the input is at fault, 1 where a check failed, and that of the
//! program that was run otherwise.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

mod cache;
mod cargo;
mod check;
mod checkout;
mod compiler;
mod demo;
mod dist;
mod install;
mod layers;
mod libtorch;
mod licences;
mod python;

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
        /// Passed on to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the checks that CI runs, or only those named
    Check {
        /// Which to run, in this order [default: all]
        #[arg(value_enum)]
        steps: Vec<check::Step>,
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
            cargo::exit_code(cargo::cargo(&checkout).args(["test", "--workspace"]).args(args))
        }
        Command::Check { steps } => check::run(&checkout, &steps),
        Command::Audit => check::audit(&checkout),
        Command::Dist => dist::run(&checkout),
    }
}

/// Tells the user what happens next.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
