//! Locks between processes.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{At, Error, Result};
use crate::secret::redacted;
use crate::system;

/// A lock file, held until it is dropped or its process ends, however that ends.
///
/// The lock is the system's (`flock`); the file says who holds it and is removed when the lock is released. A file left by
/// a killed process holds nothing back.
///
/// # Network file systems
/// NFS since version 3 locks across machines, unless it is mounted with `nolock` (then: within one machine). On file
/// systems that know no locks at all a lock is always granted: two processes are then kept apart by nothing.
///
/// # Examples
/// ```
/// use simplemix_files::{Error, Lock};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("run.lock");
/// let lock = Lock::acquire(&path)?;
/// assert!(matches!(Lock::acquire(&path), Err(Error::Locked { .. })));
/// drop(lock);
/// Lock::acquire(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// Process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Process number.
    pub process: u32,
    /// Name of its machine.
    pub host: String,
    /// Command line, cut to a readable length.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {} (`{}`)", self.process, self.host, self.command)
    }
}

/// How often a waiting process looks.
const PAUSE: Duration = Duration::from_millis(100);

impl Lock {
    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`Error::Locked`], which says who holds it; [`Error::Io`] if the file cannot be made.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Self> {
        Self::wait(path, &mut |_| false)
    }

    /// Waits for the lock. While it is taken, `go_on` is asked several times a second whether to wait on, and is told who
    /// holds it, if that is known.
    ///
    /// # Errors
    /// [`Error::Locked`] once `go_on` has said no; [`Error::Io`] if the file cannot be made.
    pub fn wait(path: impl AsRef<Path>, go_on: &mut dyn FnMut(Option<&Holder>) -> bool) -> Result<Self> {
        Self::wait_at(path.as_ref(), go_on)
    }

    fn wait_at(path: &Path, go_on: &mut dyn FnMut(Option<&Holder>) -> bool) -> Result<Self> {
        let mut found = system::create(path, || attempt(path)).at(path, "lock")?;
        let file = loop {
            if let Some(file) = found {
                break file;
            }
            let holder = crate::input::read_to_string(path).ok().and_then(|text| Holder::parse(&text));
            if !go_on(holder.as_ref()) {
                return Err(Error::Locked { path: path.to_path_buf(), holder });
            }
            std::thread::sleep(PAUSE);
            found = attempt(path).at(path, "lock")?;
        };
        let lock = Self { path: path.to_path_buf(), file };
        system::set_len(&lock.file, path, 0).at(path, "write")?;
        system::write_all(&lock.file, path, Holder::this_process().text().as_bytes()).at(path, "write")?;
        Ok(lock)
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still locked; whoever waits for it sees that in `attempt`. A file that stays is no lock.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The locked file, or none if another process holds it.
fn attempt(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if !has_no_locks(&error) => return Err(error),
            // The holder may have removed the file after it was opened here.
            Ok(()) | Err(TryLockError::Error(_)) if is_at(&file, path)? => return Ok(Some(file)),
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|error| [Errno::NOLCK, Errno::NOSYS, Errno::NOTSUP].contains(&error))
}

/// Whether `path` still names this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok(own.nlink() > 0 && (own.dev(), own.ino()) == (found.dev(), found.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Holder {
    fn this_process() -> Self {
        let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let command: String = redacted(&words.join(" ")).chars().filter(|c| !c.is_control()).take(200).collect();
        Self { process: std::process::id(), host: host(), command }
    }

    fn text(&self) -> String {
        format!("process {}\nhost {}\ncommand {}\n", self.process, self.host, self.command)
    }

    /// The holder in a whole text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        Some(Self {
            process: lines.next()?.strip_prefix("process ")?.parse().ok()?,
            host: lines.next()?.strip_prefix("host ")?.to_owned(),
            command: lines.next()?.strip_prefix("command ")?.to_owned(),
        })
    }
}

/// Name of this machine.
fn host() -> String {
    let linux = || {
        let mut name = String::new();
        File::open("/proc/sys/kernel/hostname").ok()?.take(256).read_to_string(&mut name).ok()?;
        Some(name)
    };
    let elsewhere = || {
        let output = std::process::Command::new("uname").arg("-n").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = linux().or_else(elsewhere).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let lock = Lock::acquire(&path).unwrap();
        let Err(Error::Locked { holder: Some(holder), .. }) = Lock::acquire(&path) else { panic!("not refused") };
        assert_eq!(holder, Holder::this_process());
        assert_eq!(holder.process, std::process::id());
        assert!(!holder.host.is_empty() && holder.command.contains("simplemix_files"), "{holder}");
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_left_by_a_killed_process_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        fs::write(&path, "process 4000000\nhost far\ncommand a long command that is no more\n").unwrap();
        let lock = Lock::acquire(&path).unwrap();
        assert_eq!(Holder::parse(&fs::read_to_string(&path).unwrap()), Some(Holder::this_process()));
        drop(lock);
    }

    #[test]
    fn waiting_ends_with_the_lock_or_with_a_no() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut lock = Some(Lock::acquire(&path).unwrap());
        let mut asked = 0;
        let mut go_on = |_: Option<&Holder>| {
            asked += 1;
            lock = lock.take().filter(|_| asked < 3);
            true
        };
        let second = Lock::wait(&path, &mut go_on).unwrap();
        assert_eq!(asked, 3);
        assert!(matches!(Lock::wait(&path, &mut |_| false), Err(Error::Locked { .. })));
        drop(second);
    }

    #[test]
    fn one_of_many_holds_it_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        // Spinning makes the races that a pause would hide.
                        let lock = loop {
                            match Lock::acquire(&path) {
                                Ok(lock) => break lock,
                                Err(Error::Locked { .. }) => std::thread::yield_now(),
                                Err(error) => panic!("{error}"),
                            }
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn half_a_text_names_nobody() {
        let text = Holder::this_process().text();
        for end in 0..text.len() {
            assert_eq!(text.get(..end).and_then(Holder::parse), None);
        }
    }
}
