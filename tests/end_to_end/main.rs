//! The built `simplemix` as a user runs it, on small files that the tests make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod advising;
mod bad_input;
mod collecting;
mod data;
mod devices;
mod dry_run;
mod eval;
#[cfg(feature = "faults")]
mod faults;
mod good_runs;
mod inputs;
mod judging;
mod manners;
mod mixing;
mod models;
#[cfg(feature = "faults")]
mod outputs;
mod pipeline;
mod pools;
#[cfg(feature = "push")]
mod push;
mod quantised;
mod quickstart;
mod reading;
mod recipes;
mod reproduction;
mod secrets;
mod semi_online;
mod served;
mod shared_work;
mod small_world;
mod sweep;
mod terminal;
mod together;
mod training;

#[cfg(feature = "faults")]
#[path = "../chaos/mod.rs"]
mod chaos;
#[path = "../../crates/simplemix-model/tests/support/mod.rs"]
mod gguf;
#[path = "../../crates/simplemix-rollout/tests/support/models.rs"]
mod served_models;
#[path = "../../crates/simplemix-rollout/tests/support/mod.rs"]
mod server;
// The name by which that file knows it.
use server as support;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for each test, with the files that most need.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A tiny model folder, `model`.
    pub(crate) fn model(&self) -> PathBuf {
        let folder = self.path("model");
        simplemix_model::tiny::write_folder(&folder, 1).unwrap();
        folder
    }

    /// `count` pairs as JSONL; `kind` keeps files apart.
    pub(crate) fn pairs(&self, name: &str, kind: &str, count: usize) -> PathBuf {
        let mut text = String::new();
        for i in 0..count {
            let turn = |role: &str, content: String| format!(r#"[{{"role":"{role}","content":"{content}"}}]"#);
            writeln!(
                text,
                r#"{{"prompt":{},"chosen":{},"rejected":{}}}"#,
                turn("user", format!("{kind} question {i}")),
                turn("assistant", format!("a good answer {i}")),
                turn("assistant", format!("no {i}")),
            )
            .unwrap();
        }
        self.write(name, text)
    }

    pub(crate) fn simplemix(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The command with a cache of its own, to be run in whatever way.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("simplemix"));
        command.current_dir(self.0.path()).env("SIMPLEMIX_CACHE", self.path("cache")).args(args);
        // The program would start again to set it; a test of its own holds that it does.
        command.env("OMP_WAIT_POLICY", "PASSIVE");
        command
    }

    /// Names of everything in the folder, hidden things too.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The program of an example, where the tests' call has built it.
#[expect(clippy::print_stderr, reason = "a test says that it is skipped")]
pub(crate) fn example(name: &str) -> Option<PathBuf> {
    let command = Path::new(assert_cmd::cargo::cargo_bin!("simplemix"));
    let path = command.parent().unwrap().join("examples").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not built; `cargo test --workspace` builds it", path.display());
        return None;
    }
    Some(path)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}
