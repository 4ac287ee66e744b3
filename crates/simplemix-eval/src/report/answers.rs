//! Answers of models, in the official package's `model_outputs.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub instruction: String,
    /// The answer.
    pub output: String,
    /// The model.
    #[serde(default)]
    pub generator: String,
    /// The set that the instruction comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// Reads the answers of a model.
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`].
pub fn read_outputs(path: &Path) -> Result<Vec<Answer>> {
    crate::alpaca::objects_of(path)
}

/// Writes answers as the official package reads them, whole or not at all.
///
/// # Errors
/// [`Error::Io`].
pub fn write_outputs(path: &Path, answers: &[Answer]) -> Result<()> {
    let text = serde_json::to_string_pretty(answers).map_err(|e| Error::malformed(path, e))?;
    crate::report::write_whole(path, (text + "\n").as_bytes())
}

/// A prompt, and who answered what.
pub(crate) type Given<'a> = (&'a str, Vec<(&'a str, &'a str)>);

/// Prompts that several have answered, the most widely answered first, each with who said what.
pub(crate) fn side_by_side(answers: &[(String, Vec<Answer>)], most: usize) -> Vec<Given<'_>> {
    let mut prompts: Vec<Given<'_>> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for (name, answers) in answers {
        for answer in answers {
            let place = *places.entry(answer.instruction.as_str()).or_insert_with(|| {
                prompts.push((&answer.instruction, Vec::new()));
                prompts.len() - 1
            });
            if !prompts[place].1.iter().any(|(known, _)| known == name) {
                prompts[place].1.push((name, &answer.output));
            }
        }
    }
    // Stable, so that prompts stay in the file's order among equals.
    prompts.sort_by_key(|(_, given)| std::cmp::Reverse(given.len()));
    prompts.truncate(most);
    prompts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_meet_at_their_prompts() {
        let answer = |instruction: &str, output: &str| Answer {
            instruction: instruction.into(),
            output: output.into(),
            generator: String::new(),
            dataset: None,
        };
        let all = [
            ("a".to_owned(), vec![answer("1", "x"), answer("2", "y"), answer("2", "again")]),
            ("b".to_owned(), vec![answer("2", "z"), answer("3", "w")]),
        ];
        let found = side_by_side(&all, 2);
        assert_eq!(found, [("2", vec![("a", "y"), ("b", "z")]), ("1", vec![("a", "x")])]);
    }
}
