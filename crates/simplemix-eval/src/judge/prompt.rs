//! The question for a judge, word for word from tatsu-lab/alpaca_eval (alpaca_eval_clf_gpt4_turbo), Apache-2.0.

use serde::Serialize;

/// A turn of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Role, `system` or `user`.
    pub role: &'static str,
    /// Text of the turn.
    pub content: String,
}

const SYSTEM: &str = "You are a highly efficient assistant, who evaluates and selects the best large language model (LLMs) based on the quality of their responses to a given instruction. This process will be used to create a leaderboard reflecting the most accurate and human-preferred answers.";

const USER: &str = r#"I require a leaderboard for various large language models. I'll provide you with prompts given to these models and their corresponding outputs. Your task is to assess these responses, and select the model that produces the best output from a human perspective.

## Instruction

{
    "instruction": """{instruction}""",
}

## Model Outputs

Here are the unordered outputs from the models. Each output is associated with a specific model, identified by a unique model identifier.

{
    {
        "model_identifier": "m",
        "output": """{output_1}"""
    },
    {
        "model_identifier": "M",
        "output": """{output_2}"""
    }
}

## Task

Evaluate the models based on the quality and relevance of their outputs, and select the model that generated the best output. Answer by providing the model identifier of the best model. We will use your output as the name of the best model, so make sure your output only contains one of the following model identifiers and nothing else (no quotes, no spaces, no new lines, ...): m or M.

## Best Model Identifier"#;

/// Makes AlpacaEval 2.0's question about two responses, in the order in which the judge sees them. The judge replies
/// `m` for the first or `M` for the second.
///
/// # Examples
/// ```
/// let turns = simplemix_eval::judge::question("Say hi.", ["Hi!", "Good day!"]);
/// assert!(turns[1].content.contains("Good day!"));
/// ```
pub fn question(instruction: &str, outputs: [&str; 2]) -> Vec<Turn> {
    let user = filled(USER, &[("{instruction}", instruction), ("{output_1}", outputs[0]), ("{output_2}", outputs[1])]);
    vec![Turn { role: "system", content: SYSTEM.to_owned() }, Turn { role: "user", content: user }]
}

/// Replaces each name in the template once. Inserted texts are not searched, so a response that contains such a name
/// stays as it is.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), template);
    for (name, value) in values {
        if let Some((before, after)) = rest.split_once(name) {
            text.push_str(before);
            text.push_str(value);
            rest = after;
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_texts_are_not_searched() {
        let turns = question("say {output_1}", ["{output_2} \"\"\"", "b"]);
        assert_eq!(turns[0].role, "system");
        let user = &turns[1].content;
        assert!(user.contains("\"instruction\": \"\"\"say {output_1}\"\"\","));
        assert!(
            user.contains("\"output\": \"\"\"{output_2} \"\"\"\"\"\"") && user.contains("\"output\": \"\"\"b\"\"\"")
        );
        assert!(user.ends_with("## Best Model Identifier"));
    }
}
