//! Each crate with no, the default and all of its features, warnings denied.
//!
//! Cargo resolves the features of dependencies for the packages that a command names, so that each
//! crate alone would have most of its dependencies built again. `same-features` beside it keeps
//! them as they are in a build of the whole workspace.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::workspace::{self, Package};
use crate::{cargo, say};

const SAME_FEATURES: &str = "same-features";

/// Packages that a crate is checked beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// `same-features`: dependencies are built once.
    SameFeatures,
    /// None: dependencies have no feature that the crate or its dependencies do not ask for.
    Nothing,
}

/// Whether every crate passes clippy with each set of its features; all are tried.
///
/// # Errors
/// Cargo cannot be run.
pub(crate) fn check(checkout: &Checkout, beside: Beside) -> Result<bool> {
    let packages = workspace::packages(checkout)?;
    let mut passed = beside == Beside::Nothing || is_complete(&packages)?;
    for package in packages.iter().filter(|package| package.published) {
        for flag in package.selections() {
            say(format_args!("{} {}", package.name, flag.unwrap_or("with its default features")));
            let mut command = cargo::cargo(checkout);
            command.args(["clippy", "--quiet", "--locked", "--package", &package.name]).args(flag);
            if beside == Beside::SameFeatures {
                command.args(["--package", SAME_FEATURES]);
            }
            passed &= cargo::status(command.args(["--", "-D", "warnings"]))?.success();
        }
    }
    Ok(passed)
}

/// Whether `same-features` depends on all that the crates depend on, with the same features; what
/// differs is printed.
fn is_complete(packages: &[Package]) -> Result<bool> {
    let same = packages.iter().find(|package| package.name == SAME_FEATURES);
    let same = same.with_context(|| format!("no package {SAME_FEATURES} in the workspace"))?;
    let have = third_party(same)?;
    let mut wanted = BTreeSet::new();
    for package in packages.iter().filter(|package| package.published) {
        wanted.extend(third_party(package)?);
    }
    let manifest = same.folder.join("Cargo.toml");
    for missing in wanted.difference(&have) {
        say(format_args!("{}: add {missing}, which a crate depends on", manifest.display()));
    }
    for unused in have.difference(&wanted) {
        say(format_args!("{}: remove {unused}, which no crate depends on", manifest.display()));
    }
    Ok(have == wanted)
}

/// Name, version and features of each dependency from a registry, for tests and builds too.
fn third_party(package: &Package) -> Result<BTreeSet<String>> {
    let dependencies = package.metadata["dependencies"].as_array();
    let dependencies = dependencies.with_context(|| format!("{} has no dependencies", package.name))?;
    Ok(dependencies.iter().filter(|dependency| !dependency["source"].is_null()).map(describe).collect())
}

fn describe(dependency: &Value) -> String {
    let text = |key: &str| dependency[key].as_str().unwrap_or_default().to_owned();
    let features = dependency["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut features: BTreeSet<&str> = features.collect();
    if dependency["uses_default_features"] == true {
        features.insert("default");
    }
    let features = features.into_iter().collect::<Vec<_>>().join(", ");
    format!("{} {} [{features}]", text("name"), text("req"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::describe;

    #[test]
    fn a_dependency_is_its_version_and_features() {
        let entry = json!({ "name": "a", "req": "^1", "features": ["z", "b"], "uses_default_features": true });
        assert_eq!(describe(&entry), "a ^1 [b, default, z]");
        let entry = json!({ "name": "a", "req": "^1", "features": [], "uses_default_features": false });
        assert_eq!(describe(&entry), "a ^1 []");
    }
}
