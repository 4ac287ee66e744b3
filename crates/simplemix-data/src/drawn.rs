//! Rows of a source that a mixture draws, kept until they are written in the mixture's order, in bounded memory.
//!
//! The places of all draws are known before the rows are read. So a row that is not drawn is not kept; and when the rows exceed
//! their budget, they go to a temporary file sorted by their places, in blocks of neighbours. A part of the mixture is then
//! a few reads of whole blocks, where [`RowStore`](crate::RowStore) reads each row by itself.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;

use crate::error::{Error, Result};
use crate::gather::decode;

/// Rows of the mixture that are gathered at a time.
const GATHERED_ROWS: usize = 4096;

/// The rows of a source that are drawn, and their places in the mixture.
///
/// # Examples
/// ```
/// use simplemix_data::Draws;
/// // Row 7 is drawn at place 0, row 2 at the places 1 and 3.
/// let draws = Draws::new(vec![(7, 0), (2, 1), (2, 3)]);
/// let mut wanted = draws.wanted(0);
/// assert_eq!((0..9).filter(|&row| wanted(row)).collect::<Vec<_>>(), [2, 7]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Draws {
    /// Row and place in one number, sorted: eight bytes a draw.
    sorted: Arc<[u64]>,
}

impl Draws {
    /// Draws as row and place, in any order; at most 2^32 of both.
    pub fn new(draws: Vec<(u32, u32)>) -> Self {
        let mut sorted: Vec<u64> =
            draws.into_iter().map(|(row, place)| u64::from(row) << 32 | u64::from(place)).collect();
        sorted.sort_unstable();
        Self { sorted: sorted.into() }
    }

    /// Tells whether a row is drawn, for a caller that asks for each row in order, from `first` on.
    pub fn wanted(&self, first: u64) -> impl FnMut(u64) -> bool + Send + use<> {
        let sorted = self.sorted.clone();
        let mut next = sorted.partition_point(|&draw| draw >> 32 < first);
        move |row| {
            while sorted.get(next).is_some_and(|&draw| draw >> 32 < row) {
                next += 1;
            }
            sorted.get(next).is_some_and(|&draw| draw >> 32 == row)
        }
    }
}

/// The drawn rows of a source.
#[derive(Debug)]
pub struct DrawnRows {
    /// Batches that are in memory.
    batches: Vec<RecordBatch>,
    /// Their rows by place: place, batch and row.
    entries: Vec<Entry>,
    spilled: Option<Spilled>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    place: u32,
    batch: u32,
    row: u32,
}

/// Blocks of rows in a temporary file.
#[derive(Debug)]
struct Spilled {
    file: File,
    folder: PathBuf,
    /// By the part of the mixture they belong to; those of a part are in the order in which they were written.
    blocks: Vec<Block>,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    part: u32,
    start: u64,
    length: u32,
}

impl DrawnRows {
    /// Takes the rows that `draws` wants, in the order of their numbers. Whenever they exceed `memory` bytes, they are moved to a
    /// temporary file in `folder`, which is deleted with this value, in blocks for each `part` places of the mixture.
    ///
    /// # Errors
    /// Errors of the batches; [`Error::Arrow`] if there are fewer or more rows than are wanted, or a row cannot be encoded;
    /// [`Error::Io`] if the file cannot be written.
    pub fn collect(
        batches: impl IntoIterator<Item = Result<RecordBatch>>,
        draws: &Draws,
        part: usize,
        memory: usize,
        folder: &Path,
    ) -> Result<Self> {
        let mut kept = Self { batches: Vec::new(), entries: Vec::new(), spilled: None };
        let (mut held, mut next) = (0, 0);
        for batch in batches {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let number = kept.batches.len() as u32;
            for row in 0..batch.num_rows() as u32 {
                let Some(&first) = draws.sorted.get(next) else { return Err(miscounted()) };
                while let Some(&draw) = draws.sorted.get(next).filter(|&&draw| draw >> 32 == first >> 32) {
                    kept.entries.push(Entry { place: draw as u32, batch: number, row });
                    next += 1;
                }
            }
            held += batch.get_array_memory_size();
            kept.batches.push(batch);
            if held > memory {
                kept.spill(part, folder)?;
                held = 0;
            }
        }
        if next < draws.sorted.len() {
            return Err(miscounted());
        }
        kept.entries.sort_unstable_by_key(|entry| entry.place);
        Ok(kept)
    }

