//! The Python packages: wheels, a source archive, and tests of them as a user has them.
//!
//! `simplemix`, under `python/`, is a library and made here; the wheel of the program is made by `program`. Wheels are tested where only
//! they and what a test needs is installed, and never the checkout's own files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::checkout::{self, Checkout};
use crate::python::Python;
use crate::venv::{Environment, environment, environment_of};
use crate::{cargo, now, program, say};

/// A Python package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Package {
    /// simplemix: the mixer, the reader and the evaluator (minutes)
    Library,
    /// simplemix-cli: the program, for the libtorch of a torch wheel (an optimised build)
    Program,
}

/// Builds wheels, and checks which systems and Pythons they run on.
const TOOLS: &[&str] = &["abi3audit==0.0.26", "auditwheel==6.8.2", "maturin==1.16.0", "ziglang==0.15.2"];

/// Libraries that the tests hold the package against.
const TESTS: &[&str] = &[
    "datasets==5.2.0",
    "duckdb==2.0.1",
    "hypothesis==6.170.17",
    "mypy==2.4.1",
    "pandas==3.1.1",
    "polars==2.1.0",
    "pyarrow==26.0.1",
    "pyright==1.1.414",
    "pytest==9.2.0",
];

/// Trainers that the tests of `--peers` run.
const PEERS: &[&str] = &[
    "accelerate==1.15.0",
    "datasets==5.2.0",
    "pytest==9.2.0",
    "torch==2.11.0",
    "torchdata==0.11.0",
    "transformers==5.24.0",
];

/// Trackers that the tests of `--peers` send a run to.
const TRACKERS: &[&str] = &["mlflow==3.17.2", "pytest==9.2.0", "trackio==0.43.0", "wandb==0.31.0"];

/// Releases of TRL, newest first.
const TRL: [&str; 2] = ["trl==1.16.0", "trl==1.15.0"];

/// Oldest glibc that the wheel runs on.
const GLIBC: &str = "manylinux_2_28";

/// Most bytes of the wheel.
const MOST_BYTES: u64 = 15 << 20;

