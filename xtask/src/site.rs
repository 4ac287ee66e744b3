//! The documentation as a static site: an mdBook of the README and the pages in docs/, with rustdoc beside it.
//!
//! The order of chapters is that of the tables under `All pages` in docs/README.md. Pages stay as they are in the repository: a link to
//! a file that is no chapter goes to the repository on the web, and a link to a crate to its rustdoc.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::links::{self, INDEX, Page};
use crate::workspace::{self, Package};
use crate::{cargo, markdown, say, source};

/// Release of mdBook, installed below the folder that cargo builds in.
const MDBOOK: &str = "0.5.4";

/// Pages outside of docs/ that are chapters, after those of the index.
const LAST: [&str; 3] = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];

/// Folder of rustdoc in the site.
const API: &str = "api";

/// Builds the site into `target/site` and checks its links.
///
/// # Errors
/// mdBook cannot be installed, or a file cannot be read or written.
pub(crate) fn run(checkout: &Checkout, with_api: bool) -> Result<ExitCode> {
    if !links::check(checkout)? {
        return Ok(ExitCode::FAILURE);
    }
    let target = workspace::target_dir(checkout)?;
    let site = target.join("site");
    let mdbook = mdbook(checkout, &target)?;
    let book = Book::read(checkout, with_api)?;
    let folder = target.join("site-source");
    for folder in [&folder, &site] {
        empty(folder)?;
    }
    book.write(checkout.root(), &folder)?;
    let status = cargo::status(Command::new(mdbook).arg("build").arg(&folder).arg("--dest-dir").arg(&site))?;
    ensure!(status.success(), "mdBook failed; the reason is above");
    if with_api {
        document(checkout, &target, &site.join(API))?;
    }
    let faults = faults(&site)?;
    for fault in &faults {
        say(fault);
    }
    let index = site.join("index.html");
    say(format_args!("{} chapters, {} dead links: {}", book.chapters.len(), faults.len(), index.display()));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program, of the pinned release.
fn mdbook(checkout: &Checkout, target: &Path) -> Result<PathBuf> {
    let tools = target.join("tools");
    let program = tools.join("bin/mdbook");
    let version = Command::new(&program).arg("--version").output();
    let is_there = version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(MDBOOK));
    if !is_there {
        say(format_args!("installing mdBook {MDBOOK} into {}", tools.display()));
        let mut command = cargo::cargo(checkout);
        command.args(["install", "mdbook", "--version", MDBOOK, "--locked"]);
        command.args(["--no-default-features", "--features", "search", "--force", "--root"]).arg(&tools);
        ensure!(cargo::status(&mut command)?.success(), "mdBook {MDBOOK} cannot be installed; the reason is above");
    }
    Ok(program)
}

/// Makes a folder anew.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes rustdoc of all crates and copies it.
fn document(checkout: &Checkout, target: &Path, folder: &Path) -> Result<()> {
    let mut command = cargo::cargo(checkout);
    command.args(["doc", "--workspace", "--no-deps", "--all-features", "--locked"]);
    ensure!(cargo::status(&mut command)?.success(), "rustdoc failed; the reason is above");
    copy_folder(&target.join("doc"), folder)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// A group of chapters.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    title: String,
    pages: Vec<PathBuf>,
}

/// The chapters with their order, and where links lead that leave them.
struct Book {
    parts: Vec<Part>,
    chapters: BTreeMap<PathBuf, String>,
    /// Address of the repository on the web.
    repository: String,
    /// Libraries by the folders of their crates; none if the site has no rustdoc.
    libraries: BTreeMap<PathBuf, String>,
}

impl Book {
    fn read(checkout: &Checkout, with_api: bool) -> Result<Self> {
        let root = checkout.root();
        let pages = links::pages(root)?;
        let packages = workspace::packages(checkout)?;
        let repository = packages.iter().find_map(|package| package.metadata["repository"].as_str());
        let repository = repository.context("no package names its repository")?.trim_end_matches('/').to_owned();
        let libraries = if with_api { libraries(root, &packages) } else { BTreeMap::new() };
        Self::new(&pages, repository, libraries)
    }

