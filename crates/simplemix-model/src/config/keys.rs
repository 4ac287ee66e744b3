//! Typed reading of a JSON object's keys, where every disagreement names the key, what was found and what was expected.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Counts above this are damage or mischief: no model has them.
const MOST: i64 = 1 << 24;

/// The keys of `config.json`, or of an object in it.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    /// Keys above this object, each followed by a dot.
    within: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, path: &'a Path, within: &'a str) -> Self {
        Self { map, path, within }
    }

    /// The value, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, null or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The entries.
    pub(crate) fn entries(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// The keys of `map`, an object in this file whose keys stand under `within`.
    pub(crate) fn of<'b>(&self, map: &'b Map<String, Value>, within: &'b str) -> Keys<'b>
    where
        'a: 'b,
    {
        Keys { map, path: self.path, within }
    }

    /// An object in this one.
    pub(crate) fn object(&self, key: &str, within: &'a str) -> Result<Option<Keys<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, path: self.path, within })),
            Some(_) => Err(self.refuse(key, "an object")),
        }
    }

    /// That `key`'s value is not one of those `expected`.
    pub(crate) fn refuse(&self, key: &str, expected: &str) -> Error {
        let found = match self.map.get(key) {
            None => "absent".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => value.to_string(),
        };
        let (path, key) = (self.path.to_owned(), format!("{}{key}", self.within));
        Error::Config { path, key, found, expected: expected.to_owned() }
    }

    /// A whole number from 1 to 2^24, if given.
    pub(crate) fn count(&self, key: &str) -> Result<Option<i64>> {
        let expected = || self.refuse(key, "a number from 1 to 16777216");
        let count = |value: &Value| value.as_i64().filter(|n| (1..=MOST).contains(n)).ok_or_else(expected);
        self.get(key).map(count).transpose()
    }

    /// A whole number from 1 to 2^24.
    pub(crate) fn needed_count(&self, key: &str) -> Result<i64> {
        self.count(key)?.ok_or_else(|| self.refuse(key, "a number from 1 to 16777216"))
    }

    /// A whole number from 1 to 2^24, or `default` where the key is absent.
    pub(crate) fn count_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.has(key) { self.needed_count(key) } else { Ok(default) }
    }

    /// A finite number above zero, if given.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>> {
        let expected = || self.refuse(key, "a number above 0");
        let number = |value: &Value| value.as_f64().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(expected);
        self.get(key).map(number).transpose()
    }

    /// A finite number above zero.
    pub(crate) fn needed_positive(&self, key: &str) -> Result<f64> {
        self.positive(key)?.ok_or_else(|| self.refuse(key, "a number above 0"))
    }

    /// A finite number above zero, or `default` where the key is absent.
    pub(crate) fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.needed_positive(key) } else { Ok(default) }
    }

    /// Finite numbers above zero, as many as asked for.
    pub(crate) fn positives(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let numbers = self.get(key).and_then(Value::as_array).map(|all| all.iter().filter_map(Value::as_f64));
        let numbers: Vec<f64> = numbers.into_iter().flatten().filter(|x| x.is_finite() && *x > 0.0).collect();
        let whole = self.get(key).and_then(Value::as_array).is_some_and(|all| all.len() == count);
        if whole && numbers.len() == count {
            return Ok(numbers);
        }
        Err(self.refuse(key, &format!("{count} numbers above 0")))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.refuse(key, "`true` or `false`")))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.refuse(key, "a text"))).transpose()
    }

    /// Refuses anything but `expected` under `key`, or nothing at all.
    pub(crate) fn only(&self, key: &str, expected: &Value) -> Result<()> {
        match self.get(key) {
            Some(value) if value != expected => Err(self.refuse(key, &format!("`{expected}`"))),
            _ => Ok(()),
        }
    }
}
