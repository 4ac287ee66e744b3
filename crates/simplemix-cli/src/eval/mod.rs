//! `simplemix eval`: evaluation of models by several measures.

mod alpaca;
mod alpaca_inputs;
mod generate;
mod judge;
mod judges;
mod preferences;

use crate::failure::{Failure, Result, failed};

/// Evaluate models with AlpacaEval 2.0, judges and preference pairs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, clap::Subcommand)]
enum Measure {
    Alpaca(Box<alpaca::Args>),
    Generate(Box<generate::Args>),
    Judge(Box<judge::Args>),
    Preferences(Box<preferences::Args>),
}

pub(crate) fn run(args: &Args) -> Result {
    match &args.measure {
        Measure::Alpaca(args) => alpaca::run(args),
        Measure::Generate(args) => generate::run(args),
        Measure::Judge(args) => judge::run(args),
        Measure::Preferences(args) => preferences::run(args),
    }
}

/// Failure of a generator or a server, under the name of the flag that sets the value at fault.
fn flagged(error: simplemix_rollout::Error) -> Failure {
    match error {
        simplemix_rollout::Error::Setting { key, found, expected } => {
            let flag = match key {
                "url" => "server".to_owned(),
                "timeout_secs" => "timeout".to_owned(),
                key => key.replace('_', "-"),
            };
            Failure::input(format!("--{flag} is {found}, expected {expected}"))
        }
        error => failed(error),
    }
}
