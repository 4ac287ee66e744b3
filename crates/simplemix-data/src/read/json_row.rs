//! Rows of JSON text, read as Python writes them: with NaN, Infinity and integers of any length.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::problem::Problem;

/// Parses the object in `text`, with the keys that are `wanted`. NaN and infinities become null, and integers that need more
/// than 64 bits become text, so that they keep their value.
///
/// # Errors
/// The problem of a row that is no text or no object; an error of syntax.
pub(crate) fn parse(
    text: &[u8],
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Result<Map<String, Value>, Problem>, serde_json::Error> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return match serde_json::from_slice::<IgnoredAny>(text).map(drop) {
            Ok(()) => Ok(Err(Problem::WrongType)),
            // Python's words for missing numbers are values, too.
            Err(_) if is_odd_number(text.trim_ascii()) => Ok(Err(Problem::WrongType)),
            Err(error) => Err(error),
        };
    }
    let parsed = match object(text, wanted) {
        Ok(fields) if !fields.values().any(has_long_integer) => return Ok(Ok(fields)),
        parsed => parsed,
    };
    let parsed = match with_plain_numbers(text) {
        Some(plain) => object(&plain, wanted),
        None => parsed,
    };
    match parsed {
        Ok(fields) => Ok(Ok(fields)),
        // Python writes such strings without complaint, but they are not text.
        Err(error) if is_lone_surrogate(&error) => Ok(Err(Problem::LoneSurrogate)),
        Err(error) => Err(error),
    }
}

fn object(text: &[u8], wanted: &dyn Fn(&str) -> bool) -> Result<Map<String, Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fields = Fields(wanted).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(fields)
}

/// Reads the fields of an object that are wanted, and skips the others.
struct Fields<'a>(&'a dyn Fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if (self.0)(&name) {
                fields.insert(name, entries.next_value()?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

fn is_lone_surrogate(error: &serde_json::Error) -> bool {
    error.is_syntax() && error.to_string().starts_with("lone leading surrogate")
        || error.to_string().starts_with("unexpected end of hex escape")
}

/// Whether a value holds a number that was an integer of more than 64 bits, or may have been.
fn has_long_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= i64::MAX as f64)
        }
        Value::Array(items) => items.iter().any(has_long_integer),
        Value::Object(fields) => fields.values().any(has_long_integer),
        _ => false,
    }
}

/// The text with null in place of NaN, infinities and numbers beyond those of a double, and with long integers as strings;
/// `None` if it has none of these.
fn with_plain_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let (mut at, mut changed) = (0, false);
    while at < text.len() {
        let end = match text[at] {
            b'"' => string_end(text, at),
            b'-' | b'0'..=b'9' | b'N' | b'I' => word_end(text, at),
            _ => at + 1,
        };
        let part = &text[at..end];
        match replacement(part) {
            Some(other) => {
                plain.extend_from_slice(&other);
                changed = true;
            }
            None => plain.extend_from_slice(part),
        }
        at = end;
    }
    changed.then_some(plain)
}

/// End of the string that starts at `at`.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < text.len() && text[end] != b'"' {
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}

/// End of the number or name that starts at `at`.
fn word_end(text: &[u8], at: usize) -> usize {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    at + 1 + text[at + 1..].iter().take_while(|byte| is_part(byte)).count()
}

/// Replacement of a number that JSON, or a number of 64 bits, does not have.
fn replacement(part: &[u8]) -> Option<Vec<u8>> {
    if is_odd_number(part) {
        return Some(b"null".to_vec());
    }
    let text =
        std::str::from_utf8(part).ok().filter(|text| text.starts_with(|c: char| c == '-' || c.is_ascii_digit()))?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        return (!fits).then(|| format!("\"{text}\"").into_bytes());
    }
    text.parse::<f64>().is_ok_and(f64::is_infinite).then(|| b"null".to_vec())
}

/// Whether the text is a missing or infinite number as Python writes it.
fn is_odd_number(text: &[u8]) -> bool {
    [b"NaN".as_slice(), b"-NaN", b"Infinity", b"-Infinity"].contains(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        Value::Object(parse(text.as_bytes(), &|_| true).unwrap().unwrap())
    }

    #[test]
    fn numbers_as_python_writes_them() {
        let row = r#"{"a": NaN, "b": [-Infinity, 1e999, -0.5], "c": 36893488147419103232, "d": "NaN, \"Infinity", "e": 1e20}"#;
        let expected =
            json!({"a": null, "b": [null, null, -0.5], "c": "36893488147419103232", "d": "NaN, \"Infinity", "e": 1e20});
        assert_eq!(read(row), expected);
        assert_eq!(read(r#"{"a": 18446744073709551615}"#), json!({"a": u64::MAX}));
        assert_eq!(read(r#"{"a": -9223372036854775809}"#), json!({"a": "-9223372036854775809"}));
    }

    #[test]
    fn rows_that_are_no_objects_or_no_text_have_a_problem() {
        for text in ["[1]", "null", "3", "NaN"] {
            assert_eq!(parse(text.as_bytes(), &|_| true).unwrap(), Err(Problem::WrongType), "{text}");
        }
        assert_eq!(parse(br#"{"a": NaN, "b": "\ud800"}"#, &|_| true).unwrap(), Err(Problem::LoneSurrogate));
        for text in [r#"{"a": }"#, r#"{"a": 1"#, r#"{"a": 1} x"#, "nul", r#"{"a": NaNo}"#] {
            assert!(parse(text.as_bytes(), &|_| true).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_that_are_not_wanted_are_skipped() {
        let fields = parse(br#"{"a": 1, "b": {"c": "\ud800"}, "a": 2}"#, &|name| name == "a").unwrap().unwrap();
        assert_eq!(Value::Object(fields), json!({"a": 2}));
    }
}
