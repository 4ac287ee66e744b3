//! Work that can be broken off at any moment: a journal of what is done beside the output, and the key by which work of
//! other arguments is told apart.
//!
//! The journal of `out.parquet` is `.out.parquet.partial`: a header line with the key, then a line for each record. A
//! record is a list of `[number, result]` and is written at once, so that it is whole or, as the torn last line, ignored.
//! Memory is eight bytes for each result.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use simplemix_data::read_metadata;

use crate::error::{At, Error, Result};

/// Under which an output's key and report stand in it.
const KEY: &str = "simplemix.key";
const REPORT: &str = "simplemix.report";

/// What an output depends on, as a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkKey(String);

impl WorkKey {
    /// Of a stage and its `parts`: settings, inputs, who does it.
    pub(crate) fn new(stage: &str, parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [&["simplemix rollout 1", stage], parts].concat() {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    /// Remarks for the output, by which [`Work::begin`] knows it.
    pub(crate) fn remarks<R: Serialize>(&self, report: &R) -> [(&'static str, String); 2] {
        // Reports are structs of numbers and text, which JSON holds.
        [(KEY, self.0.clone()), (REPORT, serde_json::to_string(report).unwrap_or_default())]
    }
}

/// What was found when work began.
pub(crate) enum Work<T, R> {
    /// The output is there, with this report.
    Complete(R),
    /// To be done, in whole or in part.
    Open(Journal<T>),
}

impl<T: Serialize + DeserializeOwned, R: DeserializeOwned> Work<T, R> {
    /// Looks for the output and for a journal beside it. With `overwrite`, those of other keys are of no account.
    pub(crate) fn begin(output: &Path, key: &WorkKey, overwrite: bool) -> Result<Self> {
        let path = journal_path(output);
        if let Some(report) = finished(output, key, overwrite)? {
            // A run that was killed just before it had removed its journal.
            let _ = std::fs::remove_file(&path);
            return Ok(Self::Complete(report));
        }
        Journal::open(path, key, overwrite).map(Self::Open)
    }
}

/// The report of an output that was made under `key`.
pub(crate) fn finished<R: DeserializeOwned>(output: &Path, key: &WorkKey, overwrite: bool) -> Result<Option<R>> {
    if !output.exists() {
        return Ok(None);
    }
    // What cannot be read was not made here.
    let remarks = read_metadata(output).unwrap_or_default();
    let report = remarks.get(REPORT).and_then(|text| serde_json::from_str(text).ok());
    match report.filter(|_| remarks.get(KEY) == Some(&key.0)) {
        Some(report) => Ok(Some(report)),
        None if overwrite => Ok(None),
        None => Err(Error::Exists { path: output.to_path_buf() }),
    }
}

fn journal_path(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!(".{name}.partial"))
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
}

/// Results by number, on disk.
#[derive(Debug)]
pub(crate) struct Journal<T> {
    path: PathBuf,
    file: File,
    end: u64,
    /// Where the record of a result starts; none for results that are not there.
    offsets: Vec<u64>,
    done: u64,
    /// The record that was read last.
    recent: Option<(u64, Vec<(u64, T)>)>,
    results: PhantomData<T>,
}

const NONE: u64 = u64::MAX;
/// Results a journal can have: larger numbers stand in none of ours.
const MOST: u64 = 1 << 32;

impl<T: Serialize + DeserializeOwned> Journal<T> {
    fn open(path: PathBuf, key: &WorkKey, overwrite: bool) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).at(&path, "open")?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => tracing::debug!("{}: no lock: {error}", path.display()),
        }
        let mut journal = Self { path, file, end: 0, offsets: Vec::new(), done: 0, recent: None, results: PhantomData };
        match journal.scan()? {
            Some(header) if header.key == key.0 => {}
            Some(_) if !overwrite => return Err(Error::OtherWork { path: journal.path.clone() }),
            _ => {
                (journal.end, journal.done) = (0, 0);
                journal.offsets.clear();
                let header = Header { key: key.0.clone() };
                journal.write_line(&serde_json::to_vec(&header).unwrap_or_default())?;
            }
        }
        Ok(journal)
    }

    /// Finds the whole records; what follows the last of them is cut off with the next one written.
    fn scan(&mut self) -> Result<Option<Header>> {
        let mut reader = BufReader::with_capacity(1 << 18, self.file.try_clone().at(&self.path, "read")?);
        reader.seek(SeekFrom::Start(0)).at(&self.path, "read")?;
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| {
            line.clear();
            reader.read_until(b'\n', line).at(&self.path, "read")?;
            Ok::<bool, Error>(line.pop() == Some(b'\n'))
        };
        if !next(&mut line)? {
            return Ok(None);
        }
        let Ok(header) = serde_json::from_slice::<Header>(&line) else { return Ok(None) };
        self.end = line.len() as u64 + 1;
        while next(&mut line)? {
            let Ok(record) = serde_json::from_slice::<Vec<(u64, T)>>(&line) else { break };
            let start = self.end;
            self.end += line.len() as u64 + 1;
            for (number, _) in record {
                note(&mut self.offsets, &mut self.done, number, start);
            }
        }
        Ok(Some(header))
    }

    fn write_line(&mut self, line: &[u8]) -> Result<()> {
        // Cuts a torn line off, too.
        self.file.set_len(self.end).at(&self.path, "write")?;
        self.file.seek(SeekFrom::Start(self.end)).at(&self.path, "write")?;
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        self.file.write_all(&whole).at(&self.path, "write")?;
        self.end += whole.len() as u64;
        Ok(())
    }

    /// Whether the result of this number is there.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.offsets.get(number as usize).is_some_and(|&offset| offset != NONE)
    }

    /// How many results are there.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Keeps results, all of them or none.
    pub(crate) fn append(&mut self, record: &[(u64, T)]) -> Result<()> {
        let start = self.end;
        let line = serde_json::to_vec(record).map_err(std::io::Error::other).at(&self.path, "write")?;
        self.write_line(&line)?;
        for (number, _) in record {
            note(&mut self.offsets, &mut self.done, *number, start);
        }
        Ok(())
    }

    /// The result of this number, if it is there. Cheap for results of one record, one after the other.
    pub(crate) fn get(&mut self, number: u64) -> Result<Option<&T>> {
        let Some(&offset) = self.offsets.get(number as usize).filter(|&&offset| offset != NONE) else {
            return Ok(None);
        };
        if self.recent.as_ref().is_none_or(|(of, _)| *of != offset) {
            self.file.seek(SeekFrom::Start(offset)).at(&self.path, "read")?;
            let mut line = Vec::new();
            let file = Read::by_ref(&mut self.file);
            BufReader::with_capacity(1 << 14, file).read_until(b'\n', &mut line).at(&self.path, "read")?;
            let record = serde_json::from_slice(&line).map_err(std::io::Error::other).at(&self.path, "read")?;
            self.recent = Some((offset, record));
        }
        let record = self.recent.as_ref().map(|(_, record)| record.as_slice()).unwrap_or_default();
        Ok(record.iter().find(|(of, _)| *of == number).map(|(_, result)| result))
    }

    /// Removes the journal, whose results are in the output now.
    pub(crate) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).at(&self.path, "remove")
    }
}

