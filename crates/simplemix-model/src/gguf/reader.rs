//! The container: header, metadata, tensor table. Nothing is allocated from a count that the file has not the bytes for, nor for
//! more than a model has. The file is read, not mapped, since a map of a file that another process cuts short ends the program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use simplemix_files::is_lfs_pointer;

use super::error::{GgufError, Result};
use super::quant::Quant;

const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// GGML's own limit.
const MAX_DIMENSIONS: usize = 4;
/// Most tensors, and most metadata.
const MAX_ENTRIES: u64 = 1 << 20;
/// Most items of all lists together; a vocabulary has three or four of its length.
const MAX_ITEMS: u64 = 1 << 24;
/// Most bytes of all texts together: the vocabulary, merges, a chat template.
const MAX_TEXT: u64 = 512 << 20;

/// A metadata value; numbers are widened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorInfo {
    /// As GGUF has it: the fastest dimension first.
    pub(super) dimensions: Vec<u64>,
    pub(super) quant: Quant,
    /// Place in the file.
    pub(super) start: u64,
    pub(super) length: usize,
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct Gguf<'a> {
    pub(super) path: &'a Path,
    file: File,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl<'a> Gguf<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let io = |source| GgufError::Io { path: path.to_owned(), action: "read", source };
        let file = simplemix_files::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut cursor = Cursor { path, input: BufReader::new(&file), length, at: 0, items: 0, text: 0 };
        let (metadata, tensors) = cursor.parse()?;
        Ok(Self { path, file, metadata, tensors })
    }

    /// Bytes of a tensor.
    pub(super) fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let mut bytes = vec![0; info.length];
        self.file.read_exact_at(&mut bytes, info.start).map_err(|source| cut_short(self.path, info.start, source))?;
        Ok(bytes)
    }

    pub(super) fn unsupported(&self, key: &str, found: impl Into<String>, expected: &str) -> GgufError {
        unsupported(self.path, key, found.into(), expected)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn unsigned(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Unsigned(n)) => Some(*n),
            Some(Value::Signed(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(x)) => Some(*x),
            _ => self.unsigned(key).map(|n| n as f64),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn list(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key) {
            Some(Value::List(values)) => Some(values),
            _ => None,
        }
    }

    /// A number that the model cannot do without.
    pub(super) fn needed(&self, key: &str) -> Result<u64> {
        self.unsigned(key).ok_or_else(|| self.unsupported(key, "absent or no number", "a number from 0"))
    }
}

fn unsupported(path: &Path, key: &str, found: String, expected: &str) -> GgufError {
    GgufError::Unsupported { path: path.to_owned(), key: key.to_owned(), found, expected: expected.to_owned() }
}

/// A tensor as its table entry reads.
struct RawTensor {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
    entry: u64,
}

struct Cursor<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    /// Bytes of the file, and of them read.
    length: u64,
    at: u64,
    /// Items of lists, and bytes of texts, so far.
    items: u64,
    text: u64,
}

/// Why bytes that a file had when it was opened are not read.
fn cut_short(path: &Path, offset: u64, source: std::io::Error) -> GgufError {
    match source.kind() {
        ErrorKind::UnexpectedEof => GgufError::Damaged {
            path: path.to_owned(),
            offset,
            found: "the end of the file, which was cut short meanwhile".to_owned(),
            expected: "its bytes".to_owned(),
        },
        _ => GgufError::Io { path: path.to_owned(), action: "read", source },
    }
}

