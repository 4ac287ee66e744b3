//! Trials of the program: a stage with a fault of the disk, or killed, and then the same command again.
//!
//! Whatever has its final name after the fault is whole: the old content or the new one. The command that follows succeeds
//! with the same bytes as a run without a fault, and leaves nothing else.
//!
//! Shared by the end-to-end tests, which take a sample in a minute, and `cargo xtask chaos`, which takes all.

mod files;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use stages::{Scale, Stage, stages};

/// Files by path, folders as none; hidden ones and the cache too.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// The program, and the folder in which it runs.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
}

/// Ways in which an operation on the disk goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails.
    Fail,
    /// The process is killed in its place.
    Abort,
    /// The process is killed in the middle of it.
    Torn,
    /// The power is cut, and what was not on disk is lost in one of eight ways, or in one that the operation's number chooses.
    PowerLoss(Option<u8>),
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Fail, Self::Abort, Self::Torn, Self::PowerLoss(None)];

    /// All ways to lose the power.
    pub(crate) fn losses() -> impl Iterator<Item = Self> {
        (0..8).map(|way| Self::PowerLoss(Some(way)))
    }

    fn variable(self, number: usize) -> String {
        match self {
            Self::Fail => number.to_string(),
            Self::Abort => format!("abort:{number}"),
            Self::Torn => format!("torn:{number}"),
            Self::PowerLoss(None) => format!("powerloss:{number}"),
            Self::PowerLoss(Some(way)) => format!("powerloss:{number}:{way}"),
        }
    }
}

/// A stage with its result without faults.
#[derive(Debug)]
pub(crate) struct Trials<'a> {
    bench: &'a Bench,
    pub(crate) stage: &'a Stage,
    before: Tree,
    after: Tree,
    /// Each operation with its path, relative to the folder.
    operations: Vec<(String, PathBuf)>,
    /// Time of a run without faults.
    pub(crate) duration: Duration,
}

impl Bench {
    /// The program, to be run in the folder with a cache of its own.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).env("SIMPLEMIX_CACHE", self.folder.join("cache"));
        // The program would start again to set it.
        command.env("OMP_WAIT_POLICY", "PASSIVE");
        command.args(words.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn output(&self, words: &str) -> Result<Output, String> {
        self.command(words).output().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// Runs a command that must succeed.
    pub(crate) fn succeeds(&self, words: &str) -> Result<(), String> {
        let output = self.output(words)?;
        if output.status.success() { Ok(()) } else { Err(format!("{words}: {}", said(&output))) }
    }
}

/// Standard error as text.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl<'a> Trials<'a> {
    /// Prepares the inputs of a stage in the bench's folder, which has a `model`, and runs it twice without a fault: what is
    /// the same both times is the result.
    ///
    /// # Errors
    /// The program's words, if it fails.
    pub(crate) fn new(bench: &'a Bench, stage: &'a Stage) -> Result<Self, String> {
        stage.inputs(bench)?;
        let before = files::tree(&bench.folder);
        let log = bench.folder.with_extension("operations");
        let output = bench.command(&stage.words).env("SIMPLEMIX_FAULT_LOG", &log).output();
        let output = output.map_err(|error| format!("{}: {error}", bench.program.display()))?;
        if !output.status.success() {
            return Err(format!("{}: {}", stage.words, said(&output)));
        }
        let first = files::tree(&bench.folder);
        files::restore(&bench.folder, &before);
        let start = now();
        bench.succeeds(&stage.again())?;
        let duration = start.elapsed();
        let after = files::lasting(&bench.folder, &first);
        // A program without the feature `faults` logs nothing.
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        let operations = text.lines().filter_map(|line| files::operation(&bench.folder, line)).collect();
        let trials = Self { bench, stage, before, after, operations, duration };
        if let Some(path) = trials.unsynced(&first) {
            return Err(format!("{}: {} is left without a wait until it is on disk", stage.words, path.display()));
        }
        match stage.outputs.iter().find(|output| !trials.after.keys().any(|path| path.starts_with(output))) {
            Some(missing) => Err(format!("{}: {missing} is not among the outputs", stage.words)),
            None => Ok(trials),
        }
    }

    /// A file that stays, and was written after its last sync.
    fn unsynced(&self, left: &Tree) -> Option<&Path> {
        let mut written = BTreeSet::new();
        for (operation, path) in &self.operations {
            match operation.as_str() {
                "write" => written.insert(path.as_path()),
                _ => written.remove(path.as_path()),
            };
        }
        written.into_iter().find(|path| left.contains_key(*path))
    }

    /// Number of operations on the disk.
    pub(crate) fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Number of the last operation that gives a name: all work is done then, and nothing shows it.
    pub(crate) fn last_rename(&self) -> usize {
        let last = self.operations.iter().rposition(|(operation, _)| operation == "rename");
        last.map_or(self.operations.len(), |last| last + 1)
    }

    /// Runs the stage with a fault at operation `number`, counted from 1, and then again.
    ///
    /// # Errors
    /// Description of what is wrong afterwards.
    pub(crate) fn fault(&self, fault: Fault, number: usize) -> Result<(), String> {
        let (operation, path) = &self.operations[number - 1];
        let variable = fault.variable(number);
        let context = format!(
            "SIMPLEMIX_FAULT={variable} simplemix {} ({operation} {}, {number} of {})",
            self.stage.words,
            path.display(),
            self.operations.len()
        );
        self.faulty(fault, number, &variable).map_err(|problem| format!("{context}: {problem}"))
    }

    fn faulty(&self, fault: Fault, number: usize, variable: &str) -> Result<(), String> {
        files::restore(&self.bench.folder, &self.before);
        let output = self.bench.command(&self.stage.words).env("SIMPLEMIX_FAULT", variable).output();
        let output = output.map_err(|error| error.to_string())?;
        let path = &self.operations[number - 1].1;
        match (fault, output.status.code()) {
            // The cache is a convenience.
            (Fault::Fail, Some(0)) if path.starts_with("cache") => {}
            (Fault::Fail, code) => {
                self.check_failure(number, code, &said(&output))?;
                self.check_together()?;
            }
            (_, None) => {}
            (_, code) => return Err(format!("ends with {code:?}, expected a kill: {}", said(&output))),
        }
        self.check_whole(&files::tree(&self.bench.folder))?;
        self.again()
    }

    /// Checks code and message of a run whose operation `number` failed: 2 before work begins, 1 afterwards.
    fn check_failure(&self, number: usize, code: Option<i32>, said: &str) -> Result<(), String> {
        let expected = if number <= self.claims() { 2 } else { 1 };
        if code != Some(expected) {
            return Err(format!("ends with {code:?}, expected {expected}: {said}"));
        }
        // Threads that draw write in another order each time, so another file may be the one that fails; the names of files
        // of events hold the time.
        let is_named = self.operations.iter().any(|(_, path)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.trim_start_matches('.').split(".simplemix-").next().unwrap_or_default().to_owned();
            said.contains(name.split(".tfevents.").next().unwrap_or_default())
        });
        match is_named && (expected == 2 || said.contains("writing failed")) {
            true => Ok(()),
            false => Err(format!("does not say that writing a file failed, and which: {said}")),
        }
    }

