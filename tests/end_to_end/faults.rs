//! A disk that fails: for each kind of output, operations on the disk (create, write, sync, rename, remove) fail once, one
//! operation a run; and runs are killed in place of one, in the middle of one, or lose the power there.
//!
//! A run that fails exits with 1, or with 2 before its work, and names the file. Whatever then has its final name is whole:
//! the old content or the new one. The same command succeeds afterwards with the same bytes as a run that never failed, and
//! leaves nothing else. `cargo xtask chaos` does the same at every operation, and with kills at any moment.
//!
//! Operations fail in `simplemix-files`, which this test builds with its feature `faults`.
#![cfg(debug_assertions)]

use crate::Dir;
use crate::chaos::{Bench, Fault, Scale, Stage, Trials, spread, stages};

/// Faults of a stage, spread over its operations: failures, kills, torn writes, losses of power.
struct Sample(usize, usize, usize, usize);

const USUAL: Sample = Sample(4, 1, 1, 2);

/// Takes a sample of the faults of some stages.
fn survive(names: &[&str], Sample(fails, aborts, torn, losses): Sample) {
    let all = stages(Scale::Small);
    for name in names {
        let stage: &Stage = all.iter().find(|stage| stage.name == *name).unwrap();
        let dir = Dir::new();
        dir.model();
        dir.write("small.gguf", crate::gguf::File::small().bytes());
        let bench = Bench { program: assert_cmd::cargo::cargo_bin!("simplemix").into(), folder: dir.path("") };
        let trials = Trials::new(&bench, stage).unwrap();
        let operations = trials.operations();
        assert!(operations > 0, "{name}: no operation goes through simplemix-files");
        for (fault, count) in Fault::ALL.into_iter().zip([fails, aborts, torn, losses]) {
            for number in spread(operations, count) {
                trials.fault(fault, number).unwrap();
            }
        }
        // With names lost, and with names kept.
        for fault in Fault::losses().step_by(5) {
            trials.fault(fault, trials.last_rename()).unwrap();
        }
        // A moment that comes too late tells nothing.
        trials.kill(trials.duration.mul_f64(0.6)).unwrap();
    }
}

#[test]
fn converting() {
    survive(&["convert", "convert-text", "convert-arrow"], USUAL);
}

#[test]
fn tokenizing() {
    survive(&["tokenize"], USUAL);
}

#[test]
fn mixing() {
    survive(&["mix"], Sample(8, 2, 1, 4));
}

#[test]
fn collecting() {
    survive(&["generate", "score", "pair", "collect"], USUAL);
}

#[test]
fn training() {
    survive(&["train"], Sample(6, 2, 1, 3));
    survive(&["train-lora"], USUAL);
}

#[test]
fn scoring_with_log_probabilities() {
    survive(&["logps"], USUAL);
}

#[test]
fn evaluating() {
    survive(&["eval-judge", "eval-preferences", "eval-generate", "report"], USUAL);
}

#[test]
fn running_all_stages() {
    survive(&["run"], Sample(6, 2, 1, 3));
}

#[test]
fn importing() {
    survive(&["import-gguf"], Sample(6, 1, 1, 3));
}

/// A stage that no test above names would not be tried.
#[test]
fn every_stage_is_tried() {
    let source = include_str!("faults.rs");
    for stage in stages(Scale::Small) {
        assert!(source.contains(&format!("\"{}\"", stage.name)), "{}", stage.name);
    }
}
