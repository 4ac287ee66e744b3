//! Jinja2's filters of lists, dictionaries and numbers, where those of `minijinja` differ.

use minijinja::value::{Rest, Tuple, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::budget;
use super::number_filters as numbers;
use super::operators::{add, order};
use super::text_filters as texts;
use super::values::{Generator, Group, Kind, bind, items, kind, pairs, refuse};

type Call = fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>;

/// Filters by name; the first argument is the value.
const FILTERS: [(&str, Call); 44] = [
    ("abs", numbers::abs),
    ("batch", batch),
    ("capitalize", texts::capitalize),
    ("center", texts::center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("e", texts::escape),
    ("escape", texts::escape),
    ("filesizeformat", numbers::file_size),
    ("float", numbers::float),
    ("forceescape", texts::force_escape),
    ("format", texts::format),
    ("groupby", groupby),
    ("indent", texts::indent),
    ("int", numbers::int),
    ("items", dict_items),
    ("last", last),
    ("join", join),
    ("length", length),
    ("list", list),
    ("lower", texts::lower),
    ("map", map),
    ("max", |state, args| extreme(state, args, std::cmp::Ordering::Greater)),
    ("min", |state, args| extreme(state, args, std::cmp::Ordering::Less)),
    ("pprint", texts::pprint),
    ("reject", |state, args| filtered(state, args, false, false)),
    ("rejectattr", |state, args| filtered(state, args, true, false)),
    ("replace", texts::replace),
    ("reverse", reverse),
    ("round", numbers::round),
    ("safe", texts::safe),
    ("select", |state, args| filtered(state, args, false, true)),
    ("selectattr", |state, args| filtered(state, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("string", texts::string),
    ("striptags", texts::strip_tags),
    ("sum", sum),
    ("title", texts::title),
    ("trim", texts::trim),
    ("unique", unique),
    ("upper", texts::upper),
];

/// More filters of texts.
const TEXT_FILTERS: [(&str, Call); 3] =
    [("truncate", texts::truncate), ("urlencode", texts::url_encode), ("wordcount", texts::word_count)];

/// Filters that look at every part of their arguments, however deep.
const LOOK_AT_ALL: [&str; 14] = [
    "dictsort",
    "e",
    "escape",
    "forceescape",
    "groupby",
    "join",
    "max",
    "min",
    "pprint",
    "sort",
    "string",
    "trim",
    "unique",
    "urlencode",
];

pub(super) fn add_to(environment: &mut Environment<'static>) {
    for (name, call) in FILTERS.into_iter().chain(TEXT_FILTERS) {
        let looks_at_all = LOOK_AT_ALL.contains(&name);
        let filter = move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            for arg in &args {
                if looks_at_all {
                    budget::weigh(state, arg)?;
                } else if let Some(text) = arg.as_str() {
                    budget::read(state, text)?;
                }
            }
            let value = call(state, &args)?;
            budget::made(state, value)
        };
        environment.add_filter(name, filter);
    }
    // Filters of `minijinja` that Jinja2 does not have.
    for name in ["split", "lines", "bool", "chain", "zip"] {
        environment.remove_filter(name);
    }
}

/// The value of a filter, which is always given.
pub(super) fn given(value: Option<Value>) -> Result<Value, Error> {
    value.ok_or_else(|| Error::from(ErrorKind::MissingArgument))
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

fn default(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, default, boolean] = bind(args, ["value", "default_value", "boolean"])?;
    let value = value.unwrap_or_default();
    let is_missing = value.is_undefined() || is_true(boolean.as_ref()) && !value.is_true();
    Ok(if is_missing { default.unwrap_or_else(|| Value::from("")) } else { value })
}

fn length(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["obj"])?;
    let value = value.unwrap_or_default();
    match kind(&value) {
        Kind::Undefined => Ok(0.into()),
        Kind::Str => Ok(value.as_str().unwrap_or_default().chars().count().into()),
        Kind::List | Kind::Tuple | Kind::Dict | Kind::View | Kind::Range => {
            Ok(value.len().map_or_else(|| value.try_iter().map(Iterator::count), Ok)?.into())
        }
        other => Err(refuse(format!("a value of kind {other:?} has no length"))),
    }
}

fn last(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["seq"])?;
    let value = value.unwrap_or_default();
    match kind(&value) {
        Kind::Generator => Err(refuse("last: a generator cannot be read from its end")),
        _ => minijinja::filters::last(value),
    }
}

fn list(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["value"])?;
    Ok(Value::from(items(state, &value.unwrap_or_default())?))
}

