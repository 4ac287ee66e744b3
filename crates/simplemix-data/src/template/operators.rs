//! Python's operators, for those whose meaning differs in `minijinja`; [`super::rewrite`] puts calls of these functions in
//! their place.

use std::cmp::Ordering;

use minijinja::value::Tuple;
use minijinja::{Environment, Error, State, Value};

use super::budget;
use super::markup::escaped;
use super::methods;
use super::python_format::percent;
use super::python_text::text;
use super::values::{Kind, Method, items, kind, refuse};

/// Adds the functions under the names that [`super::rewrite`] uses.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("__kept", budget::kept);
    environment.add_function("__concat", concatenated);
    environment.add_function("__add", |state: &State<'_, '_>, values: minijinja::value::Rest<Value>| {
        let mut values = values.iter();
        let first = values.next().cloned().unwrap_or_default();
        values.try_fold(first, |sum, value| budget::made(state, add(state, &sum, value)?))
    });
    environment.add_function("__mod", modulo);
    environment.add_function("__mul", multiply);
    environment.add_function("__item", item);
    environment.add_function("__iter", iterated);
    environment.add_function("__sliced", sliced);
    // Macros of Jinja2 have these; here, they cannot be used.
    for name in ["varargs", "kwargs"] {
        environment.add_global(name, Value::from_object(Method));
    }
    environment.add_function("__pow", power);
    environment.add_function("__compare", compare);
    environment.add_function("__attr", |value: &Value, name: &str| methods::attribute(value, name));
}

/// `a ~ b`
fn concatenated(state: &State<'_, '_>, values: minijinja::value::Rest<Value>) -> Result<Value, Error> {
    let mut out = String::new();
    for value in values.iter() {
        if kind(value) != Kind::Str {
            budget::weigh(state, value)?;
        }
        let part = text(value)?;
        budget::fits("~", out.len() + part.len())?;
        out += &part;
    }
    budget::made(state, out.into())
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    refuse(format!("`{operator}` of values of kind {:?} and {:?}", kind(a), kind(b)))
}

/// An integer or a boolean.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match kind(value) {
        Kind::Bool => Some(value.is_true().into()),
        Kind::Int => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A number of any kind.
pub(super) fn number(value: &Value) -> Option<f64> {
    match kind(value) {
        Kind::Bool => Some(f64::from(u8::from(value.is_true()))),
        Kind::Int | Kind::Float => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn integer_value(value: Option<i128>) -> Result<Value, Error> {
    let value = value.ok_or_else(|| refuse("an integer of more than 128 bits"))?;
    Ok(i64::try_from(value).map_or_else(|_| Value::from(value), Value::from))
}

/// `a + b`; a text that is marked as safe escapes the other one.
pub(super) fn add(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    match (kind(a), kind(b)) {
        (Kind::Str, Kind::Str) => {
            let safe = a.is_safe() || b.is_safe();
            let part = |value: &Value| match value.as_str().unwrap_or_default() {
                plain if safe && !value.is_safe() => escaped(plain),
                plain => plain.to_owned(),
            };
            let (first, second) = (part(a), part(b));
            budget::fits("+", first.len() + second.len())?;
            let joined = first + &second;
            Ok(if safe { Value::from_safe_string(joined) } else { Value::from(joined) })
        }
        (Kind::List, Kind::List) => Ok(Value::from([items(state, a)?, items(state, b)?].concat())),
        (Kind::Tuple, Kind::Tuple) => Ok(Value::from(Tuple::from([items(state, a)?, items(state, b)?].concat()))),
        _ => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => integer_value(a.checked_add(b)),
            _ => match (number(a), number(b)) {
                (Some(a), Some(b)) => Ok((a + b).into()),
                _ => Err(unsupported("+", a, b)),
            },
        },
    }
}

/// `a % b`: the remainder with the sign of `b`, or a formatted text.
pub(super) fn modulo(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let Some(pattern) = a.as_str() {
        budget::weigh(state, b)?;
        // Markup escapes what it formats.
        return if a.is_safe() {
            Err(unsupported("%", a, b))
        } else {
            budget::made(state, percent(pattern, b)?.into())
        };
    }
    match (integer(a), integer(b), number(a), number(b)) {
        (.., Some(0.0)) => Err(refuse("a remainder of a division by zero")),
        (Some(a), Some(b), ..) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            integer_value(if rest != 0 && (rest < 0) != (b < 0) { rest.checked_add(b) } else { Some(rest) })
        }
        (_, _, Some(a), Some(b)) => {
            let rest = a % b;
            let rest = if rest == 0.0 { 0f64.copysign(b) } else { rest };
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }))
        }
        _ => Err(unsupported("%", a, b)),
    }
}

/// `a * b`
fn multiply(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    match (integer(a), integer(b), number(a), number(b)) {
        (Some(a), Some(b), ..) => integer_value(a.checked_mul(b)),
        (_, _, Some(a), Some(b)) => Ok((a * b).into()),
        (Some(times), None, ..) => repeated(state, b, times),
        (None, Some(times), ..) => repeated(state, a, times),
        _ => Err(unsupported("*", a, b)),
    }
}

/// Largest size of a repeated text or list.
const MAX_REPEATED: usize = 16 << 20;

