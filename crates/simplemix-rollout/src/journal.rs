//! Journal of unfinished work beside an output, and the key that tells work with different settings apart.
//!
//! The journal of `out.parquet` is `.out.parquet.partial`: a header line with the key, then one line per record. A record is
//! a list of `[number, result]` and is written in one piece, so that after a kill it is either whole or ignored as the torn
//! last line. An object among the records holds numbers of failed attempts by reason. In memory the journal takes eight bytes
//! per result.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use simplemix_data::read_metadata;
use simplemix_files::AppendFile;

use crate::error::{At, Error, Result};
use crate::generator::Failures;

/// Metadata keys of an output, for the key of its work and for the report.
const KEY: &str = "simplemix.key";
const REPORT: &str = "simplemix.report";
/// Metadata key for the date that the chat template saw, where it looks at the date.
const DATE: &str = "simplemix.template_date";

/// JSON of settings, prompts and reports, for keys and metadata.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("settings, prompts and reports are numbers and text, which JSON holds")
}

/// Hash of everything that an output depends on, and the date that the chat template sees, if it looks at the date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkKey(String, Option<String>);

impl WorkKey {
    /// Key of a stage with its `parts`: settings, inputs, model or scorers. The first text hashed holds the version of the
    /// format.
    pub(crate) fn new(stage: &str, parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [&["simplemix rollout 1", stage], parts].concat() {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex().to_string(), None)
    }

    /// Sets the date of the chat template, which is kept with the work.
    pub(crate) fn with_date(self, date: Option<String>) -> Self {
        Self(self.0, date)
    }

    /// Metadata by which [`Work::begin`] recognises the output.
    pub(crate) fn metadata(&self, report: &impl Serialize) -> Vec<(&'static str, String)> {
        let date = self.1.clone().map(|date| (DATE, date));
        [(KEY, self.0.clone()), (REPORT, json(report))].into_iter().chain(date).collect()
    }
}

/// Date that the chat template saw in the work for `output`, finished or not; `None` if there is none, or the template does
/// not look at the date.
pub(crate) fn kept_date(output: &Path) -> Option<String> {
    let journal = journal_path(output).ok().and_then(|path| simplemix_files::open(path).ok());
    let header = journal.and_then(|file| BufReader::new(file).lines().next()?.ok());
    match header.and_then(|line| serde_json::from_str::<Header>(&line).ok()) {
        Some(header) => header.template_date,
        None if output.exists() => read_metadata(output).ok()?.remove(DATE),
        None => None,
    }
}

/// State of some work when it begins.
#[expect(clippy::large_enum_variant, reason = "one is made a stage")]
pub(crate) enum Work<T, R> {
    /// The output exists, with this report.
    Complete(R),
    /// The output is missing; the journal holds finished parts.
    Open(Journal<T>),
}

impl<T: Serialize + DeserializeOwned, R: DeserializeOwned> Work<T, R> {
    /// Looks for the output and for a journal beside it. With `overwrite`, files with a different key are ignored.
    pub(crate) fn begin(output: &Path, key: &WorkKey, overwrite: bool) -> Result<Self> {
        let path = journal_path(output)?;
        if let Some(report) = finished(output, key, overwrite)? {
            // A run that was killed right after it wrote the output leaves its journal. A run that is about to remove its
            // own holds the lock.
            if path.exists()
                && let Ok(journal) = AppendFile::open_locked(&path)
            {
                journal.remove()?;
            }
            return Ok(Self::Complete(report));
        }
        Journal::open(path, key, overwrite).map(Self::Open)
    }
}

/// Report of an output with this key; `None` if there is no output, or with `overwrite` one with a different key.
pub(crate) fn finished<R: DeserializeOwned>(output: &Path, key: &WorkKey, overwrite: bool) -> Result<Option<R>> {
    if !output.exists() {
        return Ok(None);
    }
    // A file whose metadata cannot be read was not written by this crate.
    let metadata = read_metadata(output).unwrap_or_default();
    let report = metadata.get(REPORT).and_then(|text| serde_json::from_str(text).ok());
    match report.filter(|_| metadata.get(KEY) == Some(&key.0)) {
        Some(report) => Ok(Some(report)),
        None if overwrite => Ok(None),
        None => Err(Error::Exists { path: output.to_path_buf() }),
    }
}

