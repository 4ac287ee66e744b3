//! Packages as they would be published: complete metadata, no path that leaves a package, sources that
//! compile once unpacked.
//!
//! Cargo's own verification builds every package in a folder of its own, torch-sys included. Here
//! the unpacked packages form a workspace that is built in the target folder of the checkout, so
//! that dependencies are there already.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::source::{self, Source};
use crate::workspace::{self, Package};
use crate::{cargo, say};

const FILES: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];
const TEXTS: [&str; 6] = ["description", "license", "readme", "repository", "documentation", "rust_version"];
const LISTS: [&str; 2] = ["keywords", "categories"];
/// Never published, and part of the unpacked workspace so that its dependencies have the features
/// that they have in a build of the checkout.
const SAME_FEATURES: &str = "same-features";

/// Whether every published crate can be packaged and its package compiles; faults are printed.
///
/// # Errors
/// Cargo or tar cannot be run, or a package cannot be unpacked.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let mut packages = workspace::packages(checkout)?;
    packages.retain(|package| package.published || package.name == SAME_FEATURES);
    let mut faults: Vec<String> = packages.iter().filter(|package| package.published).flat_map(missing).collect();
    let target = workspace::target_dir(checkout)?;
    let folder = target.join("unpacked");
    if !pack(checkout, &packages)? {
        return Ok(false);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    for package in &packages {
        let unpacked = unpack(&target, &folder, package)?;
        if package.published {
            faults.extend(check_files(&unpacked)?);
        }
    }
    for fault in &faults {
        say(fault);
    }
    Ok(build(checkout, &target, &folder, &packages)? && faults.is_empty())
}

/// Metadata that a registry and docs.rs show, or need.
fn missing(package: &Package) -> Vec<String> {
    let entry = &package.metadata;
    let mut missing: Vec<String> = Vec::new();
    missing.extend(TEXTS.iter().filter(|key| entry[**key].as_str().is_none_or(str::is_empty)).map(ToString::to_string));
    missing
        .extend(LISTS.iter().filter(|key| entry[**key].as_array().is_none_or(Vec::is_empty)).map(ToString::to_string));
    let docs = &entry["metadata"]["docs"]["rs"];
    if docs["all-features"] != true {
        missing.push("[package.metadata.docs.rs] all-features = true".to_owned());
    }
    let features = docs["features"].as_array().cloned().unwrap_or_default();
    if depends_on_tch(entry) && !features.contains(&Value::from("tch/doc-only")) {
        missing.push("[package.metadata.docs.rs] features = [\"tch/doc-only\"]".to_owned());
    }
    missing.into_iter().map(|key| format!("{}: Cargo.toml lacks {key}", package.name)).collect()
}

fn depends_on_tch(entry: &Value) -> bool {
    let dependencies = entry["dependencies"].as_array();
    dependencies.into_iter().flatten().any(|dependency| dependency["name"] == "tch" && dependency["kind"].is_null())
}

/// Makes `target/package/NAME-VERSION.crate` of each package.
fn pack(checkout: &Checkout, packages: &[Package]) -> Result<bool> {
    let mut command = cargo::cargo(checkout);
    command.args(["package", "--quiet", "--locked", "--no-verify", "--allow-dirty"]);
    for package in packages {
        command.args(["--package", &package.name]);
    }
    Ok(cargo::status(&mut command)?.success())
}

fn unpack(target: &Path, folder: &Path, package: &Package) -> Result<PathBuf> {
    let name = package.versioned_name()?;
    let archive = target.join("package").join(format!("{name}.crate"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // With the times of now: cargo would take an older build of the same version for one of these files.
    let status = cargo::status(Command::new("tar").arg("-xzmf").arg(&archive).arg("-C").arg(folder))?;
    ensure!(status.success(), "cannot unpack {}", archive.display());
    Ok(folder.join(name))
}

/// Files that a package lacks, and paths in its sources that leave it.
fn check_files(unpacked: &Path) -> Result<Vec<String>> {
    let name = unpacked.file_name().unwrap_or_default().to_string_lossy();
    let mut faults = Vec::new();
    for file in FILES {
        if !unpacked.join(file).is_file() {
            faults.push(format!("{name}: has no {file}"));
        }
    }
    for path in source::rust_files(unpacked)? {
        let inside = path.strip_prefix(unpacked).unwrap_or(&path);
        for included in Source::read(&path)?.included {
            if leaves(inside, &included) {
                faults.push(format!("{name}: {} includes {included}, which is not in the package", inside.display()));
            }
        }
    }
    Ok(faults)
}

/// Whether a path, seen from the folder of `file`, is outside the package that `file` is inside.
fn leaves(file: &Path, included: &str) -> bool {
    let mut depth = file.components().count() as isize - 1;
    for part in Path::new(included).components() {
        match part {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return true,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// Checks all unpacked packages as one workspace, with the profiles of the checkout.
fn build(checkout: &Checkout, target: &Path, folder: &Path, packages: &[Package]) -> Result<bool> {
    let manifest = checkout.root().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let path = folder.join("Cargo.toml");
    let workspace = workspace_text(&text.parse()?, packages)?;
    fs::write(&path, workspace).with_context(|| format!("cannot write {}", path.display()))?;
    let lock = folder.join("Cargo.lock");
    fs::copy(checkout.root().join("Cargo.lock"), &lock).with_context(|| format!("cannot write {}", lock.display()))?;
    let mut command = cargo::cargo(checkout);
    command.current_dir(folder).args(["check", "--quiet", "--offline", "--workspace", "--all-features"]);
    command.arg("--target-dir").arg(target);
    Ok(cargo::status(&mut command)?.success())
}

/// The manifest of a workspace of the unpacked packages, each in place of the published one.
fn workspace_text(root: &toml::Table, packages: &[Package]) -> Result<String> {
    let names = packages.iter().map(Package::versioned_name).collect::<Result<Vec<_>>>()?;
    let mut patches = toml::Table::new();
    for (package, name) in packages.iter().zip(&names) {
        let entry = toml::Table::from_iter([("path".to_owned(), toml::Value::from(name.as_str()))]);
        patches.insert(package.name.clone(), entry.into());
    }
    let resolver = root.get("workspace").and_then(|workspace| workspace.get("resolver")).cloned();
    let mut workspace = toml::Table::from_iter([("members".to_owned(), toml::Value::from(names))]);
    workspace.extend(resolver.map(|resolver| ("resolver".to_owned(), resolver)));
    let mut manifest = toml::Table::from_iter([("workspace".to_owned(), workspace.into())]);
    manifest.insert("patch".to_owned(), toml::Table::from_iter([("crates-io".to_owned(), patches.into())]).into());
    manifest.extend(root.get("profile").map(|profile| ("profile".to_owned(), profile.clone())));
    Ok(toml::to_string(&manifest)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::leaves;

    #[test]
    fn a_path_may_climb_to_the_root_of_its_package() {
        let from = |file: &str, included: &str| leaves(Path::new(file), included);
        assert!(!from("src/lib.rs", "../README.md"));
        assert!(!from("src/a/b.rs", "../golden/x.json"));
        assert!(from("src/lib.rs", "../../README.md"));
        assert!(from("src/a/b.rs", "../../../x.json"));
        assert!(from("src/lib.rs", "/x.json"));
    }
}
