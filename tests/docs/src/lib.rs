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
}
