//! Rearranges rows for formats that need it: parses turns stored as JSON text, and joins rows that belong together.

use serde_json::{Map, Value};

use crate::cell::{Cell, Struct};
use crate::error::Result;
use crate::format::GROUP;
use crate::read::container::{Chunk, Chunks, JsonRow};

/// Rows after which a group is closed, so that a file with the same key everywhere does not fill the memory.
const MAX_GROUP_ROWS: usize = 10_000;

/// Parses the columns `names`, which hold JSON as text. All columns stay as they are beside.
pub(super) fn parse_json_text(chunks: Chunks, names: Vec<String>) -> Chunks {
    Box::new(chunks.map(move |chunk| {
        let chunk = chunk?;
        let rows = (0..chunk.rows()).map(|row| {
            let fields = chunk.row(row).map(|fields| parsed(fields, &names));
            JsonRow { span: chunk.span(row), fields }
        });
        let rows = rows.collect();
        Ok(match chunk {
            Chunk::Arrow { rows: columns, schema } | Chunk::Parsed { columns, schema, .. } => {
                Chunk::Parsed { rows, columns, schema }
            }
            Chunk::Json(_) => Chunk::Json(rows),
        })
    }))
}

fn parsed(row: Struct<'_>, names: &[String]) -> Map<String, Value> {
    let mut fields = row.to_json();
    for name in names {
        // Invalid JSON stays text, and the format refuses the row.
        if let Some(value) = fields.get_mut(name)
            && let Some(inner) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = inner;
        }
    }
    fields
}

/// Joins consecutive rows with the same `key` into one row that holds the key and, under [`GROUP`], the rows.
pub(super) fn group(chunks: Chunks, key: &'static str) -> Chunks {
    Box::new(Groups { chunks, key, open: None, ended: false })
}

struct Groups {
    chunks: Chunks,
    key: &'static str,
    open: Option<Open>,
    ended: bool,
}

struct Open {
    key: Value,
    rows: Vec<Value>,
}

impl Open {
    fn close(self, name: &str) -> JsonRow {
        let span = self.rows.len() as u32;
        let fields = [(name.to_owned(), self.key), (GROUP.to_owned(), Value::Array(self.rows))];
        JsonRow { span, fields: Ok(fields.into_iter().collect()) }
    }
}

impl Groups {
    fn add(&mut self, chunk: &Chunk, done: &mut Vec<JsonRow>) {
        for row in 0..chunk.rows() {
            let fields = match chunk.row(row) {
                Ok(fields) => fields,
                Err(problem) => {
                    done.push(JsonRow { span: chunk.span(row), fields: Err(problem) });
                    continue;
                }
            };
            let continues = self.open.as_ref().is_some_and(|open| {
                open.rows.len() < MAX_GROUP_ROWS && Cell::of_json(&open.key).as_str() == fields.get(self.key).as_str()
            });
            if !continues {
                let key = fields.get(self.key).to_json();
                let closed = self.open.replace(Open { key, rows: Vec::new() });
                done.extend(closed.map(|open| open.close(self.key)));
            }
            if let Some(open) = &mut self.open {
                open.rows.push(Value::Object(fields.to_json()));
            }
        }
    }
}

impl Iterator for Groups {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut done = Vec::new();
        while !self.ended && done.is_empty() {
            match self.chunks.next() {
                Some(Ok(chunk)) => self.add(&chunk, &mut done),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.ended = true;
                    done.extend(self.open.take().map(|open| open.close(self.key)));
                }
            }
        }
        if done.is_empty() { None } else { Some(Ok(Chunk::Json(done))) }
    }
}
