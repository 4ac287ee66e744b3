//! File containers, detected by their first bytes, and readers of chunks of rows for each.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::Length;
use serde_json::{Map, Value};

use crate::cell::Struct;
use crate::error::{Error, Result};
use crate::format::Columns;
use crate::guard::{Guarded, guarded};
use crate::problem::Problem;
use crate::read::bounded::BoundedFile;
use crate::read::budget::{max_compressed_text, max_row, max_text};
use crate::read::ipc::{check_file, check_stream};
use crate::read::json::{Elements, Nesting, SplitError, Text};
use crate::read::json_row;
use crate::read::pieces::Pieces;
use crate::read::plain;

/// Bytes after which a chunk of rows is closed.
const CHUNK_BYTES: usize = 8 << 20;

/// Container of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Container {
    /// Apache Parquet.
    Parquet,
    /// An Arrow IPC file, also known as Feather 2.
    ArrowFile,
    /// An Arrow IPC stream, as in the cache of `datasets`.
    ArrowStream,
    /// One JSON object per line.
    JsonLines,
    /// JSON objects one after the other, each over several lines.
    JsonObjects,
    /// One JSON array of objects.
    JsonArray,
}

impl Container {
    /// Whether values have no declared types.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::JsonLines | Self::JsonObjects | Self::JsonArray)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Container::Parquet => "Parquet",
            Container::ArrowFile => "Arrow IPC file",
            Container::ArrowStream => "Arrow IPC stream",
            Container::JsonLines => "JSON lines",
            Container::JsonObjects => "JSON objects",
            Container::JsonArray => "JSON array",
        })
    }
}

/// Some rows of a file.
pub(crate) enum Chunk {
    Arrow {
        rows: StructArray,
        schema: SchemaRef,
    },
    Json(Vec<JsonRow>),
    /// Rows of Arrow some of whose columns have been parsed, and all columns as they were.
    Parsed {
        rows: Vec<JsonRow>,
        columns: StructArray,
        schema: SchemaRef,
    },
}

/// A parsed row, or its problem.
pub(crate) struct JsonRow {
    /// Number of rows of the file that it was made from.
    pub(crate) span: u32,
    pub(crate) fields: Result<Map<String, Value>, Problem>,
}

impl Chunk {
    /// Renames columns; `name` returns the new name, if there is one.
    pub(crate) fn renamed(self, name: &impl Fn(&str) -> Option<String>) -> Self {
        match self {
            Chunk::Arrow { rows, .. } => {
                let (fields, columns, nulls) = rows.into_parts();
                let rename = |field: &FieldRef| match name(field.name()) {
                    Some(new) => Arc::new(field.as_ref().clone().with_name(new)),
                    None => field.clone(),
                };
                let fields: Fields = fields.iter().map(rename).collect();
                let schema = Arc::new(Schema::new(fields.clone()));
                Chunk::Arrow { rows: StructArray::new(fields, columns, nulls), schema }
            }
            Chunk::Json(rows) => {
                let rename = |row: JsonRow| JsonRow {
                    fields: row.fields.map(|fields| {
                        fields.into_iter().map(|(key, value)| (name(&key).unwrap_or(key), value)).collect()
                    }),
                    ..row
                };
                Chunk::Json(rows.into_iter().map(rename).collect())
            }
            // Columns are parsed after they got their names.
            parsed @ Chunk::Parsed { .. } => parsed,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Chunk::Arrow { rows, .. } => rows.len(),
            Chunk::Json(rows) | Chunk::Parsed { rows, .. } => rows.len(),
        }
    }

    pub(crate) fn row(&self, row: usize) -> Result<Struct<'_>, Problem> {
        match self {
            Chunk::Arrow { rows, .. } => Ok(Struct::Arrow { array: rows, row }),
            Chunk::Json(rows) | Chunk::Parsed { rows, .. } => match &rows[row].fields {
                Ok(fields) => Ok(Struct::Json(fields)),
                Err(problem) => Err(*problem),
            },
        }
    }

    /// Number of rows of the file that the row was made from.
    pub(crate) fn span(&self, row: usize) -> u32 {
        match self {
            Chunk::Arrow { .. } => 1,
            Chunk::Json(rows) | Chunk::Parsed { rows, .. } => rows[row].span,
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Chunk::Arrow { schema, .. } | Chunk::Parsed { schema, .. } => {
                schema.fields().iter().map(|field| field.name().clone()).collect()
            }
            Chunk::Json(rows) => {
                let mut names: Vec<String> = Vec::new();
                for name in rows.iter().filter_map(|row| row.fields.as_ref().ok()).flat_map(Map::keys) {
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
                names
            }
        }
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        (0..self.rows()).any(|row| self.row(row).is_ok_and(|row| row.has(name)))
    }

    /// Kinds of values in the columns of these rows.
    pub(crate) fn columns(&self) -> Columns {
        let types: Option<Vec<DataType>> = match self {
            Chunk::Arrow { schema, .. } | Chunk::Parsed { schema, .. } => {
                Some(schema.fields().iter().map(|field| field.data_type().clone()).collect())
            }
            Chunk::Json(_) => None,
        };
        Columns::of_sample(self.names(), types.as_deref(), self.usable())
    }

    /// The rows without a problem.
    pub(crate) fn usable(&self) -> impl Iterator<Item = Struct<'_>> + Clone {
        (0..self.rows()).filter_map(|row| self.row(row).ok())
    }
}

