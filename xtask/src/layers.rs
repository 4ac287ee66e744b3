//! Checks the crates against the table in docs/ARCHITECTURE.md.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::checkout::Checkout;
use crate::page::{names, table};
use crate::source::{self, Source};
use crate::workspace::{self, Package};
use crate::{cargo, say};

const PAGE: &str = "docs/ARCHITECTURE.md";
const COLUMNS: [&str; 5] = ["crate", "layer", "libtorch", "never depends on", "`unsafe` in"];
const LIBTORCH: [&str; 2] = ["tch", "torch-sys"];
/// Ways to write to the terminal; clippy refuses the macros, which `#[expect]` can waive.
const PRINTING: [&str; 7] = ["print!", "println!", "eprint!", "eprintln!", "dbg!", "io::stdout", "io::stderr"];

/// A row of the table.
struct Stated {
    name: String,
    layer: u32,
    libtorch: Libtorch,
    never: Vec<String>,
    unsafe_in: Vec<String>,
}

/// Whether a crate brings libtorch with it.
#[derive(Debug, PartialEq, Eq)]
enum Libtorch {
    No,
    Yes,
    With { feature: String },
}

/// Whether the table is true; wrong rows are printed.
///
/// # Errors
/// The page has no such table, or cargo cannot tell the tree.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let path = checkout.root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stated = rows(&page).context(PAGE)?;
    let packages = workspace::packages(checkout)?;
    let mut wrong = differences(&stated, &packages);
    for row in &stated {
        if let Some(package) = packages.iter().find(|package| package.name == row.name) {
            wrong.extend(check_tree(checkout, row, &stated)?);
            wrong.extend(check_libtorch(checkout, row, package)?);
            wrong.extend(check_source(row, package)?);
        }
    }
    for line in &wrong {
        say(format_args!("{PAGE}: {line}"));
    }
    say(format_args!("{} crates", stated.len()));
    Ok(wrong.is_empty())
}

fn rows(page: &str) -> Result<Vec<Stated>> {
    table(page, "crates", &COLUMNS)?.iter().map(|cells| Stated::parse(cells)).collect()
}

impl Stated {
    fn parse(cells: &[String]) -> Result<Self> {
        let [name, layer, libtorch, never, unsafe_in] = cells else { bail!("{} cells in a row", cells.len()) };
        let layer = layer.parse().with_context(|| format!("{name}: the layer `{layer}` is not a number"))?;
        let libtorch = Libtorch::parse(libtorch).with_context(|| name.clone())?;
        Ok(Self { name: name.clone(), layer, libtorch, never: names(never), unsafe_in: names(unsafe_in) })
    }
}

impl Libtorch {
    fn parse(cell: &str) -> Result<Self> {
        match cell {
            "no" => Ok(Self::No),
            "yes" => Ok(Self::Yes),
            _ => {
                let feature = cell.strip_prefix("with `").and_then(|rest| rest.strip_suffix('`'));
                let feature = feature.with_context(|| format!("`{cell}`, expected yes, no or with `FEATURE`"))?;
                Ok(Self::With { feature: feature.to_owned() })
            }
        }
    }
}

/// Crates missing from the table, and rows without a crate.
fn differences(stated: &[Stated], packages: &[Package]) -> Vec<String> {
    let missing = packages
        .iter()
        .filter(|package| package.published && !stated.iter().any(|row| row.name == package.name))
        .map(|package| format!("{} is not in the table", package.name));
    let gone = stated
        .iter()
        .filter(|row| !packages.iter().any(|package| package.name == row.name))
        .map(|row| format!("{} is in the table and not in the workspace", row.name));
    missing.chain(gone).collect()
}

/// Dependencies under any feature that the layer or the row forbids.
fn check_tree(checkout: &Checkout, row: &Stated, stated: &[Stated]) -> Result<Vec<String>> {
    let tree = tree(checkout, &row.name, &["--all-features"])?;
    let mut wrong = Vec::new();
    for other in stated.iter().filter(|other| other.layer >= row.layer && tree.contains(&other.name)) {
        wrong.push(format!("{} depends on {}, which is not below it", row.name, other.name));
    }
    for name in row.never.iter().filter(|name| tree.contains(name)) {
        wrong.push(format!("{} depends on {name}: see `cargo tree -p {} -i {name}`", row.name, row.name));
    }
    Ok(wrong)
}

