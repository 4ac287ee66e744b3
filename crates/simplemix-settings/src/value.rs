//! Types that a setting can have.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A type that a setting can have.
pub trait Setting {
    /// The type in words, with its article: `a number`.
    fn kind() -> String;

    /// Several of the type in words: `numbers`.
    fn kinds() -> String {
        "values".to_owned()
    }

    /// All values separated by `|`, if they are a few words.
    fn words() -> Option<&'static str> {
        None
    }

    /// The number to hold against the range, if it is one.
    fn number(&self) -> Option<f64> {
        None
    }
}

macro_rules! numbers {
    ($kind:literal, $kinds:literal: $($type:ty),+) => {$(
        impl Setting for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn kinds() -> String {
                $kinds.to_owned()
            }

            fn number(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )+};
}

numbers!("a number", "numbers": f64);
numbers!("a whole number", "whole numbers": u32, u64, usize, i64);

macro_rules! others {
    ($($type:ty: $kind:literal, $kinds:literal;)+) => {$(
        impl Setting for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn kinds() -> String {
                $kinds.to_owned()
            }
        }
    )+};
}

others! {
    bool: "true or false", "true or false";
    String: "a text", "texts";
    PathBuf: "a path", "paths";
}

impl<T: Setting> Setting for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn kinds() -> String {
        T::kinds()
    }

    fn words() -> Option<&'static str> {
        T::words()
    }

    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn kind() -> String {
        format!("a list of {}", T::kinds())
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    fn kind() -> String {
        format!("a table of {}", T::kinds())
    }
}

/// A value as people write it in a TOML file: small numbers with an exponent, whole ones without a point.
///
/// ```
/// assert_eq!(simplemix_settings::toml_text(&1e-6.into()), "1e-6");
/// assert_eq!(simplemix_settings::toml_text(&1.0.into()), "1");
/// assert_eq!(simplemix_settings::toml_text(&vec!["q_proj", "v_proj"].into()), r#"["q_proj", "v_proj"]"#);
/// ```
pub fn toml_text(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(x) if x.fract() == 0.0 && x.abs() < 1e15 => format!("{x:.0}"),
        toml::Value::Float(x) => format!("{x:?}"),
        toml::Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
