//! List of everything that a packed program consists of, as CycloneDX 1.5 JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cargo;
use crate::checkout::Checkout;

/// The list for `simplemix` with all features on the platform `target`, with the libtorch that is packed beside it.
///
/// # Errors
/// Cargo's metadata or Cargo.lock cannot be read.
pub(crate) fn make(checkout: &Checkout, target: &str, libtorch: &str) -> Result<Value> {
    let mut command = cargo::cargo(checkout);
    command.args(["metadata", "--format-version", "1", "--locked", "--features", "simplemix-cli/full"]);
    command.args(["--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&cargo::output(&mut command)?)?;
    // The metadata has what any member of the workspace asks of a package; the tree has what this program does.
    let mut command = cargo::cargo(checkout);
    command.args(["tree", "--locked", "--package", "simplemix-cli", "--features", "full", "--target", target]);
    command.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let tree = cargo::output(&mut command)?;
    let path = checkout.root().join("Cargo.lock");
    let lock = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    list(&metadata, &linked(&tree), &checksums(&lock)?, libtorch)
}

/// Name and version of each package of a tree: `serde v1.0.0`, `serde_derive v1.0.0 (proc-macro)`.
fn linked(tree: &str) -> BTreeSet<(&str, &str)> {
    let package = |line| {
        let mut words = str::split_whitespace(line);
        Some((words.next()?, words.next()?.trim_start_matches('v')))
    };
    tree.lines().filter_map(package).collect()
}

/// SHA-256 of each package from a registry, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let table: toml::Table = lock.parse().context("Cargo.lock")?;
    let packages = table.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let entry = |package| Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?));
    Ok(packages.iter().filter_map(entry).collect())
}

fn list(
    metadata: &Value,
    linked: &BTreeSet<(&str, &str)>,
    checksums: &BTreeMap<(String, String), String>,
    libtorch: &str,
) -> Result<Value> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let is_linked = |package: &Value| {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        linked.contains(&(text("name"), text("version")))
    };
    let packages: BTreeMap<&str, &Value> = packages
        .iter()
        .filter(|package| is_linked(package))
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let links = links(metadata)?;
    let root = packages.iter().find(|(_, package)| package["name"] == "simplemix-cli").map(|(id, _)| *id);
    let root = root.context("cargo metadata does not name simplemix-cli")?;
    let purl = |id: &str| packages.get(id).map(|package| url(package));
    let mut components: Vec<Value> =
        packages.iter().filter(|(id, _)| **id != root).map(|(_, package)| component(package, checksums)).collect();
    let torch = format!("pkg:generic/libtorch@{libtorch}");
    components.push(json!({ "type": "library", "bom-ref": torch, "name": "libtorch", "version": libtorch,
                            "purl": torch, "licenses": [{ "license": { "id": "BSD-3-Clause" } }] }));
    let mut dependencies = Vec::new();
    for (id, package) in &packages {
        let mut on: Vec<String> = links.get(id).into_iter().flatten().filter_map(|id| purl(id)).collect();
        if package["name"] == "torch-sys" {
            on.push(torch.clone());
        }
        dependencies.push(json!({ "ref": url(package), "dependsOn": on }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(packages[root], checksums) },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The packages that each package is linked with, by id: without those for its tests or its build script.
fn links(metadata: &Value) -> Result<BTreeMap<&str, Vec<&str>>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata resolves nothing")?;
    let is_linked = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    Ok(nodes
        .iter()
        .filter_map(|node| {
            let all = node["deps"].as_array()?.iter().filter(is_linked);
            Some((node["id"].as_str()?, all.filter_map(|dependency| dependency["pkg"].as_str()).collect()))
        })
        .collect())
}

fn url(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let kind = if text("name") == "simplemix-cli" { "application" } else { "library" };
    let mut entry = json!({ "type": kind, "bom-ref": url(package), "name": text("name"), "version": text("version"),
                            "purl": url(package) });
    if let Some(licence) = package["license"].as_str() {
        // The old slash is no SPDX expression.
        entry["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(hash) = checksums.get(&(text("name"), text("version"))) {
        entry["hashes"] = json!([{ "alg": "SHA-256", "content": hash }]);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_its_hash() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let on = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": Vec::from(["simplemix-cli", "torch-sys", "dev", "far", "of-another"].map(package)),
            "resolve": { "nodes": [
                { "id": "simplemix-cli", "deps": [on("torch-sys", Value::Null), on("dev", json!("dev"))] },
                { "id": "torch-sys", "deps": [on("far", Value::Null), on("of-another", Value::Null)] },
                { "id": "far", "deps": [] },
            ] },
        });
        let tree = "simplemix-cli v1.0.0 (/w/cli)\ntorch-sys v1.0.0\nfar v1.0.0 (proc-macro)\n\nfar v1.0.0 (*)";
        let lock = "[[package]]\nname = \"far\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let list = list(&metadata, &linked(tree), &checksums(lock).unwrap(), "2.11.0").unwrap();
        let names: Vec<&str> =
            list["components"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["far", "torch-sys", "libtorch"]);
        assert_eq!(list["components"][0]["hashes"], json!([{ "alg": "SHA-256", "content": "abc" }]));
        assert_eq!(list["components"][0]["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(list["metadata"]["component"]["name"], "simplemix-cli");
        let torch = list["dependencies"].as_array().unwrap().iter().find(|d| d["ref"] == "pkg:cargo/torch-sys@1.0.0");
        // Another member asks torch-sys for a feature that the program is built without.
        assert_eq!(torch.unwrap()["dependsOn"], json!(["pkg:cargo/far@1.0.0", "pkg:generic/libtorch@2.11.0"]));
    }

    #[test]
    fn the_program_has_a_list_without_loose_ends() {
        let list = make(&Checkout::find(), "x86_64-unknown-linux-gnu", "2.11.0").unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let components = list["components"].as_array().unwrap();
        let root = text(&list["metadata"]["component"]["bom-ref"]);
        let mut listed: Vec<String> = components.iter().map(|component| text(&component["bom-ref"])).collect();
        listed.push(root.clone());
        let dependencies = list["dependencies"].as_array().unwrap();
        let on = |entry: &Value| entry["dependsOn"].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        let mut needed: Vec<String> = dependencies.iter().flat_map(on).collect();
        needed.push(root);
        // Each is there once, and something needs it.
        for names in [&mut listed, &mut needed] {
            names.sort();
        }
        needed.dedup();
        assert_eq!(listed, needed);
        let has = |name: &str| listed.iter().any(|url| url.starts_with(&format!("pkg:cargo/{name}@")));
        assert!(has("tch") && has("parquet") && !has("criterion") && !has("proptest") && !has("xtask"));
        assert!(components.iter().all(|component| component["licenses"].is_array()), "a package without a licence");
    }
}