/// Texts of Parquet: as the file declares them, copied, or as views of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    Declared,
    Views,
}

/// Tells the columns that have to be decoded, by name.
pub(crate) type Wanted = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Chunks of a file, in order.
pub(crate) type Chunks = Box<dyn Iterator<Item = Result<Chunk>> + Send>;

/// A file and its container.
pub(crate) struct Source {
    path: PathBuf,
    container: Container,
}

impl Source {
    /// Detects the container from the first bytes.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = simplemix_files::open(path).map_err(Error::io(path, "open"))?;
        let mut head = Vec::new();
        file.by_ref().take(8).read_to_end(&mut head).map_err(Error::io(path, "read"))?;
        let container = match head.as_slice() {
            [] => return Err(Error::Empty { path: path.to_path_buf(), what: "bytes" }),
            [b'P', b'A', b'R', b'1', ..] => Container::Parquet,
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Container::ArrowFile,
            [0xff, 0xff, 0xff, 0xff, ..] => Container::ArrowStream,
            _ => text_container(path)?,
        };
        Ok(Self { path: path.to_path_buf(), container })
    }

    pub(crate) fn container(&self) -> Container {
        self.container
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The decompressed text of a JSON file.
    pub(crate) fn text(&self) -> Result<Box<dyn BufRead + Send>> {
        Ok(text(&self.path)?.input)
    }

    /// Whether the file has no rows.
    pub(crate) fn has_no_rows(&self) -> Result<bool> {
        if self.container == Container::Parquet {
            let metadata =
                guarded(&self.path, || BoundedFile::new(self.file()?).metadata().map_err(Error::parquet(&self.path)))?;
            return Ok(metadata.metadata().file_metadata().num_rows() == 0);
        }
        let nothing: Wanted = Arc::new(|_| false);
        let first = self.chunks(&nothing, 1)?.find(|chunk| chunk.as_ref().map_or(true, |chunk| chunk.rows() > 0));
        Ok(first.transpose()?.is_none())
    }

    /// Reads the first rows, with all columns.
    pub(crate) fn sample(&self, rows: usize) -> Result<Chunk> {
        match self.chunks(&all(), rows)?.next() {
            Some(chunk) => chunk,
            None => Ok(Chunk::Json(Vec::new())),
        }
    }

    /// Number of rows, where the metadata tells it.
    pub(crate) fn declared_rows(&self) -> Result<Option<u64>> {
        if self.container != Container::Parquet {
            return Ok(None);
        }
        let metadata =
            guarded(&self.path, || BoundedFile::new(self.file()?).metadata().map_err(Error::parquet(&self.path)))?;
        Ok(u64::try_from(metadata.metadata().file_metadata().num_rows()).ok())
    }

    /// Reads all rows in chunks of at most `rows`, decoding only the columns that are `wanted`.
    pub(crate) fn chunks(&self, wanted: &Wanted, rows: usize) -> Result<Chunks> {
        self.chunks_with(wanted, rows, Texts::Declared)
    }

    /// [`Source::chunks`] with texts of Parquet in the form that the caller can read.
    pub(crate) fn chunks_with(&self, wanted: &Wanted, rows: usize, texts: Texts) -> Result<Chunks> {
        let json = |split: fn(Text) -> Elements| {
            Ok(json_chunks(split(text(&self.path)?), self.path.clone(), wanted.clone(), rows))
        };
        match self.container {
            Container::Parquet => guarded(&self.path, || self.parquet(wanted.as_ref(), rows, texts)),
            Container::ArrowFile => guarded(&self.path, || self.arrow_file(wanted.as_ref(), rows)),
            Container::ArrowStream => guarded(&self.path, || self.arrow_stream(wanted.as_ref(), rows)),
            Container::JsonLines => json(Elements::lines),
            Container::JsonObjects => json(Elements::objects),
            Container::JsonArray => json(Elements::array),
        }
    }

    fn file(&self) -> Result<File> {
        simplemix_files::open(&self.path).map_err(Error::io(&self.path, "open"))
    }

    fn parquet(&self, wanted: &dyn Fn(&str) -> bool, rows: usize, texts: Texts) -> Result<Chunks> {
        let fail = || Error::parquet(&self.path);
        let file = BoundedFile::new(self.file()?);
        let length = file.len();
        let metadata = file.metadata().map_err(fail())?;
        let file = file.with_pages(metadata.metadata()).map_err(fail())?;
        let bytes: i64 = metadata.metadata().row_groups().iter().map(|group| group.total_byte_size()).sum();
        let all_rows = metadata.metadata().file_metadata().num_rows().max(1);
        let row_bytes = usize::try_from(bytes / all_rows).unwrap_or(0).max(1);
        let rows = rows.min((CHUNK_BYTES / row_bytes).max(1));
        let schema = metadata.schema().clone();
        let columns = projection(&schema, wanted);
        let options = ArrowReaderOptions::new().with_schema(Arc::new(plain::with_views(&schema)));
        let views = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).map_err(fail())?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns.iter().copied());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, views);
        let reader = builder.with_projection(mask).with_batch_size(rows).build().map_err(fail())?;
        let schema = Arc::new(schema.project(&columns).map_err(Error::arrow(&self.path))?);
        let path = self.path.clone();
        let batches = reader.map(move |batch| batch.map_err(Error::arrow(&path)));
        let declared = (texts == Texts::Declared).then_some(schema);
        let cut = Cut { path: self.path.clone(), rows, most: max_row(length), declared };
        Ok(cut.chunks(batches))
    }

    fn arrow_file(&self, wanted: &dyn Fn(&str) -> bool, rows: usize) -> Result<Chunks> {
        let fail = || Error::arrow(&self.path);
        let mut file = BufReader::new(self.file()?);
        let length = check_file(&mut file).map_err(fail())?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path, "read"))?;
        let schema = FileReader::try_new(&mut file, None).map_err(fail())?.schema();
        let columns = projection(&schema, wanted);
        file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path, "read"))?;
        let reader = FileReader::try_new(file, Some(columns)).map_err(fail())?;
        let cut = Cut { path: self.path.clone(), rows, most: max_row(length), declared: None };
        Ok(cut.chunks(checked(reader, self.path.clone(), length)))
    }

    fn arrow_stream(&self, wanted: &dyn Fn(&str) -> bool, rows: usize) -> Result<Chunks> {
        let fail = || Error::arrow(&self.path);
        let mut file = BufReader::new(self.file()?);
        let length = check_stream(&mut file).map_err(fail())?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path, "read"))?;
        let schema = StreamReader::try_new(&mut file, None).map_err(fail())?.schema();
        let columns = projection(&schema, wanted);
        file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path, "read"))?;
        let reader = StreamReader::try_new(file, Some(columns)).map_err(fail())?;
        let cut = Cut { path: self.path.clone(), rows, most: max_row(length), declared: None };
        Ok(cut.chunks(checked(reader, self.path.clone(), length)))
    }
}

