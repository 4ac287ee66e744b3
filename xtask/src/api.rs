//! The public items of each library, kept in docs/api so that a change of them shows in review.
//!
//! rustdoc of the installed toolchain gives them as JSON, an unstable output that
//! `RUSTC_BOOTSTRAP=1` unlocks. The variable is set for rustdoc alone, by a script of two lines:
//! many build scripts watch it, and cargo would build half of all dependencies again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::workspace::{self, Package};
use crate::{cargo, say};

const KEPT: &str = "docs/api";
const WRAPPER: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";
const KEYWORDS: [&str; 13] =
    ["async", "const", "enum", "fn", "macro", "mod", "static", "struct", "trait", "type", "union", "unsafe", "use"];

/// The listing of a library.
struct Listing {
    name: String,
    text: String,
}

/// Writes the listings to docs/api.
///
/// # Errors
/// The libraries do not build, or a file cannot be written.
pub(crate) fn write(checkout: &Checkout) -> Result<ExitCode> {
    let folder = checkout.root().join(KEPT);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let listings = make(checkout)?;
    for listing in &listings {
        let path = file(&folder, &listing.name);
        fs::write(&path, &listing.text).with_context(|| format!("cannot write {}", path.display()))?;
        say(listing.summary());
    }
    for path in leftovers(&folder, &listings)? {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether docs/api holds the listings as they are now; differences are printed.
///
/// # Errors
/// The libraries do not build.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let folder = checkout.root().join(KEPT);
    let listings = make(checkout)?;
    let mut same = true;
    for listing in &listings {
        let kept = fs::read_to_string(file(&folder, &listing.name)).unwrap_or_default();
        let changes = changes(&kept, &listing.text);
        for line in &changes {
            say(format_args!("{}: {line}", listing.name));
        }
        same &= changes.is_empty() && kept == listing.text;
        say(listing.summary());
    }
    for path in leftovers(&folder, &listings)? {
        say(format_args!("{}: no library has this name", path.display()));
        same = false;
    }
    if !same {
        say("`cargo xtask api` writes the listings; a change of them belongs into the same commit");
    }
    Ok(same)
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.txt"))
}

/// Kept listings of libraries that are gone.
fn leftovers(folder: &Path, listings: &[Listing]) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let expected: Vec<_> = listings.iter().map(|listing| file(folder, &listing.name)).collect();
    Ok(paths.into_iter().filter(|path| !expected.contains(path)).collect())
}

/// Lines that only one of two listings has.
fn changes(kept: &str, found: &str) -> Vec<String> {
    let only = |a: &str, b: &str, sign: char| {
        let other: Vec<_> = b.lines().collect();
        a.lines().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut lines = only(kept, found, '-');
    lines.extend(only(found, kept, '+'));
    lines
}

/// Makes the listings of all published libraries, with all features.
fn make(checkout: &Checkout) -> Result<Vec<Listing>> {
    let mut packages = workspace::packages(checkout)?;
    packages.retain(|package| package.published && package.has_library);
    let target = workspace::target_dir(checkout)?;
    document(checkout, &packages, &target)?;
    let folder = target.join("api");
    let mut command = cargo::cargo(checkout);
    command.args(["run", "--quiet", "--locked", "--package", "api-listing", "--"]).arg(&folder);
    for package in &packages {
        command.arg(target.join("doc").join(package.library_name()).with_extension("json"));
    }
    ensure!(cargo::status(&mut command)?.success(), "api-listing failed; the reason is above");
    packages.iter().map(|package| Listing::read(&folder, package)).collect()
}

/// Has rustdoc describe the libraries as JSON, in `target/doc`.
fn document(checkout: &Checkout, packages: &[Package], target: &Path) -> Result<()> {
    let folder = target.join("api");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let wrapper = folder.join("rustdoc");
    write_program(&wrapper, WRAPPER).with_context(|| format!("cannot write {}", wrapper.display()))?;
    let mut command = cargo::cargo(checkout);
    command.args(["doc", "--quiet", "--locked", "--no-deps", "--lib", "--all-features"]);
    command.args(["--package", "same-features"]);
    for package in packages {
        command.args(["--package", &package.name]);
    }
    command.env("RUSTDOC", &wrapper);
    command.env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json --cap-lints=allow");
    ensure!(cargo::status(&mut command)?.success(), "rustdoc failed; the reason is above");
    Ok(())
}

#[cfg(unix)]
fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, text)
}