    /// Checks that of files that belong together all are old, or all are new.
    fn check_together(&self) -> Result<(), String> {
        let found = files::tree(&self.bench.folder);
        let is_new = |name: &&&str| found.get(Path::new(**name)) == self.after.get(Path::new(**name));
        match self.stage.together.iter().filter(is_new).count() {
            0 => Ok(()),
            new if new == self.stage.together.len() => Ok(()),
            new => Err(format!("{new} of {:?} are new, expected none or all", self.stage.together)),
        }
    }

    /// Number of operations by which a command claims its outputs, before its work.
    fn claims(&self) -> usize {
        let is_claim = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".simplemix-lock") || name.ends_with(".simplemix-probe")
        };
        self.operations.iter().rposition(|(_, path)| is_claim(path)).map_or(0, |last| last + 1)
    }

    /// Runs the stage and kills it after a time, and then runs it again; false if it ended before it was killed.
    ///
    /// # Errors
    /// Description of what is wrong afterwards.
    pub(crate) fn kill(&self, after: Duration) -> Result<bool, String> {
        files::restore(&self.bench.folder, &self.before);
        let context = |problem| format!("simplemix {}, killed after {after:?}: {problem}", self.stage.words);
        let mut child = self.bench.command(&self.stage.words);
        let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| context(error.to_string()))?;
        std::thread::sleep(after);
        let is_alive = matches!(child.try_wait(), Ok(None));
        // One that has ended by now cannot be killed.
        let _ = child.kill();
        let _ = child.wait();
        if is_alive {
            self.check_whole(&files::tree(&self.bench.folder)).map_err(&context)?;
            self.again().map_err(&context)?;
        }
        Ok(is_alive)
    }

    /// Runs the command again, or what continues it, and compares the result.
    fn again(&self) -> Result<(), String> {
        let output = self.bench.output(&self.stage.again())?;
        let found = files::tree(&self.bench.folder);
        let said = said(&output);
        // A fault after the last rename leaves a whole output, which some commands refuse to replace.
        if output.status.code() == Some(2) && (said.contains("exists already") || said.contains(": exists; ")) {
            return self.check_whole(&found);
        }
        match output.status.success() {
            true => self.check_done(&found),
            false => Err(format!("again: {said}")),
        }
    }

    /// Checks that everything with a final name is whole.
    fn check_whole(&self, found: &Tree) -> Result<(), String> {
        for (path, bytes) in found.iter().filter(|(path, _)| !files::is_hidden(path)) {
            let (name, Some(bytes)) = (path.display(), bytes) else { continue };
            match self.after.get(path) {
                Some(Some(expected)) => {
                    let is_old = self.before.get(path).is_some_and(|old| old.as_ref() == Some(bytes));
                    if bytes != expected && !is_old {
                        return Err(format!("{name} is neither old nor new"));
                    }
                }
                _ if path.extension().is_some_and(|end| end == "json") => {
                    serde_json::from_slice::<serde_json::Value>(bytes).map_err(|error| format!("{name}: {error}"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that the outputs, and nothing beside them, are those of a run without faults.
    fn check_done(&self, found: &Tree) -> Result<(), String> {
        // Files that the cache could not take are made again, but nothing in it may be wrong.
        let differs = |path: &PathBuf, bytes: &Option<Vec<u8>>| match found.get(path) {
            Some(other) => other != bytes,
            None => !path.starts_with("cache"),
        };
        if let Some((path, _)) = self.after.iter().find(|(path, bytes)| differs(path, bytes)) {
            let is_there = found.get(path).is_some_and(Option::is_some);
            let how = if is_there { "differs from" } else { "is gone, beside" };
            return Err(format!("{} {how} that of a run without a fault", path.display()));
        }
        match found.keys().find(|path| files::is_hidden(path) && !self.after.contains_key(*path)) {
            Some(left) => Err(format!("{} is left", left.display())),
            None => Ok(()),
        }
    }
}

/// Numbers from 1 to `all`, at most `count`, evenly spread, first and last among them.
pub(crate) fn spread(all: usize, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).map(|i| 1 + i * (all - 1) / (count - 1).max(1)).collect();
    numbers.dedup();
    numbers
}

#[expect(clippy::disallowed_methods, reason = "kills come at moments of a stage's own time")]
fn now() -> Instant {
    Instant::now()
}
