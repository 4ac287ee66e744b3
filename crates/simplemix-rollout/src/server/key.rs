//! API key, from an environment variable.

use simplemix_files::secret::Secret;

use crate::error::{Error, Result};

/// Reads the variable `name`; `None` if it is not set or empty. The key is sent in a header and shown nowhere.
pub(super) fn from_env(name: &str) -> Result<Option<Secret>> {
    check_name(name)?;
    match std::env::var_os(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        // Text that is not Unicode has the replacement character, which is refused.
        Some(value) => checked(value.to_string_lossy().trim()).map(Some),
    }
}

/// Refuses what cannot be a variable's name, such as a key, without showing it.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name && name.len() <= 64 && simplemix_files::secret::redacted(name) == name {
        return Ok(());
    }
    let found = "no name of a variable".to_owned();
    let expected = "the name of an environment variable that holds the key, not the key itself";
    Err(Error::Setting { key: "api_key_env", found, expected })
}

fn checked(value: &str) -> Result<Secret> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        let found = "a variable whose value no header can hold".to_owned();
        return Err(Error::Setting {
            key: "api_key_env",
            found,
            expected: "a variable with printable ASCII characters",
        });
    }
    Ok(Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let key = checked("sk-0123456789").unwrap();
        assert_eq!(format!("{key:?}"), "[key]");
        let message = checked("secret\nvalue").unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn a_key_in_place_of_the_name_of_its_variable_is_refused_and_not_shown() {
        for name in ["sk-abc-0123", "hf_AbCdEfGhIjKlMnOpQrStUvWx01", "0abc", "a b"] {
            let message = check_name(name).unwrap_err().to_string();
            assert!(
                message.contains("expected the name of an environment variable") && !message.contains(name),
                "{message}"
            );
        }
        assert!(["OPENAI_API_KEY", "key_2", ""].iter().all(|name| check_name(name).is_ok()));
    }
}
