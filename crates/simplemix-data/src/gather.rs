//! Random access to the rows of a source, in bounded memory.
//!
//! In Parquet, reaching a row means decoding a page. So rows are read once, in order, and kept: in memory as Arrow batches up
//! to a budget, beyond it in a temporary file, each row in one piece in arrow's row format. A row is then one read of its own
//! bytes, and beside the budget memory holds a little more than four bytes a row, its length.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Float64Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Float64Type, Int32Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use arrow::row::{RowConverter, SortField};

use crate::error::{Error, Result};

/// All rows of a source, accessible by number.
///
/// # Examples
/// ```
/// use simplemix_data::{PairReader, ReadOptions, RowStore};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("sums.jsonl");
/// # std::fs::write(&path, r#"{"prompt": "2 + 2?", "chosen": " 4", "rejected": " 5"}"#)?;
/// let mut reader = PairReader::open(&path, &ReadOptions::default().with_source("sums"))?;
/// let store = RowStore::collect(&mut reader, 64 << 20, dir.path())?;
/// let batch = RowStore::gather(&[store], &[(0, 0), (0, 0)])?;
/// assert_eq!(batch.num_rows(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Memory {
        batches: Vec<RecordBatch>,
        /// Number of rows before each batch; the last entry is the number of all rows.
        starts: Vec<u64>,
    },
    Disk(Spilled),
}

/// Rows of a batch that is read back from a file.
const BATCH_ROWS: u64 = 4096;

impl RowStore {
    /// Reads all batches. If they exceed `memory` bytes, all of them are moved to a temporary file in `folder`, which is
    /// deleted with the store.
    ///
    /// # Errors
    /// Errors of the batches; [`Error::Io`] or [`Error::Arrow`] if the file cannot be written.
    pub fn collect(
        batches: impl IntoIterator<Item = Result<RecordBatch>>,
        memory: usize,
        folder: &Path,
    ) -> Result<Self> {
        let (mut kept, mut held): (Vec<RecordBatch>, usize) = (Vec::new(), 0);
        let mut spill: Option<Spill> = None;
        let mut schema = None;
        for batch in batches {
            let batch = batch?;
            schema.get_or_insert_with(|| batch.schema());
            held += batch.get_array_memory_size();
            match &mut spill {
                Some(spill) => spill.write(&batch)?,
                None if held > memory => {
                    let mut file = Spill::new(folder, &batch.schema())?;
                    for batch in kept.drain(..) {
                        file.write(&batch)?;
                    }
                    file.write(&batch)?;
                    spill = Some(file);
                }
                None => kept.push(batch),
            }
        }
        let schema = schema.unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
        let rows = match spill {
            Some(spill) => Rows::Disk(spill.finish()?),
            None => {
                let mut starts = vec![0];
                for batch in &kept {
                    starts.push(starts[starts.len() - 1] + batch.num_rows() as u64);
                }
                Rows::Memory { batches: kept, starts }
            }
        };
        Ok(Self { schema, rows })
    }

