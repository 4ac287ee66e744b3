//! Which part of a response holds its answer.

use super::number::{Value, in_words, numbers};
use super::text::{capital_alone, normal};

/// Words after which an answer stands, in lower case. The last one in a text decides.
const MARKS: [&str; 6] =
    ["answer is", "answer:", "answer would be", "answer =", "correct option is", "correct choice is"];

/// The part that holds the answer.
pub(super) enum Found<'a> {
    /// What a mark points at.
    Marked(&'a str),
    /// The whole text.
    Unmarked(&'a str),
}

/// Looks for the mark that decides, from the clearest on.
pub(super) fn answer_in(text: &str) -> Found<'_> {
    if let Some(at) = text.rfind("\\boxed{") {
        return Found::Marked(braced(&text[at + "\\boxed{".len()..]));
    }
    if let Some(at) = text.rfind("####") {
        return Found::Marked(text[at + 4..].lines().next().unwrap_or_default());
    }
    // ASCII folding keeps byte positions.
    let lower = text.to_ascii_lowercase();
    let after = |mark: &&str| lower.rfind(*mark).map(|at| at + mark.len());
    match MARKS.iter().filter_map(after).max().map(|at| sentence(&text[at..])) {
        Some(answer) if !answer.trim().is_empty() => Found::Marked(answer),
        _ => Found::Unmarked(text),
    }
}

/// Text up to the brace that closes one opened before it; nothing if none does.
fn braced(text: &str) -> &str {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, c)| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    end.map(|(at, _)| &text[..at]).unwrap_or_default()
}

/// Up to the end of the sentence or of the line; lines that are empty before it are passed over.
fn sentence(text: &str) -> &str {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':');
    let ends = |&(at, c): &(usize, char)| match c {
        '\n' | ';' => true,
        '.' | '!' | '?' => text[at + 1..].chars().next().is_none_or(char::is_whitespace),
        _ => false,
    };
    text.char_indices().find(ends).map_or(text, |(at, _)| &text[..at])
}

/// What follows the last end of a sentence but the one that ends the text.
fn last_sentence(text: &str) -> &str {
    let text = text.trim_end().trim_end_matches(['.', '!', '?']);
    let end = ["\n", ". ", "! ", "? "].iter().filter_map(|end| text.rfind(end).map(|at| at + end.len())).max();
    &text[end.unwrap_or(0)..]
}

impl Found<'_> {
    /// The number that is the answer: of a marked part the one after the last `=`, else the first; of a whole text the
    /// last. Numbers in words count where there are no others.
    pub(super) fn value(&self) -> Option<Value> {
        match self {
            Self::Marked(part) => {
                let result = part.rsplit_once('=').map(|(_, result)| result).unwrap_or(part);
                let first = |part: &str| numbers(part).first().map(|(value, _)| *value);
                first(result).or_else(|| first(part)).or_else(|| in_words(part))
            }
            Self::Unmarked(text) => numbers(text).last().map(|(value, _)| *value).or_else(|| in_words(text)),
        }
    }

    /// The letter that is the answer, as a capital.
    pub(super) fn letter(&self) -> Option<char> {
        match self {
            Self::Marked(part) => capital_alone(part),
            Self::Unmarked(text) => {
                let text = text.trim();
                let mut start = text.trim_start_matches('(').chars();
                let first = start.next().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase());
                match start.next() {
                    None | Some(')' | '.' | ':' | ',' | '\n') if first.is_some() => first,
                    _ => in_parentheses(text).or_else(|| last_word_letter(text)),
                }
            }
        }
    }

    /// Whether the words of the right answer are here: all that is marked, or the beginning of it; of a whole text the
    /// end, or a first word such as `yes`.
    pub(super) fn holds_words(&self, expected: &str) -> bool {
        let expected = normal(expected);
        let begins = |text: &str| {
            text.strip_prefix(expected.as_str())
                .is_some_and(|rest| rest.chars().next().is_none_or(|c| !c.is_alphanumeric()))
        };
        let ends = |text: &str| {
            text.strip_suffix(expected.as_str())
                .is_some_and(|rest| rest.chars().next_back().is_none_or(|c| !c.is_alphanumeric()))
        };
        match self {
            Self::Marked(part) => begins(&normal(part)),
            Self::Unmarked(text) => {
                let whole = normal(text);
                let verdict = ["yes", "no", "true", "false"].contains(&expected.as_str());
                // `It is Paris, the city of light.`
                let mut clauses = last_sentence(text).split(", ");
                let affirmed = |clause: &str| !["not ", "n't ", "never "].iter().any(|no| clause.contains(no));
                ends(&whole)
                    || verdict && begins(&whole)
                    || clauses.any(|clause| affirmed(clause) && ends(&normal(clause)))
            }
        }
    }
}

/// The letter of the last `(B)`.
fn in_parentheses(text: &str) -> Option<char> {
    let chars: Vec<char> = text.chars().collect();
    let of = |part: &[char]| match part {
        ['(', letter, ')'] if letter.is_ascii_alphabetic() => Some(letter.to_ascii_uppercase()),
        _ => None,
    };
    chars.windows(3).rev().find_map(of)
}

/// The capital that a text ends in, as a word of its own: `so it must be B.`
fn last_word_letter(text: &str) -> Option<char> {
    let word = text.trim_end_matches(|c: char| !c.is_alphanumeric()).split_whitespace().next_back()?;
    let mut chars = word.chars().filter(|c| c.is_alphanumeric());
    let letter = chars.next().filter(char::is_ascii_uppercase)?;
    chars.next().is_none().then_some(letter)
}
