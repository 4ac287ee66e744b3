//! `str` and `repr` of Python for the values of a template.

use std::fmt::Write;

use minijinja::{Error, State, Value};

use super::budget;
use super::values::{Kind, Range, View, kind, pairs, refuse};

/// Maximum depth of a value; deeper ones may refer to themselves.
const MAX_DEPTH: usize = 128;
/// Maximum size of a text in bytes; lists that hold a list twice, again and again, would have no end.
const MAX_BYTES: usize = 64 << 20;

/// `str(value)`; a text that is marked as safe stays so.
pub(super) fn string(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Str => Ok(value.clone()),
        _ => text(value).map(Value::from),
    }
}

/// `str(value)`
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match kind(value) {
        Kind::Undefined => Ok(String::new()),
        Kind::Str => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => repr(value),
    }
}

/// `repr(value)`
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_repr(value, &mut text, 0)?;
    Ok(text)
}

/// Writes what a template prints.
pub(super) fn write_output(
    out: &mut minijinja::Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None => {
            budget::weigh(state, value)?;
            Ok(out.write_str(&text(value)?)?)
        }
    }
}

fn write_repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || out.len() > MAX_BYTES {
        return Err(refuse("a value that is too deep or too large to be written"));
    }
    match kind(value) {
        Kind::Undefined => out.push_str("Undefined"),
        Kind::None => out.push_str("None"),
        Kind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        Kind::Int => write!(out, "{value}").expect("writing to a string does not fail"),
        Kind::Float => out.push_str(&float(f64::try_from(value.clone())?)),
        Kind::Str if value.is_safe() => {
            out.push_str("Markup(");
            write_quoted(value.as_str().unwrap_or_default(), out);
            out.push(')');
        }
        Kind::Str => write_quoted(value.as_str().unwrap_or_default(), out),
        Kind::List => write_items(value, ["[", "]"], out, depth)?,
        Kind::Tuple => write_items(value, ["(", if value.len() == Some(1) { ",)" } else { ")" }], out, depth)?,
        Kind::Dict => write_dict(value, out, depth)?,
        Kind::View => {
            out.push_str(value.downcast_object_ref::<View>().map_or("", |view| view.name));
            write_items(value, ["([", "])"], out, depth)?;
        }
        Kind::Range => out.push_str(&value.downcast_object_ref::<Range>().map_or_else(String::new, Range::to_string)),
        Kind::Generator | Kind::Other => {
            return Err(refuse("a generator, method or other object, whose text would differ from run to run"));
        }
    }
    Ok(())
}

fn write_items(value: &Value, brackets: [&str; 2], out: &mut String, depth: usize) -> Result<(), Error> {
    out.push_str(brackets[0]);
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_repr(&item, out, depth + 1)?;
    }
    out.push_str(brackets[1]);
    Ok(())
}

fn write_dict(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    out.push('{');
    for (i, (key, item)) in pairs(value)?.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_repr(key, out, depth + 1)?;
        out.push_str(": ");
        write_repr(item, out, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let code = c as u32;
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
                written.expect("writing to a string does not fail");
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character.
pub(super) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // All white space but the ASCII space is escaped.
        c if c.is_whitespace() || c.is_control() => false,
        // A text of two characters, since a leading combining mark is escaped though it is printable.
        c => !format!("{:?}", String::from_iter(['x', c])).contains("\\u{"),
    }
}

/// `repr` of a Python float: the shortest digits that read back the same, with an exponent from 1e16 on and below 1e-4.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').expect("`{:e}` always writes an exponent");
        let exponent: i32 = exponent.parse().expect("`{:e}` writes the exponent as an integer");
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let text = number.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `repr` of CPython 3.11.
    #[test]
    fn floats_are_written_as_python_writes_them() {
        let written: Vec<String> =
            [1.0, 1e16, 1e-5, 0.1, 123456789.5, -0.0, 1e22, f64::INFINITY].into_iter().map(float).collect();
        assert_eq!(written, ["1.0", "1e+16", "1e-05", "0.1", "123456789.5", "-0.0", "1e+22", "inf"]);
    }

    /// `repr(['a\'b', '"\'', '\u200b\x07\xe9\n', ('x',), {1: None}])` of CPython 3.11.
    #[test]
    fn containers_hold_quoted_texts() {
        let tuple = Value::from(minijinja::value::Tuple::from(vec![Value::from("x")]));
        let map = Value::from_pairs([(Value::from(1), Value::from(()))]);
        let texts = ["a'b", "\"'", "\u{200b}\u{7}é\n"].map(Value::from).to_vec();
        let list = Value::from([texts, vec![tuple, map]].concat());
        assert_eq!(repr(&list).unwrap(), r#"["a'b", '"\'', '\u200b\x07é\n', ('x',), {1: None}]"#);
    }
}
