//! Links between the pages of this repository: every file and heading that a page links to is there. Addresses of the web are not
//! asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::markdown::{self, Link};
use crate::{say, source};

/// Page that links to every page beside it.
pub(crate) const INDEX: &str = "docs/README.md";

/// A page of the repository.
pub(crate) struct Page {
    /// Path from the root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// All pages, by their paths.
///
/// # Errors
/// A folder or page that cannot be read.
pub(crate) fn pages(root: &Path) -> Result<Vec<Page>> {
    let files = source::files(root, ".md")?;
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Page { path: file.strip_prefix(root).unwrap_or(&file).to_owned(), text })
    };
    files.into_iter().map(read).collect()
}

/// Whether every link leads somewhere and the index names every page of its folder; faults are printed.
///
/// # Errors
/// A page that cannot be read.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let pages = pages(checkout.root())?;
    let faults = faults(checkout.root(), &pages);
    for fault in &faults {
        say(fault);
    }
    let links: usize = pages.iter().map(|page| markdown::links(&page.text).len()).sum();
    say(format_args!("{links} links on {} pages, {} lead nowhere", pages.len(), faults.len()));
    Ok(faults.is_empty())
}

/// Links that lead nowhere, with file and line, and pages that the index leaves out.
fn faults(root: &Path, pages: &[Page]) -> Vec<String> {
    let anchors: BTreeMap<&Path, Vec<String>> = pages.iter().map(|page| (page.path.as_path(), anchors(page))).collect();
    let mut faults = Vec::new();
    for page in pages {
        for link in markdown::links(&page.text) {
            if let Some(reason) = fault(root, &anchors, page, &link) {
                faults.push(format!("{}:{}: `{}` {reason}", page.path.display(), link.line, link.target));
            }
        }
    }
    faults.extend(left_out(pages).into_iter().map(|page| {
        format!("{}: {INDEX} has no link to this page; add it to a table under `All pages`", page.display())
    }));
    faults
}

fn fault(root: &Path, anchors: &BTreeMap<&Path, Vec<String>>, page: &Page, link: &Link) -> Option<String> {
    if is_external(&link.target) {
        return None;
    }
    let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let path = match file {
        "" => page.path.clone(),
        file => match inside(&page.path, file) {
            Some(path) => path,
            None => return Some("leaves the repository".to_owned()),
        },
    };
    if !anchors.contains_key(path.as_path()) && !root.join(&path).exists() {
        return Some(format!("leads to {}, which is not there", path.display()));
    }
    match anchors.get(path.as_path()) {
        Some(found) if !anchor.is_empty() && !found.iter().any(|name| name == anchor) => {
            Some(format!("leads to a heading that {} does not have", path.display()))
        }
        _ => None,
    }
}

/// Whether a link leads to another place than this repository.
pub(crate) fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// Path from the root of a file that a page names from its own folder; `None` if it is outside.
pub(crate) fn inside(page: &Path, file: &str) -> Option<PathBuf> {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(file).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Names that links reach places of a page by.
fn anchors(page: &Page) -> Vec<String> {
    let ids = page.text.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    markdown::headings(&page.text).into_iter().map(|heading| heading.anchor).chain(ids).collect()
}

/// Pages in the folder of the index that it does not link to.
fn left_out(pages: &[Page]) -> Vec<&Path> {
    let index = Path::new(INDEX);
    let Some(page) = pages.iter().find(|page| page.path == index) else { return Vec::new() };
    let linked: Vec<PathBuf> =
        markdown::links(&page.text).iter().filter_map(|link| inside(index, link.target.split('#').next()?)).collect();
    let beside = pages.iter().map(|page| page.path.as_path()).filter(|path| path.parent() == index.parent());
    beside.filter(|path| *path != index && !linked.iter().any(|linked| linked == path)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Page, faults, inside};

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn paths_are_seen_from_the_page() {
        assert_eq!(inside(Path::new("docs/a.md"), "../README.md"), Some(PathBuf::from("README.md")));
        assert_eq!(inside(Path::new("docs/a.md"), "./images/b.svg"), Some(PathBuf::from("docs/images/b.svg")));
        assert_eq!(inside(Path::new("README.md"), "../a.md"), None);
        assert_eq!(inside(Path::new("README.md"), "/etc/a.md"), None);
    }

    #[test]
    fn dead_links_are_named_with_file_and_line() {
        // Files are those of this package, pages are those given.
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages = [
            page("a.md", "# Title\n\n[b](src/b.md#part) [c](Cargo.toml) [web](https://example.org/x)\n"),
            page("src/b.md", "# B\n\n<a id=\"part\"></a>\n[own](#b)\n[dead](#c)\n[up](../../up.md)\n[gone](gone.md)\n"),
        ];
        let expected = [
            "src/b.md:5: `#c` leads to a heading that src/b.md does not have",
            "src/b.md:6: `../../up.md` leaves the repository",
            "src/b.md:7: `gone.md` leads to src/gone.md, which is not there",
        ];
        assert_eq!(faults(root, &pages), expected);
    }

    #[test]
    fn the_index_names_every_page_of_its_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let pages = [page("docs/README.md", "[data](data.md)"), page("docs/data.md", ""), page("docs/mixing.md", "")];
        let found = faults(root, &pages);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("docs/mixing.md: docs/README.md has no link to this page"));
    }

    #[test]
    fn pages_of_this_repository_have_no_dead_link() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let pages = super::pages(root).unwrap();
        assert!(pages.len() > 30);
        assert_eq!(faults(root, &pages), Vec::<String>::new());
    }
}
