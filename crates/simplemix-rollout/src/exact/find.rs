//! Search for the part of a response that states its result.

use super::number::{Value, in_words, numbers};
use super::text::{capital_alone, normal};

/// Words before a result, in lower case. The last occurrence in a text decides.
const MARKS: [&str; 6] =
    ["answer is", "answer:", "answer would be", "answer =", "correct option is", "correct choice is"];

/// Part of a text that states the result.
pub(super) enum Found<'a> {
    /// Text after a mark.
    Marked(&'a str),
    /// Whole text, if there is no mark.
    Unmarked(&'a str),
}

/// Finds the result of a text. Marks are tried from the clearest on.
pub(super) fn result_in(text: &str) -> Found<'_> {
    if let Some(at) = text.rfind("\\boxed{") {
        return Found::Marked(braced(&text[at + "\\boxed{".len()..]));
    }
    if let Some(at) = text.rfind("####") {
        return Found::Marked(text[at + 4..].lines().next().unwrap_or(""));
    }
    // ASCII folding keeps byte positions.
    let lower = text.to_ascii_lowercase();
    let after = |mark: &&str| lower.rfind(*mark).map(|at| at + mark.len());
    match MARKS.iter().filter_map(after).max().map(|at| sentence(&text[at..])) {
        Some(result) if !result.trim().is_empty() => Found::Marked(result),
        _ => Found::Unmarked(text),
    }
}

/// Text up to the closing brace of a group that is already open; empty if it is never closed.
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
    end.map_or("", |(at, _)| &text[..at])
}

/// First sentence or line, without white space and colons before it.
fn sentence(text: &str) -> &str {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':');
    let ends = |&(at, c): &(usize, char)| match c {
        '\n' | ';' => true,
        '.' | '!' | '?' => text[at + 1..].chars().next().is_none_or(char::is_whitespace),
        _ => false,
    };
    text.char_indices().find(ends).map_or(text, |(at, _)| &text[..at])
}

/// Last sentence of a text.
fn last_sentence(text: &str) -> &str {
    let text = text.trim_end().trim_end_matches(['.', '!', '?']);
    let end = ["\n", ". ", "! ", "? "].iter().filter_map(|end| text.rfind(end).map(|at| at + end.len())).max();
    &text[end.unwrap_or(0)..]
}

impl Found<'_> {
    /// Number that is the result: in a marked part the one after the last `=`, otherwise the first; in a whole text the last
    /// one. Numbers in words are used if there are no digits.
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

    /// Letter that is the result, as a capital.
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

    /// Whether the result is the words `expected`: a marked part must begin with them; a whole text or one of the clauses of
    /// its last sentence must end with them, or it must begin with them if they are a verdict such as `yes`.
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
                // As in `It is Paris, the city of light.`
                let mut clauses = last_sentence(text).split(", ");
                let affirmed = |clause: &str| !["not ", "n't ", "never "].iter().any(|no| clause.contains(no));
                ends(&whole)
                    || verdict && begins(&whole)
                    || clauses.any(|clause| affirmed(clause) && ends(&normal(clause)))
            }
        }
    }
}

/// Letter of the last `(B)`.
fn in_parentheses(text: &str) -> Option<char> {
    let chars: Vec<char> = text.chars().collect();
    let of = |part: &[char]| match part {
        ['(', letter, ')'] if letter.is_ascii_alphabetic() => Some(letter.to_ascii_uppercase()),
        _ => None,
    };
    chars.windows(3).rev().find_map(of)
}

/// Capital that is the last word of a text, as in `so it must be B.`
fn last_word_letter(text: &str) -> Option<char> {
    let word = text.trim_end_matches(|c: char| !c.is_alphanumeric()).split_whitespace().next_back()?;
    let mut chars = word.chars().filter(|c| c.is_alphanumeric());
    let letter = chars.next().filter(char::is_ascii_uppercase)?;
    chars.next().is_none().then_some(letter)
}
