//! A declared setting, and a section of them, as data.

use std::fmt;

use crate::error::{Error, Result, join};
use crate::range::Range;
use crate::value::toml_text;

/// A declared setting.
#[derive(Clone, Copy)]
pub struct Field {
    /// Name in its section.
    pub key: &'static str,
    /// Meaning, as documented at the declaration.
    pub doc: &'static str,
    /// Unit of a number.
    pub unit: Option<&'static str>,
    /// Origin of the default.
    pub source: Option<&'static str>,
    /// Numbers that are allowed.
    pub range: Range,
    /// Path of the key in older versions.
    pub was: Option<&'static str>,
    /// Older names that are still read.
    pub aliases: &'static [&'static str],
    #[doc(hidden)]
    pub default: fn() -> Option<toml::Value>,
    #[doc(hidden)]
    pub kind: fn() -> String,
    #[doc(hidden)]
    pub words: fn() -> Option<&'static str>,
    #[doc(hidden)]
    pub fits: fn(&toml::Value) -> bool,
}

/// A section of settings.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Name of the TOML table; empty for the top level.
    pub name: &'static str,
    /// Subject, as documented at the declaration.
    pub doc: &'static str,
    /// The settings, in the order of their declaration.
    pub fields: &'static [Field],
}

impl Field {
    /// The meaning on one line.
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// The default as TOML; none if the setting is not set by default.
    pub fn default_text(&self) -> Option<String> {
        (self.default)().as_ref().map(toml_text)
    }

    /// The default as a TOML value.
    pub fn default_value(&self) -> Option<toml::Value> {
        (self.default)()
    }

    /// Allowed values in words: `a number above 0`.
    pub fn expected(&self) -> String {
        format!("{}{}", (self.kind)(), self.range)
    }

    /// All values separated by `|`, if they are a few words.
    pub fn words(&self) -> Option<&'static str> {
        (self.words)()
    }

    /// Whether the setting is a list.
    pub fn is_list(&self) -> bool {
        (self.kind)().starts_with("a list")
    }

    pub(crate) fn is_called(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }

    /// Refuses a value of another type.
    pub(crate) fn check_type(&self, path: &str, value: &toml::Value) -> Result {
        if (self.fits)(value) { Ok(()) } else { Err(Error::value(path, toml_text(value), self.expected())) }
    }
}

impl Field {
    /// Refuses a number out of range.
    pub(crate) fn check_range(&self, path: &str, value: &toml::Value) -> Result {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        match number.filter(|x| !self.range.contains(*x)) {
            Some(x) => Err(Error::value(path, x, self.expected())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field").field("key", &self.key).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Section {
    /// The subject on one line, without a full stop.
    pub fn doc(&self) -> &'static str {
        self.doc.trim().trim_end_matches('.')
    }

    /// Path of a key, as in errors and for `--set`.
    pub fn path(&self, key: &str) -> String {
        join(self.name, key)
    }

    /// The setting of this name.
    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.is_called(key))
    }

    /// Checks numbers, in the order of the fields, against their ranges.
    #[doc(hidden)]
    pub fn check_numbers(&self, numbers: &[Option<f64>]) -> Result {
        for (field, number) in self.fields.iter().zip(numbers) {
            if let Some(x) = number.filter(|x| !field.range.contains(*x)) {
                return Err(Error::value(self.path(field.key), x, field.expected()));
            }
        }
        Ok(())
    }
}
