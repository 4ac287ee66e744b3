//! Arrow values as Python objects, without pyarrow.

use arrow::array::{Array, AsArray, FixedSizeListArray, StructArray};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::failure::{Failure, Result};

/// The value of `array` at `row`. Rows that are null, or beyond the end, are `None`.
pub(crate) fn value<'py>(py: Python<'py>, array: &dyn Array, row: usize) -> Result<Bound<'py, PyAny>> {
    if row >= array.len() || array.is_null(row) {
        return Ok(py.None().into_bound(py));
    }
    macro_rules! number {
        ($kind:ty) => {
            array.as_primitive::<$kind>().value(row).into_pyobject(py).map_err(PyErr::from)?.into_any()
        };
    }
    Ok(match array.data_type() {
        DataType::Null => py.None().into_bound(py),
        DataType::Boolean => {
            array.as_boolean().value(row).into_pyobject(py).map_err(PyErr::from)?.to_owned().into_any()
        }
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => {
            f64::from(array.as_primitive::<Float16Type>().value(row)).into_pyobject(py).map_err(PyErr::from)?.into_any()
        }
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Utf8 => PyString::new(py, array.as_string::<i32>().value(row)).into_any(),
        DataType::LargeUtf8 => PyString::new(py, array.as_string::<i64>().value(row)).into_any(),
        DataType::Utf8View => PyString::new(py, array.as_string_view().value(row)).into_any(),
        DataType::Binary => PyBytes::new(py, array.as_binary::<i32>().value(row)).into_any(),
        DataType::LargeBinary => PyBytes::new(py, array.as_binary::<i64>().value(row)).into_any(),
        DataType::List(_) => list(py, &array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(py, &array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => match array.as_any().downcast_ref::<FixedSizeListArray>() {
            Some(lists) => list(py, &lists.value(row))?,
            None => return Err(unknown(array)),
        },
        DataType::Struct(_) => row_of(py, array.as_struct(), row)?.into_any(),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys()[row];
            value(py, dictionary.values().as_ref(), key)?
        }
        _ => return Err(unknown(array)),
    })
}

fn unknown(array: &dyn Array) -> Failure {
    let found = array.data_type();
    Failure::refused(format!("a column of {found} has no plain Python values here; take a slice as Arrow: mix[a:b]"))
}

fn list<'py>(py: Python<'py>, items: &dyn Array) -> Result<Bound<'py, PyAny>> {
    let values = (0..items.len()).map(|item| value(py, items, item)).collect::<Result<Vec<_>>>()?;
    Ok(PyList::new(py, values)?.into_any())
}

/// The columns of a row, by name.
pub(crate) fn row_of<'py>(py: Python<'py>, columns: &StructArray, row: usize) -> Result<Bound<'py, PyDict>> {
    let values = PyDict::new(py);
    for (field, column) in columns.fields().iter().zip(columns.columns()) {
        values.set_item(field.name(), value(py, column.as_ref(), row)?)?;
    }
    Ok(values)
}
