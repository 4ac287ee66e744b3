//! Columns beside the canonical ones, carried along unchanged.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};

use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::format::{Format, Shape};
use crate::read::container::Chunk;
use crate::schema;

/// A carried column: name in the file, and field in the output.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) name: String,
    pub(super) field: FieldRef,
    /// Whether values are written as JSON text, because they are nested or of several types.
    json_text: bool,
}

/// Finds the columns to carry. A name that the canonical schema uses gets the prefix `original_`.
///
/// A row that is put together from several rows has no such columns.
pub(super) fn extra_columns(sample: &Chunk, format: Format) -> Vec<Extra> {
    if matches!(format.shape(), Shape::Group(_)) {
        return Vec::new();
    }
    let own_ids = has_own_ids(sample, format);
    let fields: Vec<(FieldRef, bool)> = match sample {
        Chunk::Arrow { schema, .. } => schema.fields().iter().map(|field| (field.clone(), false)).collect(),
        Chunk::Json(_) => sample.names().into_iter().map(|name| json_field(sample, name)).collect(),
    };
    let carried = |name: &str| !(format.consumes(name) || own_ids && name == "id");
    fields
        .into_iter()
        .filter(|(field, _)| carried(field.name()))
        .map(|(field, json_text)| {
            let name = field.name().clone();
            let taken = schema::COLUMNS.contains(&name.as_str());
            let renamed = if taken { format!("original_{name}") } else { name.clone() };
            Extra { field: Arc::new(field.as_ref().clone().with_name(renamed)), name, json_text }
        })
        .collect()
}

/// Whether the `id` column holds content hashes of this crate.
fn has_own_ids(sample: &Chunk, format: Format) -> bool {
    let own = |row: usize| {
        let cells = sample.row(row).ok()?;
        let mut drafts = Vec::new();
        format.drafts(cells, Default::default(), &mut drafts).ok()?;
        Some(cells.get("id").as_str()? == drafts.first()?.id())
    };
    (0..sample.rows()).find_map(own).unwrap_or(false)
}

/// Field of a JSON column: booleans, integers, numbers and text keep their type, other values become JSON text.
fn json_field(sample: &Chunk, name: String) -> (FieldRef, bool) {
    let mut kind = None;
    for row in 0..sample.rows() {
        let next = match sample.row(row).map(|row| row.get(&name)) {
            Ok(Cell::Bool(_)) => DataType::Boolean,
            Ok(Cell::Int(_)) => DataType::Int64,
            Ok(Cell::Float(_)) => DataType::Float64,
            Ok(Cell::Str(_)) => DataType::Utf8,
            Ok(Cell::Null) | Err(_) => continue,
            Ok(_) => DataType::Null,
        };
        kind = Some(match (kind, next) {
            (None, next) => next,
            (Some(kind), next) if kind == next => kind,
            (Some(DataType::Int64 | DataType::Float64), DataType::Int64 | DataType::Float64) => DataType::Float64,
            _ => DataType::Null,
        });
    }
    match kind {
        Some(DataType::Null) | None => (Arc::new(Field::new(name, DataType::Utf8, true)), true),
        Some(kind) => (Arc::new(Field::new(name, kind, true)), false),
    }
}

/// Values of a carried column in `rows`.
pub(super) fn carried(extra: &Extra, chunk: &Chunk, rows: &[u32], path: &Path) -> Result<ArrayRef> {
    match chunk {
        Chunk::Arrow { rows: columns, .. } => {
            let column = columns.column_by_name(&extra.name).expect("carried columns are chosen from the file's own");
            take(column.as_ref(), &UInt32Array::from(rows.to_vec()), None).map_err(Error::arrow(path))
        }
        Chunk::Json(_) => of_json(extra, chunk, rows, path),
    }
}

fn of_json(extra: &Extra, chunk: &Chunk, rows: &[u32], path: &Path) -> Result<ArrayRef> {
    let cells = rows.iter().map(|&row| chunk.row(row as usize).map_or(Cell::Null, |row| row.get(&extra.name)));
    let misfit = |cell: Cell<'_>| Error::ColumnType {
        path: path.to_path_buf(),
        column: extra.name.clone(),
        found: cell.to_json().to_string().chars().take(60).collect(),
        expected: format!("{}, as in the first rows, or reading without extra columns", extra.field.data_type()),
    };
    macro_rules! build {
        ($builder:expr, $value:expr) => {{
            let mut builder = $builder;
            for cell in cells {
                match $value(cell) {
                    Some(value) => builder.append_value(value),
                    None if cell.is_null() => builder.append_null(),
                    None => return Err(misfit(cell)),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    let text = |cell: Cell<'_>| (!cell.is_null()).then(|| cell.to_json().to_string());
    Ok(match extra.field.data_type() {
        DataType::Boolean => build!(BooleanBuilder::new(), Cell::as_bool),
        DataType::Int64 => build!(Int64Builder::new(), Cell::as_i64),
        DataType::Float64 => build!(Float64Builder::new(), Cell::as_f64),
        _ if extra.json_text => build!(StringBuilder::new(), text),
        _ => build!(StringBuilder::new(), Cell::as_str),
    })
}
