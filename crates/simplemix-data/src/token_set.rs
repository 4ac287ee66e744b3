//! Token ids of many pairs in an Arrow IPC file.
//!
//! A row is a kept pair: index in the input, and prompt, chosen and rejected as lists of ids; the prompt is stored once.
//! A file is read whole, which takes the memory of the ids in the run that made it, and ids are borrowed from it. It is not
//! mapped, since a map of a file that another process cuts short ends the program. The file's name is a BLAKE3 hash of
//! everything that the ids depend on, so a set is made once. A lock keeps two processes from making it at the same time.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use simplemix_files::{AtomicFile, Lock};

use crate::error::{Error, Result};
use crate::gather::decode;
use crate::guard::guarded;
use crate::pair::Pair;
use crate::tokenize::{DropReason, PairTokenizer, TokenizedPair, TokenizedSet};

/// Rows per batch of the file.
const BATCH_ROWS: usize = 8192;

/// Version of the file layout and of the tokenising rules; part of the key.
const VERSION: &str = "2";

/// Tokenised pairs of a file.
#[derive(Debug)]
pub struct TokenSet {
    path: PathBuf,
    batches: Vec<Columns>,
    starts: Vec<usize>,
    dropped: BTreeMap<DropReason, usize>,
    cut: u64,
    shifted: u64,
    cached: bool,
}

/// Token ids of a pair, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRow<'a> {
    /// Index of the pair in the input.
    pub index: u64,
    /// Tokens of the prompt, shared by both responses.
    pub prompt: &'a [u32],
    /// Tokens of the chosen response.
    pub chosen: &'a [u32],
    /// Tokens of the rejected response.
    pub rejected: &'a [u32],
}

#[derive(Debug)]
struct Columns {
    index: UInt64Array,
    lists: [(OffsetBuffer<i32>, UInt32Array); 3],
}

