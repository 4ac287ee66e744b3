//! blake3 of a table's rows: names, types and values, whatever the batches, offsets and padding.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};

use crate::columns::plain_type;
use crate::failure::Result;
use crate::table::Data;
use crate::work::Stop;

/// Rows that are hashed together.
pub(crate) const ROWS: u64 = 8192;

/// The hash of rows that come in batches of [`ROWS`], but for the last, in hex.
pub(crate) fn of_batches(schema: &SchemaRef, mut batches: impl Iterator<Item = Result<RecordBatch>>) -> Result<String> {
    let mut hasher = Hasher::new();
    hasher.schema(schema);
    batches.try_for_each(|batch| hasher.batch(&batch?))?;
    Ok(hasher.finish())
}

/// The hash of a table, in hex.
pub(crate) fn of_table(table: &Data, stop: &Stop) -> Result<String> {
    let mut hasher = Hasher::new();
    hasher.schema(&table.schema);
    let mut pending: Vec<RecordBatch> = Vec::new();
    let mut held = 0;
    for batch in &table.batches {
        let mut start = 0;
        while start < batch.num_rows() {
            stop.check()?;
            let take = (batch.num_rows() - start).min((ROWS - held) as usize);
            pending.push(batch.slice(start, take));
            (start, held) = (start + take, held + take as u64);
            if held == ROWS {
                hasher.batch(&concat_batches(&table.schema, &pending)?)?;
                pending.clear();
                held = 0;
            }
        }
    }
    if held > 0 {
        hasher.batch(&concat_batches(&table.schema, &pending)?)?;
    }
    Ok(hasher.finish())
}

struct Hasher(blake3::Hasher);

impl Hasher {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn schema(&mut self, schema: &SchemaRef) {
        for field in schema.fields() {
            self.text(field.name());
            self.text(&plain_type(field.data_type()).to_string());
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.number(batch.num_rows() as u64);
        batch.columns().iter().try_for_each(|column| self.column(column))
    }

    /// Hashes which values are there, their lengths, then their bytes.
    fn column(&mut self, column: &ArrayRef) -> Result<()> {
        let plain = plain_type(column.data_type());
        let column = if plain == *column.data_type() { column.clone() } else { cast(column, &plain)? };
        let bits = (0..column.len()).map(|row| u8::from(column.is_valid(row)));
        self.0.update(&bits.collect::<Vec<_>>());
        match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                for row in 0..texts.len() {
                    self.text(if texts.is_valid(row) { texts.value(row) } else { "" });
                }
            }
            DataType::LargeUtf8 => {
                let texts = column.as_string::<i64>();
                for row in 0..texts.len() {
                    self.text(if texts.is_valid(row) { texts.value(row) } else { "" });
                }
            }
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                let offsets = lists.value_offsets();
                offsets.windows(2).for_each(|pair| self.number((pair[1] - pair[0]) as u64));
                let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
                self.column(&lists.values().slice(first, last - first))?;
            }
            DataType::Struct(_) => {
                let fields = column.as_struct();
                fields.columns().iter().try_for_each(|field| self.column(field))?;
            }
            // Booleans, numbers, times and the rest, as Arrow prints each value.
            _ => {
                let options = arrow::util::display::FormatOptions::default();
                let printed = arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options)?;
                for row in 0..column.len() {
                    if column.is_valid(row) {
                        let text = printed.value(row).try_to_string()?;
                        self.text(&text);
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
