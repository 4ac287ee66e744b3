//! Scores from a program, which reads a line of JSON for each response and writes a line of JSON with its score.
//!
//! Input: `{"id", "prompt", "response", "answer", "task"}`, where `prompt` is text or messages, and `answer` a text, or a list of
//! texts of which any is right. Output: `{"score": 0.5}` or
//! `{"score": null}`, in the order of the input. The program is started once for each chunk of prompts, so that it can load
//! a model. It is killed if it takes too long or writes too much.

use std::io::{BufWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::scorer::{Group, ScoreSink, Scorer};

/// Settings of an external scorer: a program and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// Command line, run by `sh -c`.
    pub command: String,
    /// Time limit for a chunk of prompts, in seconds.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: f64,
    /// Largest output for each response, in bytes.
    #[serde(default = "max_line_bytes")]
    pub max_line_bytes: u64,
}

fn timeout_secs() -> f64 {
    600.0
}

fn max_line_bytes() -> u64 {
    4096
}

impl CommandSettings {
    /// Defaults for the command line `command`.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), timeout_secs: timeout_secs(), max_line_bytes: max_line_bytes() }
    }
}

/// Scorer that runs a program.
#[derive(Debug)]
pub(crate) struct CommandScorer(CommandSettings);

impl CommandScorer {
    /// Checks the settings. The program is started later.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range.
    pub(crate) fn new(settings: CommandSettings) -> Result<Self> {
        if settings.command.trim().is_empty() {
            return Err(Error::Setting { key: "command", found: "empty".into(), expected: "a command line" });
        }
        if !(settings.timeout_secs > 0.0 && settings.timeout_secs <= 1e6) {
            let found = settings.timeout_secs.to_string();
            return Err(Error::Setting { key: "timeout_secs", found, expected: "a number > 0 and <= 1e6" });
        }
        Ok(Self(settings))
    }

    fn error(&self, found: impl Into<String>, expected: &'static str) -> Error {
        Error::Command { command: self.0.command.clone(), found: found.into(), expected }
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", &self.0.command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A process group, so that the programs that the shell starts can be killed with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|error| self.error(error.to_string(), "a program that starts"))
    }

    fn run(&self, groups: &[Group], sink: &dyn ScoreSink) -> Result<Vec<Vec<Option<f64>>>> {
        let lines: Vec<String> = groups.iter().flat_map(lines_of).collect();
        let most = self.0.max_line_bytes.saturating_mul(lines.len() as u64 + 1);
        let mut child = KillOnDrop(self.start()?);
        let (stdin, stdout) = (child.0.stdin.take(), child.0.stdout.take());
        // Input and output have their own threads: a program may write before it has read everything, or never read.
        let input = lines.join("\n") + "\n";
        std::thread::spawn(move || {
            if let Some(stdin) = stdin {
                // If the program ends early, its output or exit status tells.
                let _ = BufWriter::new(stdin).write_all(input.as_bytes());
            }
        });
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.map_or(Ok(0), |stdout| stdout.take(most + 1).read_to_end(&mut bytes));
            let _ = sender.send(read.map(|_| bytes));
        });
        let until = now() + Duration::from_secs_f64(self.0.timeout_secs);
        let bytes = loop {
            match output.recv_timeout(Duration::from_millis(50)) {
                Ok(read) => break read.map_err(|error| self.error(error.to_string(), "output"))?,
                Err(RecvTimeoutError::Timeout) if sink.is_interrupted() => return Err(Error::Interrupted),
                Err(RecvTimeoutError::Timeout) if now() < until => {}
                Err(_) => {
                    let found = format!("not finished after {} s", self.0.timeout_secs);
                    return Err(self.error(found, "an end within `timeout_secs`"));
                }
            }
        };
        if bytes.len() as u64 > most {
            let found = format!("more than {most} bytes for {} responses", lines.len());
            return Err(self.error(found, "at most `max_line_bytes` for each"));
        }
        let status = child.0.wait().map_err(|error| self.error(error.to_string(), "an exit status"))?;
        if !status.success() {
            return Err(self.error(status.to_string(), "exit status 0"));
        }
        self.parse(&bytes, groups, lines.len())
    }

    fn parse(&self, bytes: &[u8], groups: &[Group], expected: usize) -> Result<Vec<Vec<Option<f64>>>> {
        #[derive(Deserialize)]
        struct Line {
            score: Option<f64>,
        }
        let text = String::from_utf8_lossy(bytes);
        let mut scores = Vec::with_capacity(expected);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                let shown: String = line.chars().take(80).collect();
                self.error(format!("line {}: {shown}: {error}", scores.len() + 1), "{\"score\": NUMBER}")
            })?;
            scores.push(line.score);
        }
        if scores.len() != expected {
            let found = format!("{} scores for {expected} responses", scores.len());
            return Err(self.error(found, "one score for each response"));
        }
        let mut scores = scores.into_iter();
        Ok(groups.iter().map(|group| scores.by_ref().take(group.responses.len()).collect()).collect())
    }
}

