//! Jinja2's filters of texts.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, State, Value};

use super::budget;
use super::filters::given;
use super::markup::escaped;
use super::python_format::percent;
use super::python_text::{self, repr, text};
use super::text_methods as methods;
use super::values::{Kind, bind, items, kind, pairs, refuse};

type Found = Result<Value, Error>;

/// A filter that maps a text to a text and keeps its mark.
fn mapped(args: &[Value], of: impl FnOnce(&str) -> String) -> Found {
    let [value] = bind(args, ["s"])?;
    let value = python_text::string(&given(value)?)?;
    Ok(marked(of(value.as_str().unwrap_or_default()), value.is_safe()))
}

fn marked(text: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(text) } else { Value::from(text) }
}

pub(super) fn upper(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    mapped(args, str::to_uppercase)
}

pub(super) fn lower(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    mapped(args, str::to_lowercase)
}

pub(super) fn capitalize(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    mapped(args, methods::capitalized)
}

/// Jinja's own rule: a word begins after white space, a hyphen or an opening bracket.
pub(super) fn title(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["s"])?;
    let value = text(&given(value)?)?;
    let mut titled = String::with_capacity(value.len());
    let mut begins = true;
    let is_break = |c: char| methods::is_space(c) || "-({[<".contains(c);
    for word in value.split_inclusive(is_break) {
        let (word, end) = match word.chars().next_back().filter(|c| is_break(*c)) {
            Some(end) => word.split_at(word.len() - end.len_utf8()),
            None => (word, ""),
        };
        match word.chars().next().filter(|_| begins) {
            Some(first) => {
                titled.extend(first.to_uppercase());
                titled.push_str(&word[first.len_utf8()..].to_lowercase());
            }
            None => titled.push_str(&word.to_lowercase()),
        }
        begins = !end.is_empty();
        titled.push_str(end);
    }
    Ok(titled.into())
}

pub(super) fn trim(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value, chars] = bind(args, ["value", "chars"])?;
    let value = python_text::string(&given(value)?)?;
    let trimmed = methods::strip(value.as_str().unwrap_or_default(), "strip", chars.as_ref())?;
    Ok(marked(trimmed.to_owned(), value.is_safe()))
}

pub(super) fn center(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value, width] = bind(args, ["value", "width"])?;
    let width = width.map_or(Ok(80), |width| methods::integer(&width))?;
    methods::justify(&text(&given(value)?)?, "center", width, None).map(Value::from)
}

pub(super) fn string(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["object"])?;
    python_text::string(&value.unwrap_or_default())
}

pub(super) fn safe(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["value"])?;
    text(&value.unwrap_or_default()).map(Value::from_safe_string)
}

pub(super) fn escape(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["s"])?;
    let value = value.unwrap_or_default();
    if value.is_safe() {
        return Ok(value);
    }
    Ok(Value::from_safe_string(escaped(&text(&value)?)))
}

pub(super) fn force_escape(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["value"])?;
    Ok(Value::from_safe_string(escaped(&text(&value.unwrap_or_default())?)))
}

pub(super) fn format(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let (positional, keywords): (&[Value], Kwargs) = from_args(args)?;
    let (pattern, rest) = positional.split_first().ok_or_else(|| refuse("format: expected a text"))?;
    let names: Vec<String> = keywords.args().map(str::to_owned).collect();
    let pattern = python_text::string(pattern)?;
    if !names.is_empty() && !rest.is_empty() || pattern.is_safe() {
        return Err(refuse("format: expected a plain text, and arguments with or without names"));
    }
    let value = match names.is_empty() {
        true => Value::from(minijinja::value::Tuple::from(rest.to_vec())),
        false => {
            let entry = |name: &String| Ok((name.clone(), keywords.get::<Value>(name)?));
            Value::from_pairs(names.iter().map(entry).collect::<Result<Vec<_>, Error>>()?)
        }
    };
    percent(pattern.as_str().unwrap_or_default(), &value).map(Value::from)
}

pub(super) fn replace(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value, old, new, count] = bind(args, ["s", "old", "new", "count"])?;
    let count = count.filter(|count| !count.is_none()).map_or(Ok(-1), |count| methods::integer(&count))?;
    methods::replace(&text(&given(value)?)?, &text(&given(old)?)?, &text(&given(new)?)?, count).map(Value::from)
}

