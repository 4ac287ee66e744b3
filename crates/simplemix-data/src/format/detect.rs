//! Which format a file has, from the types of its columns and a sample of its rows.

use std::fmt;
use std::path::Path;

use arrow::datatypes::DataType;

use crate::cell::{Cell, List, Struct};
use crate::error::{Error, Result};
use crate::format::Format;

/// What the values of one column are, over the sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Absent,
    /// Only nulls so far.
    Null,
    Text,
    Number,
    Bool,
    /// `{role, content}` turns: a list of them, or a struct of lists.
    Messages,
    /// `{from, value}` turns.
    ShareGpt,
    /// One turn of either naming.
    Turn,
    EmptyList,
    /// Any other list or struct, named for messages to people.
    Other(String),
    /// Values of two kinds.
    Mixed(Box<(Kind, Kind)>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Absent => f.write_str("absent"),
            Kind::Null => f.write_str("all null"),
            Kind::Text => f.write_str("text"),
            Kind::Number => f.write_str("number"),
            Kind::Bool => f.write_str("boolean"),
            Kind::Messages => f.write_str("messages"),
            Kind::ShareGpt => f.write_str("from/value turns"),
            Kind::Turn => f.write_str("one turn"),
            Kind::EmptyList => f.write_str("empty lists"),
            Kind::Other(name) => f.write_str(name),
            Kind::Mixed(kinds) => write!(f, "{} in some rows and {} in others", kinds.0, kinds.1),
        }
    }
}

impl Kind {
    pub(crate) fn of(cell: Cell<'_>) -> Kind {
        match cell {
            Cell::Null => Kind::Null,
            Cell::Bool(_) => Kind::Bool,
            Cell::Int(_) | Cell::Float(_) => Kind::Number,
            Cell::Str(_) => Kind::Text,
            Cell::List(list) => Kind::of_list(list),
            Cell::Struct(fields) => Kind::of_struct(fields),
            Cell::Other(kind) => Kind::Other(kind.to_string()),
        }
    }

    fn of_list(list: List<'_>) -> Kind {
        let Some(item) = list.iter().find(|item| !item.is_null()) else { return Kind::EmptyList };
        match item {
            Cell::Struct(turn) if turn.has("role") && turn.has("content") => Kind::Messages,
            Cell::Struct(turn) if turn.has("from") && turn.has("value") => Kind::ShareGpt,
            Cell::Struct(_) => Kind::Other("list of structs".to_owned()),
            item => Kind::Other(format!("list of {}", Kind::of(item))),
        }
    }

    fn of_struct(fields: Struct<'_>) -> Kind {
        let turn = [("role", "content"), ("from", "value")].iter().find(|(role, _)| fields.has(role));
        match turn.map(|(role, content)| (fields.get(role), fields.get(content))) {
            Some((Cell::List(_), Cell::List(_))) => Kind::Messages,
            Some((Cell::Str(_), _)) => Kind::Turn,
            _ => Kind::Other("struct".to_owned()),
        }
    }

    /// The kind of two rows together; nulls and empty lists say nothing against the other.
    fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Absent | Kind::Null, kind) | (kind, Kind::Absent | Kind::Null) => kind,
            (Kind::EmptyList, kind @ (Kind::Messages | Kind::ShareGpt | Kind::Other(_)))
            | (kind @ (Kind::Messages | Kind::ShareGpt | Kind::Other(_)), Kind::EmptyList) => kind,
            (a, b) if a == b => a,
            (mixed @ Kind::Mixed(_), _) => mixed,
            (a, b) => Kind::Mixed(Box::new((a, b))),
        }
    }

    fn of_type(kind: &DataType) -> Kind {
        match kind {
            DataType::Null => Kind::Null,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
            DataType::Dictionary(_, value) => Kind::of_type(value),
            DataType::Boolean => Kind::Bool,
            kind if kind.is_numeric() => Kind::Number,
            other => Kind::Other(other.to_string()),
        }
    }
}

/// Kinds of the columns of a sample.
pub(crate) struct Columns(Vec<(String, Kind)>);

impl Columns {
    /// From the first rows of a chunk; `types` are the declared types, where the container has them.
    pub(crate) fn of_sample<'a>(
        names: Vec<String>,
        types: Option<&[DataType]>,
        rows: impl Iterator<Item = Struct<'a>> + Clone,
    ) -> Self {
        let kind = |index: usize, name: &str| {
            let kind = rows.clone().map(|row| Kind::of(row.get(name))).fold(Kind::Absent, Kind::with);
            match (kind, types) {
                (Kind::Null | Kind::Absent, Some(types)) => Kind::of_type(&types[index]),
                (kind, _) => kind,
            }
        };
        Self(names.iter().enumerate().map(|(index, name)| (name.clone(), kind(index, name))).collect())
    }

    pub(crate) fn kind(&self, name: &str) -> &Kind {
        self.0.iter().find(|(column, _)| column == name).map_or(&Kind::Absent, |(_, kind)| kind)
    }

    fn describe(&self) -> String {
        let columns: Vec<String> = self.0.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        if columns.is_empty() { "none".to_owned() } else { columns.join(", ") }
    }
}

/// The format of a file with these columns.
///
/// # Errors
/// [`Error::ColumnType`] if `chosen` or `rejected` is there but of no usable kind, else [`Error::UnknownFormat`].
pub(crate) fn detect(columns: &Columns, path: &Path) -> Result<Format> {
    let kind = |name| columns.kind(name);
    if *kind("conversations") == Kind::ShareGpt && *kind("chosen") == Kind::Turn && *kind("rejected") == Kind::Turn {
        return Ok(Format::ShareGptRanking);
    }
    match (kind("prompt"), kind("chosen"), kind("rejected")) {
        (Kind::Text, Kind::Text, Kind::Text) => Ok(Format::ExplicitText),
        (Kind::Messages, Kind::Messages, Kind::Messages) => Ok(Format::ExplicitMessages),
        (Kind::Text, Kind::Messages, Kind::Messages) => Ok(Format::UltraFeedbackBinarized),
        (Kind::Absent | Kind::Null, Kind::Text, Kind::Text) => Ok(Format::ImplicitText),
        (Kind::Absent | Kind::Null, Kind::Messages, Kind::Messages) => Ok(Format::ImplicitMessages),
        (prompt, chosen, rejected) => Err(refusal(path, columns, [prompt, chosen, rejected])),
    }
}

fn refusal(path: &Path, columns: &Columns, kinds: [&Kind; 3]) -> Error {
    let [prompt, chosen, rejected] = kinds;
    let usable = |kind: &Kind| matches!(kind, Kind::Text | Kind::Messages | Kind::Turn);
    for (column, kind) in [("chosen", chosen), ("rejected", rejected), ("prompt", prompt)] {
        if *kind != Kind::Absent && !usable(kind) {
            return Error::ColumnType {
                path: path.to_path_buf(),
                column: column.to_owned(),
                found: kind.to_string(),
                expected: "text or a list of {role, content}".to_owned(),
            };
        }
    }
    Error::UnknownFormat {
        path: path.to_path_buf(),
        columns: columns.describe(),
        hint: "expected at least `chosen` and `rejected`, both text or both messages".to_owned(),
    }
}
