//! Several processes that train as one: started by --processes, and by hand as torchrun and Slurm start them; killed, stopped,
//! and with something that differs. The numbers of every objective are held in crates/simplemix-train/tests/runs/together.rs.

#![expect(clippy::disallowed_methods, reason = "processes are killed at moments, and must not hang")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use simplemix_model::weights;
use simplemix_torch::group::StoreKeeper;

use crate::good_runs::{lines, mixed, succeeds};
use crate::{Dir, exists, stderr, stdout};

/// Time after which a process that has not ended hangs.
const HANGS: Duration = Duration::from_secs(60);

const RUN: &[&str] = &[
    "train",
    "--model",
    "model",
    "--train",
    "mix.parquet",
    "--batch-size",
    "3",
    "--learning-rate",
    "1e-3",
    "--max-steps",
    "40",
    "--save-every-steps",
    "4",
    "--output",
];

/// A run that goes on until it is ended.
const LONG: &[&str] = &["--max-steps", "100000", "--save-every-steps", "4", "--set", "checkpoint.keep=1"];

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.model();
    mixed(&dir);
    dir
}

/// Processes that were started by hand, by rank; those that are left are killed at the end.
struct Ranks(Vec<Option<Child>>);

impl Ranks {
    /// Starts processes that all have `variables`, and each the words and variables that `own` adds to its command.
    fn start(dir: &Dir, size: usize, variables: &[(&str, &str)], own: impl Fn(usize, &mut Command)) -> Self {
        let start = |rank: usize| {
            let mut command = dir.command(&[]);
            let (rank_text, size_text) = (rank.to_string(), size.to_string());
            command.envs([("RANK", &rank_text), ("LOCAL_RANK", &rank_text), ("WORLD_SIZE", &size_text)]);
            command.envs([("OMP_NUM_THREADS", "1"), ("GLOO_SOCKET_IFNAME", "lo"), ("MASTER_ADDR", "127.0.0.1")]);
            command.envs(variables.iter().copied());
            own(rank, &mut command);
            Some(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        };
        Self((0..size).map(start).collect())
    }

    /// As [`Ranks::start`], where rank 0 keeps the store on a port that is free.
    fn meet(dir: &Dir, size: usize, own: impl Fn(usize, &mut Command)) -> Self {
        let port = free_port();
        Self::start(dir, size, &[("MASTER_PORT", &port)], own)
    }

    fn id(&self, rank: usize) -> u32 {
        self.0[rank].as_ref().unwrap().id()
    }

    /// Waits for a process; what it has said, and whether it hangs.
    fn end(&mut self, rank: usize) -> Output {
        let child = self.0[rank].take().unwrap();
        ended(child)
    }

    fn kill(&mut self, rank: usize) {
        let mut child = self.0[rank].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Waits for a process, which must not hang.
fn ended(mut child: Child) -> Output {
    let deadline = Instant::now() + HANGS;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("a process hangs: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// Waits until a run has made an update after its first checkpoint.
fn until_it_runs(dir: &Dir, run: &str) {
    let deadline = Instant::now() + HANGS;
    while !std::fs::read_to_string(dir.path(run).join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 5) {
        assert!(Instant::now() < deadline, "no update within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that a launcher has started, by rank.
pub(crate) fn started_by(launcher: u32) -> BTreeMap<usize, u32> {
    let mut found = BTreeMap::new();
    for id in std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        let id: u32 = id;
        let read = |name: &str| std::fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        let is_child = String::from_utf8_lossy(&read("status"))
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == launcher.to_string()));
        let environment = read("environ");
        let rank = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"RANK="));
        if let (true, Some(rank)) = (is_child, rank.and_then(|rank| std::str::from_utf8(rank).ok()?.parse().ok())) {
            found.insert(rank, id);
        }
    }
    found
}

fn launched(dir: &Dir, args: &[&str]) -> Child {
    dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn log(dir: &Dir, run: &str, rank: usize) -> String {
    std::fs::read_to_string(dir.path(run).join(format!("processes/rank-{rank}.log"))).unwrap_or_default()
}

/// Losses of all updates, and weights to 1e-6 of each tensor's norm, are those of the run `whole`.
fn as_whole(dir: &Dir, run: &str) {
    let losses = |run: &str| -> Vec<(u64, f64)> {
        let lines = lines(dir, &format!("{run}/metrics.jsonl"));
        let of = |line: &serde_json::Value| Some((line["step"].as_u64()?, line["loss"].as_f64()?));
        lines.iter().filter_map(of).collect()
    };
    let (whole, found) = (losses("whole"), losses(run));
    assert_eq!(whole.len(), found.len(), "{run}");
    for ((step, loss), (other, found)) in whole.into_iter().zip(found) {
        assert!(step == other && (loss - found).abs() < 1e-6, "{run}: loss of update {step}: {loss} and {found}");
    }
    let read = |run: &str| weights::read_all(&dir.path(run).join("model/model.safetensors")).unwrap();
    let (whole, found) = (read("whole"), read(run));
    for (name, tensor) in whole {
        let apart = (&tensor - &found[&name]).norm().double_value(&[]) / tensor.norm().double_value(&[]);
        assert!(apart < 1e-6, "{run}: {name} differs by {apart} of its norm");
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}

#[test]
fn a_killed_process_is_named_by_all_others_and_the_run_goes_on_with_another_number() {
    let dir = prepared();
    succeeds(&dir, &[RUN, &["whole"]].concat());
    let said = succeeds(&dir, &[RUN, &["of-2", "--processes", "2"]].concat());
    assert_eq!(said.matches("model: of-2/model").count(), 1, "one process speaks: {said}");
    as_whole(&dir, "of-2");
    // Three processes, of which the last is killed after a checkpoint; two go on.
    let launcher = launched(&dir, &[RUN, &["cut", "--processes", "3"]].concat());
    until_it_runs(&dir, "cut");
    let ranks = started_by(launcher.id());
    assert_eq!(ranks.len(), 3);
    signal(ranks[&2], "-KILL");
    let output = ended(launcher);
    let killed = "rank 2 was ended by signal 9, which the system sends where memory runs out";
    assert_eq!(code(output.status), Some(1));
    assert_eq!(stderr(&output), format!("error: {killed}\n"));
    assert!(log(&dir, "cut", 1).ends_with(&format!("error: {killed}\n")), "{}", log(&dir, "cut", 1));
    assert!(!ranks.values().any(|id| exists(Path::new(&format!("/proc/{id}")))), "all have ended");
    succeeds(&dir, &["train", "--resume", "cut", "--processes", "2"]);
    as_whole(&dir, "cut");
}

#[test]
fn a_process_that_is_killed_or_stopped_is_named_where_nobody_watches_over_all() {
    let dir = prepared();
    let start = |run: &str, limit: &str| {
        let limit = format!("parallel.time_limit={limit}");
        let ranks = Ranks::meet(&dir, 3, |_, command| {
            command.args(RUN).args([run, "--set", &limit]).args(LONG);
        });
        until_it_runs(&dir, run);
        ranks
    };
    // One that does not keep the store, and the one that does.
    for (run, killed) in [("one", 1), ("keeper", 0)] {
        let mut ranks = start(run, "60");
        ranks.kill(killed);
        for rank in (0..3).filter(|rank| *rank != killed) {
            let output = ranks.end(rank);
            let said = if rank == 0 { stderr(&output) } else { log(&dir, run, rank) };
            assert_eq!(code(output.status), Some(1), "{said}");
            let named = format!("rank {killed} has ended, was killed or stands still");
            assert!(said.contains(&named), "{run}: rank {rank} says {said}");
        }
    }
    let mut ranks = start("stopped", "4");
    signal(ranks.id(2), "-STOP");
    let since = Instant::now();
    for rank in [0, 1] {
        let output = ranks.end(rank);
        let said = if rank == 0 { stderr(&output) } else { log(&dir, "stopped", rank) };
        assert_eq!(code(output.status), Some(1), "{said}");
        assert!(said.contains("rank 2 has ended, was killed or stands still: no sign of life for"), "{said}");
        assert!(said.contains("; the last said: "), "{said}");
    }
    // The limit, the time to see that the signs have stopped, and a machine that is busy.
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

#[test]
fn processes_that_are_asked_to_stop_save_a_checkpoint() {
    let dir = prepared();
    succeeds(&dir, &[RUN, &["whole"]].concat());
    // To the process that has started the others.
    let launcher = launched(&dir, &[RUN, &["run", "--processes", "2"]].concat());
    until_it_runs(&dir, "run");
    signal(launcher.id(), "-TERM");
    let output = ended(launcher);
    assert_eq!(code(output.status), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).contains("stopped; go on with: simplemix train --resume run"), "{}", stdout(&output));
    // To one of the processes, as Slurm may.
    let mut ranks = Ranks::meet(&dir, 3, |_, command| {
        command.args(RUN).args(["run", "--resume", "auto"]);
    });
    let before = lines(&dir, "run/metrics.jsonl").len();
    let deadline = Instant::now() + HANGS;
    while std::fs::read_to_string(dir.path("run/metrics.jsonl")).unwrap().lines().count() <= before {
        assert!(Instant::now() < deadline, "no update within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(ranks.id(1), "-USR1");
    for rank in 0..3 {
        let output = ranks.end(rank);
        assert_eq!(code(output.status), Some(130), "rank {rank}: {}", stderr(&output));
    }
    assert!(!exists(&dir.path("run/finished.json")));
    succeeds(&dir, &[RUN, &["run", "--resume", "auto", "--processes", "2"]].concat());
    as_whole(&dir, "run");
}

/// Changes the files or the commands of one process of two.
type Change = fn(&Dir, usize, &mut Command);

#[test]
fn what_differs_between_processes_is_named_before_anything_is_trained() {
    let dir = prepared();
    dir.pairs("other.jsonl", "another", 60);
    let other = dir.path("other");
    simplemix_model::tiny::write_folder(&other, 2).unwrap();
    let program = dir.path("program");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("simplemix"), &program).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
    std::io::Write::write_all(&mut file, b"another build").unwrap();
    drop(file);
    let cases: &[(&str, Change, &str)] = &[
        (
            "settings",
            |_, rank, command| {
                command.args(["--beta", ["0.1", "0.2"][rank]]);
            },
            "loss.beta is `0.2` for rank 1",
        ),
        (
            "updates",
            |_, rank, command| {
                command.args(["--max-steps", ["40", "41"][rank]]);
            },
            "max_steps is `41` for rank 1",
        ),
        (
            "sections",
            |_, rank, command| {
                command.args(["--set", ["seed=42", "lora.rank=2"][rank]]);
            },
            "lora.rank is `2` for rank 1",
        ),
        (
            "pairs",
            |_, rank, command| {
                command.args(["--train", ["mix.parquet", "other.jsonl"][rank]]);
            },
            "content of the training pairs is `",
        ),
        (
            "held-out",
            |_, rank, command| {
                command.args(["--eval", ["on.jsonl", "other.jsonl"][rank]]);
            },
            "content of the held-out pairs is `",
        ),
        (
            "model",
            |_, rank, command| {
                command.args(["--model", ["model", "other"][rank]]);
            },
            "content of the model is `",
        ),
        (
            "size",
            |_, rank, command| {
                command.env("WORLD_SIZE", ["2", "3"][rank]);
            },
            "number of processes is `3` for rank 1 and `2` for rank 0",
        ),
        (
            "folder",
            |_, rank, command| {
                command.args(["--output", ["folder", "folder-1"][rank]]);
            },
            "folder-1: rank 1 does not see what rank 0 has written here",
        ),
        (
            "build",
            |dir, rank, command| {
                if rank == 1 {
                    let mut own = Command::new(dir.path("program"));
                    own.args(command.get_args()).current_dir(dir.path(""));
                    own.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                    *command = own;
                }
            },
            "program is `simplemix 0.1.0 of ",
        ),
    ];
    for (name, change, expected) in cases {
        let mut ranks = Ranks::meet(&dir, 2, |rank, command| {
            command.args(RUN).args([name, "--set", "parallel.time_limit=8"]);
            change(&dir, rank, command);
        });
        let (first, second) = (ranks.end(0), ranks.end(1));
        let said = stderr(&first) + &stderr(&second) + &log(&dir, name, 1) + &log(&dir, "folder-1", 1);
        assert_eq!((code(first.status), code(second.status)), (Some(1), Some(1)), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert!(!exists(&dir.path(name).join("metrics.jsonl")), "{name}: {said}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_at_the_start() {
    let dir = prepared();
    std::fs::create_dir_all(dir.path("full/processes")).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path("full/processes/rank-1.log")).unwrap();
    std::fs::create_dir_all(dir.path("file")).unwrap();
    dir.write("file/processes", "");
    for (run, reason) in [("full", "No space left on device"), ("file", "File exists")] {
        let output = dir.simplemix(&[RUN, &[run, "--processes", "2"]].concat());
        let expected = format!("{run}/processes/rank-1.log: writing failed: {reason}");
        assert_eq!(code(output.status), Some(1));
        assert!(stderr(&output).contains(&format!("error: rank 1 failed: {expected}")), "{}", stderr(&output));
        assert!(!exists(&dir.path(run).join("metrics.jsonl")));
    }
}

/// Variables of torchrun, which keeps the store and starts all again after a failure, and of Slurm, where rank 0 keeps it.
#[test]
fn processes_meet_by_the_variables_of_torchrun_and_slurm() {
    let dir = prepared();
    succeeds(&dir, &[RUN, &["whole"]].concat());
    let keeper = StoreKeeper::open().unwrap();
    let port = keeper.port().to_string();
    let attempt = |number: &str| {
        let variables =
            [("MASTER_PORT", &*port), ("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", number)];
        Ranks::start(&dir, 2, &variables, |_, command| {
            command.args(RUN).args(["torchrun", "--resume", "auto"]);
        })
    };
    let mut first = attempt("0");
    until_it_runs(&dir, "torchrun");
    first.kill(1);
    assert_eq!(code(first.end(0).status), Some(1));
    let mut second = attempt("1");
    for rank in 0..2 {
        let output = second.end(rank);
        assert_eq!(code(output.status), Some(0), "{}{}", stderr(&output), log(&dir, "torchrun", 1));
    }
    as_whole(&dir, "torchrun");
    // Memory is planned for as many as there are, and the run folder says so; what it says holds no other number up.
    let settings = std::fs::read_to_string(dir.path("torchrun/config.toml")).unwrap();
    assert!(settings.contains("\nprocesses = 2\n"), "{settings}");
    let mut others = Ranks::meet(&dir, 3, |_, command| {
        command.args(["train", "--resume", "torchrun"]);
    });
    for rank in 0..3 {
        let output = others.end(rank);
        assert_eq!(code(output.status), Some(0), "{}{}", stderr(&output), log(&dir, "torchrun", 1));
    }

    let port = free_port();
    let variables = [
        ("RANK", ""),
        ("WORLD_SIZE", ""),
        ("LOCAL_RANK", ""),
        ("MASTER_PORT", &*port),
        ("SLURM_JOB_ID", "7"),
        ("SLURM_STEP_ID", "0"),
        ("SLURM_STEP_NUM_TASKS", "2"),
        ("SLURM_STEP_NODELIST", "n[1-2]"),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x2)"),
        ("SLURM_LOCALID", "0"),
    ];
    let mut tasks = Ranks::start(&dir, 2, &variables, |rank, command| {
        let rank = rank.to_string();
        command.envs([("SLURM_PROCID", &rank), ("SLURM_NODEID", &rank)]).args(RUN).arg("slurm");
    });
    for rank in 0..2 {
        let output = tasks.end(rank);
        assert_eq!(code(output.status), Some(0), "{}{}", stderr(&output), log(&dir, "slurm", 1));
    }
    as_whole(&dir, "slurm");
}

/// The disk of the process that writes takes twice the limit for a part of a checkpoint.
#[cfg(all(feature = "faults", debug_assertions))]
#[test]
fn a_slow_checkpoint_is_no_hang() {
    let dir = prepared();
    let operations = dir.path("operations");
    let run = |output: &str, variable: &str, value: &str| {
        let mut ranks = Ranks::meet(&dir, 2, |rank, command| {
            let few = ["--max-steps", "3", "--save-every-steps", "1", "--set", "parallel.time_limit=3"];
            command.args(RUN).arg(output).args(few);
            if rank == 0 {
                command.env(variable, value);
            }
        });
        for rank in 0..2 {
            let output = ranks.end(rank);
            assert_eq!(code(output.status), Some(0), "{}", stderr(&output));
        }
    };
    run("fast", "SIMPLEMIX_FAULT_LOG", operations.to_str().unwrap());
    let text = std::fs::read_to_string(operations).unwrap();
    let is_of_checkpoint = |line: &&str| line.starts_with("write") && line.contains("checkpoints");
    let number = text.lines().position(|line| is_of_checkpoint(&line)).unwrap() + 1;
    let since = Instant::now();
    run("slow", "SIMPLEMIX_FAULT", &format!("stall:{number}:6"));
    assert!(since.elapsed() > Duration::from_secs(6));
}
