//! Responses of a model to an evaluation set, in the official package's `model_outputs.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::json::read_objects;

/// A model's response to one instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    /// The instruction.
    pub instruction: String,
    /// The response.
    pub output: String,
    /// Name of the model.
    #[serde(default)]
    pub generator: String,
    /// Set that the instruction comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// Reads the responses of a model from a JSON array or JSON lines.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::Malformed`](crate::Error::Malformed), which names the row.
pub fn read_outputs(path: &Path) -> Result<Vec<ModelOutput>> {
    read_objects(path)
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
///     dataset: None,
/// };
/// write_outputs(&path, &[output.clone()])?;
/// assert_eq!(read_outputs(&path)?, [output]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_outputs(path: &Path, outputs: &[ModelOutput]) -> Result<()> {
    let text = serde_json::to_string_pretty(outputs).expect("texts can always be written as JSON");
    Ok(simplemix_files::write(path, text + "\n")?)
}
