//! `%` formatting and `str.format`. Numbers are laid out by `minijinja`; here, arguments are matched with conversions, and
//! every other value becomes its text first.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, Value};

use super::python_text::{repr, text};
use super::values::{Kind, kind, refuse};

/// `pattern % value`
pub(super) fn percent(pattern: &str, value: &Value) -> Result<String, Error> {
    match kind(value) {
        Kind::Tuple => {
            let args: Vec<Value> = value.try_iter()?.collect();
            printf(pattern, &args, None)
        }
        Kind::Dict => printf(pattern, std::slice::from_ref(value), Some(value)),
        // Python takes a list for a mapping, of which nothing need be used.
        Kind::List | Kind::Range if !pattern.replace("%%", "").contains('%') => Ok(pattern.replace("%%", "%")),
        _ => printf(pattern, std::slice::from_ref(value), None),
    }
}

/// `pattern % args`, where `mapping` is the only argument if it is one.
fn printf(pattern: &str, args: &[Value], mapping: Option<&Value>) -> Result<String, Error> {
    let mut written = String::new();
    let mut used = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        written.push_str(&rest[..at]);
        let spec = Spec::parse(&rest[at + 1..])?;
        rest = &rest[at + 1 + spec.length..];
        if spec.conversion == '%' {
            written.push('%');
            continue;
        }
        let mut next = || {
            used += 1;
            args.get(used - 1).cloned().ok_or_else(|| refuse("not enough arguments for the format string"))
        };
        let mut layout = spec.layout.to_owned();
        while let Some(star) = layout.find('*') {
            let width = next()?;
            layout.replace_range(star..=star, &text(&width)?);
        }
        let value = match (spec.key, mapping) {
            (Some(key), Some(mapping)) => mapping.as_object().and_then(|object| object.get_value(&Value::from(key))),
            (Some(_), None) => return Err(refuse("the format string needs a mapping")),
            (None, _) => Some(next()?),
        };
        let value = value.ok_or_else(|| refuse("the format string names a key that is not there"))?;
        written.push_str(&one(&layout, spec.conversion, &value)?);
    }
    written.push_str(rest);
    if used < args.len() && mapping.is_none() {
        return Err(refuse("not all arguments are used by the format string"));
    }
    Ok(written)
}

/// One conversion of one value.
fn one(layout: &str, conversion: char, value: &Value) -> Result<String, Error> {
    let of_kind = kind(value);
    let (conversion, value) = match conversion {
        's' => ('s', Value::from(text(value)?)),
        'r' => ('s', Value::from(repr(value)?)),
        'd' | 'i' | 'u' if of_kind == Kind::Float => ('d', Value::from(f64::try_from(value.clone())?.trunc() as i128)),
        'd' | 'i' | 'u' => ('d', value.clone()),
        other => (other, value.clone()),
    };
    if conversion != 's' && conversion != 'c' && !matches!(of_kind, Kind::Int | Kind::Float | Kind::Bool) {
        return Err(refuse(format!("%{conversion} needs a number")));
    }
    check_width(layout)?;
    format(FormatStyle::Printf, &format!("%{layout}{conversion}"), &[value])
}

/// A conversion after its `%`.
struct Spec<'a> {
    key: Option<&'a str>,
    /// Flags, width and precision.
    layout: &'a str,
    conversion: char,
    length: usize,
}

impl<'a> Spec<'a> {
    fn parse(spec: &'a str) -> Result<Self, Error> {
        let broken = || refuse("an incomplete or unknown conversion in a format string");
        let (key, start) = match spec.strip_prefix('(') {
            Some(after) => {
                let end = after.find(')').ok_or_else(broken)?;
                (Some(&after[..end]), end + 2)
            }
            None => (None, 0),
        };
        let is_layout = |c: char| "#0- +*.".contains(c) || c.is_ascii_digit();
        let end = spec[start..].find(|c| !is_layout(c)).ok_or_else(broken)? + start;
        let conversion = spec[end..].chars().next().filter(|c| "diouxXeEfFgGcsr%".contains(*c)).ok_or_else(broken)?;
        Ok(Self { key, layout: &spec[start..end], conversion, length: end + 1 })
    }
}

/// `pattern.format(args)`
pub(super) fn str_format(pattern: &str, args: &[Value]) -> Result<String, Error> {
    let (given, keywords): (&[Value], Kwargs) = from_args(args)?;
    let mut written = String::new();
    let (mut rest, mut automatic) = (pattern, 0);
    while let Some(at) = rest.find(['{', '}']) {
        written.push_str(&rest[..at]);
        if rest[at..].starts_with("{{") || rest[at..].starts_with("}}") {
            written.push_str(&rest[at..=at]);
            rest = &rest[at + 2..];
            continue;
        }
        let unmatched = || refuse("a brace without its pair in a format string");
        let end = rest[at..].find('}').ok_or_else(unmatched)? + at;
        let field = rest[at..end].strip_prefix('{').ok_or_else(unmatched)?;
        if field.contains('{') {
            return Err(refuse("a field inside a field of a format string"));
        }
        rest = &rest[end + 1..];
        let (name, layout) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) =
            name.split_once('!').map_or((name, None), |(name, conversion)| (name, Some(conversion)));
        let value = argument(name, given, &keywords, &mut automatic)?;
        written.push_str(&field_text(&value, conversion, layout)?);
    }
    written.push_str(rest);
    Ok(written)
}

/// The value of a field such as `0`, `name`, `name[key]`, or of the next place.
fn argument(name: &str, given: &[Value], keywords: &Kwargs, automatic: &mut usize) -> Result<Value, Error> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(end);
    let missing = || refuse(format!("the format string names `{first}`, which is not given"));
    let mut value = match first.parse::<usize>() {
        Ok(place) => given.get(place).cloned().ok_or_else(missing)?,
        Err(_) if first.is_empty() => {
            *automatic += 1;
            given.get(*automatic - 1).cloned().ok_or_else(missing)?
        }
        Err(_) => keywords.get::<Option<Value>>(first)?.ok_or_else(missing)?,
    };
    while let Some(after) = path.strip_prefix('[') {
        let (key, more) = after.split_once(']').ok_or_else(missing)?;
        let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
        value = value.get_item(&key)?;
        if value.is_undefined() {
            return Err(missing());
        }
        path = more;
    }
    // Attributes of objects are Python's own.
    if path.is_empty() { Ok(value) } else { Err(missing()) }
}

fn field_text(value: &Value, conversion: Option<&str>, layout: &str) -> Result<String, Error> {
    let value = match (conversion, kind(value)) {
        (Some("r"), _) => Value::from(repr(value)?),
        (Some("s"), _) => Value::from(text(value)?),
        (Some(_), _) => return Err(refuse("an unknown conversion in a format string")),
        (None, Kind::Int | Kind::Float | Kind::Bool | Kind::Str) => value.clone(),
        (None, _) if layout.is_empty() => Value::from(text(value)?),
        (None, other) => return Err(refuse(format!("a value of kind {other:?} has no layout `{layout}`"))),
    };
    if layout.is_empty() {
        return text(&value);
    }
    check_width(layout)?;
    format(FormatStyle::StrFormat, &format!("{{:{layout}}}"), &[value])
}

/// Refuses a width or precision above a mebibyte.
fn check_width(layout: &str) -> Result<(), Error> {
    let mut numbers = layout.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    match numbers.all(|digits| digits.parse::<usize>().is_ok_and(|width| width <= 1 << 20)) {
        true => Ok(()),
        false => Err(refuse("a width that is too large in a format string")),
    }
}
