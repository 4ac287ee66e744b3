//! Arrow across the border: the C data interface in capsules (the PyCapsule protocol of Arrow's documentation).
#![expect(unsafe_code, reason = "structures of the C data interface are moved out of and into capsules")]

use std::ffi::CStr;

use arrow::array::{Array, RecordBatch, RecordBatchIterator, RecordBatchReader, StructArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::failure::{Failure, Result};

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

/// Batches that a Python object offers.
pub(crate) enum Offered {
    /// Batches to be read; reading may call into the producer.
    Stream(RecordBatchStreamReader),
    /// One batch.
    Batch(RecordBatch),
}

/// Takes what `object` offers by `__arrow_c_stream__` or `__arrow_c_array__`.
pub(crate) fn take(object: &Bound<'_, PyAny>) -> Result<Offered> {
    if let Some(method) = object.getattr_opt("__arrow_c_stream__")? {
        let capsule = method.call0()?;
        let capsule = capsule.cast::<PyCapsule>().map_err(PyErr::from)?;
        let pointer = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: a capsule of this name holds a stream of the C interface. It is moved out, and the capsule keeps a released one.
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
        return Ok(Offered::Stream(RecordBatchStreamReader::try_new(stream)?));
    }
    if let Some(method) = object.getattr_opt("__arrow_c_array__")? {
        let pair = method.call0()?;
        let pair = pair.cast::<PyTuple>().map_err(PyErr::from)?;
        let (schema, array) = (pair.get_item(0)?, pair.get_item(1)?);
        let schema = schema.cast::<PyCapsule>().map_err(PyErr::from)?.pointer_checked(Some(SCHEMA))?;
        let array = array.cast::<PyCapsule>().map_err(PyErr::from)?.pointer_checked(Some(ARRAY))?;
        // SAFETY: capsules of these names hold a schema and an array of the C interface; both are moved out.
        let data = unsafe {
            let schema = FFI_ArrowSchema::from_raw(schema.cast().as_ptr());
            from_ffi(FFI_ArrowArray::from_raw(array.cast().as_ptr()), &schema)?
        };
        let found = data.data_type().clone();
        let array = arrow::array::make_array(data);
        let Some(table) = array.as_any().downcast_ref::<StructArray>() else {
            return Err(Failure::refused(format!("an Arrow array of {found} was given, expected one of structs")));
        };
        if table.null_count() > 0 {
            return Err(Failure::refused("an Arrow array with rows that are null was given, expected rows of columns"));
        }
        return Ok(Offered::Batch(RecordBatch::from(table)));
    }
    let name = object.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!(
        "{name} was given, expected a table with Arrow's PyCapsule interface (datasets, pyarrow, polars, pandas, DuckDB), or a path"
    ))
    .into())
}

impl Offered {
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Stream(reader) => reader.schema(),
            Self::Batch(batch) => batch.schema(),
        }
    }

    pub(crate) fn batches(self) -> Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send> {
        match self {
            Self::Stream(reader) => Box::new(reader.map(|batch| checked(batch?))),
            Self::Batch(batch) => Box::new(std::iter::once(checked(batch))),
        }
    }
}

/// The batch, if its columns are what their types say. Nobody has looked before: pyarrow makes text of `["a", b"\xb6"]` without looking
/// at the bytes, and Rust relies on text being UTF-8.
fn checked(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let is_sound = column.to_data().validate_full();
        is_sound.map_err(|error| {
            ArrowError::InvalidArgumentError(format!("column `{}` cannot be read: {error}", field.name()))
        })?;
    }
    Ok(batch)
}

/// A capsule with a stream of batches.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Bound<'py, PyCapsule>> {
    let reader: Box<dyn RecordBatchReader + Send> =
        Box::new(RecordBatchIterator::new(batches.into_iter().map(Ok), schema));
    Ok(PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(reader), STREAM)?)
}

/// A capsule with a schema.
pub(crate) fn schema<'py>(py: Python<'py>, schema: &SchemaRef) -> Result<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(DataType::Struct(schema.fields().clone()))?;
    Ok(PyCapsule::new_with_value(py, schema, SCHEMA)?)
}
