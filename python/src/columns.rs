//! The columns that all sources of a mixture have in common.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Rule for columns that not all sources have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rule {
    /// Refuse them.
    Same,
    /// Leave them out.
    Common,
    /// Fill them with nulls.
    All,
    /// Only these columns, which every source must have.
    Named(Vec<String>),
}

/// Type of the values of `kind` in its plain spelling, so that texts, lists and dictionaries of different libraries are alike.
pub(crate) fn plain_type(kind: &DataType) -> DataType {
    let field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match kind {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        // Names of items differ from library to library, and say nothing.
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            let item = Field::new("item", plain_type(item.data_type()), true).with_metadata(item.metadata().clone());
            DataType::List(Arc::new(item))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|inner| Arc::new(field(inner).as_ref().clone().with_nullable(true)));
            DataType::Struct(Fields::from_iter(fields))
        }
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

/// Whether consumers of Arrow know a type as it stands.
fn is_view(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8View | DataType::BinaryView | DataType::ListView(_) | DataType::LargeListView(_) => true,
        DataType::Dictionary(..) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_view(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| is_view(field.data_type())),
        _ => false,
    }
}

/// One type for a column whose types in the sources are `kinds`; `None` if there is none.
fn common_type(kinds: &[&DataType]) -> Option<DataType> {
    let mut known = kinds.iter().filter(|kind| ***kind != DataType::Null);
    let Some(first) = known.next() else { return Some(DataType::Null) };
    if known.clone().all(|kind| kind == first) && !is_view(first) {
        return Some((*first).clone());
    }
    let plain = plain_type(first);
    known.all(|kind| plain_type(kind) == plain).then_some(plain)
}

/// Columns of the mixture of sources with these names and schemas.
pub(crate) fn unify(names: &[String], schemas: &[SchemaRef], rule: &Rule) -> Result<SchemaRef> {
    let mut wanted: Vec<&str> = Vec::new();
    match rule {
        Rule::Named(columns) => wanted.extend(columns.iter().map(String::as_str)),
        _ => {
            for field in schemas.iter().flat_map(|schema| schema.fields()) {
                if !wanted.contains(&field.name().as_str()) {
                    wanted.push(field.name());
                }
            }
        }
    }
    let has = |schema: &SchemaRef, column: &str| schema.column_with_name(column).is_some();
    let mut fields = Vec::new();
    for column in wanted {
        if let Some(without) = schemas.iter().position(|schema| !has(schema, column)) {
            let with = schemas.iter().position(|schema| has(schema, column));
            match (rule, with) {
                (Rule::Common, _) => continue,
                (Rule::All, _) => {}
                (Rule::Same, Some(with)) => {
                    return Err(Failure::refused(format!(
                        "source `{}` has no column `{column}`, which source `{}` has, expected the same columns; give \
                         columns=\"common\" for those that all have, columns=\"all\" to fill in nulls, or a list of names",
                        names[without], names[with]
                    )));
                }
                _ => {
                    let known: Vec<&str> =
                        schemas[without].fields().iter().map(|field| field.name().as_str()).collect();
                    return Err(Failure::refused(format!(
                        "source `{}` has no column `{column}`, which `columns` names, expected one of {}",
                        names[without],
                        known.join(", ")
                    )));
                }
            }
        }
        let found: Vec<(&String, &FieldRef)> = (names.iter().zip(schemas))
            .filter_map(|(name, schema)| schema.fields().find(column).map(|(_, field)| (name, field)))
            .collect();
        let kinds: Vec<&DataType> = found.iter().map(|(_, field)| field.data_type()).collect();
        let Some(kind) = common_type(&kinds) else {
            let (name, field) = found[0];
            let plain = plain_type(field.data_type());
            let other = found.iter().find(|(_, other)| plain_type(other.data_type()) != plain);
            let (other, kind) = other.map_or((name, field.data_type()), |(other, field)| (*other, field.data_type()));
            return Err(Failure::refused(format!(
                "column `{column}` is {} in source `{name}` and {kind} in source `{other}`, expected one type",
                field.data_type()
            )));
        };
        // An extension type, such as that of JSON, holds only where all sources say so.
        let metadata = found[0].1.metadata();
        let field = Field::new(column, kind, true);
        fields.push(match found.iter().all(|(_, field)| field.metadata() == metadata) {
            true => field.with_metadata(metadata.clone()),
            false => field,
        });
    }
    if fields.is_empty() {
        return Err(Failure::refused("the sources have no column in common, expected at least one"));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns of `schema` in a batch, in its order; absent ones are null where a rule fills them in. Types stay.
pub(crate) fn project(batch: &RecordBatch, schema: &SchemaRef) -> Vec<ArrayRef> {
    let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    schema.fields().iter().map(column).collect()
}

/// A column in the type of the mixture.
pub(crate) fn in_type(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    if column.data_type() == kind {
        return Ok(column.clone());
    }
    Ok(cast(column, kind)?)
}
