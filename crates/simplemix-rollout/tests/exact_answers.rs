//! Real answers of SmolLM2-135M-Instruct (Apache-2.0) to questions of our own, read by hand.
//!
//! `exact_answers.jsonl` was sampled by transformers 5.23.0 at temperature 0.6 and top-p 0.9, 60 or 110 new tokens; nobody
//! chose among the answers. `says` is what a reader takes for the answer that is given, right or wrong; null where an
//! answer is cut off, or rambles, before it has said anything. `misread` marks those that the rules read otherwise.

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
    /// Whether what is said, or that nothing is, is read from the response.
    fn is_read(&self) -> bool {
        let correct = is_right(&self.response, &self.correct);
        match &self.says {
            None => !correct,
            Some(says) => is_right(&self.response, says) && correct == is_right(says, &self.correct),
        }
    }
}

#[test]
fn answers_are_read_as_a_reader_reads_them() {
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
    assert!(wrong.is_empty(), "{} of {} read otherwise:\n{}", wrong.len(), rows.len(), wrong.join("\n---\n"));
}
