//! A mixture over tables: draws, and rows gathered as Arrow.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pyo3::prelude::*;
use simplemix_mix::{Audit, Draw, MixtureConfig, Routing};

use crate::columns::{self, Rule, in_type, project, unify};
use crate::failure::{Failure, Result};
use crate::table::{Data, Table, numbers};
use crate::{digest, work};

/// Rows gathered at a time.
const CHUNK: u64 = 4096;

/// Draws that one thread makes at a time.
const DRAWS: u64 = 1 << 16;

/// A mixture over tables, with the columns of its rows.
#[pyclass(frozen, module = "simplemix._native")]
pub(crate) struct Mixture {
    mixture: simplemix_mix::Mixture,
    /// The source of each of the mixture's sources, which may be the rows of one task of a source.
    cells: Vec<usize>,
    names: Vec<String>,
    sources: Vec<Source>,
    /// Columns of the rows, without that of the source's name.
    columns: SchemaRef,
    /// Columns of slices.
    schema: SchemaRef,
    source_column: bool,
}

/// One table, with the columns of the mixture.
struct Source {
    data: Arc<Data>,
    /// Columns of each batch.
    columns: Vec<Vec<ArrayRef>>,
    /// Rows of the table that are the rows of the source; `None` if all are.
    rows: Option<Vec<u64>>,
    /// Whether all columns have the type of the mixture.
    is_in_type: bool,
}

impl Source {
    fn new(table: &Table, rows: Option<Vec<u64>>, schema: &SchemaRef) -> Result<Self> {
        let data = table.data.clone();
        if let Some(row) = rows.iter().flatten().find(|row| **row >= data.rows()) {
            return Err(Failure::refused(format!("row {row} is selected of a table of {} rows", data.rows())));
        }
        let of_batches: Vec<Vec<ArrayRef>> = data.batches.iter().map(|batch| project(batch, schema)).collect();
        let is_in_type = of_batches.iter().all(|columns| {
            columns.iter().zip(schema.fields()).all(|(column, field)| column.data_type() == field.data_type())
        });
        Ok(Self { data, columns: of_batches, rows, is_in_type })
    }

    fn place(&self, row: u64) -> (usize, usize) {
        self.data.place(self.rows.as_ref().map_or(row, |rows| rows[row as usize]))
    }
}

/// Columns of some batches, and the places of rows in them.
#[derive(Default)]
struct Gathered {
    batches: Vec<Vec<ArrayRef>>,
    numbers: HashMap<(usize, usize), usize>,
    places: Vec<(usize, usize)>,
}

#[pymethods]
impl Mixture {
    /// A mixture with the settings `config` over `tables`, of each of which `rows` may select some.
    #[new]
    #[pyo3(signature = (config, tables, rows, columns, source_column, routing, task_column))]
    #[expect(clippy::too_many_arguments, reason = "called by the package alone")]
    fn new(
        py: Python<'_>,
        config: &str,
        tables: Vec<Py<Table>>,
        rows: Vec<Option<Py<Table>>>,
        columns: &str,
        source_column: Option<&str>,
        routing: Option<&str>,
        task_column: &str,
    ) -> Result<Self> {
        let config: MixtureConfig =
            serde_json::from_str(config).map_err(|error| Failure::settings("mixture", &error))?;
        let rule: Rule = serde_json::from_str(columns).map_err(|error| Failure::settings("columns", &error))?;
        let routing: Option<Routing> =
            routing.map(serde_json::from_str).transpose().map_err(|error| Failure::settings("routing", &error))?;
        let tables: Vec<&Table> = tables.iter().map(Py::get).collect();
        let rows: Vec<Option<&Table>> = rows.iter().map(|rows| rows.as_ref().map(Py::get)).collect();
        work::long(py, |stop| {
            let names: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
            let schemas: Vec<SchemaRef> = tables.iter().map(|table| table.data.schema.clone()).collect();
            let columns = unify(&names, &schemas, &rule)?;
            let mut sources = Vec::new();
            for (table, rows) in tables.iter().zip(&rows) {
                sources.push(Source::new(table, rows.map(numbers).transpose()?, &columns)?);
            }
            stop.check()?;
            let (mixture, cells) = match routing {
                None => (simplemix_mix::Mixture::new(config)?, (0..sources.len()).collect()),
                Some(routing) => {
                    let tasks = (names.iter().zip(&sources))
                        .map(|(name, source)| source.tasks(name, task_column))
                        .collect::<Result<Vec<_>>>()?;
                    let tasks: Vec<Vec<&str>> =
                        tasks.iter().map(|tasks| tasks.iter().map(String::as_str).collect()).collect();
                    let routed = routing.route(&config, &tasks)?;
                    (routed.mixture, routed.cells.into_iter().map(|(source, _)| source).collect())
                }
            };
            let mut fields = columns.fields().to_vec();
            if let Some(name) = source_column {
                if columns.column_with_name(name).is_some() {
                    return Err(Failure::refused(format!(
                        "the sources have a column `{name}` of their own; give source_column=\"another name\" for the \
                         source of each row, or source_column=None for no such column"
                    )));
                }
                fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
            }
            let schema = Arc::new(Schema::new(fields));
            Ok(Self { mixture, cells, names, sources, columns, schema, source_column: source_column.is_some() })
        })
    }