    fn new(pages: &[Page], repository: String, libraries: BTreeMap<PathBuf, String>) -> Result<Self> {
        let text = |path: &Path| pages.iter().find(|page| page.path == path).map(|page| page.text.clone());
        let index = text(Path::new(INDEX)).with_context(|| format!("there is no {INDEX}"))?;
        let mut parts = parts(&index);
        parts.push(Part { title: "Project".to_owned(), pages: LAST.map(PathBuf::from).to_vec() });
        let all = parts.iter().flat_map(|part| part.pages.iter().cloned());
        let first = ["README.md", INDEX].map(PathBuf::from);
        let chapters = first.into_iter().chain(all).map(|path| {
            let text = text(&path).with_context(|| format!("there is no {}", path.display()))?;
            Ok((path, text))
        });
        let chapters = chapters.collect::<Result<_>>()?;
        Ok(Self { parts, chapters, repository, libraries })
    }

    /// Writes the source of the book, with the files that its chapters show.
    fn write(&self, root: &Path, folder: &Path) -> Result<()> {
        let source = folder.join("src");
        let write = |path: &Path, text: &str| {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&source))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for (path, text) in &self.chapters {
            write(path, &self.rewritten(path, text, |path| root.join(path).is_dir()))?;
            for file in self.shown(path, text).into_iter().filter(|file| root.join(file).is_file()) {
                let target = source.join(&file);
                fs::create_dir_all(target.parent().unwrap_or(&source))?;
                fs::copy(root.join(&file), &target).with_context(|| format!("cannot write {}", target.display()))?;
            }
        }
        write(Path::new("SUMMARY.md"), &self.summary())?;
        if !self.libraries.is_empty() {
            write(Path::new("crates.md"), &self.crates())?;
        }
        let config = folder.join("book.toml");
        fs::write(&config, self.config()).with_context(|| format!("cannot write {}", config.display()))
    }

    fn config(&self) -> String {
        let repository = toml::Value::from(self.repository.as_str());
        format!(
            "[book]\ntitle = \"simplemix\"\nlanguage = \"en\"\n\n[build]\ncreate-missing = false\n\n[output.html]\n\
             git-repository-url = {repository}\nsmart-punctuation = false\nno-section-label = true\n\n\
             [output.html.print]\nenable = false\n"
        )
    }

    /// mdBook's list of chapters.
    fn summary(&self) -> String {
        let title = |path: &Path| {
            let heading = self.chapters.get(path).and_then(|text| markdown::headings(text).into_iter().next());
            heading.map_or_else(|| path.display().to_string(), |heading| heading.text)
        };
        let mut text = String::from("# Summary\n\n[simplemix](README.md)\n");
        let _ = writeln!(text, "[{}]({INDEX})", title(Path::new(INDEX)));
        for part in &self.parts {
            let _ = writeln!(text, "\n# {}\n", part.title);
            for path in &part.pages {
                let _ = writeln!(text, "- [{}]({})", title(path), path.display());
            }
        }
        if !self.libraries.is_empty() {
            text.push_str("- [Crates](crates.md)\n");
        }
        text
    }

    /// A page that leads to each library's rustdoc.
    fn crates(&self) -> String {
        let mut text = String::from("# Crates\n\nDocumentation of each crate, made by rustdoc.\n\n");
        for (folder, library) in &self.libraries {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(text, "- [{name}]({API}/{library}/index.html)");
        }
        text
    }

    /// A chapter whose links lead to chapters, to files beside them, to rustdoc, or to the repository.
    fn rewritten(&self, page: &Path, text: &str, is_folder: impl Fn(&Path) -> bool) -> String {
        let mut output = text.to_owned();
        let mut links = markdown::links(text);
        links.sort_by_key(|link| std::cmp::Reverse(link.at));
        for link in links.into_iter().filter(|link| !links::is_external(&link.target)) {
            let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let Some(path) = links::inside(page, file).filter(|_| !file.is_empty()) else { continue };
            let anchor = if anchor.is_empty() { String::new() } else { format!("#{anchor}") };
            let target = match self.libraries.get(&path) {
                // mdBook makes index.html of such a page, and leaves links to it as they are.
                _ if self.chapters.contains_key(&path) && path.ends_with("README.md") => {
                    format!("{}index.html{anchor}", file.trim_end_matches("README.md"))
                }
                _ if self.chapters.contains_key(&path) || is_shown(&path) => continue,
                Some(library) => {
                    let up = "../".repeat(page.components().count().saturating_sub(1));
                    format!("{up}{API}/{library}/index.html")
                }
                None => {
                    let kind = if is_folder(&path) { "tree" } else { "blob" };
                    format!("{}/{kind}/main/{}{anchor}", self.repository, path.display())
                }
            };
            output.replace_range(link.at..link.at + link.target.len(), &target);
        }
        output
    }

    /// Files that a chapter links to and that the site has too.
    fn shown(&self, page: &Path, text: &str) -> Vec<PathBuf> {
        let links = markdown::links(text).into_iter().filter(|link| !links::is_external(&link.target));
        let files = links.filter_map(|link| links::inside(page, link.target.split('#').next()?));
        files.filter(|path| is_shown(path) && !self.chapters.contains_key(path)).collect()
    }
}

