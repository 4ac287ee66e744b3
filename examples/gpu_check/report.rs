//! Results of checks: a line of JSON each, as soon as it is known, and a table at the end.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use simplemix::tch::{Device, Kind};
use simplemix::torch::device::synchronize;
use simplemix::torch::device_name;

/// Error that a check found and the largest allowed, and what else is told.
#[derive(Default)]
pub(crate) struct Found {
    error: f64,
    bound: f64,
    notes: Map<String, Value>,
}

impl Found {
    /// The largest of `errors`, of which none may be above `bound`.
    pub(crate) fn within(bound: f64, errors: impl IntoIterator<Item = f64>) -> Self {
        // NaN is above every bound.
        let worst = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
        Self { error: errors.into_iter().fold(0.0, worst), bound, notes: Map::new() }
    }

    /// Nothing to hold to a bound.
    pub(crate) fn told() -> Self {
        Self::default()
    }

    /// Holds the largest of `errors` to `bound`.
    pub(crate) fn hold(self, bound: f64, errors: impl IntoIterator<Item = f64>) -> Self {
        Self { notes: self.notes, ..Self::within(bound, errors) }
    }

    /// Adds a value to the line.
    pub(crate) fn note(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.notes.insert(key.to_owned(), value.into());
        self
    }

    fn passes(&self) -> bool {
        self.error <= self.bound
    }
}

/// A line of the table.
struct Row {
    part: String,
    name: String,
    error: Option<f64>,
    bound: Option<f64>,
    passed: bool,
    said: String,
}

/// Checks made so far.
pub(crate) struct Report {
    device: Device,
    file: Option<File>,
    part: String,
    rows: Vec<Row>,
}

impl Report {
    /// No checks yet; lines also go to the end of the file `output`.
    pub(crate) fn new(device: Device, output: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("cannot write {}", path.display()))
        };
        // Panics of a check become its result.
        std::panic::set_hook(Box::new(|_| ()));
        Ok(Self { device, file: output.map(open).transpose()?, part: String::new(), rows: Vec::new() })
    }

    /// Makes `part` the part of the checks that follow.
    pub(crate) fn begin(&mut self, part: &str) {
        part.clone_into(&mut self.part);
    }

    /// Makes a check and writes its line. A failure or a panic of `work` is the check's failure, and the next one goes on.
    pub(crate) fn check(
        &mut self,
        name: &str,
        shapes: &str,
        kind: Kind,
        work: impl FnOnce() -> Result<Found>,
    ) -> Result<()> {
        let start = now();
        let found = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(anyhow!(text_of(&*panic))));
        let synchronized = synchronize(self.device).map_err(anyhow::Error::from);
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let found = found.and_then(|found| synchronized.map(|()| found));
        let row = self.row(name, found.as_ref());
        let mut line = json!({
            "part": row.part, "name": row.name, "error": row.error, "bound": row.bound, "ok": row.passed,
            "ms": (milliseconds * 1e3).round() / 1e3, "shapes": shapes, "dtype": dtype(kind),
            "device": device_name(self.device),
        });
        if !row.said.is_empty() {
            line["said"] = row.said.clone().into();
        }
        for (key, value) in found.iter().flat_map(|found| &found.notes) {
            line[key] = value.clone();
        }
        self.rows.push(row);
        self.write(&line)
    }

    fn row(&self, name: &str, found: Result<&Found, &anyhow::Error>) -> Row {
        let (part, name) = (self.part.clone(), name.to_owned());
        match found {
            Ok(found) => {
                let (error, bound) = (Some(found.error), Some(found.bound));
                Row { part, name, error, bound, passed: found.passes(), said: String::new() }
            }
            Err(error) => {
                let text = format!("{error:#}");
                let said = text.lines().next().unwrap_or_default().to_owned();
                Row { part, name, error: None, bound: None, passed: false, said }
            }
        }
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        println!("{line}");
        match &mut self.file {
            Some(file) => writeln!(file, "{line}").context("cannot write the output file"),
            None => Ok(()),
        }
    }

    /// Whether every check passed.
    pub(crate) fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.passed)
    }

    /// Writes the table: a line for each part, and one for each check that failed.
    pub(crate) fn end(&self) {
        let mut parts: Vec<&str> = self.rows.iter().map(|row| row.part.as_str()).collect();
        parts.dedup();
        eprintln!("{:<14} {:>6} {:>6}  nearest to its bound", "part", "checks", "failed");
        for part in parts {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.part == part).collect();
            let failed = rows.iter().filter(|row| !row.passed).count();
            let share = |row: &Row| match (row.error, row.bound) {
                (Some(error), Some(bound)) if bound > 0.0 => error / bound,
                _ => 0.0,
            };
            let nearest = rows.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
            let nearest = nearest.map_or_else(String::new, |row| {
                format!("{}: {:.1e} of {:.1e}", row.name, row.error.unwrap_or(0.0), row.bound.unwrap_or(0.0))
            });
            eprintln!("{part:<14} {:>6} {failed:>6}  {nearest}", rows.len());
        }
        for row in self.rows.iter().filter(|row| !row.passed) {
            match (row.error, row.bound) {
                (Some(error), Some(bound)) => {
                    eprintln!("FAILED {} {}: error {error:.3e}, at most {bound:.1e}", row.part, row.name);
                }
                _ => eprintln!("FAILED {} {}: {}", row.part, row.name, row.said),
            }
        }
    }
}

/// Result of `work` and its milliseconds, the device's work included.
pub(crate) fn timed<T>(device: Device, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    synchronize(device)?;
    let start = now();
    let result = work()?;
    synchronize(device)?;
    Ok((result, start.elapsed().as_secs_f64() * 1e3))
}

#[expect(clippy::disallowed_methods, reason = "durations are reported")]
fn now() -> Instant {
    Instant::now()
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// Name of a kind as PyTorch has it.
pub(crate) fn dtype(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Uint8 => "uint8",
        _ => "other",
    }
}
