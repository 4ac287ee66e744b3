//! Verdicts in JSON, as the official package writes them.

use std::path::Path;

use serde::Deserialize;

use crate::alpaca::annotation::{Annotation, Annotations, Instruction};
use crate::error::Result;
use crate::json::objects;

/// Keys of an official annotation that are used here.
#[derive(Debug, Deserialize)]
struct Entry {
    preference: Option<f64>,
    instruction: Option<String>,
    output_1: Option<String>,
    output_2: Option<String>,
    generator_1: Option<String>,
    generator_2: Option<String>,
    #[serde(alias = "dataset")]
    category: Option<String>,
}

pub(crate) fn read(path: &Path, bytes: &[u8], name: &str) -> Result<Vec<Annotations>> {
    let bytes = without_nan(bytes);
    let mut models: Vec<Annotations> = Vec::new();
    for entry in objects::<Entry>(path, &bytes)? {
        let model = entry.generator_2.unwrap_or_else(|| name.to_owned());
        let found = models.iter().position(|known| known.model == model);
        let place = found.unwrap_or_else(|| {
            models.push(Annotations { model, baseline: entry.generator_1.clone(), rows: Vec::new() });
            models.len() - 1
        });
        let rows = &mut models[place].rows;
        let length = |text: &String| text.chars().count() as u64;
        rows.push(Annotation {
            row: rows.len(),
            instruction: entry.instruction.map(Instruction::Text),
            preference: entry.preference.filter(|p| p.is_finite()),
            lengths: entry.output_1.as_ref().zip(entry.output_2.as_ref()).map(|(a, b)| [length(a), length(b)]),
            category: entry.category,
        });
    }
    Ok(models)
}

/// Replaces `NaN` and `Infinity`, which Python writes although JSON does not have them, by `null`.
fn without_nan(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut kept, mut start, mut place, mut in_text) = (Vec::new(), 0, 0, false);
    while place < bytes.len() {
        match bytes[place] {
            b'\\' if in_text => place += 1,
            b'"' => in_text = !in_text,
            b'N' | b'I' | b'-' if !in_text => {
                if let Some(name) = NAMES.into_iter().find(|name| bytes[place..].starts_with(name)) {
                    kept.extend_from_slice(&bytes[start..place]);
                    kept.extend_from_slice(b"null");
                    place += name.len();
                    start = place;
                    continue;
                }
            }
            _ => {}
        }
        place += 1;
    }
    if kept.is_empty() {
        return bytes.into();
    }
    kept.extend_from_slice(&bytes[start..]);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Annotations>> {
        read(Path::new("a.json"), text.as_bytes(), "a")
    }

    #[test]
    fn arrays_and_lines_are_the_same() {
        let row = |p: &str, model: &str| {
            format!(
                r#"{{"instruction":"NaN \" -Infinity","output_1":"aä","output_2":"b","preference":{p},"generator_2":"{model}","dataset":"koala","annotator":"x"}}"#
            )
        };
        let (a, b, c) = (row("1.25", "m"), row("NaN", "m"), row("null", "k"));
        let array = parse(&format!("[{a},{b},{c}]")).unwrap();
        assert_eq!(array, parse(&format!("{a}\n{b}\n{c}\n")).unwrap());
        assert_eq!((array.len(), array[0].model.as_str(), array[0].rows.len()), (2, "m", 2));
        assert_eq!(array[0].rows[0].lengths, Some([2, 1]));
        assert_eq!(array[0].rows[0].instruction, Some(Instruction::Text("NaN \" -Infinity".into())));
        assert_eq!((array[0].rows[1].preference, array[1].rows[0].preference), (None, None));
        assert_eq!(array[1].rows[0].category.as_deref(), Some("koala"));
    }

    #[test]
    fn an_error_names_the_row() {
        let error = parse(r#"[{"preference":1},{"preference":"first"}]"#).unwrap_err().to_string();
        assert!(error.starts_with("a.json: row 1: invalid type: string \"first\", expected f64"), "{error}");
        let error = parse("{\"preference\":1}\n{\"preference\":[]}").unwrap_err().to_string();
        assert!(error.starts_with("a.json: row 1: invalid type: sequence, expected f64"), "{error}");
        assert!(parse("[{\"preference\":1}").is_err() && parse("12").is_err());
    }
}
