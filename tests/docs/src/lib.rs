//! Rust blocks of README.md, CONTRIBUTING.md and the pages in docs/, each a doctest that is compiled and not run.
//!
//! The build script takes them out of the pages. A block under `<!-- excerpt: PATH -->` is not compiled; it has to be
//! a part of that file.

include!(concat!(env!("OUT_DIR"), "/blocks.rs"));

#[cfg(test)]
mod blocks;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::blocks::blocks;

    #[test]
    fn other_languages_are_left_out() {
        let page =
            "```toml\na = 1\n```\n\n    indented\n\n```rust,no_run\nlet a = 1;\n\nlet b = 2;\n```\n```\nplain\n```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].code.as_str()), (8, "let a = 1;\n\nlet b = 2;"));
        assert!(found[0].excerpt_of.is_none());
    }

    #[test]
    fn an_excerpt_names_its_file() {
        let found = blocks("<!-- excerpt: a.rs -->\n\n```rust\na\n```\n\ntext\n\n```rust\nb\n```\n");
        assert_eq!(found[0].excerpt_of.as_deref(), Some("a.rs"));
        assert!(found[1].excerpt_of.is_none());
    }

    #[test]
    fn excerpts_are_parts_of_their_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut pages: Vec<_> = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
        pages.extend([root.join("README.md"), root.join("CONTRIBUTING.md")]);
        for page in pages {
            for block in blocks(&fs::read_to_string(&page).unwrap()) {
                let Some(name) = block.excerpt_of else { continue };
                let file = fs::read_to_string(root.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
                let place = format!("{}, line {}", page.display(), block.line);
                assert!(file.contains(&block.code), "{place}: this is not a part of {name}");
            }
        }
    }

    /// Rows of docs/guarantees.md name a crate's folder (`e2e` is tests/end_to_end) and then `file::test`, or `file::{test, test}`.
    #[test]
    fn every_promise_names_tests_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let page = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
        let mut found = 0;
        for row in page.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
            let cell = row.split(" | ").nth(1).unwrap();
            let mut folder = String::new();
            for (i, part) in cell.split('`').enumerate() {
                if i % 2 == 0 {
                    let word = part.trim_matches([' ', ',', ';', '|']);
                    if let Some(word) = word.split_whitespace().last().filter(|word| word.len() > 2 && *word != "and") {
                        folder = word.to_owned();
                    }
                    continue;
                }
                let Some((path, tests)) = part.split_once("::").or(part.contains(".rs").then_some((part, ""))) else {
                    continue;
                };
                let base =
                    if folder == "e2e" { "tests/end_to_end".into() } else { format!("crates/simplemix-{folder}") };
                let file = root.join(base).join(path);
                let source =
                    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}: {row}", file.display()));
                for test in tests.split(['{', '}', ',', ' ']).filter(|test| !test.is_empty()) {
                    assert!(source.contains(&format!("fn {test}(")), "{}: no {test}: {row}", file.display());
                    found += 1;
                }
            }
        }
        assert!(found > 20, "{found} tests were found");
    }
}
