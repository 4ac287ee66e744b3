//! Values of Python that `minijinja` has no kind for: generators, dictionary views, ranges and methods without a call.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// An error of a template's own making.
pub(super) fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Items that can be taken once, such as those of the filter `map`.
#[derive(Debug)]
pub(super) struct Generator(Mutex<VecDeque<Value>>);

impl Generator {
    pub(super) fn of(items: impl IntoIterator<Item = Value>) -> Value {
        Value::from_object(Self(Mutex::new(items.into_iter().collect())))
    }

    /// Items that have not been taken.
    pub(super) fn left(&self) -> Vec<Value> {
        self.0.lock().map_or_else(|_| Vec::new(), |items| items.iter().cloned().collect())
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(Taken(self.clone())))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

struct Taken(Arc<Generator>);

impl Iterator for Taken {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.0.lock().ok()?.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.0.lock().map_or(0, |items| items.len());
        (left, Some(left))
    }
}

/// Result of `keys()`, `values()` and `items()` of a dictionary.
#[derive(Debug)]
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl View {
    pub(super) fn keys(map: &Value) -> Result<Value, Error> {
        Ok(Value::from_object(Self { name: "dict_keys", items: map.try_iter()?.collect() }))
    }

    pub(super) fn values(map: &Value) -> Result<Value, Error> {
        let items = pairs(map)?.into_iter().map(|(_, value)| value).collect();
        Ok(Value::from_object(Self { name: "dict_values", items }))
    }

    pub(super) fn items(map: &Value) -> Result<Value, Error> {
        let pair = |(key, value)| Value::from(Tuple::from(vec![key, value]));
        Ok(Value::from_object(Self { name: "dict_items", items: pairs(map)?.into_iter().map(pair).collect() }))
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }
}

/// Keys and values of a map, in order.
pub(super) fn pairs(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    map.try_iter()?.map(|key| Ok((key.clone(), map.get_item(&key)?))).collect()
}

/// `range(start, stop, step)`.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    pub(super) step: i64,
}

/// Longest range of Jinja's sandbox.
const MAX_RANGE: usize = 100_000;

impl Range {
    pub(super) fn function(args: &[Value]) -> Result<Value, Error> {
        let number = |value: &Value| match value.kind() {
            ValueKind::Bool => Ok(i64::from(value.is_true())),
            _ if value.is_integer() => i64::try_from(value.clone()),
            _ => Err(refuse("range: expected integers")),
        };
        let range = match args {
            [stop] => Self { start: 0, stop: number(stop)?, step: 1 },
            [start, stop] => Self { start: number(start)?, stop: number(stop)?, step: 1 },
            [start, stop, step] => Self { start: number(start)?, stop: number(stop)?, step: number(step)? },
            _ => return Err(refuse("range: expected one to three integers")),
        };
        if range.step == 0 || range.len() > MAX_RANGE {
            return Err(refuse(format!("range: expected a step that is not 0 and at most {MAX_RANGE} numbers")));
        }
        Ok(Value::from_object(range))
    }

    fn len(&self) -> usize {
        let (distance, step) = match self.step > 0 {
            true => (i128::from(self.stop) - i128::from(self.start), i128::from(self.step)),
            false => (i128::from(self.start) - i128::from(self.stop), -i128::from(self.step)),
        };
        usize::try_from(distance.max(0).div_euclid(step.max(1)) + i128::from(distance.max(0) % step.max(1) > 0))
            .unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_usize().filter(|index| *index < self.len())?;
        Some((self.start + index as i64 * self.step).into())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len())
    }
}

/// A group of the filter `groupby`: a tuple whose items have names too.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) grouper: Value,
    pub(super) list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (None, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (None, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// A method that is named without being called.
#[derive(Debug)]
pub(super) struct Method;

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// Kinds of values as Python has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    Generator,
    View,
    Range,
    /// Macros, loops, namespaces, methods and bytes.
    Other,
}

pub(super) fn kind(value: &Value) -> Kind {
    match value.kind() {
        ValueKind::Undefined => Kind::Undefined,
        ValueKind::None => Kind::None,
        ValueKind::Bool => Kind::Bool,
        ValueKind::Number if value.is_integer() => Kind::Int,
        ValueKind::Number => Kind::Float,
        ValueKind::String => Kind::Str,
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => Kind::Tuple,
        ValueKind::Seq | ValueKind::Iterable => match () {
            () if value.downcast_object_ref::<Generator>().is_some() => Kind::Generator,
            () if value.downcast_object_ref::<View>().is_some() => Kind::View,
            () if value.downcast_object_ref::<Range>().is_some() => Kind::Range,
            () if value.downcast_object_ref::<Group>().is_some() => Kind::Tuple,
            () => Kind::List,
        },
        ValueKind::Map if is_loop_or_macro(value) => Kind::Other,
        ValueKind::Map => Kind::Dict,
        _ => Kind::Other,
    }
}

/// Whether a map is `loop` or a macro, which `minijinja` shows as maps of these keys.
fn is_loop_or_macro(value: &Value) -> bool {
    let has = |name: &str| value.get_attr(name).is_ok_and(|found| !found.is_undefined());
    match value.len() {
        Some(11) => has("revindex0") && has("depth0"),
        Some(3) => has("name") && has("arguments") && has("caller"),
        _ => false,
    }
}

/// Binds arguments to the names of parameters as Python does.
pub(super) fn bind<const N: usize>(args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (given, keywords): (&[Value], Kwargs) = from_args(args)?;
    if given.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut bound = [const { None }; N];
    for (place, name) in names.iter().enumerate() {
        bound[place] = match (given.get(place), keywords.get::<Option<Value>>(name)?) {
            (Some(value), None) => Some(value.clone()),
            (None, value) => value,
            (Some(_), Some(_)) => return Err(refuse(format!("the argument `{name}` is given twice"))),
        };
    }
    keywords.assert_all_used()?;
    Ok(bound)
}

/// All items of a value that Python can iterate over.
pub(super) fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    match kind(value) {
        Kind::Undefined => Ok(Vec::new()),
        Kind::Str => Ok(value.as_str().unwrap_or_default().chars().map(|c| Value::from(c.to_string())).collect()),
        Kind::List | Kind::Tuple | Kind::Dict | Kind::Generator | Kind::View | Kind::Range => {
            // The filter charges fuel for every item.
            minijinja::filters::list(state, value.clone())?.try_iter()?.checked().collect()
        }
        _ => Err(refuse(format!("a value of kind {} cannot be iterated over", value.kind()))),
    }
}