/// All columns.
pub(crate) fn all() -> Wanted {
    Arc::new(|_| true)
}

fn projection(schema: &Schema, wanted: &dyn Fn(&str) -> bool) -> Vec<usize> {
    schema.fields().iter().enumerate().filter(|(_, field)| wanted(field.name())).map(|(index, _)| index).collect()
}

/// Batches without more rows than a file of `length` bytes can have.
fn checked(
    reader: impl Iterator<Item = arrow::error::Result<RecordBatch>> + Send + 'static,
    path: PathBuf,
    length: u64,
) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    reader.map(move |batch| {
        let batch = batch.map_err(Error::arrow(&path))?;
        // Columns of nulls take no bytes, so a damaged file could have any number of rows.
        if batch.num_rows() as u64 / 8 > length {
            let found = format!("a batch of {} rows, in a file of {length} bytes", batch.num_rows());
            return Err(Error::arrow(&path)(ArrowError::IpcError(found)));
        }
        Ok(batch)
    })
}

/// Rule by which batches are cut into chunks.
struct Cut {
    path: PathBuf,
    /// Most rows of a chunk.
    rows: usize,
    /// Most bytes of a row.
    most: u64,
    /// Columns of the chunks, if the batches have views in their place.
    declared: Option<SchemaRef>,
}