    /// Moves the rows in memory to the file.
    fn spill(&mut self, part: usize, folder: &Path) -> Result<()> {
        let failed = || Error::io(folder, "write a temporary file in");
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => {
                let file = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a temporary file in"))?;
                none.insert(Spilled { file, folder: folder.to_owned(), blocks: Vec::new(), end: 0 })
            }
        };
        self.entries.sort_unstable_by_key(|entry| entry.place);
        let mut bytes = Vec::new();
        let number = |entry: &Entry| entry.place as usize / part;
        for entries in self.entries.chunk_by(|a, b| number(a) == number(b)) {
            bytes.clear();
            encode(&self.batches, entries, &mut bytes).map_err(spilling)?;
            let length = u32::try_from(bytes.len())
                .map_err(|_| spilling(ArrowError::InvalidArgumentError(format!("a block of {} bytes", bytes.len()))))?;
            spilled.file.write_all(&bytes).map_err(failed())?;
            spilled.blocks.push(Block { part: number(&entries[0]) as u32, start: spilled.end, length });
            spilled.end += u64::from(length);
        }
        // Stable: the blocks of a part stay in the order of the file.
        spilled.blocks.sort_by_key(|block| block.part);
        self.batches.clear();
        self.entries.clear();
        Ok(())
    }

    /// The rows at `places` of the mixture, in batches of a few thousand. Each place belongs to one of `sources`, and all places to one
    /// part of them.
    ///
    /// # Errors
    /// [`Error::Arrow`] if a place has no row, or columns differ; [`Error::Io`] if a temporary file cannot be read.
    pub fn gather(sources: &[Self], places: Range<usize>, part: usize) -> Result<Vec<RecordBatch>> {
        let gathering = |source| Error::Arrow { path: "a gathered batch".into(), source };
        const NONE: (usize, usize) = (usize::MAX, 0);
        let mut found = vec![NONE; places.len()];
        let mut read = Vec::new();
        let number = (places.start / part) as u32;
        for source in sources {
            for block in source.spilled.iter().flat_map(|spilled| spilled.of_part(number)) {
                let (rows, at) = block?;
                for (row, place) in at.values().iter().enumerate() {
                    found[*place as usize - places.start] = (read.len(), row);
                }
                read.push(rows);
            }
        }
        let mut used: Vec<&RecordBatch> = read.iter().collect();
        for source in sources {
            let mut numbers = vec![usize::MAX; source.batches.len()];
            let from = source.entries.partition_point(|entry| (entry.place as usize) < places.start);
            let to = source.entries.partition_point(|entry| (entry.place as usize) < places.end);
            for entry in &source.entries[from..to] {
                let batch = entry.batch as usize;
                if numbers[batch] == usize::MAX {
                    numbers[batch] = used.len();
                    used.push(&source.batches[batch]);
                }
                found[entry.place as usize - places.start] = (numbers[batch], entry.row as usize);
            }
        }
        if let Some(missing) = found.iter().position(|place| *place == NONE) {
            let text = format!("no row for place {} of the mixture", places.start + missing);
            return Err(gathering(ArrowError::InvalidArgumentError(text)));
        }
        found.chunks(GATHERED_ROWS).map(|rows| interleave(&used, rows).map_err(gathering)).collect()
    }
}

impl Spilled {
    /// Rows of a part, and their places.
    fn of_part(&self, part: u32) -> impl Iterator<Item = Result<(RecordBatch, UInt32Array)>> {
        let from = self.blocks.partition_point(|block| block.part < part);
        let of_part = self.blocks[from..].iter().take_while(move |block| block.part == part);
        of_part.map(|block| self.read(block))
    }

    fn read(&self, block: &Block) -> Result<(RecordBatch, UInt32Array)> {
        let mut bytes = vec![0; block.length as usize];
        self.file
            .read_exact_at(&mut bytes, block.start)
            .map_err(Error::io(&self.folder, "read a temporary file in"))?;
        let (_, batches) = decode(&Buffer::from(bytes)).map_err(spilling)?;
        let missing = || spilling(ArrowError::ParseError("a block without its batch".to_owned()));
        let mut batch = batches.into_iter().next().ok_or_else(missing)?;
        let places = batch.remove_column(batch.num_columns() - 1);
        let places = places.as_primitive_opt::<UInt32Type>().cloned().ok_or_else(missing)?;
        Ok((batch, places))
    }
}

/// Writes rows with their places, as an Arrow file.
fn encode(batches: &[RecordBatch], entries: &[Entry], bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    let all: Vec<&RecordBatch> = batches.iter().collect();
    let rows: Vec<(usize, usize)> = entries.iter().map(|entry| (entry.batch as usize, entry.row as usize)).collect();
    let rows = interleave(&all, &rows)?;
    let places: ArrayRef = Arc::new(entries.iter().map(|entry| entry.place).collect::<UInt32Array>());
    let place = Arc::new(Field::new("place", DataType::UInt32, false));
    let fields: Vec<_> = rows.schema_ref().fields().iter().cloned().chain([place]).collect();
    let columns = rows.columns().iter().cloned().chain([places]).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut writer = FileWriter::try_new(bytes, batch.schema_ref())?;
    writer.write(&batch)?;
    writer.finish()
}

