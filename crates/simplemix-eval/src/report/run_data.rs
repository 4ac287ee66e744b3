//! Content of a run's folder: settings, metrics, evaluations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::curves::{Curves, read_curves};
use crate::error::{At, Error, Result};
use crate::outputs::{ModelOutput, read_outputs};
use crate::report::harness::{BenchmarkScore, beside, read_benchmarks};
use crate::report::pipeline::{self, HeldOutScore};

/// Data of one run.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Scores of responses to held-out prompts, over all and by task, if the run is a pipeline with an evaluation.
    pub scores: Vec<HeldOutScore>,
    /// Figures of lm-eval or lighteval.
    pub benchmarks: Vec<BenchmarkScore>,
    /// Responses of the model.
    pub outputs: Vec<ModelOutput>,
    /// Facts about the files that the user should know.
    pub notices: Vec<String>,
}

impl RunData {
    /// Seed of the run, where its settings name one.
    pub fn seed(&self) -> Option<&str> {
        ["seed", "train.seed"].iter().find_map(|key| self.settings.get(*key)).map(String::as_str)
    }
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

/// Reads a run: the folder of a training, the folder of a pipeline, or a results file of lm-eval or lighteval.
///
/// A training has `metrics.jsonl` and may have `config.toml`. A pipeline has `summary.json` and `pipeline.toml`; the curves are those of
/// the last training. Either folder, or its subfolder `eval/`, may hold `alpaca.json`, `model_outputs.json` and results of lm-eval and
/// lighteval (`results*.json`, also in folders below).
///
/// # Errors
/// [`Error::Io`] if there are no metrics, or [`Error::Malformed`].
pub fn read_run(path: &Path) -> Result<RunData> {
    let absolute = std::path::absolute(path).at(path, "find")?;
    let name = absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned();
    if path.is_file() {
        let results = read_benchmarks(path)?;
        let name = results.model.unwrap_or(name);
        return Ok(RunData { name, path: path.to_owned(), benchmarks: results.scores, ..RunData::default() });
    }
    let mut run = if path.join(pipeline::SUMMARY).is_file() { pipeline::read(path)? } else { training(path)? };
    let found = |name: &str| [path.join(name), path.join("eval").join(name)].into_iter().find(|path| path.exists());
    run.alpaca = found(ALPACA).map(|path| alpaca(&path, &name)).transpose()?;
    if let Some(outputs) = found(OUTPUTS) {
        run.outputs = read_outputs(&outputs, &mut run.notices)?;
    }
    run.benchmarks = beside(path, &mut run.notices)?;
    Ok(RunData { name, path: path.to_owned(), ..run })
}

fn training(folder: &Path) -> Result<RunData> {
    let curves = read_curves(&folder.join("metrics.jsonl"))?;
    let config = folder.join("config.toml");
    let settings = if config.exists() { settings(&config)? } else { BTreeMap::new() };
    Ok(RunData { curves, settings, ..RunData::default() })
}

/// Settings of a TOML file by key.
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`].
pub(crate) fn settings(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    settings_by_key(&text).map_err(|message| Error::malformed(path, message))
}

/// Values of a TOML text by key, with `section.key` for those of a section. Texts are without quotes.
///
/// # Errors
/// The message of the parser, if the text is no TOML.
///
/// # Examples
/// ```
/// let settings = simplemix_eval::report::settings_by_key("seed = 1\n[loss]\nname = \"ipo\"\n")?;
/// assert_eq!((settings["seed"].as_str(), settings["loss.name"].as_str()), ("1", "ipo"));
/// # Ok::<(), String>(())
/// ```
pub fn settings_by_key(text: &str) -> std::result::Result<BTreeMap<String, String>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
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
