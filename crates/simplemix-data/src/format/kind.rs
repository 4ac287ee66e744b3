//! Kinds of values in the columns of a file, found in a sample of rows.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::DataType;

use crate::cell::{Cell, List, Struct};
use crate::format::TURN_FIELDS;

/// Kind of the values of one column in the sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Absent,
    /// Only nulls so far.
    Null,
    Text,
    /// Transcripts of `\n\nHuman:` and `\n\nAssistant:`.
    Transcript,
    /// JSON lists of turns, stored as text.
    JsonMessages,
    Number,
    Bool,
    /// `{role, content}` turns: a list of them, or a struct of lists.
    Messages,
    /// `{from, value}` turns.
    ShareGpt,
    /// A single turn of either kind.
    Turn,
    EmptyList,
    /// Lists of structs with these fields.
    Structs(BTreeSet<String>),
    /// Any other type, by name.
    Other(String),
    /// Values of two different kinds.
    Mixed(Box<(Kind, Kind)>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Absent => f.write_str("absent"),
            Kind::Null => f.write_str("all null"),
            Kind::Text => f.write_str("text"),
            Kind::Transcript => f.write_str("transcript"),
            Kind::JsonMessages => f.write_str("messages as JSON text"),
            Kind::Number => f.write_str("number"),
            Kind::Bool => f.write_str("boolean"),
            Kind::Messages => f.write_str("messages"),
            Kind::ShareGpt => f.write_str("from/value turns"),
            Kind::Turn => f.write_str("one turn"),
            Kind::EmptyList => f.write_str("empty lists"),
            Kind::Structs(_) => f.write_str("list of structs"),
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
            Cell::Str(text) => Kind::of_text(text),
            Cell::List(list) => Kind::of_list(list),
            Cell::Struct(fields) => Kind::of_struct(fields),
            Cell::Other(kind) => Kind::Other(kind.to_string()),
        }
    }

    fn of_text(text: &str) -> Kind {
        if text.starts_with("\n\nHuman:") {
            return Kind::Transcript;
        }
        if text.trim_start().starts_with('[')
            && let Ok(value) = serde_json::from_str::<serde_json::Value>(text)
            && matches!(Kind::of(Cell::of_json(&value)), Kind::Messages | Kind::ShareGpt)
        {
            return Kind::JsonMessages;
        }
        Kind::Text
    }

    fn of_list(list: List<'_>) -> Kind {
        let Some(item) = list.iter().find(|item| !item.is_null()) else { return Kind::EmptyList };
        match item {
            Cell::Struct(turn) if turn.has("role") && (turn.has("content") || has_turn_field(turn)) => Kind::Messages,
            Cell::Struct(turn) if turn.has("from") && turn.has("value") => Kind::ShareGpt,
            Cell::Struct(fields) => Kind::Structs(fields.names().into_iter().map(str::to_owned).collect()),
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

    /// Kind of two rows together; nulls and empty lists fit every kind.
    fn with(self, other: Kind) -> Kind {
        use Kind::{
            Absent, EmptyList, JsonMessages, Messages, Mixed, Null, Other, ShareGpt, Structs, Text, Transcript,
        };
        match (self, other) {
            (Absent | Null, kind) | (kind, Absent | Null) => kind,
            (EmptyList, kind @ (Messages | ShareGpt | Structs(_) | Other(_)))
            | (kind @ (Messages | ShareGpt | Structs(_) | Other(_)), EmptyList) => kind,
            // A column holds transcripts, or JSON, only if all its texts do.
            (Text, Transcript | JsonMessages) | (Transcript | JsonMessages, Text) => Text,
            (Structs(a), Structs(b)) => Structs(a.union(&b).cloned().collect()),
            (a, b) if a == b => a,
            (mixed @ Mixed(_), _) => mixed,
            (a, b) => Mixed(Box::new((a, b))),
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

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Kind::Text | Kind::Transcript)
    }

    /// Whether the values are turns, in any layout.
    pub(crate) fn is_messages(&self) -> bool {
        matches!(self, Kind::Messages | Kind::ShareGpt | Kind::Turn | Kind::JsonMessages)
    }

    /// Whether the values are lists of structs with at least these fields.
    pub(crate) fn has_fields(&self, names: &[&str]) -> bool {
        matches!(self, Kind::Structs(fields) if names.iter().all(|name| fields.contains(*name)))
    }
}

/// Whether a turn without content says something in another field, such as `tool_calls`.
fn has_turn_field(turn: Struct<'_>) -> bool {
    TURN_FIELDS.iter().any(|field| turn.has(field.name))
}

/// Kinds of the columns of a sample.
pub(crate) struct Columns(Vec<(String, Kind)>);

impl Columns {
    /// Finds the kinds in the first rows of a chunk; `types` are the declared types, if the container has them.
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

    pub(crate) fn has(&self, name: &str) -> bool {
        *self.kind(name) != Kind::Absent
    }

    /// Columns that hold turns as JSON text.
    pub(crate) fn json_text(&self) -> Vec<String> {
        let json = self.0.iter().filter(|(_, kind)| *kind == Kind::JsonMessages);
        json.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn describe(&self) -> String {
        let columns: Vec<String> = self.0.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        if columns.is_empty() { "none".to_owned() } else { columns.join(", ") }
    }
}