/// Files in folders below docs/ that are no pages: images and tables of results.
fn is_shown(path: &Path) -> bool {
    let is_page = path.extension().is_some_and(|extension| extension == "md");
    path.starts_with("docs") && path.components().count() > 2 && !is_page
}

fn libraries(root: &Path, packages: &[Package]) -> BTreeMap<PathBuf, String> {
    let published = packages.iter().filter(|package| package.published && package.has_library);
    let folder = |package: &Package| package.folder.strip_prefix(root).unwrap_or(&package.folder).to_owned();
    published.map(|package| (folder(package), package.library_name())).collect()
}

/// Headings below `All pages` in the index, each with the pages of its table, in their order.
fn parts(index: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut is_list = false;
    for line in index.lines() {
        if let Some(title) = line.strip_prefix("### ").filter(|_| is_list) {
            parts.push(Part { title: title.trim().to_owned(), pages: Vec::new() });
        } else if let Some(title) = line.strip_prefix("## ") {
            is_list = title.trim() == "All pages";
        } else if line.starts_with("| [")
            && let Some(part) = parts.last_mut().filter(|_| is_list)
            && let Some(link) = markdown::links(line).into_iter().next()
        {
            part.pages.extend(links::inside(Path::new(INDEX), &link.target));
        }
    }
    parts
}

/// Links within the site, rustdoc's own pages aside, that lead nowhere.
fn faults(site: &Path) -> Result<Vec<String>> {
    let files = source::files(site, ".html")?;
    let files = files.into_iter().filter(|file| !file.starts_with(site.join(API)));
    let texts = files.map(|file| Ok((file.clone(), fs::read_to_string(&file)?))).collect::<Result<Vec<_>>>()?;
    let mut faults = Vec::new();
    for (file, text) in &texts {
        // The page for addresses that do not exist names everything from the root of a host.
        if file.ends_with("404.html") {
            continue;
        }
        for target in ["href=\"", "src=\""].iter().flat_map(|name| attributes(text, name)) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let found = if path.is_empty() { file.clone() } else { file.parent().unwrap_or(site).join(path) };
            let found = fs::canonicalize(&found).unwrap_or(found);
            let is_dead = !found.exists()
                || !anchor.is_empty()
                    && texts.iter().any(|(file, text)| {
                        fs::canonicalize(file).is_ok_and(|file| file == found)
                            && !text.contains(&format!("id=\"{anchor}\""))
                    });
            if is_dead {
                faults.push(format!("{}: `{target}` leads nowhere", file.display()));
            }
        }
    }
    faults.sort();
    faults.dedup();
    Ok(faults)
}

