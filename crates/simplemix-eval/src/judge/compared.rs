//! Two models' answers to the same instructions.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::alpaca::objects_of;
use crate::error::Result;
use crate::report::Answer;

/// A question of an evaluation set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Asked {
    /// What is asked.
    #[serde(alias = "question", alias = "prompt")]
    pub instruction: String,
    /// The set that it comes from.
    pub dataset: Option<String>,
    /// The right answer, where there is one.
    pub answer: Option<String>,
}

/// Reads questions from a JSON array or JSON lines, of `instruction` (or `question`, or `prompt` as text), and where they
/// are there `dataset` and `answer`.
///
/// # Errors
/// [`crate::Error::Io`] or [`crate::Error::Malformed`] with the row.
pub fn read_asked(path: &Path) -> Result<Vec<Asked>> {
    objects_of(path)
}

/// Two answers to an instruction: the baseline's and the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// What was asked.
    pub instruction: String,
    /// The baseline's answer, then the model's.
    pub outputs: [String; 2],
    /// Names of both.
    pub generators: [String; 2],
    /// The set that the instruction comes from.
    pub dataset: Option<String>,
}

/// Answers that have no partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unmatched {
    /// The baseline's, to instructions that the model has no answer to.
    pub baseline: usize,
    /// The model's.
    pub model: usize,
}

/// Pairs answers by their instruction, in the baseline's order. Where one has several answers to an instruction, the first
/// counts.
pub fn comparisons(baseline: &[Answer], model: &[Answer]) -> (Vec<Compared>, Unmatched) {
    let mut outputs: BTreeMap<&str, &Answer> = BTreeMap::new();
    for answer in model {
        outputs.entry(&answer.instruction).or_insert(answer);
    }
    let (mut found, mut unmatched) = (Vec::new(), Unmatched::default());
    for answer in baseline {
        match outputs.remove(answer.instruction.as_str()) {
            Some(ours) => found.push(Compared {
                instruction: answer.instruction.clone(),
                outputs: [answer.output.clone(), ours.output.clone()],
                generators: [answer.generator.clone(), ours.generator.clone()],
                dataset: answer.dataset.clone().or_else(|| ours.dataset.clone()),
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
    fn answers_meet_by_instruction() {
        let answer = |instruction: &str, generator: &str| Answer {
            instruction: instruction.into(),
            output: format!("{generator} on {instruction}"),
            generator: generator.into(),
            dataset: (generator == "base").then(|| "koala".into()),
        };
        let base = [answer("1", "base"), answer("2", "base")];
        let model = [answer("3", "m"), answer("2", "m")];
        let (found, unmatched) = comparisons(&base, &model);
        assert_eq!(unmatched, Unmatched { baseline: 1, model: 1 });
        assert_eq!(
            (found.len(), found[0].outputs[1].as_str(), found[0].dataset.as_deref()),
            (1, "m on 2", Some("koala"))
        );
    }
}
