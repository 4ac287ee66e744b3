//! Random access to the rows of a source, in bounded memory.
//!
//! In Parquet, reaching a row means decoding a page. So rows are read once, in order, and kept as Arrow batches: in memory
//! up to a budget, beyond it in a temporary Arrow IPC file that is memory-mapped. Taking rows then copies only those rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use arrow::ipc::writer::FileWriter;

use memmap2::Mmap;

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
    batches: Vec<RecordBatch>,
    /// Number of rows before each batch; the last entry is the number of all rows.
    starts: Vec<u64>,
}

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
        let batches = spill.map_or(Ok(kept), Spill::map)?;
        let mut starts = vec![0];
        for batch in &batches {
            starts.push(starts[starts.len() - 1] + batch.num_rows() as u64);
        }
        let schema = schema.unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
        Ok(Self { schema, batches, starts })
    }

    /// Columns of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Batches of the rows, in order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Takes the rows `(store, row)`, in this order, as one batch. All stores must have the same columns.
    ///
    /// # Errors
    /// [`Error::Arrow`] if a row does not exist or columns differ.
    pub fn gather(stores: &[Self], rows: &[(usize, u64)]) -> Result<RecordBatch> {
        let arrow = |source| Error::Arrow { path: "a gathered batch".into(), source };
        // A source may have thousands of batches; only those that are used are passed on.
        let mut used: Vec<&RecordBatch> = Vec::new();
        let mut numbers = std::collections::HashMap::new();
        let mut places = Vec::with_capacity(rows.len());
        for &(store, row) in rows {
            let found = stores.get(store).filter(|store| row < store.rows());
            let Some(of) = found else {
                let text = format!("row {row} of store {store} does not exist");
                return Err(arrow(ArrowError::InvalidArgumentError(text)));
            };
            let batch = of.starts.partition_point(|&start| start <= row) - 1;
            let number = *numbers.entry((store, batch)).or_insert_with(|| {
                used.push(&of.batches[batch]);
                used.len() - 1
            });
            places.push((number, (row - of.starts[batch]) as usize));
        }
        interleave_record_batch(&used, &places).map_err(arrow)
    }
}

/// Temporary file of batches.
struct Spill {
    writer: FileWriter<BufWriter<File>>,
}

impl Spill {
    fn new(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a temporary file in"))?;
        let writer = FileWriter::try_new(BufWriter::new(file), schema).map_err(spilling)?;
        Ok(Self { writer })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(spilling)
    }

    /// Maps the file and returns the batches, whose columns borrow from it.
    fn map(mut self) -> Result<Vec<RecordBatch>> {
        self.writer.finish().map_err(spilling)?;
        let mut buffered = self.writer.into_inner().map_err(spilling)?;
        buffered.flush().map_err(|e| spilling(e.into()))?;
        let file = buffered.get_ref();
        let buffer = map_file(file).map_err(spilling)?;
        Ok(decode(&buffer).map_err(spilling)?.1)
    }
}

fn spilling(source: ArrowError) -> Error {
    Error::Arrow { path: "a temporary file".into(), source }
}

/// Maps a spilled file into memory.
fn map_file(file: &File) -> Result<Buffer, ArrowError> {
    #[expect(unsafe_code, reason = "no safe way to map a file exists; no other process can cut this one short")]
    // SAFETY: the map is read-only, and the buffer owns it, so it outlives every array that borrows from it. Nothing
    // here writes to the file afterwards, and without a name no other process opens it.
    let map = unsafe { Mmap::map(file) }?;
    Ok(Buffer::from(bytes::Bytes::from_owner(map)))
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
    fn rows_are_the_same_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let collect = |memory| RowStore::collect(batches(50).into_iter().map(Ok), memory, folder.path()).unwrap();
        let rows: Vec<(usize, u64)> = (0..50).map(|i| (0, i * 37 % 50)).collect();
        let near = RowStore::gather(&[collect(usize::MAX)], &rows).unwrap();
        let far = RowStore::gather(&[collect(0)], &rows).unwrap();
        assert_eq!(near, far);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = RowStore::gather(&[collect(0)], &[(0, 50)]).unwrap_err().to_string();
        assert!(missing.contains("row 50 of store 0 does not exist"), "{missing}");
    }
}