/// Checks that an output is none of the inputs.
pub(crate) fn check_apart(output: &Path, inputs: &[PathBuf]) -> Result<()> {
    if inputs.iter().any(|input| simplemix_files::is_same_file(input, output)) {
        let found = output.display().to_string();
        return Err(Error::Setting { key: "output", found, expected: "a file that is none of the inputs" });
    }
    Ok(())
}

fn journal_path(output: &Path) -> Result<PathBuf> {
    let Some(name) = output.file_name() else {
        let found = format!("`{}`", output.display());
        return Err(Error::Setting { key: "output", found, expected: "the name of a file" });
    };
    Ok(output.with_file_name(format!(".{}.partial", name.to_string_lossy())))
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template_date: Option<String>,
}

/// Results by number, on disk. One process at a time can open a journal.
#[derive(Debug)]
pub(crate) struct Journal<T> {
    file: AppendFile,
    offsets: Offsets,
    /// Failed attempts so far.
    failures: Failures,
    /// Whether the file is a journal of this work, so that it may be removed.
    is_ours: bool,
    /// Record that was read last, with its start.
    recent: Option<(u64, Vec<(u64, T)>)>,
    results: PhantomData<T>,
}

/// Offset of a missing result.
const NONE: u64 = u64::MAX;

impl<T: Serialize + DeserializeOwned> Journal<T> {
    fn open(path: PathBuf, key: &WorkKey, overwrite: bool) -> Result<Self> {
        let file = AppendFile::open_locked(path)?;
        let mut journal = Self {
            file,
            offsets: Offsets::default(),
            failures: Failures::new(),
            is_ours: false,
            recent: None,
            results: PhantomData,
        };
        match journal.scan()? {
            // Cuts off a torn last line.
            Some((header, end)) if header.key == key.0 => journal.file.truncate(end)?,
            Some(_) if !overwrite => return Err(Error::OtherWork { path: journal.file.path().to_path_buf() }),
            _ => {
                journal.offsets = Offsets::default();
                journal.failures.clear();
                journal.file.truncate(0)?;
                journal.write_line(&json(&Header { key: key.0.clone(), template_date: key.1.clone() }))?;
                // A loss of power may take records, but a header in part would be taken for that of other work.
                journal.file.sync()?;
            }
        }
        journal.is_ours = true;
        Ok(journal)
    }

    /// Finds the whole records. Returns the header, and the end of the last record; `None` if there is no whole line.
    fn scan(&mut self) -> Result<Option<(Header, u64)>> {
        let path = self.file.path().to_path_buf();
        let mut reader = BufReader::with_capacity(1 << 18, self.file.reader());
        reader.seek(SeekFrom::Start(0)).at(&path, "read")?;
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| {
            line.clear();
            reader.read_until(b'\n', line).at(&path, "read")?;
            Ok::<bool, Error>(line.pop() == Some(b'\n'))
        };
        if !next(&mut line)? {
            return Ok(None);
        }
        // A whole first line that is not a header belongs to no work of this crate.
        let header = serde_json::from_slice(&line).unwrap_or(Header { key: String::new(), template_date: None });
        let mut end = line.len() as u64 + 1;
        while next(&mut line)? {
            let start = end;
            if let Ok(failures) = serde_json::from_slice::<Failures>(&line) {
                add(&mut self.failures, &failures);
            } else {
                let Ok(record) = serde_json::from_slice::<Vec<(u64, T)>>(&line) else { break };
                for (number, _) in record {
                    self.offsets.note(number, start);
                }
            }
            end += line.len() as u64 + 1;
        }
        Ok(Some((header, end)))
    }

    fn write_line(&mut self, line: &str) -> Result<()> {
        Ok(self.file.append(format!("{line}\n").as_bytes())?)
    }

