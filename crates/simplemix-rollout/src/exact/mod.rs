//! Exact answers: the result that a response states, compared with the known right answer.
//!
//! | right answer | what is compared |
//! | --- | --- |
//! | one number, with or without a unit: `72`, `$1,250.00`, `1/2`, `\frac{3}{4}`, `12 apples` | values |
//! | one letter from A to J: `B`, `(B)` | letters |
//! | anything else: `Paris`, `3:30`, `x^2 + 1` | words, in a normal form |
//!
//! If the response marks its result, the mark decides: `\boxed{}`, GSM8K's `####`, "the answer is". Otherwise the result is
//! the last number, the letter that is a word, or the words at the end.

mod find;
mod number;
mod text;

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::scorer::Rule;
use find::{Found, result_in};
use number::{Value, numbers};

/// Scores 1 if the response states the prompt's right answer, or any of several, otherwise 0. See [`is_right`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ExactAnswer;

impl Rule for ExactAnswer {
    fn name(&self) -> &str {
        "exact-answer"
    }

    fn fingerprint(&self) -> String {
        "exact-answer 2".to_owned()
    }

    fn check(&self, prompt: &Prompt) -> Result<()> {
        expected(prompt).map(drop)
    }

    fn score(&self, prompt: &Prompt, response: &str) -> Result<f64> {
        Ok(f64::from(u8::from(expected(prompt)?.is_stated_by(response))))
    }
}

/// The right answer of a prompt.
fn expected(prompt: &Prompt) -> Result<&Answer> {
    let missing = || Error::Prompt { id: prompt.id.clone(), field: "answer", scorer: "exact-answer".to_owned() };
    prompt.answer.as_ref().ok_or_else(missing)
}

/// Whether `response` states the right answer `expected`.
///
/// A number is compared by its value, one letter from A to J as a choice, anything else as words in a normal form. A mark in
/// the response decides what it states: `\boxed{}`, `####`, "the answer is". Without a mark it is the last number, the letter
/// that is a word, or the words at the end.
///
/// # Examples
/// ```
/// use simplemix_rollout::is_right;
/// assert!(is_right("7 + 5 makes 12, so Anna has 12 apples.", "12"));
/// assert!(is_right("That is \\boxed{1,250.00}.", "1250"));
/// assert!(is_right("The share is $\\frac{1}{2}$", "50%"));
/// assert!(!is_right("It is 13, not 12 as some say; 13.", "12"));
/// assert!(is_right("The answer is (B).", "b"));
/// ```
pub fn is_right(response: &str, expected: &str) -> bool {
    let (response, expected) = (text::plain(tail(response)), text::plain(tail(expected)));
    // The right answer may be a worked solution, such as GSM8K's, whose result is marked too.
    let expected = match result_in(&expected) {
        Found::Marked(result) | Found::Unmarked(result) => result.to_owned(),
    };
    let found = result_in(&response);
    match Kind::of(&expected) {
        Kind::Value(value) => found.value().is_some_and(|found| found.equals(&value)),
        Kind::Letter(letter) => found.letter() == Some(letter),
        Kind::Words => found.holds_words(&expected),
    }
}

/// Bytes of a text that are read, from its end. A result is near the end, and a response may have any size.
const BYTES_READ: usize = 20_000;

fn tail(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(BYTES_READ))..]
}

/// Kind of a right answer.
enum Kind {
    Value(Value),
    Letter(char),
    Words,
}

