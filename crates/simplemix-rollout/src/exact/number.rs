//! Values of the numbers in a plain text.

use std::ops::Range;

/// A number, and whether it is followed by a percent sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    number: f64,
    percent: bool,
}

impl Value {
    /// Whether two values are equal up to rounding. If only one of them has a percent sign, `50%` equals both `0.5` and `50`:
    /// the right answer to a question for a percentage is often the number alone.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
        let share = |value: &Self| if value.percent { value.number / 100.0 } else { value.number };
        same(share(self), share(other)) || self.percent != other.percent && same(self.number, other.number)
    }
}

/// All numbers in order, with their ranges of bytes.
pub(super) fn numbers(text: &str) -> Vec<(Value, Range<usize>)> {
    let indices: Vec<(usize, char)> = text.char_indices().collect();
    let chars: Vec<char> = indices.iter().map(|(_, c)| *c).collect();
    let byte = |at: usize| indices.get(at).map_or(text.len(), |(byte, _)| *byte);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        match number(&chars, at) {
            Some((value, end)) => {
                if !is_exponent(&chars, at) {
                    found.push((value, byte(at)..byte(end)));
                }
                at = end;
            }
            None => at += 1,
        }
    }
    found
}

/// Whether an exponent starts at `at`, as in `15 m^2`.
fn is_exponent(chars: &[char], at: usize) -> bool {
    matches!(&chars[..at], [.., '^'] | [.., '^', '{'])
}

/// Number that starts at `at`, with its end.
fn number(chars: &[char], at: usize) -> Option<(Value, usize)> {
    let before = at.checked_sub(1).and_then(|i| chars.get(i)).copied();
    let negative = chars[at] == '-' && !before.is_some_and(|c| c.is_alphanumeric() || c == ')' || c == '-');
    if chars[at] == '.' && before.is_some_and(|c| c.is_ascii_digit()) {
        return None;
    }
    let start = currency(chars, at + usize::from(negative));
    // A minus sign may be before or after the currency sign: `-$4`, `$-4`.
    let inner = !negative && start > at && chars.get(start) == Some(&'-');
    let start = start + usize::from(inner);
    let (mut number, mut end) = decimal(chars, start)?;
    if let Some((above, below, after)) = fraction_after(chars, end) {
        // Mixed number, as in `1 1/2`.
        (number, end) = (number + above / below, after);
    } else if let Some((below, after)) = below(chars, end) {
        (number, end) = (number / below, after);
    }
    (number, end) = scaled(chars, number, end);
    let (percent, end) = percent(chars, end);
    Some((Value { number: if negative || inner { -number } else { number }, percent }, end))
}

/// Index after a currency sign, if there is one at `at`.
fn currency(chars: &[char], at: usize) -> usize {
    at + usize::from(matches!(chars.get(at), Some('$' | '€' | '£' | '¥')))
}