    /// Whether the result with this number exists.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.offset(number).is_some()
    }

    /// Start of the record with the result of this number.
    fn offset(&self, number: u64) -> Option<u64> {
        self.offsets.get(number)
    }

    /// Number of results.
    pub(crate) fn done(&self) -> u64 {
        self.offsets.done
    }

    /// Adds results, all of them or none.
    pub(crate) fn append(&mut self, record: &[(u64, T)]) -> Result<()> {
        let start = self.file.len();
        self.write_line(&json(&record))?;
        for (number, _) in record {
            self.offsets.note(*number, start);
        }
        Ok(())
    }

    /// Adds numbers of failed attempts.
    pub(crate) fn append_failures(&mut self, failures: &Failures) -> Result<()> {
        if !failures.is_empty() {
            self.write_line(&json(failures))?;
            add(&mut self.failures, failures);
        }
        Ok(())
    }

    /// Failed attempts, by reason.
    pub(crate) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// The result with this number, if it exists. Fast for successive results of one record.
    pub(crate) fn get(&mut self, number: u64) -> Result<Option<&T>> {
        let Some(offset) = self.offset(number) else { return Ok(None) };
        let record = match self.recent.take() {
            Some((start, record)) if start == offset => record,
            _ => self.read(offset)?,
        };
        let (_, record) = self.recent.insert((offset, record));
        Ok(record.iter().find(|(of, _)| *of == number).map(|(_, result)| result))
    }

    /// Reads the record that starts at `offset`.
    fn read(&self, offset: u64) -> Result<Vec<(u64, T)>> {
        let path = self.file.path();
        let mut reader = BufReader::with_capacity(1 << 14, self.file.reader());
        reader.seek(SeekFrom::Start(offset)).at(path, "read")?;
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).at(path, "read")?;
        serde_json::from_slice(&line).map_err(std::io::Error::other).at(path, "read")
    }

    /// Deletes the journal, whose results are in the output now.
    pub(crate) fn remove(self) -> Result<()> {
        Ok(simplemix_files::remove_file(self.file.path())?)
    }
}

impl<T> Drop for Journal<T> {
    /// Removes a journal without results.
    fn drop(&mut self) {
        if self.is_ours && self.offsets.done == 0 {
            // A file that stays behind is continued or overwritten by the next run.
            let _ = simplemix_files::remove_file(self.file.path());
        }
    }
}