fn check_libtorch(checkout: &Checkout, row: &Stated, package: &Package) -> Result<Vec<String>> {
    let needs = |flags: &[&str]| -> Result<bool> {
        let tree = tree(checkout, &row.name, flags)?;
        Ok(LIBTORCH.iter().any(|name| tree.iter().any(|found| found == name)))
    };
    let wrong = match &row.libtorch {
        Libtorch::No => needs(&["--all-features"])?.then(|| "depends on libtorch".to_owned()),
        Libtorch::Yes => {
            (!needs(&["--no-default-features"])?).then(|| "does not depend on libtorch without features".to_owned())
        }
        Libtorch::With { feature } => {
            let others: Vec<_> = package
                .features
                .keys()
                .filter(|name| ![feature.as_str(), "default"].contains(&name.as_str()))
                .collect();
            let others = others.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
            let without = needs(&["--no-default-features", "--features", &others])?;
            let with = needs(&["--no-default-features", "--features", feature])?;
            (without || !with).then(|| format!("does not depend on libtorch just with the feature `{feature}`"))
        }
    };
    Ok(wrong.into_iter().map(|wrong| format!("{} {wrong}", row.name)).collect())
}

/// `unsafe` in other files than those named, and libraries that print.
fn check_source(row: &Stated, package: &Package) -> Result<Vec<String>> {
    let root = package.folder.join("src");
    let mut unsafe_in = Vec::new();
    let mut wrong = Vec::new();
    for path in source::rust_files(&root)? {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let source = Source::read(&path)?;
        if source.lines_with("unsafe").next().is_some() {
            unsafe_in.push(name.clone());
        }
        if package.has_library {
            let printing = |word: &&str| source.lines_with(word).next();
            let printed = PRINTING.iter().find_map(|word| Some((printing(word)?, word)));
            wrong.extend(printed.map(|(line, word)| format!("{}: {name}:{line} prints (`{word}`)", row.name)));
        }
    }
    if unsafe_in.iter().any(|file| !row.unsafe_in.contains(file)) || unsafe_in.len() != row.unsafe_in.len() {
        wrong.push(format!("{}: `unsafe` is in [{}], not {:?}", row.name, unsafe_in.join(", "), row.unsafe_in));
    }
    Ok(wrong)
}

/// Names of all that a package depends on, to build and to run.
fn tree(checkout: &Checkout, package: &str, features: &[&str]) -> Result<Vec<String>> {
    let mut command = cargo::cargo(checkout);
    command.args(["tree", "--locked", "--package", package, "--edges", "normal,build", "--target", "all"]);
    command.args(["--prefix", "none", "--format", "{p}"]).args(features);
    Ok(names_below(&cargo::output(&mut command)?))
}

/// The names in `cargo tree --prefix none --format {p}`, without the first, whose tree it is.
fn names_below(tree: &str) -> Vec<String> {
    tree.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Libtorch, names_below, rows};

    #[test]
    fn reads_names_from_a_tree() {
        let tree = "simplemix-mix v0.1.0 (/w/crates/simplemix-mix)\nserde v1.0.228\n\
                    serde_derive v1.0.228 (proc-macro)\nserde v1.0.228 (*)\n";
        assert_eq!(names_below(tree), ["serde", "serde_derive", "serde"]);
    }

    #[test]
    fn reads_rows_of_the_page() {
        let head = "<!-- xtask: crates -->\n| crate | layer | libtorch | never depends on | `unsafe` in |\n\
                    | --- | --- | --- | --- | --- |\n";
        let found = rows(&format!("{head}| a | 2 | with `local` | arrow, parquet | `x.rs` |\n")).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].layer), ("a", 2));
        assert_eq!(found[0].libtorch, Libtorch::With { feature: "local".to_owned() });
        assert_eq!(found[0].never, ["arrow", "parquet"]);
        assert!(rows(&format!("{head}| a | 2 | perhaps | none | none |\n")).is_err());
        assert!(rows(&format!("{head}| a | low | no | none | none |\n")).is_err());
    }
}
