//! Turns stored as text: JSON of them, or what Python and NumPy print for them.

use serde_json::Value;

use crate::cell::Cell;
use crate::format::Kind;

/// Form of a text that stands for turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnsText {
    /// JSON of a list of turns, or of one turn.
    Json,
    /// Printed by Python or NumPy, or JSON in which the turns lie deeper; it is not read.
    Printed,
}

/// Tells texts that stand for turns from other texts, of which JSON is one.
pub(crate) fn turns_text(text: &str) -> Option<TurnsText> {
    let text = text.trim();
    if !text.starts_with(['[', '{', '"']) || !names_turns(text) {
        return None;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(inner)) => turns_text(&inner).map(|_| TurnsText::Printed),
        Ok(value) if is_turns(&value) => Some(TurnsText::Json),
        Ok(Value::Object(fields)) => fields.values().any(is_turns).then_some(TurnsText::Printed),
        Ok(_) => None,
        Err(_) => is_printed(text).then_some(TurnsText::Printed),
    }
}

/// Whether the words are there without which no text stands for turns.
fn names_turns(text: &str) -> bool {
    text.contains("role") && text.contains("content") || text.contains("from") && text.contains("value")
}

fn is_turns(value: &Value) -> bool {
    match Kind::of(Cell::of_json(value)) {
        Kind::Messages | Kind::ShareGpt => true,
        Kind::Turn => ["content", "value", "tool_calls"].iter().any(|name| value.get(name).is_some()),
        _ => false,
    }
}

/// Whether a text is a list or dict of turns as Python prints it, such as `[{'role': 'user', 'content': 'a'}]`.
fn is_printed(text: &str) -> bool {
    let is_closed = text.starts_with('[') && text.ends_with(']') || text.starts_with('{') && text.ends_with('}');
    let has = |names: [&str; 2]| names.iter().all(|name| text.contains(&format!("'{name}':")));
    is_closed && (has(["role", "content"]) || has(["from", "value"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_told_from_other_texts() {
        for (text, expected) in [
            (r#" [{"role": "user", "content": "a"}]"#, Some(TurnsText::Json)),
            (r#"{"from": "human", "value": "a"}"#, Some(TurnsText::Json)),
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, Some(TurnsText::Printed)),
            (r#""[{\"role\": \"user\", \"content\": \"a\"}]""#, Some(TurnsText::Printed)),
            ("[{'role': 'user', 'content': \"it's\"}]", Some(TurnsText::Printed)),
            ("[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'assistant'}]", Some(TurnsText::Printed)),
            (r#"{"role": "admin", "contents": 3}"#, None),
            (r#"[{"name": "a"}, {"name": "b"}]"#, None),
            ("[from a valued friend]", None),
            ("The role of content", None),
        ] {
            assert_eq!(turns_text(text), expected, "{text}");
        }
    }
}