/// Number of digits from `from` on.
fn digits(chars: &[char], from: usize) -> usize {
    chars[from.min(chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count()
}

/// Digits with commas between groups of three, and decimals after a point.
fn decimal(chars: &[char], start: usize) -> Option<(f64, usize)> {
    let mut end = start + digits(chars, start);
    let bare_point = end == start && chars.get(start) == Some(&'.') && digits(chars, start + 1) > 0;
    if end == start && !bare_point {
        return None;
    }
    let mut text: String = chars[start..end].iter().collect();
    while !text.is_empty() && end - start <= 40 && chars.get(end) == Some(&',') && digits(chars, end + 1) == 3 {
        text.extend(&chars[end + 1..end + 4]);
        end += 4;
    }
    if chars.get(end) == Some(&'.') && digits(chars, end + 1) > 0 {
        let after = end + 1 + digits(chars, end + 1);
        text.extend(&chars[end..after]);
        end = after;
    }
    text.parse().ok().map(|value| (value, end))
}

/// Denominator directly after a number, as in `3/4`.
fn below(chars: &[char], at: usize) -> Option<(f64, usize)> {
    let (below, end) = (chars.get(at) == Some(&'/')).then(|| decimal(chars, at + 1))??;
    (below != 0.0).then_some((below, end))
}

/// Fraction after a whole number and a space, as in `1 1/2`.
fn fraction_after(chars: &[char], at: usize) -> Option<(f64, f64, usize)> {
    let start = at + usize::from(chars.get(at) == Some(&' '));
    if start == at {
        return None;
    }
    let count = digits(chars, start);
    let above: f64 = chars[start..start + count].iter().collect::<String>().parse().ok()?;
    let (below, end) = below(chars, start + count)?;
    (above < below).then_some((above, below, end))
}

/// `number` times a factor after it: `e3`, `×10^4`, or a word such as million.
fn scaled(chars: &[char], number: f64, end: usize) -> (f64, usize) {
    if matches!(chars.get(end), Some('e' | 'E')) {
        let sign = usize::from(matches!(chars.get(end + 1), Some('+' | '-')));
        let count = digits(chars, end + 1 + sign);
        let after = end + 1 + sign + count;
        if (1..=3).contains(&count) && !chars.get(after).is_some_and(|c| c.is_alphanumeric()) {
            let power: String = chars[end + 1..after].iter().collect();
            return (number * power.parse().map_or(1.0, |power: i32| 10f64.powi(power)), after);
        }
    }
    let rest: String = chars[end.min(chars.len())..].iter().take(24).collect();
    let trimmed = rest.trim_start();
    if let Some(power) = trimmed.strip_prefix(['×', '*', 'x', '·']).map(str::trim_start)
        && let Some(power) = power.strip_prefix("10^")
    {
        let power: String =
            power.trim_start_matches('{').chars().take_while(|c| *c == '-' || c.is_ascii_digit()).collect();
        let written = rest.find("10^").map_or(0, |at| rest[..at].chars().count() + 3);
        let braces = if rest.contains("10^{") { 2 } else { 0 };
        if let Ok(exponent) = power.parse::<i32>() {
            return (number * 10f64.powi(exponent), end + written + power.len() + braces);
        }
    }
    for (word, factor) in [("thousand", 1e3), ("million", 1e6), ("billion", 1e9), ("trillion", 1e12)] {
        if let Some(after) = trimmed.strip_prefix(word).filter(|_| trimmed.len() < rest.len())
            && !after.starts_with(char::is_alphanumeric)
        {
            return (number * factor, end + rest.chars().count() - after.chars().count());
        }
    }
    (number, end)
}

/// Whether a percent sign follows, as `%`, ` %`, ` percent` or ` per cent`, and the index after it.
fn percent(chars: &[char], end: usize) -> (bool, usize) {
    let rest: String = chars[end.min(chars.len())..].iter().take(10).collect();
    for sign in ["%", " %", " percent", " per cent"] {
        if rest.starts_with(sign) {
            return (true, end + sign.len());
        }
    }
    (false, end)
}

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// Last number in words, below a million, as in `one hundred and five`.
pub(super) fn in_words(text: &str) -> Option<Value> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    let is_part = |word: &&str| small(word).is_some() || ["hundred", "thousand", "and"].contains(word);
    let end = words.iter().rposition(|word| is_part(word) && *word != "and")? + 1;
    let start = words[..end].iter().rposition(|word| !is_part(word)).map_or(0, |at| at + 1);
    let (mut sum, mut group) = (0.0, None);
    for word in &words[start..end] {
        match (*word, small(word)) {
            (_, Some(value)) => group = Some(group.unwrap_or(0.0) + value),
            ("hundred", _) => group = Some(group.unwrap_or(1.0) * 100.0),
            ("thousand", _) => {
                sum += group.unwrap_or(1.0) * 1000.0;
                group = None;
            }
            _ => {}
        }
    }
    Some(Value { number: sum + group.unwrap_or(0.0), percent: false })
}

fn small(word: &str) -> Option<f64> {
    let unit = UNITS.iter().position(|unit| *unit == word).map(|at| at as f64);
    unit.or_else(|| TENS.iter().position(|ten| *ten == word).map(|at| 20.0 + 10.0 * at as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<f64> {
        numbers(text).iter().map(|(value, _)| value.number).collect()
    }

    #[test]
    fn a_difference_is_not_a_negative_number() {
        assert_eq!(values("5-3"), [5.0, 3.0]);
        assert_eq!(values("= -3"), [-3.0]);
        assert_eq!(values("1/0"), [1.0, 0.0]);
    }

    #[test]
    fn forms_of_numbers() {
        for (text, expected) in [
            ("1,234,567.5", vec![1_234_567.5]),
            ("1,23", vec![1.0, 23.0]),
            (".5", vec![0.5]),
            ("3 1/2", vec![3.5]),
            ("3 12/5", vec![3.0, 2.4]),
            ("2e3 and 2e", vec![2000.0, 2.0]),
            ("1.2 × 10^{-3} m", vec![1.2e-3]),
            ("3x10^4", vec![3e4]),
            ("3 x 4", vec![3.0, 4.0]),
            ("5 millionaires", vec![5.0]),
            ("$-4", vec![-4.0]),
            ("7.8.9", vec![7.8, 9.0]),
            ("15 m^2, 3 m^{-1}", vec![15.0, 3.0]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
        let long = "9".repeat(400);
        assert!(values(&long)[0].is_infinite());
    }

    #[test]
    fn words_are_numbers() {
        for (text, expected) in [
            ("twenty-one", 21.0),
            ("one hundred and five", 105.0),
            ("two thousand three hundred", 2300.0),
            ("so, nine apples", 9.0),
        ] {
            assert_eq!(in_words(text).map(|value| value.number), Some(expected), "{text}");
        }
        assert_eq!(in_words("no number and none"), None);
    }
}
