//! Your own pairs to a trained model: JSON lines in, a Hugging Face model folder out.
//!
//! ```text
//! cargo run --release --example quickstart -- ./smollm2 mine.jsonl runs/mine
//! ```
//!
//! Each line of `mine.jsonl` is a pair: `{"prompt": "...", "chosen": "...", "rejected": "..."}`. Other formats of preference
//! files, such as lists of messages or parquet, are recognised. The learning rate, the loss and everything else have the
//! defaults of `TrainConfig`; change a field to change a setting.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::path::PathBuf;

use simplemix::data::{Metrics, Watch};
use simplemix::train::{Resume, Run, TrainConfig};

/// Prints a line for every update; every other report is ignored.
struct Printer;

impl Watch for Printer {
    fn metrics(&mut self, metrics: &Metrics<'_>) {
        let [loss, accuracy] = ["loss", "rewards/accuracies"].map(|name| metrics.get(name).unwrap_or(f64::NAN));
        println!("update {} of {}: loss {loss:.4}, accuracy {accuracy:.2}", metrics.step, metrics.steps);
    }

    fn notice(&mut self, text: &str) {
        println!("note: {text}");
    }
}

fn main() -> simplemix::Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(model), Some(pairs), Some(output)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("expected a model folder, a file of pairs and a folder to write".into());
    };
    let config = TrainConfig {
        model: Some(model),
        train: Some(pairs),
        output: Some(output),
        epochs: 3.0,
        ..TrainConfig::default()
    };

    // Reads and checks everything; nothing is written yet.
    let run = Run::prepare(config)?;
    println!("{}; {} updates", run.train.summary(), run.settings().steps);

    let finished = run.start(Resume::No, &mut Printer)?;
    println!("model: {}", finished.folder.model().display());
    Ok(())
}
