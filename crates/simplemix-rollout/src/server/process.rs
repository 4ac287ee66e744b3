//! A server that this process starts and stops.
//!
//! A shell leads the server's process group. It holds the reading end of a pipe whose other end this process has: if this process
//! ends in any way, even killed, the shell finds the pipe closed, and ends the group. Nothing of this needs `unsafe`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use simplemix_files::secret::redacted;

use super::waiting::sleep;
use crate::error::{At, Error, Result};

/// Variable that hands the command line to the leading shell.
const COMMAND: &str = "SIMPLEMIX_SERVER_COMMAND";

/// The leading shell: a guard waits for the end of the pipe, and the shell for the server, also after a signal.
const LEADER: &str = r#"
exec 3<&0 </dev/null
(trap '' TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 10; kill -KILL 0) &
guard=$!
exec 3<&-
trap : TERM
sh -c "$SIMPLEMIX_SERVER_COMMAND" &
server=$!
while wait "$server"; status=$?; kill -0 "$server" 2>/dev/null; do :; done
kill -KILL "$guard" 2>/dev/null
exit "$status"
"#;

/// Time that a server has to end after it was told to.
const GRACE: Duration = Duration::from_secs(15);
/// Last part of a log that an error shows, in bytes and lines.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 20;

/// A server that was started here, and ends with this value.
#[derive(Debug)]
pub(super) struct ServerProcess {
    /// The leading shell, whose standard input is the pipe.
    leader: Child,
    command: String,
    log: PathBuf,
    /// Whether what is left of the group is none of this process's business.
    is_over: bool,
}

impl ServerProcess {
    /// Runs a command line with these variables; what it says goes to the end of `log`.
    pub(super) fn start(command: &str, variables: &[(&str, String)], log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).at(log, "open")?;
        let errors = file.try_clone().at(log, "open")?;
        let mut leader = Command::new("sh");
        leader.args(["-c", LEADER]).env(COMMAND, command).envs(variables.iter().map(|(name, value)| (name, value)));
        leader.stdin(Stdio::piped()).stdout(file).stderr(errors).process_group(0);
        let leader = leader.spawn().map_err(|error| Error::Command {
            command: command.to_owned(),
            found: error.to_string(),
            expected: "a program that starts",
        })?;
        Ok(Self { leader, command: command.to_owned(), log: log.to_owned(), is_over: false })
    }

    /// Whether the command has ended well. What it has started in the background goes on.
    pub(super) fn succeeded(&mut self) -> bool {
        self.is_over |= matches!(self.leader.try_wait(), Ok(Some(status)) if status.success());
        self.is_over
    }

    /// The failure of a server that has ended by itself.
    pub(super) fn ended(&mut self) -> Option<Error> {
        let status = self.leader.try_wait().ok()??;
        let how = match status.code() {
            Some(code) => format!("exit code {code}"),
            None => status.to_string(),
        };
        Some(self.failure(format!("has ended with {how}")))
    }

    /// A failure with the last lines of the log.
    pub(super) fn failure(&self, found: String) -> Error {
        Error::ServerProcess { command: self.command.clone(), found, log: self.log.clone(), tail: tail(&self.log) }
    }

    /// Ends the server: by SIGTERM, and by SIGKILL what is left after a while.
    fn stop(&mut self) {
        let group = Pid::from_raw(self.leader.id().cast_signed());
        // Signals fail where nothing is left to receive them.
        let _ = killpg(group, Signal::SIGTERM);
        let until = now() + GRACE;
        while matches!(self.leader.try_wait(), Ok(None)) && now() < until {
            sleep(Duration::from_millis(20), &|| false);
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.leader.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if !self.is_over {
            self.stop();
        }
    }
}

/// The last lines of a log, without secrets.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    redacted(&lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")).into_owned()
}

/// A text as one word of a shell's command line.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[expect(clippy::disallowed_methods, reason = "a time limit; no result depends on it")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the file holds a number, which it returns.
    fn number(path: &Path) -> i32 {
        let until = now() + Duration::from_secs(20);
        loop {
            if let Ok(number) = std::fs::read_to_string(path).unwrap_or_default().trim().parse() {
                return number;
            }
            assert!(now() < until, "no number in {}", path.display());
            sleep(Duration::from_millis(10), &|| false);
        }
    }

    fn is_alive(process: i32) -> bool {
        // A process that has ended and was not waited for is none.
        let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    #[test]
    fn a_server_ends_with_all_that_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (child, own) = (path("child").display().to_string(), path("own").display().to_string());
        // One process ends by SIGTERM, the other ignores it.
        let line = format!("(trap '' TERM; sh -c 'echo $$ > {child}; exec sleep 600') & echo $$ > {own}; sleep 600");
        let mut server = ServerProcess::start(&line, &[], &path("log")).unwrap();
        let processes = [number(&path("child")), number(&path("own"))];
        assert!(processes.into_iter().all(is_alive) && server.ended().is_none());
        drop(server);
        let until = now() + Duration::from_secs(5);
        while processes.into_iter().any(is_alive) {
            assert!(now() < until, "{processes:?} go on");
            sleep(Duration::from_millis(10), &|| false);
        }
    }

    /// The pipe of a process that was killed is closed, as by this drop of its end alone.
    #[test]
    fn a_server_ends_with_whoever_has_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let line = format!("echo $$ > {}; sleep 600", own.display());
        let mut server = ServerProcess::start(&line, &[], &dir.path().join("log")).unwrap();
        let process = number(&own);
        drop(server.leader.stdin.take());
        let until = now() + Duration::from_secs(9);
        while is_alive(process) {
            assert!(now() < until, "{process} goes on");
            sleep(Duration::from_millis(10), &|| false);
        }
    }

    #[test]
    fn the_end_of_a_server_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let line = "for i in $(seq 50); do echo line $i; done; echo $WORD >&2; exit 3";
        let log = dir.path().join("log");
        let mut server = ServerProcess::start(line, &[("WORD", "no memory".to_owned())], &log).unwrap();
        let until = now() + Duration::from_secs(20);
        let error = loop {
            if let Some(error) = server.ended() {
                break error.to_string();
            }
            assert!(now() < until);
            sleep(Duration::from_millis(10), &|| false);
        };
        assert!(error.contains("has ended with exit code 3") && error.contains("line 50\nno memory"), "{error}");
        assert!(!error.contains("line 20\n") && error.contains("/log"), "{error}");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        let text = "a b'c $HOME \"d";
        let output = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    }
}
