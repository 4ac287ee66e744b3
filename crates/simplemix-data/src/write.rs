//! Writers of canonical batches as Parquet, Arrow IPC or JSON lines; a file appears whole or not at all.

use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::json::writer::{LineDelimited, NullableEncoder, WriterBuilder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use simplemix_files::AtomicFile;

use crate::error::{Error, Result};
use crate::pair::{Form, Pair};
use crate::schema::{self, Layout};
use crate::zones::in_utc;

/// Settings of a writer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Rows per Parquet row group, which bounds what readers must hold in memory; 8192 by default.
    pub row_group_rows: usize,
    /// Zstandard level of Parquet and `.jsonl.zst`, 1 to 22; 3 by default, like `zstd` itself.
    pub zstd_level: i32,
    /// Form of a file to which no pair is written; messages by default.
    pub empty_form: Form,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { row_group_rows: 8192, zstd_level: 3, empty_form: Form::Messages }
    }
}

/// Writes one file of canonical batches (see [`crate::schema`]), including further columns.
///
/// The ending of the name selects the format: `.parquet`, `.arrow` (or `.ipc`, `.feather`: an Arrow IPC file), `.jsonl`,
/// `.jsonl.gz` or `.jsonl.zst`. The file appears with [`PairWriter::finish`], whole and synced to disk; a writer that is
/// dropped before leaves nothing.
///
/// # Examples
/// ```
/// use simplemix_data::{Pair, PairWriter, Policy, ReadOptions, Text, WriteOptions, read_pairs};
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("sums.parquet");
/// let pair = Pair::new(Text::from("2 + 2?"), Text::from(" 4"), Text::from(" 5"), "sums", Policy::On);
/// let mut writer = PairWriter::create(&path, &WriteOptions::default())?;
/// writer.write_pairs(&[pair.clone()])?;
/// assert_eq!(writer.finish()?, 1);
/// assert_eq!(read_pairs(&path, &ReadOptions::default())?, [pair]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PairWriter {
    table: TableWriter,
    empty_form: Form,
}

/// Writes one file of batches of any schema; [`PairWriter`] is the same for pairs.
pub struct TableWriter {
    path: PathBuf,
    options: WriteOptions,
    kind: Kind,
    sink: Sink,
    schema: Option<SchemaRef>,
    metadata: Vec<(String, String)>,
    rows: u64,
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Parquet,
    Arrow,
    Json(Codec),
}

#[derive(Clone, Copy)]
enum Codec {
    None,
    Gzip,
    Zstd,
}

/// The file behind a writer.
enum Sink {
    /// The schema, which the first batch brings, is not known yet.
    Unopened(AtomicFile),
    Parquet(Box<ArrowWriter<AtomicFile>>),
    /// Row groups are encoded elsewhere.
    Groups(Box<SerializedFileWriter<AtomicFile>>),
    Arrow(Box<FileWriter<BufWriter<AtomicFile>>>),
    Json(Box<arrow::json::Writer<TextSink, LineDelimited>>),
    /// An error while opening has closed it.
    Closed,
}

/// Text, compressed or not.
enum TextSink {
    Plain(BufWriter<AtomicFile>),
    Gzip(flate2::write::GzEncoder<BufWriter<AtomicFile>>),
    Zstd(zstd::Encoder<'static, BufWriter<AtomicFile>>),
}

impl Write for TextSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            TextSink::Plain(sink) => sink.write(bytes),
            TextSink::Gzip(sink) => sink.write(bytes),
            TextSink::Zstd(sink) => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            TextSink::Plain(sink) => sink.flush(),
            TextSink::Gzip(sink) => sink.flush(),
            TextSink::Zstd(sink) => sink.flush(),
        }
    }
}

impl TextSink {
    fn new(file: AtomicFile, codec: Codec, zstd_level: i32) -> std::io::Result<Self> {
        let file = buffered(file);
        Ok(match codec {
            Codec::None => TextSink::Plain(file),
            Codec::Gzip => TextSink::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            Codec::Zstd => TextSink::Zstd(zstd::Encoder::new(file, zstd_level)?),
        })
    }

