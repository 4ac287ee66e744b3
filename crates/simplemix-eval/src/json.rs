//! Files of JSON objects, as an array or an object a line, plain or compressed by gzip.

use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{At, Error, Result};

/// Most bytes that a compressed file of `length` bytes may expand to: 64 MiB, and 64 times its own. It is held whole.
pub(crate) fn most_expanded(length: usize) -> u64 {
    (64 << 20) + 64 * length as u64
}

/// Reads a file, decompressed if it is gzip, without a byte order mark.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    BufReader::new(simplemix_files::open(path).at(path, "open")?).read_to_end(&mut bytes).at(path, "read")?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let (mut unpacked, most) = (Vec::new(), most_expanded(bytes.len()));
        let decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
        decoder.take(most + 1).read_to_end(&mut unpacked).at(path, "decompress")?;
        if unpacked.len() as u64 > most {
            let found = format!("{} bytes that expand to more than {most}", bytes.len());
            return Err(Error::malformed(path, found));
        }
        bytes = unpacked;
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Reads the objects of a file.
pub(crate) fn read_objects(path: &Path) -> Result<Vec<Object>> {
    objects(path, &read_bytes(path)?)
}

/// Reads the objects of a JSON array or of JSON lines; an error names the object by its index.
pub(crate) fn objects(path: &Path, bytes: &[u8]) -> Result<Vec<Object>> {
    let cells: Vec<Map<String, Value>> = elements(path, &without_nan(bytes))?;
    Ok(cells.into_iter().enumerate().map(|(row, cells)| Object { row, cells }).collect())
}

fn elements<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<T>> {
    let is_array = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    if is_array {
        let Rows(rows) = serde_json::from_slice(bytes).map_err(|e| Error::malformed(path, e))?;
        return Ok(rows);
    }
    let rows = serde_json::Deserializer::from_slice(bytes).into_iter::<T>().enumerate();
    rows.map(|(row, entry)| entry.map_err(|e| Error::malformed(path, format!("row {row}: {e}")))).collect()
}

/// Replaces `NaN` and `Infinity`, which Python writes although JSON does not have them, by `null`.
fn without_nan(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut kept, mut start, mut place, mut in_text) = (Vec::new(), 0, 0, false);
    while place < bytes.len() {
        match bytes[place] {
            b'\\' if in_text => place += 1,
            b'"' => in_text = !in_text,
            b'N' | b'I' | b'-' if !in_text => {
                if let Some(name) = NAMES.into_iter().find(|name| bytes[place..].starts_with(name)) {
                    kept.extend_from_slice(&bytes[start..place]);
                    kept.extend_from_slice(b"null");
                    place += name.len();
                    start = place;
                    continue;
                }
            }
            _ => {}
        }
        place += 1;
    }
    if kept.is_empty() {
        return bytes.into();
    }
    kept.extend_from_slice(&bytes[start..]);
    kept.into()
}

/// An object of a file. Its values are read by name, and an error says what was found there.
#[derive(Debug)]
pub(crate) struct Object {
    /// Index in the file.
    pub(crate) row: usize,
    cells: Map<String, Value>,
}

impl Object {
    /// The value of the first of `keys` that has one; null is none.
    fn first<'a>(&self, keys: &[&'a str]) -> Option<(&'a str, &Value)> {
        keys.iter().find_map(|key| Some((*key, self.cells.get(*key).filter(|value| !value.is_null())?)))
    }

    /// Text under the first of `keys` that has a value. A number is the text that the file has for it.
    pub(crate) fn text(&self, path: &Path, keys: &[&str]) -> Result<Option<String>> {
        match self.first(keys) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text.clone())),
            Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
            Some((key, other)) => Err(self.wrong(path, key, other, "text")),
        }
    }

    /// Text that must be there under one of `keys`.
    pub(crate) fn needed_text(&self, path: &Path, keys: &[&str]) -> Result<String> {
        self.text(path, keys)?.ok_or_else(|| {
            let named = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or ");
            let found = match keys.iter().any(|key| self.cells.contains_key(*key)) {
                true => "null there".to_owned(),
                false => format!("the keys {}", self.keys()),
            };
            Error::malformed(path, format!("row {}: no text in {named}, found {found}", self.row))
        })
    }

    /// Number under `key`.
    pub(crate) fn number(&self, path: &Path, key: &str) -> Result<Option<f64>> {
        match self.first(&[key]) {
            None => Ok(None),
            Some((_, Value::Number(number))) => Ok(number.as_f64()),
            Some((key, other)) => Err(self.wrong(path, key, other, "a number")),
        }
    }

    fn keys(&self) -> String {
        match self.cells.is_empty() {
            true => "of an empty object".to_owned(),
            false => self.cells.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        }
    }

    fn wrong(&self, path: &Path, key: &str, found: &Value, expected: &str) -> Error {
        let found = match found {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            other => other.to_string(),
        };
        Error::malformed(path, format!("row {}: `{key}` is {found}, expected {expected}", self.row))
    }
}

/// A sequence whose errors name the index of the element.
struct Rows<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rows<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Rows<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Rows<T>, A::Error> {
                let mut rows = Vec::new();
                loop {
                    match seq.next_element() {
                        Ok(Some(row)) => rows.push(row),
                        Ok(None) => return Ok(Rows(rows)),
                        Err(e) => return Err(serde::de::Error::custom(format!("row {}: {e}", rows.len()))),
                    }
                }
            }
        }

        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "f.json";

    fn read(text: &str) -> Vec<Object> {
        objects(Path::new(PATH), text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_read_by_the_first_name_that_has_one() {
        let rows = read(r#"[{"a": null, "b": "x", "n": 4, "f": 4.50, "big": NaN}]"#);
        let text = |keys: &[&str]| rows[0].text(Path::new(PATH), keys).unwrap();
        assert_eq!((text(&["a", "b"]).as_deref(), text(&["b", "n"]).as_deref()), (Some("x"), Some("x")));
        assert_eq!((text(&["n"]).as_deref(), text(&["f"]).as_deref(), text(&["big"])), (Some("4"), Some("4.5"), None));
        assert_eq!(rows[0].number(Path::new(PATH), "n").unwrap(), Some(4.0));
    }

    #[test]
    fn errors_name_row_and_key() {
        let rows = read("{}\n{\"output\": null, \"n\": [1], \"ok\": true}\n");
        let needed = |row: usize| rows[row].needed_text(Path::new(PATH), &["output", "text"]).unwrap_err().to_string();
        assert_eq!(needed(0), "f.json: row 0: no text in `output` or `text`, found the keys of an empty object");
        assert_eq!(needed(1), "f.json: row 1: no text in `output` or `text`, found null there");
        let number = rows[1].number(Path::new(PATH), "n").unwrap_err().to_string();
        assert_eq!(number, "f.json: row 1: `n` is a list, expected a number");
        let text = rows[1].text(Path::new(PATH), &["ok"]).unwrap_err().to_string();
        assert_eq!(text, "f.json: row 1: `ok` is true, expected text");
        assert!(objects(Path::new(PATH), b"[{}, 3]").unwrap_err().to_string().starts_with("f.json: row 1: "));
    }

    #[test]
    fn a_byte_order_mark_and_gzip_are_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json.gz");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, b"\xef\xbb\xbf[{\"a\": \"b\"}]").unwrap();
        std::fs::write(&path, packer.finish().unwrap()).unwrap();
        assert_eq!(read_objects(&path).unwrap()[0].text(&path, &["a"]).unwrap().as_deref(), Some("b"));
    }
}