impl<T> Drop for Journal<T> {
    /// A journal of nothing is of no use.
    fn drop(&mut self) {
        if self.done == 0 {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn note(offsets: &mut Vec<u64>, done: &mut u64, number: u64, offset: u64) {
    if number >= MOST {
        return;
    }
    let at = number as usize;
    if offsets.len() <= at {
        offsets.resize(at + 1, NONE);
    }
    *done += u64::from(offsets[at] == NONE);
    offsets[at] = offset;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, key: &str, overwrite: bool) -> Result<Journal<String>> {
        Journal::open(path.to_path_buf(), &WorkKey(key.into()), overwrite)
    }

    #[test]
    fn a_journal_cut_at_any_byte_keeps_its_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let records = [vec![(3, "c\n".to_owned()), (1, "a".to_owned())], vec![(0, "é".to_owned())]];
        let mut ends = Vec::new();
        let mut journal = open(&path, "k", false).unwrap();
        for record in &records {
            ends.push(journal.end);
            journal.append(record).unwrap();
        }
        ends.push(journal.end);
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = open(&path, "k", false).unwrap();
            let kept = ends.iter().filter(|&&end| end as usize <= cut).count().saturating_sub(1);
            assert_eq!(journal.done(), [0, 2, 3][kept], "cut at {cut}");
            assert_eq!((journal.has(1), journal.has(0)), (kept > 0, kept > 1));
            // What is written next is read again.
            journal.append(&[(9, "later".to_owned())]).unwrap();
            drop(journal);
            let mut journal = open(&path, "k", false).unwrap();
            assert_eq!(journal.get(9).unwrap(), Some(&"later".to_owned()));
            assert_eq!(journal.get(3).unwrap().cloned(), (kept > 0).then(|| "c\n".to_owned()));
            assert_eq!(journal.get(2).unwrap(), None);
        }
    }

    #[test]
    fn other_keys_are_refused_or_overwritten_and_two_at_once_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = open(&path, "one", false).unwrap();
        journal.append(&[(0, "a".to_owned())]).unwrap();
        assert!(matches!(open(&path, "one", false), Err(Error::Busy { .. })));
        drop(journal);
        assert!(matches!(open(&path, "two", false), Err(Error::OtherWork { .. })));
        assert_eq!(open(&path, "one", true).unwrap().done(), 1, "the same work goes on");
        assert_eq!(open(&path, "two", true).unwrap().done(), 0);
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(WorkKey::new("s", &["ab", "c"]), WorkKey::new("s", &["a", "bc"]));
    }
}
