//! Secrets that are known by the name before them, in settings and on the command line.

use serde_json::Value;

use super::{remember, urls};

/// Names of secrets.
const NAMES: [&str; 11] = [
    "apikey",
    "authorization",
    "credential",
    "credentials",
    "key",
    "passwd",
    "password",
    "pwd",
    "secret",
    "token",
    "x-amz-security-token",
];

/// Ends of names of secrets. Other tokens are words of a model.
const ENDS: [&str; 13] = [
    "_apikey",
    "_key",
    "-key",
    "_password",
    "-password",
    "_secret",
    "-secret",
    "_credential",
    "access_token",
    "access-token",
    "api_token",
    "auth_token",
    "user_token",
];

/// Whether a setting or a field of this name holds a secret, such as `api_key` or `x-access-token`.
///
/// # Examples
/// ```
/// use simplemix_files::secret::is_secret_name;
/// assert!(is_secret_name("api_key") && is_secret_name("Token"));
/// assert!(!is_secret_name("max_tokens") && !is_secret_name("eos_token") && !is_secret_name("api_key_env"));
/// ```
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Remembers what the command line of this process holds of secrets: credentials in URLs, values after a secret name, and such
/// fields of JSON.
pub fn remember_arguments() {
    for word in std::env::args_os().skip(1) {
        remember_word(&word.to_string_lossy());
    }
}

fn remember_word(word: &str) {
    urls::remember_urls(word);
    if let Ok(value @ Value::Object(_)) = serde_json::from_str(word) {
        remember_fields("", &value);
    }
    // `--set collect.server.extra.api_key="..."`
    if let Some((name, value)) = word.split_once('=')
        && name.rsplit(['.', '-']).next().is_some_and(is_secret_name)
    {
        remember(value.trim_matches(['"', '\'', ' ']));
    }
}

fn remember_fields(name: &str, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| remember_fields(name, value)),
        Value::String(text) if is_secret_name(name) => remember(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::redacted;
    use super::*;

    #[test]
    fn words_of_a_command_line_are_searched_for_secrets() {
        for word in [
            r#"{"a": {"api_key": "in-json-argument-1"}, "eos_token": "<end-of-all>"}"#,
            "collect.server.extra.token='after-a-name-1'",
            "--source=x=https://me:long-password-1@host/a?sig=in-a-query-1",
        ] {
            remember_word(word);
        }
        let text = "in-json-argument-1 after-a-name-1 long-password-1 in-a-query-1 <end-of-all>";
        assert_eq!(redacted(text), "[key] [key] [key] [key] <end-of-all>");
    }
}
