//! Words that no comment may start with, because a list of items shows the first sentence alone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::say;
use crate::source::{self, Comment, Source};

const REFUSED: [&str; 5] = ["Its", "Of", "What", "Which", "The same"];

/// Whether no comment of the workspace starts with a refused word; those that do are printed, and
/// their number by crate.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn check(checkout: &Checkout) -> Result<bool> {
    let mut by_room = BTreeMap::<String, usize>::new();
    for path in source::rust_files(checkout.root())? {
        let name = path.strip_prefix(checkout.root()).unwrap_or(&path);
        for (line, word) in offences(&Source::read(&path)?.comments) {
            say(format_args!("{}:{line}: a comment starts with `{word}`", name.display()));
            *by_room.entry(room(name)).or_default() += 1;
        }
    }
    for (room, count) in &by_room {
        say(format_args!("{count:>5} {room}"));
    }
    let total: usize = by_room.values().sum();
    if total > 0 {
        say(format_args!("{total:>5} in all: start with a noun or a verb instead"));
    }
    Ok(total == 0)
}

/// The crate or folder that a file is counted under.
fn room(name: &Path) -> String {
    let mut parts = name.iter().map(|part| part.to_string_lossy());
    let first = parts.next().unwrap_or_default();
    match first.as_ref() {
        "crates" | "examples" | "tests" => parts.next().map_or(first.to_string(), |second| format!("{first}/{second}")),
        _ => first.into_owned(),
    }
}

/// Line and word of each comment, paragraph or list item that starts with a refused word.
fn offences(comments: &[Comment]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut before: Option<&Comment> = None;
    for comment in comments {
        let continued = before.is_some_and(|before| continues(before, comment));
        let text = comment.text.trim();
        let item = text.strip_prefix("- ").or_else(|| text.strip_prefix("* "));
        if let Some(word) = refused_word(item.unwrap_or(text))
            && (!continued || item.is_some())
        {
            found.push((comment.line, word));
        }
        before = Some(comment);
    }
    found
}

/// Whether `comment` goes on with a paragraph that the one before began. A heading is a paragraph of its own.
fn continues(before: &Comment, comment: &Comment) -> bool {
    let adjacent = before.alone && comment.alone && comment.line == before.line + 1;
    let text = before.text.trim();
    adjacent && before.marker == comment.marker && !text.is_empty() && !text.starts_with("# ")
}

fn refused_word(text: &str) -> Option<&'static str> {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || ['_', '-', '\''].contains(&c));
    REFUSED.into_iter().find(|word| text.strip_prefix(word).is_some_and(ends))
}

#[cfg(test)]
mod tests {
    use super::{offences, refused_word};
    use crate::source::Source;

    #[test]
    fn words_are_whole_and_at_the_start() {
        for text in ["Its rank.", "Of a pair", "What", "Which, if any", "The same of rows"] {
            assert!(refused_word(text).is_some(), "{text}");
        }
        for text in ["Offset", "Whatever", "The sameness", "It", "its", "A row, Of", "What's"] {
            assert!(refused_word(text).is_none(), "{text}");
        }
    }

    #[test]
    fn every_kind_of_comment_counts() {
        let text = "//! What it is.\n\n/// Its name.\nfn f() {} // Of no use\n// Which one\nlet s = \"// What\";\n";
        let found = offences(&Source::scan(text).comments);
        assert_eq!(found, [(1, "What"), (3, "Its"), (4, "Of"), (5, "Which")]);
    }

    #[test]
    fn a_wrapped_line_is_no_start_but_a_paragraph_and_an_item_are() {
        let text =
            "/// Paper of the method.\n/// What follows\n///\n/// What starts\n/// - Of an item\n/// What ends\n";
        assert_eq!(offences(&Source::scan(text).comments), [(4, "What"), (5, "Of")]);
        let text = "/// Reads a file.\n///\n/// # Errors\n/// What the system says.\n";
        assert_eq!(offences(&Source::scan(text).comments), [(4, "What")]);
    }
}
