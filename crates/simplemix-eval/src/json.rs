//! Files of JSON objects, as an array or an object a line, plain or compressed by gzip.

use std::io::{BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};
use simplemix_data::{Problems, RowReader};

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

/// Reads the objects of a file as files of pairs are read. Rows that are no objects, or not text since they hold a lone surrogate,
/// are left out and counted.
pub(crate) fn read_objects(path: &Path) -> Result<(Vec<Object>, Problems)> {
    let mut reader = match RowReader::open(path) {
        // A file without rows has no objects.
        Err(simplemix_data::Error::Empty { .. }) => return Ok((Vec::new(), Problems::default())),
        reader => reader?,
    };
    let mut objects = Vec::new();
    while let Some(cells) = reader.next().transpose()? {
        objects.push(Object { row: reader.row() as usize, cells });
    }
    Ok((objects, reader.refused().clone()))
}

/// Reads the objects of a file, and adds a sentence to `notices` if rows were left out.
pub(crate) fn objects_and_notices(path: &Path, notices: &mut Vec<String>) -> Result<Vec<Object>> {
    let (objects, refused) = read_objects(path)?;
    if !refused.is_empty() {
        let rows: Vec<String> = refused.iter().flat_map(|(_, of)| &of.first_rows).map(ToString::to_string).collect();
        let (path, total, first) = (path.display(), refused.total(), rows.join(", "));
        notices.push(format!("{path}: {total} rows left out that cannot be read: {refused} (first rows {first})"));
    }
    Ok(objects)
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

    /// Texts under `key`: one, or a list of them. Numbers are the text that the file has for them.
    pub(crate) fn texts(&self, path: &Path, key: &str) -> Result<Vec<String>> {
        let Some((_, Value::Array(items))) = self.first(&[key]) else {
            return Ok(self.text(path, &[key])?.into_iter().collect());
        };
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(self.wrong(path, key, other, "a text or number in the list")),
        };
        items.iter().map(text).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "f.json";

    fn objects(text: &str) -> Result<(Vec<Object>, Problems)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PATH), text).unwrap();
        read_objects(&dir.path().join(PATH))
    }

    fn read(text: &str) -> Vec<Object> {
        objects(text).unwrap().0
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
        let error = objects("{}\n{\"a\": }").unwrap_err().to_string();
        assert!(error.contains("f.json: row 1"), "{error}");
    }

    #[test]
    fn a_row_that_is_not_text_is_left_out_and_counted() {
        for text in
            ["[{\"a\": 1}, {\"a\": \"\\ud800\"}, 3, {\"a\": 2}]", "{\"a\": 1}\n{\"a\": \"\\udc00 x\"}\n3\n{\"a\": 2}\n"]
        {
            let (rows, refused) = objects(text).unwrap();
            assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [0, 3], "{text}");
            assert_eq!(refused.to_string(), "wrong-type 1, lone-surrogate 1", "{text}");
        }
        assert!(objects("[]").unwrap().0.is_empty());
    }

    #[test]
    fn a_byte_order_mark_and_gzip_are_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json.gz");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, b"\xef\xbb\xbf[{\"a\": \"b\"}]").unwrap();
        std::fs::write(&path, packer.finish().unwrap()).unwrap();
        assert_eq!(read_objects(&path).unwrap().0[0].text(&path, &["a"]).unwrap().as_deref(), Some("b"));
    }
}