/// Builds the packages named, or both, into `target/wheels`; with `peers`, also runs their tests with torch, TRL and trackers.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn run(checkout: &Checkout, named: &[Package], peers: bool) -> Result<ExitCode> {
    let wanted = |package| named.is_empty() || named.contains(&package);
    let (mut library, mut program) = (None, None);
    if wanted(Package::Library) {
        library = build(checkout)?;
        if library.is_none() || !sdist(checkout)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    if wanted(Package::Program) {
        program = program::build(checkout, &wheels(checkout)?)?;
        if program.is_none() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let passed = !peers || with_peers(checkout, library.as_deref(), program.as_deref())?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the wheels pass the tests that need torch, trainers and trackers.
fn with_peers(checkout: &Checkout, library: Option<&Path>, program: Option<&Path>) -> Result<bool> {
    let mut all_good = true;
    for (place, trl) in TRL.iter().enumerate() {
        let packages: Vec<&str> = PEERS.iter().copied().chain([*trl]).collect();
        if let Some(wheel) = library {
            say(format_args!("\n=== with torch, accelerate and {trl}"));
            let venv = environment(checkout, "peers", &packages)?;
            venv.install(checkout, wheel)?;
            all_good &= tests(checkout, &venv, "python/tests/peers", &[])?;
        }
        if let (0, Some(wheel)) = (place, program) {
            say("\n=== the program with torch");
            all_good &= program::passes(checkout, &environment(checkout, "peers", &packages)?, wheel)?;
        }
    }
    if let Some(wheel) = library {
        say("\n=== with trackers");
        let venv = environment(checkout, "trackers", TRACKERS)?;
        venv.install(checkout, wheel)?;
        all_good &= tests(checkout, &venv, "python/tests/peers/test_trackers.py", &[])?;
    }
    Ok(all_good)
}

/// Whether the wheel can be built, is one that old systems take, and passes its tests and the checkers of its types.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let Some(wheel) = build(checkout)? else { return Ok(false) };
    let code = "import simplemix as sm; t = sm.Table.from_rows([{'x': 1}, {'x': 2}]); assert len(sm.Mixture({'a': t}, seed=1)) == 2";
    for python in Python::all()? {
        let empty = environment_of(checkout, &python, "empty", &[])?;
        empty.install(checkout, &wheel)?;
        if !empty.passes(checkout, &["-c", code])? {
            say(format_args!(
                "the wheel does not work with Python {} where nothing else is installed",
                python.version()
            ));
            return Ok(false);
        }
    }
    let program = program::check(checkout)?;
    let venv = environment(checkout, "tests", TESTS)?;
    venv.install(checkout, &wheel)?;
    let [sources, launcher] = ["python/simplemix", "python/cli/simplemix_cli"].map(|path| checkout.root().join(path));
    let (sources, launcher) = (sources.to_string_lossy(), launcher.to_string_lossy());
    let tests = tests(
        checkout,
        &venv,
        "python/tests",
        // One seed, so that the same commit passes or fails each time; pytest by hand draws others.
        &[&format!("--ignore={}", checkout.root().join("python/tests/peers").display()), "--hypothesis-seed=1"],
    )?;
    let mypy = venv.passes(
        checkout,
        &["-m", "mypy", "--strict", "--ignore-missing-imports", "--no-warn-unused-ignores", &sources, &launcher],
    )?;
    let project = checkout.root().join("python/pyproject.toml");
    let pyright =
        ["-m", "pyright", "--project", &project.to_string_lossy(), "--pythonpath", &venv.python().to_string_lossy()]
            .map(str::to_owned);
    let pyright = venv.passes(checkout, &pyright.each_ref().map(String::as_str))?;
    Ok(program && tests && mypy && pyright)
}

/// Builds the wheel; `None` if it cannot be built or is not what it is to be.
fn build(checkout: &Checkout) -> Result<Option<PathBuf>> {
    let start = now();
    let tools = environment(checkout, "tools", TOOLS)?;
    let wheels = wheels(checkout)?;
    let mut maturin = maturin(checkout, &tools, "build");
    maturin.args(["--release", "--locked", "--zig", "--compatibility", GLIBC]);
    if !cargo::status(&mut maturin)?.success() {
        return Ok(None);
    }
    let wheel = newest(&wheels, "whl")?;
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = tools.command(checkout).args(["-m", "auditwheel", "show"]).arg(&wheel).output();
    let shown = String::from_utf8_lossy(&shown.context("cannot run auditwheel")?.stdout).into_owned();
    let bytes = fs::metadata(&wheel)?.len();
    // The name of the wheel promises it, and only this looks at the symbols.
    let stable = tools.passes(checkout, &["-m", "abi3audit", "--strict", "--summary", &wheel.to_string_lossy()])?;
    let fault = match () {
        () if !name.contains("-cp310-abi3-") => Some("is not one for Python 3.10 and all later ones"),
        () if !stable => Some("calls what Python 3.10 does not promise to later ones, as abi3audit sees it"),
        () if !fits(&shown) => Some("needs a newer system than manylinux_2_28, as auditwheel sees it"),
        () if bytes > MOST_BYTES => Some("is larger than 15 MiB"),
        () => None,
    };
    if let Some(fault) = fault {
        say(format_args!("{} {fault}:\n{shown}", wheel.display()));
        return Ok(None);
    }
    say(format_args!("{} ({:.1} MB) in {:.0} s", wheel.display(), bytes as f64 / 1e6, start.elapsed().as_secs_f64()));
    Ok(Some(wheel))
}

/// Whether auditwheel finds the wheel consistent with glibc 2.28 or older.
fn fits(shown: &str) -> bool {
    let tags =
        shown.split(|c: char| c == '"' || c.is_whitespace()).filter_map(|word| word.strip_prefix("manylinux_2_"));
    let tag = tags.filter_map(|tag| tag.split('_').next()?.parse::<u32>().ok()).next();
    tag.is_some_and(|minor| minor <= 28)
}

fn sdist(checkout: &Checkout) -> Result<bool> {
    let tools = environment(checkout, "tools", TOOLS)?;
    let wheels = wheels(checkout)?;
    if !cargo::status(&mut maturin(checkout, &tools, "sdist"))?.success() {
        return Ok(false);
    }
    say(newest(&wheels, "gz")?.display());
    Ok(true)
}

/// `target/wheels` of the checkout.
fn wheels(checkout: &Checkout) -> Result<PathBuf> {
    let folder = checkout.root().join("target").join("wheels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The library's file with this ending that was written last.
fn newest(folder: &Path, ending: &str) -> Result<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("simplemix-") && path.extension().is_some_and(|found| found == ending)
    };
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.path()).filter(is_ours);
    let newest = files.max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    newest.with_context(|| format!("no .{ending} in {}", folder.display()))
}

/// maturin with the sources under `python/`.
fn maturin(checkout: &Checkout, tools: &Environment, what: &str) -> Command {
    let manifest = checkout.root().join("python").join("Cargo.toml");
    let mut command = tools.command(checkout);
    command.args(["-m", "maturin", what, "--out"]).arg(checkout.root().join("target").join("wheels"));
    command.arg("--manifest-path").arg(manifest);
    command.env("CARGO_TARGET_DIR", checkout.root().join("target").join("python"));
    if what == "build" {
        // In place of the run path to libtorch in `.cargo/libtorch.toml`; the wheel names no folder of this machine.
        let folders = [(Some(checkout.root().to_owned()), "simplemix"), (checkout::cargo_home(), "cargo")];
        let named = folders.into_iter().filter_map(|(folder, name)| Some((folder?, name)));
        let flags: Vec<String> =
            named.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())).collect();
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }
    command
}

fn tests(checkout: &Checkout, venv: &Environment, folder: &str, more: &[&str]) -> Result<bool> {
    let mut command = venv.command(checkout);
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]).args(more);
    command.arg(checkout.root().join(folder));
    command.env("HF_HUB_OFFLINE", "1").env("HF_DATASETS_CACHE", checkout.root().join("target").join("hf-datasets"));
    Ok(cargo::status(&mut command)?.success())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn reads_which_systems_auditwheel_finds() {
        let shown = |tag: &str| format!("x.whl is consistent\nwith the following platform tag: \"{tag}\".\n");
        assert!(fits(&shown("manylinux_2_17_x86_64")) && fits(&shown("manylinux_2_28_x86_64")));
        assert!(!fits(&shown("manylinux_2_35_x86_64")) && !fits(&shown("linux_x86_64")) && !fits(""));
    }
}
