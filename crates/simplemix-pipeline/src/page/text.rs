//! Texts and durations as the page shows them.

use simplemix_data::{Message, Text};

/// Most characters of a text on the page.
const MOST: usize = 4000;

/// A prompt or a response: of messages, the contents under their roles, unless there is one alone; cut after 4,000 characters.
pub(super) fn plain(text: &Text) -> String {
    let text = match text {
        Text::Plain(text) => text.clone(),
        Text::Messages(turns) => match turns.as_slice() {
            [turn] => said(turn),
            turns => turns.iter().map(|turn| format!("{}: {}", turn.role, said(turn))).collect::<Vec<_>>().join("\n\n"),
        },
    };
    cut(&text)
}

/// The content of a turn; of one without, its further fields.
fn said(turn: &Message) -> String {
    match turn.content.is_empty() && !turn.fields.is_empty() {
        true => serde_json::Value::Object(turn.fields.clone()).to_string(),
        false => turn.content.clone(),
    }
}

/// The text, cut after 4,000 characters, with the number of those that are left out.
pub(super) fn cut(text: &str) -> String {
    let length = text.chars().count();
    if length <= MOST {
        return text.to_owned();
    }
    format!("{}… ({} more characters)", text.chars().take(MOST).collect::<String>(), length - MOST)
}

/// A duration in the unit that suits it.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_have_their_roles_and_single_turns_none() {
        let turns = |turns: &[(&str, &str)]| Text::Messages(turns.iter().map(|(r, c)| Message::new(*r, *c)).collect());
        assert_eq!(plain(&turns(&[("user", "2+2?")])), "2+2?");
        assert_eq!(plain(&turns(&[("system", "s"), ("user", "u")])), "system: s\n\nuser: u");
        assert!(cut(&"x".repeat(4001)).ends_with("x… (1 more characters)"));
        assert_eq!(
            (duration(3.04), duration(120.0), duration(7200.0)),
            ("3.0 s".into(), "2.0 min".into(), "2.0 h".into())
        );
    }
}
