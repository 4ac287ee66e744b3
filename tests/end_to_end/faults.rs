//! A disk that fails: for each kind of output, operations on the disk (create, write, sync, rename, remove) fail once, one
//! operation a run, and runs are killed in place of one.
//!
//! A run that fails exits with 1 and names the file. Whatever then has its final name is whole: the old content or the
//! new one. The same command succeeds afterwards with the same bytes as a run that never failed, and leaves nothing else.
//!
//! Operations fail in `simplemix-files`, which this test builds with its feature `faults`.
#![cfg(debug_assertions)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::{Dir, stderr};

/// A command that writes files.
struct Writes {
    args: &'static str,
    /// Further words of the second attempt.
    again: &'static str,
    /// Files and folders that it writes.
    outputs: &'static [&'static str],
    /// Number of operations to fail, spread evenly over all of them.
    faults: usize,
    /// Number of operations to be killed at.
    kills: usize,
}

impl Writes {
    const fn new(args: &'static str, outputs: &'static [&'static str]) -> Self {
        Self { args, again: "", outputs, faults: 6, kills: 2 }
    }

    fn words(&self, again: bool) -> Vec<&'static str> {
        let more = if again { self.again } else { "" };
        self.args.split_whitespace().chain(more.split_whitespace()).collect()
    }
}

/// Files by path, folders as none; hidden ones and the cache too.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn tree(dir: &Dir) -> Tree {
    fn add(root: &Path, folder: &Path, found: &mut Tree) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                add(root, &path, found);
            } else {
                found.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Tree::new();
    add(&dir.path(""), &dir.path(""), &mut found);
    found
}

