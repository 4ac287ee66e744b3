//! Each crate with no, the default and all of its features, warnings denied.
//!
//! Cargo resolves the features of dependencies for the packages that a command names, so that each
//! crate alone would have most of its dependencies built again. `same-features` beside it keeps
//! them as they are in a build of the whole workspace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::workspace::{self, Package};
use crate::{cargo, say};

const SAME_FEATURES: &str = "same-features";

/// Features by name and version of a dependency.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

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

/// Whether `same-features` depends on all that the crates depend on, with at least their features;
/// what differs is printed. It may name more features, which a feature of a crate turns on.
fn is_complete(packages: &[Package]) -> Result<bool> {
    let same = packages.iter().find(|package| package.name == SAME_FEATURES);
    let same = same.with_context(|| format!("no package {SAME_FEATURES} in the workspace"))?;
    let have = third_party(same)?;
    let mut wanted = Dependencies::new();
    for package in packages.iter().filter(|package| package.published) {
        for (dependency, features) in third_party(package)? {
            wanted.entry(dependency).or_default().extend(features);
        }
    }
    let differences = differences(&have, &wanted);
    for difference in &differences {
        say(format_args!("{}: {difference}", same.folder.join("Cargo.toml").display()));
    }
    Ok(differences.is_empty())
}

fn differences(have: &Dependencies, wanted: &Dependencies) -> Vec<String> {
    let mut found = Vec::new();
    for (dependency, features) in wanted {
        match have.get(dependency) {
            None => found.push(format!("add {dependency}, which a crate depends on")),
            Some(have) => {
                let missing = features.difference(have);
                found.extend(missing.map(|feature| format!("add the feature {feature} of {dependency}")));
            }
        }
    }
    let unused = have.keys().filter(|dependency| !wanted.contains_key(*dependency));
    found.extend(unused.map(|dependency| format!("remove {dependency}, which no crate depends on")));
    found
}

/// Name and version of each dependency from a registry, for tests and builds too, with its features.
fn third_party(package: &Package) -> Result<Dependencies> {
    let dependencies = package.metadata["dependencies"].as_array();
    let dependencies = dependencies.with_context(|| format!("{} has no dependencies", package.name))?;
    Ok(dependencies.iter().filter(|dependency| !dependency["source"].is_null()).map(describe).collect())
}

fn describe(dependency: &Value) -> (String, BTreeSet<String>) {
    let text = |key: &str| dependency[key].as_str().unwrap_or_default().to_owned();
    let features = dependency["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut features: BTreeSet<String> = features.map(str::to_owned).collect();
    if dependency["uses_default_features"] == true {
        features.insert("default".to_owned());
    }
    (format!("{} {}", text("name"), text("req")), features)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Dependencies, describe, differences};

    fn dependencies(name: &str, features: &[&str]) -> Dependencies {
        let entry = json!({ "name": name, "req": "^1", "features": features, "uses_default_features": true });
        Dependencies::from([describe(&entry)])
    }

    #[test]
    fn more_features_are_allowed_and_fewer_are_not() {
        let (few, many) = (dependencies("a", &["b"]), dependencies("a", &["b", "c"]));
        assert!(differences(&many, &few).is_empty());
        assert_eq!(differences(&few, &many), ["add the feature c of a ^1"]);
    }

    #[test]
    fn the_lists_name_the_same_dependencies() {
        let found = differences(&dependencies("a", &[]), &dependencies("b", &[]));
        assert_eq!(found, ["add b ^1, which a crate depends on", "remove a ^1, which no crate depends on"]);
    }
}
