//! Fields of turns beside role and content, and columns beside the texts, that chat templates read.

use serde_json::{Map, Value};

use crate::cell::{Cell, Struct};
use crate::message::TemplateInputs;
use crate::problem::Problem;

/// A field of turns that is kept.
pub(crate) struct TurnField {
    pub(crate) name: &'static str,
    /// Whether the values are texts; else they are any JSON values.
    pub(crate) is_text: bool,
}

const fn text(name: &'static str) -> TurnField {
    TurnField { name, is_text: true }
}

const fn json(name: &'static str) -> TurnField {
    TurnField { name, is_text: false }
}

/// Fields that the chat templates of published models read, in the order of the canonical schema.
pub(crate) const TURN_FIELDS: [TurnField; 13] = [
    text("name"),
    text("reasoning_content"),
    text("reasoning"),
    text("thinking"),
    text("tool_plan"),
    json("tool_calls"),
    text("tool_call_id"),
    json("function_call"),
    // OLMo 3.
    json("function_calls"),
    json("functions"),
    json("tools"),
    json("documents"),
    json("citations"),
];

impl TurnField {
    /// Adds the value of a cell that is not null to `fields`.
    pub(crate) fn read(
        &self,
        cell: Cell<'_>,
        holds_json: bool,
        fields: &mut Map<String, Value>,
    ) -> Result<(), Problem> {
        let value = match cell {
            Cell::Str(text) if self.is_text => text.into(),
            _ if self.is_text => return Err(Problem::WrongType),
            Cell::Str(text) if holds_json => serde_json::from_str(text).map_err(|_| Problem::WrongType)?,
            Cell::Str(text) => json_of(text).unwrap_or_else(|| text.into()),
            cell => cell.to_json(),
        };
        if !value.is_null() {
            fields.insert(self.name.to_owned(), value);
        }
        Ok(())
    }
}

/// A list or object that is stored as text.
pub(crate) fn json_of(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Columns of images and the like, which no model here can see.
const MEDIA: [&str; 6] = ["images", "image", "videos", "video", "audios", "audio"];

/// Whether the column holds images or the like.
pub(crate) fn is_media(column: &str) -> bool {
    MEDIA.contains(&column)
}

/// Whether a row has images or the like.
pub(crate) fn has_media(row: Struct<'_>) -> bool {
    MEDIA.iter().any(|name| match row.get(name) {
        Cell::Null => false,
        Cell::List(list) => list.iter().any(|item| !item.is_null()),
        Cell::Str(text) => !text.is_empty(),
        // `datasets` writes an absent image as a struct of nulls.
        Cell::Struct(fields) => fields.names().into_iter().any(|name| !fields.get(name).is_null()),
        _ => true,
    })
}

/// Arguments that `apply_chat_template` takes by name, which a row cannot give once more.
const RESERVED: [&str; 6] =
    ["messages", "tools", "conversation", "chat_template", "add_generation_prompt", "continue_final_message"];

/// Reads the columns `tools`, `documents` and `chat_template_kwargs`; the error names the column that is none of these.
pub(crate) fn template_inputs(row: Struct<'_>) -> Result<TemplateInputs, &'static str> {
    let arguments = match value(row, "chat_template_kwargs")? {
        None => Map::new(),
        Some(Value::Object(arguments)) if !arguments.keys().any(|key| RESERVED.contains(&key.as_str())) => arguments,
        Some(_) => return Err("chat_template_kwargs"),
    };
    Ok(TemplateInputs { tools: objects(row, "tools")?, documents: objects(row, "documents")?, arguments })
}

/// A list of objects, each of which may be stored as text.
fn objects(row: Struct<'_>, name: &'static str) -> Result<Option<Value>, &'static str> {
    let Some(Value::Array(items)) = value(row, name)?.map(listed) else { return Ok(None) };
    let object = |item: Value| match item {
        Value::Object(_) => Ok(item),
        Value::String(text) => json_of(&text).filter(Value::is_object).ok_or(name),
        _ => Err(name),
    };
    Ok(Some(Value::Array(items.into_iter().map(object).collect::<Result<_, _>>()?)))
}

/// A single object stands for a list of one.
fn listed(value: Value) -> Value {
    match value {
        Value::Array(_) => value,
        one => Value::Array(vec![one]),
    }
}

/// Value of a column, also where it is stored as text; `None` where it is null or an empty text.
fn value(row: Struct<'_>, name: &'static str) -> Result<Option<Value>, &'static str> {
    match row.get(name) {
        Cell::Null => Ok(None),
        Cell::Str(text) if text.trim().is_empty() || text.trim() == "null" => Ok(None),
        Cell::Str(text) => json_of(text).map(Some).ok_or(name),
        cell => Ok(Some(cell.to_json())),
    }
}
