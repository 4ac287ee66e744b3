//! Judging many comparisons: several at a time, each kept as soon as it is there, gone on with after a stop.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{At, Error, Result};
use crate::judge::compared::Compared;
use crate::judge::switch::is_switched;
use crate::report::write_whole;

/// Why a judge has no verdict; the text says what was asked and what came back.
pub type JudgeError = Box<dyn std::error::Error + Send + Sync>;

/// Whoever says which of two answers is better.
pub trait Judge: Sync {
    /// Its name, for the column `annotator`.
    fn name(&self) -> &str;

    /// Which of two answers to `instruction` is better, in the order that it is to see them.
    ///
    /// # Errors
    /// Whatever keeps it from an answer; judging stops then, and what is done is kept.
    fn judge(&self, instruction: &str, outputs: [&str; 2]) -> std::result::Result<Verdict, JudgeError>;
}

/// What a judge said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// From 1, the first answer, to 2, the second; none where its reply says neither.
    pub preference: Option<f64>,
    /// What it replied, to be kept.
    pub raw: Value,
    /// Tokens of question and reply, where they are known.
    pub tokens: [u64; 2],
}

/// A row of the official `annotations.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotated {
    /// What was asked.
    pub instruction: String,
    /// The baseline's answer.
    pub output_1: String,
    /// Whose it is.
    pub generator_1: String,
    /// The set that the instruction comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The model's answer.
    pub output_2: String,
    /// Whose it is.
    pub generator_2: String,
    /// The judge.
    pub annotator: String,
    /// From 1, the baseline, to 2, the model; none where there is no verdict.
    pub preference: Option<f64>,
    /// Tokens of the question.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
    /// What the judge replied.
    pub raw_completion: Value,
}

/// How judging goes.
#[derive(Debug, Clone)]
pub struct AnnotateOptions {
    /// File of annotations to write. What is done is kept beside it, as `.NAME.partial`, until all is.
    pub output: PathBuf,
    /// Comparisons under way at once.
    pub concurrency: usize,
    /// What the order of the answers follows from; the official package's is 0.
    pub seed: u64,
}

/// What judging came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Comparisons.
    pub comparisons: usize,
    /// Of these, judged before this call.
    pub before: usize,
    /// Without a verdict.
    pub without: usize,
    /// Tokens of the questions.
    pub prompt_tokens: u64,
    /// Tokens of the replies.
    pub completion_tokens: u64,
}

