//! A Parquet file that fails when it is read beyond its end again and again.
//!
//! The `parquet` crate skips unknown fields of a page header without noticing that the file has ended, so a damaged header
//! with a list of 2^31 numbers keeps it busy for hours.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Reads at the end of the file that are allowed; sound readers make fewer.
const READS_AT_END: usize = 64;

/// A local file for the Parquet reader.
pub(crate) struct BoundedFile(pub(crate) File);

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for BoundedFile {
    type T = BoundedReader;

    fn get_read(&self, start: u64) -> Result<BoundedReader> {
        Ok(BoundedReader { inner: self.0.get_read(start)?, at_end: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            let found = format!("{length} bytes at offset {start}, in a file of {} bytes", self.len());
            return Err(ParquetError::EOF(found));
        }
        self.0.get_bytes(start, length)
    }
}

/// A reader that fails after [`READS_AT_END`] reads at the end of its file.
pub(crate) struct BoundedReader {
    inner: BufReader<File>,
    at_end: usize,
}

impl Read for BoundedReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
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
