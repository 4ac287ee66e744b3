//! Proves from `cargo tree` what the crates promise of what they depend on (docs/architecture).

use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::checkout::Checkout;
use crate::say;

/// Crates of the workspace by height: each may depend on lower ones only.
const LEVELS: [&[&str]; 7] = [
    &["simplemix-files", "simplemix-settings"],
    &["simplemix-data", "simplemix-mix", "simplemix-loss", "simplemix-model"],
    &["simplemix-eval"],
    &["simplemix-rollout", "simplemix-train"],
    &["simplemix-pipeline"],
    &["simplemix"],
    &["simplemix-cli"],
];

const LIBTORCH: &[&str] = &["tch", "torch-sys"];

/// What must not be in the tree of a crate, under any feature.
const WITHOUT: [(&str, &[&str]); 6] = [
    ("simplemix-files", LIBTORCH),
    ("simplemix-data", LIBTORCH),
    ("simplemix-mix", LIBTORCH),
    ("simplemix-mix", &["arrow", "arrow-array", "parquet", "object_store"]),
    ("simplemix-eval", LIBTORCH),
    ("xtask", LIBTORCH),
];

/// Whether every promise is kept; those broken are printed.
///
/// # Errors
/// Cargo cannot tell the tree.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let mut kept = true;
    for (package, banned) in WITHOUT {
        kept &= check_one(checkout, package, banned)?;
    }
    for (height, packages) in LEVELS.iter().enumerate() {
        let as_high: Vec<&str> = LEVELS[height..].concat();
        for package in *packages {
            kept &= check_one(checkout, package, &as_high)?;
        }
    }
    Ok(kept)
}

fn check_one(checkout: &Checkout, package: &str, banned: &[&str]) -> Result<bool> {
    let mut command: Command = cargo::cargo(checkout);
    command.args(["tree", "--locked", "--package", package, "--all-features"]);
    command.args(["--edges", "normal,build", "--target", "all", "--prefix", "none", "--format", "{p}"]);
    let tree = cargo::output(&mut command)?;
    let found = names_below(&tree).filter(|name| banned.contains(name)).collect::<Vec<_>>();
    if let Some(name) = found.first() {
        say(format_args!("{package} depends on {name}: see `cargo tree -p {package} -i {name}`"));
    }
    Ok(found.is_empty())
}

/// The names in `cargo tree --prefix none --format {p}`, without the first, whose tree it is.
fn names_below(tree: &str) -> impl Iterator<Item = &str> {
    tree.lines().skip(1).filter_map(|line| line.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::names_below;

    #[test]
    fn reads_names_from_a_tree() {
        let tree = "simplemix-mix v0.1.0 (/w/crates/simplemix-mix)\nserde v1.0.228\n\
                    serde_derive v1.0.228 (proc-macro)\nserde v1.0.228 (*)\n";
        assert_eq!(names_below(tree).collect::<Vec<_>>(), ["serde", "serde_derive", "serde"]);
    }
}
