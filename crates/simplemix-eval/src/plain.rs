//! Texts of others, such as names in data and words of servers, as a terminal may get them: no character controls it, none
//! changes the order in which a line is read, and none is invisible.

use std::borrow::Cow;
use std::fmt::Write;

/// A text of one or several lines. Characters that would do something are shown by their code, such as `\u{1b}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && c != '\t' && acts(c)) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' | '\t' => clean.push(c),
            c if acts(c) => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean.into()
}

/// A text of one line: a line break in a name cannot begin another line.
///
/// # Examples
/// ```
/// assert_eq!(simplemix_eval::plain::clean_line("name\nerror: \u{1b}[1m"), r"name\nerror: \u{1b}[1m");
/// ```
pub fn clean_line(text: &str) -> Cow<'_, str> {
    match clean(text) {
        text if text.contains('\n') => text.replace('\n', "\\n").into(),
        text => text,
    }
}

/// JSON with the characters that act escaped, which changes no value.
///
/// # Examples
/// ```
/// assert_eq!(simplemix_eval::plain::clean_json("\"a\u{202e}\""), r#""a\u202e""#);
/// ```
pub fn clean_json(text: &str) -> Cow<'_, str> {
    // JSON itself escapes the first 32, except between values, where they are blanks.
    let is_left = |c: char| c >= ' ' && acts(c);
    if !text.contains(is_left) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match is_left(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(clean, "\\u{unit:04x}");
            }),
            false => clean.push(c),
        }
    }
    clean.into()
}

/// A text with U+FFFD in place of characters that XML and HTML do not have.
pub(crate) fn clean_markup(text: &str) -> Cow<'_, str> {
    let is_none = |c: char| (c.is_control() && !"\n\t\r".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}');
    if text.contains(is_none) { text.replace(is_none, "\u{fffd}").into() } else { text.into() }
}

/// Whether a character controls a terminal (C0, DEL, C1), reorders a line (bidirectional marks, embeddings, overrides and
/// isolates), ends one, or is invisible. Joiners are kept: scripts and emojis need them.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_act_are_shown_by_their_code() {
        for (text, expected) in [
            ("plain ünïcode 日本 👩\u{200d}💻", "plain ünïcode 日本 👩\u{200d}💻"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("over\rwritten\r\nnext\ttab", "over\\rwritten\nnext\ttab"),
            ("a\u{202e}b\u{2066}c\u{200f}d", "a\\u{202e}b\\u{2066}c\\u{200f}d"),
            ("\u{feff}x\u{200b}\u{2028}\u{e0041}", "\\u{feff}x\\u{200b}\\u{2028}\\u{e0041}"),
        ] {
            assert_eq!(clean(text), expected);
        }
        assert_eq!(clean_line("name\nerror: forged"), "name\\nerror: forged");
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a\u{202e}": "\u{9b}31m\u{7f} \u{1b} \u{e0041} ü\n"});
        let text = serde_json::to_string(&value).unwrap();
        let shown = clean_json(&text);
        assert!(!shown.contains(acts), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(clean_json("{\n  \"a\": 1\n}"), "{\n  \"a\": 1\n}");
    }
}
