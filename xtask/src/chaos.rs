//! `cargo xtask chaos`: every stage with faults of the disk at each of its operations, and killed at moments spread over its
//! work; then the same command again, whose result must be that of a run without faults. Also runs of several processes of which one is
//! killed, with which another number of processes goes on.

pub(crate) mod model;
mod together;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::checkout::Checkout;
use crate::trials::{Bench, Fault, Scale, Stage, Trials, spread, stages};
use crate::{cargo, say};

/// Number of operations to try a kind of fault at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Each operation of a stage.
    All,
    /// As many, spread over the operations of a stage.
    Some(usize),
}

impl std::str::FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            text => text.parse().map(Self::Some).map_err(|_| "expected all, or a number".to_owned()),
        }
    }
}

/// Stages, faults and kills.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kills in all, at moments spread over each stage's own time
    #[arg(long, value_name = "N", default_value_t = 300)]
    kills: usize,
    /// Operations of each stage to fail, to be killed at, to be torn and to lose the power at: all, or a number. At as many of
    /// the last twelve, the power is lost in each of eight ways
    #[arg(long, value_name = "all|N", default_value = "all")]
    faults: Faults,
    /// Kills of a random rank in runs of two and four processes, at moments spread over the run, each of which another number of
    /// processes goes on with
    #[arg(long, value_name = "N", default_value_t = 20)]
    rank_kills: usize,
    /// Random seed of the moments of the kills
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Use this program, built with debug assertions and the feature `faults` [default: build one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Also write the table as Markdown
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Stages to try [default: all]
    stages: Vec<String>,
}

/// Number of a stage's last operations at which the power is lost in every way.
const LATE: usize = 12;

/// Outcome of a stage.
#[derive(Debug, Default)]
struct Row {
    name: &'static str,
    operations: usize,
    faults: usize,
    seconds: f64,
    kills: usize,
    same: usize,
    failures: Vec<String>,
}

impl Row {
    fn note(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.same += 1,
            Err(failure) => {
                say(format_args!("{}: {failure}", self.name));
                self.failures.push(failure);
            }
        }
    }
}