    /// Writes what is still buffered and returns the file.
    fn finish(self) -> std::io::Result<AtomicFile> {
        let file = match self {
            TextSink::Plain(sink) => sink,
            TextSink::Gzip(sink) => sink.finish()?,
            TextSink::Zstd(sink) => sink.finish()?,
        };
        file.into_inner().map_err(IntoInnerError::into_error)
    }
}

fn buffered(file: AtomicFile) -> BufWriter<AtomicFile> {
    BufWriter::with_capacity(1 << 18, file)
}

impl PairWriter {
    /// Starts a file; an existing one of this name stays as it is until [`PairWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Extension`] if the name has no known ending, [`Error::Files`] if nothing can be created in its folder.
    pub fn create(path: impl AsRef<Path>, options: &WriteOptions) -> Result<Self> {
        Ok(Self { table: TableWriter::create(path, options)?, empty_form: options.empty_form })
    }

    /// Adds a canonical batch. All batches of a file must have the same columns.
    ///
    /// # Errors
    /// [`Error::Schema`] if the batch is not canonical or differs from the first one, [`Error::Io`] if it cannot be
    /// written.
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        schema::layout_of(batch.schema_ref())?;
        self.table.write_batch(batch)
    }

    /// Starts the file with the columns of canonical batches, for rows that are encoded on several threads. From then on the file takes
    /// [`PairWriter::write_encoded`] only, and has the bytes that [`PairWriter::write_batch`] would have given it.
    ///
    /// # Errors
    /// [`Error::Schema`] if the schema is not canonical, [`Error::Io`] if the file cannot be written or was begun before.
    pub fn encoder(&mut self, schema: &SchemaRef) -> Result<GroupEncoder> {
        schema::layout_of(schema)?;
        self.table.encoder(schema)
    }

    /// Adds rows that an encoder of this file has encoded.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written, or are those of another kind of file.
    pub fn write_encoded(&mut self, rows: EncodedRows) -> Result<()> {
        self.table.write_encoded(rows)
    }

    /// Adds pairs, in the form of the file's first pair and with the fields of turns that the first pairs added have.
    ///
    /// # Errors
    /// See [`PairWriter::write_batch`]; also [`Error::Value`] for messages in a file of plain text.
    pub fn write_pairs(&mut self, pairs: &[Pair]) -> Result<()> {
        let Some(first) = pairs.first() else { return Ok(()) };
        let layout = match &self.table.schema {
            Some(schema) => schema::layout_of_written(schema),
            None => Layout::of_pairs(pairs).in_form(first.form()),
        };
        for pairs in pairs.chunks(1024) {
            self.write_batch(&schema::batch_in_layout(pairs, &layout)?)?;
        }
        Ok(())
    }

    /// See [`TableWriter::add_metadata`].
    pub fn add_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.table.add_metadata(key, value);
    }

    /// Completes the file, syncs it to disk, gives it its name, and returns the number of pairs in it.
    ///
    /// # Errors
    /// [`Error::Files`] or [`Error::Io`]; an existing file then stays as it is.
    pub fn finish(self) -> Result<u64> {
        let (file, rows) = self.finish_without_name()?;
        file.commit()?;
        Ok(rows)
    }

    /// Completes the file without giving it its name, and returns it with the number of pairs in it: for files that belong
    /// together, see [`AtomicFile::commit_together`].
    ///
    /// # Errors
    /// [`Error::Files`] or [`Error::Io`].
    pub fn finish_without_name(mut self) -> Result<(AtomicFile, u64)> {
        if self.table.schema.is_none() {
            self.write_batch(&RecordBatch::new_empty(schema::schema(self.empty_form)))?;
        }
        self.table.finish_without_name()
    }
}

impl TableWriter {
    /// Starts a file; an existing one of this name stays as it is until [`TableWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Extension`] if the name has no known ending, [`Error::Files`] if nothing can be created in its folder.
    pub fn create(path: impl AsRef<Path>, options: &WriteOptions) -> Result<Self> {
        Self::create_at(path.as_ref(), options)
    }

