//! Metrics in TensorBoard's format: an events file of records (length, checksum, protobuf message, checksum).
//!
//! The messages are `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`, after
//! `Event { file_version = 3 }`, of tensorflow's event.proto and summary.proto.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use simplemix_files::{AppendFile, create_dir_all};

use crate::error::Result;
use crate::metrics::Record;

/// An events file, open at its end.
#[derive(Debug)]
pub(crate) struct Events {
    file: AppendFile,
}

impl Events {
    /// Creates a file in `folder/tensorboard` for the updates after `step`. TensorBoard reads all files of a folder.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self> {
        let folder = folder.join("tensorboard");
        create_dir_all(&folder)?;
        let now = now();
        let path = folder.join(format!("events.out.tfevents.{:.0}.simplemix.{step}", now * 1e3));
        let mut events = Self { file: AppendFile::open(path)? };
        let mut event = double(1, now);
        event.extend(bytes(3, b"brain.Event:2"));
        events.write(&event)?;
        if step > 0 {
            // Tells TensorBoard to drop later updates of earlier files: SessionLog { status = START }.
            let mut event = double(1, now);
            event.extend(number(2, step + 1));
            event.extend(bytes(7, &number(1, 1)));
            events.write(&event)?;
        }
        Ok(events)
    }

    /// Appends all metrics of an update or evaluation.
    pub(crate) fn append(&mut self, record: &Record) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in &record.values {
            let mut entry = bytes(1, name.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            summary.extend(bytes(1, &entry));
        }
        let mut event = double(1, now());
        event.extend(number(2, record.step));
        event.extend(bytes(5, &summary));
        self.write(&event)
    }

    /// Waits until all events are on disk.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked(event).to_le_bytes());
        Ok(self.file.append(&record)?)
    }
}

fn now() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "events carry the time at which they were written")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Checksum of TFRecord files.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while value >= 0x80 {
        all.push(value as u8 | 0x80);
        value >>= 7;
    }
    all.push(value as u8);
    all
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut all = vec![field << 3];
    all.extend(varint(value));
    all
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut all = vec![field << 3 | 1];
    all.extend(value.to_le_bytes());
    all
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![field << 3 | 2];
    all.extend(varint(content.len() as u64));
    all.extend(content);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tensorboard 2.21: `masked_crc32c(b"brain.Event:2")` of tensorboard/compat/tensorflow_stub/pywrap_tensorflow.py.
    #[test]
    fn the_checksum_is_tensorboards() {
        assert_eq!(masked(b"brain.Event:2"), CHECKSUM);
    }

    const CHECKSUM: u32 = 2_080_768_494;

    #[test]
    fn records_are_whole_and_carry_name_step_and_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::open(dir.path(), 0).unwrap();
        events.append(&Record { step: 300, values: vec![("loss".into(), 0.5)] }).unwrap();
        let all = std::fs::read(events.file.path()).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while at < all.len() {
            let length = u64::from_le_bytes(all[at..at + 8].try_into().unwrap()) as usize;
            let event = &all[at + 12..at + 12 + length];
            assert_eq!(all[at + 12 + length..at + 16 + length], masked(event).to_le_bytes());
            found.push(event[9..].to_vec());
            at += 16 + length;
        }
        assert_eq!(found[0], b"\x1a\x0dbrain.Event:2");
        assert_eq!(found[1], b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\0\x3f");
    }
}
