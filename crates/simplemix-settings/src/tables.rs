//! Declared settings as text: a commented TOML file, and tables for the documentation.

use std::fmt::Write as _;

use crate::field::{Field, Section};

/// A TOML file with every default and its meaning; settings without a default are commented out.
pub fn toml_template(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let rule = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{rule}# {}", section.doc());
        if !section.name.is_empty() {
            let _ = writeln!(text, "[{}]", section.name);
        }
        for field in section.fields {
            let _ = writeln!(text, "\n# {}\n# {}", field.doc(), capital(&allowed(field)));
            let _ = match field.default_text() {
                Some(value) => writeln!(text, "{} = {value}", field.key),
                None => writeln!(text, "# {} =", field.key),
            };
        }
    }
    text
}

/// A table of Markdown for each section: key, allowed values, default, meaning.
pub fn markdown(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let rule = if text.is_empty() { "" } else { "\n" };
        let _ = match section.name {
            "" => writeln!(text, "{rule}{}:\n", section.doc()),
            name => writeln!(text, "{rule}`[{name}]`: {}:\n", section.doc()),
        };
        text.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for field in section.fields {
            let default = match (field.default_text(), field.source) {
                (Some(value), Some(source)) => format!("`{value}` ({source})"),
                (Some(value), None) => format!("`{value}`"),
                (None, _) => "not set".to_owned(),
            };
            let cells = [format!("`{}`", field.key), allowed(field), default, field.doc().to_owned()];
            let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    text
}

/// Allowed values with their unit: `a whole number >= 1, tokens`.
fn allowed(field: &Field) -> String {
    let unit = field.unit.map_or(String::new(), |unit| format!(", {unit}"));
    format!("{}{unit}", field.expected())
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
