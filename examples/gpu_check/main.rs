//! Compares a device with plain formulas, golden files and the CPU, a part of simplemix at a time, and times it. A line of
//! JSON for each check, a table at the end, and exit code 1 if a check fails.
//!
//!     cargo run --release --example gpu_check -- --device cuda
//!
//! With `--device cpu` the same checks run on a CPU, where they pass: CI runs that.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod families;
mod goldens;
mod group;
mod head;
mod kernels;
mod numbers;
mod parts;
mod report;
mod routes;
mod shapes;
mod trajectories;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use simplemix::tch::Device;
use simplemix::torch::DeviceChoice;

use crate::report::Report;
use crate::shapes::Shape;

/// Checks of a device against the CPU
#[derive(Parser)]
struct Args {
    /// Device to check: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Parts to run, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Shape of the random model of `parts` and the vocabulary of `head`
    #[arg(long, default_value = "small")]
    shape: Shape,
    /// File for the lines of JSON, beside standard output
    #[arg(long)]
    output: Option<PathBuf>,
    /// Folder of golden files
    #[arg(long, default_value = "tests/golden")]
    golden: PathBuf,
}

/// Part of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Operations of simplemix-torch, attention kernels and products of libtorch
    Kernels,
    /// Loss head against a plain log-softmax
    Head,
    /// Golden files of every model family, of adapters and of reward models
    Families,
    /// Attention routes against each other
    Routes,
    /// Launches, waits and times of a micro-batch and an update
    Parts,
    /// Training runs against the CPU's, and golden training runs
    Trajectories,
    /// Exchange of tensors in a group of this process alone: NCCL on a GPU, Gloo on a CPU
    Group,
}

/// Setting of all parts.
struct Setting {
    device: Device,
    shape: Shape,
    golden: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all checks passed.
fn run(args: &Args) -> Result<bool> {
    let families = args.golden.join("families");
    ensure!(families.is_dir(), "{}: no folder of golden files; name it with --golden", families.display());
    // Opening it sets the switches of kernels that training sets.
    let device = args.device.open()?;
    let setting = Setting { device, shape: args.shape, golden: args.golden.clone() };
    let mut report = Report::new(device, args.output.as_deref())?;
    let parts = if args.only.is_empty() { Part::value_variants() } else { &args.only };
    for part in parts {
        let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        report.begin(&name);
        match part {
            Part::Kernels => kernels::check(&mut report, &setting)?,
            Part::Head => head::check(&mut report, &setting)?,
            Part::Families => families::check(&mut report, &setting)?,
            Part::Routes => routes::check(&mut report, &setting)?,
            Part::Parts => parts::check(&mut report, &setting)?,
            Part::Trajectories => trajectories::check(&mut report, &setting)?,
            Part::Group => group::check(&mut report, &setting)?,
        }
    }
    report.end();
    Ok(report.passed())
}
