//! Content of a run's folder: settings, metrics, evaluations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::curves::{Curves, read_curves};
use crate::error::{At, Error, Result};
use crate::outputs::{ModelOutput, read_outputs};

/// Data of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunData {
    /// Name of the folder.
    pub name: String,
    /// Path of the folder.
    pub path: PathBuf,
    /// Settings by key, with `section.key` for those of a section.
    pub settings: BTreeMap<String, String>,
    /// Metrics.
    pub curves: Curves,
    /// AlpacaEval's figures of the model, if they were computed.
    pub alpaca: Option<AlpacaFigures>,
    /// Responses of the model.
    pub outputs: Vec<ModelOutput>,
    /// Facts about the files that the user should know.
    pub notices: Vec<String>,
}

/// A row of `simplemix eval alpaca --json`, or of the official package's leaderboard as JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AlpacaFigures {
    /// Name of the model.
    #[serde(default)]
    pub model: String,
    /// Win rate in percent.
    pub win_rate: Option<f64>,
    /// Length-controlled win rate in percent.
    pub length_controlled_winrate: Option<f64>,
    /// Mean length of a response in characters.
    pub avg_length: Option<f64>,
    /// Figures of each category.
    #[serde(default)]
    pub categories: Vec<CategoryFigures>,
}

/// Figures of one category.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CategoryFigures {
    /// Name of the category.
    pub category: String,
    /// Win rate in percent.
    pub win_rate: Option<f64>,
    /// Length-controlled win rate in percent.
    pub length_controlled_winrate: Option<f64>,
}

const ALPACA: &str = "alpaca.json";
const OUTPUTS: &str = "model_outputs.json";

/// Reads a run's folder: `metrics.jsonl` and, if they exist, `config.toml`, `alpaca.json` and `model_outputs.json`; the
/// last two may also be in `eval/`.
///
/// # Errors
/// [`Error::Io`] if there are no metrics, or [`Error::Malformed`].
pub fn read_run(folder: &Path) -> Result<RunData> {
    let curves = read_curves(&folder.join("metrics.jsonl"))?;
    let config = folder.join("config.toml");
    let settings = if config.exists() { settings(&config)? } else { BTreeMap::new() };
    let absolute = std::path::absolute(folder).at(folder, "find")?;
    let name = absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned();
    let found = |name: &str| [folder.join(name), folder.join("eval").join(name)].into_iter().find(|path| path.exists());
    let alpaca = found(ALPACA).map(|path| alpaca(&path, &name)).transpose()?;
    let mut notices = Vec::new();
    let outputs = found(OUTPUTS).map_or(Ok(Vec::new()), |path| read_outputs(&path, &mut notices))?;
    Ok(RunData { name, path: folder.to_owned(), settings, curves, alpaca, outputs, notices })
}

fn settings(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| Error::malformed(path, e.to_string().trim_end()))?;
    let mut settings = BTreeMap::new();
    flatten("", &table, &mut settings);
    Ok(settings)
}

fn flatten(prefix: &str, table: &toml::Table, settings: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&key, table, settings),
            toml::Value::String(text) => drop(settings.insert(key, text.clone())),
            other => drop(settings.insert(key, other.to_string())),
        }
    }
}

/// Reads the row of a leaderboard for the run `name`: the only row, or the one with its name.
fn alpaca(path: &Path, name: &str) -> Result<AlpacaFigures> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let mut rows: Vec<AlpacaFigures> = serde_json::from_str(&text).map_err(|e| Error::malformed(path, e))?;
    if rows.len() == 1 {
        return Ok(rows.remove(0));
    }
    let names: Vec<String> = rows.iter().map(|row| row.model.clone()).collect();
    let own = rows.into_iter().find(|row| row.model == name);
    own.ok_or_else(|| {
        let found = if names.is_empty() { "no row".to_owned() } else { format!("rows of {}", names.join(", ")) };
        Error::malformed(path, format!("{found}, expected one row, or one of the model `{name}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("seed-1");
        std::fs::create_dir_all(run.join("eval")).unwrap();
        assert!(matches!(read_run(&run), Err(Error::Io { .. })));
        std::fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"loss\":0.5}\n").unwrap();
        std::fs::write(run.join("config.toml"), "beta = 0.1\nmodel = \"m\"\n[adamw]\nbeta1 = 0.9\n").unwrap();
        std::fs::write(run.join("eval/alpaca.json"), "[{\"model\":\"x\",\"win_rate\":12.5,\"avg_length\":900}]")
            .unwrap();
        let read = read_run(&run).unwrap();
        assert_eq!(
            (read.name.as_str(), read.settings["adamw.beta1"].as_str(), read.settings["model"].as_str()),
            ("seed-1", "0.9", "m")
        );
        assert_eq!(read.alpaca.unwrap().win_rate, Some(12.5));
        std::fs::write(run.join("alpaca.json"), "[{\"model\":\"x\"},{\"model\":\"y\"}]").unwrap();
        let error = read_run(&run).unwrap_err().to_string();
        assert!(error.ends_with("rows of x, y, expected one row, or one of the model `seed-1`"), "{error}");
    }
}
