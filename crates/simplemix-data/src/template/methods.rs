//! Methods of Python's `str`, `list` and `dict` that a template may call. What is not here, and what would change a list or
//! a dictionary, which Jinja's sandbox forbids, is an unknown method.

use minijinja::value::Tuple;
use minijinja::{Error, ErrorKind, State, Value};

use super::budget;
use super::python_format::str_format;
use super::python_text::{is_printable, text};
use super::text_methods as texts;
use super::values::{Kind, Method, View, bind, items, kind, refuse};

/// Calls a method of a value.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match kind(value) {
        Kind::Str => {
            if value.is_safe() && ESCAPING.contains(&method) {
                return Err(refuse(format!("`{method}` of a text that is marked as safe")));
            }
            let text = value.as_str().unwrap_or_default();
            budget::read(state, text)?;
            args.iter().filter_map(Value::as_str).try_for_each(|arg| budget::read(state, arg))?;
            let found = of_text(state, text, method, args)?;
            let found = budget::made(state, found)?;
            // A method of a text that is marked as safe gives such a text again.
            Ok(match found.as_str() {
                Some(text) if value.is_safe() => Value::from_safe_string(text.to_owned()),
                _ => found,
            })
        }
        Kind::Dict => of_dict(value, method, args),
        Kind::List | Kind::Tuple | Kind::Range => of_list(state, value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Methods with which a text that is marked as safe escapes its arguments.
const ESCAPING: [&str; 10] =
    ["center", "format", "join", "ljust", "partition", "replace", "rjust", "rpartition", "rsplit", "split"];

/// Attributes of Python's numbers.
const OF_NUMBERS: [&str; 4] = ["denominator", "imag", "numerator", "real"];

/// Names of all methods of `str`, `list`, `tuple` and `dict`, by kind.
fn names(of: Kind) -> &'static [&'static str] {
    match of {
        Kind::Dict => {
            &["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"]
        }
        Kind::List => {
            &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"]
        }
        Kind::Tuple | Kind::Range => &["count", "index"],
        Kind::Str => &[
            "capitalize",
            "casefold",
            "center",
            "count",
            "encode",
            "endswith",
            "expandtabs",
            "find",
            "format",
            "format_map",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "isidentifier",
            "islower",
            "isnumeric",
            "isprintable",
            "isspace",
            "istitle",
            "isupper",
            "join",
            "ljust",
            "lower",
            "lstrip",
            "maketrans",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rjust",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "translate",
            "upper",
            "zfill",
        ],
        _ => &[],
    }
}

/// Whether any kind has a method of this name.
pub(super) fn is_method(name: &str) -> bool {
    [Kind::Dict, Kind::List, Kind::Str].into_iter().any(|of| names(of).contains(&name)) || OF_NUMBERS.contains(&name)
}

/// `value.name` without a call, where `name` is a method of some kind: the method, else the item.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    if names(kind(value)).contains(&name) {
        return Ok(Value::from_object(Method));
    }
    if matches!(kind(value), Kind::Int | Kind::Float | Kind::Bool) && OF_NUMBERS.contains(&name) {
        return Err(refuse(format!("the attribute `{name}` of a number")));
    }
    value.get_attr(name)
}

