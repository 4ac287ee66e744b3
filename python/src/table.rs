//! Tables that both sides hold: batches in memory, given and taken by the PyCapsule protocol.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{RecordBatch, StructArray};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyList, PyType};

use crate::cell::row_of;
use crate::failure::{Failure, Result};
use crate::{capsule, digest, work};

/// Rows and their columns, as Arrow.
#[pyclass(frozen, module = "simplemix", name = "Table")]
pub(crate) struct Table {
    pub(crate) data: Arc<Data>,
}

/// Batches with the same columns.
pub(crate) struct Data {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// Number of rows before each batch; the last entry is the number of all rows.
    pub(crate) starts: Vec<u64>,
}

impl Data {
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let batches: Vec<RecordBatch> = batches.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        let mut starts = vec![0];
        for batch in &batches {
            starts.push(starts[starts.len() - 1] + batch.num_rows() as u64);
        }
        Self { schema, batches, starts }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Batch and place in it of a row that exists.
    #[inline]
    pub(crate) fn place(&self, row: u64) -> (usize, usize) {
        let batch = match self.batches.len() {
            1 => 0,
            _ => self.starts.partition_point(|&start| start <= row) - 1,
        };
        (batch, (row - self.starts[batch]) as usize)
    }
}

impl From<Data> for Table {
    fn from(data: Data) -> Self {
        Self { data: Arc::new(data) }
    }
}

#[pymethods]
impl Table {
    /// Takes a table that another library offers.
    #[staticmethod]
    fn from_arrow(object: &Bound<'_, PyAny>) -> Result<Self> {
        let py = object.py();
        if let Ok(table) = object.cast::<Self>() {
            return Ok(Self { data: table.get().data.clone() });
        }
        let offered = capsule::take(object)?;
        let schema = offered.schema();
        let batches = offered.batches();
        let batches = work::long(py, |stop| {
            let mut read = Vec::new();
            for batch in batches {
                stop.check()?;
                read.push(batch?);
            }
            Ok(read)
        })?;
        Ok(Data::new(schema, batches).into())
    }

    /// Reads what `to_ipc` wrote.
    #[staticmethod]
    fn from_ipc(py: Python<'_>, bytes: &[u8]) -> Result<Self> {
        work::short(py, || {
            let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
            let schema = reader.schema();
            Ok(Data::new(schema, reader.collect::<Result<Vec<_>, _>>()?).into())
        })
    }

    /// Reads JSON lines; types come from all of them.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> Result<Self> {
        work::short(py, || {
            let (schema, _) = infer_json_schema(Cursor::new(text), None)?;
            let schema = Arc::new(schema);
            let reader = ReaderBuilder::new(schema.clone()).with_batch_size(4096).build(Cursor::new(text))?;
            Ok(Data::new(schema, reader.collect::<Result<Vec<_>, _>>()?).into())
        })
    }

    /// The table as an Arrow stream in bytes.
    fn to_ipc<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        let bytes = work::short(py, || {
            let mut writer = StreamWriter::try_new(Vec::new(), &self.data.schema)?;
            self.data.batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            Ok(writer.into_inner()?)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyCapsule>> {
        // The protocol lets a producer give its own types in place of those that are asked for.
        drop(requested_schema);
        capsule::stream(py, self.data.schema.clone(), self.data.batches.clone())
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyCapsule>> {
        capsule::schema(py, &self.data.schema)
    }

    fn __len__(&self) -> usize {
        self.data.rows() as usize
    }

    /// Names of the columns, in order.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.data.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Types of the columns, as Arrow prints them, in order.
    #[getter]
    fn column_types(&self) -> Vec<String> {
        self.data.schema.fields().iter().map(|field| field.data_type().to_string()).collect()
    }

    /// Bytes of the columns in memory.
    #[getter]
    fn nbytes(&self) -> usize {
        self.data.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// The rows from `start` up to `stop`, as dicts.
    fn rows<'py>(&self, py: Python<'py>, start: u64, stop: u64) -> Result<Bound<'py, PyList>> {
        let mut rows: Vec<Bound<'py, PyDict>> = Vec::new();
        let mut batches: Vec<Option<StructArray>> = vec![None; self.data.batches.len()];
        for row in start..stop.min(self.data.rows()) {
            let (batch, place) = self.data.place(row);
            let columns = batches[batch].get_or_insert_with(|| self.data.batches[batch].clone().into());
            rows.push(row_of(py, columns, place)?);
            if rows.len().is_multiple_of(4096) {
                py.check_signals()?;
            }
        }
        Ok(PyList::new(py, rows)?)
    }

    /// blake3 of the rows, in hex: names, types and values, whatever the batches.
    fn blake3(&self, py: Python<'_>) -> Result<String> {
        work::long(py, |stop| digest::of_table(&self.data, stop))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let py = slf.py();
        let class: Bound<'py, PyType> = slf.get_type();
        Ok((class.getattr("from_ipc")?, (slf.get().to_ipc(py)?,)))
    }

    fn __repr__(&self) -> String {
        let columns: Vec<String> = (self.data.schema.fields().iter())
            .map(|field| format!("{}: {}", field.name(), field.data_type()))
            .collect();
        format!("simplemix.Table({} rows; {})", self.data.rows(), columns.join(", "))
    }
}

/// One column of whole numbers of a table, such as the rows that a selection keeps.
pub(crate) fn numbers(table: &Table) -> Result<Vec<u64>> {
    let mut numbers = Vec::with_capacity(table.data.rows() as usize);
    for batch in &table.data.batches {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::UInt64)?;
        let column = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(&column);
        if arrow::array::Array::null_count(column) > 0 {
            return Err(Failure::refused("numbers of rows hold a null or a number below 0, expected numbers >= 0"));
        }
        numbers.extend_from_slice(column.values());
    }
    Ok(numbers)
}
