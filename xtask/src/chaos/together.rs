//! Kills of a random rank in runs of two and four processes, each of which goes on with another number of processes: the curve and the
//! weights are those of an unbroken run, nobody hangs, nothing is left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::{Moments, Row};
use crate::now;
use crate::trials::Bench;

/// Time after which a command that has not ended hangs.
const HANGS: Duration = Duration::from_secs(600);
/// Largest difference of a loss, and of a tensor's weights as a share of their norm.
const NEAR: f64 = 1e-6;

const TRAIN: &str = "train --model model --train pairs.jsonl --batch-size 7 --max-steps 30 --learning-rate 1e-4 --save-every-steps 3 \
                     --set checkpoint.keep=2";

/// Losses by update, and weights by name.
#[derive(Debug)]
struct Outcome {
    losses: BTreeMap<u64, f64>,
    weights: BTreeMap<String, Vec<f64>>,
}

/// Kills `kills` ranks, half of them in runs of two processes and half in runs of four.
pub(super) fn kill_ranks(bench: &Bench, seed: u64, kills: usize) -> Result<Row> {
    let mut row = Row { name: "ranks", ..Row::default() };
    fs::write(bench.folder.join("pairs.jsonl"), pairs(60)).context("cannot write the pairs")?;
    let mut ended = start(bench, "whole", 1)?;
    let since = now();
    let status = until_ended(&mut ended)?.ok_or_else(|| anyhow!("a run of one process hangs"))?;
    anyhow::ensure!(status.success(), "a run of one process fails");
    let whole = Outcome::read(&bench.folder.join("whole")).map_err(|error| anyhow!(error))?;
    row.seconds = since.elapsed().as_secs_f64();
    let durations = [2, 4].map(|size| unbroken(bench, &whole, size));
    let mut moments = Moments { state: seed };
    for attempt in 0..4 * kills {
        if row.kills == kills {
            break;
        }
        let size = if attempt % 2 == 0 { 2 } else { 4 };
        let duration = durations[attempt % 2].as_ref().map_err(|error| anyhow!("{size} processes: {error}"))?;
        // Spread over the run, as the attempts are numbered, with a random part.
        let place = ((attempt / 2) % kills.div_ceil(2)) as f64 + moments.next();
        let kill = Kill {
            size,
            rank: (moments.next() * size as f64) as usize,
            after: duration.mul_f64(place / kills.div_ceil(2) as f64),
            next: [1, 2, 3, 4]
                .into_iter()
                .filter(|next| *next != size)
                .nth((moments.next() * 3.0) as usize)
                .unwrap_or(1),
        };
        match kill.run(bench, &whole) {
            Ok(false) => {}
            outcome => {
                row.kills += 1;
                row.note(outcome.map(drop).map_err(|error| format!("seed {seed}: {kill:?}: {error}")));
            }
        }
    }
    Ok(row)
}

/// Time of a run of `size` processes that nobody kills.
fn unbroken(bench: &Bench, whole: &Outcome, size: usize) -> Result<Duration, String> {
    let (name, since) = (format!("of-{size}"), now());
    let mut child = start(bench, &name, size).map_err(|error| error.to_string())?;
    let status = until_ended(&mut child).map_err(|error| error.to_string())?.ok_or("hangs")?;
    if !status.success() {
        return Err("fails without a kill".to_owned());
    }
    let duration = since.elapsed();
    whole.compare(&Outcome::read(&bench.folder.join(name))?)?;
    Ok(duration)
}

/// A kill, and the number of processes that go on.
#[derive(Debug)]
struct Kill {
    size: usize,
    rank: usize,
    after: Duration,
    next: usize,
}

impl Kill {
    /// False if the run ended before the kill.
    fn run(&self, bench: &Bench, whole: &Outcome) -> Result<bool, String> {
        let failed = |error: anyhow::Error| error.to_string();
        let run = bench.folder.join("killed");
        if run.exists() {
            fs::remove_dir_all(&run).map_err(|error| error.to_string())?;
        }
        let mut launcher = start(bench, "killed", self.size).map_err(failed)?;
        std::thread::sleep(self.after);
        let ranks = ranks_of(launcher.id());
        let Some(id) = ranks.get(&self.rank).filter(|_| matches!(launcher.try_wait(), Ok(None))) else {
            until_ended(&mut launcher).map_err(failed)?;
            return Ok(false);
        };
        kill(*id);
        let status = until_ended(&mut launcher).map_err(failed)?.ok_or("the others hang")?;
        let left: Vec<&u32> = ranks.values().filter(|id| Path::new(&format!("/proc/{id}")).exists()).collect();
        if !left.is_empty() {
            return Err(format!("processes {left:?} are left"));
        }
        if status.code() != Some(1) && !run.join("finished.json").exists() {
            return Err(format!("ends with {status}, expected code 1"));
        }
        check_checkpoints(&run)?;
        let mut child = start(bench, "killed", self.next).map_err(failed)?;
        let status = until_ended(&mut child).map_err(failed)?.ok_or("hangs when it goes on")?;
        if !status.success() {
            return Err(format!("does not go on: {status}; see {}", bench.folder.join("killed.log").display()));
        }
        whole.compare(&Outcome::read(&run)?)?;
        Ok(true)
    }
}

/// Starts a run, or goes on with it; what it says goes to a file beside its folder.
fn start(bench: &Bench, name: &str, processes: usize) -> Result<Child> {
    let log = fs::File::create(bench.folder.join(format!("{name}.log"))).context("cannot write a log")?;
    let mut command = bench.command(&format!("{TRAIN} --resume auto --processes {processes} --output {name}"));
    command.env("OMP_NUM_THREADS", "1").stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
    command.spawn().context("cannot start the program")
}

