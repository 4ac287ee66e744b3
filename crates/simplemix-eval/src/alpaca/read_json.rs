//! Verdicts in JSON, as the official package writes them.

use std::path::Path;

use crate::alpaca::annotation::{Annotation, Annotations, Groups, Instruction};
use crate::error::Result;
use crate::json::read_objects;

/// Reads the verdicts. A row that is left out stays one of the list that the row before it is in, or the first one.
pub(crate) fn read(path: &Path, name: &str) -> Result<Vec<Annotations>> {
    let mut groups = Groups::default();
    let (objects, refused) = read_objects(path)?;
    let (mut read, mut last, mut left) = (0, None, refused.total() as usize);
    for object in objects {
        let text = |keys: &[&str]| object.text(path, keys);
        let model = text(&["generator_2"])?.unwrap_or_else(|| name.to_owned());
        let place = groups.place(model, text(&["annotator"])?, text(&["generator_1"])?);
        let skipped = object.row - read;
        (read, left) = (object.row + 1, left - skipped);
        groups.leave_out(last.unwrap_or(place), skipped);
        last = Some(place);
        let of = groups.at(place);
        let length = |text: &String| text.chars().count() as u64;
        let lengths =
            text(&["output_1"])?.as_ref().zip(text(&["output_2"])?.as_ref()).map(|(a, b)| [length(a), length(b)]);
        of.rows.push(Annotation {
            row: of.rows.len() + of.refused,
            instruction: text(&["instruction"])?.map(Instruction::Text),
            preference: object.number(path, "preference")?,
            lengths,
            category: text(&["category", "dataset"])?,
        });
    }
    groups.leave_out(last.unwrap_or_default(), left);
    Ok(groups.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Annotations>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.json"), text).unwrap();
        read(&dir.path().join("a.json"), "a")
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
    fn a_category_may_stand_beside_the_data_set() {
        let found = parse(
            r#"[{"preference": 1, "category": "math", "dataset": "koala"},
                {"preference": 2, "category": null, "dataset": "koala"}]"#,
        );
        let found = found.unwrap().remove(0).rows;
        assert_eq!([&found[0], &found[1]].map(|row| row.category.as_deref()), [Some("math"), Some("koala")]);
    }

    #[test]
    fn judges_and_baselines_are_kept_apart() {
        let row = |judge: &str, base: &str, p: f64| {
            format!(r#"{{"generator_2":"m","annotator":"{judge}","generator_1":"{base}","preference":{p}}}"#)
        };
        let text = [row("x", "b", 1.0), row("y", "b", 2.0), row("x", "c", 2.0), row("x", "b", 1.25)].join("\n");
        let found = parse(&text).unwrap();
        let all: Vec<_> = found.iter().map(|m| (m.annotator.as_deref(), m.baseline.as_deref(), m.rows.len())).collect();
        assert_eq!(all, [(Some("x"), Some("b"), 2), (Some("y"), Some("b"), 1), (Some("x"), Some("c"), 1)]);
        assert_eq!(found[0].rows[1].row, 1);
    }

    #[test]
    fn an_error_names_the_row() {
        let error = parse(r#"[{"preference":1},{"preference":"first"}]"#).unwrap_err().to_string();
        assert!(error.ends_with("a.json: row 1: `preference` is \"first\", expected a number"), "{error}");
        let error = parse("{\"preference\":1}\n{\"preference\":[]}").unwrap_err().to_string();
        assert!(error.ends_with("a.json: row 1: `preference` is a list, expected a number"), "{error}");
        assert!(parse("[{\"preference\":1}").is_err() && parse("12").is_err());
    }

    /// The official package looks up how hard an instruction is by the verdict's place in the list.
    #[test]
    fn a_row_that_is_no_text_is_left_out_and_keeps_its_place() {
        let row = |output: &str, p: f64| format!(r#"{{"output_1": "{output}", "output_2": "b", "preference": {p}}}"#);
        let text = [row("a", 1.0), row(r"\ud800", 2.0), row("c", 1.5), row(r"\ud83d x", 2.0)].join("\n");
        let found = parse(&text).unwrap().remove(0);
        let places: Vec<_> = found.rows.iter().map(|row| (row.row, row.preference)).collect();
        assert_eq!(places, [(0, Some(1.0)), (2, Some(1.5))]);
        assert_eq!((found.refused, found.findings().refused), (2, 2));
        let clauses = found.findings().clauses();
        assert!(
            clauses[0].starts_with("2 more left out, which are no objects or hold a lone surrogate"),
            "{clauses:?}"
        );
        let first = parse(&[row(r"\ud800", 2.0), row("a", 1.0)].join("\n")).unwrap().remove(0);
        assert_eq!((first.rows[0].row, first.refused), (1, 1));
        assert!(parse(&row(r"\ud800", 2.0)).unwrap().is_empty());
    }
}
