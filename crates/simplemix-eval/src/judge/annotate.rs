//! Judging of many comparisons: several at a time, each verdict kept on disk, with continuation after a stop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::judge::inputs::OutputPair;
use crate::judge::journal::{Annotated, Journal};
use crate::judge::switch::is_switched;

/// Reason why a judge gives no verdict.
pub type JudgeError = Box<dyn std::error::Error + Send + Sync>;

/// A judge, which decides which of two responses is better.
pub trait Judge: Sync {
    /// Name of the judge, for the column `annotator`.
    fn name(&self) -> &str;

    /// Decides which of two responses to `instruction` is better; `outputs` are in the order in which the judge sees
    /// them.
    ///
    /// # Errors
    /// Any error stops the judging; finished verdicts are kept.
    fn judge(&self, instruction: &str, outputs: [&str; 2]) -> std::result::Result<Verdict, JudgeError>;

    /// Numbers of attempts to reach the judge that failed since the last call, by reason.
    fn failures(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

/// Verdict of a judge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// Preference from 1 (the first response) to 2 (the second); `None` if the reply names neither.
    pub preference: Option<f64>,
    /// The judge's reply, to be kept.
    pub raw: Value,
    /// Tokens of question and reply, or 0 if they are unknown.
    pub tokens: [u64; 2],
}

/// Options of the judging.
#[derive(Debug, Clone)]
pub struct AnnotateOptions {
    /// File of annotations to write. Finished verdicts are kept beside it, in `.NAME.partial`, until all are there.
    pub output: PathBuf,
    /// Number of comparisons in progress at once.
    pub concurrency: usize,
    /// Seed of the order in which the judge sees the responses; the official package uses 0.
    pub seed: u64,
}

/// Summary of the judging.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Number of comparisons.
    pub comparisons: usize,
    /// Comparisons that were judged before this call.
    pub before: usize,
    /// Comparisons of equal responses, which are draws that no judge is asked about.
    pub equal: usize,
    /// Comparisons without a verdict.
    pub without: usize,
    /// Tokens of the questions.
    pub prompt_tokens: u64,
    /// Tokens of the replies.
    pub completion_tokens: u64,
    /// Attempts to reach the judge that failed in this call, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
}

/// Judges all comparisons and writes the annotations, in the order of the comparisons.
///
/// Equal responses are a draw without a question, as in the official package.
///
/// `progress` gets the number of finished comparisons and returns whether to continue. If it returns false, or the
/// judge fails, finished verdicts are kept beside the output, and the same call continues from there.
///
/// # Errors
/// [`Error::Judge`] if the judge fails; [`Error::NoVerdict`] if all comparisons are without a preference;
/// [`Error::Stopped`] if `progress` returns false; [`Error::File`] if another
/// process judges into the same file, or it cannot be written; [`Error::Malformed`] if the kept verdicts cannot be read
/// or come from another judge.
///
/// # Examples
/// ```
/// use simplemix_eval::judge::{AnnotateOptions, Judge, JudgeError, OutputPair, Verdict, annotate};
///
/// /// Prefers the shorter response.
/// struct Shorter;
///
/// impl Judge for Shorter {
///     fn name(&self) -> &str {
///         "shorter"
///     }
///
///     fn judge(&self, _: &str, [first, second]: [&str; 2]) -> Result<Verdict, JudgeError> {
///         let preference = if first.len() < second.len() { 1.0 } else { 2.0 };
///         Ok(Verdict { preference: Some(preference), ..Verdict::default() })
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// let pair = OutputPair {
///     instruction: "Say hi.".into(),
///     outputs: ["Good day to you!".into(), "Hi!".into()],
///     generators: ["base".into(), "mine".into()],
///     dataset: None,
/// };
/// let output = dir.path().join("annotations.json");
/// let options = AnnotateOptions { output, concurrency: 2, seed: 0 };
/// let summary = annotate(&[pair], &Shorter, &options, &mut |_| true)?;
/// assert_eq!((summary.comparisons, summary.without), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn annotate(
    compared: &[OutputPair],
    judge: &dyn Judge,
    options: &AnnotateOptions,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Summary> {
    let mut journal = Journal::open(&options.output, judge.name())?;
    let wanted: BTreeMap<[&str; 3], usize> = compared.iter().enumerate().map(|(place, c)| (key(c), place)).collect();
    let mut rows: Vec<Option<Annotated>> = vec![None; compared.len()];
    for row in journal.take_rows() {
        let place = wanted.get(&[row.instruction.as_str(), row.output_1.as_str(), row.output_2.as_str()]).copied();
        // A reply without a preference may have one now, such as from a judge that may think for longer.
        if let Some(place) = place.filter(|_| row.preference.is_some()) {
            rows[place] = Some(row);
        }
    }
    let before = rows.iter().flatten().count();
    let mut equal = 0;
    for place in wanted.values().copied().filter(|place| compared[*place].is_draw()) {
        rows[place] = Some(annotated(&compared[place], judge.name(), draw()));
        equal += 1;
    }
    // Equal comparisons are judged once.
    let open: BTreeSet<usize> = wanted.values().copied().filter(|place| rows[*place].is_none()).collect();
    judge_open(compared, judge, options, &open.into_iter().collect::<Vec<_>>(), &mut |place, row| {
        journal.append(&row)?;
        rows[place] = Some(row);
        Ok(progress(rows.iter().flatten().count()))
    })?;
    let found: Vec<Annotated> =
        compared.iter().filter_map(|comparison| rows[*wanted.get(&key(comparison))?].clone()).collect();
    if !found.iter().any(|row| row.preference.is_some())
        && let Some(first) = found.first()
    {
        let (judge, comparisons, reply) = (judge.name().to_owned(), found.len(), first.raw_completion.to_string());
        return Err(Error::NoVerdict { judge, comparisons, reply });
    }
    let text = serde_json::to_string_pretty(&found).expect("texts and numbers can always be written as JSON");
    simplemix_files::write(&options.output, text + "\n")?;
    journal.remove()?;
    Ok(Summary {
        comparisons: found.len(),
        before,
        equal,
        without: found.iter().filter(|row| row.preference.is_none()).count(),
        prompt_tokens: found.iter().map(|row| row.prompt_tokens).sum(),
        completion_tokens: found.iter().map(|row| row.completion_tokens).sum(),
        failed: judge.failures(),
    })
}

