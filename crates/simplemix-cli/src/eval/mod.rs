//! `simplemix eval`: evaluation of models by several measures.

mod alpaca;
mod alpaca_inputs;
mod alpaca_names;
mod generate;
mod judge;
mod judges;
mod preferences;

use crate::failure::Result;

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

impl Args {
    /// Whether models run in this process.
    pub(crate) fn runs_models(&self) -> bool {
        match &self.measure {
            Measure::Alpaca(_) => false,
            Measure::Generate(args) => args.runs_models(),
            Measure::Judge(args) => args.runs_models(),
            Measure::Preferences(_) => true,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result {
    match &args.measure {
        Measure::Alpaca(args) => alpaca::run(args),
        Measure::Generate(args) => generate::run(args),
        Measure::Judge(args) => judge::run(args),
        Measure::Preferences(args) => preferences::run(args),
    }
}
