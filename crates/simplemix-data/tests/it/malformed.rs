//! Malformed inputs: each gives one error that says where and what is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::FileWriter;
use simplemix_data::{Boundary, PairTokenizer, TokenizeOptions, read_pairs_with_report};
use simplemix_data::{Error, Form, PairReader, PairWriter, Problem, ReadOptions, WriteOptions, read_pairs, schema};

use crate::common::{arrow_bytes, file, rich_pairs};

fn open_error(name: &str, bytes: impl AsRef<[u8]>) -> Error {
    let (_dir, path) = file(name, bytes);
    match read_pairs(&path, &ReadOptions::default()) {
        Ok(pairs) => panic!("read {} pairs", pairs.len()),
        Err(error) => error,
    }
}

#[test]
fn a_missing_file() {
    let error = PairReader::open("no/such.parquet", &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("no/such.parquet: cannot open: No such file"), "{error}");
}

#[test]
fn an_empty_file() {
    assert!(matches!(open_error("a.jsonl", ""), Error::Empty { what: "bytes", .. }));
    assert!(matches!(open_error("a.json", "[ ]"), Error::Empty { what: "rows", .. }));
}

#[test]
fn bytes_of_no_known_container() {
    let error = open_error("a.parquet", b"GIF89a\x01");
    assert!(matches!(error, Error::Container { ref found, .. } if found == "`GIF89a\\x01`"), "{error}");
}

/// A valid Parquet file, and its bytes.
fn rich_parquet() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.write_pairs(&rich_pairs()).unwrap();
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (dir, path, bytes)
}

#[test]
fn a_truncated_parquet_file_at_every_length() {
    let (_dir, path, whole) = rich_parquet();
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        read_pairs(&path, &ReadOptions::default()).expect_err("a part of a file is no file");
    }
}

#[test]
fn a_damaged_parquet_file_never_panics() {
    let (_dir, path, whole) = rich_parquet();
    for at in (4..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        // Not every byte matters, so reading may succeed.
        let _ = read_pairs(&path, &ReadOptions::default());
    }
}

#[test]
fn a_parquet_page_header_that_goes_on_after_the_end() {
    let (_dir, path, mut damaged) = rich_parquet();
    // An unknown field of the first page's header: a list of 2^31 - 1 doubles.
    damaged[4..11].copy_from_slice(&[0xf9, 0xf7, 0xff, 0xff, 0xff, 0xff, 0x07]);
    std::fs::write(&path, &damaged).unwrap();
    let error = read_pairs(&path, &ReadOptions::default()).expect_err("hours later");
    assert!(error.to_string().contains("a.parquet"), "{error}");
}

#[test]
fn an_arrow_footer_that_asks_for_any_amount_of_memory() {
    let batch = RecordBatch::try_from_iter(["prompt", "chosen", "rejected"].map(|name| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![name]));
        (name, column)
    }))
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let mut refused = 0;
    for place in (0..bytes.len() - 8).step_by(4) {
        let mut damaged = bytes.clone();
        damaged[place..place + 8].copy_from_slice(&(1i64 << 38).to_le_bytes());
        let (_dir, path) = file("a.arrow", &damaged);
        let Err(error) = read_pairs(&path, &ReadOptions::default()) else { continue };
        refused += usize::from(error.to_string().contains("274877906944 bytes, in a file of"));
    }
    assert_eq!(refused, 1, "the one length of a body");
}

#[test]
fn a_compressed_column_that_says_it_is_endless() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(1000)]));
    let batch =
        RecordBatch::try_from_iter(["prompt", "chosen", "rejected"].map(|name| (name, column.clone()))).unwrap();
    for stream in [false, true] {
        let mut bytes = arrow_bytes(&batch, CompressionType::LZ4_FRAME, stream);
        // The length of a column precedes the compressed frame.
        let magic = [0x04, 0x22, 0x4d, 0x18];
        let place = bytes.windows(4).position(|window| window == magic).unwrap() - 8;
        assert_eq!(bytes[place..place + 8], 1000i64.to_le_bytes());
        bytes[place..place + 8].copy_from_slice(&(1i64 << 45).to_le_bytes());
        let error = open_error("a.arrow", &bytes);
        assert!(error.to_string().contains("a column of 35184372088832 bytes"), "{error}");
    }
}