fn repeated(state: &State<'_, '_>, value: &Value, times: i128) -> Result<Value, Error> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let check = |size: usize| match size.checked_mul(times).is_some_and(|size| size <= MAX_REPEATED) {
        true => Ok(()),
        false => Err(refuse("a repeated value that would be too large")),
    };
    match kind(value) {
        Kind::Str => {
            let text = value.as_str().unwrap_or_default();
            check(text.len())?;
            let text = text.repeat(times);
            budget::made(state, if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) })
        }
        of_kind @ (Kind::List | Kind::Tuple) => {
            let all = items(state, value)?;
            check(all.len())?;
            let all: Vec<Value> = std::iter::repeat_n(all, times).flatten().collect();
            Ok(if of_kind == Kind::Tuple { Value::from(Tuple::from(all)) } else { Value::from(all) })
        }
        of_kind => Err(refuse(format!("`*` of a value of kind {of_kind:?}"))),
    }
}

/// `value[key]`, where a key that cannot be one gives an undefined value.
fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    match (kind(value), kind(key)) {
        (Kind::View | Kind::Generator, _) => Ok(Value::UNDEFINED),
        (Kind::List | Kind::Tuple | Kind::Range | Kind::Str, Kind::Float) => Ok(Value::UNDEFINED),
        (_, Kind::Bool) if kind(value) != Kind::Dict => value.get_item(&Value::from(i64::from(key.is_true()))),
        _ => value.get_item(key),
    }
}

/// The value that a loop goes through; `minijinja` takes none for an empty list.
fn iterated(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::None | Kind::Bool | Kind::Int | Kind::Float => {
            Err(refuse(format!("a value of kind {:?} cannot be iterated over", kind(value))))
        }
        // A loop over a text does not know its last character.
        Kind::Str => Ok(Value::from(items(state, value)?)),
        _ => Ok(value.clone()),
    }
}

/// The value that is sliced; `minijinja` takes none and the like for empty lists.
fn sliced(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Str | Kind::List | Kind::Tuple => Ok(value.clone()),
        of_kind => Err(refuse(format!("a slice of a value of kind {of_kind:?}"))),
    }
}

/// `a == b`; views and generators equal no list.
fn equal(a: &Value, b: &Value) -> bool {
    let apart = |value: &Value| matches!(kind(value), Kind::View | Kind::Generator | Kind::Range);
    if apart(a) || apart(b) { kind(a) == kind(b) && kind(a) != Kind::Generator && a == b } else { a == b }
}

/// `a ** b`
fn power(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(base), Some(exponent @ 0..)) = (integer(a), integer(b)) {
        return integer_value(u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent)));
    }
    let (Some(x), Some(y)) = (number(a), number(b)) else { return Err(unsupported("**", a, b)) };
    let result = x.powf(y);
    let is_complex = x < 0.0 && y.fract() != 0.0;
    if is_complex || x == 0.0 && y < 0.0 || result.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(refuse("a power that is no finite real number"));
    }
    Ok(result.into())
}

/// `a < b <= c in d`: operators and values in turn, the first a value.
fn compare(state: &State<'_, '_>, parts: minijinja::value::Rest<Value>) -> Result<bool, Error> {
    for link in parts.windows(3).step_by(2) {
        let [a, operator, b] = link else { continue };
        budget::weigh(state, a)?;
        budget::weigh(state, b)?;
        let holds = match operator.as_str().unwrap_or_default() {
            "==" => equal(a, b),
            "!=" => !equal(a, b),
            "in" => contains(state, b, a)?,
            "not in" => !contains(state, b, a)?,
            "<" => order(state, a, b)? == Some(Ordering::Less),
            ">" => order(state, a, b)? == Some(Ordering::Greater),
            "<=" => matches!(order(state, a, b)?, Some(Ordering::Less | Ordering::Equal)),
            _ => matches!(order(state, a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Order of two values; `None` beside a NaN.
pub(super) fn order(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    match (kind(a), kind(b)) {
        (Kind::Str, Kind::Str) => Ok(a.as_str().partial_cmp(&b.as_str())),
        (Kind::List, Kind::List) | (Kind::Tuple, Kind::Tuple) => {
            let (a, b) = (items(state, a)?, items(state, b)?);
            for (a, b) in a.iter().zip(&b) {
                if a != b {
                    return order(state, a, b);
                }
            }
            Ok(Some(a.len().cmp(&b.len())))
        }
        _ => match (integer(a), integer(b), number(a), number(b)) {
            (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
            (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
            _ => Err(unsupported("<", a, b)),
        },
    }
}

/// `item in container`
pub(super) fn contains(state: &State<'_, '_>, container: &Value, item: &Value) -> Result<bool, Error> {
    match kind(container) {
        Kind::Str => match item.as_str() {
            Some(part) => Ok(container.as_str().unwrap_or_default().contains(part)),
            None => Err(refuse("`in` a text needs a text")),
        },
        Kind::Dict if matches!(kind(item), Kind::List | Kind::Dict) => Err(refuse("a list or dictionary is no key")),
        Kind::Dict => Ok(container.as_object().is_some_and(|object| object.get_value(item).is_some())),
        // A search takes items from a generator up to the one that it finds.
        Kind::Generator => Ok(container.try_iter()?.any(|found| found == *item)),
        _ => Ok(items(state, container)?.contains(item)),
    }
}
