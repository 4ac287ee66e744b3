//! Files of JSON objects, as an array or an object a line, plain or compressed by gzip.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{At, Error, Result};

/// Reads a file, decompressed if it is gzip.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    BufReader::new(File::open(path).at(path, "open")?).read_to_end(&mut bytes).at(path, "read")?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).at(path, "decompress")?;
        return Ok(unpacked);
    }
    Ok(bytes)
}

/// Reads the objects of a file.
pub(crate) fn read_objects<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    objects(path, &read_bytes(path)?)
}

/// Reads the objects of a JSON array or of JSON lines; an error names the object by its index.
pub(crate) fn objects<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<T>> {
    let is_array = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    if is_array {
        let Rows(rows) = serde_json::from_slice(bytes).map_err(|e| Error::malformed(path, e))?;
        return Ok(rows);
    }
    let rows = serde_json::Deserializer::from_slice(bytes).into_iter::<T>().enumerate();
    rows.map(|(row, entry)| entry.map_err(|e| Error::malformed(path, format!("row {row}: {e}")))).collect()
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