    fn create_at(path: &Path, options: &WriteOptions) -> Result<Self> {
        let kind = Kind::of(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            options: options.clone(),
            kind,
            sink: Sink::Unopened(AtomicFile::create(path)?),
            schema: None,
            metadata: Vec::new(),
            rows: 0,
        })
    }

    /// Adds a batch. All batches of a file must have the same columns.
    ///
    /// # Errors
    /// [`Error::Schema`] if the batch differs from the first one, [`Error::Io`] if it cannot be written.
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = plain_strings(batch).map_err(Error::arrow(&self.path))?;
        match &self.schema {
            Some(schema) => same_schema(schema, batch.schema_ref())?,
            None => self.open(batch.schema())?,
        }
        self.rows += batch.num_rows() as u64;
        match &mut self.sink {
            Sink::Parquet(writer) => writer.write(&batch).map_err(Error::writing(&self.path)),
            Sink::Arrow(writer) => writer.write(&batch).map_err(Error::writing(&self.path)),
            Sink::Json(writer) => {
                let batch = zones_as_offsets(&batch).map_err(Error::arrow(&self.path))?;
                writer.write(&batch).map_err(Error::writing(&self.path))
            }
            Sink::Unopened(_) | Sink::Groups(_) | Sink::Closed => Err(closed(&self.path)),
        }
    }

    fn encoder(&mut self, schema: &SchemaRef) -> Result<GroupEncoder> {
        let empty = plain_strings(&RecordBatch::new_empty(schema.clone())).map_err(Error::arrow(&self.path))?;
        self.open(empty.schema())?;
        let (path, schema) = (self.path.clone(), empty.schema());
        let kind = match std::mem::replace(&mut self.sink, Sink::Closed) {
            Sink::Parquet(writer) => {
                let (writer, factory) = writer.into_serialized_writer().map_err(Error::writing(&path))?;
                self.sink = Sink::Groups(Box::new(writer));
                Encoding::Parquet(factory)
            }
            other => {
                let is_json = matches!(other, Sink::Json(_));
                self.sink = other;
                if is_json { Encoding::Json } else { Encoding::None }
            }
        };
        Ok(GroupEncoder { path, schema, group_rows: self.options.row_group_rows.max(1), kind })
    }

    fn write_encoded(&mut self, encoded: EncodedRows) -> Result<()> {
        let path = &self.path;
        match (&mut self.sink, encoded.content) {
            (Sink::Groups(writer), Content::Columns(columns)) => {
                let mut group = writer.next_row_group().map_err(Error::writing(path))?;
                for column in columns {
                    column.append_to_row_group(&mut group).map_err(Error::writing(path))?;
                }
                group.close().map_err(Error::writing(path))?;
            }
            (Sink::Arrow(writer), Content::Batches(batches)) => {
                batches.iter().try_for_each(|batch| writer.write(batch)).map_err(Error::writing(path))?;
            }
            (Sink::Json(writer), Content::Text(text)) => {
                writer.get_mut().write_all(&text).map_err(Error::io(path, "write"))?;
            }
            _ => return Err(closed(path)),
        }
        self.rows += encoded.rows;
        Ok(())
    }

    /// Stores a text in the file's metadata, where [`crate::read_metadata`] finds it under `key`. JSON lines have no
    /// metadata.
    pub fn add_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.push((key.into(), value.into()));
    }

    /// Completes the file, syncs it to disk, gives it its name, and returns the number of rows in it. A file to which no
    /// batch was written has no rows and no columns.
    ///
    /// # Errors
    /// [`Error::Files`] or [`Error::Io`]; an existing file then stays as it is.
    pub fn finish(self) -> Result<u64> {
        let (file, rows) = self.finish_without_name()?;
        file.commit()?;
        Ok(rows)
    }

    fn finish_without_name(mut self) -> Result<(AtomicFile, u64)> {
        if self.schema.is_none() {
            self.open(Arc::new(Schema::empty()))?;
        }
        let Self { path, sink, metadata, rows, .. } = self;
        let file = match sink {
            Sink::Parquet(mut writer) => {
                for (key, value) in metadata {
                    writer.append_key_value_metadata(KeyValue::new(key, value));
                }
                writer.into_inner().map_err(Error::writing(&path))?
            }
            Sink::Groups(mut writer) => {
                for (key, value) in metadata {
                    writer.append_key_value_metadata(KeyValue::new(key, value));
                }
                writer.into_inner().map_err(Error::writing(&path))?
            }
            Sink::Arrow(mut writer) => {
                for (key, value) in metadata {
                    writer.write_metadata(key, value);
                }
                let file = writer.into_inner().map_err(Error::writing(&path))?;
                file.into_inner().map_err(|error| Error::io(&path, "write")(error.into_error()))?
            }
            Sink::Json(mut writer) => {
                writer.finish().map_err(Error::writing(&path))?;
                writer.into_inner().finish().map_err(Error::io(&path, "write"))?
            }
            Sink::Unopened(_) | Sink::Closed => return Err(closed(&path)),
        };
        Ok((file, rows))
    }

    fn open(&mut self, schema: SchemaRef) -> Result<()> {
        let path = &self.path;
        let Sink::Unopened(file) = std::mem::replace(&mut self.sink, Sink::Closed) else { return Err(closed(path)) };
        self.sink = match self.kind {
            Kind::Parquet => {
                let properties = self.parquet_properties()?;
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
                Sink::Parquet(Box::new(writer.map_err(Error::writing(path))?))
            }
            Kind::Arrow => {
                let writer = FileWriter::try_new(buffered(file), &schema).map_err(Error::writing(path))?;
                Sink::Arrow(Box::new(writer))
            }
            Kind::Json(codec) => {
                let text = TextSink::new(file, codec, self.options.zstd_level).map_err(Error::io(path, "open"))?;
                Sink::Json(Box::new(json_writer(text)))
            }
        };
        self.schema = Some(schema);
        Ok(())
    }

    fn parquet_properties(&self) -> Result<WriterProperties> {
        let level = ZstdLevel::try_new(self.options.zstd_level).map_err(Error::parquet(&self.path))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(self.options.row_group_rows.max(1)));
        // Texts are hardly ever repeated: a dictionary costs a tenth of the time and finds nothing.
        for name in ["prompt", "chosen", "rejected"] {
            let content = [name, "list", "item", "content"].map(str::to_owned).to_vec();
            properties = properties
                .set_column_dictionary_enabled(ColumnPath::from(name), false)
                .set_column_dictionary_enabled(ColumnPath::new(content), false);
        }
        Ok(properties.set_column_dictionary_enabled(ColumnPath::from("id"), false).build())
    }
}

