//! Turns of a conversation, from the layouts in which files store them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::cell::{Cell, List, Struct};
use crate::draft::DraftText;
use crate::format::turn_fields::TURN_FIELDS;
use crate::format::turns_text::turns_text;
use crate::message::{Message, fields_text, says_nothing};
use crate::problem::Problem;

/// One turn, borrowed from the file where possible.
#[derive(Debug, Clone)]
pub(crate) struct Turn<'a> {
    pub(crate) role: Cow<'a, str>,
    pub(crate) content: Cow<'a, str>,
    /// False if the content is absent, as beside calls of tools.
    pub(crate) has_content: bool,
    /// Further fields that are kept.
    pub(crate) fields: Map<String, Value>,
    /// Role as the file has it, where it was spelt otherwise.
    pub(crate) respelt: Option<&'a str>,
    /// Fields of the file that are not kept.
    pub(crate) unread: Vec<&'a str>,
}

impl PartialEq for Turn<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same_content = self.content == other.content && self.has_content == other.has_content;
        self.role == other.role && same_content && self.fields == other.fields
    }
}

impl<'a> Turn<'a> {
    pub(crate) fn new(role: impl Into<Cow<'a, str>>, content: impl Into<Cow<'a, str>>) -> Self {
        let (role, content) = (role.into(), content.into());
        Self { role, content, has_content: true, fields: Map::new(), respelt: None, unread: Vec::new() }
    }

    pub(crate) fn of_message(message: &'a Message) -> Self {
        let turn = Self::new(&message.role, &message.content);
        Self { has_content: message.has_content(), fields: message.fields.clone(), ..turn }
    }

    pub(crate) fn into_message(self) -> Message {
        if !self.has_content {
            return Message::without_content(self.role, self.fields);
        }
        let mut message = Message::new(self.role, self.content);
        message.fields = self.fields;
        message
    }

    pub(crate) fn bytes(&self) -> usize {
        self.role.len() + self.content.len() + fields_text(&self.fields).map_or(0, |text| text.len())
    }
}

/// The text of a cell, or the problem with it.
pub(crate) fn text(cell: Cell<'_>, if_missing: Problem) -> Result<&str, Problem> {
    match cell {
        Cell::Str(text) if turns_text(text).is_some() => Err(Problem::TurnsAsText),
        Cell::Str(text) => Ok(text),
        Cell::Null => Err(if_missing),
        _ => Err(Problem::WrongType),
    }
}