    fn __len__(&self) -> usize {
        self.mixture.len() as usize
    }

    /// The plan and the promise, as JSON.
    fn plan(&self) -> Result<String> {
        let text = serde_json::to_string(&(self.mixture.plan(), self.mixture.promise()));
        text.map_err(|error| Failure::of(&error))
    }

    /// Source, row and epoch at a position.
    fn at(&self, position: u64) -> (usize, u64, u64) {
        let draw = self.mixture.at(position);
        (self.cells[draw.source], self.row(draw), draw.epoch)
    }

    /// Rows of each source among the first `end` positions, and what their shares come to.
    fn counts(&self, end: u64) -> Vec<(u64, f64)> {
        let mut counts = vec![(0, 0.0); self.names.len()];
        for (cell, &source) in self.cells.iter().enumerate() {
            counts[source].0 += self.mixture.count(cell, end);
            counts[source].1 += self.mixture.due(cell, end);
        }
        counts
    }

    /// Source, row and epoch of each of `range(start, stop, step)`.
    fn draws(&self, py: Python<'_>, start: u64, stop: u64, step: u64) -> Result<Table> {
        let fields = [("source", DataType::UInt32), ("row", DataType::UInt64), ("epoch", DataType::UInt64)];
        let fields: Vec<Field> = fields.into_iter().map(|(name, kind)| Field::new(name, kind, false)).collect();
        let schema = Arc::new(Schema::new(fields));
        let pieces = pieces(start, stop, step, DRAWS);
        let work = |stop: &work::Stop| {
            let batches = work::in_pieces(&pieces, |piece| {
                stop.check()?;
                let len = piece.len();
                let (mut sources, mut rows, mut epochs) =
                    (Vec::with_capacity(len), Vec::with_capacity(len), Vec::with_capacity(len));
                self.each(piece, |draw| {
                    sources.push(self.cells[draw.source] as u32);
                    rows.push(self.row(draw));
                    epochs.push(draw.epoch);
                });
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(UInt32Array::from(sources)),
                    Arc::new(UInt64Array::from(rows)),
                    Arc::new(UInt64Array::from(epochs)),
                ];
                Ok(RecordBatch::try_new(schema.clone(), columns)?)
            })?;
            Ok(Data::new(schema.clone(), batches).into())
        };
        if pieces.len() < 2 { work::short(py, || work(&work::Stop::default())) } else { work::long(py, work) }
    }

    /// The rows at `range(start, stop, step)`.
    fn take(&self, py: Python<'_>, start: u64, stop: u64, step: u64) -> Result<Table> {
        let pieces = pieces(start, stop, step, CHUNK);
        let work = |stop: &work::Stop| {
            let batches = work::in_pieces(&pieces, |piece| {
                stop.check()?;
                let mut draws = Vec::with_capacity(piece.len());
                self.each(piece, |draw| draws.push(draw));
                self.gather(&draws)
            })?;
            Ok(Data::new(self.schema.clone(), batches).into())
        };
        if pieces.len() < 2 { work::short(py, || work(&work::Stop::default())) } else { work::long(py, work) }
    }

    /// The rows at these positions, in this order.
    fn take_positions(&self, py: Python<'_>, positions: Vec<u64>) -> Result<Table> {
        let len = self.mixture.len();
        if let Some(position) = positions.iter().find(|position| **position >= len) {
            return Err(Failure::refused(format!("position {position} is beyond the {len} of the mixture")));
        }
        work::short(py, || {
            let gathered = positions.chunks(CHUNK as usize).map(|positions| {
                let draws: Vec<Draw> = positions.iter().map(|position| self.mixture.at(*position)).collect();
                self.gather(&draws)
            });
            Ok(Data::new(self.schema.clone(), gathered.collect::<Result<Vec<_>>>()?).into())
        })
    }

    /// Achieved figures of the whole mixture, as JSON.
    fn achieved(&self, py: Python<'_>, ranks: usize) -> Result<String> {
        let achieved = work::long(py, |stop| {
            let mut audit = Audit::new(&self.mixture, ranks);
            for (position, draw) in self.mixture.iter().enumerate() {
                if position.is_multiple_of(DRAWS as usize) {
                    stop.check()?;
                }
                audit.see(draw.source, None, 0);
            }
            Ok(audit.finish())
        })?;
        serde_json::to_string(&achieved).map_err(|error| Failure::of(&error))
    }

    /// blake3 of all rows, in hex, as `Table.blake3` of a table of them.
    fn blake3(&self, py: Python<'_>) -> Result<String> {
        let pieces = pieces(0, self.mixture.len(), 1, digest::ROWS);
        work::long(py, |stop| {
            let batches = pieces.iter().map(|piece| {
                stop.check()?;
                let mut draws = Vec::with_capacity(piece.len());
                self.each(piece, |draw| draws.push(draw));
                self.gather(&draws)
            });
            digest::of_batches(&self.schema, batches)
        })
    }

    /// First position at which `other` is not the mixture: the position, the column and both values, as Python would print them.
    /// `None` if it is the same, row for row; values are compared, not spellings of their types.
    fn difference(&self, py: Python<'_>, other: &Table) -> Result<Option<(u64, String, String, String)>> {
        let (len, rows) = (self.mixture.len(), other.data.rows());
        let other_schema = &other.data.schema;
        for field in self.schema.fields() {
            if other_schema.column_with_name(field.name()).is_none() {
                let found: Vec<&str> = other_schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Ok(Some((0, field.name().clone(), "a column".into(), format!("columns {}", found.join(", ")))));
            }
        }
        if len != rows {
            return Ok(Some((len.min(rows), "rows".to_owned(), len.to_string(), rows.to_string())));
        }
        work::long(py, |stop| {
            for (number, batch) in other.data.batches.iter().enumerate() {
                let first = other.data.starts[number];
                for start in (0..batch.num_rows() as u64).step_by(CHUNK as usize) {
                    stop.check()?;
                    let end = (start + CHUNK).min(batch.num_rows() as u64);
                    let draws: Vec<Draw> = (first + start..first + end).map(|at| self.mixture.at(at)).collect();
                    let expected = self.gather(&draws)?;
                    let found = batch.slice(start as usize, (end - start) as usize);
                    if let Some((row, column, texts)) = unlike(&expected, &found)? {
                        return Ok(Some((first + start + row as u64, column, texts[0].clone(), texts[1].clone())));
                    }
                }
            }
            Ok(None)
        })
    }

    /// Names and types of the columns of slices.
    #[getter]
    fn columns(&self) -> Vec<(String, String)> {
        self.schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect()
    }
}

