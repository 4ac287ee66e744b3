//! Inputs of a judge: questions of an evaluation set, and responses of two models to the same instructions.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::Result;
use crate::json::read_objects;
use crate::outputs::ModelOutput;

/// A question of an evaluation set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// The instruction.
    #[serde(alias = "question", alias = "prompt")]
    pub instruction: String,
    /// Set that the instruction comes from.
    pub dataset: Option<String>,
    /// The right answer, if it is known.
    pub answer: Option<String>,
}

/// Reads questions from a JSON array or JSON lines, with `instruction` (or `question`, or `prompt` as text), and
/// optionally `dataset` and `answer`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::Malformed`](crate::Error::Malformed), which names the row.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    read_objects(path)
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

/// Numbers of responses without a counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unmatched {
    /// Responses of the baseline to instructions that the model has no response to.
    pub baseline: usize,
    /// Responses of the model to instructions that the baseline has no response to.
    pub model: usize,
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
///     dataset: None,
/// };
/// let (pairs, unmatched) =
///     pair_outputs(&[output("Say hi.", "base")], &[output("Say hi.", "mine"), output("Say bye.", "mine")]);
/// assert_eq!(pairs[0].generators, ["base", "mine"]);
/// assert_eq!(unmatched.model, 1);
/// ```
pub fn pair_outputs(baseline: &[ModelOutput], model: &[ModelOutput]) -> (Vec<OutputPair>, Unmatched) {
    let mut outputs: BTreeMap<&str, &ModelOutput> = BTreeMap::new();
    for output in model {
        outputs.entry(&output.instruction).or_insert(output);
    }
    let (mut found, mut unmatched) = (Vec::new(), Unmatched::default());
    for theirs in baseline {
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
    fn responses_meet_by_instruction() {
        let output = |instruction: &str, generator: &str| ModelOutput {
            instruction: instruction.into(),
            output: format!("{generator} on {instruction}"),
            generator: generator.into(),
            dataset: (generator == "base").then(|| "koala".into()),
        };
        let base = [output("1", "base"), output("2", "base")];
        let model = [output("3", "m"), output("2", "m")];
        let (found, unmatched) = pair_outputs(&base, &model);
        assert_eq!(unmatched, Unmatched { baseline: 1, model: 1 });
        assert_eq!(
            (found.len(), found[0].outputs[1].as_str(), found[0].dataset.as_deref()),
            (1, "m on 2", Some("koala"))
        );
    }
}