    /// Columns of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        match &self.rows {
            Rows::Memory { starts, .. } => starts[starts.len() - 1],
            Rows::Disk(spilled) => spilled.places.rows(),
        }
    }

    /// Batches of the rows, in order.
    ///
    /// # Errors
    /// Each batch is an error if it cannot be read back from the temporary file.
    pub fn batches(&self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + '_> {
        match &self.rows {
            Rows::Memory { batches, .. } => Box::new(batches.iter().cloned().map(Ok)),
            Rows::Disk(spilled) => {
                let all = spilled.places.rows();
                let parts = (0..all).step_by(BATCH_ROWS as usize);
                Box::new(parts.map(move |start| spilled.read(start..(start + BATCH_ROWS).min(all), &self.schema)))
            }
        }
    }

    /// Takes the rows `(store, row)`, in this order, as one batch. All stores must have the same columns.
    ///
    /// # Errors
    /// [`Error::Arrow`] if a row does not exist or columns differ, [`Error::Io`] if the temporary file cannot be read.
    pub fn gather(stores: &[Self], rows: &[(usize, u64)]) -> Result<RecordBatch> {
        let arrow = |source| Error::Arrow { path: "a gathered batch".into(), source };
        let missing = rows.iter().find(|(store, row)| stores.get(*store).is_none_or(|store| *row >= store.rows()));
        if let Some((store, row)) = missing {
            let text = format!("row {row} of store {store} does not exist");
            return Err(arrow(ArrowError::InvalidArgumentError(text)));
        }
        // Those of each file are read first, all together.
        let mut read = Vec::with_capacity(stores.len());
        for (number, store) in stores.iter().enumerate() {
            let of_store = || rows.iter().filter(|(of, _)| *of == number).map(|(_, row)| *row);
            read.push(match &store.rows {
                Rows::Disk(spilled) if of_store().next().is_some() => Some(spilled.read(of_store(), &store.schema)?),
                _ => None,
            });
        }
        // A source may have thousands of batches; only those that are used are passed on.
        let mut used: Vec<&RecordBatch> = Vec::new();
        let mut numbers = HashMap::new();
        let mut passed = vec![0; stores.len()];
        let mut places = Vec::with_capacity(rows.len());
        for &(store, row) in rows {
            let (batch, of_batch, at) = match (&stores[store].rows, &read[store]) {
                (Rows::Memory { batches, starts }, _) => {
                    let batch = starts.partition_point(|&start| start <= row) - 1;
                    (batch, &batches[batch], (row - starts[batch]) as usize)
                }
                (Rows::Disk(_), Some(batch)) => {
                    passed[store] += 1;
                    (0, batch, passed[store] - 1)
                }
                (Rows::Disk(_), None) => unreachable!("rows of a file were read above"),
            };
            let number = *numbers.entry((store, batch)).or_insert_with(|| {
                used.push(of_batch);
                used.len() - 1
            });
            places.push((number, at));
        }
        interleave_record_batch(&used, &places).map_err(arrow)
    }
}

/// Temporary file of rows in the making.
struct Spill {
    file: BufWriter<File>,
    folder: PathBuf,
    converter: RowConverter,
    places: Places,
}

impl Spill {
    fn new(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a temporary file in"))?;
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(spilling)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, folder: folder.to_owned(), converter, places: Places::default() })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.converter.convert_columns(batch.columns()).map_err(spilling)?;
        for row in &rows {
            self.places.add(row.data().len()).map_err(spilling)?;
            self.file.write_all(row.data()).map_err(Error::io(&self.folder, "write a temporary file in"))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Spilled> {
        let Self { file, folder, converter, places } = self;
        let file =
            file.into_inner().map_err(|error| Error::io(&folder, "write a temporary file in")(error.into_error()))?;
        Ok(Spilled { file: Mutex::new(file), folder, converter, places })
    }
}

/// Rows in a temporary file.
#[derive(Debug)]
struct Spilled {
    file: Mutex<File>,
    folder: PathBuf,
    converter: RowConverter,
    places: Places,
}

impl Spilled {
    /// Reads rows back, in this order.
    fn read(&self, rows: impl Iterator<Item = u64>, schema: &SchemaRef) -> Result<RecordBatch> {
        let spans: Vec<(u64, usize)> = rows.map(|row| self.places.span(row)).collect();
        let mut bytes = vec![0; spans.iter().map(|(_, length)| length).sum()];
        self.fill(&spans, &mut bytes).map_err(Error::io(&self.folder, "read a temporary file in"))?;
        let parser = self.converter.parser();
        let mut rest = &bytes[..];
        let rows = spans.iter().map(|(_, length)| {
            let (row, after) = rest.split_at(*length);
            rest = after;
            parser.parse(row)
        });
        let columns = self.converter.convert_rows(rows).map_err(spilling)?;
        let columns =
            columns.into_iter().zip(schema.fields()).map(|(column, field)| as_before(column, field.data_type()));
        let columns = columns.collect::<Result<_, _>>().map_err(spilling)?;
        RecordBatch::try_new(schema.clone(), columns).map_err(spilling)
    }