fn dict_items(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["value"])?;
    let value = value.unwrap_or_default();
    match kind(&value) {
        Kind::Undefined => Ok(Generator::of([])),
        Kind::Dict => Ok(Generator::of(pairs(&value)?.into_iter().map(pair))),
        _ => Err(refuse("items: expected a mapping")),
    }
}

fn pair((key, value): (Value, Value)) -> Value {
    Value::from(Tuple::from(vec![key, value]))
}

fn count(value: &Option<Value>) -> Result<usize, Error> {
    let count = super::text_methods::integer(value.as_ref().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?)?;
    usize::try_from(count)
        .ok()
        .filter(|count| (1..=1 << 16).contains(count))
        .ok_or_else(|| refuse("a count out of range"))
}

fn batch(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, size, fill] = bind(args, ["value", "linecount", "fill_with"])?;
    let (all, size) = (items(state, &value.unwrap_or_default())?, count(&size)?);
    let rows = all.chunks(size).map(|row| {
        let mut row = row.to_vec();
        if let Some(fill) = &fill {
            row.resize(size, fill.clone());
        }
        Value::from(row)
    });
    Ok(Generator::of(rows))
}

fn slice(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, slices, fill] = bind(args, ["value", "slices", "fill_with"])?;
    let (all, slices) = (items(state, &value.unwrap_or_default())?, count(&slices)?);
    let (size, extra) = (all.len() / slices, all.len() % slices);
    let column = |number: usize| {
        let start = number * size + number.min(extra);
        let end = start + size + usize::from(number < extra);
        let fill = fill.clone().filter(|_| number >= extra);
        Value::from(all[start..end].iter().cloned().chain(fill).collect::<Vec<_>>())
    };
    Ok(Generator::of((0..slices).map(column).collect::<Vec<_>>()))
}

fn reverse(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["value"])?;
    let value = value.unwrap_or_default();
    match kind(&value) {
        Kind::Str => Ok(value.as_str().unwrap_or_default().chars().rev().collect::<String>().into()),
        Kind::Undefined => Err(refuse("reverse: the value is undefined")),
        Kind::Generator => {
            let mut all = items(state, &value)?;
            all.reverse();
            Ok(Value::from(all))
        }
        _ => {
            let mut all = items(state, &value)?;
            all.reverse();
            Ok(Generator::of(all))
        }
    }
}

/// The attribute at a path such as `a.0.b`; undefined, or the default, if it is not there.
fn attribute(value: &Value, path: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let mut found = value.clone();
    let parts: Vec<Value> = match path.as_str() {
        Some(path) => {
            path.split('.').map(|part| part.parse::<i64>().map_or_else(|_| part.into(), Value::from)).collect()
        }
        None => vec![path.clone()],
    };
    for part in parts {
        if found.is_undefined() {
            return Err(refuse("an attribute of an undefined value"));
        }
        found = match kind(&found) {
            Kind::Dict | Kind::List | Kind::Tuple | Kind::Other | Kind::Str if part.is_integer() => {
                found.get_item(&part)?
            }
            Kind::Dict | Kind::Other | Kind::Tuple => found.get_item(&part)?,
            _ => Value::UNDEFINED,
        };
        if found.is_undefined() {
            found = default.cloned().unwrap_or_default();
        }
    }
    Ok(found)
}

/// Text in lower case, if case does not count.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => text.to_lowercase().into(),
        _ => value,
    }
}

/// Key of a value for comparing: the attribute at a path, or the value itself.
fn key(value: &Value, paths: Option<&Value>, case_sensitive: bool) -> Result<Value, Error> {
    let Some(paths) = paths.filter(|paths| !paths.is_none()) else { return Ok(folded(value.clone(), case_sensitive)) };
    Ok(folded(attribute(value, paths, None)?, case_sensitive))
}