fn of_dict(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "keys" | "values" | "items" | "copy" => {
            let [] = bind(args, [])?;
            match method {
                "keys" => View::keys(value),
                "values" => View::values(value),
                "items" => View::items(value),
                _ => Ok(value.clone()),
            }
        }
        "get" => {
            let [key, default] = bind(args, ["", " "])?;
            let key = key.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            if matches!(kind(&key), Kind::List | Kind::Dict) {
                return Err(refuse("get: a list or dictionary cannot be a key"));
            }
            let found = value.as_object().and_then(|object| object.get_value(&key));
            Ok(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_list(state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "count" => {
            let [wanted] = required(bind(args, [""])?)?;
            Ok(items(state, value)?.into_iter().filter(|item| *item == wanted).count().into())
        }
        "index" => {
            let [wanted, start, stop] = bind(args, ["", " ", "  "])?;
            let wanted = wanted.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let all = items(state, value)?;
            let (from, to) = texts::span(all.len(), start.as_ref(), stop.as_ref())?;
            let found = (from..to).find(|at| all[*at] == wanted);
            found.map(Value::from).ok_or_else(|| refuse("index: the value is not in the list"))
        }
        "copy" if kind(value) == Kind::List => {
            let [] = bind(args, [])?;
            Ok(Value::from(items(state, value)?))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn required<const N: usize>(args: [Option<Value>; N]) -> Result<[Value; N], Error> {
    if args.iter().any(Option::is_none) {
        return Err(Error::from(ErrorKind::MissingArgument));
    }
    Ok(args.map(Option::unwrap_or_default))
}

fn of_text(state: &mut State<'_, '_>, s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(mapped) = texts::mapped(s, method) {
        let [] = bind(args, [])?;
        return Ok(mapped);
    }
    match method {
        "isprintable" => {
            let [] = bind(args, [])?;
            Ok(s.chars().all(is_printable).into())
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(args, [""])?;
            texts::strip(s, method, chars.as_ref()).map(Value::from)
        }
        "split" | "rsplit" => {
            let [separator, most] = bind(args, ["sep", "maxsplit"])?;
            texts::split(s, method == "rsplit", separator.as_ref(), most.as_ref())
        }
        "splitlines" => {
            let [keep] = bind(args, ["keepends"])?;
            Ok(texts::lines(s, keep.is_some_and(|keep| keep.is_true())).into_iter().map(Value::from).collect())
        }
        "partition" | "rpartition" => {
            let [separator] = required(bind(args, [""])?)?;
            let parts = texts::partition(s, method == "rpartition", texts::word(&separator)?)?;
            Ok(Value::from(Tuple::from(parts.map(Value::from).to_vec())))
        }
        "removeprefix" | "removesuffix" => {
            let [part] = required(bind(args, [""])?)?;
            let part = texts::word(&part)?;
            let cut = if method == "removeprefix" { s.strip_prefix(part) } else { s.strip_suffix(part) };
            Ok(cut.unwrap_or(s).into())
        }
        "replace" => {
            // Before Python 3.13, the number has no name.
            let [old, new, count] = bind(args, ["", " ", "  "])?;
            let [old, new] = required([old, new])?;
            let count = count.map_or(Ok(-1), |count| texts::integer(&count))?;
            texts::replace(s, texts::word(&old)?, texts::word(&new)?, count).map(Value::from)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => texts::search(s, method, &bind(args, ["", " ", "  "])?),
        "startswith" | "endswith" => texts::affix(s, method == "startswith", &bind(args, ["", " ", "  "])?),
        "center" | "ljust" | "rjust" => {
            let [width, fill] = bind(args, ["", " "])?;
            let [width] = required([width])?;
            texts::justify(s, method, texts::integer(&width)?, fill.as_ref()).map(Value::from)
        }
        "zfill" => {
            let [width] = required(bind(args, [""])?)?;
            texts::zfill(s, texts::integer(&width)?).map(Value::from)
        }
        "expandtabs" => {
            let [size] = bind(args, ["tabsize"])?;
            texts::expand_tabs(s, size.map_or(Ok(8), |size| texts::integer(&size))?).map(Value::from)
        }
        "join" => {
            let [values] = required(bind(args, [""])?)?;
            let words = items(state, &values)?;
            if words.iter().any(|word| kind(word) != Kind::Str) {
                return Err(refuse("join: an item is not a text"));
            }
            let words: Vec<String> = words.iter().map(text).collect::<Result<_, _>>()?;
            budget::fits("join", words.iter().map(|word| word.len() + s.len()).sum())?;
            Ok(words.join(s).into())
        }
        "format" => str_format(s, args).map(Value::from),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}
