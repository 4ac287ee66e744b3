//! Licences of all dependencies, on all platforms, against the list in deny.toml.
//!
//! The file has the format of cargo-deny, which reads it too. This check needs only cargo, so it runs
//! everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::cargo;
use crate::checkout::Checkout;
use crate::{say, workspace};

/// Licences that deny.toml allows: for every crate, and for single crates by name.
#[derive(Default)]
struct Allowed {
    all: Vec<String>,
    exceptions: BTreeMap<String, Vec<String>>,
}

/// Whether every dependency may be used; those that may not are printed.
///
/// # Errors
/// The list or cargo's metadata cannot be read.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let path = checkout.root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed = Allowed::parse(&text).with_context(|| path.display().to_string())?;

    let mut all_good = true;
    let mut used = BTreeSet::new();
    for manifest in ["Cargo.toml"].into_iter().chain(workspace::OUTSIDE) {
        let mut command = cargo::cargo(checkout);
        command.args(["metadata", "--format-version", "1", "--locked", "--all-features", "--manifest-path", manifest]);
        let metadata: Value = serde_json::from_str(&cargo::output(&mut command)?)?;
        for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
            let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
            let (name, version) = (text("name"), text("version"));
            if !used.insert((name.clone(), version.clone())) {
                continue;
            }
            if let Err(error) = allowed.check(&name, package["license"].as_str()) {
                say(format_args!("{name} {version}: {error:#}"));
                all_good = false;
            }
        }
    }
    for name in allowed.exceptions.keys().filter(|name| !used.iter().any(|(used, _)| used == *name)) {
        say(format_args!("deny.toml: no dependency is called {name}; remove its exception"));
        all_good = false;
    }
    say(format_args!("{} packages", used.len()));
    Ok(all_good)
}

impl Allowed {
    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let licences = table.get("licenses").context("no [licenses]")?;
        let mut allowed = Self { all: strings(licences.get("allow"))?, ..Self::default() };
        for exception in licences.get("exceptions").and_then(toml::Value::as_array).into_iter().flatten() {
            let name = exception.get("crate").and_then(toml::Value::as_str);
            let name = name.context("an exception without `crate`")?;
            allowed.exceptions.insert(name.to_owned(), strings(exception.get("allow"))?);
        }
        Ok(allowed)
    }

    fn check(&self, name: &str, licence: Option<&str>) -> Result<()> {
        let licence = licence.context("has no licence")?;
        let expression = Expression::parse_mode(licence, ParseMode::LAX)
            .map_err(|error| anyhow::anyhow!("`{licence}` is not an SPDX expression: {}", error.reason))?;
        let own = self.exceptions.get(name);
        let allowed = expression.evaluate(|requirement: &LicenseReq| {
            let requirement = requirement.to_string();
            self.all.contains(&requirement) || own.is_some_and(|own| own.contains(&requirement))
        });
        ensure!(allowed, "`{licence}` is not in the allow-list of deny.toml");
        Ok(())
    }
}

fn strings(value: Option<&toml::Value>) -> Result<Vec<String>> {
    let values = value.and_then(toml::Value::as_array).context("no `allow`")?;
    values
        .iter()
        .map(|value| value.as_str().map(str::to_owned).context("`allow` has an element that is not a string"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    const LIST: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
exceptions = [{ crate = "odd", allow = ["CDLA-Permissive-2.0"] }]
"#;

    fn passes(name: &str, licence: &str) -> bool {
        Allowed::parse(LIST).unwrap().check(name, Some(licence)).is_ok()
    }

    #[test]
    fn or_needs_one_and_needs_all() {
        assert!(passes("a", "MIT"));
        assert!(passes("a", "GPL-3.0-only OR MIT"));
        assert!(!passes("a", "GPL-3.0-only AND MIT"));
        assert!(passes("a", "(GPL-3.0-only OR MIT) AND Apache-2.0"));
        assert!(!passes("a", "GPL-3.0-only"));
    }

    #[test]
    fn the_old_slash_means_or() {
        assert!(passes("a", "MIT/Unlicense"));
    }

    #[test]
    fn with_is_a_licence_of_its_own() {
        assert!(passes("a", "Apache-2.0 WITH LLVM-exception"));
        assert!(!passes("a", "MIT WITH LLVM-exception"));
    }

    #[test]
    fn exceptions_hold_for_one_crate() {
        assert!(passes("odd", "CDLA-Permissive-2.0"));
        assert!(!passes("even", "CDLA-Permissive-2.0"));
    }

    #[test]
    fn no_licence_or_no_expression_is_refused() {
        let allowed = Allowed::parse(LIST).unwrap();
        assert!(allowed.check("a", None).is_err());
        assert!(allowed.check("a", Some("as you like")).is_err());
    }
}
