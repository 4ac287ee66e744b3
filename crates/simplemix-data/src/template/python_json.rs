//! Writes a template's value as JSON, exactly as Python's `json.dumps` does.

use std::fmt::Write;

use minijinja::{Error, ErrorKind, Value};

use super::python_text;
use super::values::{Kind, kind};

/// Options of `json.dumps`.
#[derive(Default)]
pub(super) struct Layout {
    /// Spaces per level; `None` puts everything on one line.
    pub(super) indent: Option<usize>,
    /// Separators between items, and between key and value; `None` for Python's defaults.
    pub(super) separators: Option<[String; 2]>,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
}

/// Maximum depth of a value; deeper ones may refer to themselves.
const MAX_DEPTH: usize = 128;

pub(super) fn to_python_json(value: &Value, layout: &Layout) -> Result<String, Error> {
    let (item, key) = match (&layout.separators, layout.indent) {
        (Some([item, key]), _) => (item.as_str(), key.as_str()),
        (None, Some(_)) => (",", ": "),
        (None, None) => (", ", ": "),
    };
    let mut writer = Writer { text: String::new(), layout, item, key };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a> {
    text: String,
    layout: &'a Layout,
    item: &'a str,
    key: &'a str,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        match kind(value) {
            Kind::None => self.text.push_str("null"),
            Kind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            Kind::Int | Kind::Float => self.number(value)?,
            Kind::Str => self.string(value.as_str().unwrap_or_default()),
            Kind::List | Kind::Tuple => self.list(value, depth)?,
            Kind::Dict => self.map(value, depth)?,
            other => {
                let message = format!("tojson: a value of kind {other:?} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            write!(self.text, "{value}").expect("writing to a string does not fail");
        } else {
            let number = f64::try_from(value.clone())?;
            self.text.push_str(&python_float(number));
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(empty, depth);
            self.value(&item, depth + 1)?;
            empty = false;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('{');
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.layout.sort_keys {
            keys.sort();
        }
        for (i, key) in keys.iter().enumerate() {
            self.separate(i == 0, depth);
            match (kind(key), key.as_str()) {
                (Kind::Str, Some(text)) => self.string(text),
                (Kind::None, _) => self.string("null"),
                (Kind::Bool, _) => self.string(if key.is_true() { "true" } else { "false" }),
                (Kind::Int, _) => self.string(&key.to_string()),
                (Kind::Float, _) => self.string(&python_float(f64::try_from(key.clone())?)),
                _ => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: a key that is no text or number")),
            }
            self.text.push_str(self.key);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close('}', keys.is_empty(), depth);
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.text.push_str(self.item);
        }
        self.line(depth + 1);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.line(depth);
        }
        self.text.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.layout.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if (c as u32) < 0x20 => self.escape(c),
                c if self.layout.ensure_ascii && !(' '..='~').contains(&c) => self.escape(c),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(self.text, "\\u{unit:04x}").expect("writing to a string does not fail");
        }
    }
}

/// A number as `json.dumps` writes it: as `repr`, but for what JSON does not have.
fn python_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => python_text::float(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `json.dumps({"b": [1, None, True], "a": "é\x01\u20ac\U0001f600\""}, indent=2, ensure_ascii=True, sort_keys=True)`.
    #[test]
    fn maps_are_indented_sorted_and_escaped() {
        let value = Value::from(minijinja::value::Serde(serde_json::json!({"b": [1, null, true], "a": "é\u{1}€😀\""})));
        let layout = Layout { indent: Some(2), ensure_ascii: true, sort_keys: true, ..Layout::default() };
        let expected =
            "{\n  \"a\": \"\\u00e9\\u0001\\u20ac\\ud83d\\ude00\\\"\",\n  \"b\": [\n    1,\n    null,\n    true\n  ]\n}";
        assert_eq!(to_python_json(&value, &layout).unwrap(), expected);
    }
}
