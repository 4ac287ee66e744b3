//! Names of model folders, for columns and tables.

use std::path::{Path, PathBuf};

/// Files by which the folder of a run or of a pipeline is known.
const RUN_FILES: [&str; 2] = ["metrics.jsonl", "pipeline.toml"];

/// Name of the model in a folder: the folder's own, or that of the run whose result it is, or its id on the hub.
///
/// # Examples
/// ```
/// use std::path::Path;
/// # let dir = tempfile::tempdir()?;
/// let run = dir.path().join("dpo");
/// std::fs::create_dir_all(run.join("model"))?;
/// assert_eq!(simplemix_model::model_name(&run.join("model")), "model");
/// std::fs::write(run.join("metrics.jsonl"), "")?;
/// assert_eq!(simplemix_model::model_name(&run.join("model")), "dpo");
/// let cached = Path::new("/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/0123abcd");
/// assert_eq!(simplemix_model::model_name(cached), "HuggingFaceTB/SmolLM2-135M");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn model_name(folder: &Path) -> String {
    let whole = whole(folder);
    let name = of_hub(&whole).or_else(|| of_run(&whole)).or_else(|| part(&whole));
    name.unwrap_or_else(|| folder.display().to_string())
}

/// The path from the root. Links stay, since a pipeline's result is one; `..` does not.
fn whole(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    match absolute.components().any(|part| part == std::path::Component::ParentDir) {
        true => absolute.canonicalize().unwrap_or(absolute),
        false => absolute,
    }
}

fn part(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_string_lossy().into_owned())
}

/// `owner/name` of a folder in the hub's cache, `models--owner--name/snapshots/COMMIT`.
fn of_hub(folder: &Path) -> Option<String> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let name = part(snapshots.parent()?)?;
    name.strip_prefix("models--").map(|id| id.replacen("--", "/", 1))
}

/// The run of `RUN/model`, or of `RUN/checkpoints/step-N` with the step.
fn of_run(folder: &Path) -> Option<String> {
    let parent = folder.parent()?;
    let is_run = |folder: &Path| RUN_FILES.iter().any(|name| folder.join(name).is_file());
    if folder.ends_with("model") && is_run(parent) {
        // A pipeline trains in the folder `run` of each stage.
        return part(if parent.ends_with("run") { parent.parent()? } else { parent });
    }
    let run = parent.parent().filter(|run| parent.ends_with("checkpoints") && is_run(run))?;
    Some(format!("{}-{}", part(run)?, part(folder)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_checkpoints_of_runs_have_the_name_of_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str| {
            let run = dir.path().join(name);
            std::fs::create_dir_all(run.join("checkpoints/step-5")).unwrap();
            std::fs::write(run.join("metrics.jsonl"), "").unwrap();
            run
        };
        let dpo = run("dpo");
        assert_eq!(model_name(&dpo.join("model/")), "dpo");
        assert_eq!(model_name(&dpo.join("checkpoints/step-5")), "dpo-step-5");
        assert_eq!(model_name(&run("train-1-abc/run").join("model")), "train-1-abc");
        assert_eq!(model_name(&dpo.join("merged")), "merged");
        assert_eq!(model_name(&dpo.join("checkpoints/..")), "dpo");
    }
}
