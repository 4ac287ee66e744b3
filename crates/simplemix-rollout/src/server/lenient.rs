//! JSON as servers write it: with a byte order mark, Python's names of numbers, halves of characters, broken bytes.

use std::borrow::Cow;

use serde_json::Value;

/// JSON of a body. A byte order mark is passed over; the numbers that Python writes although JSON does not have them, `NaN` and
/// `Infinity`, are null; half of a character and bytes that are no text are U+FFFD.
pub(super) fn json_of(body: &[u8]) -> Result<Value, serde_json::Error> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice(body)
        .or_else(|error| serde_json::from_str(&repaired(&String::from_utf8_lossy(body))).map_err(|_| error))
}

/// `text` with null in place of the names of numbers outside of its strings, and U+FFFD in place of half characters inside.
fn repaired(text: &str) -> String {
    let (mut plain, mut is_inside, mut rest) = (String::with_capacity(text.len()), false, text);
    while let Some(first) = rest.chars().next() {
        let (piece, length): (Cow<'_, str>, usize) = match first {
            '\\' if is_inside => escape(rest),
            _ => match ["-Infinity", "Infinity", "NaN"].into_iter().find(|name| !is_inside && rest.starts_with(name)) {
                Some(name) => ("null".into(), name.len()),
                None => (rest[..first.len_utf8()].into(), first.len_utf8()),
            },
        };
        is_inside ^= first == '"';
        plain.push_str(&piece);
        rest = &rest[length..];
    }
    plain
}

/// The escape at the start of `text`, repaired, and its length.
fn escape(text: &str) -> (Cow<'_, str>, usize) {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (text[..12].into(), 12),
        (Some(0xd800..0xe000), _) => ("\\ufffd".into(), 6),
        (Some(_), _) => (text[..6].into(), 6),
        _ => {
            let length = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (text[..length].into(), length)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_and_gateways_write_is_read() {
        for (body, expected) in [
            (&b"\xef\xbb\xbf{\"a\": 1}"[..], json!({ "a": 1 })),
            (br#"{"a": [NaN, -Infinity, Infinity, 1]}"#, json!({ "a": [null, null, null, 1] })),
            (br#"{"a": "NaN \" Infinity", "b": NaN}"#, json!({ "a": "NaN \" Infinity", "b": null })),
            (
                br#"{"a": "x\ud83d", "b": "\udc00y", "c": "\ud83d\ude00 \u00e9"}"#,
                json!({ "a": "x\u{fffd}", "b": "\u{fffd}y", "c": "\u{1f600} é" }),
            ),
            (b"{\"a\": \"x\xff\"}", json!({ "a": "x\u{fffd}" })),
        ] {
            assert_eq!(json_of(body).unwrap(), expected, "{}", String::from_utf8_lossy(body));
        }
        for body in ["", "{\"a\"", "NaN,", "{\"a\": \"\\", "{\"a\": \"\\u12"] {
            assert!(json_of(body.as_bytes()).is_err(), "{body}");
        }
    }
}