fn lines_of(group: &Group) -> Vec<String> {
    let prompt = &group.prompt;
    let line = |response: &String| {
        serde_json::json!({
            "id": prompt.id, "prompt": prompt.prompt, "response": response, "answer": prompt.answer, "task": prompt.task,
        })
        .to_string()
    };
    group.responses.iter().map(line).collect()
}

/// A program that is killed when it is no longer used.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // Each of these fails only if the program has ended by itself.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).stderr(Stdio::null()).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a time limit; no result depends on it")]
fn now() -> Instant {
    Instant::now()
}

impl Scorer for CommandScorer {
    fn name(&self) -> &str {
        "command"
    }

    fn fingerprint(&self) -> String {
        self.0.command.clone()
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let scores = self.run(groups, sink)?;
        sink.keep(scores.into_iter().enumerate().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Prompt;
    use crate::scorer::score_all;

    fn groups() -> Vec<Group> {
        let group = |id: &str, responses: &[&str]| Group {
            prompt: Prompt::new(id, "q\n?").with_answer("4"),
            responses: responses.iter().map(|text| (*text).to_owned()).collect(),
        };
        vec![group("a", &["x", "y\nz"]), group("b", &[]), group("c", &["w"])]
    }

    fn run(command: &str, timeout_secs: f64) -> Result<Vec<Vec<Option<f64>>>> {
        let settings = CommandSettings { timeout_secs, ..CommandSettings::new(command) };
        score_all(&mut CommandScorer::new(settings).unwrap(), &groups())
    }

    #[test]
    fn every_response_is_a_line_and_every_line_a_score() {
        let numbers = run("awk '{print \"{\\\"score\\\": \" NR \"}\"}'", 60.0).unwrap();
        assert_eq!(numbers, [vec![Some(1.0), Some(2.0)], vec![], vec![Some(3.0)]]);
        let grep = "while read -r line; do case $line in *'\"response\":\"w\"'*) echo '{\"score\": 1}';; *) echo '{\"score\": null}';; esac; done";
        assert_eq!(run(grep, 60.0).unwrap(), [vec![None, None], vec![], vec![Some(1.0)]]);
    }

    #[test]
    fn several_answers_are_a_list_and_one_is_a_text() {
        let answer = |json: &str| {
            let prompt = Prompt { answer: serde_json::from_str(json).unwrap(), ..Prompt::new("a", "q") };
            let line = lines_of(&Group { prompt, responses: vec!["x".to_owned()] }).remove(0);
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["answer"].to_string()
        };
        for (found, told) in [(r#""4""#, r#""4""#), (r#"["4"]"#, r#""4""#), (r#"["4","four"]"#, r#"["4","four"]"#)] {
            assert_eq!(answer(found), told);
        }
        assert!(serde_json::from_str::<crate::Answer>("[]").is_err());
    }

    #[test]
    fn failures_are_reported_and_bounded() {
        let said = |command: &str, timeout: f64| run(command, timeout).unwrap_err().to_string();
        assert!(said("true", 60.0).contains("0 scores for 3 responses"));
        assert!(said("cat > /dev/null; echo 5; echo 6; echo 7", 60.0).contains("line 1: 5"));
        assert!(said("cat > /dev/null; exit 3", 60.0).contains("exit status: 3"));
        assert!(said("yes", 60.0).contains("more than 16384 bytes"));
        let before = now();
        assert!(said("sleep 600", 0.2).contains("not finished after 0.2 s"));
        assert!(before.elapsed() < Duration::from_secs(30));
        assert!(CommandScorer::new(CommandSettings::new(" ")).is_err());
    }
}
