//! Fuel for work that the engine does not see: a template is untrusted, and a few lists that hold a list twice are larger than
//! any memory.
//!
//! Three rules together bound time, memory and the depth of the stack. A text costs by its bytes when it is read and when it is
//! made. A value whose parts are all looked at (compared, sorted, printed, written as JSON) costs by its parts first. A value
//! that outlives its expression, by `set`, is weighed, and must not be nested deeply.

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::values::{Generator, Kind, View, kind, pairs, refuse};

/// Deepest nesting of a value that a variable holds.
const MAX_DEPTH: usize = 128;
/// Bytes that one unit of fuel pays for, as in `minijinja`.
const BYTES: usize = 64;
/// Longest text that one call makes, in bytes.
const MAX_TEXT: usize = 64 << 20;

/// Charges for a text that is read.
pub(super) fn read(state: &State<'_, '_>, text: &str) -> Result<(), Error> {
    state.consume_fuel((text.len() / BYTES) as u64)
}

/// Charges for a result that is a text.
pub(super) fn made(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        read(state, text)?;
    }
    Ok(value)
}

/// Refuses a text of more than 64 MiB that `by` would make.
pub(super) fn fits(by: &str, bytes: usize) -> Result<(), Error> {
    if bytes > MAX_TEXT { Err(refuse(format!("{by}: the text would be too long"))) } else { Ok(()) }
}

/// Charges for all parts of a value and the bytes of its texts.
pub(super) fn weigh(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    Scale { state, with_texts: true }.put(value, 0)
}

/// The value of a variable. Charges for its parts.
pub(super) fn kept(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    Scale { state, with_texts: false }.put(&value, 0)?;
    Ok(value)
}

struct Scale<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    with_texts: bool,
}

impl Scale<'_, '_, '_> {
    fn put(&self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refuse(format!("a value that is nested more than {MAX_DEPTH} deep")));
        }
        self.state.consume_fuel(1)?;
        match kind(value) {
            Kind::Str if self.with_texts => read(self.state, value.as_str().unwrap_or_default()),
            Kind::List | Kind::Tuple => self.all(value.try_iter()?, depth),
            Kind::Dict => self.all(pairs(value)?.into_iter().flat_map(|(key, value)| [key, value]), depth),
            Kind::View => {
                let view = value.downcast_object_ref::<View>();
                self.all(view.into_iter().flat_map(|view| view.items.iter().cloned()), depth)
            }
            Kind::Generator => {
                let left = value.downcast_object_ref::<Generator>().map(Generator::left);
                self.all(left.into_iter().flatten(), depth)
            }
            // A namespace.
            Kind::Other if value.kind() == ValueKind::Map => {
                let items = value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>, _>>()?;
                self.all(items.into_iter(), depth)
            }
            _ => Ok(()),
        }
    }

    fn all(&self, mut parts: impl Iterator<Item = Value>, depth: usize) -> Result<(), Error> {
        parts.try_for_each(|part| self.put(&part, depth + 1))
    }
}
