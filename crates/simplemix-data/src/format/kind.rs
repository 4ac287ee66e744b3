//! Kinds of values in the columns of a file, found in a sample of rows.
//!
//! The kind of a column is the one that most of its rows have, so that a few odd rows do not decide how all others are read.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::{DataType, Field};

use crate::cell::{Cell, List, Struct};
use crate::format::TURN_FIELDS;
use crate::format::turns_text::{TurnsText, turns_text};

/// Kind of the values of one column in the sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Absent,
    /// Only nulls so far.
    Null,
    /// Texts of white space only.
    Blank,
    Text,
    /// Transcripts of `\n\nHuman:` and `\n\nAssistant:`.
    Transcript,
    /// JSON of turns, stored as text.
    JsonMessages,
    /// Turns as Python or NumPy print them, stored as text.
    PrintedMessages,
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
    /// Values of two kinds, neither of which more than half of the rows have.
    Mixed(Box<(Kind, Kind)>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Absent => f.write_str("absent"),
            Kind::Null => f.write_str("all null"),
            Kind::Blank => f.write_str("blank text"),
            Kind::Text => f.write_str("text"),
            Kind::Transcript => f.write_str("transcript"),
            Kind::JsonMessages => f.write_str("messages as JSON text"),
            Kind::PrintedMessages => f.write_str("messages as Python prints them"),
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
            Cell::Int(_) | Cell::UInt(_) | Cell::Float(_) => Kind::Number,
            Cell::Str(text) => Kind::of_text(text),
            Cell::List(list) => Kind::of_list(list),
            Cell::Struct(fields) => Kind::of_struct(fields),
            Cell::Other(value) => Kind::Other(value.kind().to_string()),
        }
    }

    fn of_text(text: &str) -> Kind {
        if text.starts_with("\n\nHuman:") {
            return Kind::Transcript;
        }
        match turns_text(text) {
            Some(TurnsText::Json) => Kind::JsonMessages,
            Some(TurnsText::Printed) => Kind::PrintedMessages,
            None if text.trim().is_empty() => Kind::Blank,
            None => Kind::Text,
        }
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

    /// Kind that a declared type stands for, where no row shows it.
    fn of_type(kind: &DataType) -> Kind {
        match kind {
            DataType::Null => Kind::Null,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
            DataType::Dictionary(_, value) => Kind::of_type(value),
            DataType::Boolean => Kind::Bool,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Kind::of_items(item),
            DataType::Struct(fields) => {
                let field =
                    |name: &str| fields.iter().find(|field| field.name() == name).map(|field| field.data_type());
                match (field("role").or_else(|| field("from")), field("content").or_else(|| field("value"))) {
                    (Some(role), Some(_)) if role.is_list() => Kind::Messages,
                    (Some(_), Some(_)) => Kind::Turn,
                    _ => Kind::Other("struct".to_owned()),
                }
            }
            kind if kind.is_numeric() => Kind::Number,
            other => Kind::Other(other.to_string()),
        }
    }

    fn of_items(item: &Field) -> Kind {
        let DataType::Struct(fields) = item.data_type() else { return Kind::EmptyList };
        let has = |names: [&str; 2]| names.iter().all(|name| fields.iter().any(|field| field.name() == name));
        match () {
            () if has(["role", "content"]) => Kind::Messages,
            () if has(["from", "value"]) => Kind::ShareGpt,
            () => Kind::Structs(fields.iter().map(|field| field.name().clone()).collect()),
        }
    }

    /// Kinds of one class are read by the same code, or one of them can stand for the other.
    fn class(&self) -> &'static str {
        match self {
            Kind::Blank | Kind::Text | Kind::Transcript | Kind::JsonMessages | Kind::PrintedMessages => "text",
            Kind::Messages | Kind::ShareGpt | Kind::Turn => "turns",
            Kind::Structs(_) => "structs",
            Kind::Number => "number",
            Kind::Bool => "boolean",
            _ => "other",
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Kind::Blank | Kind::Text | Kind::Transcript)
    }

    /// Whether the values are texts that say something.
    pub(crate) fn speaks(&self) -> bool {
        matches!(self, Kind::Text | Kind::Transcript)
    }

    /// Whether no row of the sample shows what the column holds.
    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self, Kind::Null | Kind::Blank | Kind::EmptyList)
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

/// Number of rows of each kind in a column.
#[derive(Debug, Clone, Default)]
struct Tally(Vec<(Kind, u64)>);

impl Tally {
    fn add(&mut self, kind: Kind, rows: u64) {
        if let Kind::Structs(more) = &kind
            && let Some((Kind::Structs(fields), count)) =
                self.0.iter_mut().find(|(kind, _)| matches!(kind, Kind::Structs(_)))
        {
            fields.extend(more.iter().cloned());
            *count += rows;
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += rows,
            None => self.0.push((kind, rows)),
        }
    }

    /// The kind that more than half of the rows have; nulls and empty lists fit every kind and do not count.
    fn decide(&self) -> Kind {
        let shown = |kind: &Kind| !matches!(kind, Kind::Absent | Kind::Null | Kind::EmptyList);
        let counted: Vec<&(Kind, u64)> = self.0.iter().filter(|(kind, _)| shown(kind)).collect();
        let Some((first, _)) = counted.first() else {
            let any = |kind: Kind| self.0.iter().any(|(found, _)| *found == kind).then_some(kind);
            return any(Kind::EmptyList).or_else(|| any(Kind::Null)).unwrap_or(Kind::Absent);
        };
        let total: u64 = counted.iter().map(|(_, rows)| rows).sum();
        let same = |a: &Kind, b: &Kind| a == b || a.class() == b.class() && a.class() != "other";
        let of_class =
            |kind: &Kind| counted.iter().filter(move |(other, _)| same(kind, other)).map(|(_, n)| n).sum::<u64>();
        match counted.iter().find(|(kind, _)| 2 * of_class(kind) > total) {
            Some((kind, _)) if kind.class() == "text" => self.decide_text(),
            Some((kind, _)) => {
                let most = counted.iter().filter(|(other, _)| same(kind, other)).max_by_key(|(_, rows)| *rows);
                most.map_or(Kind::Absent, |(kind, _)| kind.clone())
            }
            None => {
                let other = counted.iter().map(|(kind, _)| kind).find(|kind| !same(first, kind)).unwrap_or(first);
                Kind::Mixed(Box::new((first.clone(), other.clone())))
            }
        }
    }