/// A prompt that is one turn of the user.
pub(crate) fn user(cell: Cell<'_>) -> Result<DraftText<'_>, Problem> {
    Ok(DraftText::Messages(vec![Turn::new("user", text(cell, Problem::EmptyPrompt)?)]))
}

/// A response that is one turn of the assistant.
pub(crate) fn answer(cell: Cell<'_>, if_missing: Problem) -> Result<DraftText<'_>, Problem> {
    Ok(DraftText::Messages(vec![Turn::new("assistant", text(cell, if_missing)?)]))
}

/// Turns from a list of `{role, content}` or `{from, value}`, or from a struct of such lists.
pub(crate) fn turns(cell: Cell<'_>) -> Result<Vec<Turn<'_>>, Problem> {
    match cell {
        Cell::Null => Ok(Vec::new()),
        Cell::List(list) => list.iter().map(|cell| turn(cell.as_struct().ok_or(Problem::WrongType)?)).collect(),
        Cell::Struct(fields) => match columns(fields) {
            Some((roles, contents)) => transposed(fields, roles, contents),
            None => Ok(vec![turn(fields)?]),
        },
        _ => Err(Problem::WrongType),
    }
}

/// Lists of roles and contents, as `datasets` stores `Sequence({"role": ..., "content": ...})`.
fn columns(fields: Struct<'_>) -> Option<(List<'_>, List<'_>)> {
    Some((fields.first(&["role", "from"]).as_list()?, fields.first(&["content", "value"]).as_list()?))
}

fn transposed<'a>(fields: Struct<'a>, roles: List<'a>, contents: List<'a>) -> Result<Vec<Turn<'a>>, Problem> {
    if roles.len() != contents.len() {
        return Err(Problem::WrongType);
    }
    let turn = |(number, (role, content))| {
        let cell = |name: &'a str| fields.get(name).as_list().map_or(Cell::Null, |list| list.get(number));
        turn_of(role, content, fields, &cell)
    };
    roles.iter().zip(contents.iter()).enumerate().map(turn).collect()
}

/// The turn that an object is.
pub(crate) fn turn(fields: Struct<'_>) -> Result<Turn<'_>, Problem> {
    let (role, content) = (fields.first(&["role", "from"]), fields.first(&["content", "value"]));
    turn_of(role, content, fields, &|name| fields.get(name))
}

/// A turn of `role` and `content`; `cell` returns its value of each further field of `fields`.
fn turn_of<'a>(
    role: Cell<'a>,
    content: Cell<'a>,
    fields: Struct<'a>,
    cell: &dyn Fn(&'a str) -> Cell<'a>,
) -> Result<Turn<'a>, Problem> {
    let role = role.as_str().ok_or(Problem::MissingRole)?;
    let mut turn = Turn::new(canonical_role(role), "");
    turn.respelt = (turn.role != role && !is_usual(role)).then_some(role);
    // A turn of two fields has these.
    let further = if fields.len() == 2 && !content.is_null() { Vec::new() } else { fields.names() };
    for name in further {
        if ["role", "from", "content", "value"].contains(&name) {
            continue;
        }
        let value = cell(name);
        match TURN_FIELDS.iter().find(|field| field.name == name) {
            _ if value.is_null() => {}
            Some(field) => field.read(value, fields.holds_json(name), &mut turn.fields)?,
            None => turn.unread.push(name),
        }
    }
    match content {
        Cell::Str(text) => turn.content = text.into(),
        Cell::List(parts) => turn.content = joined(parts)?,
        Cell::Null if !says_nothing("", &turn.fields) => turn.has_content = false,
        _ => return Err(Problem::MissingContent),
    }
    Ok(turn)
}

/// The text of a content that is a list of parts: their texts, one after the other.
fn joined(parts: List<'_>) -> Result<Cow<'_, str>, Problem> {
    let mut text = Cow::Borrowed("");
    for part in parts.iter() {
        let part = match part {
            Cell::Str(part) => part,
            Cell::Struct(part) => {
                let is_text = matches!(part.get("type"), Cell::Null | Cell::Str("text" | "input_text" | "output_text"));
                part.get("text").as_str().filter(|_| is_text).ok_or(Problem::ContentPart)?
            }
            _ => return Err(Problem::ContentPart),
        };
        text += part;
    }
    Ok(text)
}

/// Canonical name of a role of ShareGPT, Open-Assistant, Gemini and others, in any case of letters.
fn canonical_role(role: &str) -> Cow<'_, str> {
    if ["user", "assistant", "system", "tool"].contains(&role) {
        return role.into();
    }
    match role.trim().to_ascii_lowercase().as_str() {
        "human" | "prompter" | "user" => "user".into(),
        "gpt" | "function_call" | "model" | "bot" | "chatbot" | "chatgpt" | "ai" | "assistant" => "assistant".into(),
        "developer" | "system" => "system".into(),
        "observation" | "tool" => "tool".into(),
        _ => role.into(),
    }
}

/// Whether a role is spelt as its format prescribes.
fn is_usual(role: &str) -> bool {
    ["human", "prompter", "gpt", "function_call", "observation"].contains(&role)
}

/// Shared beginning of two conversations, and the rest of each.
pub(crate) struct Split<'a> {
    pub(crate) prompt: Vec<Turn<'a>>,
    pub(crate) chosen: Vec<Turn<'a>>,
    pub(crate) rejected: Vec<Turn<'a>>,
}

/// Splits at the first turn that differs, as TRL's `extract_prompt` does.
///
/// If nothing differs, or one side is the beginning of the other, TRL takes the last shared turn as a response. Here, the
/// row is refused, since no response is left to compare.
pub(crate) fn split_at_difference<'a>(
    mut chosen: Vec<Turn<'a>>,
    mut rejected: Vec<Turn<'a>>,
) -> Result<Split<'a>, Problem> {
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    if chosen.is_empty() {
        return Err(Problem::EmptyChosen);
    }
    if rejected.is_empty() {
        return Err(Problem::EmptyRejected);
    }
    match (shared == chosen.len(), shared == rejected.len()) {
        (true, true) => return Err(Problem::IdenticalSides),
        (true, false) | (false, true) => return Err(Problem::OneSideIsPrefix),
        (false, false) => {}
    }
    let chosen_rest = chosen.split_off(shared);
    let rejected_rest = rejected.split_off(shared);
    Ok(Split { prompt: chosen, chosen: chosen_rest, rejected: rejected_rest })
}