/// Key for sorting: a list, even of one attribute, so that equal values need no order.
fn sort_key(value: &Value, paths: &Value, case_sensitive: bool) -> Result<Value, Error> {
    let Some(paths) = paths.as_str() else { return key(value, Some(paths), case_sensitive) };
    let parts = paths.split(',').map(|path| key(value, Some(&path.into()), case_sensitive));
    Ok(Value::from(parts.collect::<Result<Vec<_>, Error>>()?))
}

/// Sorts by keys, which must have an order.
fn sorted(state: &State<'_, '_>, mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        order(state, a, b)
            .unwrap_or_else(|error| {
                failed.get_or_insert(error);
                None
            })
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, value)| value).collect()),
    }
}

fn keyed(all: Vec<Value>, paths: Option<&Value>, case_sensitive: bool) -> Result<Vec<(Value, Value)>, Error> {
    all.into_iter().map(|value| Ok((key(&value, paths, case_sensitive)?, value))).collect()
}

fn sort(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, reverse, case, path] = bind(args, ["value", "reverse", "case_sensitive", "attribute"])?;
    let (all, case) = (items(state, &value.unwrap_or_default())?, is_true(case.as_ref()));
    let keyed = match path.filter(|path| !path.is_none()) {
        Some(path) => {
            all.into_iter().map(|item| Ok((sort_key(&item, &path, case)?, item))).collect::<Result<_, Error>>()?
        }
        None => keyed(all, None, case)?,
    };
    sorted(state, keyed, is_true(reverse.as_ref())).map(Value::from)
}

fn dictsort(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, case, by, reverse] = bind(args, ["value", "case_sensitive", "by", "reverse"])?;
    let value = value.unwrap_or_default();
    let place = match by.as_ref().map_or(Some("key"), |by| by.as_str()) {
        Some("key") => 0,
        Some("value") => 1,
        _ => return Err(refuse("dictsort: `by` is neither `key` nor `value`")),
    };
    if kind(&value) != Kind::Dict {
        return Err(refuse("dictsort: expected a mapping"));
    }
    let keyed = pairs(&value)?.into_iter().map(|entry| {
        let of = if place == 0 { entry.0.clone() } else { entry.1.clone() };
        (folded(of, is_true(case.as_ref())), pair(entry))
    });
    sorted(state, keyed.collect(), is_true(reverse.as_ref())).map(Value::from)
}

fn extreme(state: &mut State<'_, '_>, args: &[Value], wanted: std::cmp::Ordering) -> Result<Value, Error> {
    let [value, case, path] = bind(args, ["value", "case_sensitive", "attribute"])?;
    let mut keyed =
        keyed(items(state, &value.unwrap_or_default())?, path.as_ref(), is_true(case.as_ref()))?.into_iter();
    let Some(mut best) = keyed.next() else { return Ok(Value::UNDEFINED) };
    for next in keyed {
        if order(state, &next.0, &best.0)? == Some(wanted) {
            best = next;
        }
    }
    Ok(best.1)
}

fn unique(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, case, path] = bind(args, ["value", "case_sensitive", "attribute"])?;
    let keyed = keyed(items(state, &value.unwrap_or_default())?, path.as_ref(), is_true(case.as_ref()))?;
    let mut seen = std::collections::BTreeSet::new();
    let mut kept = Vec::new();
    for (key, value) in keyed {
        if matches!(kind(&key), Kind::List | Kind::Dict) {
            return Err(refuse("unique: a list or dictionary cannot be compared by its hash"));
        }
        if seen.insert(key) {
            kept.push(value);
        }
    }
    Ok(Generator::of(kept))
}