impl Cursor<'_> {
    /// Metadata and tensors.
    fn parse(&mut self) -> Result<(BTreeMap<String, Value>, BTreeMap<String, TensorInfo>)> {
        if self.array::<4>()? != *MAGIC {
            let found = if is_lfs_pointer(self.path) { "Git LFS's pointer to the file" } else { "other bytes" };
            return Err(self.damaged(0, found.to_owned(), "the letters GGUF"));
        }
        let version = self.u32()?;
        if (1..=3).contains(&version.swap_bytes()) {
            return Err(self.damaged(4, "a big-endian file".to_owned(), "a little-endian one"));
        }
        if !(2..=3).contains(&version) {
            return Err(self.damaged(4, format!("version {version}"), "version 2 or 3, little-endian"));
        }
        let tensor_count = self.count(24, MAX_ENTRIES)?;
        let value_count = self.count(13, MAX_ENTRIES)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..value_count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            metadata.insert(key, value);
        }
        let mut table = Vec::new();
        for _ in 0..tensor_count {
            table.push(self.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
            Some(Value::Unsigned(n)) => {
                return Err(self.unsupported("general.alignment", n.to_string(), "a power of two"));
            }
            Some(_) => return Err(self.unsupported("general.alignment", "no number".to_owned(), "a power of two")),
        };
        let base = self.at.next_multiple_of(alignment);
        let tensors = table.into_iter().map(|raw| self.place(raw, base)).collect::<Result<_>>()?;
        Ok((metadata, tensors))
    }

    fn damaged(&self, offset: u64, found: String, expected: &str) -> GgufError {
        GgufError::Damaged { path: self.path.to_owned(), offset, found, expected: expected.to_owned() }
    }

    fn unsupported(&self, key: &str, found: String, expected: &str) -> GgufError {
        unsupported(self.path, key, found, expected)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let (wanted, left) = (buffer.len() as u64, self.length - self.at);
        if wanted > left {
            return Err(self.damaged(self.at, format!("{left} bytes left"), &format!("{wanted} more")));
        }
        self.input.read_exact(buffer).map_err(|source| cut_short(self.path, self.at, source))?;
        self.at += wanted;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of at most `most` things that take at least `least` bytes each.
    fn count(&mut self, least: u64, most: u64) -> Result<u64> {
        let at = self.at;
        let count = self.u64()?;
        let room = (self.length - self.at) / least;
        if count > room {
            let expected = format!("at most {room}, which the file has room for");
            return Err(self.damaged(at, format!("a count of {count}"), &expected));
        }
        if count > most {
            return Err(self.damaged(at, format!("a count of {count}"), &format!("at most {most}")));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.count(1, MAX_TEXT - self.text)?;
        self.text += length;
        let at = self.at;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to() as u64;
            self.damaged(at + valid, "other bytes".into(), "UTF-8")
        })
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.list(depth)?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.damaged(self.at - 4, format!("value type {kind}"), "a type from 0 to 12")),
        })
    }

    fn list(&mut self, depth: u32) -> Result<Value> {
        if depth > 4 {
            return Err(self.damaged(self.at, "lists in lists".to_owned(), "at most four levels"));
        }
        let kind = self.u32()?;
        let count = self.count(1, MAX_ITEMS - self.items)?;
        self.items += count;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn tensor(&mut self) -> Result<RawTensor> {
        let entry = self.at;
        let name = self.text()?;
        let count = self.u32()? as usize;
        if count > MAX_DIMENSIONS {
            return Err(self.damaged(self.at - 4, format!("{count} dimensions"), "at most 4"));
        }
        let dimensions = (0..count).map(|_| self.u64()).collect::<Result<_>>()?;
        Ok(RawTensor { name, dimensions, kind: self.u32()?, offset: self.u64()?, entry })
    }

    /// Checks that a tensor's bytes lie inside the file.
    fn place(&self, raw: RawTensor, base: u64) -> Result<(String, TensorInfo)> {
        let RawTensor { name, dimensions, kind, offset, entry } = raw;
        let Some(quant) = Quant::of(kind) else {
            let expected =
                format!("{}: take the model in one of these, or convert it with `llama-quantize`", Quant::NAMES);
            return Err(self.unsupported(&name, Quant::name(kind), &expected));
        };
        let row = dimensions.first().copied().unwrap_or(1);
        let numel = dimensions.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = numel
            .filter(|_| row % quant.block() as u64 == 0)
            .and_then(|n| (n / quant.block() as u64).checked_mul(quant.block_bytes() as u64));
        let start = base.checked_add(offset);
        let end = start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.length => {
                Ok((name, TensorInfo { dimensions, quant, start, length: (end - start) as usize }))
            }
            _ => Err(self.damaged(
                entry,
                format!("tensor `{name}` of {dimensions:?} at offset {offset}"),
                &format!("whole rows inside the file's {} bytes", self.length),
            )),
        }
    }
}