/// Values of an attribute that name a place in this site.
fn attributes<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let values = text.split(name).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
    values.filter(|value| !value.is_empty() && !links::is_external(value) && !value.starts_with("data:")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::{Book, Part, attributes, parts};
    use crate::links::Page;

    const INDEX: &str = "# Documentation\n\n| [x](../README.md) | no list |\n\n## All pages\n\n### Guides\n\n| page | subject |\n\
                         | --- | --- |\n| [data.md](data.md) | [mixing](mixing.md) |\n| [mixing.md](mixing.md) | mixtures |\n\n## More\n";

    fn book() -> Book {
        let page = |path: &str, text: &str| Page { path: path.into(), text: text.to_owned() };
        let pages = [
            page("README.md", "# simplemix\n\n[data](docs/data.md)"),
            page("docs/README.md", INDEX),
            page("docs/data.md", "# Files of pairs\n"),
            page("docs/mixing.md", "# Mixing\n"),
            page("CHANGELOG.md", "# Changelog\n"),
            page("CONTRIBUTING.md", "# Contributing\n"),
            page("SECURITY.md", "# Security\n"),
        ];
        let libraries = BTreeMap::from([(PathBuf::from("crates/simplemix-mix"), "simplemix_mix".to_owned())]);
        Book::new(&pages, "https://example.org/s".to_owned(), libraries).unwrap()
    }

    #[test]
    fn chapters_are_the_first_links_of_the_rows_below_all_pages() {
        let pages = ["docs/data.md", "docs/mixing.md"].map(PathBuf::from).to_vec();
        assert_eq!(parts(INDEX), [Part { title: "Guides".to_owned(), pages }]);
        let expected = "# Summary\n\n[simplemix](README.md)\n[Documentation](docs/README.md)\n\n# Guides\n\n\
                        - [Files of pairs](docs/data.md)\n- [Mixing](docs/mixing.md)\n\n# Project\n\n\
                        - [Changelog](CHANGELOG.md)\n- [Contributing](CONTRIBUTING.md)\n- [Security](SECURITY.md)\n\
                        - [Crates](crates.md)\n";
        assert_eq!(book().summary(), expected);
    }

    #[test]
    fn links_that_leave_the_book_lead_to_rustdoc_or_to_the_repository() {
        let text = "[a](mixing.md#size) [b](../crates/simplemix-mix) [c](../benches/run.py) [d](../examples) \
                    [e](images/p.svg) [f](#g) [h](https://example.org/x) [i](../gpu/README.md#j) [k](../README.md#l)";
        let found = book().rewritten(Path::new("docs/data.md"), text, |path| path == Path::new("examples"));
        let expected = "[a](mixing.md#size) [b](../api/simplemix_mix/index.html) \
                        [c](https://example.org/s/blob/main/benches/run.py) [d](https://example.org/s/tree/main/examples) \
                        [e](images/p.svg) [f](#g) [h](https://example.org/x) [i](https://example.org/s/blob/main/gpu/README.md#j) \
                        [k](../index.html#l)";
        assert_eq!(found, expected);
        let shown = book().shown(Path::new("docs/data.md"), text);
        assert_eq!(shown, [PathBuf::from("docs/images/p.svg")]);
    }

    #[test]
    fn a_page_that_the_index_names_has_to_be_there() {
        let pages = [Page { path: "docs/README.md".into(), text: INDEX.to_owned() }];
        let error = Book::new(&pages, String::new(), BTreeMap::new()).err().unwrap();
        assert_eq!(error.to_string(), "there is no README.md");
    }

    #[test]
    fn attributes_of_other_places_are_left_out() {
        let text = r#"<a href="a.html#b"></a><a href="https://x.org"></a><img src="c.svg"><a href=""></a>"#;
        assert_eq!(attributes(text, "href=\""), ["a.html#b"]);
        assert_eq!(attributes(text, "src=\""), ["c.svg"]);
    }
}
