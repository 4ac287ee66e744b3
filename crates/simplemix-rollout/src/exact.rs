//! Exact answers: the number or letter that a text ends on, compared by value.
//!
//! Where an answer is marked, the mark decides: `\boxed{}`, GSM8K's `####`, "the answer is". Else the last number
//! counts. `1,234`, `1234.0` and `$1234` are one value, as are `1/2`, `0.5` and `50%`.

use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::scorer::Scorer;

/// Scores 1 where the response's answer equals the prompt's, else 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExactAnswer;

impl Scorer for ExactAnswer {
    fn name(&self) -> &str {
        "exact-answer"
    }

    fn score(&self, prompt: &Prompt, response: &str) -> Result<f64> {
        let missing = || Error::Prompt { id: prompt.id.clone(), field: "answer", scorer: self.name().to_owned() };
        let expected = prompt.answer.as_deref().ok_or_else(missing)?;
        Ok(f64::from(u8::from(is_right(response, expected))))
    }
}

/// Whether the answer in `response` is `expected`.
///
/// ```
/// use simplemix_rollout::is_right;
/// assert!(is_right("7 + 5 makes 12, so Anna has 12 apples.", "12"));
/// assert!(is_right("That is \\boxed{1,250.00}.", "1250"));
/// assert!(!is_right("It is 13, not 12 as some say; 13.", "12"));
/// assert!(is_right("The answer is (B).", "b"));
/// ```
pub fn is_right(response: &str, expected: &str) -> bool {
    match last_number(expected) {
        Some(value) => answer_text(response).and_then(last_number).is_some_and(|found| same(found, value)),
        None => answer_text(response).is_some_and(|found| bare(found) == bare(expected)),
    }
}

/// The part of a response that holds its answer: what follows the last mark, or the whole text.
fn answer_text(response: &str) -> Option<&str> {
    if let Some(at) = response.rfind("\\boxed{") {
        return braced(&response[at + "\\boxed{".len()..]);
    }
    if let Some(at) = response.rfind("####") {
        return response[at + 4..].lines().next();
    }
    let mark = "answer is";
    // ASCII folding keeps byte positions.
    match response.to_ascii_lowercase().rfind(mark) {
        Some(at) => response[at + mark.len()..].split(['\n', ';']).next(),
        None => Some(response),
    }
}

/// Text up to the brace that closes one opened before it.
fn braced(text: &str) -> Option<&str> {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, c)| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    end.map(|(at, _)| &text[..at])
}

/// Letters and digits only, lower case: `(B).` is `b`.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Equal up to the rounding of decimals.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// Value of the last number in `text`.
fn last_number(text: &str) -> Option<f64> {
    let chars: Vec<char> = text.chars().map(plain).collect();
    let mut last = None;
    let mut at = 0;
    while at < chars.len() {
        match number(&chars, at) {
            Some((value, end)) => {
                last = Some(value);
                at = end;
            }
            None => at += 1,
        }
    }
    last
}

/// Typographic minus signs and digits as ASCII has them.
fn plain(c: char) -> char {
    match c {
        '\u{2212}' | '\u{2013}' => '-',
        '\u{ff10}'..='\u{ff19}' => char::from(b'0' + (u32::from(c) - 0xff10) as u8),
        _ => c,
    }
}

/// The number that starts at `at`, with its end: sign, digits in groups, decimals, a fraction or a per cent sign.
fn number(chars: &[char], at: usize) -> Option<(f64, usize)> {
    let before = at.checked_sub(1).and_then(|i| chars.get(i)).copied();
    let negative = chars[at] == '-' && !before.is_some_and(|c| c.is_alphanumeric() || c == ')');
    let start = if negative { currency(chars, at + 1) } else { currency(chars, at) };
    let (mut value, mut end) = decimal(chars, start)?;
    if chars.get(end) == Some(&'/')
        && let Some((below, after)) = decimal(chars, end + 1)
        && below != 0.0
    {
        (value, end) = (value / below, after);
    }
    if chars.get(end) == Some(&'%') {
        (value, end) = (value / 100.0, end + 1);
    }
    Some((if negative { -value } else { value }, end))
}

/// Steps over a currency sign.
fn currency(chars: &[char], at: usize) -> usize {
    at + usize::from(matches!(chars.get(at), Some('$' | '€' | '£')))
}

/// Digits with commas between groups of three, and decimals behind a point.
fn decimal(chars: &[char], start: usize) -> Option<(f64, usize)> {
    let digits = |from: usize| chars[from.min(chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut end = start + digits(start);
    if end == start {
        return None;
    }
    let mut text: String = chars[start..end].iter().collect();
    while text.len() <= 15 && chars.get(end) == Some(&',') && digits(end + 1) == 3 {
        text.extend(&chars[end + 1..end + 4]);
        end += 4;
    }
    if chars.get(end) == Some(&'.') && digits(end + 1) > 0 {
        let after = end + 1 + digits(end + 1);
        text.extend(&chars[end..after]);
        end = after;
    }
    text.parse().ok().map(|value| (value, end))
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
            ("1/2", "50%"),
            ("\u{2212}3", "-3"),
            ("-$4", "-4"),
            ("\\boxed{\\text{total } 42}", "42"),
            ("The answer is 8. Check: 8 - 3 = 5", "5"),
            ("First 9, then the answer is 7\nas 2 + 5 = 7, 100 % sure", "7"),
            ("5-3=2", "2"),
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
            ("A. 5", "a"),
            ("\\boxed{", "1"),
        ] {
            assert!(!is_right(response, expected), "{response:?} is read as {expected}");
        }
    }

    #[test]
    fn a_difference_is_not_a_negative_number() {
        assert_eq!(last_number("5-3"), Some(3.0));
        assert_eq!(last_number("= -3"), Some(-3.0));
        assert_eq!(last_number("1/0"), Some(0.0));
    }

    #[test]
    fn a_prompt_without_answer_is_an_error() {
        let prompt = Prompt { id: "p7".into(), prompt: "?".into(), task: None, answer: None };
        let error = ExactAnswer.score(&prompt, "1").unwrap_err();
        assert_eq!(error.to_string(), "prompt `p7`: no `answer`, which scorer `exact-answer` needs");
    }
}