impl Cut {
    fn chunks(self, batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static) -> Chunks {
        let path = self.path.clone();
        let mut seen = 0;
        let chunks = batches.flat_map(move |batch| -> Chunks {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Box::new(std::iter::once(Err(error))),
            };
            let schema = self.declared.clone().unwrap_or_else(|| batch.schema());
            let (path, most, mut row) = (self.path.clone(), self.most, seen);
            seen += batch.num_rows() as u64;
            Box::new(Pieces::of(StructArray::from(batch), self.rows, most).map(move |piece| {
                let rows = piece.map_err(|found| Error::LongRow { path: path.clone(), row, found, most })?;
                row += rows.len() as u64;
                let rows = plain::declared(rows, schema.fields()).map_err(Error::arrow(&path))?;
                Ok(Chunk::Arrow { rows, schema: schema.clone() })
            }))
        });
        Box::new(Guarded::new(chunks, &path))
    }
}

/// Opens a text file, decompressing it if the first bytes are those of gzip or zstd.
fn text(path: &Path) -> Result<Text> {
    let file = simplemix_files::open(path).map_err(Error::io(path, "open"))?;
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let mut file = BufReader::with_capacity(1 << 16, file);
    let head = file.fill_buf().map_err(Error::io(path, "read"))?;
    let input: Box<dyn Read + Send> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(file).map_err(Error::io(path, "open"))?)
    } else {
        return Ok(Text { input: Box::new(file), longest: max_text() });
    };
    Ok(Text { input: Box::new(BufReader::with_capacity(1 << 16, input)), longest: max_compressed_text(length) })
}

/// Detects JSON arrays, which start with `[`, and JSON objects, one a line or over several lines.
fn text_container(path: &Path) -> Result<Container> {
    let failed = || Error::io(path, "read");
    let mut bytes = std::io::BufReader::new(text(path)?.input).bytes();
    let mut head = Vec::new();
    let first = loop {
        let Some(byte) = bytes.next().transpose().map_err(failed())? else { break None };
        head.truncate(7);
        head.push(byte);
        let is_mark = head.len() <= 3 && b"\xef\xbb\xbf".starts_with(&head);
        if !is_mark && !byte.is_ascii_whitespace() {
            break Some(byte);
        }
    };
    match first {
        Some(b'[') => Ok(Container::JsonArray),
        Some(b'{') if spans_lines(&mut bytes).map_err(failed())? => Ok(Container::JsonObjects),
        Some(b'{') => Ok(Container::JsonLines),
        None => {
            let what = if head.is_empty() { "bytes" } else { "rows" };
            Err(Error::Empty { path: path.to_path_buf(), what })
        }
        Some(_) => {
            head.extend(bytes.take(8 - head.len()).map_while(std::io::Result::ok));
            Err(Error::Container { path: path.to_path_buf(), found: format!("`{}`", head.escape_ascii()) })
        }
    }
}

/// Whether the object whose opening brace has been read goes on in the next line. A line that was cut off does not: what
/// follows it is the brace of another object.
fn spans_lines(bytes: &mut dyn Iterator<Item = std::io::Result<u8>>) -> std::io::Result<bool> {
    let mut nesting = Nesting::in_object();
    let mut ended = false;
    for byte in bytes {
        match byte? {
            byte if ended && !byte.is_ascii_whitespace() => return Ok(byte != b'{'),
            b'\n' if nesting.is_outside() || nesting.in_string => return Ok(false),
            b'\n' => ended = true,
            byte => nesting.see(byte),
        }
    }
    Ok(false)
}

/// Parses rows, in chunks of at most `rows` rows and about [`CHUNK_BYTES`].
fn json_chunks(mut elements: Elements, path: PathBuf, wanted: Wanted, rows: usize) -> Chunks {
    let mut row = 0u64;
    let mut failed = false;
    let mut element = Vec::new();
    Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < rows && bytes < CHUNK_BYTES {
            match next_row(&mut elements, &mut element, &path, wanted.as_ref(), row) {
                Ok(Some(fields)) => chunk.push(JsonRow { span: 1, fields }),
                Ok(None) => break,
                Err(error) => {
                    failed = true;
                    return Some(Err(error));
                }
            }
            row += 1;
            bytes += element.len();
        }
        if chunk.is_empty() { None } else { Some(Ok(Chunk::Json(chunk))) }
    }))
}

type Row = Result<Map<String, Value>, Problem>;

fn next_row(
    elements: &mut Elements,
    element: &mut Vec<u8>,
    path: &Path,
    wanted: &dyn Fn(&str) -> bool,
    row: u64,
) -> Result<Option<Row>> {
    let start = match elements.next_into(element) {
        Ok(Some(start)) => start,
        Ok(None) => return Ok(None),
        Err(SplitError::Io(source)) => return Err(Error::io(path, "read")(source)),
        Err(SplitError::Shape { byte, found, expected }) => {
            return Err(Error::JsonShape { path: path.to_path_buf(), row, byte, found, expected });
        }
    };
    let parsed = json_row::parse(element, wanted);
    parsed.map(Some).map_err(|source| Error::Json { path: path.to_path_buf(), row, byte: start, source })
}
