//! Methods of Python's `str`. Places and lengths are in characters.

use minijinja::{Error, Value};
use unicode_categories::UnicodeCategories;

use super::budget;
use super::values::{Kind, kind, refuse};

/// Longest text that padding makes.
const MAX_WIDTH: usize = 1 << 20;

/// The text of an argument.
pub(super) fn word(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| refuse(format!("a value of kind {}, expected a text", value.kind())))
}

/// The integer of an argument.
pub(super) fn integer(value: &Value) -> Result<i64, Error> {
    match kind(value) {
        Kind::Bool => Ok(value.is_true().into()),
        Kind::Int => i64::try_from(value.clone()),
        _ => Err(refuse(format!("a value of kind {}, expected an integer", value.kind()))),
    }
}

/// Start and end of a slice of `length` items.
pub(super) fn span(length: usize, start: Option<&Value>, stop: Option<&Value>) -> Result<(usize, usize), Error> {
    let place = |value: Option<&Value>, default: usize| match value.filter(|value| !value.is_none()) {
        None => Ok(default),
        Some(value) => {
            let at = integer(value)?;
            let at = if at < 0 { at.saturating_add(length as i64).max(0) } else { at };
            Ok::<usize, Error>(usize::try_from(at).unwrap_or(usize::MAX))
        }
    };
    let (start, stop) = (place(start, 0)?, place(stop, length)?.min(length));
    Ok((start, stop))
}

/// White space as `str.isspace` has it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Methods without arguments.
pub(super) fn mapped(s: &str, method: &str) -> Option<Value> {
    let all = |test: fn(char) -> bool| Value::from(!s.is_empty() && s.chars().all(test));
    let cased =
        |is: fn(char) -> bool, is_not: fn(char) -> bool| Value::from(s.chars().any(is) && !s.chars().any(is_not));
    Some(match method {
        "upper" => s.to_uppercase().into(),
        "lower" => s.to_lowercase().into(),
        "casefold" => s.chars().map(folded).collect::<String>().into(),
        "swapcase" => swapped(s).into(),
        "title" => title(s, char::is_alphabetic).into(),
        "capitalize" => capitalized(s).into(),
        "isspace" => all(is_space),
        "isalpha" => all(is_letter),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isnumeric" => all(is_numeric),
        "isalnum" => all(|c| is_letter(c) || is_numeric(c)),
        "isascii" => s.is_ascii().into(),
        "islower" => cased(char::is_lowercase, |c| c.is_uppercase() || c.is_letter_titlecase()),
        "isupper" => cased(char::is_uppercase, |c| c.is_lowercase() || c.is_letter_titlecase()),
        "istitle" => is_title(s).into(),
        "isidentifier" => {
            let starts = s.chars().next().is_some_and(|c| c == '_' || is_letter(c));
            (starts && s.chars().all(|c| c == '_' || is_letter(c) || is_decimal(c) || c.is_mark())).into()
        }
        _ => return None,
    })
}

fn is_letter(c: char) -> bool {
    c.is_letter() || c.is_alphabetic() && !c.is_mark() && !c.is_number_letter() && !c.is_symbol()
}

fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || c.is_number_decimal_digit()
}

/// Digits that are no decimals: superscripts, subscripts, and digits in circles and the like.
const OTHER_DIGITS: [(char, char); 16] = [
    ('²', '³'),
    ('¹', '¹'),
    ('\u{1369}', '\u{1371}'),
    ('\u{19da}', '\u{19da}'),
    ('⁰', '⁰'),
    ('⁴', '⁹'),
    ('₀', '₉'),
    ('①', '⑨'),
    ('⑴', '⑼'),
    ('⒈', '⒐'),
    ('⓪', '⓪'),
    ('⓵', '⓽'),
    ('⓿', '⓿'),
    ('❶', '❾'),
    ('➀', '➈'),
    ('➊', '➒'),
];

