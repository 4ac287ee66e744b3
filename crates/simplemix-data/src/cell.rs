//! A common view of values in Arrow arrays and in parsed JSON.
//!
//! The formats are written against this view, so each of them reads every encoding: all string, list and dictionary types
//! of Arrow, nulls, and struct fields in any order (they are found by name). Nothing is copied.

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use crate::zones::in_utc;

/// A borrowed value.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    Float(f64),
    Str(&'a str),
    List(List<'a>),
    Struct(Struct<'a>),
    /// A type that no preference format uses, such as a date.
    Other(Opaque<'a>),
}

/// A value of a type that no preference format uses.
#[derive(Clone, Copy)]
pub(crate) struct Opaque<'a> {
    array: &'a dyn Array,
    row: usize,
}

impl<'a> Opaque<'a> {
    pub(crate) fn kind(self) -> &'a DataType {
        self.array.data_type()
    }

    /// Array and row of the value.
    pub(crate) fn place(self) -> (&'a dyn Array, usize) {
        (self.array, self.row)
    }

    /// The value as Arrow shows it; `None` if Arrow cannot show the type.
    fn shown(self) -> Option<String> {
        let array = in_utc(&self.array.slice(self.row, 1));
        array_value_to_string(&array, 0).ok()
    }
}

/// A borrowed list.
#[derive(Clone, Copy)]
pub(crate) enum List<'a> {
    Arrow { values: &'a dyn Array, start: usize, end: usize },
    Json(&'a [Value]),
}

/// A borrowed struct; also a whole row.
#[derive(Clone, Copy)]
pub(crate) enum Struct<'a> {
    Arrow { array: &'a StructArray, row: usize },
    Json(&'a Map<String, Value>),
}

impl<'a> Cell<'a> {
    pub(crate) fn of_json(value: &'a Value) -> Self {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(value) => Cell::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Cell::Int(value),
                (None, Some(value)) => Cell::UInt(value),
                (None, None) => Cell::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Cell::Str(text),
            Value::Array(items) => Cell::List(List::Json(items)),
            Value::Object(fields) => Cell::Struct(Struct::Json(fields)),
        }
    }

    pub(crate) fn of_arrow(array: &'a dyn Array, row: usize) -> Self {
        if array.is_null(row) {
            return Cell::Null;
        }
        match array.data_type() {
            DataType::Utf8 => Cell::Str(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Cell::Str(array.as_string::<i64>().value(row)),
            DataType::Utf8View => Cell::Str(array.as_string_view().value(row)),
            DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
            DataType::Int8 => Cell::Int(array.as_primitive::<Int8Type>().value(row).into()),
            DataType::Int16 => Cell::Int(array.as_primitive::<Int16Type>().value(row).into()),
            DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::UInt8 => Cell::Int(array.as_primitive::<UInt8Type>().value(row).into()),
            DataType::UInt16 => Cell::Int(array.as_primitive::<UInt16Type>().value(row).into()),
            DataType::UInt32 => Cell::Int(array.as_primitive::<UInt32Type>().value(row).into()),
            DataType::UInt64 => {
                let value = array.as_primitive::<UInt64Type>().value(row);
                i64::try_from(value).map_or(Cell::UInt(value), Cell::Int)
            }
            DataType::Float16 => Cell::Float(array.as_primitive::<Float16Type>().value(row).to_f64()),
            DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
            // DuckDB and Spark write scores as decimals.
            DataType::Decimal128(_, scale) => {
                let value = array.as_primitive::<Decimal128Type>().value(row);
                Cell::Float(value as f64 / 10f64.powi(i32::from(*scale)))
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let offsets = list.value_offsets();
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                Cell::List(List::Arrow { values: list.values().as_ref(), start, end })
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let offsets = list.value_offsets();
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                Cell::List(List::Arrow { values: list.values().as_ref(), start, end })
            }
            DataType::FixedSizeList(_, _) => {
                let list = array.as_fixed_size_list();
                let start = list.value_offset_at(row);
                let end = start + list.value_length() as usize;
                Cell::List(List::Arrow { values: list.values().as_ref(), start, end })
            }
            DataType::ListView(_) => {
                let list = array.as_list_view::<i32>();
                let start = list.value_offsets()[row] as usize;
                let end = start + list.value_sizes()[row] as usize;
                Cell::List(List::Arrow { values: list.values().as_ref(), start, end })
            }
            DataType::LargeListView(_) => {
                let list = array.as_list_view::<i64>();
                let start = list.value_offsets()[row] as usize;
                let end = start + list.value_sizes()[row] as usize;
                Cell::List(List::Arrow { values: list.values().as_ref(), start, end })
            }
            DataType::Struct(_) => Cell::Struct(Struct::Arrow { array: array.as_struct(), row }),
            DataType::Dictionary(key, _) => match key.as_ref() {
                DataType::Int8 => dictionary::<Int8Type>(array, row),
                DataType::Int16 => dictionary::<Int16Type>(array, row),
                DataType::Int32 => dictionary::<Int32Type>(array, row),
                DataType::Int64 => dictionary::<Int64Type>(array, row),
                DataType::UInt8 => dictionary::<UInt8Type>(array, row),
                DataType::UInt16 => dictionary::<UInt16Type>(array, row),
                DataType::UInt32 => dictionary::<UInt32Type>(array, row),
                DataType::UInt64 => dictionary::<UInt64Type>(array, row),
                _ => Cell::Other(Opaque { array, row }),
            },
            _ => Cell::Other(Opaque { array, row }),
        }
    }

    pub(crate) fn as_str(self) -> Option<&'a str> {
        match self {
            Cell::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bool(self) -> Option<bool> {
        match self {
            Cell::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_i64(self) -> Option<i64> {
        match self {
            Cell::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_u64(self) -> Option<u64> {
        match self {
            Cell::Int(value) => u64::try_from(value).ok(),
            Cell::UInt(value) => Some(value),
            _ => None,
        }
    }

    /// A number of any type; text is not read as a number.
    pub(crate) fn as_f64(self) -> Option<f64> {
        match self {
            Cell::Int(value) => Some(value as f64),
            Cell::UInt(value) => Some(value as f64),
            Cell::Float(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_list(self) -> Option<List<'a>> {
        match self {
            Cell::List(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn as_struct(self) -> Option<Struct<'a>> {
        match self {
            Cell::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// An owned copy; types that no format uses become text.
    pub(crate) fn to_json(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Other(value) => value.shown().into(),
            Cell::Bool(value) => value.into(),
            Cell::Int(value) => value.into(),
            Cell::UInt(value) => value.into(),
            Cell::Float(value) => value.into(),
            Cell::Str(text) => text.into(),
            Cell::List(list) => Value::Array(list.iter().map(Cell::to_json).collect()),
            Cell::Struct(fields) => Value::Object(fields.to_json()),
        }
    }

    pub(crate) fn is_null(self) -> bool {
        matches!(self, Cell::Null)
    }
}

fn dictionary<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> Cell<'_> {
    let array = array.as_dictionary::<K>();
    match array.key(row) {
        Some(key) => Cell::of_arrow(array.values().as_ref(), key),
        None => Cell::Null,
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            List::Arrow { start, end, .. } => end - start,
            List::Json(items) => items.len(),
        }
    }

    /// Item `index`, or [`Cell::Null`] past the end.
    pub(crate) fn get(self, index: usize) -> Cell<'a> {
        match self {
            List::Arrow { values, start, end } if index < end - start => Cell::of_arrow(values, start + index),
            List::Arrow { .. } => Cell::Null,
            List::Json(items) => items.get(index).map_or(Cell::Null, Cell::of_json),
        }
    }

    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = Cell<'a>> {
        (0..self.len()).map(move |index| self.get(index))
    }
}

impl<'a> Struct<'a> {
    /// The field `name`, or [`Cell::Null`] if there is none.
    pub(crate) fn get(self, name: &str) -> Cell<'a> {
        match self {
            Struct::Arrow { array, row } => match array.column_by_name(name) {
                Some(column) => Cell::of_arrow(column.as_ref(), row),
                None => Cell::Null,
            },
            Struct::Json(fields) => fields.get(name).map_or(Cell::Null, Cell::of_json),
        }
    }

    /// The first field of `names` that is present and not null.
    pub(crate) fn first(self, names: &[&str]) -> Cell<'a> {
        names.iter().map(|name| self.get(name)).find(|cell| !cell.is_null()).unwrap_or(Cell::Null)
    }

    pub(crate) fn to_json(self) -> Map<String, Value> {
        match self {
            Struct::Arrow { array, row } => {
                let names = array.column_names().into_iter().map(str::to_owned);
                names.zip(array.columns().iter().map(|column| Cell::of_arrow(column.as_ref(), row).to_json())).collect()
            }
            Struct::Json(fields) => fields.clone(),
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Struct::Arrow { array, .. } => array.num_columns(),
            Struct::Json(fields) => fields.len(),
        }
    }

    pub(crate) fn names(self) -> Vec<&'a str> {
        match self {
            Struct::Arrow { array, .. } => array.column_names(),
            Struct::Json(fields) => fields.keys().map(String::as_str).collect(),
        }
    }

    /// Whether the texts of the field are JSON by their declared type, as `datasets` writes values of mixed types.
    pub(crate) fn holds_json(self, name: &str) -> bool {
        match self {
            Struct::Arrow { array, .. } => array
                .fields()
                .iter()
                .any(|field| field.name() == name && field.extension_type_name() == Some("arrow.json")),
            Struct::Json(_) => false,
        }
    }

    pub(crate) fn has(self, name: &str) -> bool {
        match self {
            Struct::Arrow { array, .. } => array.column_by_name(name).is_some(),
            Struct::Json(fields) => fields.contains_key(name),
        }
    }
}
