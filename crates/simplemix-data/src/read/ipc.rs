//! Lengths that the footer of an Arrow IPC file declares, held against the file's own before room is made for them.
//!
//! arrow-rs makes room for a block first and reads it then, so a damaged footer of a few bytes could take all memory.
//! (Its reader of streams goes step by step.)

use std::io::{Read, Seek, SeekFrom};

use arrow::error::ArrowError;
use arrow::ipc::reader::read_footer_length;
use arrow::ipc::{Block, root_as_footer};

/// Bytes at the end: length of the footer, and the magic word.
const TAIL: u64 = 10;

/// The file's length; fails if the footer, or a block that it declares, does not fit into it.
pub(crate) fn check_blocks(file: &mut (impl Read + Seek)) -> Result<u64, ArrowError> {
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
        if block_end(block).is_none_or(|block_end| block_end > start) {
            let (at, metadata, body) = (block.offset(), block.metaDataLength(), block.bodyLength());
            return Err(wrong(&format!("a block at {at} of {metadata} and {body} bytes")));
        }
    }
    Ok(length)
}

fn block_end(block: &Block) -> Option<u64> {
    let [offset, body] = [block.offset(), block.bodyLength()].map(|n| u64::try_from(n).ok());
    offset?.checked_add(u64::try_from(block.metaDataLength()).ok()?)?.checked_add(body?)
}
