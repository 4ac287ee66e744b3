//! Small files that stand for a lot of memory: each is refused with its sizes, or read piece by piece.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, NullArray, RecordBatch, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use arrow::ipc::CompressionType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use simplemix_data::{PairReader, ReadOptions, RowReader, RowStore, read_pairs};

use crate::common::{arrow_bytes, file};

const MIB: usize = 1 << 20;

fn texts(rows: usize, bytes: usize) -> RecordBatch {
    let column = |letter: &str| {
        let text = letter.repeat(bytes);
        Arc::new(StringArray::from_iter_values((0..rows).map(|_| text.as_str()))) as ArrayRef
    };
    RecordBatch::try_from_iter([("prompt", column("p")), ("chosen", column("c")), ("rejected", column("r"))]).unwrap()
}

fn parquet(folder: &Path, batch: &RecordBatch, dictionary: bool) -> PathBuf {
    let path = folder.join("a.parquet");
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(dictionary)
        .set_dictionary_page_size_limit(4 * MIB)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    path
}

fn error(path: &Path) -> String {
    let read = read_pairs(path, &ReadOptions::default()).map(|pairs| pairs.len());
    let error = read.unwrap_err().to_string();
    assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    error
}

#[test]
fn a_parquet_page_that_expands_without_measure() {
    let dir = tempfile::tempdir().unwrap();
    let path = parquet(dir.path(), &texts(1, 30 * MIB), false);
    let bytes = path.metadata().unwrap().len();
    assert!(bytes < 33_000, "{bytes}");
    let error = error(&path);
    assert!(error.contains("that expands to 31457"), "{error}");
    // Less than the allowance for all columns together.
    let path = parquet(dir.path(), &texts(1, 20 * MIB), false);
    assert_eq!(read_pairs(&path, &ReadOptions::default()).unwrap()[0].chosen.chars(), 20 * MIB);
}

/// A file with a further field in its footer.
fn with_field(path: &Path, field: &[u8]) {
    let bytes = std::fs::read(path).unwrap();
    let (rest, end) = bytes.split_at(bytes.len() - 8);
    let length = u32::from_le_bytes(end[..4].try_into().unwrap());
    // The struct of a footer ends with a zero byte.
    let length = length + u32::try_from(field.len()).unwrap();
    let changed = [&rest[..rest.len() - 1], field, &[0], &length.to_le_bytes(), b"PAR1"].concat();
    std::fs::write(path, changed).unwrap();
}

#[test]
fn a_parquet_footer_of_two_thousand_million_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = parquet(dir.path(), &texts(1, 1), false);
    // Field 20, a list of bytes: as a later version of the format might have.
    with_field(&path, &[0x09, 0x28, 0x23, 0x01, 0x00]);
    assert_eq!(read_pairs(&path, &ReadOptions::default()).unwrap().len(), 1);
    // Field 21, a list of flags, which the reader takes for nothing each.
    with_field(&path, &[0x09, 0x2a, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07]);
    assert!(error(&path).contains("a list of 2147483647 flags"), "{}", error(&path));
    let error = simplemix_data::read_metadata(&path).unwrap_err().to_string();
    assert!(error.contains("a list of 2147483647 flags"), "{error}");
}

#[test]
fn a_parquet_dictionary_of_one_long_text() {
    let dir = tempfile::tempdir().unwrap();
    // 180 MiB as text.
    let path = parquet(dir.path(), &texts(60, MIB), true);
    let bytes = path.metadata().unwrap().len();
    assert!(bytes < 5000, "{bytes}");
    let mut reader = PairReader::open(&path, &ReadOptions::default()).unwrap();
    let mut rows = 0;
    while let Some(pairs) = reader.next_pairs().unwrap() {
        assert!(pairs.len() <= 43, "{} pairs of 3 MiB at a time", pairs.len());
        rows += pairs.len();
    }
    assert_eq!(rows, 60);
}

#[test]
fn a_parquet_list_that_has_items_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let items: ArrayRef = Arc::new(StringArray::new_null(3 * MIB));
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    let list: ArrayRef = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([3 * MIB]), items, None));
    let path = parquet(dir.path(), &RecordBatch::try_from_iter([("prompt", list)]).unwrap(), true);
    assert!(path.metadata().unwrap().len() < 5000);
    let error = RowReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("items of lists in"), "{error}");
}

#[test]
fn parquet_rows_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nulls: ArrayRef = Arc::new(StringArray::new_null(4 * MIB));
    let path = parquet(dir.path(), &RecordBatch::try_from_iter([("prompt", nulls)]).unwrap(), true);
    let error = RowReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("4194304 rows in a file of"), "{error}");
}

#[test]
fn an_arrow_column_that_expands_without_measure() {
    for (compression, stream) in [(CompressionType::ZSTD, false), (CompressionType::ZSTD, true)] {
        let bytes = arrow_bytes(&texts(1, 30 * MIB), compression, stream);
        assert!(bytes.len() < 33_000, "{}", bytes.len());
        let (_dir, path) = file("a.arrow", &bytes);
        let error = error(&path);
        assert!(error.contains("that expands to 31457280; expected 256 times as much"), "{error}");
    }
}

#[test]
fn an_arrow_list_whose_items_take_no_bytes() {
    let items: ArrayRef = Arc::new(NullArray::new(100 * MIB));
    let field = Arc::new(Field::new("item", DataType::Null, true));
    let list: ArrayRef = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([100 * MIB]), items, None));
    let batch = RecordBatch::try_from_iter([("prompt", list)]).unwrap();
    let (_dir, path) = file("a.arrow", arrow_bytes(&batch, CompressionType::ZSTD, false));
    let error = RowReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("row 0 takes 67") && error.contains("expected at most 67"), "{error}");
}

#[test]
fn a_compressed_line_without_end() {
    let line = format!(r#"{{"prompt": "p", "chosen": "c", "rejected": "{}"}}"#, "0".repeat(17 * MIB));
    let bytes = zstd::encode_all(line.as_bytes(), 1).unwrap();
    let most = 16 * MIB + 256 * bytes.len();
    let (_dir, path) = file("a.jsonl", bytes);
    let error = error(&path);
    assert!(error.contains(&format!("more than {most} bytes without an end")), "{error}");
    let (_dir, path) = file("a.jsonl", line);
    assert_eq!(read_pairs(&path, &ReadOptions::default()).unwrap()[0].rejected.chars(), 17 * MIB);
}

#[test]
fn rows_that_repeat_themselves_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let batch = texts(5000, 1000);
    let parquet = parquet(dir.path(), &batch, true);
    let (_dir, arrow) = file("a.arrow", arrow_bytes(&batch, CompressionType::ZSTD, false));
    for path in [&parquet, &arrow] {
        let mut reader = PairReader::open(path, &ReadOptions::default()).unwrap();
        assert_eq!(RowStore::collect(&mut reader, usize::MAX, dir.path()).unwrap().rows(), 5000);
    }
}
