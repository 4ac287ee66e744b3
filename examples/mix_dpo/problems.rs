//! Reasoning prompts whose answers can be checked: sums, differences, products and short stories about them.
//!
//! All follow from a seed. Training and held-out problems never share a question.

use std::collections::HashSet;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// A question and the number that answers it.
pub(crate) struct Problem {
    pub(crate) question: String,
    /// Expression to be worked out, such as `3 + 4`.
    pub(crate) expression: String,
    pub(crate) answer: String,
    pub(crate) task: &'static str,
}

const NAMES: &[&str] = &["Anna", "Ben", "Chloe", "David", "Emma", "Farid", "Grace", "Hugo", "Iris", "Jamal"];
const THINGS: &[&str] =
    &["apples", "books", "coins", "eggs", "marbles", "pens", "shells", "stamps", "stickers", "tickets"];

/// `count` different problems, half of them sums and products, half short stories.
pub(crate) fn problems(seed: u64, count: usize) -> Vec<Problem> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut seen, mut problems) = (HashSet::new(), Vec::with_capacity(count));
    while problems.len() < count {
        let problem = if problems.len() % 2 == 0 { arithmetic(&mut rng) } else { story(&mut rng) };
        if seen.insert(problem.question.clone()) {
            problems.push(problem);
        }
    }
    problems
}

fn arithmetic(rng: &mut ChaCha8Rng) -> Problem {
    let (a, b) = (rng.random_range(2..=40u32), rng.random_range(2..=40u32));
    let (text, answer) = match rng.random_range(0..3) {
        0 => (format!("{a} + {b}"), a + b),
        1 => (format!("{} - {}", a.max(b), a.min(b)), a.abs_diff(b)),
        _ => {
            let (a, b) = (a % 11 + 2, b % 8 + 2);
            (format!("{a} * {b}"), a * b)
        }
    };
    Problem {
        question: format!("What is {text}? Answer with the number only."),
        expression: text,
        answer: answer.to_string(),
        task: "arithmetic",
    }
}

fn story(rng: &mut ChaCha8Rng) -> Problem {
    let (name, thing) = (pick(rng, NAMES), pick(rng, THINGS));
    let (a, b) = (rng.random_range(3..=20u32), rng.random_range(2..=12u32));
    let sum = a + b;
    let (text, expression, answer) = match rng.random_range(0..4) {
        0 => (
            format!("{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"),
            format!("{a} + {b}"),
            sum,
        ),
        1 => (
            format!("{name} had {sum} {thing} and gave away {b}. How many {thing} are left?"),
            format!("{sum} - {b}"),
            a,
        ),
        2 => {
            let (a, b) = (a % 8 + 2, b % 5 + 2);
            (
                format!("{name} fills {a} boxes with {b} {thing} each. How many {thing} are in the boxes?"),
                format!("{a} * {b}"),
                a * b,
            )
        }
        _ => (
            format!("{name} has {sum} {thing}, which is {b} more than last week. How many were there last week?"),
            format!("{sum} - {b}"),
            a,
        ),
    };
    Problem {
        question: format!("{text} Answer with the number only."),
        expression,
        answer: answer.to_string(),
        task: "word-problem",
    }
}

fn pick<'a>(rng: &mut ChaCha8Rng, from: &[&'a str]) -> &'a str {
    from.choose(rng).copied().unwrap_or_default()
}
