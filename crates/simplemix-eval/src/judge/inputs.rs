//! Inputs of a judge: questions of an evaluation set, and responses of two models to the same instructions.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::json::{Object, objects_and_notices};
use crate::outputs::ModelOutput;

/// A question of an evaluation set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The instruction.
    pub instruction: String,
    /// Set that the instruction comes from.
    pub dataset: Option<String>,
    /// The right answer, or several of which any is right; none if it is not known.
    pub answers: Vec<String>,
}

/// Reads questions from a JSON array or JSON lines, with `instruction`, else `question`, else `prompt` as text, and
/// optionally `dataset` and `answer`, which is text or a number, or a list of them, any of which is right. Rows that are no objects,
/// or no text, are left out; `notices` gets a sentence that counts them.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) or [`Error::Malformed`](crate::Error::Malformed), which name the row.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("answers.jsonl");
/// std::fs::write(&path, r#"{"question": "2 + 2?", "answer": 4}"#)?;
/// let questions = simplemix_eval::judge::read_questions(&path, &mut Vec::new())?;
/// assert_eq!((questions[0].instruction.as_str(), questions[0].answers[0].as_str()), ("2 + 2?", "4"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_questions(path: &Path, notices: &mut Vec<String>) -> Result<Vec<Question>> {
    let question = |row: Object| {
        Ok(Question {
            instruction: row.needed_text(path, &["instruction", "question", "prompt"])?,
            dataset: row.text(path, &["dataset"])?,
            answers: row.texts(path, "answer")?,
        })
    };
    objects_and_notices(path, notices)?.into_iter().map(question).collect()
}

/// Responses of the baseline and of the model to one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPair {
    /// The instruction.
    pub instruction: String,
    /// The baseline's response, then the model's.
    pub outputs: [String; 2],
    /// Names of the baseline and of the model.
    pub generators: [String; 2],
    /// Set that the instruction comes from.
    pub dataset: Option<String>,
}

impl OutputPair {
    /// Whether the responses are equal, which no judge has to decide.
    pub fn is_draw(&self) -> bool {
        self.outputs[0] == self.outputs[1]
    }
}

/// Numbers of responses that are in no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unmatched {
    /// Responses of the baseline to instructions that the model has no response to.
    pub baseline: usize,
    /// Responses of the model to instructions that the baseline has no response to.
    pub model: usize,
    /// Responses, on either side, to an instruction that an earlier response of that side is to.
    pub repeated: usize,
}

/// Pairs responses by instruction, in the order of the baseline. The first response to an instruction counts.
///
/// # Examples
/// ```
/// use simplemix_eval::ModelOutput;
/// use simplemix_eval::judge::pair_outputs;
///
/// let output = |instruction: &str, generator: &str| ModelOutput {
///     instruction: instruction.into(),
///     output: "Hi!".into(),
///     generator: generator.into(),
///     ..ModelOutput::default()
/// };
/// let (pairs, unmatched) =
///     pair_outputs(&[output("Say hi.", "base")], &[output("Say hi.", "mine"), output("Say bye.", "mine")]);
/// assert_eq!(pairs[0].generators, ["base", "mine"]);
/// assert_eq!(unmatched.model, 1);
/// ```
pub fn pair_outputs(baseline: &[ModelOutput], model: &[ModelOutput]) -> (Vec<OutputPair>, Unmatched) {
    let mut unmatched = Unmatched::default();
    let mut outputs: BTreeMap<&str, &ModelOutput> = BTreeMap::new();
    for output in model {
        match outputs.entry(&output.instruction) {
            Entry::Vacant(place) => drop(place.insert(output)),
            Entry::Occupied(_) => unmatched.repeated += 1,
        }
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for theirs in baseline {
        if !seen.insert(theirs.instruction.as_str()) {
            unmatched.repeated += 1;
            continue;
        }
        match outputs.remove(theirs.instruction.as_str()) {
            Some(ours) => found.push(OutputPair {
                instruction: theirs.instruction.clone(),
                outputs: [theirs.output.clone(), ours.output.clone()],
                generators: [theirs.generator.clone(), ours.generator.clone()],
                dataset: theirs.dataset.clone().or_else(|| ours.dataset.clone()),
            }),
            None => unmatched.baseline += 1,
        }
    }
    unmatched.model = outputs.len();
    (found, unmatched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_may_stand_beside_a_question() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rows = r#"{"instruction": "2+2?", "question": "other", "answer": 4.0}
            {"question": "3+3?", "prompt": [], "answer": "6", "dataset": "sums"}"#;
        std::fs::write(file.path(), rows).unwrap();
        let read = || read_questions(file.path(), &mut Vec::new());
        let found = read().unwrap();
        assert_eq!((found[0].instruction.as_str(), &found[0].answers[..]), ("2+2?", &["4.0".to_owned()][..]));
        assert_eq!((found[1].instruction.as_str(), found[1].dataset.as_deref()), ("3+3?", Some("sums")));
        let lists = r#"[{"question": "a", "answer": ["4", 5]}, {"question": "b", "answer": []}, {"question": "c"}]"#;
        std::fs::write(file.path(), lists).unwrap();
        let found: Vec<Vec<String>> = read().unwrap().into_iter().map(|question| question.answers).collect();
        assert_eq!(found, [vec!["4".to_owned(), "5".to_owned()], vec![], vec![]]);
        std::fs::write(file.path(), r#"[{"question": "a", "answer": ["4", {}]}]"#).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.ends_with("row 0: `answer` is an object, expected a text or number in the list"), "{error}");
    }

    #[test]
    fn responses_meet_by_instruction() {
        let output = |instruction: &str, generator: &str| ModelOutput {
            instruction: instruction.into(),
            output: format!("{generator} on {instruction}"),
            generator: generator.into(),
            dataset: (generator == "base").then(|| "koala".into()),
            score: None,
        };
        let base = [output("1", "base"), output("2", "base"), output("1", "base")];
        let model = [output("3", "m"), output("2", "m"), output("2", "m")];
        let (found, unmatched) = pair_outputs(&base, &model);
        assert_eq!(unmatched, Unmatched { baseline: 1, model: 1, repeated: 2 });
        assert_eq!(
            (found.len(), found[0].outputs[1].as_str(), found[0].dataset.as_deref()),
            (1, "m on 2", Some("koala"))
        );
    }
}
