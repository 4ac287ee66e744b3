//! Responses of several models, brought together by prompt.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::outputs::ModelOutput;

/// A prompt, with the response of each model.
pub(crate) type Responses<'a> = (&'a str, Vec<Named<'a>>);

/// A response, with the name of its model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) output: &'a ModelOutput,
}

/// At most `most` prompts, those with responses of the most models first. The first response of a model to a prompt
/// counts.
pub(crate) fn side_by_side(outputs: &[(String, Vec<ModelOutput>)], most: usize) -> Vec<Responses<'_>> {
    let mut prompts: Vec<Responses<'_>> = Vec::new();
    let mut places = BTreeMap::new();
    for (name, outputs) in outputs {
        for output in outputs {
            let place = *places.entry(output.instruction.as_str()).or_insert_with(|| {
                prompts.push((&output.instruction, Vec::new()));
                prompts.len() - 1
            });
            if !prompts[place].1.iter().any(|known| known.name == name) {
                prompts[place].1.push(Named { name, output });
            }
        }
    }
    // The sort is stable, so that equals keep the order of the file.
    prompts.sort_by_key(|(_, responses)| Reverse(responses.len()));
    prompts.truncate(most);
    prompts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_meet_at_their_prompts() {
        let output = |instruction: &str, output: &str| ModelOutput {
            instruction: instruction.into(),
            output: output.into(),
            ..ModelOutput::default()
        };
        let all = [
            ("a".to_owned(), vec![output("1", "x"), output("2", "y"), output("2", "again")]),
            ("b".to_owned(), vec![output("2", "z"), output("3", "w")]),
        ];
        let found = side_by_side(&all, 2);
        let plain: Vec<(&str, Vec<(&str, &str)>)> = found
            .iter()
            .map(|(prompt, of)| (*prompt, of.iter().map(|n| (n.name, n.output.output.as_str())).collect()))
            .collect();
        assert_eq!(plain, [("2", vec![("a", "y"), ("b", "z")]), ("1", vec![("a", "x")])]);
    }
}