fn restore(dir: &Dir, before: &Tree) {
    for entry in std::fs::read_dir(dir.path("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    for (name, bytes) in before {
        let path = dir.0.path().join(name);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::create_dir(path).unwrap(),
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

/// A command's results without faults.
struct Reference {
    before: Tree,
    after: Tree,
    /// Each operation with its path, relative to the folder.
    operations: Vec<(String, PathBuf)>,
}

impl Reference {
    fn new(dir: &Dir, writes: &Writes) -> Self {
        let before = tree(dir);
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = dir.command(&writes.words(false)).env("SIMPLEMIX_FAULT_LOG", log.path()).output().unwrap();
        assert!(output.status.success(), "{}: {}", writes.args, stderr(&output));
        let first = tree(dir);
        restore(dir, &before);
        assert!(dir.simplemix(&writes.words(true)).status.success());
        // Times, speeds and the command line differ from run to run; all else is the same. The report of a pipeline has the times
        // of its stages, which two quick runs may have alike by chance.
        let has_stages = |folder: &Path| dir.path("").join(folder).join("stages").is_dir();
        let is_timed = |path: &Path| path.ends_with("report.html") && path.parent().is_some_and(has_stages);
        let is_same = |(path, bytes): &(PathBuf, Option<Vec<u8>>)| first.get(path) == Some(bytes) && !is_timed(path);
        let after = tree(dir).into_iter().filter(is_same).collect();
        let root = dir.0.path().canonicalize().unwrap();
        let operation = |line: &str| {
            let (name, path) = line.split_once(' ').unwrap();
            let path = Path::new(path);
            let path = path.strip_prefix(&root).or_else(|_| path.strip_prefix(dir.0.path())).unwrap_or(path);
            (name.to_owned(), path.to_owned())
        };
        let operations = std::fs::read_to_string(log.path()).unwrap().lines().map(operation).collect();
        Self { before, after, operations }
    }

    /// Checks that everything with a final name is whole.
    #[track_caller]
    fn check_whole(&self, found: &Tree, context: &str) {
        for (path, bytes) in found.iter().filter(|(path, _)| !is_hidden(path)) {
            let Some(bytes) = bytes else { continue };
            let name = path.display();
            match self.after.get(path) {
                Some(Some(expected)) => {
                    let is_old = self.before.get(path).is_some_and(|old| old.as_ref() == Some(bytes));
                    assert!(bytes == expected || is_old, "{context}: {name} is neither old nor new");
                }
                _ if path.extension().is_some_and(|end| end == "json") => {
                    assert!(serde_json::from_slice::<serde_json::Value>(bytes).is_ok(), "{context}: {name}");
                }
                _ => {}
            }
        }
    }

    /// Checks that the outputs, and nothing beside them, are those of a run without faults.
    #[track_caller]
    fn check_done(&self, found: &Tree, context: &str) {
        for (path, bytes) in &self.after {
            assert!(found.get(path) == Some(bytes), "{context}: {} differs", path.display());
        }
        let left = found.keys().find(|path| is_hidden(path) && !self.after.contains_key(*path));
        assert_eq!(left, None, "{context}");
    }
}

/// Numbers from 1 to `all`, evenly spread, first and last among them.
fn spread(all: usize, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).map(|i| 1 + i * (all - 1) / (count - 1).max(1)).collect();
    numbers.dedup();
    numbers
}

/// Fails and kills a command, and checks what is left each time.
fn survives(prepare: impl Fn(&Dir), writes: &Writes) {
    let dir = Dir::new();
    prepare(&dir);
    let reference = Reference::new(&dir, writes);
    let all = reference.operations.len();
    for output in writes.outputs {
        let is_there = reference.after.keys().any(|path| path.starts_with(output));
        assert!(is_there, "{}: {output} is not among the outputs", writes.args);
    }
    assert!(all > 0, "{}: no operation goes through simplemix-files", writes.args);
    let attempt = |fault: String| -> Output {
        restore(&dir, &reference.before);
        dir.command(&writes.words(false)).env("SIMPLEMIX_FAULT", fault).output().unwrap()
    };
    let go_on = |context: &str| {
        let output = dir.simplemix(&writes.words(true));
        // An operation after the last rename leaves a whole output, which some commands refuse to replace.
        let is_in_place = output.status.code() == Some(2) && stderr(&output).contains("exists already");
        assert!(output.status.success() || is_in_place, "{context}, again: {}", stderr(&output));
        if is_in_place {
            return reference.check_whole(&tree(&dir), context);
        }
        reference.check_done(&tree(&dir), context);
    };
    for number in spread(all, writes.faults) {
        let (operation, path) = &reference.operations[number - 1];
        let context = format!("{}: operation {number} of {all}, {operation} {}", writes.args, path.display());
        let output = attempt(number.to_string());
        let said = stderr(&output);
        let found = tree(&dir);
        if output.status.success() {
            assert!(path.starts_with("cache"), "{context}: succeeds");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{context}: {said}");
        // The names of files of events hold the time.
        // Threads that draw write in another order each time, so another file may be the one that fails.
        let is_named = reference.operations.iter().any(|(_, path)| {
            let name = path.file_name().unwrap().to_string_lossy();
            said.contains(name.split(".tfevents.").next().unwrap())
        });
        assert!(is_named, "{context}: {said}");
        reference.check_whole(&found, &context);
        go_on(&context);
    }
    for number in spread(all, writes.kills) {
        let (operation, path) = &reference.operations[number - 1];
        let context = format!("{}: killed at {number} of {all}, {operation} {}", writes.args, path.display());
        let output = attempt(format!("abort:{number}"));
        assert_eq!(output.status.code(), None, "{context}: {}", stderr(&output));
        reference.check_whole(&tree(&dir), &context);
        go_on(&context);
    }
}

fn inputs(dir: &Dir) {
    dir.model();
    dir.pairs("off.jsonl", "off", 30);
    dir.pairs("on.jsonl", "on", 20);
    let prompt = |i: usize| {
        format!(r#"{{"id":"p{i}","prompt":[{{"role":"user","content":"What is {i} + 1?"}}],"answer":"{}"}}"#, i + 1)
    };
    dir.write("prompts.jsonl", (0..6).map(prompt).collect::<Vec<_>>().join("\n"));
    let candidate = |i: usize| {
        format!(
            r#"{{"prompt":"What is {} + 1?","answer":"{}","response":"It is {}."}}"#,
            i / 3,
            i / 3 + 1,
            i / 3 + i % 3
        )
    };
    dir.write("candidates.jsonl", (0..12).map(candidate).collect::<Vec<_>>().join("\n"));
}

/// Outputs of an earlier run, which stay until the new ones are whole.
fn with_old(names: &'static [&'static str]) -> impl Fn(&Dir) {
    move |dir| {
        inputs(dir);
        names.iter().for_each(|name| drop(dir.write(name, "{\"old\":1}\n")));
    }
}

#[test]
fn converting() {
    let old = with_old(&["out.parquet", "out.jsonl.gz"]);
    survives(&old, &Writes::new("convert off.jsonl on.jsonl -o out.parquet --overwrite", &["out.parquet"]));
    survives(&old, &Writes::new("convert off.jsonl -o out.jsonl.gz --overwrite", &["out.jsonl.gz"]));
    survives(inputs, &Writes::new("convert off.jsonl -o out.arrow --overwrite", &["out.arrow"]));
    survives(inputs, &Writes::new("convert off.jsonl --distinct -o out.jsonl --overwrite", &["out.jsonl"]));
}

#[test]
fn tokenizing() {
    let writes = Writes::new("tokenize off.jsonl --tokenizer model -o out.arrow", &["out.arrow"]);
    survives(with_old(&["out.arrow"]), &writes);
}

#[test]
fn mixing() {
    let args = "mix --source off=off.jsonl --source on=on.jsonl --size 24 --seed 1 -o m.parquet --report m.json --plot m.svg \
         --overwrite";
    let outputs = &["m.parquet", "m.json", "m.svg"];
    survives(with_old(outputs), &Writes { faults: 10, ..Writes::new(args, outputs) });
}

#[test]
fn collecting() {
    let sampling =
        "generate --model model --prompts prompts.jsonl --samples 2 --max-new-tokens 4 --batch-rows 4 -o out.parquet";
    survives(inputs, &Writes::new(sampling, &["out.parquet"]));
    let scoring = "score --candidates candidates.jsonl --scorer exact-answer -o out.parquet";
    survives(inputs, &Writes::new(scoring, &["out.parquet"]));
    let scored = |dir: &Dir| {
        inputs(dir);
        crate::good_runs::succeeds(dir, &scoring.replace("out", "scored").split(' ').collect::<Vec<_>>());
    };
    survives(scored, &Writes::new("pair --candidates scored.parquet -o out.parquet", &["out.parquet"]));
    let all = "collect --model model --prompts prompts.jsonl --samples 3 --max-new-tokens 8 --scorer digit-share -o out.parquet";
    survives(inputs, &Writes::new(all, &["out.parquet"]));
}

#[test]
fn training() {
    let args = "train --model model --train off.jsonl --eval on.jsonl --batch-size 8 --max-steps 3 --learning-rate 1e-3 \
                --save-every-steps 1 --set checkpoint.keep=9 --output run";
    let outputs = &["run/config.toml", "run/model/model.safetensors", "run/checkpoints/step-2"];
    survives(inputs, &Writes { again: "--resume auto", faults: 8, kills: 3, ..Writes::new(args, outputs) });
    let lora = "train --model model --train off.jsonl --max-steps 1 --lora-rank 2 --output run";
    let outputs = &["run/adapter/adapter_model.safetensors", "run/model/model.safetensors"];
    survives(inputs, &Writes { again: "--resume auto", ..Writes::new(lora, outputs) });
}

#[test]
fn scoring_with_log_probabilities() {
    let writes = Writes::new("logps --model model --data off.jsonl -o out.parquet", &["out.parquet"]);
    survives(with_old(&["out.parquet"]), &writes);
}

/// A run for reports, and answers for judges.
fn to_evaluate(dir: &Dir) {
    inputs(dir);
    std::fs::create_dir(dir.path("arm")).unwrap();
    let line = |step: usize| format!(r#"{{"step":{step},"loss":{},"rewards/margins":0.{step}}}"#, 1.0 / step as f64);
    dir.write("arm/metrics.jsonl", (1..9).map(line).map(|line| line + "\n").collect::<String>());
    dir.write("arm/config.toml", "seed = 1\ntrain = \"off.jsonl\"\noutput = \"arm\"\n");
    let answers = |text: &str| {
        let row = |i: usize| format!(r#"{{"instruction":"q{i}","output":"{text} {i}","generator":"{text}"}}"#);
        format!("[{}]", (0..4).map(row).collect::<Vec<_>>().join(","))
    };
    dir.write("base.json", answers("base"));
    dir.write("new.json", answers("new"));
    let right = (0..4).map(|i| format!(r#"{{"question":"q{i}","answer":"{}"}}"#, i % 2)).collect::<Vec<_>>();
    dir.write("right.json", format!("[{}]", right.join(",")));
}

#[test]
fn evaluating() {
    let judge = "eval judge --outputs new.json --baseline base.json --answers right.json -o out.json";
    survives(to_evaluate, &Writes::new(judge, &["out.json"]));
    let measure = "eval preferences --model model --reference model --data on.jsonl --plot out.svg";
    survives(to_evaluate, &Writes::new(measure, &["out.svg"]));
    let answer = "eval generate --model model --prompts base.json --max-new-tokens 4 -o out.json";
    // Once the output is there, only its replacement goes on.
    survives(to_evaluate, &Writes { again: "--overwrite", ..Writes::new(answer, &["out.json"]) });
    survives(to_evaluate, &Writes::new("report arm -o out", &["out/report.html", "out/runs.csv"]));
}

#[test]
fn running_all_stages() {
    let args = "run --preset simplemix --model model --prompts prompts.jsonl --off-policy off.jsonl --scorer digit-share \
                --size 4 --set train.batch.batch_size=2 --set collect.sampling.max_new_tokens=8 --output all";
    let outputs = &["all/model/model.safetensors"];
    survives(inputs, &Writes { faults: 12, kills: 4, ..Writes::new(args, outputs) });
}

#[test]
fn importing() {
    let prepare = |dir: &Dir| drop(dir.write("small.gguf", crate::gguf::File::small().bytes()));
    let outputs = &["model/model.safetensors", "model/tokenizer.json"];
    survives(prepare, &Writes { faults: 12, ..Writes::new("import-gguf small.gguf model", outputs) });
}