/// The batches' rows, of which only those that are used are passed on: a source may have thousands.
fn interleave(batches: &[&RecordBatch], rows: &[(usize, usize)]) -> Result<RecordBatch, ArrowError> {
    let mut numbers = vec![usize::MAX; batches.len()];
    let mut used: Vec<&RecordBatch> = Vec::new();
    let mut places = Vec::with_capacity(rows.len());
    for &(batch, row) in rows {
        if numbers[batch] == usize::MAX {
            numbers[batch] = used.len();
            used.push(batches[batch]);
        }
        places.push((numbers[batch], row));
    }
    interleave_record_batch(&used, &places)
}

fn miscounted() -> Error {
    let text = "other rows than are drawn, expected files that stay as they are while they are read";
    Error::Arrow { path: "a source".into(), source: ArrowError::InvalidArgumentError(text.to_owned()) }
}

fn spilling(source: ArrowError) -> Error {
    Error::Arrow { path: "a temporary file".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::{Form, Pair, Policy};
    use crate::schema;

    /// Batches of 7 of these rows, whose prompts are their numbers.
    fn batches(rows: &[usize]) -> Vec<RecordBatch> {
        let pair = |&i: &usize| {
            let text = |text: String| text.as_str().into();
            let mut pair = Pair::new(text(format!("{i}")), text(format!("c{i}")), text("r".into()), "s", Policy::Off);
            pair.score_chosen = i.is_multiple_of(2).then_some(i as f64);
            pair
        };
        let batch =
            |rows: &[usize]| schema::batch_from_pairs(&rows.iter().map(pair).collect::<Vec<_>>(), Form::Plain).unwrap();
        rows.chunks(7).map(batch).collect()
    }

    fn prompts(batches: &[RecordBatch]) -> Vec<usize> {
        let of = |batch: &RecordBatch| {
            let texts = batch.column(0).as_string::<i32>().iter();
            texts.map(|text| text.unwrap().parse().unwrap()).collect::<Vec<usize>>()
        };
        batches.iter().flat_map(of).collect()
    }

    /// Row 3 p + 1 of 100 of the first of two sources at every third place p, the others from the second, whose row 5 is drawn often.
    fn draws() -> (Vec<usize>, [Draws; 2]) {
        let row = |place: usize| if place.is_multiple_of(3) { place * 7 % 100 } else { [5, place % 50][place % 2] };
        let of = |first: bool| {
            let places = (0..90).filter(|place: &usize| place.is_multiple_of(3) == first);
            Draws::new(places.map(|place| (row(place) as u32, place as u32)).collect())
        };
        ((0..90).map(row).collect(), [of(true), of(false)])
    }

    fn collect(draws: &Draws, memory: usize, folder: &Path) -> Result<DrawnRows> {
        let mut wanted = draws.wanted(0);
        let rows: Vec<usize> = (0..100).filter(|row| wanted(*row as u64)).collect();
        DrawnRows::collect(batches(&rows).into_iter().map(Ok), draws, 16, memory, folder)
    }

    #[test]
    fn rows_come_in_the_order_of_their_places_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (expected, draws) = draws();
        let gathered = |memory: [usize; 2]| {
            let sources = [0, 1].map(|i| collect(&draws[i], memory[i], folder.path()).unwrap());
            let part = |start: usize| DrawnRows::gather(&sources, start..(start + 16).min(90), 16).unwrap();
            (0..90).step_by(16).flat_map(part).collect::<Vec<_>>()
        };
        let near = gathered([usize::MAX; 2]);
        assert_eq!(prompts(&near), expected);
        let size = batches(&[0, 1, 2, 3, 4, 5, 6])[0].get_array_memory_size();
        // Every batch goes to the file, none, or all but the last.
        for memory in [[0, 0], [0, usize::MAX], [usize::MAX, 0], [2 * size, size]] {
            assert_eq!(gathered(memory), near, "{memory:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn rows_that_are_missing_or_too_many_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let draws = Draws::new(vec![(1, 0), (2, 1)]);
        for rows in [vec![1], vec![1, 2, 3], vec![]] {
            let kept = DrawnRows::collect(batches(&rows).into_iter().map(Ok), &draws, 16, 1 << 20, folder.path());
            let error = kept.unwrap_err().to_string();
            assert!(error.contains("a source") && !error.is_empty(), "{error}");
        }
        let kept = DrawnRows::collect(batches(&[1, 2]).into_iter().map(Ok), &draws, 16, 0, folder.path()).unwrap();
        let error = DrawnRows::gather(&[kept], 0..3, 16).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {cause}").contains("no row for place 2 of the mixture"), "{error}: {cause}");
    }
}