impl Mixture {
    /// The row of the source; a cell's rows are those of its source already.
    fn row(&self, draw: Draw) -> u64 {
        draw.row
    }

    /// Calls `see` with the draw at each position of a piece.
    fn each(&self, piece: &Piece, mut see: impl FnMut(Draw)) {
        match piece.step {
            1 => self.mixture.iter_from(piece.range.start).take(piece.len()).for_each(see),
            step => piece.range.clone().step_by(step as usize).for_each(|position| see(self.mixture.at(position))),
        }
    }

    fn gather(&self, draws: &[Draw]) -> Result<RecordBatch> {
        let mut gathered = Gathered { places: Vec::with_capacity(draws.len()), ..Gathered::default() };
        // Rows of sources with other types are gathered source by source first, to be cast.
        let mut apart: Vec<Option<(usize, Gathered)>> = Vec::new();
        apart.resize_with(self.sources.len(), || None);
        for draw in draws {
            let number = self.cells[draw.source];
            let source = &self.sources[number];
            let (batch, row) = source.place(self.row(*draw));
            if source.is_in_type {
                let place = gathered.batch((number, batch), &source.columns[batch]);
                gathered.places.push((place, row));
            } else {
                let (at, of_source) = apart[number].get_or_insert_with(|| {
                    gathered.batches.push(Vec::new());
                    (gathered.batches.len() - 1, Gathered::default())
                });
                let place = of_source.batch((number, batch), &source.columns[batch]);
                gathered.places.push((*at, of_source.places.len()));
                of_source.places.push((place, row));
            }
        }
        for (at, of_source) in apart.into_iter().flatten() {
            let columns = of_source.columns(self.columns.fields().len())?;
            let cast =
                columns.iter().zip(self.columns.fields()).map(|(column, field)| in_type(column, field.data_type()));
            gathered.batches[at] = cast.collect::<Result<Vec<_>>>()?;
        }
        let mut columns = gathered.columns(self.columns.fields().len())?;
        if self.source_column {
            let names = draws.iter().map(|draw| self.names[self.cells[draw.source]].as_str());
            columns.push(Arc::new(StringArray::from_iter_values(names)));
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl Gathered {
    /// Number of a batch among those that are used.
    fn batch(&mut self, key: (usize, usize), columns: &[ArrayRef]) -> usize {
        *self.numbers.entry(key).or_insert_with(|| {
            self.batches.push(columns.to_vec());
            self.batches.len() - 1
        })
    }

    /// The rows at the places, column by column.
    fn columns(&self, count: usize) -> Result<Vec<ArrayRef>> {
        let column = |number: usize| {
            let arrays: Vec<&dyn Array> = self.batches.iter().map(|columns| columns[number].as_ref()).collect();
            Ok(interleave(&arrays, &self.places)?)
        };
        (0..count).map(column).collect()
    }
}

impl Source {
    /// The task of each row; empty for rows without one.
    fn tasks(&self, name: &str, column: &str) -> Result<Vec<String>> {
        let mut tasks = Vec::with_capacity(self.data.rows() as usize);
        for batch in &self.data.batches {
            let Some(found) = batch.column_by_name(column) else {
                return Err(Failure::refused(format!(
                    "source `{name}` has no column `{column}`, which routing by task needs; name it with task_column"
                )));
            };
            let texts = cast(found, &DataType::Utf8)?;
            tasks.extend(texts.as_string::<i32>().iter().map(|task| task.unwrap_or_default().to_owned()));
        }
        Ok(match &self.rows {
            None => tasks,
            Some(rows) => rows.iter().map(|row| tasks[*row as usize].clone()).collect(),
        })
    }
}

/// Positions that are worked on together.
struct Piece {
    range: Range<u64>,
    step: u64,
}

impl Piece {
    fn len(&self) -> usize {
        (self.range.end - self.range.start).div_ceil(self.step) as usize
    }
}

fn pieces(start: u64, stop: u64, step: u64, rows: u64) -> Vec<Piece> {
    let step = step.max(1);
    let starts = (start..stop).step_by((rows * step) as usize);
    starts.map(|first| Piece { range: first..(first + rows * step).min(stop), step }).collect()
}

/// Row, column and both values where two batches first differ.
fn unlike(expected: &RecordBatch, found: &RecordBatch) -> Result<Option<(usize, String, [String; 2])>> {
    let mut first: Option<(usize, String, [String; 2])> = None;
    for (field, expected) in expected.schema().fields().iter().zip(expected.columns()) {
        let Some(found) = found.column_by_name(field.name()) else { continue };
        let kind = columns::plain_type(field.data_type());
        let other = columns::plain_type(found.data_type());
        if kind != other && *found.data_type() != DataType::Null {
            let texts = [field.data_type().to_string(), found.data_type().to_string()];
            return Ok(Some((0, field.name().clone(), texts)));
        }
        let (expected, found) = (in_type(expected, &kind)?, in_type(found, &kind)?);
        if expected.to_data() == found.to_data() {
            continue;
        }
        let row = (0..expected.len()).find(|&row| expected.slice(row, 1).to_data() != found.slice(row, 1).to_data());
        if let Some(row) = row.filter(|row| first.as_ref().is_none_or(|(known, ..)| row < known)) {
            let text = |array: &ArrayRef| -> Result<String> {
                let text = arrow::util::display::array_value_to_string(array, row)?;
                Ok(if text.chars().count() > 60 { text.chars().take(60).collect::<String>() + "…" } else { text })
            };
            first = Some((row, field.name().clone(), [text(&expected)?, text(&found)?]));
        }
    }
    Ok(first)
}
