//! `simplemix eval`: what a model is worth, by several measures.

mod alpaca;
mod alpaca_inputs;

use crate::failure::Result;

/// Evaluate models: AlpacaEval 2.0, judges, preferences
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, clap::Subcommand)]
enum Measure {
    Alpaca(Box<alpaca::Args>),
}

pub(crate) fn run(args: &Args) -> Result {
    match &args.measure {
        Measure::Alpaca(args) => alpaca::run(args),
    }
}