impl TokenSet {
    /// Reads a file made by [`PairTokenizer::encode_cached`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Arrow`], [`Error::Damaged`] or [`Error::Schema`] if it is truncated or not a
    /// token set.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        guarded(path, || Self::open_at(path))
    }

    fn open_at(path: &Path) -> Result<Self> {
        let bytes = simplemix_files::read(path).map_err(Error::io(path, "read"))?;
        let (schema, found) = decode(&Buffer::from_vec(bytes)).map_err(Error::arrow(path))?;
        let count = |key: &str| schema.metadata().get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
        let dropped = DropReason::ALL.iter().map(|&reason| (reason, count(&format!("dropped.{reason}")) as usize));
        let mut set = Self {
            path: path.to_owned(),
            batches: Vec::new(),
            starts: vec![0],
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
            cut: count("cut"),
            shifted: count("shifted"),
            cached: true,
        };
        for batch in found {
            set.starts.push(set.starts[set.starts.len() - 1] + batch.num_rows());
            set.batches.push(Columns::of(&batch)?);
        }
        if schema.metadata().get("version").map(String::as_str) != Some(VERSION) {
            let (column, found, expected) = ("version".to_owned(), "another".to_owned(), VERSION.to_owned());
            return Err(Error::Schema { column, found, expected });
        }
        Ok(set)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of kept pairs.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Whether no pair was kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token ids of row `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> TokenRow<'_> {
        let batch = self.starts.partition_point(|&start| start <= row) - 1;
        let (columns, row) = (&self.batches[batch], row - self.starts[batch]);
        let list = |i: usize| {
            let (offsets, values) = &columns.lists[i];
            &values.values()[offsets[row] as usize..offsets[row + 1] as usize]
        };
        TokenRow { index: columns.index.value(row), prompt: list(0), chosen: list(1), rejected: list(2) }
    }

    /// Iterates over all rows in order.
    pub fn iter(&self) -> impl Iterator<Item = TokenRow<'_>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Number of dropped pairs, by reason.
    pub fn dropped(&self) -> &BTreeMap<DropReason, usize> {
        &self.dropped
    }

    /// Number of kept pairs with a truncated response.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Number of kept pairs that lost the end of the prompt, see [`TokenizedSet::shifted`].
    pub fn shifted(&self) -> u64 {
        self.shifted
    }

    /// Whether the file existed before the call that opened it.
    pub fn was_cached(&self) -> bool {
        self.cached
    }
}

impl PairTokenizer {
    /// Opens the token set of `pairs` in `folder`, making it if there is none.
    ///
    /// # Errors
    /// See [`PairTokenizer::encode_all`]; [`Error::Files`] or [`Error::Io`] if the file cannot be written.
    pub fn encode_cached(&self, pairs: &[Pair], folder: impl AsRef<Path>) -> Result<TokenSet> {
        self.encode_cached_in(pairs, folder.as_ref())
    }

    fn encode_cached_in(&self, pairs: &[Pair], folder: &Path) -> Result<TokenSet> {
        simplemix_files::create_dir_all(folder)?;
        let path = self.token_set_path(pairs, folder)?;
        if let Ok(set) = TokenSet::open(&path) {
            return Ok(set);
        }
        let _lock = Lock::wait(path.with_extension("lock"), &mut |_| true)?;
        // Another process may have made it while this one waited.
        if let Ok(set) = TokenSet::open(&path) {
            return Ok(set);
        }
        self.encode_all(pairs)?.write(&path)?;
        Ok(TokenSet { cached: false, ..TokenSet::open(&path)? })
    }

    /// Path of the token set of `pairs` in `folder`; the name is a hash of everything that the ids depend on.
    ///
    /// # Errors
    /// [`Error::Io`] if `tokenizer.json` cannot be read.
    pub fn token_set_path(&self, pairs: &[Pair], folder: impl AsRef<Path>) -> Result<PathBuf> {
        Ok(folder.as_ref().join(format!("{}.arrow", self.key(pairs)?)))
    }

    /// Hash of everything that the ids depend on, in hex.
    fn key(&self, pairs: &[Pair]) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(VERSION.as_bytes());
        part(serde_json::to_string(self.options()).expect("options are names and numbers").as_bytes());
        part(self.fingerprint()?.as_bytes());
        for pair in pairs {
            // The id is a hash of the texts of the pair.
            part(pair.id.as_bytes());
        }
        Ok(hasher.finalize().to_hex()[..32].to_owned())
    }
}

impl TokenizedSet {
    /// Token ids of the kept pairs.
    pub fn rows(&self) -> impl Iterator<Item = TokenRow<'_>> {
        self.pairs.iter().map(|(index, TokenizedPair { prompt, chosen, rejected, .. })| TokenRow {
            index: *index as u64,
            prompt,
            chosen,
            rejected,
        })
    }

    /// Writes the ids to an Arrow IPC file for [`TokenSet::open`], whole or not at all.
    ///
    /// # Errors
    /// [`Error::Files`] or [`Error::Io`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut metadata = std::collections::HashMap::from([
            ("version".to_owned(), VERSION.to_owned()),
            ("cut".to_owned(), self.cut.to_string()),
            ("shifted".to_owned(), self.shifted.to_string()),
        ]);
        metadata.extend(self.dropped.iter().map(|(reason, count)| (format!("dropped.{reason}"), count.to_string())));
        let schema = Arc::new(schema().as_ref().clone().with_metadata(metadata));
        let arrow = |source: ArrowError| Error::writing(path)(source);
        let mut writer = FileWriter::try_new(BufWriter::new(AtomicFile::create(path)?), &schema).map_err(arrow)?;
        for rows in self.pairs.chunks(BATCH_ROWS) {
            writer.write(&batch(rows, &schema).map_err(arrow)?).map_err(arrow)?;
        }
        let file = writer.into_inner().map_err(arrow)?;
        let file = file.into_inner().map_err(|error| Error::io(path, "write")(error.into_error()))?;
        Ok(file.commit()?)
    }
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        for (field, found) in schema().fields().iter().zip(batch.schema().fields()) {
            if field.name() != found.name() || !field.data_type().equals_datatype(found.data_type()) {
                return Err(Error::Schema {
                    column: field.name().clone(),
                    found: format!("`{}` of {}", found.name(), found.data_type()),
                    expected: field.data_type().to_string(),
                });
            }
        }
        let list = |i: usize| {
            let list = batch.column(i).as_list::<i32>();
            (list.offsets().clone(), list.values().as_primitive::<UInt32Type>().clone())
        };
        Ok(Self { index: batch.column(0).as_primitive::<UInt64Type>().clone(), lists: [list(1), list(2), list(3)] })
    }
}

fn schema() -> SchemaRef {
    let ids = DataType::List(Arc::new(Field::new("item", DataType::UInt32, false)));
    Arc::new(Schema::new(vec![
        Field::new("index", DataType::UInt64, false),
        Field::new("prompt", ids.clone(), false),
        Field::new("chosen", ids.clone(), false),
        Field::new("rejected", ids, false),
        Field::new("cut", DataType::Boolean, false),
        Field::new("shifted", DataType::Boolean, false),
    ]))
}

fn batch(rows: &[(usize, TokenizedPair)], schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let list = |of: fn(&TokenizedPair) -> &Vec<u32>| -> Result<ArrayRef, arrow::error::ArrowError> {
        let offsets = OffsetBuffer::from_lengths(rows.iter().map(|(_, pair)| of(pair).len()));
        let ids: ScalarBuffer<u32> = rows.iter().flat_map(|(_, pair)| of(pair).iter().copied()).collect();
        let item = Arc::new(Field::new("item", DataType::UInt32, false));
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(UInt32Array::new(ids, None)), None)?))
    };
    let flags = |of: fn(&TokenizedPair) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, pair)| Some(of(pair))).collect::<BooleanArray>())
    };
    let index: UInt64Array = rows.iter().map(|(index, _)| *index as u64).collect();
    RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(index),
            list(|pair| &pair.prompt)?,
            list(|pair| &pair.chosen)?,
            list(|pair| &pair.rejected)?,
            flags(|pair| pair.cut),
            flags(|pair| pair.shifted),
        ],
    )
}
