//! Secrets: keys, tokens and passwords. A [`Secret`] never shows itself, the process remembers it, and [`redacted`] takes every
//! known secret, and every credential inside a URL, out of a text before it is printed or stored.
//!
//! A server can repeat a key in other spellings, so a secret is also found percent-encoded, with escapes of JSON or HTML, in
//! base64 and hexadecimal, and by a part of eight characters.

mod forms;
mod names;
mod open;
mod shapes;
mod urls;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use forms::{Known, Use};

pub use names::{is_secret_name, remember_arguments};
pub use open::{first_in_the_open, is_this_machine, sent_in_the_open};
pub use urls::{is_same_origin, redacted_url, remember_query, without_user};

/// Text in place of a secret.
pub const HIDDEN: &str = "[key]";

/// Most secrets that are remembered; a process has a handful.
const MOST: usize = 256;
/// Longest of them; longer texts are documents.
const MOST_BYTES: usize = 8192;

/// Secrets that this process knows.
static KNOWN: RwLock<Vec<Known>> = RwLock::new(Vec::new());

/// Values that stand where a key is needed and none exists, as the servers' own documentation gives them.
const PLACEHOLDERS: [&str; 12] = [
    "EMPTY",
    "api-key",
    "api_key",
    "dummy-key",
    "fake-key",
    "lm-studio",
    "local-key",
    "no-key",
    "not-needed",
    "ollama",
    "sk-no-key-required",
    "token-abc123",
];

/// A key, token or password. It is shown as `[key]`, and is remembered by the process, for [`redacted`].
///
/// # Examples
/// ```
/// use simplemix_files::secret::{Secret, redacted};
/// let key = Secret::new("sk-0123456789");
/// assert_eq!(format!("{key} {key:?}"), "[key] [key]");
/// assert_eq!(redacted("bad key sk-0123456789!"), "bad key [key]!");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret, which the process remembers from now on.
    pub fn new(value: impl Into<String>) -> Self {
        let value = value.into();
        remember(&value);
        Self(value)
    }

    /// The value of an `authorization` header for a user with a password.
    pub fn basic(user: &str, password: &str) -> Self {
        if password.len() >= 8 {
            remember(password);
        }
        let encoded = forms::base64_of(format!("{user}:{password}").as_bytes());
        remember(&encoded);
        Self(format!("Basic {encoded}"))
    }

    /// The secret itself, for the one place that it goes to.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Remembers a secret. Values of fewer than four bytes are too short to be told from other text; of a list such as Azure's
/// connection strings, the long values are secrets too.
fn remember(value: &str) {
    if value.len() < 4 || value.len() > MOST_BYTES || value.trim().is_empty() || value.starts_with('{') {
        return;
    }
    if value.contains(';') {
        let values = value.split(';').filter_map(|part| Some(part.split_once('=')?.1));
        values.filter(|value| value.len() >= 16 && !value.contains('.')).for_each(remember);
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MOST && !known.iter().any(|other| other.is(value)) {
        // Longer ones first, so that a secret is not left in parts by another one inside it.
        let place = known.partition_point(|other| other.len() >= value.len());
        known.insert(place, Known::new(value, PLACEHOLDERS.contains(&value)));
    }
}

/// Remembers values of environment variables whose name says that they are secret, such as `HF_TOKEN` or `AWS_SECRET_ACCESS_KEY`.
pub fn remember_environment() {
    const PARTS: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CONNECTION_STRING"];
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy().to_ascii_uppercase(), value.to_string_lossy());
        // A path or a word is no secret, and would be taken out of every text that has it.
        let is_plain = value.starts_with(['/', '.', '~']) || !value.bytes().any(|byte| byte.is_ascii_digit());
        if PARTS.iter().any(|part| name.contains(part)) && value.len() >= 8 && !(is_plain && value.len() < 16) {
            remember(value.trim());
        }
    }
}

/// A text for people without secrets: those that the process knows, whatever looks like a key, and user, password, query values
/// and fragment of every URL.
///
/// # Examples
/// ```
/// use simplemix_files::secret::redacted;
/// assert_eq!(redacted("https://me:pass@host/a.parquet?sig=abc&v=1: no"), "https://***@host/a.parquet?sig=***&v=***: no");
/// assert_eq!(redacted("Authorization: Bearer abcdefgh"), "Authorization: Bearer [key]");
/// ```
pub fn redacted(text: &str) -> Cow<'_, str> {
    let steps: [fn(&str) -> Option<String>; 3] = [|text| without_known(text, Use::Shown), urls::masked, shapes::masked];
    let mut text = Cow::Borrowed(text);
    for step in steps {
        if let Some(changed) = step(&text) {
            text = Cow::Owned(changed);
        }
    }
    text
}

