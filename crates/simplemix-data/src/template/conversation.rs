//! Messages as `transformers` hands them to a template: without null fields, and with reasoning under all of its names.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::message::Message;

/// Names of the reasoning of a turn, in the order of preference (`_REASONING_FIELDS` of `transformers` 5.24).
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Messages as a template sees them.
pub(super) struct Shown<'a>(pub(super) &'a [Message]);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Turn))
    }
}

struct Turn<'a>(&'a Message);

impl Serialize for Turn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(reasoning) = reasoning(&self.0.fields) else { return self.0.serialize(serializer) };
        let mut turn = Map::from_iter([("role".to_owned(), self.0.role.as_str().into())]);
        if self.0.has_content() {
            turn.insert("content".to_owned(), self.0.content.as_str().into());
        }
        turn.extend(self.0.fields.clone());
        with_reasoning(turn, reasoning.clone()).serialize(serializer)
    }
}

/// Messages with any fields, in the same way. What is no list of objects is left to the template.
pub(super) fn normalized(messages: &Value) -> Value {
    let normalized = |message: &Value| {
        let Value::Object(fields) = message else { return message.clone() };
        let fields: Map<String, Value> = fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Value::Object(match reasoning(&fields).cloned() {
            Some(reasoning) => with_reasoning(fields, reasoning),
            None => fields,
        })
    };
    match messages {
        Value::Array(messages) => messages.iter().map(normalized).collect(),
        other => other.clone(),
    }
}

fn reasoning(fields: &Map<String, Value>) -> Option<&Value> {
    REASONING.iter().find_map(|name| fields.get(*name))
}

/// `{"thinking": reasoning, **turn, "reasoning_content": reasoning}`
fn with_reasoning(turn: Map<String, Value>, reasoning: Value) -> Map<String, Value> {
    let mut all = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    all.extend(turn);
    all.insert("reasoning_content".to_owned(), reasoning);
    all
}
