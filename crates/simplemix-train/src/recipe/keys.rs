//! Keys and values of a YAML file, typed as the command lines that read such files take them.
//!
//! Those lines turn texts into numbers and truth values, so `5e-7`, which YAML 1.1 reads as a text, is a number here too.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Most characters of a value in a message.
const SHOWN: usize = 60;

/// Keys and values of a file.
#[derive(Debug, Default)]
pub(super) struct Keys(Map<String, Value>);

impl Keys {
    /// Reads the text of a file; `path` is for messages only.
    pub(super) fn read(text: &str, path: &Path) -> Result<Self> {
        let refuse = |message: String| Error::Config { path: path.to_owned(), message };
        match serde_saphyr::from_str(text) {
            Ok(Value::Object(keys)) => Ok(Self(keys)),
            Ok(other) => {
                let found = kind(&other);
                let own = if text.contains(" = ") { "; settings in TOML are for --config" } else { "" };
                Err(refuse(format!("{found}, expected keys and values such as `beta: 0.1`{own}")))
            }
            Err(error) => Err(refuse(format!("not YAML: {}", error.to_string().trim_end()))),
        }
    }

    /// Keys that have a value, in the order of their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the key is there with nothing as its value.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key says that there is something: no empty text, list or table, and not false.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !is_empty(value))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, String> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, "a number", as_number)
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<i64>, String> {
        self.typed(key, "a whole number", as_whole)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, "true or false", as_flag)
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        self.typed(key, "a text, or a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, String> {
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(as_number).collect())
    }

    /// A table, which may be written as a text of JSON.
    pub(super) fn table(&self, key: &str) -> Result<Option<Keys>, String> {
        self.typed(key, "keys and values", as_table)
    }

    /// A list of tables.
    pub(super) fn tables(&self, key: &str) -> Result<Option<Vec<Keys>>, String> {
        self.typed(key, "a list of keys and values", |value| value.as_array()?.iter().map(as_table).collect())
    }

    /// The complaint that the value of `key` is not `expected`.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> String {
        format!("`{key}` is {}, expected {expected}", shown(self.0.get(key).unwrap_or(&Value::Null)))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.wrong(key, expected))).transpose()
    }
}

/// A value in a message, on one line and cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text.eq_ignore_ascii_case("no"),
        Value::Array(values) => values.is_empty(),
        Value::Object(table) => table.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Array(_) => "a list",
        _ => "one value",
    }
}

fn as_number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().replace('_', "").parse().ok());
    number.filter(|number| number.is_finite())
}

fn as_whole(value: &Value) -> Option<i64> {
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
    value.as_i64().or_else(|| whole(as_number(value)?))
}

/// A truth value as transformers' command line reads it.
fn as_flag(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| match value.as_str()?.to_ascii_lowercase().as_str() {
        "yes" | "true" | "t" | "y" | "on" | "1" => Some(true),
        "no" | "false" | "f" | "n" | "off" | "0" => Some(false),
        _ => None,
    })
}

fn as_table(value: &Value) -> Option<Keys> {
    match value {
        Value::Object(table) => Some(Keys(table.clone())),
        Value::String(text) => serde_json::from_str(text).ok().map(Keys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys> {
        Keys::read(text, Path::new("dpo.yaml"))
    }

    #[test]
    fn texts_are_numbers_and_truth_values_where_these_are_asked_for() {
        let keys =
            keys("rate: 5e-7\nsteps: '1_000'\nwhole: 3.0\nyes: \"yes\"\noff: off\nkwargs: '{\"a\": 1}'\nempty:\n")
                .unwrap();
        assert_eq!(keys.number("rate"), Ok(Some(5e-7)));
        assert_eq!((keys.whole("steps"), keys.whole("whole")), (Ok(Some(1000)), Ok(Some(3))));
        assert_eq!(
            (keys.flag("yes"), keys.flag("off"), keys.flag("empty")),
            (Ok(Some(true)), Ok(Some(false)), Ok(None))
        );
        assert_eq!(keys.table("kwargs").unwrap().unwrap().whole("a"), Ok(Some(1)));
        assert_eq!(keys.flag("rate").unwrap_err(), "`rate` is 5e-7, expected true or false");
    }

    #[test]
    fn what_is_no_yaml_is_said_to_be_none() {
        let refused = |text: &str| keys(text).unwrap_err().to_string();
        assert!(refused("a: [1, 2\nb: 3\n").starts_with("dpo.yaml: not YAML: "), "{}", refused("a: [1, 2\nb: 3\n"));
        assert!(refused("a: 1\n\tb: 2\n").starts_with("dpo.yaml: not YAML: "));
        assert_eq!(refused("- a\n"), "dpo.yaml: a list, expected keys and values such as `beta: 0.1`");
        assert_eq!(refused(""), "dpo.yaml: nothing, expected keys and values such as `beta: 0.1`");
        let own =
            "dpo.yaml: one value, expected keys and values such as `beta: 0.1`; settings in TOML are for --config";
        assert_eq!(refused("beta = 0.1\n"), own);
    }
}
