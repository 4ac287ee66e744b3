//! Real responses of SmolLM2-135M-Instruct (Apache-2.0) to our own questions, read by hand.
//!
//! `exact_answers.jsonl` was sampled by transformers 5.23.0 at temperature 0.6 and top-p 0.9, with 60 or 110 new tokens, and
//! holds every response. `says` is the result that a human reader finds in the response, right or wrong; it is null if the
//! response is cut off, or rambles, before it states a result. `misread` marks responses that the rules read differently.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Deserialize;
use simplemix_rollout::is_right;

#[derive(Deserialize)]
struct Row {
    question: String,
    correct: String,
    says: Option<String>,
    #[serde(default)]
    misread: bool,
    response: String,
}

impl Row {
    /// Whether the rules read the same result as the human reader, or none if the reader found none.
    fn is_read(&self) -> bool {
        let correct = is_right(&self.response, &self.correct);
        match &self.says {
            None => !correct,
            Some(says) => is_right(&self.response, says) && correct == is_right(says, &self.correct),
        }
    }
}

#[test]
fn responses_are_read_as_by_a_human_reader() {
    let rows: Vec<Row> =
        include_str!("exact_answers.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = rows.iter().filter(|row| row.says.is_some()).count();
    let misread = rows.iter().filter(|row| row.misread).count();
    assert!(rows.len() >= 100 && said >= 75 && misread * 20 <= rows.len(), "{} {said} {misread}", rows.len());
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| row.is_read() == row.misread)
        .map(|row| format!("{} [{}] {:?}: {}", row.question, row.correct, row.says, row.response))
        .collect();
    assert!(wrong.is_empty(), "{} of {} read differently:\n{}", wrong.len(), rows.len(), wrong.join("\n---\n"));
}
