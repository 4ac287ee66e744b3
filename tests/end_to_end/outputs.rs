//! Outputs: refused before any work if they cannot be made, kept from other processes, and cleared of what a signal or a kill
//! leaves.
#![cfg(debug_assertions)]
#![expect(clippy::disallowed_methods, reason = "tests wait for other processes")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use simplemix_files::Claim;

use crate::chaos::{Bench, Scale, Stage, stages};
use crate::{Dir, stderr, stdout};

/// The bench of a stage with its inputs.
fn bench(dir: &Dir, stage: &Stage) -> Bench {
    dir.write("small.gguf", crate::gguf::File::small().bytes());
    let bench = Bench { program: assert_cmd::cargo::cargo_bin!("simplemix").into(), folder: dir.path("") };
    stage.inputs(&bench).unwrap();
    bench
}

/// The file or folder that a stage claims for an output of its own.
fn claimed(output: &str) -> &str {
    output.split('/').next().unwrap()
}

/// Whether a stage fills a folder in place.
fn fills(stage: &Stage) -> bool {
    stage.outputs.iter().any(|output| output.contains('/')) && stage.name != "import-gguf"
}

fn entries(dir: &Dir) -> Vec<String> {
    dir.entries().into_iter().filter(|name| name != "cache").collect()
}

#[track_caller]
fn refused(output: &Output, reason: &str, context: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{context}: {said}");
    assert!(said.starts_with("error: ") && said.contains(reason), "{context}: expected {reason}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{context}: {said}");
}

