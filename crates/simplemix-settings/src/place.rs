//! Lines of settings in their files.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::error::Error;

/// Place that an error is about: file and line of the key, or the file if that cannot be told.
///
/// ```
/// use std::path::Path;
/// use simplemix_settings::{Error, place};
/// let text = "seed = 1\n[loss]\nbeta = -1\n";
/// let error = Error::value("loss.beta", -1, "a number above 0");
/// assert_eq!(place(Path::new("run.toml"), text, &error), "run.toml:3");
/// ```
pub fn place(path: &Path, text: &str, error: &Error) -> String {
    let line = error.key().and_then(|key| line(text, key));
    line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()))
}

/// The text of an error with its place; where several settings are at fault, a line for each.
///
/// ```
/// use std::path::Path;
/// use simplemix_settings::{Error, placed};
/// let text = "[loss]\nbeta = -1\ngamma = 3\n";
/// let wrong = Error::value("loss.beta", -1, "a number above 0");
/// let unknown = Error::Unknown { key: "loss.gamma".to_owned(), meant: None };
/// let shown = placed(Path::new("run.toml"), text, &Error::Several(vec![wrong, unknown]));
/// assert_eq!(
///     shown,
///     "run.toml:2: `loss.beta` is -1, expected a number above 0\nrun.toml:3: unknown key `loss.gamma`"
/// );
/// ```
pub fn placed(path: &Path, text: &str, error: &Error) -> String {
    let one = |error: &Error| format!("{}: {error}", place(path, text, error));
    error.each().iter().map(one).collect::<Vec<_>>().join("\n")
}

fn line(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let (mut table, mut start) = (root.get_ref(), None);
    for part in key.split('.') {
        let (found, value) = table.iter().find(|(key, _)| key.get_ref() == part)?;
        start = Some(found.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    start.map(|start| text[..start].matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_written() {
        let text = "a = 1\nb.c = 2\n[d]\n\n  e = { f = 3 }\n";
        for (key, expected) in [("a", Some(1)), ("b.c", Some(2)), ("d.e", Some(5)), ("d.e.f", Some(5)), ("x", None)] {
            assert_eq!(line(text, key), expected, "{key}");
        }
        assert_eq!(line("no toml", "a"), None);
    }
}
