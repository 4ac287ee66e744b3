//! API key, which is never shown.

use std::fmt;

use crate::error::{Error, Result};

/// API key from an environment variable. It is sent in a header and used nowhere else.
#[derive(Clone)]
pub(crate) struct Key(String);

impl Key {
    /// Reads the variable `name`; `None` if it is not set or empty.
    pub(crate) fn from_env(name: &str) -> Result<Option<Self>> {
        match std::env::var_os(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            // Text that is not Unicode has the replacement character, which `new` refuses.
            Some(value) => Self::new(value.to_string_lossy().trim()).map(Some),
        }
    }

    pub(crate) fn new(value: &str) -> Result<Self> {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let found = "a variable whose value no header can hold".to_owned();
            return Err(Error::Setting {
                key: "api_key_env",
                found,
                expected: "a variable with printable ASCII characters",
            });
        }
        Ok(Self(value.to_owned()))
    }

    /// Value of the `authorization` header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Removes the key from `text`: some servers repeat the key when they refuse it.
    pub(crate) fn removed_from(&self, text: &str) -> String {
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
        assert_eq!(key.removed_from("bad key sk-0123456789!"), "bad key [key]!");
        let message = Key::new("secret\nvalue").unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(key.bearer(), "Bearer sk-0123456789");
    }
}
