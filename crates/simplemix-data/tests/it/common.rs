//! Files and pairs for several tests.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use simplemix_data::{Message, Pair, Policy, Text};
use tempfile::TempDir;

/// A temporary folder with a file of these bytes.
pub(crate) fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// A pair of single turns.
pub(crate) fn chat(prompt: &str, chosen: &str, rejected: &str) -> Pair {
    let answer = |text: &str| Text::from(vec![Message::assistant(text)]);
    Pair::new(vec![Message::user(prompt)].into(), answer(chosen), answer(rejected), "test", Policy::Off)
}

/// Pairs that use all fields.
pub(crate) fn rich_pairs() -> Vec<Pair> {
    let mut first = chat("Wie spät ist es?", "Zwölf.", "Weiß nicht 🕛");
    first.policy = Policy::On;
    first.generator = Some("m".to_owned());
    first.score_chosen = Some(0.5);
    first.score_rejected = Some(-1e-9);
    let mut second = chat("x", "y\n\n", "\u{0}z\"\\");
    second.source = "other".to_owned();
    second.task = Some("math".to_owned());
    vec![first, second]
}

/// A batch as an IPC file or stream with compressed columns.
pub(crate) fn arrow_bytes(batch: &RecordBatch, compression: CompressionType, stream: bool) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(Some(compression)).unwrap();
    let mut bytes = Vec::new();
    if stream {
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
    } else {
        let mut writer = FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
    }
    bytes
}