    /// Texts are transcripts, or turns as text, if more than half of those that are not blank are.
    fn decide_text(&self) -> Kind {
        let of = |kind: &Kind| self.0.iter().filter(|(found, _)| found == kind).map(|(_, rows)| rows).sum::<u64>();
        let special = [Kind::Transcript, Kind::JsonMessages, Kind::PrintedMessages];
        let spoken = of(&Kind::Text) + special.iter().map(of).sum::<u64>();
        match special.into_iter().find(|kind| 2 * of(kind) > spoken) {
            _ if spoken == 0 => Kind::Blank,
            Some(kind) => kind,
            None => Kind::Text,
        }
    }
}

/// One column of a sample.
struct Column {
    name: String,
    tally: Tally,
    /// Kind of the declared type, if the container has types.
    declared: Kind,
    kind: Kind,
}

impl Column {
    fn decide(&mut self) {
        self.kind = match self.tally.decide() {
            Kind::Null | Kind::Absent | Kind::EmptyList if self.declared != Kind::Absent => self.declared.clone(),
            kind => kind,
        };
    }
}

/// Kinds of the columns of a sample.
pub(crate) struct Columns(Vec<Column>);

impl Columns {
    /// Finds the kinds in the first rows of a chunk; `types` are the declared types, if the container has them.
    pub(crate) fn of_sample<'a>(
        names: Vec<String>,
        types: Option<&[DataType]>,
        rows: impl Iterator<Item = Struct<'a>> + Clone,
    ) -> Self {
        let column = |(index, name): (usize, String)| {
            let mut tally = Tally::default();
            rows.clone().for_each(|row| tally.add(Kind::of(row.get(&name)), 1));
            let declared = types.map_or(Kind::Absent, |types| Kind::of_type(&types[index]));
            let mut column = Column { name, tally, declared, kind: Kind::Absent };
            column.decide();
            column
        };
        Self(names.into_iter().enumerate().map(column).collect())
    }

    /// Adds the rows of a further sample; columns that this one lacks are left out.
    pub(crate) fn extend(&mut self, more: Columns) {
        for column in more.0 {
            let Some(known) = self.0.iter_mut().find(|known| known.name == column.name) else { continue };
            column.tally.0.into_iter().for_each(|(kind, rows)| known.tally.add(kind, rows));
            known.decide();
        }
    }

    /// Names of the columns whose kind no row of the sample shows.
    pub(crate) fn undecided(&self) -> Vec<String> {
        let open = self.0.iter().filter(|column| column.kind.is_undecided());
        open.map(|column| column.name.clone()).collect()
    }

    pub(crate) fn kind(&self, name: &str) -> &Kind {
        self.0.iter().find(|column| column.name == name).map_or(&Kind::Absent, |column| &column.kind)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        *self.kind(name) != Kind::Absent
    }

    /// Names and kinds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Kind)> {
        self.0.iter().map(|column| (column.name.as_str(), &column.kind))
    }

    /// Columns that hold turns as JSON text.
    pub(crate) fn json_text(&self) -> Vec<String> {
        let json = self.iter().filter(|(_, kind)| **kind == Kind::JsonMessages);
        json.map(|(name, _)| name.to_owned()).collect()
    }

    pub(crate) fn describe(&self) -> String {
        let columns: Vec<String> = self.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        if columns.is_empty() { "none".to_owned() } else { columns.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(kinds: &[(Kind, u64)]) -> Kind {
        let mut tally = Tally::default();
        kinds.iter().for_each(|(kind, rows)| tally.add(kind.clone(), *rows));
        tally.decide()
    }

    #[test]
    fn most_rows_decide_and_nulls_do_not_count() {
        assert_eq!(decided(&[(Kind::Text, 1), (Kind::Transcript, 19)]), Kind::Transcript);
        assert_eq!(decided(&[(Kind::Transcript, 1), (Kind::Text, 19)]), Kind::Text);
        assert_eq!(decided(&[(Kind::Transcript, 5), (Kind::Text, 5)]), Kind::Text);
        assert_eq!(decided(&[(Kind::Null, 300), (Kind::Blank, 9), (Kind::JsonMessages, 2)]), Kind::JsonMessages);
        assert_eq!(decided(&[(Kind::Number, 1), (Kind::Messages, 3), (Kind::ShareGpt, 2)]), Kind::Messages);
        assert_eq!(decided(&[(Kind::Null, 3), (Kind::EmptyList, 1)]), Kind::EmptyList);
        assert_eq!(decided(&[(Kind::Null, 3)]), Kind::Null);
        assert_eq!(decided(&[(Kind::Blank, 3)]), Kind::Blank);
        let halves = decided(&[(Kind::Text, 2), (Kind::Messages, 2)]);
        assert_eq!(halves.to_string(), "text in some rows and messages in others");
    }

    #[test]
    fn fields_of_structs_are_those_of_all_rows() {
        let of = |names: &[&str]| Kind::Structs(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(decided(&[(of(&["a"]), 1), (of(&["b"]), 1)]), of(&["a", "b"]));
    }
}
