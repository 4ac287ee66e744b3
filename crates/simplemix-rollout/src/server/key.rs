//! A key that is never shown.

use std::fmt;

use crate::error::{Error, Result};

/// The value of an environment variable, to be sent and nothing else.
#[derive(Clone)]
pub(crate) struct Key(String);

impl Key {
    /// From the variable `name`; none if it is not set or empty.
    pub(crate) fn from_env(name: &str) -> Result<Option<Self>> {
        match std::env::var_os(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => Self::new(value.into_string().unwrap_or_default().trim()).map(Some),
        }
    }

    pub(crate) fn new(value: &str) -> Result<Self> {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let found = "a value that no header can hold".to_owned();
            return Err(Error::Setting {
                key: "api_key_env",
                found,
                expected: "a variable with visible ASCII letters",
            });
        }
        Ok(Self(value.to_owned()))
    }

    /// The header's value.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// `text` without the key: some servers repeat it when they refuse it.
    pub(crate) fn taken_out_of(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([key])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let key = Key::new("sk-0123456789").unwrap();
        assert_eq!(format!("{key:?}"), "Key([key])");
        assert_eq!(key.taken_out_of("bad key sk-0123456789!"), "bad key [key]!");
        let message = Key::new("secret\nvalue").unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(key.bearer(), "Bearer sk-0123456789");
    }
}
