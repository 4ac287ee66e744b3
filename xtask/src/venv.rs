//! Virtual environments of Python, kept in the user's cache by what is in them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::cargo;
use crate::checkout::Checkout;
use crate::python::Python;

/// A Python with some packages.
pub(crate) struct Environment {
    python: PathBuf,
}

/// The environment of these packages, made once.
///
/// # Errors
/// There is no Python with pip, or pip cannot install the packages.
pub(crate) fn environment(checkout: &Checkout, name: &str, packages: &[&str]) -> Result<Environment> {
    let python = Python::with_pip()?;
    environment_of(checkout, &python, name, packages)
}

/// As [`environment`], with this Python.
pub(crate) fn environment_of(
    checkout: &Checkout,
    python: &Python,
    name: &str,
    packages: &[&str],
) -> Result<Environment> {
    let cache = Cache::open()?;
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
        let mut pip = made.pip(checkout);
        pip.arg("--quiet").args(packages);
        if !cargo::status(pip.stdout(std::io::stderr()))?.success() {
            bail!("pip could not install {} (its messages are above)", packages.join(" "));
        }
    }
    fs::write(&ready, packages.join("\n")).with_context(|| format!("cannot write {}", ready.display()))?;
    Ok(made)
}

impl Environment {
    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// The environment's Python, told nothing of the checkout.
    pub(crate) fn command(&self, checkout: &Checkout) -> Command {
        self.called(checkout, &self.python)
    }

    /// A program that one of its packages has brought.
    pub(crate) fn tool(&self, checkout: &Checkout, name: &str) -> Command {
        self.called(checkout, &self.python.with_file_name(name))
    }

    fn called(&self, checkout: &Checkout, program: &Path) -> Command {
        let mut command = Command::new(program);
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

    /// The folder of its packages.
    pub(crate) fn site_packages(&self, checkout: &Checkout) -> Result<PathBuf> {
        let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
        Ok(PathBuf::from(self.output(checkout, &["-c", code])?))
    }

    fn pip(&self, checkout: &Checkout) -> Command {
        let mut pip = self.command(checkout);
        pip.args(["-m", "pip", "install", "--disable-pip-version-check"]);
        pip
    }

    /// Installs the wheel in place of another one, with nothing that it needs.
    pub(crate) fn install(&self, checkout: &Checkout, wheel: &Path) -> Result<()> {
        let mut pip = self.pip(checkout);
        pip.args(["--quiet", "--no-index", "--no-deps", "--force-reinstall"]).arg(wheel);
        ensure!(cargo::status(pip.stdout(std::io::stderr()))?.success(), "pip could not install {}", wheel.display());
        Ok(())
    }

    /// Whether its Python succeeds with these arguments.
    pub(crate) fn passes(&self, checkout: &Checkout, arguments: &[&str]) -> Result<bool> {
        Ok(cargo::status(self.command(checkout).args(arguments))?.success())
    }

    /// Standard output of its Python with these arguments, which must succeed.
    pub(crate) fn output(&self, checkout: &Checkout, arguments: &[&str]) -> Result<String> {
        let output = self.command(checkout).args(arguments).output().context("cannot run python")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "python {}: {}", arguments.join(" "), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A number that differs for other texts (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