fn is_digit(c: char) -> bool {
    is_decimal(c) || OTHER_DIGITS.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Ideographs that are numbers.
const NUMERALS: &str =
    "〇一七万三九二五亖亿什仟仨伍佰億兆八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零";

fn is_numeric(c: char) -> bool {
    c.is_numeric() || NUMERALS.contains(c)
}

/// Full case folding; the only letter whose folding is not that of its capital is the dotless i.
fn folded(c: char) -> String {
    if c == 'ı' { c.to_string() } else { c.to_uppercase().flat_map(char::to_lowercase).collect() }
}

fn swapped(s: &str) -> String {
    // A final sigma depends on its neighbours, so capitals are made small in their text.
    let small =
        |c: char| if c.is_uppercase() { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() };
    s.chars().map(small).collect()
}

/// Title case of one letter: its capital, or of two letters in one the first as a capital.
fn title_letter(c: char) -> String {
    match c {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".to_owned(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".to_owned(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".to_owned(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".to_owned(),
        c => {
            let mut upper = c.to_uppercase();
            let first = upper.next().into_iter();
            let is_letter_first = first.clone().all(char::is_uppercase);
            first
                .chain(upper.flat_map(|c| if is_letter_first { c.to_lowercase().collect() } else { vec![c] }))
                .collect()
        }
    }
}

/// `str.title`: a letter is a capital if the character before it has no case.
pub(super) fn title(s: &str, has_case: fn(char) -> bool) -> String {
    let mut titled = String::with_capacity(s.len());
    let mut inside = false;
    for (at, c) in s.char_indices() {
        match inside {
            true => titled.push_str(&small_at(s, at, c)),
            false => titled.push_str(&title_letter(c)),
        }
        inside = has_case(c) && (c.is_lowercase() || c.is_uppercase() || c.is_letter_titlecase());
    }
    titled
}

/// A character in lower case; a sigma at the end of a word has a form of its own.
fn small_at(s: &str, at: usize, c: char) -> String {
    let ends_word = s[at + c.len_utf8()..].chars().next().is_none_or(|next| !next.is_alphabetic());
    if c == 'Σ' && ends_word { "ς".to_owned() } else { c.to_lowercase().collect() }
}

pub(super) fn capitalized(s: &str) -> String {
    let mut chars = s.chars();
    match chars.next() {
        Some(first) => title_letter(first) + &s[first.len_utf8()..].to_lowercase(),
        None => String::new(),
    }
}

fn is_title(s: &str) -> bool {
    let (mut inside, mut found) = (false, false);
    for c in s.chars() {
        if c.is_uppercase() || c.is_letter_titlecase() {
            if inside {
                return false;
            }
            (inside, found) = (true, true);
        } else if c.is_lowercase() {
            if !inside {
                return false;
            }
        } else {
            inside = false;
        }
    }
    found
}

/// `strip`, `lstrip` and `rstrip`.
pub(super) fn strip<'a>(s: &'a str, method: &str, chars: Option<&Value>) -> Result<&'a str, Error> {
    let set = chars.filter(|chars| !chars.is_none()).map(word).transpose()?;
    let cut = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    Ok(match method {
        "lstrip" => s.trim_start_matches(cut),
        "rstrip" => s.trim_end_matches(cut),
        _ => s.trim_matches(cut),
    })
}

