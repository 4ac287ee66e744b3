//! Checks of the lengths that an Arrow IPC file or stream declares, against the length of the file.
//!
//! arrow-rs allocates a block, and a decompressed column, before it reads it, so a few damaged bytes could exhaust the
//! memory.

use std::io::{Read, Seek, SeekFrom};

use arrow::error::ArrowError;
use arrow::ipc::reader::read_footer_length;
use arrow::ipc::{Block, Message, RecordBatch, root_as_footer, root_as_message};

use crate::read::budget::{ALLOWANCE, RATIO, excess};

/// Bytes at the end of a file: length of the footer, and the magic word.
const TAIL: u64 = 10;
/// Marker before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// Largest allowed buffer of a column in one batch, in bytes when decompressed.
const MAX_COLUMN: i64 = 1 << 32;

/// Checks that the footer and all blocks that it declares fit into an IPC file, and returns the file's length.
pub(crate) fn check_file(file: &mut (impl Read + Seek)) -> Result<u64, ArrowError> {
    let length = file.seek(SeekFrom::End(0))?;
    let wrong = |what: &str| ArrowError::IpcError(format!("{what}, in a file of {length} bytes"));
    let mut tail = [0; TAIL as usize];
    let Some(end) = length.checked_sub(TAIL) else { return Err(wrong("no footer")) };
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut tail)?;
    let footer_length = read_footer_length(tail)?;
    let Some(start) = end.checked_sub(footer_length as u64) else {
        return Err(wrong(&format!("a footer of {footer_length} bytes")));
    };
    file.seek(SeekFrom::Start(start))?;
    let mut footer = vec![0; footer_length];
    file.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(|e| ArrowError::IpcError(format!("the footer is damaged: {e}")))?;
    let blocks = [footer.dictionaries(), footer.recordBatches()].into_iter().flatten().flatten();
    for block in blocks {
        let Some(block_end) = block_end(block).filter(|block_end| *block_end <= start) else {
            let (at, metadata, body) = (block.offset(), block.metaDataLength(), block.bodyLength());
            return Err(wrong(&format!("a block at {at} of {metadata} and {body} bytes")));
        };
        check_block(file, block, block_end)?;
    }
    Ok(length)
}

/// Checks the declared sizes of columns in an IPC stream, and returns the stream's length. A truncated stream is left to
/// the reader, which reads step by step and reports it.
pub(crate) fn check_stream(file: &mut (impl Read + Seek)) -> Result<u64, ArrowError> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut at = Some(0);
    while let Some(start) = at {
        at = check_message(file, start, length)?;
    }
    Ok(length)
}

fn block_end(block: &Block) -> Option<u64> {
    let [offset, body] = [block.offset(), block.bodyLength()].map(|n| u64::try_from(n).ok());
    offset?.checked_add(u64::try_from(block.metaDataLength()).ok()?)?.checked_add(body?)
}

/// Checks the columns of a block that lies within its file. The reader takes the lengths of the block, whatever its message
/// says about them.
fn check_block(file: &mut (impl Read + Seek), block: &Block, block_end: u64) -> Result<(), ArrowError> {
    let mut metadata = vec![0; block.metaDataLength().unsigned_abs() as usize];
    file.seek(SeekFrom::Start(block.offset().unsigned_abs()))?;
    file.read_exact(&mut metadata)?;
    let prefix = if metadata.starts_with(&CONTINUATION.to_le_bytes()) { 8 } else { 4 };
    let message = message_of(metadata.get(prefix..).unwrap_or_default())?;
    check_batch(file, &message, block_end - block.bodyLength().unsigned_abs(), block_end)
}

/// Checks the columns of the message at `at` and returns its end; `None` if no whole message is left before `end`.
fn check_message(file: &mut (impl Read + Seek), at: u64, end: u64) -> Result<Option<u64>, ArrowError> {
    let mut word = [0; 4];
    let mut next = |file: &mut dyn Read| file.read_exact(&mut word).map(|()| u32::from_le_bytes(word));
    if at.saturating_add(8) > end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let (metadata_at, metadata) = match next(file)? {
        CONTINUATION => (at + 8, next(file)?),
        length => (at + 4, length), // as before version 0.15
    };
    let body_at = metadata_at + u64::from(metadata);
    if metadata == 0 || body_at > end {
        return Ok(None);
    }
    let mut bytes = vec![0; metadata as usize];
    file.seek(SeekFrom::Start(metadata_at))?;
    file.read_exact(&mut bytes)?;
    let message = message_of(&bytes)?;
    let body_end = u64::try_from(message.bodyLength()).ok().and_then(|body| body_at.checked_add(body));
    let Some(body_end) = body_end.filter(|body_end| *body_end <= end) else { return Ok(None) };
    check_batch(file, &message, body_at, body_end)?;
    Ok(Some(body_end))
}

fn message_of(bytes: &[u8]) -> Result<Message<'_>, ArrowError> {
    root_as_message(bytes).map_err(|e| ArrowError::IpcError(format!("a message is damaged: {e}")))
}

/// Checks the columns of a message, if it holds some.
fn check_batch(
    file: &mut (impl Read + Seek),
    message: &Message<'_>,
    body_at: u64,
    body_end: u64,
) -> Result<(), ArrowError> {
    let batch = match message.header_as_dictionary_batch() {
        Some(dictionary) => dictionary.data(),
        None => message.header_as_record_batch(),
    };
    match batch.filter(|batch| batch.compression().is_some()) {
        Some(batch) => check_columns(file, &batch, body_at, body_end),
        None => Ok(()),
    }
}

/// Checks that no column grows beyond [`MAX_COLUMN`], nor all of them beyond what their bytes allow. A compressed column starts
/// with its decompressed length, or with -1 if it is stored uncompressed.
fn check_columns(
    file: &mut (impl Read + Seek),
    batch: &RecordBatch<'_>,
    body_at: u64,
    body_end: u64,
) -> Result<(), ArrowError> {
    let mut held = 0u64;
    for buffer in batch.buffers().into_iter().flatten().filter(|buffer| buffer.length() > 0) {
        let at = u64::try_from(buffer.offset()).ok().and_then(|offset| body_at.checked_add(offset));
        let Some(at) = at.filter(|at| at.saturating_add(8) <= body_end) else {
            let (offset, length) = (buffer.offset(), buffer.length());
            return Err(ArrowError::IpcError(format!("a column at {offset} of {length} bytes, outside its batch")));
        };
        let mut size = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut size)?;
        let size = i64::from_le_bytes(size);
        if !(-1..=MAX_COLUMN).contains(&size) {
            return Err(ArrowError::IpcError(format!("a column of {size} bytes, expected at most {MAX_COLUMN}")));
        }
        let stored = buffer.length().unsigned_abs();
        held = held.saturating_add(excess(size.max(0).unsigned_abs(), stored));
        if held > ALLOWANCE {
            return Err(ArrowError::IpcError(format!(
                "a column of {stored} bytes that expands to {size}; expected {RATIO} times as much, and {ALLOWANCE} bytes more for \
                 all columns of a batch"
            )));
        }
    }
    Ok(())
}
