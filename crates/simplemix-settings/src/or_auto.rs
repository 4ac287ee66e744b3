//! A setting that may be left to the program.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::Setting;

/// A value, or `auto`: chosen by the program from what it runs on.
///
/// ```
/// use simplemix_settings::OrAuto;
/// assert_eq!("auto".parse::<OrAuto<usize>>()?.or(1024), 1024);
/// assert_eq!("77".parse::<OrAuto<usize>>()?.or(1024), 77);
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrAuto<T> {
    /// Chosen by the program.
    #[default]
    Auto,
    /// Chosen by the user.
    Value(T),
}

const WORD: &str = "auto";

impl<T> OrAuto<T> {
    /// The value, or `chosen` for `auto`.
    pub fn or(self, chosen: T) -> T {
        match self {
            Self::Auto => chosen,
            Self::Value(value) => value,
        }
    }
}

impl<T: fmt::Display> fmt::Display for OrAuto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(WORD),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl<T: FromStr> FromStr for OrAuto<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == WORD { Ok(Self::Auto) } else { text.parse().map(Self::Value) }
    }
}

impl<T: Serialize> Serialize for OrAuto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(WORD),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrAuto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum Word {
            #[serde(rename = "auto")]
            Auto,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Word(Word),
            Value(T),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Word(Word::Auto) => Self::Auto,
            Either::Value(value) => Self::Value(value),
        })
    }
}

impl<T: Setting> Setting for OrAuto<T> {
    fn kind() -> String {
        format!("`{WORD}` or {}", T::kind())
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Auto => None,
            Self::Value(value) => value.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    crate::section! {
        /// Memory.
        struct Memory("memory") {
            /// Tokens at a time.
            tokens: OrAuto<usize> = OrAuto::Auto, in at_least(1.0), unit "tokens";
        }
    }

    fn read(text: &str) -> Result<OrAuto<usize>, String> {
        Memory::from_table(text.parse().unwrap()).map(|memory| memory.tokens).map_err(|error| error.to_string())
    }

    #[test]
    fn a_word_or_a_value_in_range_is_read() {
        assert_eq!(read(""), Ok(OrAuto::Auto));
        assert_eq!(read("tokens = 'auto'"), Ok(OrAuto::Auto));
        assert_eq!(read("tokens = 9"), Ok(OrAuto::Value(9)));
        let refused = |found: &str| format!("`memory.tokens` is {found}, expected `auto` or a whole number >= 1");
        for (text, found) in [("0", "0"), ("-1", "-1"), ("1.5", "1.5"), ("'many'", "\"many\""), ("true", "true")] {
            assert_eq!(read(&format!("tokens = {text}")), Err(refused(found)));
        }
        let again = |memory: &Memory| toml::to_string(memory).unwrap();
        assert_eq!(again(&Memory { tokens: OrAuto::Value(9) }), "tokens = 9\n");
        assert_eq!(again(&Memory::default()), "tokens = \"auto\"\n");
    }
}