/// Every stage, with every file and folder that it writes.
fn each_output(act: impl Fn(&Dir, &Bench, &Stage, &str)) {
    for stage in stages(Scale::Small) {
        let dir = Dir::new();
        // No model is read before an output is refused.
        std::fs::create_dir(dir.path("model")).unwrap();
        let bench = bench(&dir, &stage);
        let mut outputs: Vec<&str> = stage.outputs.iter().map(|output| claimed(output)).collect();
        outputs.dedup();
        outputs.iter().for_each(|output| act(&dir, &bench, &stage, output));
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_output() {
    each_output(|dir, bench, stage, output| {
        let path = dir.path(output);
        let made = fills(stage) && !path.exists();
        let claim = match (fills(stage), stage.name) {
            (true, _) => Claim::folder(&path),
            (_, "import-gguf") => Claim::new_folder(&path),
            _ => Claim::file(&path),
        };
        let claim = claim.unwrap();
        let before = entries(dir);
        let holder = format!("{output}: in use by process {} on ", std::process::id());
        let words = stage.again();
        refused(&bench.command(&words).output().unwrap(), &holder, &words);
        // By another way to the same place.
        std::os::unix::fs::symlink(dir.path(""), dir.path("link")).unwrap();
        let words = stage.words.replace(&format!(" {output}"), &format!(" ./link/{output}"));
        assert_ne!(words, stage.words);
        refused(&bench.command(&words).output().unwrap(), ": in use by process ", &words);
        std::fs::remove_file(dir.path("link")).unwrap();
        assert_eq!(entries(dir), before, "{}", stage.words);
        drop(claim);
        assert!(!made || !path.exists());
    });
}

#[test]
fn an_output_that_cannot_be_made_is_refused_before_work() {
    each_output(|dir, bench, stage, output| {
        let run = |words: &str| bench.command(words).output().unwrap();
        let moved = |to: &str| stage.words.replace(&format!(" {output}"), &format!(" {to}/{output}"));
        let before = entries(dir);
        dir.write("plain", "a file");
        refused(&run(&moved("plain")), ": cannot be written: ", &moved("plain"));
        if cfg!(target_os = "linux") {
            // Where not even root can make a file.
            refused(&run(&moved("/sys")), ": cannot be written: ", &moved("/sys"));
        }
        if !fills(stage) && stage.name != "import-gguf" {
            refused(&run(&moved("nowhere")), ": cannot be written: there is no folder nowhere", &moved("nowhere"));
        }
        std::fs::remove_file(dir.path("plain")).unwrap();
        assert_eq!(entries(dir), before, "{}", stage.words);
        let path = dir.path(output);
        let _ = std::fs::remove_file(&path);
        match fills(stage) {
            true => drop(dir.write(output, "a file")),
            false => std::fs::create_dir(&path).unwrap(),
        }
        let reason = match (fills(stage), stage.name) {
            (true, _) => "it is a file, expected a folder",
            (_, "import-gguf") => "exists already",
            _ => "it is a folder, expected a file",
        };
        refused(&run(&stage.words), reason, &stage.words);
        let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
    });
}

#[test]
fn one_file_is_not_two_outputs() {
    let dir = Dir::new();
    dir.pairs("on.jsonl", "on", 4);
    let output = dir.simplemix(&["mix", "--source", "on=on.jsonl", "-o", "m.parquet", "--report", "./m.parquet"]);
    refused(&output, "--report is ./m.parquet, as --output is; expected a file of its own", "mix");
}

#[test]
fn a_cache_that_cannot_be_written_says_how_to_move_it() {
    let dir = Dir::new();
    dir.model();
    dir.pairs("on.jsonl", "on", 4);
    let run = |words: &str, cache: &Path| {
        let words: Vec<&str> = words.split(' ').collect();
        dir.command(&words).env("SIMPLEMIX_CACHE", cache).output().unwrap()
    };
    let (good, bad) = (dir.path("cache"), dir.write("no-cache", "a file"));
    assert!(run("mix --source on=on.jsonl -o m.parquet --report m.json", &good).status.success());
    let moved = "set the environment variable SIMPLEMIX_CACHE to another folder";
    refused(&run("mix --verify m.json", &bad), moved, "mix --verify");
    // A run does not depend on its cache.
    let output = run("train --model model --train on.jsonl --max-steps 1 --batch-size 2 --output run", &bad);
    assert!(output.status.success() && stderr(&output).contains(moved), "{}", stderr(&output));
}

/// Starts a command of some seconds and waits until it has something hidden beside its output.
fn begun(bench: &Bench, words: &str) -> Child {
    let mut command = bench.command(words);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while hidden(&bench.folder).iter().all(|name| name.ends_with("-lock")) {
        assert!(start.elapsed() < Duration::from_secs(60), "{words}");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn hidden(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Whether this process ignores a signal.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[test]
fn a_signal_leaves_nothing() {
    let all = stages(Scale::Long);
    for (name, signal, number) in
        // The others are over too soon to be met at work.
        [("convert", "-INT", 2), ("convert", "-TERM", 15), ("convert", "-HUP", 1)]
    {
        // A shell's job in the background, or below `nohup`, has it ignored, and so have the programs that it starts.
        if is_ignored(number) {
            continue;
        }
        let dir = Dir::new();
        dir.model();
        let stage = all.iter().find(|stage| stage.name == name).unwrap();
        let bench = bench(&dir, stage);
        let mut child = begun(&bench, &stage.words);
        send(signal, &child);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "{name} {signal}: {status}");
        assert_eq!(hidden(&bench.folder), [""; 0], "{name} {signal}");
        let output = dir.path(stage.outputs[0]);
        assert_eq!(std::fs::read_to_string(output).unwrap(), "{\"old\":1}\n", "{name} {signal}");
    }
}

#[test]
fn nohup_outlives_its_terminal() {
    let dir = Dir::new();
    let all = stages(Scale::Long);
    let stage = all.iter().find(|stage| stage.name == "convert").unwrap();
    let bench = bench(&dir, stage);
    let program = bench.program.display();
    let mut child = Command::new("sh");
    child.arg("-c").arg(format!("trap '' HUP; exec {program} {}", stage.words)).current_dir(&bench.folder);
    let mut child = child.env("SIMPLEMIX_CACHE", dir.path("cache")).stdout(Stdio::null()).spawn().unwrap();
    while hidden(&bench.folder).is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    send("-HUP", &child);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_a_kill_leaves_is_removed_by_clean_and_by_the_next_command() {
    let dir = Dir::new();
    let all = stages(Scale::Long);
    let stage = all.iter().find(|stage| stage.name == "convert").unwrap();
    let bench = bench(&dir, stage);
    let kill = || {
        let mut child = begun(&bench, &stage.words);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = hidden(&bench.folder);
        assert!(left.iter().any(|name| name.starts_with(".out.parquet.simplemix-")), "{left:?}");
        left
    };
    let left = kill();
    dir.write(".out.parquet.simplemix-notes", "mine");
    let clean = |words: &str| {
        let output = bench.command(words).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let said = clean("clean --dry-run");
    assert!(
        left.iter().all(|name| said.contains(&format!("./{name} ("))) && said.contains("would be removed"),
        "{said}"
    );
    assert_eq!(hidden(&bench.folder).len(), left.len() + 1);
    let said = clean("clean .");
    assert!(said.contains(&format!("{} removed from .", left.len())), "{said}");
    assert_eq!(hidden(&bench.folder), [".out.parquet.simplemix-notes"]);
    assert!(clean("clean").starts_with("nothing to remove in ."));
    let output = bench.command("clean nowhere").output().unwrap();
    refused(&output, "nowhere: cannot list: ", "clean nowhere");
    // A process that lives keeps what it has.
    let mut child = begun(&bench, &stage.words);
    send("-STOP", &child);
    assert!(clean("clean").starts_with("nothing to remove in ."));
    send("-CONT", &child);
    assert!(child.wait().unwrap().success());
    kill();
    bench.succeeds(&stage.words).unwrap();
    assert_eq!(hidden(&bench.folder), [".out.parquet.simplemix-notes"]);
}

/// A file that grows beyond the shell's limit.
#[test]
fn a_write_that_fails_on_the_way_says_writing() {
    let dir = Dir::new();
    let all = stages(Scale::Long);
    let stage = all.iter().find(|stage| stage.name == "convert-arrow").unwrap();
    let bench = bench(&dir, stage);
    let program: PathBuf = bench.program.clone();
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -f 8; exec {} {}", program.display(), stage.words));
    let output = limited.current_dir(&bench.folder).env("SIMPLEMIX_CACHE", dir.path("cache")).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    assert!(
        said.starts_with("error: out.arrow: writing failed (write): ") && said.contains("File too large"),
        "{said}"
    );
    assert_eq!(hidden(&bench.folder), [""; 0]);
}