/// Encodes rows of a file apart from it, on any thread; [`PairWriter::write_encoded`] then adds them.
#[derive(Debug)]
pub struct GroupEncoder {
    path: PathBuf,
    schema: SchemaRef,
    group_rows: usize,
    kind: Encoding,
}

#[derive(Debug)]
enum Encoding {
    Parquet(ArrowRowGroupWriterFactory),
    Json,
    /// Batches are written as they are.
    None,
}

/// Rows of a file as its bytes will have them.
pub struct EncodedRows {
    rows: u64,
    content: Content,
}

enum Content {
    Columns(Vec<ArrowColumnChunk>),
    Text(Vec<u8>),
    Batches(Vec<RecordBatch>),
}

impl std::fmt::Debug for EncodedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl GroupEncoder {
    /// Number of rows to encode at a time, fewer only at the end of the file: those of a row group.
    pub fn group_rows(&self) -> usize {
        self.group_rows
    }

    /// Encodes the rows of a group; `number` counts the groups of the file from 0.
    ///
    /// # Errors
    /// [`Error::Schema`] if a batch has other columns than the file, [`Error::Arrow`] or [`Error::Parquet`] if the rows cannot be encoded.
    pub fn encode(&self, number: usize, batches: Vec<RecordBatch>) -> Result<EncodedRows> {
        let plain = |batch: RecordBatch| {
            let batch = plain_strings(&batch).map_err(Error::arrow(&self.path))?;
            same_schema(&self.schema, batch.schema_ref()).map(|()| batch)
        };
        let batches = batches.into_iter().map(plain).collect::<Result<Vec<_>>>()?;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let content = match &self.kind {
            Encoding::Parquet(factory) => Content::Columns(self.columns(factory, number, &batches)?),
            Encoding::Json => {
                let mut writer = json_writer(Vec::new());
                for batch in &batches {
                    let batch = zones_as_offsets(batch).map_err(Error::arrow(&self.path))?;
                    writer.write(&batch).map_err(Error::writing(&self.path))?;
                }
                writer.finish().map_err(Error::writing(&self.path))?;
                Content::Text(writer.into_inner())
            }
            Encoding::None => Content::Batches(batches),
        };
        Ok(EncodedRows { rows, content })
    }

