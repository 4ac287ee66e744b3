//! Lengths of responses: tokens of a tokenizer, or bytes without one.

use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use simplemix_data::{PairTokenizer, TokenizeOptions, TokenizerAs};

use crate::error::{Error, Result};

/// Rows of a source that are looked at for what the user should know about their tokens.
const LOOKED_AT: usize = 256;

/// Measures responses.
pub(crate) enum Lengths {
    /// UTF-8 bytes of the contents.
    Bytes,
    /// Tokens of the contents.
    Tokens(Box<PairTokenizer>),
}

impl Lengths {
    pub(crate) fn new(folder: Option<&Path>, tokenizer_as: TokenizerAs) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self::Bytes) };
        let options = TokenizeOptions { tokenizer_as, ..TokenizeOptions::default() };
        Ok(Self::Tokens(Box::new(PairTokenizer::from_dir(folder, options)?)))
    }

    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Tokens(_) => "tokens",
        }
    }

    /// Facts about the tokenizer that the user should know; `rows` are some of those that are measured.
    pub(crate) fn notices(&self, rows: &[RecordBatch]) -> Result<Vec<String>> {
        let Self::Tokens(tokenizer) = self else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        for batch in rows {
            for column in ["chosen", "rejected"].into_iter().filter_map(|name| batch.column_by_name(name)) {
                texts.extend((0..batch.num_rows().min(LOOKED_AT)).map(|row| contents(column.as_ref(), row)));
            }
        }
        let different = tokenizer.texts_reading_notice(&texts)?;
        Ok(tokenizer.folder_notices().iter().cloned().chain(different).collect())
    }

    /// Length of chosen and rejected together, row by row.
    pub(crate) fn of(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let [chosen, rejected] = self.of_sides(batch)?;
        Ok(chosen.into_iter().zip(rejected).map(|(chosen, rejected)| chosen + rejected).collect())
    }

    /// Lengths of chosen and of rejected, row by row.
    pub(crate) fn of_sides(&self, batch: &RecordBatch) -> Result<[Vec<u64>; 2]> {
        let side = |name| self.of_column(batch, name);
        Ok([side("chosen")?, side("rejected")?])
    }

    fn of_column(&self, batch: &RecordBatch, name: &'static str) -> Result<Vec<u64>> {
        let column = batch.column_by_name(name).ok_or(Error::Column { column: name })?;
        let rows = 0..batch.num_rows();
        match self {
            Self::Bytes => {
                let mut lengths = vec![0; rows.len()];
                add_bytes(column.as_ref(), &mut lengths);
                Ok(lengths)
            }
            Self::Tokens(tokenizer) => {
                let contents: Vec<String> = rows.map(|row| contents(column.as_ref(), row)).collect();
                Ok(tokenizer.token_counts(&contents)?.into_iter().map(|count| count as u64).collect())
            }
        }
    }
}

/// Bytes from the offsets alone.
fn add_bytes(column: &dyn Array, lengths: &mut [u64]) {
    if let Some(plain) = column.as_string_opt::<i32>() {
        for (length, ends) in lengths.iter_mut().zip(plain.value_offsets().windows(2)) {
            *length += (ends[1] - ends[0]) as u64;
        }
        return;
    }
    let Some(turns) = column.as_list_opt::<i32>() else { return };
    let content = turns.values().as_struct_opt().and_then(|fields| fields.column_by_name("content").cloned());
    let Some(content) = content else { return };
    let Some(content) = content.as_string_opt::<i32>() else { return };
    for (length, ends) in lengths.iter_mut().zip(turns.value_offsets().windows(2)) {
        let (from, to) = (ends[0] as usize, ends[1] as usize);
        *length += (content.value_offsets()[to] - content.value_offsets()[from]) as u64;
    }
}

/// The contents of a row's turns, or its plain text.
fn contents(column: &dyn Array, row: usize) -> String {
    if let Some(plain) = column.as_string_opt::<i32>() {
        return plain.value(row).to_owned();
    }
    // Role and content alternate.
    crate::sources::texts(column, row).into_iter().skip(1).step_by(2).collect::<Vec<_>>().join("\n")
}