/// Identity of a comparison.
fn key(compared: &OutputPair) -> [&str; 3] {
    [&compared.instruction, &compared.outputs[0], &compared.outputs[1]]
}

/// Judges the comparisons at `open` on several threads. `keep` gets each result on this thread and returns whether to
/// continue.
fn judge_open(
    compared: &[OutputPair],
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
            // Verdicts that are in progress when something fails are kept too.
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

fn judge_one(compared: &OutputPair, judge: &dyn Judge, seed: u64) -> std::result::Result<Annotated, JudgeError> {
    let [first, second] = [compared.outputs[0].as_str(), compared.outputs[1].as_str()];
    let switched = is_switched(&compared.instruction, seed);
    let verdict = judge.judge(&compared.instruction, if switched { [second, first] } else { [first, second] })?;
    let preference = verdict.preference.map(|p| if switched { 3.0 - p } else { p });
    Ok(annotated(compared, judge.name(), Verdict { preference, ..verdict }))
}

/// The verdict on equal responses.
fn draw() -> Verdict {
    Verdict { preference: Some(1.5), ..Verdict::default() }
}

/// A row of the annotations; the preference is that for the model against the baseline.
fn annotated(compared: &OutputPair, annotator: &str, verdict: Verdict) -> Annotated {
    let ([output_1, output_2], [generator_1, generator_2]) = (compared.outputs.clone(), compared.generators.clone());
    Annotated {
        instruction: compared.instruction.clone(),
        output_1,
        generator_1,
        dataset: compared.dataset.clone(),
        output_2,
        generator_2,
        annotator: annotator.to_owned(),
        preference: verdict.preference,
        prompt_tokens: verdict.tokens[0],
        completion_tokens: verdict.tokens[1],
        raw_completion: verdict.raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alpaca::{WinRate, read_annotations};
    use std::sync::Mutex;

    /// Prefers the longer response, fails after some questions, and remembers the instructions.
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

    fn compared(count: usize) -> Vec<OutputPair> {
        let one = |i: usize| OutputPair {
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
        assert!(error.to_string().starts_with("longer: no verdict on comparison "), "{error}");
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
        // Some were swapped, and the longer response has won them all.
        assert_eq!(WinRate::of(&read).win_rate, 75.0);
        let switched = (0..20).filter(|i| is_switched(&format!("question {i}"), 0)).count();
        assert!((3..18).contains(&switched));
    }

    #[test]
    fn equal_responses_are_a_draw_that_no_judge_is_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        let options = AnnotateOptions { output: dir.path().join("a.json"), concurrency: 1, seed: 0 };
        let mut pairs = compared(3);
        pairs[1].outputs[1] = "short".into();
        let asked = judge(9);
        let summary = annotate(&pairs, &asked, &options, &mut |_| true).unwrap();
        assert_eq!((summary.comparisons, summary.equal, summary.before), (3, 1, 0));
        assert_eq!(*asked.asked.lock().unwrap(), ["question 0", "question 2"]);
        let read = read_annotations(&options.output).unwrap().remove(0);
        assert_eq!(read.rows[1].preference, Some(1.5));
        assert_eq!(read.annotator.as_deref(), Some("longer"));
    }

    #[test]
    fn a_judge_without_a_verdict_is_a_failure_and_is_asked_again() {
        struct Silent(bool);
        impl Judge for Silent {
            fn name(&self) -> &str {
                "silent"
            }
            fn judge(&self, _: &str, _: [&str; 2]) -> std::result::Result<Verdict, JudgeError> {
                let raw = "hm".into();
                Ok(Verdict { preference: self.0.then_some(1.5), raw, tokens: [1, 1] })
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let options = AnnotateOptions { output: dir.path().join("a.json"), concurrency: 1, seed: 0 };
        let error = annotate(&compared(2), &Silent(false), &options, &mut |_| true).unwrap_err();
        assert_eq!(error.to_string(), "silent: no verdict in 2 comparisons; the first reply is \"hm\"");
        assert!(!options.output.exists());
        let summary = annotate(&compared(2), &Silent(true), &options, &mut |_| true).unwrap();
        assert_eq!((summary.before, summary.without), (0, 0));
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
        assert!(!dir.path().join(".a.json.partial.lock").exists());
        assert!(error.contains("verdicts of `longer`, expected those of `other`"), "{error}");
        std::fs::remove_file(dir.path().join(".a.json.partial")).unwrap();
        assert!(matches!(
            annotate(&compared(3), &Other, &options, &mut |_| true),
            Err(Error::NoVerdict { comparisons: 3, .. })
        ));
    }
}