fn groupby(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, path, default, case] = bind(args, ["value", "attribute", "default", "case_sensitive"])?;
    let path = given(path)?;
    let of = |item: &Value| attribute(item, &path, default.as_ref());
    let case = is_true(case.as_ref());
    let all = items(state, &value.unwrap_or_default())?.into_iter();
    let keyed = all.map(|item| Ok((folded(of(&item)?, case), item))).collect::<Result<Vec<_>, Error>>()?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in sorted(state, keyed, false)? {
        let key = folded(of(&item)?, case);
        match groups.last_mut().filter(|(last, _)| *last == key) {
            Some((_, group)) => group.push(item),
            None => groups.push((key, vec![item])),
        }
    }
    let group = |(_, group): (Value, Vec<Value>)| {
        let grouper = group.first().map_or_else(|| Ok(Value::UNDEFINED), of)?;
        Ok(Value::from_object(Group { grouper, list: Value::from(group) }))
    };
    Ok(Value::from(groups.into_iter().map(group).collect::<Result<Vec<_>, Error>>()?))
}

fn sum(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, path, start] = bind(args, ["iterable", "attribute", "start"])?;
    let mut total = start.unwrap_or_else(|| 0.into());
    for item in items(state, &value.unwrap_or_default())? {
        let item = match path.as_ref().filter(|path| !path.is_none()) {
            Some(path) => attribute(&item, path, None)?,
            None => item,
        };
        if kind(&item) == Kind::Str || kind(&total) == Kind::Str {
            return Err(refuse("sum: expected numbers"));
        }
        total = add(state, &total, &item)?;
    }
    Ok(total)
}

fn join(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, between, path] = bind(args, ["value", "d", "attribute"])?;
    let between = between.as_ref().map_or(Ok(String::new()), super::python_text::text)?;
    let word = |item: Value| match path.as_ref().filter(|path| !path.is_none()) {
        Some(path) => super::python_text::text(&attribute(&item, path, None)?),
        None => super::python_text::text(&item),
    };
    let words = items(state, &value.unwrap_or_default())?.into_iter().map(word).collect::<Result<Vec<_>, _>>()?;
    budget::fits("join", words.iter().map(|word| word.len() + between.len()).sum())?;
    Ok(words.join(&between).into())
}

fn map(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let (positional, keywords): (&[Value], minijinja::value::Kwargs) = minijinja::value::from_args(args)?;
    let all = items(state, positional.first().unwrap_or(&Value::UNDEFINED))?;
    let mapped = match keywords.get::<Option<Value>>("attribute")? {
        Some(path) if positional.len() == 1 => {
            let default = keywords.get::<Option<Value>>("default")?;
            keywords.assert_all_used()?;
            all.iter().map(|item| attribute(item, &path, default.as_ref())).collect::<Result<Vec<_>, _>>()?
        }
        _ => {
            let name = positional.get(1).and_then(Value::as_str).map(str::to_owned);
            let name = name.ok_or_else(|| refuse("map: expected the name of a filter"))?;
            let rest = &args[2..];
            let call = |item: Value| state.apply_filter(&name, &[&[item], rest].concat());
            all.into_iter().map(call).collect::<Result<Vec<_>, _>>()?
        }
    };
    Ok(Generator::of(mapped))
}

/// `select`, `reject` and the same for an attribute.
fn filtered(state: &mut State<'_, '_>, args: &[Value], by_attribute: bool, keeps: bool) -> Result<Value, Error> {
    let all = items(state, args.first().unwrap_or(&Value::UNDEFINED))?;
    let mut rest = args.get(1..).unwrap_or_default();
    let path = match (by_attribute, rest.first()) {
        (true, Some(path)) => {
            rest = &rest[1..];
            Some(path.clone())
        }
        (true, None) => return Err(refuse("expected the name of an attribute")),
        (false, _) => None,
    };
    let mut kept = Vec::new();
    for item in all {
        let tested = path.as_ref().map_or_else(|| Ok(item.clone()), |path| attribute(&item, path, None))?;
        let passes = match rest.split_first() {
            None => tested.is_true(),
            Some((name, args)) => {
                let name = name.as_str().ok_or_else(|| refuse("expected the name of a test"))?.to_owned();
                state.perform_test(&name, &[&[tested], args].concat())?
            }
        };
        if passes == keeps {
            kept.push(item);
        }
    }
    Ok(Generator::of(kept))
}
