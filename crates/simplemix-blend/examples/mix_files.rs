//! A mixture of files by the library alone, without libtorch; prints its seconds and the peak of its memory.
//!
//! `cargo run --release -p simplemix-blend --example mix_files -- off=uf.parquet:0.5 on=sampled.parquet:0.5 --size 10000 -o mix.parquet`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example tells what it did, and how long it took"
)]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use simplemix_blend::{MixSettings, MixSource, mix};
use simplemix_data::Unwatched;
use simplemix_mix::SourceSpec;

fn main() -> Result<(), Box<dyn Error>> {
    let mut settings = MixSettings::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} has no value"));
        match word.as_str() {
            "--size" => settings.size = Some(value()?.parse()?),
            "--seed" => settings.seed = value()?.parse()?,
            "--memory" => settings.memory = value()?.parse()?,
            "--report" => settings.report = Some(value()?.into()),
            "-o" => settings.output = Some(value()?.into()),
            source => {
                let SourceSpec { name, path, weight, .. } = source.parse()?;
                settings.sources.push(MixSource { name, path: PathBuf::from(path), weight, age: None });
            }
        }
    }
    let start = Instant::now();
    let report = mix(&settings, &mut Unwatched)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}: {} pairs in {seconds:.2} s, {}", report.output.display(), report.achieved.pairs, peak());
    Ok(())
}

/// Peak of the resident memory, where the system tells it.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "peak memory unknown".to_owned(), |line| format!("peak {}", line.trim()))
}
