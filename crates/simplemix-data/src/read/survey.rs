//! Finds which fields of turns and which template inputs a file has, before the first batch fixes the columns.

use aho_corasick::AhoCorasick;
use arrow::datatypes::DataType;

use crate::cell::{Cell, Struct};
use crate::error::{Error, Result};
use crate::format::TURN_FIELDS;
use crate::message::TemplateInputs;
use crate::read::container::{Chunk, Chunks, Source};
use crate::schema::Layout;

/// Adds what the columns have by their declared types.
pub(super) fn add_types(layout: &mut Layout, chunk: &Chunk, reads: &dyn Fn(&str) -> bool) {
    let (Chunk::Arrow { schema, .. } | Chunk::Parsed { schema, .. }) = chunk else { return };
    for field in schema.fields() {
        layout.add_input(field.name());
        if reads(field.name()) {
            add_type(layout, field.data_type());
        }
    }
}

fn add_type(layout: &mut Layout, kind: &DataType) {
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => add_type(layout, item.data_type()),
        DataType::Struct(fields) => {
            let is_turn = fields.iter().any(|field| matches!(field.name().as_str(), "role" | "from"));
            for field in fields {
                match is_turn {
                    true => layout.add_field(field.name()),
                    false => add_type(layout, field.data_type()),
                }
            }
        }
        _ => {}
    }
}

/// Adds what the rows have.
pub(super) fn add_rows(layout: &mut Layout, chunks: Chunks, reads: &dyn Fn(&str) -> bool) -> Result<()> {
    for chunk in chunks {
        let chunk = chunk?;
        for row in (0..chunk.rows()).filter_map(|row| chunk.row(row).ok()) {
            for name in row.names() {
                let cell = row.get(name);
                if !cell.is_null() {
                    layout.add_input(name);
                }
                if reads(name) {
                    add_cell(layout, cell);
                }
            }
        }
    }
    Ok(())
}

fn add_cell(layout: &mut Layout, cell: Cell<'_>) {
    match cell {
        Cell::List(list) => list.iter().for_each(|item| add_cell(layout, item)),
        Cell::Struct(fields) if fields.has("role") || fields.has("from") => add_turn(layout, fields),
        Cell::Struct(fields) => fields.names().into_iter().for_each(|name| add_cell(layout, fields.get(name))),
        _ => {}
    }
}

fn add_turn(layout: &mut Layout, turn: Struct<'_>) {
    for name in turn.names() {
        if !turn.get(name).is_null() {
            layout.add_field(name);
        }
    }
}

/// Whether the text of a JSON file has any of the names that [`add_rows`] looks for, which costs far less than parsing it.
pub(super) fn may_have_more(source: &Source) -> Result<bool> {
    let names: Vec<&str> = TURN_FIELDS.iter().map(|field| field.name).chain(TemplateInputs::COLUMNS).collect();
    may_have(source, &names)
}

/// Whether the text of a JSON file has any of these names after a quotation mark.
pub(super) fn may_have(source: &Source, names: &[&str]) -> Result<bool> {
    let search =
        AhoCorasick::new(names.iter().map(|name| format!("\"{name}"))).expect("a few short names fit an automaton");
    let mut found = search.stream_find_iter(source.text()?);
    found.next().transpose().map(|found| found.is_some()).map_err(Error::io(source.path(), "read"))
}
