//! Locks between processes.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{At, Error, Result};
use crate::own::{Making, Own};
use crate::secret::redacted;
use crate::system;

/// A lock file, held until it is dropped or its process ends, however that ends.
///
/// The lock is the system's (`flock`); the file says who holds it and is removed when the lock is released. A file left by
/// a killed process holds nothing back.
///
/// # Network file systems
/// NFS since version 3 locks across machines, unless it is mounted with `nolock` (then: within one machine). On file
/// systems that know no locks at all, the lock file decides: it is refused while the process that it names lives on this
/// machine. Of a process on another machine nothing is known: the lock is granted, and [`Lock::doubt`] names it.
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
    doubt: Option<Holder>,
    own: Own,
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
    /// Time at which it took the lock, such as `2026-11-29 23:47:17 UTC`; empty where an earlier version took it.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {} (`{}`)", self.process, self.host, self.command)?;
        if self.since.is_empty() { Ok(()) } else { write!(f, " since {}", self.since) }
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
        let noted = || {
            let mut making = Making::begin();
            Ok(match attempt(path, try_lock)? {
                Attempt::Held { file, doubt } => Some((file, doubt, making.file(path))),
                Attempt::Taken => None,
            })
        };
        let mut found = system::create(path, noted).at(path, "lock")?;
        let (file, doubt, own) = loop {
            if let Some(held) = found {
                break held;
            }
            let holder = holder(path);
            if !go_on(holder.as_ref()) {
                return Err(Error::Locked { path: path.to_path_buf(), holder: holder.map(Box::new) });
            }
            std::thread::sleep(PAUSE);
            found = noted().at(path, "lock")?;
        };
        let lock = Self { path: path.to_path_buf(), file, doubt, own };
        system::set_len(&lock.file, path, 0).at(path, "write")?;
        system::write_all(&lock.file, path, Holder::this_process().text().as_bytes()).at(path, "write")?;
        Ok(lock)
    }

    /// Process on another machine that may hold the lock too, on a file system without locks.
    pub fn doubt(&self) -> Option<&Holder> {
        self.doubt.as_ref()
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // With its note, so that a signal does not take the next holder's file for this one.
        let mut making = Making::begin();
        // Removed while it is still locked; whoever waits for it sees that in `attempt`. A file that stays is no lock.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        making.gone(&self.own);
    }
}

/// End of an attempt to lock.
enum Attempt {
    Held { file: File, doubt: Option<Holder> },
    Taken,
}

fn try_lock(file: &File) -> Result<(), TryLockError> {
    file.try_lock()
}

fn attempt(path: &Path, try_lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Attempt> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let doubt = match try_lock(&file) {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Taken),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => match holder(path) {
                Some(holder) if holder.is_alive_here() => return Ok(Attempt::Taken),
                holder => holder.filter(|holder| holder.host != host()),
            },
            Err(TryLockError::Error(error)) => return Err(error),
        };
        // The holder may have removed the file after it was opened here.
        if is_at(&file, path)? {
            return Ok(Attempt::Held { file, doubt });
        }
    }
}

/// The holder that a lock file names.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    crate::input::open(path).ok()?.take(1 << 16).read_to_string(&mut text).ok()?;
    Holder::parse(&text)
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
    /// The process that a lock file names, as far as can be told without taking the lock: none if there is no lock, or if its process
    /// was one of this machine and has ended.
    ///
    /// # Examples
    /// ```
    /// use simplemix_files::{Holder, Lock};
    /// # let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("run.lock");
    /// let lock = Lock::acquire(&path)?;
    /// assert_eq!(Holder::of(&path).unwrap().process, std::process::id());
    /// drop(lock);
    /// assert_eq!(Holder::of(&path), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        holder(path.as_ref()).filter(|holder| holder.host != host() || is_alive(holder.process))
    }

    fn this_process() -> Self {
        let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let command: String = redacted(&words.join(" ")).chars().filter(|c| !c.is_control()).take(200).collect();
        Self { process: std::process::id(), host: host(), command, since: now() }
    }

    fn text(&self) -> String {
        let Self { process, host, command, since } = self;
        format!("process {process}\nhost {host}\ncommand {command}\nsince {since}\n")
    }

    /// Whether it is a process of this machine that has not ended.
    fn is_alive_here(&self) -> bool {
        self.host == host() && is_alive(self.process)
    }

    /// The holder in a whole text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let holder = Self {
            process: lines.next()?.strip_prefix("process ")?.parse().ok()?,
            host: lines.next()?.strip_prefix("host ")?.to_owned(),
            command: lines.next()?.strip_prefix("command ")?.to_owned(),
            since: match lines.next() {
                Some(line) => line.strip_prefix("since ")?.to_owned(),
                None => String::new(),
            },
        };
        lines.next().is_none().then_some(holder)
    }
}

fn is_alive(process: u32) -> bool {
    if cfg!(target_os = "linux") {
        return Path::new("/proc").join(process.to_string()).exists();
    }
    let asked = std::process::Command::new("kill").arg("-0").arg(process.to_string()).output();
    asked.is_ok_and(|asked| asked.status.success())
}

/// For whoever waits for the lock.
fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%d %H:%M:%S UTC").to_string()
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
        assert!(holder.since.ends_with(" UTC") && holder.to_string().contains("`) since 2"), "{holder}");
        assert_eq!(Holder { since: String::new(), ..(*holder).clone() }, this_process());
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
        let found = Holder::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(Holder { since: String::new(), ..found }, this_process());
        drop(lock);
    }

    /// Linux's answer of a file system without locks.
    fn no_locks(_: &File) -> Result<(), TryLockError> {
        Err(TryLockError::Error(rustix::io::Errno::NOLCK.into()))
    }

    #[test]
    fn without_locks_the_file_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let attempt_after = |holder: Option<&Holder>| {
            let _ = fs::remove_file(&path);
            if let Some(holder) = holder {
                fs::write(&path, holder.text()).unwrap();
            }
            match attempt(&path, no_locks).unwrap() {
                Attempt::Held { doubt, .. } => Some(doubt),
                Attempt::Taken => None,
            }
        };
        let living = Holder::this_process();
        assert_eq!(attempt_after(None), Some(None));
        assert_eq!(attempt_after(Some(&living)), None);
        assert_eq!(attempt_after(Some(&Holder { process: 4_000_000, ..living.clone() })), Some(None));
        let far = Holder { host: "far".to_owned(), ..living };
        assert_eq!(attempt_after(Some(&far)), Some(Some(far.clone())));
    }

    fn this_process() -> Holder {
        Holder { since: String::new(), ..Holder::this_process() }
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
        let holder = Holder { host: "h".into(), command: "c d".into(), ..Holder::this_process() };
        let text = holder.text();
        let of_version_1 = text.find("since").unwrap();
        for end in 0..text.len() {
            let found = text.get(..end).and_then(Holder::parse);
            assert_eq!(found.is_some(), end == of_version_1, "{end}");
        }
        assert_eq!(Holder::parse(&text), Some(holder));
    }
}
