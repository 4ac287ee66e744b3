//! Pieces of a batch whose values, when they are copied out, take bounded memory: a dictionary's value, or an item that several
//! lists share, is there once and counts each time.

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::DataType;

use crate::cell::{Cell, Opaque, Struct};

/// Bytes that any value takes.
const VALUE_BYTES: u64 = 16;

/// Bytes of a piece, twice those of a batch of pairs, so that a piece ends no batch early.
const PIECE_BYTES: u64 = 128 << 20;

/// Slices of a batch, each of at most `rows` rows and about [`PIECE_BYTES`]. A row of more than `most` bytes gives its size, or as much
/// of it as was counted.
pub(super) struct Pieces {
    batch: StructArray,
    start: usize,
    rows: usize,
    most: u64,
}

impl Pieces {
    pub(super) fn of(batch: StructArray, rows: usize, most: u64) -> Self {
        Self { batch, start: 0, rows, most }
    }
}

impl Iterator for Pieces {
    type Item = Result<StructArray, u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let (start, left) = (self.start, self.batch.len() - self.start);
        let (mut count, mut held) = (0, 0);
        while count < left.min(self.rows) {
            let size = row_bytes(&self.batch, start + count, self.most);
            if size > self.most {
                self.start = self.batch.len();
                return Some(Err(size));
            }
            held += size;
            if count > 0 && held > PIECE_BYTES {
                break;
            }
            count += 1;
        }
        self.start += count;
        (count > 0).then(|| Ok(self.batch.slice(start, count)))
    }
}

/// Bytes of a row; counting stops beyond `most`.
fn row_bytes(batch: &StructArray, row: usize, most: u64) -> u64 {
    size(Cell::Struct(Struct::Arrow { array: batch, row }), most)
}

fn size(cell: Cell<'_>, most: u64) -> u64 {
    match cell {
        Cell::Str(text) => VALUE_BYTES + text.len() as u64,
        Cell::List(list) => sum(list.iter().map(|item| size(item, most)), most),
        Cell::Struct(Struct::Arrow { array, row }) => {
            sum(array.columns().iter().map(|column| size(Cell::of_arrow(column.as_ref(), row), most)), most)
        }
        Cell::Other(value) => size_of_opaque(value, most),
        _ => VALUE_BYTES,
    }
}

fn size_of_opaque(value: Opaque<'_>, most: u64) -> u64 {
    let (array, row) = value.place();
    let bytes = match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => array.as_binary::<i64>().value(row).len(),
        DataType::BinaryView => array.as_binary_view().value(row).len(),
        DataType::FixedSizeBinary(width) => *width as usize,
        DataType::Map(..) => {
            let map = array.as_map();
            let ends = &map.value_offsets()[row..row + 2];
            let entries = ends[0] as usize..ends[1] as usize;
            return sum(entries.map(|entry| row_bytes(map.entries(), entry, most)), most);
        }
        _ => 0,
    };
    VALUE_BYTES + bytes as u64
}

fn sum(sizes: impl Iterator<Item = u64>, most: u64) -> u64 {
    let mut sum = VALUE_BYTES;
    for size in sizes {
        sum += size;
        if sum > most {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, FixedSizeListArray, NullArray, StringArray};
    use arrow::datatypes::{Field, Int8Type};

    use super::*;

    fn batch(column: ArrayRef) -> StructArray {
        let field = Arc::new(Field::new("a", column.data_type().clone(), true));
        StructArray::new(vec![field].into(), vec![column], None)
    }

    #[test]
    fn a_text_that_is_there_once_counts_each_time() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(30 << 20)]));
        let column = DictionaryArray::<Int8Type>::new(vec![0; 5].into(), texts);
        let batch = batch(Arc::new(column));
        let lengths = |most| Pieces::of(batch.clone(), 1000, most).map(|piece| piece.map(|piece| piece.len()));
        assert_eq!(lengths(1 << 30).collect::<Vec<_>>(), [Ok(4), Ok(1)]);
        assert_eq!(lengths(1 << 20).collect::<Vec<_>>(), [Err((30 << 20) + 32)]);
        let short = Pieces::of(self::batch(Arc::new(StringArray::from(vec!["a"; 5]))), 2, 1 << 20);
        assert_eq!(short.map(|piece| piece.unwrap().len()).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn items_that_take_no_bytes_count() {
        let item = Arc::new(Field::new("item", DataType::Null, true));
        let list = FixedSizeListArray::new(item, 1 << 30, Arc::new(NullArray::new(1 << 30)), None);
        let found: Vec<_> = Pieces::of(batch(Arc::new(list)), 1000, 1 << 20).collect();
        assert!(matches!(found[..], [Err(size)] if size > 1 << 20 && size < 1 << 21), "{found:?}");
    }
}