pub(super) fn indent(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value, width, first, blank] = bind(args, ["s", "width", "first", "blank"])?;
    let value = given(value)?;
    let plain = value.as_str().ok_or_else(|| refuse("indent: expected a text"))?;
    let indent = match &width {
        Some(width) if kind(width) == Kind::Str => width.as_str().unwrap_or_default().to_owned(),
        width => {
            let width = width.as_ref().map_or(Ok(4), methods::integer)?;
            methods::justify("", "ljust", width, None)?
        }
    };
    let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let with_end = format!("{plain}\n");
    let lines = methods::lines(&with_end, false);
    budget::fits("indent", lines.len().saturating_mul(indent.len()))?;
    let mut out = if first { indent.clone() } else { String::new() };
    for (number, line) in lines.into_iter().enumerate() {
        if number > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indent);
            }
        }
        out.push_str(line);
    }
    Ok(marked(out, value.is_safe()))
}

pub(super) fn truncate(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value, length, kill, end, leeway] = bind(args, ["s", "length", "killwords", "end", "leeway"])?;
    let value = value.unwrap_or_default();
    let number = |value: Option<Value>, default: usize| match value.filter(|value| !value.is_none()) {
        None => Ok(default),
        Some(value) => usize::try_from(methods::integer(&value)?).map_err(|_| refuse("truncate: a negative number")),
    };
    let end = end.map_or_else(|| Ok("...".to_owned()), |end| methods::word(&end).map(str::to_owned))?;
    let (length, leeway, end_length) = (number(length, 255)?, number(leeway, 5)?, end.chars().count());
    let Some(kept) = length.checked_sub(end_length) else {
        return Err(refuse("truncate: the length is less than that of the end"));
    };
    let Some(plain) = value.as_str() else {
        // Python slices what has a length; what is short comes back as it is.
        let short = matches!(kind(&value), Kind::Undefined | Kind::List | Kind::Tuple | Kind::Dict)
            && value.len().unwrap_or(0) <= length + leeway;
        return if short { Ok(value) } else { Err(refuse("truncate: expected a text")) };
    };
    let chars: Vec<char> = plain.chars().collect();
    if chars.len() <= length + leeway {
        return Ok(value);
    }
    let start: String = chars[..kept].iter().collect();
    let start = match kill.is_some_and(|kill| kill.is_true()) {
        true => start.as_str(),
        false => start.rsplit_once(' ').map_or(start.as_str(), |(words, _)| words),
    };
    Ok(marked(format!("{start}{end}"), value.is_safe()))
}

pub(super) fn word_count(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["s"])?;
    let value = text(&given(value)?)?;
    Ok(value.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count().into())
}

/// `pprint.pformat`, where it is the same as `repr`: short, and without dictionaries, whose keys it sorts.
pub(super) fn pprint(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["value"])?;
    let value = value.unwrap_or_default();
    let shown = repr(&value)?;
    if shown.len() > 76 || shown.contains(['{', '\n']) {
        return Err(refuse("pprint: the value is too long, or a dictionary"));
    }
    Ok(shown.into())
}

pub(super) fn strip_tags(_: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["value"])?;
    let mut rest = text(&value.unwrap_or_default())?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else { break };
            rest.replace_range(start..start + end + close.len(), "");
        }
    }
    let words: Vec<&str> = rest.split(methods::is_space).filter(|word| !word.is_empty()).collect();
    unescaped(&words.join(" ")).map(Value::from)
}

/// `html.unescape` for the entities that `markupsafe` writes.
fn unescaped(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&quot;", "\"")];
        match known.iter().find(|(entity, _)| rest.starts_with(entity)) {
            Some((entity, c)) => {
                out.push_str(c);
                rest = &rest[entity.len()..];
            }
            // `html.unescape` knows two thousand names, some without a semicolon.
            None if rest[1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '#') => {
                return Err(refuse("striptags: an HTML entity that is not known here"));
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    Ok(out + rest)
}

pub(super) fn url_encode(state: &mut State<'_, '_>, args: &[Value]) -> Found {
    let [value] = bind(args, ["value"])?;
    let value = value.unwrap_or_default();
    let entries = match kind(&value) {
        Kind::Dict => pairs(&value)?,
        Kind::List | Kind::Tuple | Kind::View | Kind::Generator | Kind::Range => {
            let two = |item: Value| match items(state, &item)?.as_slice() {
                [key, value] => Ok((key.clone(), value.clone())),
                _ => Err(refuse("urlencode: expected pairs")),
            };
            items(state, &value)?.into_iter().map(two).collect::<Result<_, _>>()?
        }
        Kind::Undefined => Vec::new(),
        _ => return Ok(quoted(&text(&value)?, "/").into()),
    };
    let entry = |(key, value): (Value, Value)| {
        let part = |value: &Value| Ok::<_, Error>(quoted(&text(value)?, "").replace("%20", "+"));
        Ok(format!("{}={}", part(&key)?, part(&value)?))
    };
    Ok(entries.into_iter().map(entry).collect::<Result<Vec<_>, Error>>()?.join("&").into())
}

/// `urllib.parse.quote(text, safe)`
fn quoted(text: &str, safe: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        match c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) {
            true => out.push(c),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
