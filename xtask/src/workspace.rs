//! The packages of this workspace, as cargo's metadata tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cargo;
use crate::checkout::Checkout;

/// Manifests of crates outside the workspace, each with a lock file of its own.
pub(crate) const OUTSIDE: [&str; 2] = ["fuzz/Cargo.toml", "python/Cargo.toml"];

/// A member of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// Can be published; helpers of this workspace cannot.
    pub(crate) published: bool,
    pub(crate) has_library: bool,
    /// Features by name, each with the features that it turns on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// The whole entry in cargo's metadata.
    pub(crate) metadata: Value,
}

/// All members, sorted by name.
///
/// # Errors
/// Cargo cannot tell its metadata.
pub(crate) fn packages(checkout: &Checkout) -> Result<Vec<Package>> {
    parse(&metadata(checkout)?)
}

/// The folder that cargo builds in.
///
/// # Errors
/// Cargo cannot tell its metadata.
pub(crate) fn target_dir(checkout: &Checkout) -> Result<PathBuf> {
    let metadata = metadata(checkout)?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target folder")
}

fn metadata(checkout: &Checkout) -> Result<Value> {
    let mut command = cargo::cargo(checkout);
    command.args(["metadata", "--format-version", "1", "--locked", "--no-deps"]);
    Ok(serde_json::from_str(&cargo::output(&mut command)?)?)
}

fn parse(metadata: &Value) -> Result<Vec<Package>> {
    let entries = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut packages = entries.iter().map(Package::parse).collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

impl Package {
    fn parse(entry: &Value) -> Result<Self> {
        let name = entry["name"].as_str().context("a package without a name")?.to_owned();
        let manifest = entry["manifest_path"].as_str().with_context(|| format!("{name} has no manifest"))?;
        let folder = Path::new(manifest).parent().with_context(|| format!("{manifest} has no folder"))?.to_owned();
        let published = entry["publish"].as_array().is_none_or(|registries| !registries.is_empty());
        let kinds = |target: &Value| target["kind"].as_array().cloned().unwrap_or_default();
        let targets = entry["targets"].as_array().with_context(|| format!("{name} has no targets"))?;
        let has_library = targets.iter().any(|target| kinds(target).contains(&Value::from("lib")));
        let features = serde_json::from_value(entry["features"].clone())
            .with_context(|| format!("the features of {name} have another form"))?;
        Ok(Self { name, folder, published, has_library, features, metadata: entry.clone() })
    }

    /// The name of the library in Rust.
    pub(crate) fn library_name(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Name and version, as packages are named.
    pub(crate) fn versioned_name(&self) -> Result<String> {
        let version = self.metadata["version"].as_str().with_context(|| format!("{} has no version", self.name))?;
        Ok(format!("{}-{version}", self.name))
    }

    /// The features that `--no-default-features`, no flag and `--all-features` turn on, each set
    /// once, with the flag for it.
    pub(crate) fn selections(&self) -> Vec<Option<&'static str>> {
        let all = self.features.keys().map(String::as_str).filter(|name| *name != "default").collect();
        let default = self.reached("default");
        let mut sets: Vec<BTreeSet<&str>> = Vec::new();
        let mut flags = Vec::new();
        let each = [(Some("--no-default-features"), BTreeSet::new()), (None, default), (Some("--all-features"), all)];
        for (flag, set) in each {
            if !sets.contains(&set) {
                sets.push(set);
                flags.push(flag);
            }
        }
        flags
    }

    /// The features that `name` turns on, without itself.
    fn reached(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            for next in self.features.get(name).into_iter().flatten() {
                if self.features.contains_key(next) && found.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Package, parse};

    fn package(features: serde_json::Value) -> Package {
        let metadata = json!({ "packages": [{
            "name": "a", "manifest_path": "/w/a/Cargo.toml", "publish": null, "features": features,
            "targets": [{ "kind": ["lib"] }, { "kind": ["test"] }],
        }] });
        parse(&metadata).unwrap().remove(0)
    }

    #[test]
    fn reads_what_cargo_tells() {
        let found = package(json!({}));
        assert_eq!(found.folder, std::path::Path::new("/w/a"));
        assert!(found.published && found.has_library);
    }

    #[test]
    fn each_set_of_features_is_selected_once() {
        let none = Some("--no-default-features");
        let all = Some("--all-features");
        assert_eq!(package(json!({})).selections(), [none]);
        assert_eq!(package(json!({ "a": [] })).selections(), [none, all]);
        assert_eq!(package(json!({ "default": ["a"], "a": ["dep:x"] })).selections(), [none, None]);
        assert_eq!(package(json!({ "default": ["a"], "a": ["b"], "b": [], "c": [] })).selections(), [none, None, all]);
    }
}