impl Listing {
    fn read(folder: &Path, package: &Package) -> Result<Self> {
        let path = file(folder, &package.library_name());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { name: package.name.clone(), text })
    }

    fn summary(&self) -> String {
        let paths = item_paths(&self.text);
        let at_root = paths.iter().filter(|path| path.matches("::").count() == 1).count();
        // The first is the crate itself.
        format!("{:<20} {:>4} items, {at_root:>3} of them at the root", self.name, paths.len().saturating_sub(1))
    }
}

/// Paths of the items in a listing. Fields, variants, implementations and what a trait brings are
/// none of their own.
fn item_paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut implementor = None;
    for line in text.lines() {
        if line.starts_with("impl") {
            implementor = line.split_once(" for ").map(|(_, name)| format!("{}::", path_at_start(name)));
        } else if let Some(path) = item_path(line)
            && !implementor.as_ref().is_some_and(|name| path.starts_with(name))
        {
            paths.push(path);
        }
    }
    paths
}

fn item_path(line: &str) -> Option<String> {
    let mut rest = line;
    while let Some((_, after)) = rest.strip_prefix("#[").and_then(|rest| rest.split_once("] ")) {
        rest = after;
    }
    let mut rest = rest.strip_prefix("pub ")?;
    let mut is_item = false;
    while let Some((word, after)) = rest.split_once(' ')
        && KEYWORDS.contains(&word)
    {
        is_item = true;
        rest = after;
    }
    is_item.then(|| path_at_start(rest))
}

/// The path that a text starts with, without its generic arguments.
fn path_at_start(text: &str) -> String {
    let mut path = String::new();
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if c.is_alphanumeric() || ['_', ':', '!'].contains(&c) => path.push(c),
            _ => break,
        }
    }
    path.trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Listing, changes, item_path, item_paths};

    #[test]
    fn items_have_a_keyword() {
        let path = |line| item_path(line).unwrap_or_default();
        assert_eq!(path("pub fn a::B<'_>::c(&self) -> a::D"), "a::B::c");
        assert_eq!(path("#[non_exhaustive] pub enum a::E<T: b::C>"), "a::E");
        assert_eq!(path("pub const fn a::f() -> u8"), "a::f");
        assert_eq!(path("pub const a::N: usize"), "a::N");
        for line in ["pub a::B::field: u8", "pub a::E::Variant", "impl core::fmt::Display for a::B"] {
            assert_eq!(path(line), "", "{line}");
        }
    }

    #[test]
    fn what_a_trait_brings_is_no_item() {
        let text = "pub struct a::B<'a>\nimpl<'a> a::B<'a>\npub fn a::B<'a>::new()\nimpl a::T for a::B<'_>\n\
                    pub fn a::B<'_>::t(&self)\npub fn a::free()\n";
        assert_eq!(item_paths(text), ["a::B", "a::B::new", "a::free"]);
    }

    #[test]
    fn the_crate_is_no_item_of_its_own() {
        let text = "pub mod a\npub struct a::B\npub a::B::x: u8\npub fn a::B::new() -> Self\n".to_owned();
        let summary = Listing { name: "a".to_owned(), text }.summary();
        assert!(summary.ends_with("2 items,   1 of them at the root"), "{summary}");
    }

    #[test]
    fn a_change_is_a_line_gone_and_a_line_new() {
        assert_eq!(changes("pub fn a::f()\nx\n", "pub fn a::f(u8)\nx\n"), ["- pub fn a::f()", "+ pub fn a::f(u8)"]);
        assert!(changes("x\n", "x\n").is_empty());
    }
}
