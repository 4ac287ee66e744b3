//! Jinja2's tests, where those of `minijinja` differ.

use std::cmp::Ordering;

use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};

use super::budget;
use super::operators::{contains, modulo, order};
use super::python_text::text;
use super::text_methods;
use super::values::{Kind, Method, kind, refuse};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_test("boolean", |value: &Value| kind(value) == Kind::Bool);
    environment.add_test("callable", is_callable);
    environment
        .add_test("divisibleby", |state: &State<'_, '_>, value: &Value, by: &Value| rest_is(state, value, by, 0));
    environment.add_test("even", |state: &State<'_, '_>, value: &Value| rest_is(state, value, &2.into(), 0));
    environment.add_test("odd", |state: &State<'_, '_>, value: &Value| rest_is(state, value, &2.into(), 1));
    environment.add_test("escaped", |value: &Value| value.is_safe());
    environment.add_test("in", |state: &State<'_, '_>, value: &Value, all: &Value| {
        budget::weigh(state, value)?;
        budget::weigh(state, all)?;
        contains(state, all, value)
    });
    environment.add_test("integer", |value: &Value| kind(value) == Kind::Int);
    environment.add_test("float", |value: &Value| kind(value) == Kind::Float);
    environment.add_test("iterable", is_iterable);
    environment.add_test("mapping", |value: &Value| kind(value) == Kind::Dict);
    environment.add_test("number", |value: &Value| matches!(kind(value), Kind::Int | Kind::Float | Kind::Bool));
    environment.add_test("sequence", is_sequence);
    environment.add_test("string", |value: &Value| kind(value) == Kind::Str);
    environment.add_test("lower", |value: &Value| has_case(value, "islower"));
    environment.add_test("upper", |value: &Value| has_case(value, "isupper"));
    for (names, holds) in ORDERS {
        for name in names {
            environment.add_test(*name, move |state: &State<'_, '_>, value: &Value, than: &Value| {
                budget::weigh(state, value)?;
                budget::weigh(state, than)?;
                order(state, value, than).map(|order| order.is_some_and(holds))
            });
        }
    }
}

type Holds = fn(Ordering) -> bool;

const ORDERS: [(&[&str], Holds); 4] = [
    (&[">", "gt", "greaterthan"], Ordering::is_gt),
    (&[">=", "ge"], Ordering::is_ge),
    (&["<", "lt", "lessthan"], Ordering::is_lt),
    (&["<=", "le"], Ordering::is_le),
];

fn rest_is(state: &State<'_, '_>, value: &Value, by: &Value, rest: i64) -> Result<bool, Error> {
    if kind(value) == Kind::Undefined {
        return Err(refuse("the value is undefined"));
    }
    Ok(modulo(state, value, by)? == Value::from(rest))
}

/// None is not iterable in Jinja2; `minijinja` iterates over it as over an empty list.
fn is_iterable(value: &Value) -> bool {
    !matches!(kind(value), Kind::None | Kind::Bool | Kind::Int | Kind::Float | Kind::Other)
}

/// Whether a value has a length and items by place or key.
fn is_sequence(value: &Value) -> bool {
    matches!(kind(value), Kind::Str | Kind::List | Kind::Tuple | Kind::Dict | Kind::Range | Kind::Undefined)
}

fn is_callable(value: Rest<Value>) -> bool {
    value.first().is_some_and(|value| {
        value.downcast_object_ref::<Method>().is_some()
            || kind(value) == Kind::Undefined
            || kind(value) == Kind::Other && !value.is_undefined()
    })
}

fn has_case(value: &Value, method: &str) -> Result<bool, Error> {
    Ok(text_methods::mapped(&text(value)?, method).is_some_and(|found| found.is_true()))
}