/// A text that is data, such as a model's response, without the secrets that the process knows. Nothing else changes, and
/// neither short secrets nor the usual placeholders of servers without keys are taken for secrets.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    without_known(text, Use::Data).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// A text of settings or a report that is stored: without the secrets that the process knows, without user and password in URLs,
/// and with the values of secret names in their queries masked. The rest is as it was, so that it can be read again.
///
/// # Examples
/// ```
/// use simplemix_files::secret::storable;
/// assert_eq!(storable("train = \"https://me:pass@host/a?v=1&sig=abc\""), "train = \"https://host/a?v=1&sig=***\"");
/// ```
pub fn storable(text: &str) -> String {
    let text = without_user(text);
    let text = without_known(&text, Use::Stored).unwrap_or(text);
    urls::masked_parts(&text).unwrap_or(text)
}

fn without_known(text: &str, of: Use) -> Option<String> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut changed = None;
    for secret in known.iter() {
        let found = secret.removed_from(changed.as_deref().unwrap_or(text), of);
        changed = found.or(changed);
    }
    changed
}

/// An error with its causes, each [`redacted`].
///
/// # Examples
/// ```
/// use simplemix_files::secret::RedactedError;
/// let cause = std::io::Error::other("GET http://h/x?sig=abc failed");
/// assert_eq!(RedactedError::new(&cause).to_string(), "GET http://h/x?sig=*** failed");
/// ```
#[derive(Debug)]
pub struct RedactedError {
    text: String,
    cause: Option<Box<Self>>,
}

impl RedactedError {
    /// The texts of `error` and of its causes.
    pub fn new(error: &(dyn StdError + 'static)) -> Self {
        let cause = error.source().map(|cause| Box::new(Self::new(cause)));
        Self { text: redacted(&error.to_string()).into_owned(), cause }
    }
}

impl fmt::Display for RedactedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for RedactedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_header() {
        // Example of RFC 7617, section 2.
        assert_eq!(Secret::basic("Aladdin", "open sesame").expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(redacted("open%20sesame, QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "[key], [key]");
    }

    /// Spellings were made with Python: `urllib.parse.quote`, `json.dumps`, `html.escape`, `base64.b64encode`, `bytes.hex`.
    #[test]
    fn a_secret_is_found_in_other_spellings() {
        let _key = Secret::new("mod-Tests+aa/9Z\"q&17=");
        for (text, expected) in [
            ("<mod-Tests+aa/9Z\"q&17=>", "<[key]>"),
            ("mod-Tests%2Baa%2F9Z%22q%2617%3D.", "[key]."),
            ("mod-Tests%2baa%2f9Z%22q%2617%3d.", "[key]."),
            (r#"{"k":"mod-Tests+aa\/9Z\"q&17="}"#, r#"{"k":"[key]"}"#),
            (r"\u006d\u006fd-Tests+aa/9Z\u0022q\u002617\u003d", "[key]"),
            ("mod-Tests+aa/9Z&quot;q&amp;17=", "[key]"),
            ("mod-Tests&#43;aa&#x2F;9Z&#34;q&#38;17=", "[key]"),
            // base64 of the key, of `user:` with it, and of `Bearer ` with it.
            ("bW9kLVRlc3RzK2FhLzlaInEmMTc9", "[key]"),
            ("x 6d6f642d54657374732b61612f395a22712631373d", "x [key]"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
        for text in ["dXNlcjptb2QtVGVzdHMrYWEvOVoicSYxNz0=", "QmVhcmVyIG1vZC1UZXN0cythYS85WiJxJjE3PQ=="] {
            let shown = redacted(text).into_owned();
            assert!(shown.contains("[key]") && shown.len() < text.len() / 2, "{shown}");
        }
        // Parts that a server leaves of it, and that a cut leaves.
        assert_eq!(redacted("key mod-Tests***q&17="), "key [key]***q&17=");
        assert_eq!(redacted("... mod-Tests+a"), "... [key]");
        assert_eq!(redacted("mod-Tes"), "mod-Tes", "seven characters");
    }

    #[test]
    fn data_keeps_what_is_no_whole_secret() {
        let _keys = ["EMPTY", "word", "longer-data-key-0123456789"].map(Secret::new);
        assert_eq!(without_secrets("EMPTY word https://a/?b=c"), "EMPTY word https://a/?b=c");
        assert_eq!(without_secrets("it is longer-data-key-0123456789."), "it is [key].");
        assert_eq!(without_secrets("longer-data"), "longer-data");
        assert_eq!(redacted("EMPTY word"), "[key] [key]");
    }

    #[test]
    fn an_error_keeps_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer http://u:p@h/")]
        struct Outer(#[source] std::io::Error);
        let error = RedactedError::new(&Outer(std::io::Error::other("inner ?token=abc")));
        assert_eq!(error.to_string(), "outer http://***@h/");
        assert_eq!(error.source().unwrap().to_string(), "inner ?token=***");
    }
}
