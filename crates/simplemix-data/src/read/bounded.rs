//! A Parquet file whose pages are bounded before the reader allocates what they ask for.
//!
//! The `parquet` crate trusts the sizes in page headers: 33 kB of zstd can ask for 2 GB, and runs of equal levels for any number
//! of list items. It also skips unknown fields of a page header without noticing that the file has ended, so a damaged header
//! with a list of 2^31 numbers keeps it busy for hours.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use crate::read::budget::{ALLOWANCE, RATIO, excess, max_rows};
use crate::read::footer;
use crate::read::page_header::PageHeader;

/// Reads at the end of the file that are allowed; sound readers make fewer.
const READS_AT_END: usize = 64;
/// Length of a footer, and the mark at the end of a file.
const FOOTER_END: u64 = 8;
/// Bytes of a page's header that are read at once; most have fewer.
const HEADER_BYTES: usize = 256;
/// Memory of an item of a list: its levels, and the place of its value.
const ITEM_BYTES: u64 = 24;

/// A file for the reader of the crate `parquet`, checked while it is read: one that is damaged, or that stands for far more
/// memory or time than it has bytes, is an error.
///
/// # Examples
/// ```
/// use simplemix_data::BoundedFile;
/// # use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// # let column: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![1, 2]));
/// # let batch = RecordBatch::try_from_iter([("a", column)])?;
/// # let mut bytes = Vec::new();
/// # let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None)?;
/// # writer.write(&batch)?;
/// # writer.close()?;
/// let mut batches = BoundedFile::from_bytes(bytes).into_builder()?.build()?;
/// assert_eq!(batches.next().unwrap()?.num_rows(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BoundedFile {
    file: Arc<dyn ReadAt>,
    /// Pages that were met; `None` while the file's metadata is read.
    pages: Option<Arc<Mutex<Pages>>>,
}

impl std::fmt::Debug for BoundedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedFile").field("length", &self.len()).finish_non_exhaustive()
    }
}

/// Bytes at any place.
trait ReadAt: Send + Sync {
    fn length(&self) -> u64;

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize>;
}

impl ReadAt for File {
    fn length(&self) -> u64 {
        Length::len(self)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |start| start.min(self.len()));
        (&self[start..]).read(buffer)
    }
}

impl BoundedFile {
    /// A file whose metadata can be read.
    pub(crate) fn new(file: File) -> Self {
        Self { file: Arc::new(file), pages: None }
    }

    /// A file in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { file: Arc::new(bytes), pages: None }
    }

    /// Reads the metadata, for a reader of the file's batches.
    ///
    /// # Errors
    /// If it is damaged, or declares more than the file can have.
    pub fn into_builder(self) -> Result<ParquetRecordBatchReaderBuilder<Self>> {
        let metadata = self.metadata()?;
        let file = self.with_pages(metadata.metadata())?;
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
    }

    /// The file's metadata.
    ///
    /// # Errors
    /// If it is damaged.
    pub(crate) fn metadata(&self) -> Result<ArrowReaderMetadata> {
        self.check_footer()?;
        ArrowReaderMetadata::load(self, ArrowReaderOptions::default())
    }

    /// Checks the footer, where there is one; the reader says what else is wrong.
    fn check_footer(&self) -> Result<()> {
        let Some(end) = self.len().checked_sub(FOOTER_END) else { return Ok(()) };
        let bytes = self.get_bytes(end, FOOTER_END as usize)?;
        let length = bytes[..4].iter().rev().fold(0, |length, byte| length << 8 | u64::from(*byte));
        match end.checked_sub(length) {
            Some(start) if bytes.ends_with(b"PAR1") => Ok(footer::check(&self.get_bytes(start, length as usize)?)?),
            _ => Ok(()),
        }
    }

    /// A second handle of the file, whose pages can be read.
    ///
    /// # Errors
    /// If the file declares more rows than it can have, or columns at the same place.
    pub(crate) fn with_pages(self, metadata: &ParquetMetaData) -> Result<Self> {
        let (most, rows) = (max_rows(self.len()), metadata.file_metadata().num_rows());
        if u64::try_from(rows).map_or(true, |rows| rows > most) {
            let length = self.len();
            let found = format!("{rows} rows in a file of {length} bytes, expected at most {most}");
            return Err(ParquetError::General(found));
        }
        Ok(Self { pages: Some(Arc::new(Mutex::new(Pages::of(metadata)?))), ..self })
    }

    fn rest(&self, offset: u64) -> Rest {
        Rest { file: self.file.clone(), offset }
    }
}

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.file.length()
    }
}

impl ChunkReader for BoundedFile {
    type T = BoundedReader;

