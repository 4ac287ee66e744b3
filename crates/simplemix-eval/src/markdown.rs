//! Texts of others in Markdown: names, responses and settings, of which none becomes HTML, a link, an image, a heading or the
//! border of a table.

use crate::plain::{clean, clean_line};

/// A text as code within a line or a cell of a table.
///
/// # Examples
/// ```
/// use simplemix_eval::markdown::code;
/// assert_eq!(code("<img src=x> a|b"), "`<img src=x> a\\|b`");
/// assert_eq!(code("a `b`"), "`` a `b` ``");
/// ```
pub fn code(text: &str) -> String {
    let text = one_line(text);
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let blank = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    // Cells are split before code is looked for. A backslash before a border would be taken for another escape.
    let text = text.replace("\\|", "\\ |").replace('|', "\\|");
    format!("{fence}{blank}{text}{blank}{fence}")
}

/// A text within a line, with every character that Markdown has a use for escaped.
///
/// # Examples
/// ```
/// use simplemix_eval::markdown::text;
/// assert_eq!(text("[x](http://y) <b> & 1*2"), "\\[x\\]\\(http&#58;//y\\) &lt;b&gt; &amp; 1\\*2");
/// ```
pub fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Addresses become links by themselves.
            ':' => escaped.push_str("&#58;"),
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '#' | '|' | '~' | '!' | '$' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped.replace("www.", "www&#46;").replace("&#58; ", ": ")
}

/// A text of many lines as a block of code.
///
/// # Examples
/// ```
/// use simplemix_eval::markdown::block;
/// assert_eq!(block("text", "a\n<b>"), "```text\na\n<b>\n```\n");
/// assert_eq!(block("toml", "```\n"), "````toml\n```\n````\n");
/// ```
pub fn block(language: &str, text: &str) -> String {
    let text = clean(text);
    let fence = "`".repeat((longest_run(&text) + 1).max(3));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}{language}\n{text}{end}{fence}\n")
}

fn one_line(text: &str) -> String {
    clean_line(&text.replace(['\r', '\n', '\t'], " ")).into_owned()
}

/// Length of the longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_code() {
        for (text, expected) in [
            ("plain-name_1", "`plain-name_1`"),
            ("a\n| b |", "`a \\| b \\|`"),
            ("\\|", "`\\ \\|`"),
            ("``x", "``` ``x ```"),
            (" x", "`  x `"),
            ("", ""),
            ("\u{1b}[0m\u{202e}", "`\\u{1b}[0m\\u{202e}`"),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_no_markup() {
        assert_eq!(
            text("![x](javascript:alert(1)) www.h me@h"),
            "\\!\\[x\\]\\(javascript&#58;alert\\(1\\)\\) www&#46;h me&#64;h"
        );
        assert_eq!(text("12 pairs, 3 dropped: too long"), "12 pairs, 3 dropped: too long");
        assert_eq!(text("# a\n# b"), "\\# a \\# b");
    }
}