/// Tries all stages, or those named. Fails if one of them does.
///
/// # Errors
/// A stage that is not known, or that fails without a fault.
pub(crate) fn run(checkout: &Checkout, args: &Args) -> Result<ExitCode> {
    let small = chosen(Scale::Small, &args.stages)?;
    let long = chosen(Scale::Long, &args.stages)?;
    let program = match &args.program {
        Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?,
        None => built(checkout)?,
    };
    let folder = checkout.root().join("target/chaos").join(std::process::id().to_string());
    let (count, mut rows) = (small.len(), Vec::new());
    let is_idle = args.kills == 0 && args.faults == Faults::Some(0);
    for (place, (small, long)) in small.iter().zip(&long).enumerate().filter(|_| !is_idle) {
        let mut row = Row { name: small.name, ..Row::default() };
        with_faults(args, &bench(&program, &folder)?, small, &mut row)?;
        let kills = args.kills / count + usize::from(place < args.kills % count);
        with_kills(args, &bench(&program, &folder)?, long, kills, &mut row)?;
        say(format_args!("{}", row.line()));
        rows.push(row);
    }
    if args.rank_kills > 0 {
        let row = together::kill_ranks(&bench(&program, &folder)?, args.seed, args.rank_kills)?;
        say(format_args!("{}", row.line()));
        rows.push(row);
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    let table = table(args.seed, &rows);
    say(&table);
    if let Some(path) = &args.result {
        fs::write(path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if rows.iter().all(|row| row.failures.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(scale: Scale, names: &[String]) -> Result<Vec<Stage>> {
    let all = stages(scale);
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|stage| stage.name == **name)) {
        let known: Vec<&str> = all.iter().map(|stage| stage.name).collect();
        bail!("no stage {unknown}, expected some of {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|stage| names.is_empty() || names.iter().any(|name| name == stage.name)).collect())
}

/// The program with debug assertions and faults.
fn built(checkout: &Checkout) -> Result<PathBuf> {
    let words = ["build", "-p", "simplemix-cli", "-p", "same-features", "--all-features"];
    if !cargo::status(cargo::cargo(checkout).args(words))?.success() {
        bail!("the program cannot be built");
    }
    Ok(checkout.root().join("target/debug/simplemix"))
}

/// A fresh folder with a model in it.
fn bench(program: &Path, folder: &Path) -> Result<Bench> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let folder = folder.join("work");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("small.gguf");
    fs::write(&file, model::bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    let bench = Bench { program: program.to_owned(), folder };
    bench.succeeds("import-gguf small.gguf model").map_err(|error| anyhow!(error))?;
    Ok(bench)
}

fn with_faults(args: &Args, bench: &Bench, stage: &Stage, row: &mut Row) -> Result<()> {
    let count = match args.faults {
        Faults::Some(0) => return Ok(()),
        Faults::Some(count) => count,
        Faults::All => usize::MAX,
    };
    let trials = Trials::new(bench, stage).map_err(|error| anyhow!(error))?;
    row.operations = trials.operations();
    if row.operations == 0 {
        bail!("{}: the program counts no operation; build it with `--features faults`", bench.program.display());
    }
    for fault in Fault::ALL {
        for number in spread(row.operations, count.min(row.operations)) {
            row.faults += 1;
            row.note(trials.fault(fault, number));
        }
    }
    // An output that is said to be done must last, and one that is about to be must not be lost.
    let first = row.operations.saturating_sub(count.min(LATE)) + 1;
    let rename = Some(trials.last_rename()).filter(|number| *number < first);
    for number in rename.into_iter().chain(first..=row.operations) {
        for fault in Fault::losses() {
            row.faults += 1;
            row.note(trials.fault(fault, number));
        }
    }
    Ok(())
}

fn with_kills(args: &Args, bench: &Bench, stage: &Stage, kills: usize, row: &mut Row) -> Result<()> {
    if kills == 0 {
        return Ok(());
    }
    let trials = Trials::new(bench, stage).map_err(|error| anyhow!(error))?;
    row.seconds = trials.duration.as_secs_f64();
    let mut moments = Moments { state: args.seed ^ hash(stage.name) };
    // A run may end before its moment, since no two take the same time.
    for attempt in 0..4 * kills {
        if row.kills == kills {
            break;
        }
        let moment = (attempt % kills) as f64 + moments.next();
        let moment = trials.duration.mul_f64(moment / kills as f64).max(Duration::from_millis(1));
        match trials.kill(moment) {
            Ok(false) => {}
            outcome => {
                row.kills += 1;
                row.note(outcome.map(drop).map_err(|error| format!("seed {}: {error}", args.seed)));
            }
        }
    }
    Ok(())
}

/// Random numbers from 0 to 1 (splitmix64).
struct Moments {
    state: u64,
}

impl Moments {
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Row {
    fn line(&self) -> String {
        let Self { name, operations, faults, seconds, kills, same, failures } = self;
        let failures = failures.len();
        format!("| {name} | {operations} | {faults} | {seconds:.1} | {kills} | {same} | {failures} |")
    }
}

/// A line for each stage and one for all, and the failures with how to repeat them.
fn table(seed: u64, rows: &[Row]) -> String {
    let mut text = "| stage | operations | faults | seconds | kills | the same again | failures |\n\
                    | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let mut all = Row { name: "all", ..Row::default() };
    for row in rows {
        let _ = writeln!(text, "{}", row.line());
        all.operations += row.operations;
        all.faults += row.faults;
        all.seconds += row.seconds;
        all.kills += row.kills;
        all.same += row.same;
        all.failures.extend(row.failures.iter().map(|failure| format!("{}: {failure}", row.name)));
    }
    let _ = writeln!(text, "{}", all.line());
    let _ = writeln!(text, "\nMoments of the kills: seed {seed}.");
    for failure in &all.failures {
        let _ = writeln!(text, "\n- {}", failure.replace('\n', " "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_all_or_a_number() {
        assert_eq!("all".parse(), Ok(Faults::All));
        assert_eq!("12".parse(), Ok(Faults::Some(12)));
        assert!("some".parse::<Faults>().is_err());
    }

    #[test]
    fn a_table_adds_up_and_names_failures() {
        let row = |name, same, failures: &[&str]| Row {
            name,
            operations: 3,
            faults: 12,
            seconds: 1.5,
            kills: 2,
            same,
            failures: failures.iter().map(|text| (*text).to_owned()).collect(),
        };
        let text = table(7, &[row("mix", 14, &[]), row("train", 13, &["differs\nhere"])]);
        assert!(
            text.contains("| mix | 3 | 12 | 1.5 | 2 | 14 | 0 |\n")
                && text.contains("| all | 6 | 24 | 3.0 | 4 | 27 | 1 |")
        );
        assert!(text.ends_with("seed 7.\n\n- train: differs here\n"), "{text}");
    }

    #[test]
    fn stages_are_chosen_by_name() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(Scale::Small, &names).map(|stages| stages.len())
        };
        assert_eq!(names(&["train", "mix"]).unwrap(), 2);
        assert!(names(&[]).unwrap() > 15);
        assert!(names(&["tain"]).unwrap_err().to_string().starts_with("no stage tain, expected some of convert, "));
    }

    #[test]
    fn moments_are_spread_and_repeated_by_their_seed() {
        let draw = |state| {
            let mut moments = Moments { state };
            [(); 100].map(|()| moments.next())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mean = draw(1).iter().sum::<f64>() / 100.0;
        assert!((mean - 0.5).abs() < 0.1 && draw(1).iter().all(|moment| (0.0..1.0).contains(moment)), "{mean}");
    }
}
