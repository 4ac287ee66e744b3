//! Verdicts in JSON, as the official package writes them.

use std::path::Path;

use crate::alpaca::annotation::{Annotation, Annotations, Groups, Instruction};
use crate::error::Result;
use crate::json::objects;

pub(crate) fn read(path: &Path, bytes: &[u8], name: &str) -> Result<Vec<Annotations>> {
    let mut groups = Groups::default();
    for object in objects(path, bytes)? {
        let text = |keys: &[&str]| object.text(path, keys);
        let model = text(&["generator_2"])?.unwrap_or_else(|| name.to_owned());
        let rows = groups.rows(model, text(&["annotator"])?, text(&["generator_1"])?);
        let length = |text: &String| text.chars().count() as u64;
        let lengths =
            text(&["output_1"])?.as_ref().zip(text(&["output_2"])?.as_ref()).map(|(a, b)| [length(a), length(b)]);
        rows.push(Annotation {
            row: rows.len(),
            instruction: text(&["instruction"])?.map(Instruction::Text),
            preference: object.number(path, "preference")?,
            lengths,
            category: text(&["category", "dataset"])?,
        });
    }
    Ok(groups.finish())
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
        assert!(error.starts_with("a.json: row 1: `preference` is \"first\", expected a number"), "{error}");
        let error = parse("{\"preference\":1}\n{\"preference\":[]}").unwrap_err().to_string();
        assert!(error.starts_with("a.json: row 1: `preference` is a list, expected a number"), "{error}");
        assert!(parse("[{\"preference\":1}").is_err() && parse("12").is_err());
    }
}
