//! Columns beside the canonical ones, carried along unchanged.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt32Array, UInt64Builder};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};

use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::format::{Beside, Format, Shape};
use crate::read::container::{Chunk, Chunks};
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
/// A row that is put together from several rows has no such columns. `rest` are the rows of a JSON file after the sample,
/// since a later row may have other columns, and values of other types.
pub(super) fn extra_columns(sample: &Chunk, format: Format, rest: Option<Chunks>) -> Result<Vec<Extra>> {
    if matches!(format.shape(), Shape::Group(_)) {
        return Ok(Vec::new());
    }
    let own_ids = has_own_ids(sample, format);
    let fields: Vec<(FieldRef, bool)> = match sample {
        Chunk::Arrow { schema, .. } | Chunk::Parsed { schema, .. } => {
            schema.fields().iter().map(|field| (field.clone(), false)).collect()
        }
        Chunk::Json(_) => json_fields(sample, rest)?,
    };
    let carried = |name: &str| !(format.consumes(name) || own_ids && name == "id");
    let extra = |(field, json_text): (FieldRef, bool)| {
        let name = field.name().clone();
        let taken = schema::COLUMNS.contains(&name.as_str());
        let renamed = if taken { format!("original_{name}") } else { name.clone() };
        Extra { field: Arc::new(field.as_ref().clone().with_name(renamed)), name, json_text }
    };
    Ok(fields.into_iter().filter(|(field, _)| carried(field.name())).map(extra).collect())
}

/// Whether the `id` column holds content hashes of this crate.
fn has_own_ids(sample: &Chunk, format: Format) -> bool {
    let own = |row: usize| {
        let cells = sample.row(row).ok()?;
        let mut drafts = Vec::new();
        format.drafts(cells, Default::default(), Beside::ANY, &mut drafts).ok()?;
        Some(cells.get("id").as_str()? == drafts.first()?.id())
    };
    (0..sample.rows()).find_map(own).unwrap_or(false)
}

/// Fields of the columns of JSON rows, in the order in which they come first.
fn json_fields(sample: &Chunk, rest: Option<Chunks>) -> Result<Vec<(FieldRef, bool)>> {
    let mut columns: Vec<(String, Values)> = Vec::new();
    see(&mut columns, sample);
    for chunk in rest.into_iter().flatten() {
        see(&mut columns, &chunk?);
    }
    Ok(columns.into_iter().map(|(name, values)| values.field(name)).collect())
}

/// Adds the values of a chunk to those of its columns.
fn see(columns: &mut Vec<(String, Values)>, chunk: &Chunk) {
    for row in chunk.usable() {
        for (place, name) in row.names().into_iter().enumerate() {
            // Rows mostly have the same columns in the same order.
            let here = columns.get(place).is_some_and(|(known, _)| known == name).then_some(place);
            let known = here.or_else(|| columns.iter().position(|(known, _)| known == name));
            let at = known.unwrap_or_else(|| {
                columns.push((name.to_owned(), Values::default()));
                columns.len() - 1
            });
            columns[at].1.see(row.get(name));
        }
    }
}

/// Kinds of the values of a JSON column.
#[derive(Debug, Clone, Copy, Default)]
struct Values {
    booleans: bool,
    texts: bool,
    fractions: bool,
    /// The smallest and the largest integer.
    integers: Option<(i128, i128)>,
    /// Lists and objects.
    nested: bool,
}

impl Values {
    fn see(&mut self, cell: Cell<'_>) {
        let integer = match cell {
            Cell::Int(value) => i128::from(value),
            Cell::UInt(value) => i128::from(value),
            Cell::Null => return,
            Cell::Bool(_) => return self.booleans = true,
            Cell::Float(_) => return self.fractions = true,
            Cell::Str(_) => return self.texts = true,
            Cell::List(_) | Cell::Struct(_) | Cell::Other(_) => return self.nested = true,
        };
        let (low, high) = self.integers.unwrap_or((integer, integer));
        self.integers = Some((low.min(integer), high.max(integer)));
    }

    /// Field of the column, and whether its values are written as JSON text: so are nested values, and values of kinds that
    /// no type holds together without loss.
    fn field(self, name: String) -> (FieldRef, bool) {
        let kind = self.kind();
        (Arc::new(Field::new(name, kind.clone().unwrap_or(DataType::Utf8), true)), kind.is_none())
    }

    fn kind(self) -> Option<DataType> {
        /// Integers up to here are exact as fractions.
        const EXACT: i128 = 1 << f64::MANTISSA_DIGITS;
        let Self { booleans, texts, fractions, integers, nested } = self;
        let is_exact = integers.is_none_or(|(low, high)| -EXACT <= low && high <= EXACT);
        match (booleans, texts, fractions, integers) {
            _ if nested => None,
            (true, false, false, None) => Some(DataType::Boolean),
            (false, true, false, None) => Some(DataType::Utf8),
            (false, false, true, _) if is_exact => Some(DataType::Float64),
            (false, false, false, Some((low, high))) if high > i128::from(i64::MAX) => {
                (low >= 0).then_some(DataType::UInt64)
            }
            (false, false, false, Some(_)) => Some(DataType::Int64),
            _ => None,
        }
    }
}

/// Values of a carried column in `rows`.
pub(super) fn carried(extra: &Extra, chunk: &Chunk, rows: &[u32], path: &Path) -> Result<ArrayRef> {
    match chunk {
        Chunk::Arrow { rows: columns, .. } | Chunk::Parsed { columns, .. } => {
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
        expected: format!("{}, as when the file was opened", extra.field.data_type()),
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
        DataType::UInt64 => build!(UInt64Builder::new(), Cell::as_u64),
        DataType::Float64 => build!(Float64Builder::new(), Cell::as_f64),
        _ if extra.json_text => build!(StringBuilder::new(), text),
        _ => build!(StringBuilder::new(), Cell::as_str),
    })
}