    /// Reads `spans` of the file one after the other; neighbours in the file are one read.
    fn fill(&self, spans: &[(u64, usize)], bytes: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        for run in spans.chunk_by(|(start, length), (next, _)| start + *length as u64 == *next) {
            let length: usize = run.iter().map(|(_, length)| length).sum();
            file.seek(SeekFrom::Start(run[0].0))?;
            file.read_exact(&mut bytes[filled..filled + length])?;
            filled += length;
        }
        Ok(())
    }
}

/// The column as it was: the row format has values in place of dictionaries, and leaves numbers behind nulls, which would reach
/// the bytes of an Arrow file.
fn as_before(column: ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match kind {
        DataType::Float64 if column.null_count() > 0 => {
            Ok(Arc::new(column.as_primitive::<Float64Type>().iter().collect::<Float64Array>()))
        }
        kind if column.data_type() == kind => Ok(column),
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
            Ok(Arc::new(column.as_string::<i32>().iter().collect::<DictionaryArray<Int32Type>>()))
        }
        kind => arrow::compute::cast(&column, kind),
    }
}

/// Rows whose first one's start is kept.
const STRIDE: usize = 32;

/// Where each row of a file is: the start of every 32nd, and the length of each.
#[derive(Debug, Default)]
struct Places {
    starts: Vec<u64>,
    lengths: Vec<u32>,
    end: u64,
}

