//! Tensors of a safetensors file, read one at a time.
//!
//! A file is checked as a whole before the first tensor: its length, the places of all tensors, and that no name occurs
//! twice. It is read, not mapped, since a map of a file that another process cuts short ends the program.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use tch::{Device, Kind, Tensor};

use crate::error::{At, Doing, Error, Result};

/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;
/// Longest header, the limit of the safetensors library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open file whose header has been checked.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: File,
    /// Offset of the tensors' bytes.
    start: u64,
    metadata: Metadata,
    /// Bytes of the tensor that is being read.
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Safetensors`] for a file that is damaged or cut off.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Opening a named pipe would wait for a writer.
        let found = fs::metadata(path).at(path, "read")?;
        if !found.is_file() {
            return Err(damaged(path, "it is not a regular file"));
        }
        let file = simplemix_files::open(path).at(path, "read")?;
        let (bytes, mut length) = (found.len(), [0; LENGTH_BYTES as usize]);
        if bytes < LENGTH_BYTES {
            return Err(damaged(path, format!("it has {bytes} bytes, expected a header")));
        }
        file.read_exact_at(&mut length, 0).at(path, "read")?;
        let length = u64::from_le_bytes(length);
        let start = length.saturating_add(LENGTH_BYTES);
        if length > MAX_HEADER_BYTES || start > bytes {
            return Err(damaged(path, format!("its header has {length} bytes, the file {bytes}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, LENGTH_BYTES).at(path, "read")?;
        check_names(&header).map_err(|error| damaged(path, format!("its header is not valid: {error}")))?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(path, format!("its header is not valid: {error}")))?;
        let expected = start.saturating_add(metadata.data_len() as u64);
        if bytes != expected {
            return Err(damaged(path, format!("it has {bytes} bytes, its header expects {expected}")));
        }
        Ok(Self { path: path.to_owned(), file, start, metadata, buffer: Vec::new() })
    }

    /// Names of all tensors, in the order of their bytes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if there is no such tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self.info(name)?.shape.iter().map(|&n| n as i64).collect())
    }

    /// First byte of a tensor in the file, number of bytes, element type and shape.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if there is no such tensor.
    pub(crate) fn place(&self, name: &str) -> Result<(u64, usize, Dtype, Vec<usize>)> {
        let info = self.info(name)?;
        let (first, end) = info.data_offsets;
        Ok((self.start + first as u64, end - first, info.dtype, info.shape.clone()))
    }

    /// Reads a tensor, as `kind` if one is given, else as it is stored.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Safetensors`] for an element type that is not read, or no such tensor; [`Error::Torch`].
    pub(crate) fn tensor(&mut self, name: &str, kind: Option<Kind>, device: Device) -> Result<Tensor> {
        let stored = kind_of(&self.path, name, self.info(name)?.dtype)?;
        self.read(name, stored, kind, device)
    }

    /// Reads a tensor of a quantised checkpoint as it is stored, onto the CPU: integers too.
    ///
    /// # Errors
    /// As [`Reader::tensor`].
    pub(crate) fn stored(&mut self, name: &str) -> Result<Tensor> {
        let stored = match self.info(name)?.dtype {
            Dtype::U8 => Kind::Uint8,
            Dtype::I8 => Kind::Int8,
            Dtype::I32 => Kind::Int,
            other => kind_of(&self.path, name, other)?,
        };
        self.read(name, stored, None, Device::Cpu)
    }

    fn read(&mut self, name: &str, stored: Kind, kind: Option<Kind>, device: Device) -> Result<Tensor> {
        let info = self.info(name)?;
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let (first, end) = info.data_offsets;
        self.buffer.resize(end - first, 0);
        self.file.read_exact_at(&mut self.buffer, self.start + first as u64).map_err(|source| {
            if source.kind() == ErrorKind::UnexpectedEof {
                return damaged(&self.path, format!("it was cut short while `{name}` was read"));
            }
            Error::Io { path: self.path.clone(), action: "read", source }
        })?;
        Tensor::f_from_data_size(&self.buffer, &shape, stored)
            .and_then(|t| t.f_to_device(device))
            .and_then(|t| kind.map_or(Ok(t.shallow_clone()), |kind| t.f_to_kind(kind)))
            .doing("copying weights")
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| damaged(&self.path, format!("`{name}` is not in it")))
    }
}

/// Refuses a header in which a name occurs twice, of which the library would take one.
fn check_names(header: &[u8]) -> serde_json::Result<()> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tensors by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                if seen.contains(&name) {
                    return Err(A::Error::custom(format!("`{name}` is in it twice")));
                }
                seen.insert(name);
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(header);
    json.deserialize_map(Names)?;
    json.end()
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Safetensors { path: path.to_owned(), reason: reason.into() }
}

fn kind_of(path: &Path, name: &str, dtype: Dtype) -> Result<Kind> {
    Ok(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        other => {
            return Err(damaged(
                path,
                format!("`{name}` is {other:?}, expected F32, F16 or BF16: quantised weights are not read"),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, header: &str, data: usize) -> PathBuf {
        let path = dir.join("model.safetensors");
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_name_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let a = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let mut reader = Reader::open(&written(dir.path(), &format!("{{{a}}}"), 4)).unwrap();
        assert_eq!((reader.names(), reader.shape("a").unwrap()), (vec!["a".to_owned()], vec![1]));
        assert_eq!(reader.tensor("a", Some(Kind::Double), Device::Cpu).unwrap().kind(), Kind::Double);
        let error = reader.tensor("b", None, Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("`b` is not in it"), "{error}");
        let error = Reader::open(&written(dir.path(), &format!("{{{a},{a}}}"), 4)).unwrap_err().to_string();
        assert!(error.contains("its header is not valid: `a` is in it twice"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_short_meanwhile_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 16);
        let mut reader = Reader::open(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70).unwrap();
        let error = reader.tensor("a", None, Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("it was cut short while `a` was read"), "{error}");
        let error = Reader::open(&path).unwrap_err().to_string();
        assert!(error.ends_with("it has 70 bytes, its header expects 79"), "{error}");
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [dir.path(), &pipe] {
            let error = Reader::open(path).unwrap_err().to_string();
            assert!(error.ends_with("it is not a regular file"), "{error}");
        }
    }
}