impl Kind {
    fn of(expected: &str) -> Self {
        if let Some(letter) = text::only_letter(expected) {
            return Self::Letter(letter);
        }
        let all = numbers(expected);
        match all.as_slice() {
            [(value, place)] if text::is_unit(&expected[..place.start], &expected[place.end..]) => Self::Value(*value),
            [] => number::in_words(expected).map_or(Self::Words, Self::Value),
            _ => Self::Words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_value_are_equal() {
        for (response, expected) in [
            ("12", "12"),
            ("12.", "12"),
            ("x = 12.0", "12"),
            ("It costs $1,234.50 in all", "1234.5"),
            ("#### 1,000,000", "1000000"),
            ("about 50%", "0.5"),
            ("about 50%", "50"),
            ("1/2", "50%"),
            ("\u{2212}3", "-3"),
            ("-$4", "-4"),
            ("\\boxed{\\text{total } 42}", "42"),
            ("\\boxed{\\frac{3}{4}}", "0.75"),
            ("$\\dfrac{-3}{4}$", "-3/4"),
            ("$-\\tfrac34$", "-0.75"),
            ("1\\frac{1}{2}", "3/2"),
            ("1 1/2 cups", "1.5"),
            ("2½ hours", "2.5"),
            ("about 3 \\times 10^{4} m", "30,000"),
            ("1.5e3", "1500"),
            ("2 million people", "2,000,000"),
            ("\\boxed{1{,}250\\,\\text{km}}", "1250"),
            ("The answer is **15**.", "15"),
            ("She has twenty-one marbles.", "21"),
            ("One hundred and five", "105"),
            ("21", "twenty-one"),
            ("The answer is 8. Check: 8 - 3 = 5", "8"),
            ("The answer is 3 + 4 = 7.", "7"),
            ("First 9, then the answer is 7\nas 2 + 5 = 7, 100 % sure", "7"),
            ("Final answer: 40 minutes, or 2/3 of an hour", "40"),
            ("5-3=2", "2"),
            ("12 apples", "12 apples"),
            ("72", "Half of 48 is 24, so 48 + 24 = 72.\n#### 72"),
        ] {
            assert!(is_right(response, expected), "{response:?} is not read as {expected}");
        }
    }

    #[test]
    fn other_values_are_not() {
        for (response, expected) in [
            ("13", "12"),
            ("", "12"),
            ("no number", "0"),
            ("1,23", "123"),
            ("2-", "-2"),
            ("\\boxed{", "1"),
            ("\\boxed{3} or 4", "4"),
            ("0.333", "1/3"),
            ("12%", "1200"),
        ] {
            assert!(!is_right(response, expected), "{response:?} is read as {expected}");
        }
    }

    #[test]
    fn choices_are_letters_that_are_words() {
        for (response, expected) in [
            ("B", "B"),
            ("(b)", "B"),
            ("B. Because it floats.", "B"),
            ("The answer is (B).", "b"),
            ("The correct option is B) iron", "B"),
            ("**Answer: C**", "C"),
            ("I would say (A) at first, but it is (D)", "D"),
            ("\\boxed{\\text{E}}", "E"),
            ("A thorough look shows the answer is D", "D"),
        ] {
            assert!(is_right(response, expected), "{response:?} is not read as {expected}");
        }
        for (response, expected) in
            [("A train leaves", "A"), ("I think so", "I"), ("", "A"), ("The answer is C, not B", "B")]
        {
            assert!(!is_right(response, expected), "{response:?} is read as {expected}");
        }
    }

    #[test]
    fn words_are_compared_in_a_normal_form() {
        for (response, expected) in [
            ("The answer is Paris.", "paris"),
            ("The capital of France is Paris.", "Paris"),
            ("It has a river. The capital is Paris, the city of light.", "Paris"),
            ("Yes, since both are even.", "yes"),
            ("The train leaves at 3:30.", "3:30"),
            ("\\boxed{x^2+1}", "x^{2} + 1"),
            ("$\\boxed{\\left(3, \\frac{\\pi}{2}\\right)}$", "(3,\\dfrac{\\pi}{2})"),
            ("\\boxed{3\\sqrt{2}}", "3\\sqrt2"),
        ] {
            assert!(is_right(response, expected), "{response:?} is not read as {expected}");
        }
        for (response, expected) in [
            ("Not Paris but Lyon", "Paris"),
            ("Some say Paris. It is Lyon.", "Paris"),
            ("It is not Paris, I think", "Paris"),
            ("No.", "yes"),
            ("\\boxed{(3,4)}", "(4,3)"),
        ] {
            assert!(!is_right(response, expected), "{response:?} is read as {expected}");
        }
    }

    /// Random texts made of parts that the rules look for.
    #[test]
    fn no_text_panics() {
        const PARTS: [&str; 32] = [
            "\\boxed{",
            "}",
            "{",
            "####",
            "the answer is",
            "Answer:",
            "\\frac",
            "\\text{",
            "1",
            "23",
            ",456",
            ".5",
            "-",
            "/",
            "%",
            " ",
            "\n",
            "e3",
            "× 10^{",
            "10^",
            "million",
            "½",
            "é",
            "\u{2212}",
            "(B)",
            "B.",
            "$",
            "**",
            "=",
            "twenty",
            "hundred",
            "\\",
        ];
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..4_000 {
            let text: String = (0..next(12)).map(|_| PARTS[next(PARTS.len())]).collect();
            for expected in ["12", "B", "1/2", "Paris", text.as_str()] {
                is_right(&text, expected);
            }
        }
        let long = "\\text{\\frac".repeat(10_000);
        assert!(!is_right(&long, "7") && is_right(&(long + " 7"), "7"));
    }

    #[test]
    fn a_prompt_without_answer_is_an_error() {
        let error = ExactAnswer.score(&Prompt::new("p7", "?"), "1").unwrap_err();
        assert_eq!(error.to_string(), "prompt `p7` has no `answer`, which scorer `exact-answer` needs");
    }
}
