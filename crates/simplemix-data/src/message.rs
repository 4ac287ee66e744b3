//! One turn of a conversation, and what a chat template is given beside the turns.

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::cell::Cell;
use crate::format::turn;

/// One turn of a conversation.
///
/// Build it with [`Message::new`]; further fields may be added.
///
/// As JSON, a message is what chat APIs and `transformers` use: `role`, `content`, and the further fields beside them.
///
/// # Examples
/// ```
/// use simplemix_data::Message;
/// let text = r#"{"role":"assistant","tool_calls":[{"function":{"name":"now","arguments":{}}}]}"#;
/// let call: Message = serde_json::from_str(text)?;
/// assert!(!call.has_content());
/// assert_eq!(serde_json::to_string(&call)?, text);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Message {
    /// Speaker: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text of the turn.
    pub content: String,
    /// Further fields that chat templates read, such as `tool_calls`, `reasoning_content` and `name`; none is null.
    pub fields: Map<String, Value>,
    /// Whether the turn has fields only, as an assistant's that calls a tool.
    without_content: bool,
}

impl Message {
    /// Builds a turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), fields: Map::new(), without_content: false }
    }

    /// Builds a turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Builds a turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Builds a system turn.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Builds a turn whose content is absent, which a chat template sees as undefined.
    pub fn without_content(role: impl Into<String>, fields: Map<String, Value>) -> Self {
        Self { role: role.into(), content: String::new(), fields, without_content: true }
    }

    /// Adds a field; a null one is left out.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.fields.insert(name.into(), value);
        }
        self
    }

    /// Whether the turn has a content, which may be empty.
    pub fn has_content(&self) -> bool {
        !self.without_content || !self.content.is_empty()
    }

    /// Number of characters of content and further fields.
    pub fn chars(&self) -> usize {
        self.content.chars().count() + fields_text(&self.fields).map_or(0, |text| text.chars().count())
    }

    /// Whether the turn says nothing: no content beside white space, no calls, no reasoning.
    pub fn is_blank(&self) -> bool {
        says_nothing(&self.content, &self.fields)
    }
}

/// Whether a turn says nothing by its content or its fields.
pub(crate) fn says_nothing(content: &str, fields: &Map<String, Value>) -> bool {
    let speaks = |(name, value): (&String, &Value)| match value {
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => false,
    } && !matches!(name.as_str(), "name" | "tool_call_id");
    content.trim_start().is_empty() && !fields.iter().any(speaks)
}

/// Fields in a fixed order, as JSON; `None` without fields.
pub(crate) fn fields_text(fields: &Map<String, Value>) -> Option<String> {
    if fields.is_empty() {
        return None;
    }
    let mut names: Vec<(&String, &Value)> = fields.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    Some(names.into_iter().map(|(name, value)| format!("{}:{value}\n", Value::from(name.as_str()))).collect())
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &self.role)?;
        if self.has_content() {
            map.serialize_entry("content", &self.content)?;
        }
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Map::deserialize(deserializer)?;
        let value = Value::Object(value);
        let Cell::Struct(fields) = Cell::of_json(&value) else { return Err(D::Error::custom("a turn is an object")) };
        match turn(fields) {
            Ok(turn) => Ok(turn.into_message()),
            Err(problem) => Err(D::Error::custom(format_args!("a turn: {problem}"))),
        }
    }
}

/// Everything beside the turns that a row gives to the chat template: the columns `tools`, `documents` and
/// `chat_template_kwargs`.
///
/// # Examples
/// ```
/// use serde_json::json;
/// use simplemix_data::TemplateInputs;
/// let tools = Some(json!([{"type": "function", "function": {"name": "now"}}]));
/// let inputs = TemplateInputs { tools, ..TemplateInputs::default() };
/// assert!(!inputs.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateInputs {
    /// Tools that the model may call: a list of JSON schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// Documents that the model may cite: a list of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<Value>,
    /// Arguments of this template, such as `enable_thinking`.
    #[serde(rename = "chat_template_kwargs", skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

impl TemplateInputs {
    /// Names of the columns.
    pub const COLUMNS: [&'static str; 3] = ["tools", "documents", "chat_template_kwargs"];

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_none() && self.documents.is_none() && self.arguments.is_empty()
    }

    /// Names and values of the columns that are not null, the values as JSON text.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        Self::COLUMNS.into_iter().filter_map(|name| Some((name, self.column(name)?)))
    }

    /// The value of a column.
    pub(crate) fn column(&self, name: &str) -> Option<String> {
        match name {
            "tools" => self.tools.as_ref().map(Value::to_string),
            "documents" => self.documents.as_ref().map(Value::to_string),
            _ if self.arguments.is_empty() => None,
            _ => Some(Value::Object(self.arguments.clone()).to_string()),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        if self.is_empty() { 0 } else { self.cells().map(|(_, text)| text.len()).sum() }
    }

    /// Reads the columns of a row, or of a prompt.
    ///
    /// # Errors
    /// The name of the column whose value is neither null nor what it should be.
    pub fn of_row(row: &Map<String, Value>) -> Result<Self, &'static str> {
        crate::format::template_inputs(crate::cell::Struct::Json(row))
    }
}