/// Found by the fuzzer: the reader takes lengths from the footer, so a message that contradicts it was not looked into.
#[test]
fn an_endless_column_in_a_message_that_contradicts_the_footer() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(1000)]));
    let batch = RecordBatch::try_from_iter([("chosen", column.clone()), ("rejected", column)]).unwrap();
    let mut bytes = arrow_bytes(&batch, CompressionType::LZ4_FRAME, false);
    let place = bytes.windows(4).position(|window| window == [0x04, 0x22, 0x4d, 0x18]).unwrap() - 8;
    bytes[place..place + 8].copy_from_slice(&(1i64 << 45).to_le_bytes());
    for at in (0..place).step_by(4) {
        for word in [0u32, 0x81] {
            let mut damaged = bytes.clone();
            damaged[at..at + 4].copy_from_slice(&word.to_le_bytes());
            let (_dir, path) = file("a.arrow", &damaged);
            // An allocation of 32 TB would end the test.
            let _ = read_pairs(&path, &ReadOptions::default());
        }
    }
    let error = open_error("a.arrow", &bytes);
    assert!(error.to_string().contains("a column of 35184372088832 bytes"), "{error}");
}

#[test]
fn an_arrow_batch_of_nulls_without_end() {
    let nulls = ["prompt", "chosen", "rejected"].map(|name| {
        let column: ArrayRef = Arc::new(NullArray::new(1 << 40));
        (name, column)
    });
    let batch = RecordBatch::try_from_iter(nulls).unwrap();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let error = open_error("a.arrow", &bytes);
    assert!(error.to_string().contains("a batch of 1099511627776 rows, in a file of"), "{error}");
}

#[test]
fn chosen_of_a_number_type() {
    let error = open_error("a.jsonl", r#"{"prompt": "a", "chosen": 1, "rejected": "b"}"#);
    assert!(
        error.to_string().ends_with("column `chosen` is number, expected text or a list of {role, content}"),
        "{error}"
    );
}

#[test]
fn columns_of_no_known_format() {
    let error = open_error("a.jsonl", r#"{"text": "a", "label": true}"#);
    assert!(error.to_string().contains("these columns: text (text), label (boolean); expected at least"), "{error}");
}

#[test]
fn a_line_that_is_no_json() {
    let error = open_error("a.jsonl", "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n{\"prompt\":");
    assert!(matches!(error, Error::Json { row: 1, byte: 43, .. }), "{error}");
    let error = open_error("a.json", "[[1], 2, null]");
    assert!(error.to_string().contains("these columns: none; no row is an object"), "{error}");
}

#[test]
fn invalid_utf8_in_json() {
    let error = open_error("a.jsonl", b"{\"prompt\":\"\xff\"}");
    assert!(matches!(error, Error::Json { row: 0, .. }), "{error}");
}

#[test]
fn an_array_without_its_end() {
    let error = open_error("a.json", r#"[{"prompt": "a", "chosen": "b", "rejected": "c"}"#);
    assert!(error.to_string().ends_with("found the end of the file, expected `]`, the end of the array"), "{error}");
    let error = open_error("a.json", r#"[{"prompt": "a", "chosen": "b", "rejected": "c"}] x"#);
    assert!(error.to_string().ends_with("found `x`, expected nothing after the array"), "{error}");
}

#[test]
fn deep_nesting() {
    let error = open_error("a.jsonl", format!("{{\"a\":{}", "[".repeat(100_000)));
    assert!(matches!(error, Error::Json { row: 0, .. }), "{error}");
}

#[test]
fn a_line_of_fifty_megabytes_is_read() {
    let long = "a".repeat(50 << 20);
    let (_dir, path) = file("a.jsonl", format!(r#"{{"prompt":"p","chosen":"{long}","rejected":"c"}}"#));
    assert_eq!(read_pairs(&path, &ReadOptions::default()).unwrap()[0].chosen.chars(), 50 << 20);
}

#[test]
fn a_lone_surrogate_costs_its_row_only() {
    let lines = concat!(
        r#"{"prompt":"a","chosen":"\ud800","rejected":"c"}"#,
        "\n",
        r#"{"prompt":"a","chosen":"b","rejected":"\udc00 c"}"#,
        "\n",
        r#"{"prompt":"a","chosen":"b","rejected":"c"}"#
    );
    let (_dir, path) = file("a.jsonl", lines);
    let (pairs, report) = read_pairs_with_report(&path, &ReadOptions::default()).unwrap();
    assert_eq!((pairs.len(), report.refused.count(Problem::LoneSurrogate)), (1, 2));
}

#[test]
fn a_model_folder_without_a_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let options = TokenizeOptions { boundary: Boundary::Strict, ..TokenizeOptions::default() };
    let error = PairTokenizer::from_dir(dir.path(), options).unwrap_err();
    let expected = format!("{}: no tokenizer.json in this model folder", dir.path().display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_batch_that_lacks_a_column() {
    let batch = schema::batch_from_pairs(&rich_pairs(), Form::Messages).unwrap();
    let error = schema::pairs_from_batch(&batch.project(&[0, 1, 2]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "column `source` is missing, expected Dictionary(Int32, Utf8)");
}