    fn columns(
        &self,
        factory: &ArrowRowGroupWriterFactory,
        number: usize,
        batches: &[RecordBatch],
    ) -> Result<Vec<ArrowColumnChunk>> {
        let failed = || Error::parquet(&self.path);
        let mut writers = factory.create_column_writers(number).map_err(failed())?;
        for batch in batches {
            let mut writers = writers.iter_mut();
            for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
                // There is a writer for each leaf.
                for (leaf, writer) in compute_leaves(field, column).map_err(failed())?.iter().zip(&mut writers) {
                    writer.write(leaf).map_err(failed())?;
                }
            }
        }
        writers.into_iter().map(|writer| writer.close().map_err(failed())).collect()
    }
}

fn json_writer<W: Write>(sink: W) -> arrow::json::Writer<W, LineDelimited> {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(AsJson)).build(sink)
}

/// Error of a call after one that failed.
fn closed(path: &Path) -> Error {
    Error::io(path, "write")(std::io::Error::other("an earlier write failed"))
}

/// Writes fields that hold JSON as text as what they hold.
#[derive(Debug)]
struct AsJson;

struct Verbatim<'a>(&'a StringArray);

impl EncoderFactory for AsJson {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let texts = array.as_string_opt::<i32>().filter(|_| schema::is_json(field));
        Ok(texts.map(|texts| NullableEncoder::new(Box::new(Verbatim(texts)), texts.nulls().cloned())))
    }
}

impl Encoder for Verbatim<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.value(row).as_bytes());
    }
}

impl Kind {
    fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".parquet"]) {
            Ok(Kind::Parquet)
        } else if ends(&[".arrow", ".ipc", ".feather"]) {
            Ok(Kind::Arrow)
        } else if ends(&[".jsonl", ".ndjson"]) {
            Ok(Kind::Json(Codec::None))
        } else if ends(&[".jsonl.gz", ".ndjson.gz"]) {
            Ok(Kind::Json(Codec::Gzip))
        } else if ends(&[".jsonl.zst", ".ndjson.zst"]) {
            Ok(Kind::Json(Codec::Zstd))
        } else {
            let found = name.rfind('.').map_or_else(|| "nothing".to_owned(), |dot| name[dot..].to_owned());
            Err(Error::Extension { path: path.to_path_buf(), found })
        }
    }
}