/// Judges all comparisons and writes the annotations in the order of the comparisons. `progress` is told how many are done
/// and says whether to go on; where it says no, or a judge fails, what is done stays beside the output, and the same call
/// goes on from there.
///
/// # Errors
/// [`Error::Judge`] if the judge fails or `progress` says no, [`Error::Io`], [`Error::Malformed`] if what is beside the
/// output is no such file.
pub fn annotate(
    compared: &[Compared],
    judge: &dyn Judge,
    options: &AnnotateOptions,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Summary> {
    let mut journal = Journal::open(&options.output, judge.name())?;
    let wanted: BTreeMap<[&str; 3], usize> = compared.iter().enumerate().map(|(place, c)| (key(c), place)).collect();
    let mut rows: Vec<Option<Annotated>> = vec![None; compared.len()];
    for row in std::mem::take(&mut journal.rows) {
        let place = wanted.get(&[row.instruction.as_str(), row.output_1.as_str(), row.output_2.as_str()]).copied();
        if let Some(place) = place {
            rows[place] = Some(row);
        }
    }
    // Equal comparisons are judged once.
    let open: BTreeSet<usize> = wanted.values().copied().filter(|place| rows[*place].is_none()).collect();
    let before = wanted.len() - open.len();
    judge_open(compared, judge, options, &open.into_iter().collect::<Vec<_>>(), &mut |place, row| {
        journal.append(&row)?;
        rows[place] = Some(row);
        Ok(progress(rows.iter().flatten().count()))
    })?;
    let found: Vec<Annotated> =
        compared.iter().filter_map(|comparison| rows[*wanted.get(&key(comparison))?].clone()).collect();
    let text = serde_json::to_string_pretty(&found).map_err(|e| Error::malformed(&options.output, e))?;
    write_whole(&options.output, (text + "\n").as_bytes())?;
    journal.remove()?;
    Ok(Summary {
        comparisons: found.len(),
        before,
        without: found.iter().filter(|row| row.preference.is_none()).count(),
        prompt_tokens: found.iter().map(|row| row.prompt_tokens).sum(),
        completion_tokens: found.iter().map(|row| row.completion_tokens).sum(),
    })
}

/// What tells comparisons apart.
fn key(compared: &Compared) -> [&str; 3] {
    [&compared.instruction, &compared.outputs[0], &compared.outputs[1]]
}

/// Judges the comparisons at `open`, on several threads; `keep` takes each result on this one and says whether to go on.
fn judge_open(
    compared: &[Compared],
    judge: &dyn Judge,
    options: &AnnotateOptions,
    open: &[usize],
    keep: &mut dyn FnMut(usize, Annotated) -> Result<bool>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = || next.store(open.len(), Ordering::Relaxed);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..options.concurrency.clamp(1, open.len().max(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(place) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = judge_one(&compared[*place], judge, options.seed);
                    if sender.send((*place, row)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut failed = Ok(());
        for (place, row) in receiver {
            // What is under way when something fails is kept all the same.
            let kept = row
                .map_err(|source| Error::Judge { judge: judge.name().to_owned(), row: place, source })
                .and_then(|row| keep(place, row));
            match kept {
                Ok(true) => {}
                Ok(false) if failed.is_ok() => failed = Err(Error::Stopped),
                Ok(false) => {}
                Err(error) if failed.is_ok() => failed = Err(error),
                Err(_) => {}
            }
            if failed.is_err() {
                stop();
            }
        }
        failed
    })
}

fn judge_one(compared: &Compared, judge: &dyn Judge, seed: u64) -> std::result::Result<Annotated, JudgeError> {
    let [first, second] = [compared.outputs[0].as_str(), compared.outputs[1].as_str()];
    let switched = is_switched(&compared.instruction, seed);
    let verdict = judge.judge(&compared.instruction, if switched { [second, first] } else { [first, second] })?;
    let [generator_1, generator_2] = compared.generators.clone();
    Ok(Annotated {
        instruction: compared.instruction.clone(),
        output_1: first.to_owned(),
        generator_1,
        dataset: compared.dataset.clone(),
        output_2: second.to_owned(),
        generator_2,
        annotator: judge.name().to_owned(),
        preference: verdict.preference.map(|p| if switched { 3.0 - p } else { p }),
        prompt_tokens: verdict.tokens[0],
        completion_tokens: verdict.tokens[1],
        raw_completion: verdict.raw,
    })
}

/// What is done, a line each, beside the output.
struct Journal {
    path: PathBuf,
    file: File,
    rows: Vec<Annotated>,
}

impl Journal {
    /// Opens it and reads what is done by the same judge; a line that was cut off is left out.
    fn open(output: &Path, judge: &str) -> Result<Self> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let path = output.with_file_name(format!(".{name}.partial"));
        let text = if path.exists() { std::fs::read_to_string(&path).at(&path, "read")? } else { String::new() };
        let (mut rows, mut whole) = (Vec::new(), 0);
        for (number, line) in text.split_inclusive('\n').enumerate() {
            match serde_json::from_str::<Annotated>(line) {
                Ok(row) if line.ends_with('\n') => rows.push(row),
                _ if !line.ends_with('\n') => break,
                Ok(_) => {}
                Err(e) => return Err(Error::malformed(&path, format!("line {}: {e}", number + 1))),
            }
            whole += line.len() as u64;
        }
        if let Some(other) = rows.iter().find(|row| row.annotator != judge) {
            let found =
                format!("verdicts of `{}`, expected those of `{judge}`; remove it to begin anew", other.annotator);
            return Err(Error::malformed(&path, found));
        }
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).at(&path, "write")?;
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).at(&path, "write")?;
        Ok(Self { path, file, rows })
    }

    fn append(&mut self, row: &Annotated) -> Result<()> {
        let line = serde_json::to_string(row).map_err(|e| Error::malformed(&self.path, e))? + "\n";
        self.file.write_all(line.as_bytes()).at(&self.path, "write")
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).at(&self.path, "remove")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alpaca::{WinRate, read_annotations};
    use std::sync::Mutex;

    /// Prefers the longer answer, fails after some questions, and remembers what it was asked.
    struct Longer {
        left: AtomicUsize,
        asked: Mutex<Vec<String>>,
    }

    impl Judge for Longer {
        fn name(&self) -> &str {
            "longer"
        }

        fn judge(&self, instruction: &str, [first, second]: [&str; 2]) -> std::result::Result<Verdict, JudgeError> {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                return Err("out of questions".into());
            }
            self.asked.lock().unwrap().push(instruction.to_owned());
            let preference = if first.len() > second.len() { 1.25 } else { 1.75 };
            Ok(Verdict { preference: Some(preference), raw: Value::Null, tokens: [10, 1] })
        }
    }

    fn judge(left: usize) -> Longer {
        Longer { left: AtomicUsize::new(left), asked: Mutex::default() }
    }

    fn compared(count: usize) -> Vec<Compared> {
        let one = |i: usize| Compared {
            instruction: format!("question {i}"),
            outputs: ["short".into(), format!("a longer answer {i}")],
            generators: ["base".into(), "model".into()],
            dataset: None,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn the_order_seen_does_not_change_who_wins_and_a_stop_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = AnnotateOptions { output: dir.path().join("annotations.json"), concurrency: 3, seed: 0 };
        let error = annotate(&compared(20), &judge(7), &options, &mut |_| true).unwrap_err();
        assert!(error.to_string().starts_with("longer: no verdict about comparison "), "{error}");
        assert!(!options.output.exists());
        // As if the process had died in the middle of a line.
        let partial = dir.path().join(".annotations.json.partial");
        let kept = std::fs::read_to_string(&partial).unwrap();
        std::fs::write(&partial, format!("{kept}{{\"instr")).unwrap();
        let second = judge(100);
        let summary = annotate(&compared(20), &second, &options, &mut |_| true).unwrap();
        assert_eq!((summary.comparisons, summary.before, summary.without), (20, 7, 0));
        assert_eq!((summary.prompt_tokens, summary.completion_tokens), (200, 20));
        assert_eq!(second.asked.lock().unwrap().len(), 13);
        assert!(!partial.exists());
        let read = read_annotations(&options.output).unwrap().remove(0);
        assert_eq!((read.model.as_str(), read.baseline.as_deref(), read.rows.len()), ("model", Some("base"), 20));
        // Some were seen swapped, and the longer answer has won them all.
        assert_eq!(WinRate::of(&read).win_rate, 75.0);
        let switched = (0..20).filter(|i| is_switched(&format!("question {i}"), 0)).count();
        assert!((3..18).contains(&switched));
    }

    #[test]
    fn work_of_another_judge_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let options = AnnotateOptions { output: dir.path().join("a.json"), concurrency: 1, seed: 0 };
        assert!(matches!(annotate(&compared(3), &judge(9), &options, &mut |done| done < 2), Err(Error::Stopped)));
        struct Other;
        impl Judge for Other {
            fn name(&self) -> &str {
                "other"
            }
            fn judge(&self, _: &str, _: [&str; 2]) -> std::result::Result<Verdict, JudgeError> {
                Ok(Verdict::default())
            }
        }
        let error = annotate(&compared(3), &Other, &options, &mut |_| true).unwrap_err().to_string();
        assert!(error.contains("verdicts of `longer`, expected those of `other`"), "{error}");
        std::fs::remove_file(dir.path().join(".a.json.partial")).unwrap();
        assert_eq!(annotate(&compared(3), &Other, &options, &mut |_| true).unwrap().without, 3);
    }
}
