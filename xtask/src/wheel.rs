//! The Python package under `python/`: a wheel and a source archive, and tests of them as a user has them.
//!
//! The wheel is tested where only it and what a test needs is installed, and never the checkout's own files. Environments are
//! kept in the user's cache by what is in them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::checkout::{self, Checkout};
use crate::python::Python;
use crate::{cargo, now, say};

/// Builds wheels, and checks which systems they run on.
const TOOLS: &[&str] = &["auditwheel==6.8.2", "maturin==1.16.0", "ziglang==0.15.2"];

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

/// Builds the wheel and the source archive into `target/wheels`; with `peers`, also runs the tests with torch, TRL and trackers.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn run(checkout: &Checkout, peers: bool) -> Result<ExitCode> {
    let Some(wheel) = build(checkout)? else { return Ok(ExitCode::FAILURE) };
    if !sdist(checkout)? {
        return Ok(ExitCode::FAILURE);
    }
    if peers {
        for trl in TRL {
            say(format_args!("\n=== with torch, accelerate and {trl}"));
            let packages: Vec<&str> = PEERS.iter().copied().chain([trl]).collect();
            let venv = environment(checkout, "peers", &packages)?;
            venv.install(&wheel)?;
            if !venv.tests(checkout, "python/tests/peers", &[])? {
                return Ok(ExitCode::FAILURE);
            }
        }
        say("\n=== with trackers");
        let venv = environment(checkout, "trackers", TRACKERS)?;
        venv.install(&wheel)?;
        if !venv.tests(checkout, "python/tests/peers/test_trackers.py", &[])? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the wheel can be built, is one that old systems take, and passes its tests and the checkers of its types.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let mut fmt = cargo::cargo(checkout);
    if !cargo::status(fmt.args(["fmt", "--check", "--manifest-path", "python/Cargo.toml"]))?.success() {
        return Ok(false);
    }
    let Some(wheel) = build(checkout)? else { return Ok(false) };
    let empty = environment(checkout, "empty", &[])?;
    empty.install(&wheel)?;
    let code = "import simplemix as sm; t = sm.Table.from_rows([{'x': 1}, {'x': 2}]); assert len(sm.Mixture({'a': t}, seed=1)) == 2";
    if !empty.passes(checkout, &["-c", code])? {
        say("the wheel does not work where nothing else is installed");
        return Ok(false);
    }
    let venv = environment(checkout, "tests", TESTS)?;
    venv.install(&wheel)?;
    let sources = checkout.root().join("python/simplemix");
    let sources = sources.to_string_lossy();
    let tests = venv.tests(
        checkout,
        "python/tests",
        // One seed, so that the same commit passes or fails each time; pytest by hand draws others.
        &[&format!("--ignore={}", checkout.root().join("python/tests/peers").display()), "--hypothesis-seed=1"],
    )?;
    let mypy = venv.passes(
        checkout,
        &["-m", "mypy", "--strict", "--ignore-missing-imports", "--no-warn-unused-ignores", &sources],
    )?;
    let project = checkout.root().join("python/pyproject.toml");
    let pyright =
        ["-m", "pyright", "--project", &project.to_string_lossy(), "--pythonpath", &venv.python.to_string_lossy()]
            .map(str::to_owned);
    let pyright = venv.passes(checkout, &pyright.each_ref().map(String::as_str))?;
    Ok(tests && mypy && pyright)
}

/// Builds the wheel; `None` if it cannot be built or is not what it is to be.
fn build(checkout: &Checkout) -> Result<Option<PathBuf>> {
    let start = now();
    let tools = environment(checkout, "tools", TOOLS)?;
    let wheels = wheels(checkout)?;
    let mut maturin = tools.maturin(checkout, "build");
    maturin.args(["--release", "--locked", "--zig", "--compatibility", GLIBC]);
    if !cargo::status(&mut maturin)?.success() {
        return Ok(None);
    }
    let wheel = newest(&wheels, "whl")?;
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = tools.command(checkout).args(["-m", "auditwheel", "show"]).arg(&wheel).output();
    let shown = String::from_utf8_lossy(&shown.context("cannot run auditwheel")?.stdout).into_owned();
    let bytes = fs::metadata(&wheel)?.len();
    let fault = match () {
        () if !name.contains("-cp310-abi3-") => Some("is not one for Python 3.10 and all later ones"),
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
    if !cargo::status(&mut tools.maturin(checkout, "sdist"))?.success() {
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

/// The file with this ending that was written last.
fn newest(folder: &Path, ending: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == ending));
    let newest = files.max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    newest.with_context(|| format!("no .{ending} in {}", folder.display()))
}

/// A Python with some packages.
struct Environment {
    python: PathBuf,
}

/// The environment of these packages, made once.
fn environment(checkout: &Checkout, name: &str, packages: &[&str]) -> Result<Environment> {
    let cache = Cache::open()?;
    let python = Python::with_pip()?;
    let key = format!("python-{}-{}-{:016x}", python.version(), name, hash(&packages.join(" ")));
    let folder = cache.root().join(key);
    let made = Environment { python: folder.join("bin").join("python") };
    let ready = folder.join("ready");
    // An environment cannot be moved, so that it is whole is noted in it.
    if ready.exists() {
        return Ok(made);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut venv = python.command();
    ensure!(
        cargo::status(venv.args(["-m", "venv"]).arg(&folder).current_dir(checkout.root()))?.success(),
        "cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)"
    );
    if !packages.is_empty() {
        let mut pip = made.command(checkout);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        if !cargo::status(pip.stdout(std::io::stderr()))?.success() {
            bail!("pip could not install {} (its messages are above)", packages.join(" "));
        }
    }
    fs::write(&ready, packages.join("\n")).with_context(|| format!("cannot write {}", ready.display()))?;
    Ok(made)
}

impl Environment {
    fn command(&self, checkout: &Checkout) -> Command {
        let mut command = Command::new(&self.python);
        cargo::leave_out(&mut command);
        // From a folder without packages, so that the checkout's files are not imported in place of the wheel's.
        let nowhere = checkout.root().join("target").join("wheels");
        command.current_dir(if nowhere.is_dir() { nowhere } else { checkout.root().to_owned() });
        // Tools such as maturin look for python3 and zig there.
        let bin = self.python.parent().map(Path::to_owned).into_iter();
        let path = env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = env::join_paths(bin.chain(env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command.env_remove("PYTHONPATH").env("PIP_REQUIRE_VIRTUALENV", "0").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn maturin(&self, checkout: &Checkout, what: &str) -> Command {
        let manifest = checkout.root().join("python").join("Cargo.toml");
        let mut command = self.command(checkout);
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

    /// Installs the wheel in place of another one; what it needs is nothing.
    fn install(&self, wheel: &Path) -> Result<()> {
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]);
        pip.arg("--force-reinstall").arg(wheel);
        ensure!(cargo::status(pip.stdout(std::io::stderr()))?.success(), "pip could not install {}", wheel.display());
        Ok(())
    }

    fn passes(&self, checkout: &Checkout, arguments: &[&str]) -> Result<bool> {
        Ok(cargo::status(self.command(checkout).args(arguments))?.success())
    }

    fn tests(&self, checkout: &Checkout, folder: &str, more: &[&str]) -> Result<bool> {
        let mut command = self.command(checkout);
        command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]).args(more);
        command.arg(checkout.root().join(folder));
        command.env("HF_HUB_OFFLINE", "1").env("HF_DATASETS_CACHE", checkout.root().join("target").join("hf-datasets"));
        Ok(cargo::status(&mut command)?.success())
    }
}

/// A number that differs for other texts (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
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
