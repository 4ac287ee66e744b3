//! A folder and a .tar.gz of `simplemix` that run wherever they are put.
//!
//! The program finds its libraries beside itself, and names no path of the machine it was built on.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::checkout::{self, Checkout};
use crate::compiler::Compiler;
use crate::libtorch::Kind;
use crate::{cache, cargo, install, say, sbom};

/// `hypotf` as glibc 2.35 has it (exact but for the last rounding). It is the one function for which the program would need that release:
/// with its own, a system of 2021 suffices.
const HYPOTF: &str = r#"
#include <cmath>
extern "C" float hypotf(float x, float y) {
    if (std::isinf(x) || std::isinf(y)) return INFINITY;
    return static_cast<float>(std::sqrt(static_cast<double>(x) * x + static_cast<double>(y) * y));
}
"#;

const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Builds, packs, unpacks elsewhere, and runs what was unpacked.
///
/// # Errors
/// The CPU set could not be fetched, or the result does not run.
pub(crate) fn run(checkout: &Checkout) -> Result<ExitCode> {
    // Always the CPU set of the cache: libraries found elsewhere may need others that are not packed.
    let libtorch = install::from_cache(&Compiler::find()?, Kind::Cpu)?;
    let Some(program) = program(checkout, &libtorch.path)? else { return Ok(ExitCode::FAILURE) };
    let name = format!("simplemix-{}-{}", version(checkout)?, target(checkout)?);
    let dist = checkout.root().join("dist");
    let folder = dist.join(&name);
    let partial = dist.join(format!(".partial-{name}"));
    for old in [&partial, &folder] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    lay_out(checkout, &libtorch.path, &program, &partial)?;
    let sbom = sbom::make(checkout, &target(checkout)?, crate::libtorch::VERSION)?;
    fs::write(partial.join("sbom.cdx.json"), format!("{sbom:#}\n")).context("cannot write sbom.cdx.json")?;
    cache::publish(&partial, &folder)?;

    let tarball = dist.join(format!("{name}.tar.gz"));
    let partial = dist.join(format!(".partial-{name}.tar.gz"));
    tar(Command::new("tar").arg("-czf").arg(&partial).arg("-C").arg(&dist).arg(&name))?;
    cache::publish(&partial, &tarball)?;
    let version = prove(&tarball, &name)?;
    let size = fs::metadata(&tarball)?.len() >> 20;
    say(format_args!("{} ({size} MiB): a copy put elsewhere says `{version}`", tarball.display()));
    Ok(ExitCode::SUCCESS)
}

/// The program as it is released, with the run path `bin/../lib`; `None` if it cannot be built.
///
/// # Errors
/// Cargo cannot be run.
pub(crate) fn program(checkout: &Checkout, libtorch: &Path) -> Result<Option<PathBuf>> {
    let target_dir = checkout.root().join("target").join("dist");
    let built = build(checkout, libtorch, &target_dir)?;
    Ok(built.then(|| target_dir.join("dist/simplemix")))
}

/// Builds with other linker options than a plain build, hence in a folder of its own.
fn build(checkout: &Checkout, libtorch: &Path, target_dir: &Path) -> Result<bool> {
    let run_path = if cfg!(target_os = "macos") { "@executable_path/../lib" } else { "$ORIGIN/../lib" };
    let mut command = cargo::cargo(checkout);
    command.args(["rustc", "--profile", "dist", "--locked", "--package", "simplemix-cli", "--bin", "simplemix"]);
    command.args(["--features", "full"]);
    command.arg("--target-dir").arg(target_dir);
    // In place of the flags in `.cargo/libtorch.toml`, which name this checkout.
    let mut rustc = vec![format!("-Clink-arg=-Wl,-rpath,{run_path}"), "-Cstrip=debuginfo".to_owned()];
    let mut cxx = env::var("CXXFLAGS").into_iter().collect::<Vec<_>>();
    let folders = [
        (Some(checkout.root().to_owned()), "simplemix"),
        (checkout::cargo_home(), "cargo"),
        (Some(libtorch.to_owned()), "libtorch"),
    ];
    for (folder, name) in folders {
        let Some(folder) = folder else { continue };
        rustc.push(format!("--remap-path-prefix={}={name}", folder.display()));
        cxx.push(format!("-ffile-prefix-map={}={name}", folder.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", rustc.join("\x1f")).env("CXXFLAGS", cxx.join(" "));
    command.env("LIBTORCH", libtorch);
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        fs::create_dir_all(target_dir).with_context(|| format!("cannot make {}", target_dir.display()))?;
        let object = target_dir.join("hypotf.o");
        Compiler::find()?.object(HYPOTF, &object)?;
        command.arg("--").arg(format!("-Clink-arg={}", object.display()));
    }
    Ok(cargo::status(&mut command)?.success())
}

fn version(checkout: &Checkout) -> Result<String> {
    let mut command = cargo::cargo(checkout);
    let id = cargo::output(command.args(["pkgid", "--package", "simplemix-cli"]))?;
    version_in_id(&id).with_context(|| format!("no version in `{}`", id.trim()))
}

/// `path+file:///w/crates/simplemix-cli#0.1.0`, or `...#name@0.1.0`
fn version_in_id(id: &str) -> Option<String> {
    let version = id.trim().rsplit(['#', '@']).next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// The platform that programs are built for here.
pub(crate) fn target(checkout: &Checkout) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.arg("-vV").current_dir(checkout.root());
    let text = cargo::output(&mut command)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

fn lay_out(checkout: &Checkout, libtorch: &Path, program: &Path, folder: &Path) -> Result<()> {
    let copy = |from: &Path, to: PathBuf| {
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    };
    for name in ["bin", "lib"] {
        fs::create_dir_all(folder.join(name))?;
    }
    copy(program, folder.join("bin/simplemix"))?;
    for library in libraries(libtorch)? {
        if let Some(name) = library.file_name() {
            copy(&library, folder.join("lib").join(name))?;
        }
    }
    for name in DOCUMENTS {
        let path = checkout.root().join(name);
        if path.exists() {
            copy(&path, folder.join(name))?;
        }
    }
    Ok(())
}

/// The libraries to run with: all of a set but the name that only a linker asks for.
///
/// Those of `torch.libs` find each other, and are found, in one folder as well.
fn libraries(libtorch: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [libtorch.join("lib"), libtorch.join(".dylibs"), libtorch.with_file_name("torch.libs")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_file() && !path.ends_with("libgomp.so") {
                found.push(path);
            }
        }
    }
    ensure!(!found.is_empty(), "{} holds no library", libtorch.display());
    Ok(found)
}

/// Unpacks the tarball elsewhere and runs the program there with nothing in its environment.
fn prove(tarball: &Path, name: &str) -> Result<String> {
    let folder = env::temp_dir().join(format!("simplemix-dist-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let said = tar(Command::new("tar").arg("-xzf").arg(tarball).arg("-C").arg(&folder))
        .and_then(|()| say_version(&folder.join(name).join("bin/simplemix")));
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    said
}

fn say_version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").env_clear().output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the packed program does not run: {}", errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn tar(command: &mut Command) -> Result<()> {
    let status = cargo::status(command)?;
    ensure!(status.success(), "tar {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::version_in_id;

    #[test]
    fn reads_the_version_of_a_package() {
        let version = Some("0.1.0".to_owned());
        assert_eq!(version_in_id("path+file:///w/crates/simplemix-cli#0.1.0\n"), version);
        assert_eq!(version_in_id("path+file:///w/crates/cli#simplemix-cli@0.1.0"), version);
        assert_eq!(version_in_id("path+file:///w/crates/simplemix-cli"), None);
    }
}