/// `split` and `rsplit`.
pub(super) fn split(s: &str, from_end: bool, separator: Option<&Value>, most: Option<&Value>) -> Result<Value, Error> {
    let most = most.map_or(Ok(-1), integer)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Vec<&str> = match separator.filter(|separator| !separator.is_none()) {
        None => split_at_space(s, from_end, most),
        Some(separator) => {
            let separator = word(separator)?;
            if separator.is_empty() {
                return Err(refuse("split: the separator is empty"));
            }
            let parts = most.saturating_add(1);
            match from_end {
                false => s.splitn(parts, separator).collect(),
                true => {
                    let mut parts: Vec<&str> = s.rsplitn(parts, separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn split_at_space(s: &str, from_end: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s.trim_matches(is_space);
    while !rest.is_empty() {
        let cut = match from_end {
            _ if parts.len() == most => None,
            false => rest.find(is_space).map(|at| (&rest[..at], rest[at..].trim_start_matches(is_space))),
            true => rest.rfind(is_space).map(|at| {
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                (&rest[at + width..], rest[..at].trim_end_matches(is_space))
            }),
        };
        match cut {
            Some((part, more)) => {
                parts.push(part);
                rest = more;
            }
            None => {
                // The rest keeps the white space at the end at which no cut was made.
                let kept = match from_end {
                    false if parts.len() == most => &s[rest.as_ptr() as usize - s.as_ptr() as usize..],
                    true if parts.len() == most => &s[..rest.as_ptr() as usize - s.as_ptr() as usize + rest.len()],
                    _ => rest,
                };
                parts.push(kept);
                rest = "";
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// `str.splitlines`.
pub(super) fn lines(s: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let Some(at) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let end = match rest[at..].starts_with("\r\n") {
            true => at + 2,
            false => at + rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep_ends { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

/// `partition` and `rpartition`.
pub(super) fn partition<'a>(s: &'a str, from_end: bool, separator: &'a str) -> Result<[&'a str; 3], Error> {
    if separator.is_empty() {
        return Err(refuse("partition: the separator is empty"));
    }
    let cut = if from_end { s.rsplit_once(separator) } else { s.split_once(separator) };
    Ok(match cut {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", s],
        None => [s, "", ""],
    })
}

pub(super) fn replace(s: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let times = usize::try_from(count).unwrap_or(usize::MAX);
    budget::fits("replace", new.len().saturating_mul(s.len().min(times)))?;
    Ok(s.replacen(old, new, times))
}

/// `find`, `rfind`, `index`, `rindex` and `count`.
pub(super) fn search(s: &str, method: &str, [wanted, start, stop]: &[Option<Value>; 3]) -> Result<Value, Error> {
    let wanted = word(wanted.as_ref().ok_or_else(|| refuse("expected a text to look for"))?)?;
    let length = s.chars().count();
    let (from, to) = span(length, start.as_ref(), stop.as_ref())?;
    if from > to {
        return if method.ends_with("index") {
            Err(refuse("the text was not found"))
        } else {
            Ok(if method == "count" { 0 } else { -1 }.into())
        };
    }
    let part = slice(s, from, to);
    let found = match method {
        // An empty text is before and after every character.
        "count" if wanted.is_empty() => return Ok((to - from + 1).into()),
        "count" => return Ok(part.matches(wanted).count().into()),
        "rfind" | "rindex" => part.rfind(wanted),
        _ => part.find(wanted),
    };
    match found {
        Some(at) => Ok((from + part[..at].chars().count()).into()),
        None if method.ends_with("index") => Err(refuse("the text was not found")),
        None => Ok((-1).into()),
    }
}

/// The characters from `start` to `stop`.
fn slice(s: &str, start: usize, stop: usize) -> &str {
    let place = |at: usize| s.char_indices().nth(at).map_or(s.len(), |(byte, _)| byte);
    &s[place(start)..place(stop)]
}

/// `startswith` and `endswith`, for one text or a tuple of them.
pub(super) fn affix(s: &str, at_start: bool, [wanted, start, stop]: &[Option<Value>; 3]) -> Result<Value, Error> {
    let wanted = wanted.as_ref().ok_or_else(|| refuse("expected a text to look for"))?;
    let words: Vec<Value> = match kind(wanted) {
        Kind::Str => vec![wanted.clone()],
        Kind::Tuple => wanted.try_iter()?.collect(),
        _ => return Err(refuse("expected a text or a tuple of texts")),
    };
    let length = s.chars().count();
    let (from, to) = span(length, start.as_ref(), stop.as_ref())?;
    let part = if from > to { None } else { Some(slice(s, from, to)) };
    let mut found = false;
    for word_value in &words {
        let word = word(word_value)?;
        found |= part.is_some_and(|part| if at_start { part.starts_with(word) } else { part.ends_with(word) });
    }
    Ok(found.into())
}

/// `center`, `ljust` and `rjust`.
pub(super) fn justify(s: &str, method: &str, width: i64, fill: Option<&Value>) -> Result<String, Error> {
    let fill = fill.map_or(Ok(" "), word)?;
    if fill.chars().count() != 1 {
        return Err(refuse("the fill character is not one character"));
    }
    let length = s.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(refuse("the width is too large"));
    }
    let missing = width.saturating_sub(length);
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // The extra character of an odd margin is on the left if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(fill.repeat(left) + s + &fill.repeat(missing - left))
}

pub(super) fn zfill(s: &str, width: i64) -> Result<String, Error> {
    let padded = |rest: &str, width: i64| justify(rest, "rjust", width, Some(&Value::from("0")));
    match s.chars().next().filter(|sign| matches!(sign, '+' | '-')) {
        Some(sign) => Ok(format!("{sign}{}", padded(&s[1..], width - 1)?)),
        None => padded(s, width),
    }
}

pub(super) fn expand_tabs(s: &str, size: i64) -> Result<String, Error> {
    let size = usize::try_from(size).unwrap_or(0);
    if size > 1024 {
        return Err(refuse("expandtabs: the tab size is too large"));
    }
    let (mut text, mut column) = (String::with_capacity(s.len()), 0);
    for c in s.chars() {
        match c {
            '\t' if size > 0 => {
                let missing = size - column % size;
                text.extend(std::iter::repeat_n(' ', missing));
                column += missing;
            }
            '\t' => {}
            '\n' | '\r' => {
                text.push(c);
                column = 0;
            }
            c => {
                text.push(c);
                column += 1;
            }
        }
    }
    Ok(text)
}