/// The end of a process; none if it hangs, after which it is killed.
fn until_ended(child: &mut Child) -> Result<Option<ExitStatus>> {
    let since = now();
    while since.elapsed() < HANGS {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ranks_of(child.id()).values().for_each(|id| kill(*id));
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn kill(id: u32) {
    // One that has ended meanwhile cannot be killed.
    let _ = Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status();
}

/// Processes that a launcher has started, by rank.
fn ranks_of(launcher: u32) -> BTreeMap<usize, u32> {
    let ids =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let rank = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let rank = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"RANK="))?;
        let rank = std::str::from_utf8(rank).ok()?.parse().ok()?;
        (parent == launcher).then_some((rank, id))
    };
    ids.filter_map(rank).collect()
}

/// Checks that the checkpoints that have their names are whole: their files are those that checksums.json names.
fn check_checkpoints(run: &Path) -> Result<(), String> {
    for entry in fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let problem = |error: String| format!("{}: {error}", path.display());
        let text = fs::read(path.join("checksums.json")).map_err(|error| problem(error.to_string()))?;
        let sums: serde_json::Value = serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))?;
        let names = sums.as_object().ok_or_else(|| problem("checksums.json holds no table".to_owned()))?;
        if let Some(missing) = names.keys().find(|name| !path.join(name).is_file()) {
            return Err(problem(format!("{missing} is missing")));
        }
        for name in ["model.safetensors", "optimizer.safetensors"] {
            tensors(&path.join(name))?;
        }
    }
    Ok(())
}

impl Outcome {
    fn read(run: &Path) -> Result<Self, String> {
        let path = run.join("metrics.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut losses = BTreeMap::new();
        for line in text.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{}: {error}", path.display()))?;
            if let (Some(step), Some(loss)) = (line["step"].as_u64(), line["loss"].as_f64())
                && losses.insert(step, loss).is_some()
            {
                return Err(format!("{}: update {step} is there twice", path.display()));
            }
        }
        Ok(Self { losses, weights: tensors(&run.join("model/model.safetensors"))? })
    }

    fn compare(&self, other: &Self) -> Result<(), String> {
        if !self.losses.keys().eq(other.losses.keys()) {
            return Err(format!("{} updates, expected {}", other.losses.len(), self.losses.len()));
        }
        for ((step, loss), other) in self.losses.iter().zip(other.losses.values()) {
            if (loss - other).abs() > NEAR {
                return Err(format!("the loss of update {step} is {other}, expected {loss}"));
            }
        }
        for (name, values) in &self.weights {
            let other = other.weights.get(name).ok_or_else(|| format!("{name} is missing"))?;
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let apart = norm(&mut values.iter().zip(other).map(|(a, b)| a - b)) / norm(&mut values.iter().copied());
            if values.len() != other.len() || apart.is_nan() || apart > NEAR {
                return Err(format!("{name} differs by {apart} of its norm"));
            }
        }
        Ok(())
    }
}

/// Tensors of f32 in a file of safetensors.
fn tensors(path: &PathBuf) -> Result<BTreeMap<String, Vec<f64>>, String> {
    let problem = |error: &str| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(|error| problem(&error.to_string()))?;
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| problem("is cut off"))?;
    let length = u64::from_le_bytes(*length) as usize;
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| problem("is cut off"))?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| problem(&error.to_string()))?;
    let tensor = |(name, entry): (String, serde_json::Value)| {
        let place = |at: usize| entry["data_offsets"][at].as_u64().map(|place| place as usize);
        let part = place(0).zip(place(1)).and_then(|(start, end)| data.get(start..end));
        let (values, _) = part.ok_or_else(|| problem("is cut off"))?.as_chunks();
        Ok((name, values.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()))
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect()
}

fn pairs(count: usize) -> String {
    let turn = |role: &str, text: String| serde_json::json!([{ "role": role, "content": text }]);
    let pair = |i: usize| {
        let prompt = turn("user", format!("question {i}{}", " and more".repeat(i % 5)));
        let (chosen, rejected) = (format!("a good answer {i}{}", ", indeed".repeat(i % 4)), format!("no {i}"));
        let (chosen, rejected) = (turn("assistant", chosen), turn("assistant", rejected));
        serde_json::json!({ "prompt": prompt, "chosen": chosen, "rejected": rejected }).to_string()
    };
    (0..count).map(pair).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_and_weights_are_compared() {
        let of = |loss: f64, weight: f64| Outcome {
            losses: BTreeMap::from([(1, 0.5), (2, loss)]),
            weights: BTreeMap::from([("a".to_owned(), vec![3.0, weight])]),
        };
        let whole = of(0.4, 4.0);
        assert_eq!(whole.compare(&of(0.4 + 9e-7, 4.0 + 4e-6)), Ok(()));
        assert!(whole.compare(&of(0.4 + 2e-6, 4.0)).unwrap_err().starts_with("the loss of update 2 is 0.400002"));
        assert!(whole.compare(&of(0.4, 4.0 + 6e-6)).unwrap_err().starts_with("a differs by 0.00000"));
        let short = Outcome { losses: BTreeMap::from([(1, 0.5)]), weights: BTreeMap::new() };
        assert_eq!(whole.compare(&short).unwrap_err(), "1 updates, expected 2");
    }
}