fn add(sum: &mut Failures, failures: &Failures) {
    for (reason, count) in failures {
        let sum = sum.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// Results per page of [`Offsets`].
const PAGE: u64 = 512;

/// Start of the record of each result, by number. Pages without a result take no memory, so that a number which damage made
/// large costs one page.
#[derive(Debug, Default)]
struct Offsets {
    pages: BTreeMap<u64, Box<[u64; PAGE as usize]>>,
    done: u64,
}

impl Offsets {
    fn note(&mut self, number: u64, offset: u64) {
        let page = self.pages.entry(number / PAGE).or_insert_with(|| Box::new([NONE; PAGE as usize]));
        let known = &mut page[(number % PAGE) as usize];
        self.done += u64::from(*known == NONE);
        *known = offset;
    }

    fn get(&self, number: u64) -> Option<u64> {
        let offset = self.pages.get(&(number / PAGE))?[(number % PAGE) as usize];
        (offset != NONE).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, key: &str, overwrite: bool) -> Result<Journal<String>> {
        Journal::open(path.to_path_buf(), &WorkKey(key.into(), None), overwrite)
    }

    #[test]
    fn a_number_that_damage_made_large_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = open(&path, "k", false).unwrap();
        for number in [3, u64::from(u32::MAX), u64::MAX] {
            journal.append(&[(number, number.to_string())]).unwrap();
        }
        drop(journal);
        let mut journal = open(&path, "k", false).unwrap();
        assert_eq!((journal.done(), journal.offsets.pages.len()), (3, 3));
        assert_eq!(journal.get(u64::MAX).unwrap(), Some(&u64::MAX.to_string()));
        assert!(journal.has(3) && !journal.has(4));
    }

    #[test]
    fn a_journal_cut_at_any_byte_keeps_its_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let records = [vec![(3, "c\n".to_owned()), (1, "a".to_owned())], vec![(0, "é".to_owned())]];
        let mut ends = Vec::new();
        let mut journal = open(&path, "k", false).unwrap();
        for record in &records {
            ends.push(journal.file.len());
            journal.append(record).unwrap();
        }
        ends.push(journal.file.len());
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = open(&path, "k", false).unwrap();
            let kept = ends.iter().filter(|&&end| end as usize <= cut).count().saturating_sub(1);
            assert_eq!(journal.done(), [0, 2, 3][kept], "cut at {cut}");
            assert_eq!((journal.has(1), journal.has(0)), (kept > 0, kept > 1));
            // Records written after the cut are read again.
            journal.append(&[(9, "later".to_owned())]).unwrap();
            drop(journal);
            let mut journal = open(&path, "k", false).unwrap();
            assert_eq!(journal.get(9).unwrap(), Some(&"later".to_owned()));
            assert_eq!(journal.get(3).unwrap().cloned(), (kept > 0).then(|| "c\n".to_owned()));
            assert_eq!(journal.get(2).unwrap(), None);
        }
    }

    #[test]
    fn failed_attempts_are_added_up_over_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let failures = |count| Failures::from([("timeout".to_owned(), count)]);
        for turn in 0..3 {
            let mut journal = open(&path, "k", false).unwrap();
            assert_eq!(journal.failures().values().sum::<u64>(), turn);
            journal.append_failures(&failures(1)).unwrap();
            journal.append(&[(turn, "a".to_owned())]).unwrap();
            journal.append_failures(&Failures::new()).unwrap();
        }
        let mut journal = open(&path, "k", false).unwrap();
        assert_eq!((journal.done(), journal.failures()), (3, &failures(3)));
        assert_eq!(journal.get(2).unwrap(), Some(&"a".to_owned()));
        drop(journal);
        assert_eq!(open(&path, "other", true).unwrap().failures(), &Failures::new());
    }

    #[test]
    fn other_keys_are_refused_or_overwritten_and_two_at_once_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = open(&path, "one", false).unwrap();
        journal.append(&[(0, "a".to_owned())]).unwrap();
        let error = open(&path, "one", false).unwrap_err().to_string();
        assert!(error.contains("in use by process"), "{error}");
        drop(journal);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(open(&path, "two", false), Err(Error::OtherWork { .. })));
        // Records of another type cannot be read, and stay.
        let other = Journal::<Vec<f64>>::open(path.clone(), &WorkKey("two".into(), None), false);
        assert!(matches!(other, Err(Error::OtherWork { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(open(&path, "one", true).unwrap().done(), 1, "the same work goes on");
        assert_eq!(open(&path, "two", true).unwrap().done(), 0);
    }

    /// Outputs and journals of earlier versions are recognised by these texts.
    #[test]
    fn keys_of_earlier_versions_stay() {
        let key = WorkKey::new("pair", &["a", "bc"]);
        assert_eq!(key.0, "cf476c84a877dd10ab6defb4d29a0648ac3f8824f8482a5ee5c2ea418fa7b589");
        let sampling = crate::SamplingConfig::simplemix();
        let expected =
            r#"{"samples":4,"temperature":0.7,"top_p":0.9,"top_k":0,"min_p":0.0,"max_new_tokens":2048,"seed":42}"#;
        assert_eq!(json(&sampling), expected);
        let select = crate::SelectSettings::default();
        assert_eq!(json(&select), r#"{"select":"best-worst","reference":false,"min_gap":0.0}"#);
        let prompt = crate::Prompt::new("a", "b").with_answer("c");
        assert_eq!(json(&prompt), r#"{"id":"a","prompt":"b","task":null,"answer":"c","reference":null}"#);
    }

    #[test]
    fn the_date_of_unfinished_and_of_finished_work_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out.parquet");
        assert_eq!(kept_date(&output), None);
        let key = WorkKey::new("s", &["a"]).with_date(Some("2024-02-29".to_owned()));
        let Work::<u64, u64>::Open(mut journal) = Work::begin(&output, &key, false).unwrap() else {
            panic!("no output")
        };
        journal.append(&[(0, 1)]).unwrap();
        drop(journal);
        assert_eq!(kept_date(&output).as_deref(), Some("2024-02-29"));
        assert!(key.metadata(&0).contains(&(DATE, "2024-02-29".to_owned())));
        assert_eq!(WorkKey::new("s", &["a"]).metadata(&0).len(), 2);
    }

    #[test]
    fn a_journal_of_an_earlier_version_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        std::fs::write(&path, "{\"key\":\"k\"}\n[[1,\"b\"],[0,\"a\"]]\n").unwrap();
        let mut journal = open(&path, "k", false).unwrap();
        assert_eq!((journal.done(), journal.get(1).unwrap().cloned()), (2, Some("b".to_owned())));
    }

    #[test]
    fn a_file_that_is_not_a_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        std::fs::write(&path, "some notes\nmore notes\n").unwrap();
        assert!(matches!(open(&path, "k", false), Err(Error::OtherWork { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "some notes\nmore notes\n", "left as it is");
        assert_eq!(open(&path, "k", true).unwrap().done(), 0);
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(WorkKey::new("s", &["ab", "c"]), WorkKey::new("s", &["a", "bc"]));
    }
}
