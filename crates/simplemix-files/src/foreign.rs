//! Texts of files that are something else than their name says.

use std::io::Read;
use std::path::Path;

/// First bytes of the file that Git LFS keeps in place of a large one.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether a file is Git LFS's pointer to the file that should be there. A file that cannot be read is none.
pub fn is_lfs_pointer(path: impl AsRef<Path>) -> bool {
    let mut start = Vec::with_capacity(LFS.len());
    let read = crate::input::open(path).and_then(|file| file.take(LFS.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == LFS
}

/// The number that makes a JSON text invalid, where Python wrote `Infinity`, `-Infinity` or `NaN`: the key before it, and the
/// number.
pub fn python_number(text: &str) -> Option<(String, &'static str)> {
    let mut last_text = "";
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c == '"' || c.is_ascii_alphabetic() || c == '-') {
        rest = &rest[start..];
        if let Some(inner) = rest.strip_prefix('"') {
            let end = end_of_text(inner)?;
            last_text = &inner[..end];
            rest = &inner[end + 1..];
            continue;
        }
        let numbers = ["-Infinity", "Infinity", "NaN"];
        if let Some(number) = numbers.into_iter().find(|number| rest.starts_with(number)) {
            return Some((last_text.to_owned(), number));
        }
        let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        rest = &rest[word..];
    }
    None
}

/// Offset of the quotation mark that ends a JSON text.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_found_with_their_keys() {
        let found = |text| python_number(text).map(|(key, number)| format!("{key}={number}"));
        assert_eq!(found(r#"{"a": 1e-5, "b\"c": [1, -Infinity]}"#), Some(r#"b\"c=-Infinity"#.to_owned()));
        assert_eq!(found(r#"{"a": {"rope_theta": Infinity}}"#), Some("rope_theta=Infinity".to_owned()));
        assert_eq!(found(r#"{"a": "NaN", "b": -1, "c": null, "NaN": "x\\", "d": NaN}"#), Some("d=NaN".to_owned()));
        assert_eq!(found(r#"{"a": "Infinity", "b": true}"#), None);
        assert_eq!(found(r#"{"a": "never ends NaN"#), None);
    }

    #[test]
    fn pointers_are_told_by_their_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        assert!(!is_lfs_pointer(&path));
        for (text, is) in
            [("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", true), ("version 1", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_lfs_pointer(&path), is);
        }
    }
}
