//! The paper's comparison, at a size that can be run: `docs/reproduction.md` tells what came of it.
//!
//! ```text
//! cargo run --release --example reproduction -- prepare examples/reproduction/cpu.toml
//! cargo run --release --example reproduction -- run examples/reproduction/cpu.toml
//! cargo run --release --example reproduction -- report examples/reproduction/cpu.toml -o docs/reproduction
//! ```
//!
//! Arms are settings files of pipelines beside this one, for this program and for `simplemix run` alike. `run` does all of
//! a grid, one after the other; after a kill, the same command continues.

#![allow(clippy::print_stdout, reason = "a script talks to its user")]

#[path = "../mix_dpo/bars.rs"]
mod bars;
mod data;
mod grid;
#[path = "../mix_dpo/inputs.rs"]
#[allow(dead_code, reason = "the other example takes more of it")]
mod inputs;
mod outcome;
#[path = "../mix_dpo/problems.rs"]
mod problems;
mod results;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use simplemix::files;

use crate::grid::Grid;

/// The paper's comparison: its data, its runs, its tables
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the data, and link the model
    Prepare {
        /// Grid file, such as examples/reproduction/cpu.toml
        grid: PathBuf,
        /// Folder with further real data: preferences/gsm8k_pairs.jsonl, alpacaeval_pairs.parquet and others
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Model folder in place of SmolLM2-135M-Instruct, or its id on the hub
        #[arg(long, value_name = "DIR|ID")]
        model: Option<PathBuf>,
        /// File of open-ended pairs in place of the demo's 300, of which too few have short prompts
        #[arg(long, value_name = "FILE")]
        pairs: Option<PathBuf>,
    },
    /// Train the reward models and do all runs; after a kill, the same command continues
    Run {
        /// Grid file
        grid: PathBuf,
        /// One arm only
        #[arg(long, value_name = "ARM")]
        only: Option<String>,
    },
    /// Tables, tests and figures of what is done
    Report {
        /// Grid file
        grid: PathBuf,
        /// Folder for them
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
}

fn main() -> simplemix::Result<()> {
    Ok(run(Args::parse().command)?)
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Prepare { grid, data, model, pairs } => {
            let grid = Grid::read(&grid)?;
            let input = inputs::real(model.as_deref(), pairs.as_deref())?;
            files::create_dir_all(&grid.root)?;
            link(&input.model, &grid.root.join("model"))?;
            data::prepare(&grid.data, &input.model, &input.pairs, data.as_deref(), &grid.root.join("data"))
        }
        Command::Run { grid, only } => Grid::read(&grid)?.run(only.as_deref()),
        Command::Report { grid, output } => results::write(&Grid::read(&grid)?, &output),
    }
}

/// The model under the name that all arms have for it.
fn link(model: &Path, name: &Path) -> Result<()> {
    let target = model.canonicalize().with_context(|| format!("{}: not there", model.display()))?;
    if name.is_symlink() {
        fs::remove_file(name).with_context(|| format!("cannot replace {}", name.display()))?;
    }
    std::os::unix::fs::symlink(target, name).with_context(|| format!("cannot link {}", name.display()))
}