impl Places {
    fn rows(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// Adds a row of `length` bytes.
    fn add(&mut self, length: usize) -> Result<(), ArrowError> {
        let short = u32::try_from(length)
            .map_err(|_| ArrowError::InvalidArgumentError(format!("row {} has {length} bytes", self.lengths.len())))?;
        if self.lengths.len().is_multiple_of(STRIDE) {
            self.starts.push(self.end);
        }
        self.lengths.push(short);
        self.end += length as u64;
        Ok(())
    }

    /// Start and length of a row.
    fn span(&self, row: u64) -> (u64, usize) {
        let row = row as usize;
        let first = row - row % STRIDE;
        let before: u64 = self.lengths[first..row].iter().map(|length| u64::from(*length)).sum();
        (self.starts[row / STRIDE] + before, self.lengths[row] as usize)
    }
}

fn spilling(source: ArrowError) -> Error {
    Error::Arrow { path: "a temporary file".into(), source }
}

/// Decodes schema and batches of an Arrow IPC file; their columns borrow from `buffer`.
pub(crate) fn decode(buffer: &Buffer) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let damaged = |what: &str| ArrowError::ParseError(format!("the file has no valid {what}"));
    let trailer_start = buffer.len().checked_sub(10).ok_or_else(|| damaged("end"))?;
    let trailer: [u8; 10] = buffer[trailer_start..].try_into().map_err(|_| damaged("end"))?;
    let footer_start = trailer_start.checked_sub(read_footer_length(trailer)?).ok_or_else(|| damaged("footer"))?;
    let footer = root_as_footer(&buffer[footer_start..trailer_start]).map_err(|e| damaged(&e.to_string()))?;
    let schema = Arc::new(try_fb_to_schema(footer.schema().ok_or_else(|| damaged("schema"))?)?);
    let mut decoder = FileDecoder::new(schema.clone(), footer.version());
    let part = |block: &arrow::ipc::Block| {
        let (start, len) = (block.offset(), block.bodyLength() + i64::from(block.metaDataLength()));
        let within = start >= 0 && len >= 0 && start.checked_add(len).is_some_and(|end| end <= buffer.len() as i64);
        match within {
            true => Ok(buffer.slice_with_length(start as usize, len as usize)),
            false => Err(damaged("batch at the place that the footer names")),
        }
    };
    for block in footer.dictionaries().into_iter().flatten() {
        decoder.read_dictionary(block, &part(block)?)?;
    }
    let mut batches = Vec::new();
    for block in footer.recordBatches().into_iter().flatten() {
        batches.extend(decoder.read_record_batch(block, &part(block)?)?);
    }
    Ok((schema, batches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::pair::{Form, Pair, Policy, Text};
    use crate::schema;

    fn batches(rows: usize) -> Vec<RecordBatch> {
        let turn = |content: String| Text::Messages(vec![Message::new("assistant", content)]);
        let pair = |i: usize| {
            let [prompt, chosen, rejected] = ["p", "c", "r"].map(|name| turn(format!("{name}{i}")));
            Pair::new(prompt, chosen, rejected, "off", Policy::Off)
        };
        let numbers: Vec<usize> = (0..rows).collect();
        let batch = |numbers: &[usize]| {
            let pairs: Vec<Pair> = numbers.iter().map(|&i| pair(i)).collect();
            schema::batch_from_pairs(&pairs, Form::Messages).unwrap()
        };
        numbers.chunks(7).map(batch).collect()
    }

    #[test]
    fn every_kind_of_row_comes_back_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let long = "long \u{0}\u{ff} ".repeat(5000);
        let turns = |content: &str| Text::Messages(vec![Message::user(content), Message::assistant(&long)]);
        let call = Message::assistant("").with_field("tool_calls", serde_json::json!([{"function": {"name": "f"}}]));
        let mut pairs = vec![
            Pair::new(turns(""), turns("é"), Text::Messages(vec![call]), "on", Policy::On),
            Pair::new(turns("p"), turns("c"), turns("r"), "off", Policy::Off),
        ];
        (pairs[0].score_chosen, pairs[0].score_rejected) = (Some(-0.0), Some(f64::MIN_POSITIVE));
        (pairs[1].task, pairs[1].generator) = (Some(String::new()), Some("g".to_owned()));
        let layout = schema::Layout::of_pairs(&pairs);
        let batch = schema::batch_in_layout(&pairs, &layout).unwrap();
        let far = RowStore::collect([Ok(batch.clone())], 0, folder.path()).unwrap();
        let read: Vec<RecordBatch> = far.batches().map(Result::unwrap).collect();
        assert_eq!((read[0].schema(), &read[..]), (batch.schema(), &[batch][..]));
        let zero = schema::pairs_from_batch(&read[0]).unwrap()[0].score_chosen.unwrap();
        assert!(zero == 0.0 && zero.is_sign_negative());
        // Values behind nulls are written to Arrow files too.
        let scores = read[0].column_by_name("score_rejected").unwrap().as_primitive::<Float64Type>();
        assert_eq!((scores.is_null(1), scores.values()[1].to_bits()), (true, 0));
    }

    #[test]
    fn places_are_sums_of_lengths() {
        let mut places = Places::default();
        let lengths: Vec<usize> = (0..100).map(|i| i * i % 37).collect();
        lengths.iter().for_each(|&length| places.add(length).unwrap());
        for row in [0, 1, 31, 32, 33, 63, 64, 99] {
            let before: usize = lengths[..row].iter().sum();
            assert_eq!(places.span(row as u64), (before as u64, lengths[row]));
        }
    }

    #[test]
    fn rows_are_the_same_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let collect = |memory| RowStore::collect(batches(50).into_iter().map(Ok), memory, folder.path()).unwrap();
        let rows: Vec<(usize, u64)> = (0..50).map(|i| (0, i * 37 % 50)).collect();
        let near = RowStore::gather(&[collect(usize::MAX)], &rows).unwrap();
        let far = RowStore::gather(&[collect(0)], &rows).unwrap();
        assert_eq!(near, far);
        let mixed = [collect(0), collect(usize::MAX)];
        let both: Vec<(usize, u64)> = (0..100).map(|i| (i as usize % 3 % 2, i * 7 % 50)).collect();
        let one = RowStore::gather(&[collect(usize::MAX), collect(usize::MAX)], &both).unwrap();
        assert_eq!(RowStore::gather(&mixed, &both).unwrap(), one);
        let all: Vec<RecordBatch> = collect(0).batches().map(Result::unwrap).collect();
        assert_eq!(all, [arrow::compute::concat_batches(&all[0].schema(), &batches(50)).unwrap()]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = RowStore::gather(&[collect(0)], &[(0, 50)]).unwrap_err().to_string();
        assert!(missing.contains("row 50 of store 0 does not exist"), "{missing}");
    }
}
