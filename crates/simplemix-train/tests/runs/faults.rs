//! A write, sync or rename of a run fails; resuming then ends on the bits of a run without a fault. The crate's own test of
//! the run folder makes every operation fail; this one takes a sample, with a model.

use simplemix_data::Unwatched;
use simplemix_files::faults;

use super::*;

/// Three updates with everything that a run writes: caches, checkpoints of which one is deleted, metrics, events, the model
/// and its report.
fn config(dir: &Dir, output: &str) -> TrainConfig {
    let cache = dir.path(&format!("{output}-logps"));
    let settings = format!(
        "max_steps = 3\nbatch.batch_size = 2\n\
         eval.eval_every_steps = 1\n\
         checkpoint = {{ save_every_steps = 1, keep = 1 }}\n\
         reference = {{ source = 'cached', cache_folder = '{}' }}",
        cache.display()
    );
    dir.with(output, &settings)
}

/// Starts a run, or resumes the one that is there.
fn run(dir: &Dir, output: &str) -> simplemix_train::Result<Finished> {
    let resume = dir.path(output).join("metrics.jsonl").exists();
    let run = Run::with_pairs(config(dir, output), &dir.model(), &pairs(6), &pairs(1))?;
    run.start(resume.into(), &mut Unwatched)
}

/// Lines of the metrics without what depends on the clock.
fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        line.retain(|name, _| !["tokens_per_second", "pairs_per_second", "peak_memory_gb"].contains(&name.as_str()));
        line.into()
    };
    text.lines().map(line).collect()
}

fn hidden_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(hidden_files(&path));
        }
    }
    found
}

#[test]
fn a_run_survives_failing_operations() {
    let dir = Dir::new();
    let counter = faults::on_this_thread(None);
    run(&dir, "whole").unwrap();
    let operations = counter.operations();
    drop(counter);
    let whole = metrics(&dir.path("whole"));
    assert!(operations > 50, "{operations}");
    for operation in (1..=operations).step_by(5) {
        let output = format!("run{operation}");
        let fault = faults::on_this_thread(Some(operation));
        let outcome = run(&dir, &output);
        drop(fault);
        // A cache that cannot be written stops nothing.
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(text.contains(": writing failed (") || text.contains(": cannot "), "operation {operation}: {text}");
            let finished = run(&dir, &output).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
            // An operation after the last one that matters fails a run whose result is whole.
            let is_done = matches!(finished.outcome, Outcome::Finished | Outcome::FinishedBefore);
            assert!(is_done, "operation {operation}: {:?}", finished.outcome);
        }
        assert_eq!(furthest(&dir.path("whole"), &dir.path(&output)), 0.0, "operation {operation}");
        assert_eq!(metrics(&dir.path(&output)), whole, "operation {operation}");
        assert_eq!(hidden_files(&dir.path(&output)), Vec::<PathBuf>::new(), "operation {operation}");
        std::fs::remove_dir_all(dir.path(&output)).unwrap();
    }
}