    fn get_read(&self, start: u64) -> Result<BoundedReader> {
        let header = self.pages.clone().map(|pages| (pages, start));
        Ok(BoundedReader { inner: BufReader::new(self.rest(start)), header, at_end: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            let found = format!("{length} bytes at offset {start}, in a file of {} bytes", self.len());
            return Err(ParquetError::EOF(found));
        }
        let mut bytes = vec![0; length];
        self.rest(start).read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Bytes of a file from an offset on.
#[derive(Clone)]
struct Rest {
    file: Arc<dyn ReadAt>,
    offset: u64,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A reader that checks the page whose header it reads first, and fails after 64 reads at the end of its file.
pub struct BoundedReader {
    inner: BufReader<Rest>,
    header: Option<(Arc<Mutex<Pages>>, u64)>,
    at_end: usize,
}

impl std::fmt::Debug for BoundedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedReader").field("offset", &self.inner.get_ref().offset).finish_non_exhaustive()
    }
}

impl BoundedReader {
    /// Checks the page at the place where the reader begins.
    fn check(&self, pages: &Mutex<Pages>, start: u64) -> std::io::Result<()> {
        let mut input = BufReader::with_capacity(HEADER_BYTES, self.inner.get_ref().clone());
        let header = PageHeader::read(&mut input)?;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.see(start, header).map_err(|found| std::io::Error::new(ErrorKind::InvalidData, found))
    }
}

impl Read for BoundedReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some((pages, start)) = self.header.take() {
            self.check(&pages, start)?;
        }
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.at_end += 1;
            if self.at_end > READS_AT_END {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(count)
    }
}

/// Sizes of the pages that are read at a time: for each column of a row group, a dictionary and a page.
struct Pages {
    /// In the order of their places.
    columns: Vec<Column>,
    /// Numbers of the columns of each row group.
    groups: Vec<Vec<usize>>,
}

struct Column {
    place: Range<u64>,
    row_group: usize,
    rows: u64,
    is_repeated: bool,
    /// Bytes of the dictionary, and of the current page, beyond what they may expand to.
    excess: [u64; 2],
    /// Bytes and values of all pages so far.
    stored: u64,
    values: u64,
}

impl Pages {
    fn of(metadata: &ParquetMetaData) -> Result<Self> {
        let groups = metadata.row_groups().iter().enumerate();
        let mut columns: Vec<Column> = groups
            .flat_map(|(number, group)| {
                group.columns().iter().map(move |chunk| Column::of(chunk, number, group.num_rows()))
            })
            .collect();
        columns.retain(|column| !column.place.is_empty());
        columns.sort_by_key(|column| column.place.start);
        match columns.windows(2).find(|pair| pair[0].place.end > pair[1].place.start) {
            Some(pair) => Err(ParquetError::General(format!("two columns at the same place, {:?}", pair[1].place))),
            None => {
                let mut groups = vec![Vec::new(); metadata.num_row_groups()];
                columns.iter().enumerate().for_each(|(number, column)| groups[column.row_group].push(number));
                Ok(Self { columns, groups })
            }
        }
    }

    /// Counts the page at `start`; an error if its row group would take too much memory.
    fn see(&mut self, start: u64, header: PageHeader) -> std::result::Result<(), String> {
        let PageHeader { is_dictionary, expanded, stored, values } = header;
        if is_dictionary && values > expanded {
            return Err(format!("a dictionary of {values} values in {expanded} bytes"));
        }
        let number = self.columns.partition_point(|column| column.place.end <= start);
        let Some(column) = self.columns.get_mut(number) else {
            return Err(format!("a page at offset {start}, behind all columns"));
        };
        column.excess[usize::from(!is_dictionary)] = excess(expanded, stored);
        if !is_dictionary {
            column.stored = column.stored.saturating_add(stored);
            column.values = column.values.saturating_add(values);
        }
        let items = column.values.saturating_sub(column.rows);
        if column.is_repeated && excess(items.saturating_mul(ITEM_BYTES), column.stored) > ALLOWANCE {
            return Err(format!("{items} items of lists in {} bytes", column.stored));
        }
        let together = self.groups[column.row_group].iter().flat_map(|&number| self.columns[number].excess);
        if together.fold(0, u64::saturating_add) > ALLOWANCE {
            return Err(format!(
                "a page of {stored} bytes that expands to {expanded}; expected {RATIO} times as much, and {ALLOWANCE} bytes \
                 more for all columns"
            ));
        }
        Ok(())
    }
}

impl Column {
    fn of(chunk: &ColumnChunkMetaData, row_group: usize, rows: i64) -> Self {
        let (start, length) = chunk.byte_range();
        Self {
            place: start..start.saturating_add(length),
            row_group,
            rows: rows.try_into().unwrap_or(0),
            is_repeated: chunk.column_descr().max_rep_level() > 0,
            excess: [0, 0],
            stored: 0,
            values: 0,
        }
    }
}
