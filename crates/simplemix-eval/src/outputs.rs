//! Responses of a model to an evaluation set, in the official package's `model_outputs.json`.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::json::{Object, objects_and_notices};

/// A model's response to one instruction.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelOutput {
    /// The instruction.
    pub instruction: String,
    /// The response.
    pub output: String,
    /// Name of the model.
    pub generator: String,
    /// Set that the instruction comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Score of the response, where one is known; not part of the file.
    #[serde(skip)]
    pub score: Option<f64>,
}

/// Reads the responses of a model from a JSON array or JSON lines, with `instruction` and `output`, and optionally
/// `generator` and `dataset`. A model that the file does not name is named after the file. Rows that are no objects, or no text, are
/// left out; `notices` gets a sentence that counts them.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) or [`Error::Malformed`](crate::Error::Malformed), which name the row.
pub fn read_outputs(path: &Path, notices: &mut Vec<String>) -> Result<Vec<ModelOutput>> {
    let name = name_of(path, "model_outputs");
    let output = |row: Object| {
        Ok(ModelOutput {
            instruction: row.needed_text(path, &["instruction"])?,
            output: row.needed_text(path, &["output"])?,
            generator: row.text(path, &["generator"])?.unwrap_or_else(|| name.clone()),
            dataset: row.text(path, &["dataset"])?,
            score: None,
        })
    };
    objects_and_notices(path, notices)?.into_iter().map(output).collect()
}

/// The model that the name of a file stands for. The official package gives all files of a kind one name, `usual`, in a
/// folder named after the model.
pub(crate) fn name_of(path: &Path, usual: &str) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = name.split_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    if stem == usual { folder.unwrap_or(stem) } else { stem }
}

/// Writes responses in the format that the official package reads, atomically and durably.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
///
/// # Examples
/// ```
/// use simplemix_eval::{ModelOutput, read_outputs, write_outputs};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("model_outputs.json");
/// let output = ModelOutput {
///     instruction: "Say hi.".into(),
///     output: "Hi!".into(),
///     generator: "mine".into(),
///     ..ModelOutput::default()
/// };
/// write_outputs(&path, &[output.clone()])?;
/// assert_eq!(read_outputs(&path, &mut Vec::new())?, [output]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_outputs(path: &Path, outputs: &[ModelOutput]) -> Result<()> {
    let text = serde_json::to_string_pretty(outputs).expect("texts can always be written as JSON");
    Ok(simplemix_files::write(path, text + "\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<ModelOutput>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mine")).unwrap();
        let path = dir.path().join("mine").join(name);
        std::fs::write(&path, text).unwrap();
        read_outputs(&path, &mut Vec::new())
    }

    #[test]
    fn a_model_without_a_name_is_named_after_its_file() {
        let row = r#"[{"instruction": "2+2?", "output": 4}]"#;
        let found = read("other.v1.json", row).unwrap();
        assert_eq!((found[0].generator.as_str(), found[0].output.as_str()), ("other", "4"));
        assert_eq!(read("model_outputs.json", row).unwrap()[0].generator, "mine");
    }

    #[test]
    fn a_row_with_a_lone_surrogate_is_left_out_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        let rows = r#"[{"instruction": "a", "output": "\ud83d"}, {"instruction": "b", "output": "c"}]"#;
        std::fs::write(&path, rows).unwrap();
        let mut notices = Vec::new();
        let found = read_outputs(&path, &mut notices).unwrap();
        assert_eq!(found.iter().map(|output| output.instruction.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(notices[0].ends_with("m.json: 1 rows left out that cannot be read: lone-surrogate 1 (first rows 0)"));
    }

    #[test]
    fn a_row_without_a_response_is_refused_by_name() {
        let rows = r#"[{"instruction": "a", "output": ""}, {"instruction": "b", "output": null}]"#;
        let error = read("m.json", rows).unwrap_err().to_string();
        assert!(error.ends_with("m.json: row 1: no text in `output`, found null there"), "{error}");
        let error = read("m.json", r#"{"outputs": [{"instruction": "a", "output": ""}]}"#).unwrap_err().to_string();
        assert!(error.ends_with("row 0: no text in `instruction`, found the keys outputs"), "{error}");
    }
}