/// Decodes dictionary columns to plain strings, which every reader understands.
fn plain_strings(batch: &RecordBatch) -> arrow::error::Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match field.data_type() {
            DataType::Dictionary(_, value) => {
                fields.push(Arc::new(Field::new(field.name(), value.as_ref().clone(), field.is_nullable())));
                columns.push(cast(column, value)?);
            }
            _ => {
                fields.push(field.clone());
                columns.push(column.clone());
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Timestamps with offsets in place of named zones, which JSON text cannot have.
fn zones_as_offsets(batch: &RecordBatch) -> arrow::error::Result<RecordBatch> {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(in_utc).collect();
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<Field> =
        fields.map(|(field, column)| Field::clone(field).with_data_type(column.data_type().clone())).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn same_schema(first: &Schema, next: &Schema) -> Result<()> {
    if first.fields().len() != next.fields().len() {
        return Err(Error::Schema {
            column: "(all)".to_owned(),
            found: format!("{} columns", next.fields().len()),
            expected: format!("{} columns, as in the first batch", first.fields().len()),
        });
    }
    let differs = |pair: &(&Arc<Field>, &Arc<Field>)| {
        pair.0.name() != pair.1.name() || !pair.0.data_type().equals_datatype(pair.1.data_type())
    };
    match first.fields().iter().zip(next.fields()).find(differs) {
        None => Ok(()),
        Some((first, next)) => Err(Error::Schema {
            column: first.name().clone(),
            found: format!("{} {}", next.name(), next.data_type()),
            expected: format!("{}, as in the first batch", first.data_type()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::pair::{Policy, Text};

    fn pairs(count: usize) -> Vec<Pair> {
        let turn = |text: String| Text::Messages(vec![Message::assistant(text)]);
        let pair = |i: usize| {
            let mut pair =
                Pair::new(turn(format!("{i}?")), turn("yes ".repeat(i)), turn(format!("no {i}")), "s", Policy::Off);
            (pair.task, pair.score_chosen) =
                (i.is_multiple_of(3).then(|| "math".to_owned()), i.is_multiple_of(2).then_some(i as f64));
            pair
        };
        (1..=count).map(pair).collect()
    }

    #[test]
    fn rows_encoded_apart_are_those_of_the_writer_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let batches: Vec<RecordBatch> =
            pairs(37).chunks(8).map(|pairs| schema::batch_from_pairs(pairs, Form::Messages).unwrap()).collect();
        for ending in ["parquet", "arrow", "jsonl", "jsonl.gz", "jsonl.zst"] {
            let options = WriteOptions { row_group_rows: 16, ..WriteOptions::default() };
            let path = |name: &str| folder.path().join(format!("{name}.{ending}"));
            let mut writer = PairWriter::create(path("plain"), &options).unwrap();
            writer.add_metadata("key", "value");
            batches.iter().for_each(|batch| writer.write_batch(batch).unwrap());
            assert_eq!(writer.finish().unwrap(), 37);

            let mut writer = PairWriter::create(path("apart"), &options).unwrap();
            writer.add_metadata("key", "value");
            let encoder = writer.encoder(&batches[0].schema()).unwrap();
            assert_eq!(encoder.group_rows(), 16);
            // In another order than they are written.
            let groups = batches.chunks(2).enumerate().rev();
            let mut encoded: Vec<EncodedRows> =
                groups.map(|(number, batches)| encoder.encode(number, batches.to_vec()).unwrap()).collect();
            while let Some(rows) = encoded.pop() {
                writer.write_encoded(rows).unwrap();
            }
            assert_eq!(writer.finish().unwrap(), 37);
            assert_eq!(std::fs::read(path("apart")).unwrap(), std::fs::read(path("plain")).unwrap(), "{ending}");
        }
    }

    #[test]
    fn an_encoder_refuses_other_columns_and_another_kind_of_file() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |name: &str| PairWriter::create(folder.path().join(name), &WriteOptions::default()).unwrap();
        let messages = schema::batch_from_pairs(&pairs(2), Form::Messages).unwrap();
        let mut writer = begin("a.parquet");
        let encoder = writer.encoder(&schema::schema(Form::Plain)).unwrap();
        let error = encoder.encode(0, vec![messages.clone()]).unwrap_err().to_string();
        assert!(error.contains("as in the first batch"), "{error}");
        assert!(writer.encoder(&messages.schema()).is_err(), "the file was begun before");
        let mut lines = begin("a.jsonl");
        let of_lines = lines.encoder(&messages.schema()).unwrap().encode(0, vec![messages]).unwrap();
        assert!(writer.write_encoded(of_lines).is_err());
    }
}
