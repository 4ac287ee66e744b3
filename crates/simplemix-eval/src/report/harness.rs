//! Results of lm-evaluation-harness and lighteval: scores of a model by task, with their standard errors.
//!
//! Both write `{"results": {TASK: {METRIC: number, ...}}}`. lm-eval names a metric `METRIC,FILTER` and its error
//! `METRIC_stderr,FILTER`, where the filter is often `none`; lighteval `METRIC` and `METRIC_stderr`, beside means over all tasks
//! under the task `all`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{At, Error, Result};

/// Score of a model in one metric of one task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BenchmarkScore {
    /// Name of the task, such as `gsm8k`.
    pub task: String,
    /// Name of the metric, such as `exact_match` or `exact_match, strict-match`.
    pub metric: String,
    /// The score, on the scale of the metric.
    pub value: f64,
    /// Standard error over the examples of the task, where the file tells it.
    pub standard_error: Option<f64>,
}

/// Content of a results file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Benchmarks {
    /// Name of the model, where the file tells it.
    pub model: Option<String>,
    /// Scores, by task and metric.
    pub scores: Vec<BenchmarkScore>,
}

/// Reads a results file of lm-eval or lighteval.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Malformed`] if it is no JSON, has no object `results`, or none of its metrics is a number.
///
/// # Examples
/// ```
/// use simplemix_eval::report::read_benchmarks;
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("results.json");
/// std::fs::write(&path, r#"{"results": {"gsm8k": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.01}}}"#)?;
/// let score = &read_benchmarks(&path)?.scores[0];
/// assert_eq!((score.task.as_str(), score.value, score.standard_error), ("gsm8k", 0.5, Some(0.01)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_benchmarks(path: &Path) -> Result<Benchmarks> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let file: Value = serde_json::from_str(&text).map_err(|error| Error::malformed(path, error))?;
    let Some(results) = file.get("results").and_then(Value::as_object) else {
        return Err(Error::malformed(path, "no object `results`, expected a results file of lm-eval or lighteval"));
    };
    let of_task = |(task, metrics): (&String, &Value)| {
        metrics.as_object().map(|metrics| scores(task, metrics)).unwrap_or_default()
    };
    // lighteval's means over all tasks mix metrics.
    let scores: Vec<BenchmarkScore> = results.iter().filter(|(task, _)| *task != "all").flat_map(of_task).collect();
    if scores.is_empty() {
        return Err(Error::malformed(path, "no metric in `results` is a number"));
    }
    let named = ["/model_name", "/config_general/model_name", "/config/model"];
    let model = named.iter().find_map(|pointer| file.pointer(pointer)?.as_str());
    Ok(Benchmarks { model: model.map(str::to_owned), scores })
}

const ERROR: &str = "_stderr";

fn scores(task: &str, metrics: &Map<String, Value>) -> Vec<BenchmarkScore> {
    let split =
        |name: &str| name.split_once(',').map_or((name.to_owned(), None), |(m, f)| (m.to_owned(), Some(f.to_owned())));
    let error_of = |metric: &str, filter: Option<&str>| {
        let name = filter.map_or_else(|| format!("{metric}{ERROR}"), |filter| format!("{metric}{ERROR},{filter}"));
        metrics.get(&name).and_then(Value::as_f64).filter(|error| error.is_finite())
    };
    let score = |(name, value): (&String, &Value)| {
        let (metric, filter) = split(name);
        let value = value.as_f64().filter(|value| value.is_finite())?;
        // `sample_len` is a number of examples, not a score.
        if metric.ends_with(ERROR) || metric == "sample_len" || metric == "alias" {
            return None;
        }
        let standard_error = error_of(&metric, filter.as_deref());
        let metric = match filter.as_deref() {
            None | Some("none") => metric,
            Some(filter) => format!("{metric}, {filter}"),
        };
        Some(BenchmarkScore { task: task.to_owned(), metric, value, standard_error })
    };
    metrics.iter().filter_map(score).collect()
}

/// Deepest folder below a run's `eval/` in which results are looked for: lm-eval makes one for each model.
const DEPTH: usize = 3;

