//! Open-Assistant's conversation trees, stored as one message per row.

use std::collections::HashMap;

use crate::cell::{Cell, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::Turn;
use crate::format::meta::number;
use crate::format::ranked::{Candidate, RankedRule, pair_up};
use crate::problem::Problem;

struct Node<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    role: &'static str,
    text: &'a str,
    rank: Option<f64>,
}

/// Pairs up the ranked responses to each message of a user; the prompt is the path from the root of the tree.
///
/// Deleted messages and responses without a rank are ignored.
pub(crate) fn open_assistant<'a>(
    group: Struct<'a>,
    rule: RankedRule,
    pairs: &mut Vec<Draft<'a>>,
) -> Result<(), Problem> {
    let rows = group.get(super::GROUP).as_list().ok_or(Problem::WrongType)?;
    let nodes: Vec<Node<'a>> = rows.iter().filter_map(Cell::as_struct).filter_map(node).collect();
    let by_id: HashMap<&str, &Node<'a>> = nodes.iter().map(|node| (node.id, node)).collect();
    let mut found = Err(Problem::Unlabelled);
    for parent in nodes.iter().filter(|node| node.role == "user") {
        let answers = nodes.iter().filter(|node| node.role == "assistant" && node.parent == Some(parent.id));
        let candidates: Vec<Candidate<'a>> = answers
            .filter_map(|node| {
                let response = DraftText::Messages(vec![Turn::new("assistant", node.text)]);
                Some(Candidate { response, score: -node.rank?, model: None })
            })
            .collect();
        let Some(path) = path(parent, &by_id) else { continue };
        match pair_up(&DraftText::Messages(path), &candidates, rule, pairs) {
            Ok(()) => found = Ok(()),
            Err(Problem::Tie) if found.is_err() => found = Err(Problem::Tie),
            Err(_) => {}
        }
    }
    found
}

fn node(row: Struct<'_>) -> Option<Node<'_>> {
    if matches!(row.get("deleted"), Cell::Bool(true)) {
        return None;
    }
    let role = match row.get("role").as_str()? {
        "prompter" | "user" => "user",
        "assistant" => "assistant",
        _ => return None,
    };
    Some(Node {
        id: row.get("message_id").as_str()?,
        parent: row.get("parent_id").as_str(),
        role,
        text: row.get("text").as_str()?,
        rank: number(row.get("rank")),
    })
}

/// Turns from the root to `node`; `None` if a message on the path is missing or the links form a cycle.
fn path<'a>(node: &Node<'a>, by_id: &HashMap<&str, &Node<'a>>) -> Option<Vec<Turn<'a>>> {
    let mut turns = vec![Turn::new(node.role, node.text)];
    let mut parent = node.parent;
    while let Some(id) = parent {
        let node = by_id.get(id)?;
        turns.push(Turn::new(node.role, node.text));
        parent = node.parent;
        if turns.len() > by_id.len() {
            return None;
        }
    }
    turns.reverse();
    Some(turns)
}
