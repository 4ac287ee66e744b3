//! Written files read back the same, and no half-written file appears.

use simplemix_data::{Error, Form, PairReader, PairWriter, ReadOptions, WriteOptions, read_pairs, schema};

use crate::common::{chat, rich_pairs};

#[test]
fn every_container_gives_back_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "a.arrow", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        let path = dir.path().join(name);
        let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
        writer.write_pairs(&rich_pairs()).unwrap();
        assert_eq!(writer.finish().unwrap(), 2, "{name}");
        assert_eq!(read_pairs(&path, &ReadOptions::default()).unwrap(), rich_pairs(), "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 5, "no temporary file stays");
}

#[test]
fn an_unfinished_file_leaves_nothing_and_the_old_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    std::fs::write(&path, "old").unwrap();
    let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.write_pairs(&rich_pairs()).unwrap();
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_without_pairs_has_the_canonical_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.parquet");
    assert_eq!(PairWriter::create(&path, &WriteOptions::default()).unwrap().finish().unwrap(), 0);
    let error = PairReader::open(&path, &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Empty { what: "rows", .. }), "{error}");
}

#[test]
fn batches_of_another_schema_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PairWriter::create(dir.path().join("a.parquet"), &WriteOptions::default()).unwrap();
    writer.write_batch(&schema::batch_from_pairs(&rich_pairs(), Form::Messages).unwrap()).unwrap();
    let plain = simplemix_data::Pair::new("a".into(), "b".into(), "c".into(), "s", simplemix_data::Policy::On);
    let batch = schema::batch_from_pairs(&[plain], Form::Plain).unwrap();
    let error = writer.write_batch(&batch).unwrap_err();
    assert!(matches!(error, Error::Schema { ref column, .. } if column == "prompt"), "{error}");
}

#[test]
fn messages_do_not_fit_a_file_of_plain_text() {
    let error = schema::batch_from_pairs(&[chat("a", "b", "c")], Form::Plain).unwrap_err();
    assert!(matches!(error, Error::Value { row: 0, column: "chosen", .. }), "{error}");
}

#[test]
fn an_unknown_ending_is_one_clear_error() {
    let error = PairWriter::create("x.csv", &WriteOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "x.csv: ends in .csv, expected .parquet, .arrow, .jsonl, .jsonl.gz or .jsonl.zst");
}