/// Scores of the results files in a run's folder and in the folders below its `eval/`. Of two files with the same metric of the same
/// task the one with the later name counts, since both programs put the time into names; `notices` says so.
pub(crate) fn beside(folder: &Path, notices: &mut Vec<String>) -> Result<Vec<BenchmarkScore>> {
    let mut files = results_files(folder, 0)?;
    files.extend(results_files(&folder.join("eval"), DEPTH)?);
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let mut found: BTreeMap<(String, String), BenchmarkScore> = BTreeMap::new();
    let mut replaced = 0;
    for file in &files {
        for score in read_benchmarks(file)?.scores {
            replaced += usize::from(found.insert((score.task.clone(), score.metric.clone()), score).is_some());
        }
    }
    if replaced > 0 {
        notices.push(format!(
            "{}: {replaced} scores are in several results files; those of the file with the last name count",
            folder.display()
        ));
    }
    Ok(found.into_values().collect())
}

fn results_files(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(folder).at(folder, "read")? {
        let path = entry.at(folder, "read")?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && depth > 0 {
            files.extend(results_files(&path, depth - 1)?);
        } else if name.starts_with("results") && name.ends_with(".json") && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of what lm-eval 0.4.9 and lighteval 0.13 have written.
    const LM_EVAL: &str = r#"{"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.0119, "exact_match,flexible-extract": 0.3, "exact_match_stderr,flexible-extract": "N/A",
        "sample_len": 1319}, "hellaswag": {"acc,none": 0.4, "acc_stderr,none": 0.005}}, "model_name": "m", "config": {"model": "hf"}}"#;
    const LIGHTEVAL: &str = r#"{"config_general": {"model_name": "org/m"}, "results": {
        "gsm8k|5": {"extractive_match": 0.4, "extractive_match_stderr": 0.02}, "all": {"extractive_match": 0.4}}}"#;

    fn read(text: &str) -> Result<Benchmarks> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        std::fs::write(&path, text).unwrap();
        read_benchmarks(&path)
    }

    fn shown(found: &Benchmarks) -> Vec<String> {
        let line = |s: &BenchmarkScore| format!("{} {} {} {:?}", s.task, s.metric, s.value, s.standard_error);
        found.scores.iter().map(line).collect()
    }

    #[test]
    fn results_of_both_programs_are_read_with_their_errors() {
        let found = read(LM_EVAL).unwrap();
        assert_eq!(found.model.as_deref(), Some("m"));
        let expected = [
            "gsm8k exact_match, flexible-extract 0.3 None",
            "gsm8k exact_match, strict-match 0.25 Some(0.0119)",
            "hellaswag acc 0.4 Some(0.005)",
        ];
        assert_eq!(sorted(shown(&found)), expected);
        let found = read(LIGHTEVAL).unwrap();
        assert_eq!(
            (found.model.as_deref(), shown(&found)),
            (Some("org/m"), vec!["gsm8k|5 extractive_match 0.4 Some(0.02)".to_owned()])
        );
    }

    fn sorted(mut lines: Vec<String>) -> Vec<String> {
        lines.sort();
        lines
    }

    #[test]
    fn other_files_are_refused() {
        for (text, expected) in [
            ("[1]", "no object `results`"),
            (r#"{"results": {"a": {"alias": "a"}}}"#, "no metric in `results` is a number"),
            ("{", "EOF"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("results.json") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_latest_file_of_a_run_counts() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("eval/org__m");
        std::fs::create_dir_all(&folder).unwrap();
        let file = |value: f64| format!(r#"{{"results": {{"t": {{"acc,none": {value}}}}}}}"#);
        std::fs::write(folder.join("results_2026-11-02.json"), file(0.2)).unwrap();
        std::fs::write(folder.join("results_2026-11-01.json"), file(0.1)).unwrap();
        let mut notices = Vec::new();
        let found = beside(dir.path(), &mut notices).unwrap();
        assert_eq!((found.len(), found[0].value, notices.len()), (1, 0.2, 1));
    }
}
