//! Lines on the two standard streams, the one place where the program prints. Lines for people are cleaned of secrets and of
//! characters that would control a terminal; JSON keeps its values; a text of a `Laid` was cleaned when it was laid out. A pipe
//! that is closed ends them quietly; any other failure to write the result is
//! kept for the end of the command. Where there is no terminal, long work that says nothing is heard of now and then.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use simplemix_files::secret::{redacted, without_secrets};

use crate::failure::{Failure, Result};
use crate::layout::Laid;
use simplemix_eval::plain::{clean, clean_json, clean_line};

/// Whether nobody reads standard output any more, or it cannot be written.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The failure to write the result.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Time of the last line on either stream.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Longest silence of a command at work.
const SILENCE: Duration = Duration::from_secs(60);

/// File that takes what a process has to say for which another one speaks.
static LOG: OnceLock<PathBuf> = OnceLock::new();

/// From now on nothing is printed, since another process speaks for this one; what is beside the result goes to the file `log`.
pub(crate) fn leave_to(log: PathBuf) {
    IS_CLOSED.store(true, Ordering::SeqCst);
    let _ = LOG.set(log);
}

/// Writes a line to the file that stands in for standard error, if there is one.
///
/// # Errors
/// The failure with the file's path.
pub(crate) fn log(line: &str) -> std::io::Result<()> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let failed = |reason: std::io::Error| {
        std::io::Error::new(reason.kind(), format!("{}: writing failed: {reason}", log.display()))
    };
    opened(log).and_then(|mut file| writeln!(file, "{line}")).map_err(failed)
}

fn opened(log: &Path) -> std::io::Result<std::fs::File> {
    log.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::OpenOptions::new().create(true).append(true).open(log)
}

/// Whether another process speaks for this one.
pub(crate) fn is_elsewhere() -> bool {
    LOG.get().is_some()
}

/// Standard error, or the file that stands in for it.
pub(crate) fn beside() -> Box<dyn Write> {
    let file = LOG.get().and_then(|log| opened(log).ok());
    file.map_or_else(|| Box::new(std::io::stderr()) as Box<dyn Write>, |file| Box::new(file))
}

/// A line of the command's result.
pub(crate) fn print(line: &str) {
    print_bytes(format!("{}\n", clean_line(&redacted(line))).as_bytes());
}

/// Several lines of the command's result, such as a table.
pub(crate) fn print_lines(lines: &str) {
    print_bytes(format!("{}\n", shown(lines)).as_bytes());
}

/// JSON as the command's result.
pub(crate) fn print_json(json: &str) {
    print_bytes(format!("{}\n", clean_json(&without_secrets(json))).as_bytes());
}

/// Texts of data, laid out for reading.
pub(crate) fn print_laid(laid: &Laid) {
    print_bytes(format!("{laid}\n").as_bytes());
}

/// A text as people see it: without secrets, and without characters that act.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match redacted(text) {
        Cow::Borrowed(text) => clean(text),
        Cow::Owned(text) => clean(&text).into_owned().into(),
    }
}

/// A part of the command's result as it is.
pub(crate) fn print_bytes(bytes: &[u8]) {
    if is_closed() {
        return;
    }
    note_time();
    let mut stream = std::io::stdout().lock();
    if let Err(error) = stream.write_all(bytes).and_then(|()| stream.flush()) {
        IS_CLOSED.store(true, Ordering::SeqCst);
        if error.kind() != ErrorKind::BrokenPipe {
            *FAILED.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// A line beside the result; further lines of a text are indented, so that no name in it can begin a line of its own. Where it
/// cannot be written, there is no place to say so.
pub(crate) fn warn(line: &str) {
    note_time();
    let line = shown(line).replace('\n', "\n  ");
    match LOG.get() {
        None => drop(writeln!(std::io::stderr(), "{line}")),
        Some(_) => {
            if let Err(reason) = log(&line) {
                // A terminal or a launcher's log may take what the disk does not.
                let _ = writeln!(std::io::stderr(), "{line}\n{}", shown(&reason.to_string()));
            }
        }
    }
}

/// From now on, a line says that `command` is at work whenever it was silent for a minute. A terminal has bars for that.
pub(crate) fn break_silences(command: String) {
    if std::io::stderr().is_terminal() {
        return;
    }
    let start = now();
    note_time();
    std::thread::spawn(move || {
        loop {
            let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(start);
            match left_of_silence(last, now()) {
                Some(left) => std::thread::sleep(left),
                None => warn(&format!("{command}: at work for {} s", start.elapsed().as_secs())),
            }
        }
    });
}

/// Time until a line is due after the last one; `None` if it is due.
fn left_of_silence(last: Instant, now: Instant) -> Option<Duration> {
    (last + SILENCE).checked_duration_since(now).filter(|left| !left.is_zero())
}

fn note_time() {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
}

#[expect(clippy::disallowed_methods, reason = "silences are measured")]
fn now() -> Instant {
    Instant::now()
}

/// Whether further lines of the result would reach nobody.
pub(crate) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::SeqCst)
}

/// Fails if a line of the result could not be written, except into a closed pipe.
pub(crate) fn written() -> Result {
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => Ok(()),
        Some(error) => Err(Failure::Run(anyhow::anyhow!("{}", cannot_be_written(&error)))),
    }
}

/// The failure to write the result, in words.
pub(crate) fn cannot_be_written(reason: &std::io::Error) -> String {
    format!("standard output: writing failed: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_broken_after_a_minute() {
        let last = now();
        assert_eq!(left_of_silence(last, last + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(left_of_silence(last, last + SILENCE), None);
        assert_eq!(left_of_silence(last, last + 3 * SILENCE), None);
    }
}
